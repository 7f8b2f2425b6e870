//! What a way's packets are kept under, and the flow that follows from them, in a [`Lab`].

use netfast_common::{
    csum,
    flow::{Flow, FlowKey},
    net::{Address as _, Ip4, MacPair, Port},
};
use netfast_tests::scene::{Look, Way};

use super::harness::{EPOCH, Lab};

/// What the lab's interfaces make of a way.
pub trait InLab {
    /// The key under which its packets enter.
    fn key(&self, lab: &Lab) -> FlowKey<Ip4>;
    /// The flow that should be learned of it from a packet of this network-layer length; times are zero.
    fn flow(&self, lab: &Lab, length: u16) -> Flow<Ip4>;
}

impl InLab for Way {
    fn key(&self, lab: &Lab) -> FlowKey<Ip4> {
        FlowKey {
            netns: lab.netns.0,
            ..self.key_at(lab.ifindex(self.enters))
        }
    }

    fn flow(&self, lab: &Lab, length: u16) -> Flow<Ip4> {
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

fn ip(end: (std::net::Ipv4Addr, u16)) -> Ip4 {
    Ip4::from_bytes(end.0.octets())
}

fn sum(words: &[u32]) -> u64 {
    csum::sum(words)
}
