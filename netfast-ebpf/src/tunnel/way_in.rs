//! Packets that come in through a tunnel: what the kernel takes off between the uplink and the tunnel's device, learned and repeated.
//!
//! At the uplink's ingress a packet has the outer header before it; where it comes in by the tunnel's device, the kernel has taken that
//! off: it was for this host, met the rules on its way to the host's own socket, and had what the device asks for. From there on it goes
//! by its flow, as ever. So an outer header may be taken off if the kernel has taken the same off another packet of the conversation
//! within a second, and the packet inside may go by its flow at once.
//!
//! "The same" is all of it, to the byte, but for lengths, identification, checksums, and ECN. Another sender, another identifier, other
//! MAC addresses inside: whatever differs is the kernel's.
//!
//! Between the two the kernel queues packets (`gro_cells_receive`), so it is not one run: a packet is known again by its
//! `struct sk_buff`, which is one and the same from where it comes in to where it is delivered, and by what is inside
//! ([`Asked`]).

use netfast_common::{
    control::Control,
    device::{Device, Kind},
    flow::{FlowKey, Origin},
    net::Ip4,
    reason::Reason,
    tunnel::{Decap, End, GROWTH},
};

use super::{is_summed, tunnel};
use crate::{
    ctx::{NEXT, Skb, inner::Inner, kernel::coarse_ns},
    fastpath::{
        checksum, gate,
        lookup::{self, generation},
        redirect, rewrite, trace, verdict,
    },
    hooks::Hooked,
    packet::{
        ECN, Family as _, Packet, TCP, V4,
        outer::{Each, Outer, is_ecn_kept, may_be_outer, without_length},
        parse,
    },
    state::{
        self,
        asked::{Asked, PLACES, ROUND},
        maps,
    },
};

/// A packet that the kernel carries from the uplink to the tunnel's device takes less than this, in nanoseconds: two steps of the
/// coarse clock at its slowest (HZ=100). So long those behind it wait for it by taking the same way.
const MAX_WAY_NS: u64 = 20_000_000;

/// A packet comes in by an uplink: its outer header is taken off, or the kernel asked.
#[inline(always)]
pub fn from_uplink<S: Hooked>(skb: &S) -> i32 {
    if !may_be_outer(skb) || skb.mark() != 0 || skb.is_for_another_mac() {
        return NEXT;
    }
    take_off(skb).unwrap_or(NEXT)
}

/// `None` leaves the packet as it was.
#[inline(always)]
fn take_off<S: Hooked>(skb: &S) -> Option<i32> {
    let control = maps::CONTROL.get(0).filter(|control| control.may_use())?;
    let work = maps::ENCAP_WORK.get_ptr_mut(0)?;
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile. Made of integers.
    let outer = Outer::within(unsafe { &mut (*work).header });
    if !outer.read_any(skb) {
        return None;
    }
    let end = End {
        vni: outer.vni(),
        port: outer.port(),
        netns: state::netns(),
    };
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    let device = *unsafe { maps::ENDS.get(end) }?;
    let inner = Inner::at(skb, V4::ETHERTYPE, device);
    let packet = parse::<V4, _>(&inner).ok()?;
    gate::admit::<V4>(&packet).ok()?;
    if packet.network.is_padded {
        return None;
    }
    let key = lookup::key::<V4, _>(&inner, &packet, Origin::Wire).ok()?;
    let (checksum, length, tos) = (outer.udp_checksum(), outer.length(), outer.tos());
    outer.blank();
    if checksum != 0 && skb.gso_size() == 0 && !is_sum_of(outer, checksum, length, &packet) {
        return None;
    }
    if !checksum::is_sound::<V4, _>(&inner, &packet) {
        return None;
    }
    let now = coarse_ns();
    // Datagrams that GRO put together are taken apart again where they are received, and as those of a tunnel as long as they are
    // said to be within one (`udp4_ufo_fragment`, net/ipv4/udp_offload.c). TCP's segments are not.
    let stays_whole = skb.gso_size() == 0 || packet.network.protocol == TCP;
    let usable = usable(skb, &key, outer, control, now);
    let usable = usable.filter(|_| stays_whole && is_ecn_kept(tos, packet.network.tos));
    let found = usable.and_then(|known| {
        // Headers linear and ours alone: from here on no helper needs memory, so none fails half-way.
        let is_ready = skb.pull(GROWTH + packet.payload_offset);
        let hit = lookup::find::<V4, _>(&inner, &packet, &key, control, now).ok();
        hit.filter(|_| is_ready).map(|hit| (known, hit))
    });
    let Some((known, hit)) = found else {
        ask(skb, &packet, &key, outer, control, now);
        return None;
    };
    let ethernet = outer.inner_ethernet();
    if !skb.decapsulate() {
        return None;
    }
    // What cannot be written to goes on as one that has come in by the tunnel's device.
    if !skb.store_header(&ethernet) {
        return Some(redirect::into(skb, device));
    }
    trace::fast(skb, control, now, hit.out_ifindex);
    if rewrite::rewrite::<V4, S>(skb, &packet, &hit).is_err() {
        return Some(redirect::into(skb, device));
    }
    known.packets += 1;
    known.bytes += u64::from(length);
    verdict::count(Reason::Decapsulated.number(), length.into());
    Some(verdict::fast(skb, &hit, packet.network.length))
}

