//! One direction of a conversation: its packets where they enter and where they leave, and the flow that follows.

use std::net::Ipv4Addr;

use netfast_common::{
    csum,
    flow::{Exit, Flow, FlowKey, Origin},
    net::{Address as _, Ip4, MacPair, Port},
};
use netfast_tests::packet::{Mac, Packet, UDP};

use super::{
    harness::{EPOCH, Lab},
    world::{BRIDGE, Dev, HOST},
};

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
    /// TCP or UDP.
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
        let packet = if self.protocol == UDP {
            Packet::udp(look.source, look.destination)
        } else {
            Packet::tcp(look.source, look.destination)
        };
        packet.macs(look.to_mac, look.from_mac)
    }

    /// What the kernel makes of a packet that entered.
    pub fn leaving(&self, packet: &Packet) -> Packet {
        packet.clone().with(|packet| {
            packet.to_mac = self.after.to_mac;
            packet.from_mac = self.after.from_mac;
            packet.source = self.after.source;
            packet.destination = self.after.destination;
            packet.ttl = packet.ttl.wrapping_sub(u8::from(self.routed));
        })
    }

    /// The same by UDP.
    #[must_use]
    pub fn udp(self) -> Self {
        Self { protocol: UDP, ..self }
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

    /// The key under which its packets enter.
    pub fn key(&self, lab: &Lab) -> FlowKey<Ip4> {
        let look = &self.before;
        FlowKey {
            source: ip(look.source),
            destination: ip(look.destination),
            source_port: Port::new(look.source.1),
            destination_port: Port::new(look.destination.1),
            ifindex: lab.ifindex(self.enters),
            protocol: self.protocol,
            origin: self.origin as u8,
            netns: 0,
        }
    }

    /// The flow that should be learned of it from a packet of this network-layer length; times are zero.
    pub fn flow(&self, lab: &Lab, length: u16) -> Flow<Ip4> {
        let (before, after) = (&self.before, &self.after);
        let addresses = |look: &Look| sum(&[ip(look.source).words()[0], ip(look.destination).words()[0]]);
        let ports =
            |look: &Look| u64::from(Port::new(look.source.1).wire()) + u64::from(Port::new(look.destination.1).wire());
        let translated = before.source != after.source || before.destination != after.destination;
        let mut flags = 0;
        if self.routed {
            flags |= Flow::<Ip4>::ROUTED;
        }
        if translated {
            flags |= Flow::<Ip4>::TRANSLATED;
        }
        if self.routed || translated || before.to_mac != after.to_mac || before.from_mac != after.from_mac {
            flags |= Flow::<Ip4>::REWRITTEN;
        }
        let tag = self.key(lab).tag();
        Flow {
            tag,
            epoch: EPOCH,
            in_generation: self.enters.generation(),
            out_generation: self.leaves.generation(),
            in_slot: self.enters.slot(),
            out_slot: self.leaves.slot(),
            out_ifindex: lab.ifindex(self.leaves),
            source: ip(after.source),
            destination: ip(after.destination),
            source_port: Port::new(after.source.1),
            destination_port: Port::new(after.destination.1),
            address_difference: csum::difference(addresses(before), addresses(after)),
            port_difference: csum::difference(ports(before), ports(after)),
            in_macs: MacPair::new(before.to_mac, before.from_mac),
            out_macs: MacPair::new(after.to_mac, after.from_mac),
            max_length: length,
            exit: self.exit as u8,
            flags,
            tag_end: tag,
            ..Flow::default()
        }
    }
}

fn ip(end: (Ipv4Addr, u16)) -> Ip4 {
    Ip4::from_bytes(end.0.octets())
}

fn sum(words: &[u32]) -> u64 {
    csum::sum(words)
}
