//! A flow is used only after the daemon has looked at its conntrack entry ([`netfast_common::vet`]).
//!
//! Two things about an entry cannot be seen in packets. A helper may work on the connection although no rule says so any
//! more (it stays with the connection), and it must see every packet. And conntrack checks TCP's windows: an entry must
//! be told that it will not see all segments, or the FIN is INVALID and the connection hangs at its close. The kernel's
//! own flow table tells each entry likewise (`flow_offload_fixup_ct`,
//! `net/netfilter/nf_flow_table_core.c`).
//!
//! It is asked when a known flow is learned again, so conversations of a question and an answer never ask.

use core::borrow::Borrow as _;

use netfast_common::{
    control::Control,
    flow::{Flow, FlowKey},
    reason::Reason,
    vet::{Answer, Request},
};

use crate::state::{Place, Tables, maps};

/// A question without an answer is asked again after this time, in nanoseconds.
const VET_TIMEOUT_NS: u64 = 50_000_000;
/// A flow that was quiet for this long, in nanoseconds, may have another conntrack entry by now: it is vetted anew.
/// conntrack forgets a conversation after 30 s (ICMP, and UDP in its first seconds) or more by default.
const QUIET_NS: u64 = 25_000_000_000;

/// Why a flow that is due to be learned again is so.
#[inline(always)]
pub fn why_due<A>(flow: &Flow<A>, control: &Control) -> Reason {
    if flow.learned_ns != 0 || !control.vets() || flow.flags & Flow::<A>::VETTED != 0 {
        Reason::Revalidate
    } else if flow.flags & Flow::<A>::HELPED != 0 {
        Reason::CtHelper
    } else {
        Reason::Unvetted
    }
}

/// A flow that was just put among those in use waits until it is vetted.
#[inline(always)]
pub fn await_it<F: Tables>(key: &FlowKey<F::Address>) {
    if !is_on() {
        return;
    }
    if let Some(flow) = F::flows().get_ptr_mut(key) {
        // SAFETY: the element lives as long as the program runs; made of integers, so each store is whole.
        let flow = unsafe { &mut *flow };
        flow.learned_ns = 0;
        flow.used_ns = 0;
    }
}

/// Whether a known flow that was learned again at this time may be used from now on. If not, it stays as it is.
#[inline(always)]
pub fn pass<F: Tables>(key: &FlowKey<F::Address>, known: &mut Flow<F::Address>, now: u64) -> Result<(), Reason> {
    if !is_on() {
        return Ok(());
    }
    let is_vetted = known.flags & Flow::<F::Address>::VETTED != 0;
    if is_vetted && now.wrapping_sub(known.learned_ns) < QUIET_NS {
        return Ok(());
    }
    if is_vetted {
        known.flags &= !Flow::<F::Address>::VETTED;
        known.learned_ns = 0;
        known.used_ns = 0;
    }
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole, and it is read at once.
    if let Some(answer) = unsafe { F::vetted().get(key) }.copied() {
        let is_of_this = answer.asked_ns == known.used_ns && known.used_ns != 0;
        if is_of_this && answer.verdict == Answer::CLEAR {
            let _ = F::vetted().remove(key);
            known.flags = (known.flags & !Flow::<F::Address>::HELPED) | Flow::<F::Address>::VETTED;
            return Ok(());
        }
        if is_of_this && answer.verdict == Answer::HELPED {
            known.flags |= Flow::<F::Address>::HELPED;
        }
    }
    let is_helped = known.flags & Flow::<F::Address>::HELPED != 0;
    let patience = if is_helped { QUIET_NS } else { VET_TIMEOUT_NS };
    if now.wrapping_sub(known.used_ns) > patience {
        ask::<F>(key, known, now);
    }
    Err(if is_helped { Reason::Helped } else { Reason::Vetting })
}

/// Asks the daemon, for both directions.
#[inline(always)]
fn ask<F: Tables>(key: &FlowKey<F::Address>, known: &mut Flow<F::Address>, now: u64) {
    let Ok(reverse_key) = F::keep(Place::Reverse, |reverse| known.write_reverse_key(key, reverse)) else {
        return;
    };
    let reverse_key = reverse_key.borrow();
    let Some(mut place) = F::to_vet().reserve::<Request<F::Address>>(0) else {
        return;
    };
    // SAFETY: the place is ours until it is submitted.
    unsafe {
        *place.as_mut_ptr() = Request {
            asked_ns: now,
            key: *key,
            reverse: *reverse_key,
        };
    }
    place.submit(0);
    known.used_ns = now;
    if let Some(reverse) = F::flows().get_ptr_mut(reverse_key) {
        // SAFETY: the element lives as long as the program runs; a torn read at worst asks once more.
        let reverse = unsafe { &mut *reverse };
        if reverse.flags & Flow::<F::Address>::VETTED == 0 && reverse.is_reverse_of(key) {
            reverse.used_ns = now;
        }
    }
}

/// Whether flows wait until the daemon has looked at them.
#[inline(always)]
pub fn is_on() -> bool {
    maps::CONTROL.get(0).is_some_and(Control::vets)
}
