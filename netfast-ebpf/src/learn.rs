//! Recognises the candidate where it leaves, and remembers what the kernel did to it.
//!
//! The list of early returns is the rule; each line has a packet test.

use core::borrow::Borrow as _;

use netfast_common::{
    csum,
    device::Device,
    flow::{Exit, Flow, Origin},
    net::{Address as _, MacPair},
    reason::Reason,
};

use crate::{
    ctx::{RouteQuery, Skb, kernel::coarse_ns},
    fastpath::{gate, lookup::generation},
    packet::{ECN, Packet, parse, segment_length},
    state::{
        self, Place, Tables,
        candidate::{Candidate, Sort},
    },
};

pub mod candidate;
pub mod pairs;
pub mod warmup;

use candidate::Recognised;

/// At the egress of an endpoint or an uplink: the packet leaves the host's network here.
///
/// Always an `Err`-like reason: what became of the candidate.
#[inline(always)]
pub fn at_exit<F: Tables, S: Skb>(skb: &S) -> Reason {
    let candidate = match candidate::take::<F, S>(skb) {
        Ok(candidate) => candidate,
        Err(reason) => return reason,
    };
    match examine::<F, S>(skb, candidate) {
        Ok(()) => pairs::remember::<F>(&candidate.key, &mut candidate.flow),
        Err(reason) => reason,
    }
}

/// At the ingress of a bridge device: the packet is handed to the host, which may keep it or send it on.
#[inline(always)]
pub fn at_host<F: Tables, S: Skb>(skb: &S) -> Reason {
    let Some(candidate) = candidate::current::<F, S>(skb) else {
        return candidate::end::<F, S>(skb);
    };
    let Ok(mut packet) = parse::<F, S>(skb) else {
        return Reason::EgressGated;
    };
    if !matches!(candidate.recognise::<F, S>(skb, &packet), Recognised::Same) {
        // Its run is over: the kernel kept it, or dropped it.
        return candidate::end::<F, S>(skb);
    }
    if !candidate.is_same_run(coarse_ns()) {
        candidate::end::<F, S>(skb);
        return Reason::OtherRun;
    }
    candidate.passes(skb.ifindex());
    // The host's rules still see every packet of such a flow: it only skips the bridge. So nothing may differ yet, but for
    // what these rules have translated within the bridge already, since they do it again.
    let is_translated = packet.network.source != candidate.key.source
        || packet.network.destination != candidate.key.destination
        || packet.source_port != candidate.key.source_port
        || packet.destination_port != candidate.key.destination_port;
    if packet.macs != candidate.macs
        || packet.network.ttl != candidate.ttl
        || candidate.key.origin != Origin::Wire as u8
    {
        return Reason::Passing;
    }
    let Some(device) = state::device(skb.ifindex()) else {
        return Reason::EgressUnknown;
    };
    if !is_accelerated::<F>(device, &packet) {
        return Reason::EgressUnknown;
    }
    if is_translated && !device.has(Device::IP_TRANSLATES) {
        return Reason::Passing;
    }
    if pairs::has_better::<F>(&candidate.key) {
        return Reason::Passing;
    }
    let query = RouteQuery {
        family: F::NUMBER,
        tos: packet.network.tos,
        ifindex: skb.ifindex(),
        source: packet.network.source.words(),
        destination: packet.network.destination.words(),
    };
    if !skb.is_for_host(&query) {
        return Reason::Passing;
    }
    // The flow hands it over as it came.
    packet.network.source = candidate.key.source;
    packet.network.destination = candidate.key.destination;
    packet.source_port = candidate.key.source_port;
    packet.destination_port = candidate.key.destination_port;
    if compose::<F, S>(skb, candidate, &packet, device, Exit::Host).is_none() {
        return Reason::EgressUnknown;
    }
    pairs::remember::<F>(&candidate.key, &mut candidate.flow)
}

