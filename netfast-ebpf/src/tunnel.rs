//! Packets that leave through a tunnel: what the kernel does between the tunnel's device and the uplink, learned and
//! repeated.
//!
//! It is a second flow behind the first one. At the device's egress a packet is as its sender, a bridge or a route gave it to the
//! tunnel; at the uplink's egress it is the same packet with the outer header before it, in the same run of the kernel. So the
//! entry leaves a candidate as every other does ([`candidate`]), and the exit recognises it behind the outer header. Whatever
//! the kernel does otherwise (floods, answers itself, encrypts, fragments, queues, drops) does not come out so, and is not
//! learned.

use netfast_common::{
    control::Control,
    device::{Device, DeviceKey, NetnsNumber},
    flow::{FlowKey, Origin},
    net::Ip4,
    reason::Reason,
    tunnel::{GROWTH, Tunnel},
};

use crate::{
    ctx::{NEXT, Skb, kernel::coarse_ns},
    fastpath::{Arrival, lookup, verdict},
    learn::{candidate, warmup},
    packet::{ECN, ETHERNET, Packet, UDP, V4, outer::Each, outer::Outer, outer::without_length, parse, segment_length},
    state::{self, maps},
};

mod learn;
mod way_in;

pub use self::{
    learn::at_uplink,
    way_in::{forget, from_device, from_uplink},
};

/// A packet is given to a tunnel's device: it is sent with the outer header of its conversation, or looked for at the uplink.
#[inline(always)]
pub fn at_device<S: Skb>(skb: &S) -> i32 {
    let Some(control) = maps::CONTROL.get(0) else {
        return NEXT;
    };
    let Some(tunnel) = tunnel(skb.ifindex()) else {
        return NEXT;
    };
    let Some(device) = state::device(skb.ifindex()).filter(|device| device.has(Device::ACCELERATED)) else {
        return NEXT;
    };
    let Some((packet, key)) = admit(skb, tunnel) else {
        candidate::forget();
        return NEXT;
    };
    let now = coarse_ns();
    if control.may_use()
        && let Some(sent) = repeat(skb, &packet, &key, control, now)
    {
        return sent;
    }
    // Most conversations are short, and who makes up new ones all the time shall not fill the table.
    let is_learned = control.may_learn() && warmup::is_enough(&key, control.learn_after);
    if !is_learned {
        candidate::forget();
        return NEXT;
    }
    if let Ok(candidate) = candidate::leave::<V4, S>(skb, &packet, &key, device, control, now, Arrival::Alone) {
        // There is room for it in what will be the flow.
        candidate.flow.mark = skb.mark();
    }
    NEXT
}

/// What is said of a tunnel's device, if its packets may get an outer header that is known.
#[inline(always)]
fn tunnel(ifindex: u32) -> Option<&'static Tunnel> {
    let key = DeviceKey::new(NetnsNumber(state::netns()), ifindex);
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    unsafe { maps::TUNNELS.get(key) }
}

/// Refuses what is not understood, and what a tunnel sends to several ends.
#[inline(always)]
fn admit<S: Skb>(skb: &S, tunnel: &Tunnel) -> Option<(Packet<Ip4>, FlowKey<Ip4>)> {
    let packet = parse::<V4, S>(skb).ok()?;
    if !packet.macs.is_unicast() || packet.network.is_padded {
        return None;
    }
    // The kernel computes the outer checksum of each segment, and a program cannot ask it to.
    if tunnel.has_checksums() && (skb.gso_size() != 0 || !is_summed(&packet)) {
        return None;
    }
    let key = lookup::key::<V4, S>(skb, &packet, Origin::Tunnel).ok()?;
    Some((packet, key))
}

/// Whether a packet has a transport checksum: with UDP 0 is none.
#[inline(always)]
const fn is_summed(packet: &Packet<Ip4>) -> bool {
    packet.network.protocol != UDP || packet.checksum != 0
}

/// Sends a packet with the outer header that its conversation has, if it may be used; `None` leaves the packet as it was.
#[inline(always)]
fn repeat<S: Skb>(skb: &S, packet: &Packet<Ip4>, key: &FlowKey<Ip4>, control: &Control, now: u64) -> Option<i32> {
    let place = maps::ENCAP4.get_ptr_mut(key)?;
    let tag = key.tag();
    // SAFETY: the element lives as long as the program runs; it is made of integers, so a torn read is only a wrong number,
    // which the tags tell: a new value is copied in from its first field to its last.
    let known = unsafe { &mut *place };
    // SAFETY: as above; volatile, so that it is read before the rest.
    if unsafe { (&raw const known.tag_end).read_volatile() } != tag {
        return None;
    }
    if known.epoch != control.epoch
        || lookup::generation(known.in_slot) != Some(known.in_generation)
        || lookup::generation(known.out_slot) != Some(known.out_generation)
        || now.wrapping_sub(known.learned_ns) > control.revalidate_ns
    {
        return None;
    }
    // The kernel routes the outer packet by its mark, and may make its TOS of the one inside.
    if known.in_mark != skb.mark() || known.dscp != packet.network.tos & !ECN {
        return None;
    }
    if segment_length(packet, skb.gso_size()) > u32::from(known.max_length) {
        return None;
    }
    let mut outer = Outer(known.header);
    if outer.inner_macs() != packet.macs {
        return None;
    }
    let length = u16::try_from(skb.length() + GROWTH - ETHERNET).ok()?;
    let each = Each {
        length,
        identity: known.identity,
        tos: packet.network.tos,
        udp_sum: known.udp_sum,
        without: without_length(packet),
    };
    outer.fill(each, known.sum);
    let (ifindex, mark, priority) = (known.out_ifindex, known.mark, known.priority);
    // SAFETY: as above.
    if unsafe { (&raw const known.tag).read_volatile() } != tag {
        return None;
    }
    if !skb.encapsulate() {
        return None;
    }
    // The place is linear and ours alone, so this does not fail.
    if !skb.store_header(&outer) {
        skb.take_room_back();
        return None;
    }
    known.identity = each.identity.wrapping_add(segments(packet, skb.gso_size()));
    known.packets += 1;
    known.bytes += u64::from(length);
    verdict::count(Reason::Encapsulated.number(), length.into());
    if mark != skb.mark() {
        skb.set_mark(mark);
    }
    if priority != skb.priority() {
        skb.set_priority(priority);
    }
    Some(skb.redirect(ifindex, 0))
}

/// How many identifications a packet uses up: each segment gets one (`inet_gso_segment`).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "identifications begin anew after 65,535")]
fn segments(packet: &Packet<Ip4>, gso_size: u32) -> u16 {
    match packet.payload.checked_div(gso_size) {
        None => 1,
        Some(whole) => whole.wrapping_add(1) as u16,
    }
}

#[cfg(test)]
mod tests;
