//! One direction of a conversation: its packets where they enter and where they leave, and their key.

use std::net::Ipv4Addr;

use netfast_common::{
    flow::{Exit, FlowKey, Origin},
    net::{Ip4, Port},
};

use super::{BRIDGE, Dev, HOST};
use crate::packet::{ICMP, Mac, Packet, UDP};

/// What of a packet NAT and routing may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Destination MAC address.
    pub to_mac: Mac,
    /// Source MAC address.
    pub from_mac: Mac,
    /// Source address and port.
    pub source: (Ipv4Addr, u16),
    /// Destination address and port.
    pub destination: (Ipv4Addr, u16),
}

/// One direction of a conversation: how its packets look where they enter and where they leave.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// TCP, UDP, or ICMP, whose ports are those of [`Packet::icmp_type`].
    pub protocol: u8,
    /// The interface where they enter.
    pub enters: Dev,
    /// Whether from it or from the host's own stack.
    pub origin: Origin,
    /// The interface that passed them on last before they leave.
    pub via: Option<Dev>,
    /// The interface where they leave.
    pub leaves: Dev,
    /// How.
    pub exit: Exit,
    /// Whether the TTL falls by one.
    pub routed: bool,
    /// As they enter.
    pub before: Look,
    /// As they leave.
    pub after: Look,
}

impl Way {
    /// A packet of it, as it enters.
    pub fn packet(&self) -> Packet {
        let look = &self.before;
        let packet = match self.protocol {
            UDP => Packet::udp(look.source, look.destination),
            ICMP => Packet::echo(look.source, look.destination),
            _ => Packet::tcp(look.source, look.destination),
        };
        packet.macs(look.to_mac, look.from_mac)
    }

    /// What the kernel makes of a packet that entered. An end that is not this way's stays as it is: NAT knows it not.
    pub fn leaving(&self, packet: &Packet) -> Packet {
        packet.clone().with(|packet| {
            packet.to_mac = self.after.to_mac;
            packet.from_mac = self.after.from_mac;
            if packet.source == self.before.source {
                packet.source = self.after.source;
            }
            if packet.destination == self.before.destination {
                packet.destination = self.after.destination;
            }
            packet.ttl = packet.ttl.wrapping_sub(u8::from(self.routed));
        })
    }

    /// The same by UDP.
    #[must_use]
    pub fn udp(self) -> Self {
        Self { protocol: UDP, ..self }
    }

    /// The same by ICMP echo, and whether it is the way of requests.
    #[must_use]
    pub fn echo(mut self, is_request: bool) -> Self {
        self.protocol = ICMP;
        for look in [&mut self.before, &mut self.after] {
            // A request's identifier is what the first packet's source port was.
            if is_request {
                look.destination.1 = 0;
            } else {
                look.source.1 = 0;
            }
        }
        self
    }

    /// The same, changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Whether a bridge hands its packets to the host with an address of the host's, before NAT changes it.
    pub fn meets_host_first(&self) -> bool {
        self.via == Some(Dev::Bridge) && [HOST, BRIDGE].contains(&self.before.destination.0)
    }

    /// The same packets, handed to the host by a bridge device.
    #[must_use]
    pub fn ending_at(self, bridge: Dev) -> Self {
        Self {
            leaves: bridge,
            exit: Exit::Host,
            routed: false,
            after: self.before,
            ..self
        }
    }

    /// Whether its packets come from the host's own stack.
    pub fn is_hosts(&self) -> bool {
        self.origin == Origin::Host
    }

    /// The key under which its packets enter, by an interface of this number.
    pub fn key_at(&self, ifindex: u32) -> FlowKey<Ip4> {
        let look = &self.before;
        FlowKey {
            source: ip(look.source),
            destination: ip(look.destination),
            source_port: Port::new(look.source.1),
            destination_port: Port::new(look.destination.1),
            ifindex,
            protocol: self.protocol,
            origin: self.origin as u8,
            netns: 0,
        }
    }
}

fn ip(end: (Ipv4Addr, u16)) -> Ip4 {
    Ip4::from_bytes(end.0.octets())
}
