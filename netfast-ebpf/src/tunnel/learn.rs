//! Recognises at an uplink what was given to a tunnel's device, and remembers what the kernel put before it.
//!
//! The list of early returns is the rule; each line has a packet test.

use netfast_common::{
    device::{Device, Kind},
    flow::FlowKey,
    net::Ip4,
    reason::Reason,
    tunnel::{Encap, GROWTH},
};

use super::tunnel;
use crate::{
    ctx::{NEXT, Skb, inner::Inner, kernel::coarse_ns},
    fastpath::{lookup::generation, verdict},
    learn::candidate::{self, Recognised},
    packet::{
        ECN, Family as _, Packet, V4,
        outer::{Each, Outer, outer_ecn, without_length},
        parse, segment_length,
    },
    state::{self, candidate::Candidate, maps},
};

/// Two packets of a conversation that are learned closer together than this belong to one question, in nanoseconds.
const ASKED_NS: u64 = 100_000_000;

/// A packet leaves by an uplink: if it was given to a tunnel's device in this run, its outer header is learned.
#[inline(always)]
pub fn at_uplink<S: Skb>(skb: &S) -> i32 {
    let Some(candidate) = candidate::current::<V4, S>(skb).filter(|candidate| candidate.is_of_tunnel::<V4>()) else {
        return NEXT;
    };
    let reason = match examine(skb, candidate) {
        Ok(()) => Reason::OuterLearned,
        Err(reason) => reason,
    };
    candidate::end::<V4, S>(skb);
    verdict::learned(skb, reason)
}

/// The rule: what must hold between the packet that was given to the device and the one that leaves.
#[inline(always)]
fn examine<S: Skb>(skb: &S, candidate: &mut Candidate<Ip4>) -> Result<(), Reason> {
    if !candidate.is_same_run(coarse_ns()) || !candidate.is_from_there(skb) {
        return Err(Reason::OtherRun);
    }
    let tunnel = tunnel(candidate.key.ifindex).ok_or(Reason::OuterOdd)?;
    let learned = maps::ENCAP_WORK.get_ptr_mut(0).ok_or(Reason::TableFull)?;
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile. Made of integers.
    let learned = unsafe { &mut *learned };
    let outer = Outer::within(&mut learned.header);
    if !outer.read(skb, tunnel) {
        return Err(Reason::OuterOdd);
    }
    let inner = Inner::new(skb, V4::ETHERTYPE);
    let packet = parse::<V4, _>(&inner).map_err(|_| Reason::OuterOdd)?;
    if !matches!(candidate.recognise::<V4, _>(&inner, &packet), Recognised::Same) {
        return Err(Reason::OuterOdd);
    }
    // Nothing inside is changed by a tunnel.
    if packet.macs != candidate.macs || packet.network.ttl != candidate.ttl || !has_tuple(&packet, &candidate.key) {
        return Err(Reason::OuterOdd);
    }
    if outer.tos() & ECN != outer_ecn(packet.network.tos) {
        return Err(Reason::OuterOdd);
    }
    let device = state::device(skb.ifindex()).ok_or(Reason::EgressUnknown)?;
    if !device.has(Device::ACCELERATED) || device.kind() != Some(Kind::Uplink) {
        return Err(Reason::EgressUnknown);
    }
    remember(skb, candidate, &packet, device, learned, tunnel.has_checksums())
}

/// Whether a packet has the addresses and ports that it was given with.
#[inline(always)]
fn has_tuple(packet: &Packet<Ip4>, key: &FlowKey<Ip4>) -> bool {
    packet.network.source == key.source
        && packet.network.destination == key.destination
        && packet.source_port == key.source_port
        && packet.destination_port == key.destination_port
}

/// `learned` has the outer header already.
#[inline(always)]
fn remember<S: Skb>(
    skb: &S,
    candidate: &Candidate<Ip4>,
    packet: &Packet<Ip4>,
    device: &Device,
    learned: &mut Encap,
    has_checksums: bool,
) -> Result<(), Reason> {
    let key = &candidate.key;
    let now = coarse_ns();
    let outer = Outer::within(&mut learned.header);
    let length = outer.length();
    let mut max_length = longest(skb, packet).ok_or(Reason::EgressUnknown)?;
    let (mut packets, mut bytes, mut identity) = (0, 0, outer.identity().wrapping_add(1));
    let checksum = outer.udp_checksum();
    let sum = outer.blank();
    let udp_sum = if has_checksums { outer.sum_of_udp(packet) } else { 0 };
    let each = Each {
        length,
        identity,
        tos: packet.network.tos,
        udp_sum,
        without: without_length(packet),
    };
    if has_checksums && !outer.is_summed_so(checksum, &each) {
        return Err(Reason::OuterOdd);
    }
    // SAFETY: the element lives as long as the program runs; a torn read is a wrong count, or a length that the next question
    // puts right.
    if let Some(known) = unsafe { maps::ENCAP4.get(key) }
        && known.tag == key.tag()
        && outer.is(&known.header)
    {
        (packets, bytes, identity) = (known.packets, known.bytes, known.identity);
        // After a question the answer counts alone; a packet that was only too long raises the limit.
        if now.wrapping_sub(known.learned_ns) < ASKED_NS && known.max_length > max_length {
            max_length = known.max_length;
        }
    }
    let tag = key.tag();
    let out_generation = generation(device.slot).ok_or(Reason::EgressUnknown)?;
    learned.tag = tag;
    learned.epoch = candidate.epoch;
    learned.learned_ns = now;
    learned.packets = packets;
    learned.bytes = bytes;
    learned.in_generation = candidate.generation;
    learned.out_generation = out_generation;
    learned.in_slot = candidate.slot;
    learned.out_slot = device.slot;
    learned.out_ifindex = skb.ifindex();
    learned.in_mark = candidate.flow.mark;
    learned.mark = skb.mark();
    learned.priority = skb.priority();
    learned.sum = sum;
    learned.max_length = max_length;
    learned.identity = identity;
    learned.dscp = packet.network.tos & !ECN;
    learned.reserved = [0; 3];
    learned.udp_sum = udp_sum;
    learned.tag_end = tag;
    let learned = &*learned;
    maps::ENCAP4.insert(key, learned, 0).map_err(|_| Reason::TableFull)
}

/// The length up to which packets inside may follow this one, see the module `learn`: a route may have a smaller MTU than its
/// interface.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the smaller of two numbers, one of them a u16's"
)]
fn longest<S: Skb>(skb: &S, packet: &Packet<Ip4>) -> Option<u16> {
    let length = segment_length(packet, skb.gso_size());
    let floor = u32::from(V4::MINIMUM_MTU) - GROWTH;
    let length = if length < floor { floor } else { length };
    let mtu = skb.mtu()?.checked_sub(GROWTH)?;
    let length = if length < mtu { length } else { mtu };
    Some(if length < 0xffff { length as u16 } else { 0xffff })
}