/// Whether the outer UDP checksum is right, given that the one inside is. Without that it would have to be summed up.
#[inline(always)]
fn is_sum_of(outer: &Outer, checksum: u16, length: u16, packet: &Packet<Ip4>) -> bool {
    let each = Each {
        length,
        identity: 0,
        tos: packet.network.tos,
        udp_sum: outer.sum_of_udp(packet),
        without: without_length(packet),
    };
    is_summed(packet) && outer.is_summed_so(checksum, &each)
}

/// What is known of the outer header of a conversation, if it is this one and may be taken off.
#[inline(always)]
fn usable<S: Skb>(
    skb: &S,
    key: &FlowKey<Ip4>,
    outer: &Outer,
    control: &Control,
    now: u64,
) -> Option<&'static mut Decap> {
    let place = maps::DECAP4.get_ptr_mut(key)?;
    let tag = key.tag();
    // SAFETY: the element lives as long as the program runs; it is made of integers, so a torn read is only a wrong number,
    // which the tags tell: a new value is copied in from its first field to its last.
    let known = unsafe { &mut *place };
    // SAFETY: as above; volatile, so that it is read before the rest.
    if unsafe { (&raw const known.tag_end).read_volatile() } != tag {
        return None;
    }
    if known.epoch != control.epoch
        || known.ifindex != skb.ifindex()
        || generation(known.slot) != Some(known.generation)
        || now.wrapping_sub(known.learned_ns) > control.revalidate_ns
        || !outer.is(&known.header)
        || is_on_its_way(key, now)
    {
        return None;
    }
    // SAFETY: as above.
    (unsafe { (&raw const known.tag).read_volatile() } == tag).then_some(known)
}

/// Where this CPU remembers the packet of a conversation.
#[inline(always)]
fn place(key: &FlowKey<Ip4>) -> Option<&'static mut Asked> {
    let place = maps::ASKED.get_ptr_mut(key.tag() >> 1 & (PLACES - 1))?;
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile. Made of integers.
    Some(unsafe { &mut *place })
}

/// Which time it is that the kernel handed no packet to user space in between.
#[inline(always)]
fn round() -> Option<&'static mut u32> {
    let place = maps::ASKED.get_ptr_mut(ROUND)?;
    // SAFETY: as above.
    Some(unsafe { &mut (*place).round })
}

/// The kernel hands a packet to user space: nobody knows when it goes on, and whether as it was. All that are on their way on this
/// CPU are forgotten.
#[inline(always)]
pub fn forget() {
    if let Some(round) = round() {
        *round = round.wrapping_add(1);
    }
}

/// Whether a packet of the conversation is on its way through the kernel: another one would overtake it.
#[inline(always)]
fn is_on_its_way(key: &FlowKey<Ip4>, now: u64) -> bool {
    place(key)
        .is_some_and(|asked| asked.left_ns != 0 && asked.key == *key && now.wrapping_sub(asked.left_ns) < MAX_WAY_NS)
}

/// Whether the flow of a packet is known and ends at a container, as far as is known: who makes up conversations has no place among
/// those that are asked about. What a container sends on to others is the kernel's: no program can take back that a packet was within
/// a tunnel ([`Skb::decapsulate`]), and where it leaves again, a device may believe it.
#[inline(always)]
fn is_for_a_container(key: &FlowKey<Ip4>) -> bool {
    // SAFETY: the element lives as long as the program runs; a torn read at worst asks once more, or once less.
    let flow = unsafe { maps::FLOWS4.get(key).or_else(|| maps::UNREPLIED4.get(key)) };
    let Some(flow) = flow else {
        return false;
    };
    let (ifindex, to) = (flow.out_ifindex, flow.destination);
    state::device(ifindex).is_some_and(|device| {
        let is_its_own = to == device.address4 && !device.has(Device::ANY_SOURCE);
        device.is_endpoint() && (is_its_own || device.address4 == Ip4::default())
    })
}

