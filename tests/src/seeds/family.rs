//! IPv4 and IPv6: what of a scenario, of rules and of commands is the same but for its name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn of_two<T: Copy>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    /// nftables' name of the family, and of its headers.
    pub const fn nft(self) -> &'static str {
        self.of_two("ip", "ip6")
    }

    /// The program for its rules; so begin the names of those that go with it (`-restore`, `-legacy`).
    pub const fn iptables(self) -> &'static str {
        self.of_two("iptables", "ip6tables")
    }

    /// `ip` for its routes and rules.
    pub const fn ip(self) -> &'static str {
        self.of_two("ip -4", "ip -6")
    }

    /// Its name for `conntrack -f`.
    pub const fn name(self) -> &'static str {
        self.of_two("ipv4", "ipv6")
    }

    /// Traffic control's name of its packets.
    pub const fn protocol(self) -> &'static str {
        self.of_two("ip", "ipv6")
    }

    /// `EtherType`.
    pub const fn ethertype(self) -> u16 {
        self.of_two(0x0800, 0x86dd)
    }

    /// Bits of an address.
    pub const fn bits(self) -> u8 {
        self.of_two(32, 128)
    }

    /// Bits of a network's prefix, of all networks in scenarios.
    pub const fn prefix(self) -> u8 {
        self.of_two(24, 64)
    }

    /// Bytes of a header without options.
    pub const fn header(self) -> usize {
        self.of_two(20, 40)
    }

    /// No address, or any.
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}
