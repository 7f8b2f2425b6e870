//! How much of a TCP flow the kernel has carried before netfast remembers anything of it.
//!
//! Most connections are short. To learn one costs about ten map operations on memory that nobody has touched for long,
//! and saves nothing if the next packet closes it. So the first packets of each direction only count themselves, in a
//! table of plain numbers: no two flows are told apart for certain, nobody waits for anybody, and a wrong count only
//! makes a flow learn a little sooner or later. A flood of TCP packets whose addresses or ports
//! never repeat learns nothing at all.

use netfast_common::{abi, flow::FlowKey, net::Address};

use crate::state::maps;

/// The bits of an entry that count; the others tell flows apart, with those that are the index.
const COUNT: u32 = 0xff;

/// Counts a packet that no flow is known for; whether as many have been seen as it takes.
#[inline(always)]
pub fn is_enough<A: Address>(key: &FlowKey<A>, learn_after: u32) -> bool {
    if learn_after == 0 {
        return true;
    }
    let tag = key.tag();
    let Some(place) = maps::WARMUP.get_ptr_mut(index(tag)) else {
        return true;
    };
    // SAFETY: the element lives as long as the program runs; another CPU may write it too, and a lost count is no harm.
    unsafe {
        let found = place.read_volatile();
        let count = if (found ^ tag) & !COUNT == 0 { found & COUNT } else { 0 };
        if count >= learn_after {
            return true;
        }
        place.write_volatile((tag & !COUNT) | (count + 1));
    }
    false
}

/// A connection of these addresses and ports begins or ends: what was counted is not of the next one.
#[inline(always)]
pub fn reset<A: Address>(key: &FlowKey<A>) {
    if let Some(place) = maps::WARMUP.get_ptr_mut(index(key.tag())) {
        // SAFETY: as in `is_enough`.
        unsafe { place.write_volatile(0) };
    }
}

/// Bit 0 of a tag is always set.
#[inline(always)]
fn index(tag: u32) -> u32 {
    (tag >> 1) & (abi::WARMUP - 1)
}