/// Remembers a packet that goes the kernel's way, if it is for a container.
#[inline(always)]
fn ask<S: Skb>(skb: &S, packet: &Packet<Ip4>, key: &FlowKey<Ip4>, outer: &Outer, control: &Control, now: u64) {
    if !control.may_learn() || !is_for_a_container(key) {
        return;
    }
    // A bridge has rules of its own for what its ports hand to the host.
    let Some(device) = state::device(skb.ifindex())
        .filter(|device| device.has(Device::ACCELERATED) && device.kind() == Some(Kind::Uplink) && device.bridge == 0)
    else {
        return;
    };
    let (Some(asked), Some(round), Some(generation)) = (place(key), round(), generation(device.slot)) else {
        return;
    };
    asked.left_ns = now;
    skb.note_address(&mut asked.address);
    asked.key = *key;
    asked.identity = packet.network.identity;
    asked.transport = [packet.transport[0], packet.transport[1]];
    asked.ifindex = skb.ifindex();
    asked.epoch = control.epoch;
    asked.generation = generation;
    asked.round = *round;
    asked.slot = device.slot;
    asked.dscp = packet.network.tos & !ECN;
    asked.reserved = [0; 5];
    asked.header = outer.0;
}

/// A packet comes in by a tunnel's device: if it is one that was asked about, its outer header is learned.
#[inline(always)]
pub fn from_device<S: Skb>(skb: &S) -> i32 {
    match taken(skb) {
        Some(reason) => verdict::learned(skb, reason),
        None => NEXT,
    }
}

/// What becomes of the packet that is remembered, if this is it.
#[inline(always)]
fn taken<S: Skb>(skb: &S) -> Option<Reason> {
    tunnel(skb.ifindex()).filter(|tunnel| tunnel.has_way_in())?;
    let packet = parse::<V4, S>(skb).ok()?;
    let key = lookup::key::<V4, S>(skb, &packet, Origin::Wire).ok()?;
    let asked = place(&key).filter(|asked| asked.left_ns != 0 && asked.key == key)?;
    // One that came in before it, and is still to be followed by it.
    if state::compares_addresses() && skb.note_address(&mut asked.here) != asked.address {
        return None;
    }
    let left_ns = core::mem::take(&mut asked.left_ns);
    let now = coarse_ns();
    if now.wrapping_sub(left_ns) >= MAX_WAY_NS || asked.round != *round()? {
        return Some(Reason::OtherRun);
    }
    // GRO may have put more behind it in between, but nothing before it.
    if packet.network.identity != asked.identity
        || packet.transport[0] != asked.transport[0]
        || packet.transport[1] != asked.transport[1]
        || packet.network.tos & !ECN != asked.dscp
        || packet.macs != Outer::within(&mut asked.header).inner_macs()
    {
        return Some(Reason::OuterOdd);
    }
    Some(remember(asked, now))
}

/// It was taken off by the kernel: it may be taken off.
#[inline(always)]
fn remember(asked: &Asked, now: u64) -> Reason {
    let Some(work) = maps::DECAP_WORK.get_ptr_mut(0) else {
        return Reason::TableFull;
    };
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile. Made of integers.
    let learned = unsafe { &mut *work };
    let tag = asked.key.tag();
    (learned.packets, learned.bytes) = (0, 0);
    // SAFETY: the element lives as long as the program runs; a torn read is a wrong count.
    if let Some(known) = unsafe { maps::DECAP4.get(asked.key) }
        && known.tag == tag
    {
        (learned.packets, learned.bytes) = (known.packets, known.bytes);
    }
    learned.tag = tag;
    learned.epoch = asked.epoch;
    learned.learned_ns = now;
    learned.generation = asked.generation;
    learned.ifindex = asked.ifindex;
    learned.header = asked.header;
    learned.slot = asked.slot;
    learned.reserved = 0;
    learned.tag_end = tag;
    let (key, learned) = (&asked.key, &*learned);
    if maps::DECAP4.insert(key, learned, 0).is_ok() {
        Reason::OuterLearned
    } else {
        Reason::TableFull
    }
}

#[cfg(test)]
mod tests;
