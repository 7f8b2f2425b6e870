//! The packet-filter rules of a container's network namespace, as far as Docker's resolver is concerned.

use serde::{Deserialize, Serialize};

/// What rules there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsideRules {
    /// None at all.
    None,
    /// Docker's for its resolver, and nothing else.
    Resolver(ResolverRules),
    /// Others, or Docker's in a form that is not known; in words.
    Other(String),
}

/// Docker's rules for its resolver, as the kernel has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverRules {
    /// The port that datagrams to port 53 are led to.
    pub udp: u16,
    /// The port that connections to port 53 are led to.
    pub tcp: u16,
    /// The chains of `table ip nat` in their order.
    pub chains: Vec<SavedChain>,
    /// Their rules in their order.
    pub rules: Vec<SavedRule>,
}

impl ResolverRules {
    /// Whether they say the same: counters may differ.
    pub fn says_as(&self, other: &Self) -> bool {
        let names = |rules: &Self| -> Vec<String> { rules.chains.iter().map(|chain| chain.name.clone()).collect() };
        (self.udp, self.tcp) == (other.udp, other.tcp) && names(self) == names(other)
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedChain {
    /// Its name.
    pub name: String,
    /// Whether packets enter it by a hook.
    pub is_base: bool,
    /// Its netlink attributes, as they are sent to make it.
    #[serde(with = "hex")]
    pub attributes: Vec<u8>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRule {
    /// The chain that it is in.
    pub chain: String,
    /// Its netlink attributes, as they are sent to make it.
    #[serde(with = "hex")]
    pub attributes: Vec<u8>,
}

/// Bytes as hexadecimal digits.
mod hex {
    use std::fmt::Write as _;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes();
        let byte = |two: &[u8]| {
            let two = std::str::from_utf8(two).ok()?;
            (two.len() == 2).then(|| u8::from_str_radix(two, 16).ok())?
        };
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
        bytes.ok_or_else(|| D::Error::custom("not hexadecimal digits of whole bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_down_and_read_again() {
        let rules = ResolverRules {
            udp: 37_874,
            tcp: 45_169,
            chains: vec![SavedChain {
                name: "OUTPUT".into(),
                is_base: true,
                attributes: vec![0, 1, 0xab, 0xff],
            }],
            rules: vec![SavedRule {
                chain: "OUTPUT".into(),
                attributes: Vec::new(),
            }],
        };
        let text = serde_json::to_string(&rules).expect("JSON");
        assert!(text.contains("\"0001abff\""), "{text}");
        assert_eq!(serde_json::from_str::<ResolverRules>(&text).expect("the same"), rules);
        for wrong in ["\"0\"", "\"0g\"", "\"é1\""] {
            let text = text.replace("\"0001abff\"", wrong);
            assert!(serde_json::from_str::<ResolverRules>(&text).is_err(), "{wrong}");
        }
    }
}
