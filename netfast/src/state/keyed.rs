//! Interfaces as keys of JSON objects: `7` is in the network namespace that the daemon serves, `3:7` in number 3.

use std::collections::BTreeMap;

use netfast_common::device::{DeviceKey, NetnsNumber};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub fn serialize<T: Serialize, S: Serializer>(map: &BTreeMap<DeviceKey, T>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(device, value)| (text(*device), value)))
}

pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<DeviceKey, T>, D::Error> {
    let read = BTreeMap::<String, T>::deserialize(deserializer)?;
    let keyed = read.into_iter().map(|(key, value)| {
        let device = parse(&key).ok_or_else(|| D::Error::custom(format_args!("{key} is no interface")))?;
        Ok((device, value))
    });
    keyed.collect()
}

fn text(device: DeviceKey) -> String {
    match device.netns {
        NetnsNumber::SERVED => device.ifindex.to_string(),
        NetnsNumber(number) => format!("{number}:{}", device.ifindex),
    }
}

fn parse(key: &str) -> Option<DeviceKey> {
    Some(match key.split_once(':') {
        None => DeviceKey::served(key.parse().ok()?),
        Some((netns, ifindex)) => DeviceKey::new(NetnsNumber(netns.parse().ok()?), ifindex.parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        for (device, key) in [(DeviceKey::served(7), "7"), (DeviceKey::new(NetnsNumber(3), 7), "3:7")] {
            assert_eq!(text(device), key);
            assert_eq!(parse(key), Some(device));
        }
        for foreign in ["", "x", "7:", ":7", "70000:7"] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
