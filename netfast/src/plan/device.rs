//! A device that netfast is attached to, with what its flows depend on.

use std::net::{Ipv4Addr, Ipv6Addr};

use netfast_common::{
    device::{Device, Kind},
    net::{Ip4, Ip6},
};

use crate::host::{BridgePort, Link, LinkKind, Mac};

/// A device to be attached to.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpec {
    /// Its name, as last seen.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The flags of its entry.
    pub flags: u8,
    /// Endpoints: the MAC address in the container.
    pub mac: Mac,
    /// Endpoints: the IPv4 address in the container.
    pub address4: Option<Ipv4Addr>,
    /// Endpoints: the IPv6 address in the container.
    pub address6: Option<Ipv6Addr>,
    /// What else its flows depend on.
    pub identity: Identity,
}

impl DeviceSpec {
    /// Its entry in the devices map, in this slot.
    pub fn device(&self, slot: u16) -> Device {
        let mut device = Device::new(self.kind, self.flags, slot);
        device.bridge = self.identity.master.unwrap_or(0);
        if self.kind == Kind::Endpoint {
            device.mac = self.mac.0;
            device.address4 = self.address4.map_or(Ip4::default(), |ip| Ip4::from_bytes(ip.octets()));
            device.address6 = self.address6.map_or(Ip6::default(), |ip| Ip6::from_bytes(ip.octets()));
        }
        device
    }
}

/// What the flows of a device depend on and what is not in its entry: a change gives its slot a new generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its own MAC address, on the host's side.
    pub mac: Option<Mac>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// What it is to that bridge.
    pub port: Option<BridgePort>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The other end of a veth: its namespace's identifier and its index there.
    pub peer: Option<(i32, u32)>,
}

impl Identity {
    pub(super) fn of(link: &Link) -> Self {
        let peer = if let LinkKind::Veth {
            peer_ifindex: Some(ifindex),
            peer_netns,
        } = link.kind
        {
            Some((peer_netns.unwrap_or(-1), ifindex))
        } else {
            None
        };
        Self {
            mac: link.mac,
            master: link.master,
            port: link.port,
            mtu: link.mtu,
            peer,
        }
    }
}
