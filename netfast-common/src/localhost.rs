//! The host's own way to published ports at its loopback addresses: what is known of docker-proxy's sockets, and of sockets
//! that were led past it.
//!
//! All of it hangs on sockets (`BPF_MAP_TYPE_SK_STORAGE`), so it ends with them, whether or not a daemon lives: what was
//! known of a published port ends when docker-proxy no longer listens, and nobody is led to whoever has the address next.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// cgroups that may be known as without programs of others.
pub const CGROUPS: u32 = 16 * 1024;
/// Published ports that one unconnected UDP socket is led to at once; what it sends to others goes through docker-proxy.
pub const PEERS: usize = 4;
/// Time that the daemon may be silent for, in nanoseconds: then new connections go through docker-proxy.
pub const LEASE_NS: u64 = 1_000_000_000;

/// An IPv4 or IPv6 address and a port, as sockets are told of them (`struct bpf_sock_addr`): in words that hold the bytes in
/// wire order, IPv4 addresses as IPv6 maps them (`::ffff:127.0.0.1`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Name {
    /// The address.
    pub address: [u32; 4],
    /// The port, in the first two bytes; 0: there is no name.
    pub port: u32,
}

/// The third word of IPv4's addresses in IPv6's notation.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Name {
    /// Of an IPv4 address in wire order.
    #[inline(always)]
    pub const fn v4(address: u32, port: u32) -> Self {
        Self {
            address: [0, 0, MAPPED, address],
            port,
        }
    }

    /// Of an address and a port.
    pub fn new(address: core::net::IpAddr, port: u16) -> Self {
        let octets = match address {
            core::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(address) => address.octets(),
        };
        let (words, _) = octets.as_chunks::<4>();
        Self {
            address: core::array::from_fn(|word| u32::from_ne_bytes(words[word])),
            port: u32::from(port.to_be()),
        }
    }

    /// Whether there is one.
    #[inline(always)]
    pub const fn is_set(&self) -> bool {
        self.port != 0
    }

    /// Whether it is of IPv4, mapped or not.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.address[0] == 0 && self.address[1] == 0 && self.address[2] == MAPPED
    }

    /// Whether it is one of the host's loopback addresses: 127.0.0.0/8, `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            return self.address[3].to_ne_bytes()[0] == 127;
        }
        self.address[0] == 0 && self.address[1] == 0 && self.address[2] == 0 && self.address[3] == 1_u32.to_be()
    }

    /// Whether both are the same; with no more branches than words.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        self.port == other.port
            && self.address[3] == other.address[3]
            && self.address[2] == other.address[2]
            && self.address[1] == other.address[1]
            && self.address[0] == other.address[0]
    }
}

/// What the daemon tells the programs: the only entry of its map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Switch {
    /// The kernel's number of the network namespace that the daemon serves (`SO_NETNS_COOKIE`); 0: none.
    pub netns_cookie: u64,
    /// Until when anybody is led past docker-proxy, `CLOCK_MONOTONIC` coarse, nanoseconds. A lease of [`LEASE_NS`]; 0: no.
    pub until_ns: u64,
    /// What [`Published::generation`] must be: each daemon begins with another, so that nothing holds that an earlier one said.
    pub generation: u64,
}

/// What hangs on a socket that docker-proxy listens on: where it would connect to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Published {
    /// See [`Switch::generation`].
    pub generation: u64,
    /// The container's address and port.
    pub target: Name,
    /// IANA protocol number.
    pub protocol: u32,
}

/// What a program asked for, and what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Redirection {
    /// What it asked for.
    pub asked: Name,
    /// The container's address and port.
    pub target: Name,
}

/// What hangs on a socket that was led past docker-proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Asked {
    /// What it is connected to.
    pub connected: Redirection,
    /// What it sends to without being connected.
    pub sent: [Redirection; PEERS],
}