/// The rule: what must hold between the packet that entered and the one that leaves. The flow is left in the candidate.
#[inline(always)]
fn examine<F: Tables, S: Skb>(skb: &S, candidate: &mut Candidate<F::Address>) -> Result<(), Reason> {
    let packet = parse::<F, S>(skb).map_err(|_| Reason::EgressGated)?;
    match candidate.recognise::<F, S>(skb, &packet) {
        Recognised::Same => {}
        Recognised::Mangled => return Err(Reason::Mangled),
        Recognised::Other => return Err(Reason::OtherPacket),
    }
    if !candidate.is_same_run(coarse_ns()) || !candidate.is_from_there(skb) {
        return Err(Reason::OtherRun);
    }
    if !packet.macs.is_unicast() {
        return Err(Reason::EgressNotUnicast);
    }
    gate::admit::<F>(&packet).map_err(|_| Reason::EgressGated)?;
    if candidate.ttl.wrapping_sub(packet.network.ttl) > 1 {
        return Err(Reason::TtlChanged);
    }
    let ifindex = skb.ifindex();
    let device = state::device(ifindex).ok_or(Reason::EgressUnknown)?;
    if !is_accelerated::<F>(device, &packet) {
        return Err(Reason::EgressUnknown);
    }
    if candidate.key.ifindex == ifindex {
        return Err(Reason::SameDevice);
    }
    if device.is_endpoint() {
        if packet.macs.destination() != device.mac {
            return Err(Reason::Flooded);
        }
    } else if candidate.sort == Sort::OTHERS || (candidate.sort == Sort::TRANSIT && !device.has(Device::ANY_SOURCE)) {
        return Err(Reason::NoEndpoint);
    }
    let netns = candidate.key.netns;
    let reverse_key = F::keep(Place::Reverse, |key| {
        key.source = packet.network.destination;
        key.destination = packet.network.source;
        key.source_port = packet.destination_port;
        key.destination_port = packet.source_port;
        key.ifindex = ifindex;
        key.protocol = packet.network.protocol;
        key.origin = Origin::Wire as u8;
        key.netns = netns;
    })?;
    // A TCP packet without payload completes a pair, but opens none: the ACK that ends a handshake, and those that follow
    // a FIN, would cost every short connection a place in the tables.
    if candidate.is_bare() && !pairs::is_known::<F>(reverse_key.borrow()) {
        return Err(Reason::NotWorthIt);
    }
    let is_forwarded = candidate.key.origin == Origin::Wire as u8;
    let to_peer = is_forwarded
        && device.is_endpoint()
        && device.has(Device::PEER_IN_OTHER_NETNS)
        && !device.has(Device::EGRESS_QDISC);
    let exit = if to_peer { Exit::Peer } else { Exit::Device };
    compose::<F, S>(skb, candidate, &packet, device, exit).ok_or(Reason::EgressUnknown)
}

/// Whether a packet of this kind may be learned where it leaves.
#[inline(always)]
fn is_accelerated<F: Tables>(device: &Device, packet: &Packet<F::Address>) -> bool {
    device.has_all(F::ACCELERATED) && (packet.network.protocol != F::ICMP || device.has(Device::ECHO))
}

/// Leaves the flow that repeats what happened between the candidate and the packet with the candidate: it would fill half of
/// the stack.
#[inline(always)]
fn compose<F: Tables, S: Skb>(
    skb: &S,
    candidate: &mut Candidate<F::Address>,
    packet: &Packet<F::Address>,
    device: &Device,
    exit: Exit,
) -> Option<()> {
    let key = &candidate.key;
    let network = &packet.network;
    let old = sum(&key.source.words()) + sum(&key.destination.words());
    let new = sum(&network.source.words()) + sum(&network.destination.words());
    let old_ports = u64::from(key.source_port.wire()) + u64::from(key.destination_port.wire());
    let new_ports = u64::from(packet.source_port.wire()) + u64::from(packet.destination_port.wire());
    let is_translated = key.source != network.source
        || key.destination != network.destination
        || key.source_port != packet.source_port
        || key.destination_port != packet.destination_port;
    let is_routed = network.ttl != candidate.ttl;
    let mut flags = 0;
    if is_routed {
        flags |= Flow::<F::Address>::ROUTED;
    }
    if is_translated {
        flags |= Flow::<F::Address>::TRANSLATED;
    }
    if is_routed || is_translated || packet.macs != candidate.macs {
        flags |= Flow::<F::Address>::REWRITTEN;
    }
    if candidate.may_be_one_way != 0 && device.has(Device::ONE_WAY) {
        flags |= Flow::<F::Address>::ONE_WAY;
    }
    let tag = key.tag();
    let now = coarse_ns();
    let out_generation = generation(device.slot)?;
    let max_length = longest::<F, S>(skb, packet)?;
    candidate.flow = Flow {
        tag,
        epoch: candidate.epoch,
        learned_ns: now,
        used_ns: now,
        created_ns: now,
        packets: 0,
        bytes: 0,
        in_generation: candidate.generation,
        out_generation,
        in_slot: candidate.slot,
        out_slot: device.slot,
        out_ifindex: skb.ifindex(),
        source: network.source,
        destination: network.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        address_difference: csum::difference(old, new),
        port_difference: csum::difference(old_ports, new_ports),
        in_macs: candidate.macs,
        out_macs: MacPair::from_wire(packet.macs.wire()),
        mark: skb.mark(),
        priority: skb.priority(),
        max_length,
        exit: exit as u8,
        flags,
        dscp: network.tos & !ECN,
        bulk: u8::from(skb.gso_size() != 0),
        reserved: [0; 2],
        tag_end: tag,
    };
    Some(())
}

/// The length up to which packets may follow this one: no more than the kernel has just let through (a route may have
/// a smaller MTU than its interface), no less than what every link carries, and never more than the interface takes.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the smaller of two numbers, one of them a u16's"
)]
fn longest<F: Tables, S: Skb>(skb: &S, packet: &Packet<F::Address>) -> Option<u16> {
    let length = segment_length(packet, skb.gso_size());
    let floor = u32::from(F::MINIMUM_MTU);
    let length = if length < floor { floor } else { length };
    let mtu = skb.mtu()?;
    let length = if length < mtu { length } else { mtu };
    Some(if length < 0xffff { length as u16 } else { 0xffff })
}

#[inline(always)]
fn sum(words: &[u32; 4]) -> u64 {
    csum::sum(words)
}
