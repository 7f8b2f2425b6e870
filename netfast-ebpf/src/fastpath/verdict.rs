//! Outcome to tc verdict, with every reason counted.

use netfast_common::{
    device::Traffic,
    reason::{self, Count, Reason},
};

use super::{Entry, lookup::Hit, redirect};
use crate::{
    ctx::{NEXT, Skb},
    packet::{ETHERNET, Family, parse},
    state::{self, maps},
};

/// A packet that may be used with a flow, already rewritten: counts it and sends it.
#[inline(always)]
pub fn fast<A, S: Skb>(skb: &S, hit: &Hit<A>, bytes: u32) -> i32 {
    count_fast(hit.in_slot, hit.out_slot, bytes);
    redirect::redirect(skb, hit)
}

/// Counts a packet of the fast path, where it came in and where it goes out.
#[inline(always)]
pub fn count_fast(in_slot: u16, out_slot: u16, bytes: u32) {
    count(reason::FAST, bytes);
    if let Some(traffic) = traffic(in_slot) {
        traffic.in_fast_packets += 1;
        traffic.in_fast_bytes += u64::from(bytes);
    }
    if let Some(traffic) = traffic(out_slot) {
        traffic.out_fast_packets += 1;
        traffic.out_fast_bytes += u64::from(bytes);
    }
}

/// A packet that takes the slow path from where it entered.
#[inline(always)]
pub fn slow<F: Family, S: Skb>(skb: &S, entry: Entry, reason: Reason) -> i32 {
    let bytes = skb.length().saturating_sub(ETHERNET);
    count(reason.number(), bytes);
    if let Some(device) = state::device(skb.ifindex())
        && let Some(traffic) = traffic(device.slot)
    {
        traffic.in_slow_packets += 1;
        traffic.in_slow_bytes += u64::from(bytes);
        if entry == Entry::Endpoint {
            if parse::is_from_another::<F, S>(skb, device) {
                traffic.in_spoofed_packets += 1;
            }
            if matches!(reason, Reason::Malformed | Reason::BadIpChecksum | Reason::BadChecksum) {
                traffic.in_malformed_packets += 1;
            }
        }
    }
    NEXT
}

/// A packet at a hook on its way or at its end.
#[inline(always)]
pub fn learned<S: Skb>(skb: &S, reason: Reason) -> i32 {
    count(reason.number(), skb.length().saturating_sub(ETHERNET));
    NEXT
}

/// Counts a packet under a reason.
#[inline(always)]
pub fn count(number: u32, bytes: u32) {
    add(maps::REASONS.get_ptr_mut(number), bytes);
}

/// Counts a packet at a place of a map that each CPU has its own of.
#[inline(always)]
pub fn add(place: Option<*mut Count>, bytes: u32) {
    if let Some(count) = place {
        // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += u64::from(bytes);
    }
}

#[inline(always)]
fn traffic(slot: u16) -> Option<&'static mut Traffic> {
    // SAFETY: as in `count`.
    maps::TRAFFIC
        .get_ptr_mut(u32::from(slot))
        .map(|traffic| unsafe { &mut *traffic })
}