impl Asked {
    /// What the program asked for whose socket has got something from `source`.
    #[inline(always)]
    pub fn of(&self, source: &Name) -> Option<Name> {
        if self.connected.asked.is_set() && self.connected.target.is(source) {
            return Some(self.connected.asked);
        }
        let sent = self
            .sent
            .iter()
            .find(|one| one.asked.is_set() && one.target.is(source))?;
        Some(sent.asked)
    }

    /// Notes what is sent; `false` where what comes back could not be told from something else: then it must go another way.
    #[inline(always)]
    pub fn note_sent(&mut self, to: &Redirection) -> bool {
        let mut free = None;
        for (at, one) in self.sent.iter().enumerate() {
            if !one.asked.is_set() {
                free = Some(at);
            } else if one.target.is(&to.target) {
                return one.asked.is(&to.asked);
            }
        }
        let Some(one) = free.and_then(|at| self.sent.get_mut(at)) else {
            return false;
        };
        *one = *to;
        true
    }

    /// The program itself names the container: what comes from there is from whom it named.
    #[inline(always)]
    pub fn note_direct(&mut self, to: &Name) {
        for one in &mut self.sent {
            if one.target.is(to) {
                *one = Redirection::default();
            }
        }
    }
}

/// What became of a program's wish to reach a published port at a loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// A TCP connection goes to the container.
    Tcp = 0,
    /// A connected UDP socket goes to the container.
    Udp = 1,
    /// A datagram of an unconnected socket goes to the container.
    Datagram = 2,
    /// Through docker-proxy: the socket is bound, or marked.
    Bound = 3,
    /// Through docker-proxy: the program's cgroup is not known to be without programs of others.
    Cgroup = 4,
    /// Through docker-proxy: the socket sends to too many.
    Many = 5,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Tcp,
        Self::Udp,
        Self::Datagram,
        Self::Bound,
        Self::Cgroup,
        Self::Many,
    ];

    /// In metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Datagram => "datagram",
            Self::Bound => "bound",
            Self::Cgroup => "cgroup",
            Self::Many => "many",
        }
    }
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for Switch {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Published {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Asked {}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    fn name(address: impl Into<IpAddr>, port: u16) -> Name {
        Name::new(address.into(), port)
    }

    #[test]
    fn loopback_addresses_of_both_families_and_no_others() {
        for (address, is) in [
            ("127.0.0.1", true),
            ("127.255.1.2", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("172.17.0.2", false),
            ("1.0.0.127", false),
            ("::", false),
            ("::2", false),
            ("fd00::1", false),
            ("::127.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(name(address, 80).is_loopback(), is, "{address}");
        }
        let v4 = Name::v4(u32::from_ne_bytes([127, 0, 0, 1]), u32::from(80_u16.to_be()));
        assert_eq!(v4, name(Ipv4Addr::LOCALHOST, 80));
        assert!(v4.is_v4() && !name(Ipv6Addr::LOCALHOST, 80).is_v4());
    }

    #[test]
    fn an_answer_is_said_to_be_from_whom_was_asked() {
        let to = |asked: u16, container: u8| Redirection {
            asked: name(Ipv4Addr::LOCALHOST, asked),
            target: name(Ipv4Addr::new(172, 17, 0, container), 80),
        };
        let mut socket = Asked::default();
        assert_eq!(socket.of(&to(1, 1).target), None);
        for port in 1..=4_u8 {
            assert!(socket.note_sent(&to(port.into(), port)) && socket.note_sent(&to(port.into(), port)));
        }
        assert!(!socket.note_sent(&to(5, 5)), "there is no room");
        assert!(!socket.note_sent(&to(9, 2)), "two names for one container");
        assert_eq!(socket.of(&to(0, 3).target), Some(to(3, 0).asked));
        assert_eq!(socket.of(&to(0, 5).target), None);
        socket.note_direct(&to(0, 3).target);
        assert_eq!(socket.of(&to(0, 3).target), None, "it was named itself");
        assert!(socket.note_sent(&to(5, 5)), "there is room again");
        socket.connected = to(7, 7);
        assert_eq!(socket.of(&to(0, 7).target), Some(to(7, 0).asked));
        assert_eq!(socket.of(&Name::default()), None);
    }
}
