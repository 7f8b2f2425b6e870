//! macvlan networks: what their program is told.

use std::collections::BTreeMap;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
};
use netfast_common::{
    abi::map,
    macvlan::{AddressKey, AddressOwner, Station, StationKey},
};

use crate::{
    apply::{ApplyError, aliases::remove, map_error, take},
    plan::MacvlanTable,
};

/// The maps.
pub struct MacvlanMaps {
    stations: HashMap<MapData, StationKey, Station>,
    addresses: HashMap<MapData, AddressKey, AddressOwner>,
}

impl MacvlanMaps {
    /// Takes them out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, ApplyError> {
        Ok(Self {
            stations: take(ebpf, map::MACVLANS)?,
            addresses: take(ebpf, map::MACVLAN_ADDRESSES)?,
        })
    }

    /// What is in them.
    pub fn read(&self) -> Result<MacvlanTable, ApplyError> {
        let stations: Result<_, _> = self.stations.iter().collect();
        let addresses: Result<Vec<(AddressKey, AddressOwner)>, _> = self.addresses.iter().collect();
        let addresses = addresses.map_err(|source| map_error(map::MACVLAN_ADDRESSES, source))?;
        Ok(MacvlanTable {
            stations: stations.map_err(|source| map_error(map::MACVLANS, source))?,
            addresses: addresses.into_iter().map(|(key, owner)| (key, owner.mac)).collect(),
        })
    }

    /// Brings them from one state to another.
    pub fn change(&mut self, from: &MacvlanTable, to: &MacvlanTable) -> Result<(), ApplyError> {
        change(&mut self.stations, map::MACVLANS, &from.stations, &to.stations, |one| {
            *one
        })?;
        let owner = |mac: &[u8; 6]| AddressOwner {
            mac: *mac,
            reserved: [0; 2],
        };
        change(
            &mut self.addresses,
            map::MACVLAN_ADDRESSES,
            &from.addresses,
            &to.addresses,
            owner,
        )
    }
}

fn change<K: Pod + Ord, V: Pod, T: PartialEq>(
    entries: &mut HashMap<MapData, K, V>,
    name: &'static str,
    from: &BTreeMap<K, T>,
    to: &BTreeMap<K, T>,
    value: impl Fn(&T) -> V,
) -> Result<(), ApplyError> {
    for key in from.keys().filter(|key| !to.contains_key(key)) {
        remove(entries, name, key)?;
    }
    for (key, wanted) in to.iter().filter(|(key, wanted)| from.get(key) != Some(wanted)) {
        let written = entries.insert(key, value(wanted), 0);
        written.map_err(|source| map_error(name, source))?;
    }
    Ok(())
}
