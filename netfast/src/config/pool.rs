//! The range that virtual addresses of aliases are taken from.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::host::IpNet;

/// What a pool may be, for people.
pub(super) const EXPECTED: &str = "an IPv4 network of 8 to 24 bits, with no bits behind them, within 10.0.0.0/8, \
                                   100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15";

/// The longest prefix: one block.
const MAX_PREFIX: u8 = 24;
/// The shortest prefix.
const MIN_PREFIX: u8 = 8;

/// Ranges that no host in the internet has: RFC 1918, RFC 6598 (carriers' NAT), RFC 2544 (benchmarks).
const ALLOWED: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// An IPv4 network that virtual addresses are taken from; valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VipPool {
    network: Ipv4Addr,
    prefix: u8,
}

impl Default for VipPool {
    /// The upper half of RFC 2544's range: no host routes it, and the lower half is what proxies like to take.
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(198, 19, 0, 0),
            prefix: 16,
        }
    }
}

impl VipPool {
    /// Its first address.
    pub const fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Its prefix length in bits, 8 to 24.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// As a network among others.
    pub const fn net(self) -> IpNet {
        IpNet {
            addr: std::net::IpAddr::V4(self.network),
            prefix: self.prefix,
        }
    }

    /// How many blocks of 256 addresses it has.
    pub const fn blocks(self) -> u32 {
        1 << (MAX_PREFIX - self.prefix)
    }

    /// The first address of a block.
    pub fn block(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + (index % self.blocks()) * 256)
    }

    /// Whether an address is in it.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        mask(ip, self.prefix) == self.network
    }
}

/// An address with the bits behind a prefix cleared.
fn mask(ip: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let kept = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from(u32::from(ip) & kept)
}

impl FromStr for VipPool {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        let (network, prefix): (Ipv4Addr, u8) = (network.parse().map_err(drop)?, prefix.parse().map_err(drop)?);
        let is_allowed = ALLOWED
            .iter()
            .any(|(allowed, bits)| prefix >= *bits && mask(network, *bits) == *allowed);
        ((MIN_PREFIX..=MAX_PREFIX).contains(&prefix) && mask(network, prefix) == network && is_allowed)
            .then_some(Self { network, prefix })
            .ok_or(())
    }
}

impl fmt::Display for VipPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl TryFrom<String> for VipPool {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map_err(|()| format!("{text:?} is no pool of virtual addresses: expected {EXPECTED}"))
    }
}

impl From<VipPool> for String {
    fn from(pool: VipPool) -> Self {
        pool.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_of_nobody_are_pools() {
        for good in [
            "198.19.0.0/16",
            "198.18.0.0/15",
            "10.0.0.0/8",
            "192.168.7.0/24",
            "172.31.0.0/16",
            "100.64.0.0/10",
        ] {
            assert_eq!(good.parse::<VipPool>().map(|pool| pool.to_string()), Ok(good.into()));
        }
        for bad in [
            "198.19.0.0",
            "198.19.0.1/16",
            "198.19.0.0/25",
            "198.16.0.0/14",
            "8.8.8.0/24",
            "172.32.0.0/16",
            "0.0.0.0/0",
            "fd00::/16",
            "10.0.0.0/7",
            "x/16",
            "10.0.0.0/x",
        ] {
            assert_eq!(bad.parse::<VipPool>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn it_is_cut_into_blocks() {
        let pool = VipPool::default();
        assert_eq!(pool.blocks(), 256);
        assert_eq!(pool.block(0), Ipv4Addr::new(198, 19, 0, 0));
        assert_eq!(pool.block(255), Ipv4Addr::new(198, 19, 255, 0));
        assert!(pool.contains(Ipv4Addr::new(198, 19, 255, 255)) && !pool.contains(Ipv4Addr::new(198, 18, 0, 1)));
        let one: VipPool = "10.1.2.0/24".parse().expect("a pool");
        assert_eq!((one.blocks(), one.block(7)), (1, Ipv4Addr::new(10, 1, 2, 0)));
    }
}
