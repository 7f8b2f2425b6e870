//! The ranges that virtual addresses of aliases are taken from.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::host::IpNet;

/// What a pool of IPv4 may be, for people.
pub(super) const EXPECTED: &str = "an IPv4 network of 8 to 24 bits, with no bits behind them, within 10.0.0.0/8, \
                                   100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 or 198.18.0.0/15";
/// What one of IPv6 may be.
pub(super) const EXPECTED6: &str = "an IPv6 network of 96 to 120 bits, with no bits behind them, within fc00::/7 (unique local \
                                    addresses)";

/// Bits of an address within a block.
const BLOCK_BITS: u8 = 8;
/// Ranges that no host in the internet has, with the shortest prefix of a pool there: RFC 1918, RFC 6598 (carriers' NAT), RFC
/// 2544 (benchmarks), RFC 4193 (unique local addresses).
const ALLOWED: [(IpNet, u8); 6] = [
    (v4([10, 0, 0, 0], 8), 8),
    (v4([100, 64, 0, 0], 10), 10),
    (v4([172, 16, 0, 0], 12), 12),
    (v4([192, 168, 0, 0], 16), 16),
    (v4([198, 18, 0, 0], 15), 15),
    (
        IpNet {
            addr: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)),
            prefix: 7,
        },
        96,
    ),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet {
        addr: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        prefix,
    }
}

/// A network that virtual addresses of one family are taken from; valid by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VipPool {
    network: IpAddr,
    prefix: u8,
}

impl Default for VipPool {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl VipPool {
    /// The upper half of RFC 2544's range: no host routes it, and the lower half is what proxies like to take.
    pub const DEFAULT: Self = Self {
        network: IpAddr::V4(Ipv4Addr::new(198, 19, 0, 0)),
        prefix: 16,
    };
    /// Unique local addresses: "netfast" behind `fd`. They are not random as RFC 4193 wants it of a site's, because they never
    /// leave the host.
    pub const DEFAULT6: Self = Self {
        network: IpAddr::V6(Ipv6Addr::new(0xfd6e, 0x6574, 0x6661, 0x7374, 0, 0, 0, 0)),
        prefix: 112,
    };

    /// Its first address.
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// Its prefix length in bits.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// As a network among others.
    pub const fn net(self) -> IpNet {
        IpNet {
            addr: self.network,
            prefix: self.prefix,
        }
    }

    /// The key of the configuration that names it.
    pub const fn key(self) -> &'static str {
        match self.network {
            IpAddr::V4(_) => "vip_pool",
            IpAddr::V6(_) => "vip_pool6",
        }
    }

    /// How many blocks of 256 addresses it has.
    pub const fn blocks(self) -> u32 {
        1 << (bits(self.network) - BLOCK_BITS - self.prefix)
    }

    /// The first address of a block.
    pub fn block(self, index: u32) -> IpAddr {
        plus(self.network, (index % self.blocks()) << BLOCK_BITS)
    }

    /// Whether an address is in it.
    pub fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.network.is_ipv4() && mask(ip, self.prefix) == self.network
    }
}

/// The address that is so much farther.
pub fn plus(ip: IpAddr, distance: u32) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + distance).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() + u128::from(distance)).into(),
    }
}

/// The block that an address is in, by its first address.
pub fn block(ip: IpAddr) -> IpAddr {
    mask(ip, block_prefix(ip))
}

/// The prefix length of a block, in bits.
pub const fn block_prefix(block: IpAddr) -> u8 {
    bits(block) - BLOCK_BITS
}

/// Bits of an address.
const fn bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// An address with the bits behind a prefix cleared.
fn mask(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & kept).into()
        }
        IpAddr::V6(ip) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & kept).into()
        }
    }
}

impl FromStr for VipPool {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        let (network, prefix): (IpAddr, u8) = (network.parse().map_err(drop)?, prefix.parse().map_err(drop)?);
        let is_allowed = ALLOWED.iter().any(|(allowed, shortest)| {
            allowed.addr.is_ipv4() == network.is_ipv4()
                && prefix >= *shortest
                && mask(network, allowed.prefix) == allowed.addr
        });
        (is_allowed && prefix <= block_prefix(network) && mask(network, prefix) == network)
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
            .map_err(|()| format!("{text:?} is no pool of virtual addresses: expected {EXPECTED}, or {EXPECTED6}"))
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
            "fd6e:6574:6661:7374::/112",
            "fc00::/96",
            "fdff:ffff::ff00/120",
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
            "fd00::/95",
            "fd00::/121",
            "fd00::1/112",
            "fe80::/112",
            "2001:db8::/112",
            "::ffff:10.0.0.0/112",
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
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        assert_eq!(pool.block(0), ip("198.19.0.0"));
        assert_eq!(pool.block(255), ip("198.19.255.0"));
        assert!(pool.contains(ip("198.19.255.255")) && !pool.contains(ip("198.18.0.1")));
        let one: VipPool = "10.1.2.0/24".parse().expect("a pool");
        assert_eq!((one.blocks(), one.block(7)), (1, ip("10.1.2.0")));
        let six = VipPool::DEFAULT6;
        assert_eq!((six.blocks(), six.block(255)), (256, ip("fd6e:6574:6661:7374::ff00")));
        assert!(six.contains(ip("fd6e:6574:6661:7374::ffff")) && !six.contains(ip("fd6e:6574:6661:7374::1:0")));
        assert!(!six.contains(ip("198.19.0.1")) && !pool.contains(six.network()));
        let most: VipPool = "fd00::/96".parse().expect("a pool");
        assert_eq!((most.blocks(), most.block(1)), (1 << 24, ip("fd00::100")));
        assert_eq!(block(ip("fd00::1:2:307")), ip("fd00::1:2:300"));
    }
}
