//! The two directions of a conversation: a flow is used only when both have been learned, and ends with both.
//!
//! A flow that waits for its reverse is kept in a table of its own, so that a flood of one-way packets evicts only its
//! like. conntrack gives an unreplied conversation 30 s and judges each of its packets as a new one. So the verdict on one UDP
//! packet is that of the next, until there is an answer: such a flow is used where it waits, if no rule judges what new
//! conversations send ([`Flow::ONE_WAY`]).

use core::borrow::Borrow as _;

use netfast_common::{
    control::Control,
    flow::{Exit, Flow, FlowKey},
    reason::Reason,
};

use crate::{
    fastpath::vet,
    packet::TCP,
    state::{Place, Tables},
};

/// Stores a flow that was just learned.
#[inline(always)]
pub fn remember<F: Tables>(key: &FlowKey<F::Address>, flow: &mut Flow<F::Address>) -> Reason {
    let is_one_way = flow.flags & Flow::<F::Address>::ONE_WAY != 0;
    let used = F::flows().get_ptr_mut(key);
    let known = match used {
        None if is_one_way => F::unreplied().get_ptr_mut(key),
        used => used,
    };
    if let Some(known) = known {
        // SAFETY: the element lives as long as the program runs; its tags tell readers if it is another's by now.
        let known = unsafe { &mut *known };
        let is_usable = used.is_some() || known.flags & Flow::<F::Address>::ONE_WAY != 0;
        if is_usable && is_same_mapping(known, flow) && known.tag == flow.tag {
            if let Err(reason) = vet::pass::<F>(key, known, flow.learned_ns) {
                return reason;
            }
            refresh(known, flow);
            return Reason::Refreshed;
        }
        if used.is_some() {
            // What came back by the old mapping does so no more: conntrack has another one.
            if !known.has_same_reverse(flow)
                && let Ok(old_reverse) = F::keep(Place::Reverse, |reverse| known.write_reverse_key(key, reverse))
            {
                let _ = F::flows().remove(old_reverse.borrow());
            }
            let _ = F::flows().remove(key);
        }
    }
    let reverse_key = match F::keep(Place::Reverse, |reverse| flow.write_reverse_key(key, reverse)) {
        Ok(reverse_key) => reverse_key,
        Err(reason) => return reason,
    };
    let reverse_key = reverse_key.borrow();
    // SAFETY: as above; read at once.
    if let Some(reverse) = unsafe { F::flows().get(reverse_key) }
        && reverse.is_reverse_of(key)
    {
        flow.flags &= !Flow::<F::Address>::ONE_WAY;
        let flow = &*flow;
        return if F::flows().insert(key, flow, 0).is_ok() {
            vet::await_it::<F>(key);
            Reason::Paired
        } else {
            Reason::TableFull
        };
    }
    if let Some(place) = F::unreplied().get_ptr_mut(reverse_key) {
        // SAFETY: as above; the kernel copies it into the other table.
        let reverse = unsafe { &mut *place };
        if !reverse.is_reverse_of(key) {
            return wait::<F>(key, flow);
        }
        // When it was judged nobody had answered, and to conntrack its packet was one of a new connection. Its next one
        // is not, so it has to ask.
        reverse.learned_ns = 0;
        reverse.flags &= !Flow::<F::Address>::ONE_WAY;
        flow.flags &= !Flow::<F::Address>::ONE_WAY;
        let (flow, reverse) = (&*flow, &*reverse);
        if F::flows().insert(reverse_key, reverse, 0).is_err() || F::flows().insert(key, flow, 0).is_err() {
            return Reason::TableFull;
        }
        vet::await_it::<F>(key);
        vet::await_it::<F>(reverse_key);
        let _ = F::unreplied().remove(reverse_key);
        let _ = F::unreplied().remove(key);
        return Reason::Paired;
    }
    wait::<F>(key, flow)
}

/// Stores a flow whose reverse is not known.
#[inline(always)]
fn wait<F: Tables>(key: &FlowKey<F::Address>, flow: &mut Flow<F::Address>) -> Reason {
    if flow.flags & Flow::<F::Address>::ONE_WAY != 0 && vet::is_on() {
        // It is asked for only when it is some milliseconds old: most of what is never answered is a packet or two.
        flow.learned_ns = 0;
    }
    let flow = &*flow;
    if F::unreplied().insert(key, flow, 0).is_ok() {
        Reason::Learned
    } else {
        Reason::TableFull
    }
}

/// Whether a flow is known that does more than hand the packet to the host's own stack.
#[inline(always)]
pub fn has_better<F: Tables>(key: &FlowKey<F::Address>) -> bool {
    // SAFETY: the element lives as long as the program runs.
    unsafe { F::flows().get(key) }.is_some_and(|known| known.exit != Exit::Host as u8)
}

/// Whether a flow is known, in use or waiting.
#[inline(always)]
pub fn is_known<F: Tables>(key: &FlowKey<F::Address>) -> bool {
    // SAFETY: only asked whether it is there.
    unsafe { F::flows().get(key) }.is_some() || is_waiting::<F>(key)
}

/// Whether a flow is known that waits for its reverse.
#[inline(always)]
pub fn is_waiting<F: Tables>(key: &FlowKey<F::Address>) -> bool {
    // SAFETY: only asked whether it is there.
    unsafe { F::unreplied().get(key) }.is_some()
}

/// A packet of a flow asks the kernel: the other direction asks next. What the kernel decides about one may be the end of the
/// other, and nobody says so: if another route leads elsewhere, the conntrack entry of a masqueraded connection dies with
/// the packet (`nf_nat_oif_changed`, `net/netfilter/nf_nat_core.c`).
///
/// A flow that asks for this reason alone does not prompt the other one in its turn, or both would ask for ever, nor does one
/// that asks because it was never judged as part of an answered conversation. A stale one
/// does so always: what was learned of the other direction since is older than what the kernel is about to decide.
#[inline(always)]
pub fn prompt_reverse<F: Tables>(key: &FlowKey<F::Address>, control: &Control, now: u64, is_stale: bool) {
    // SAFETY: the element lives as long as the program runs; a torn read at worst makes another flow ask.
    let Some(flow) = (unsafe { F::flows().get(key) }) else {
        return;
    };
    if !is_stale && (flow.flags & Flow::<F::Address>::PROMPTED != 0 || flow.learned_ns == 0) {
        return;
    }
    let Ok(reverse_key) = F::keep(Place::Reverse, |reverse| flow.write_reverse_key(key, reverse)) else {
        return;
    };
    let Some(reverse) = F::flows().get_ptr_mut(reverse_key.borrow()) else {
        return;
    };
    // SAFETY: as above; made of integers, so each store is whole.
    let reverse = unsafe { &mut *reverse };
    if !reverse.is_reverse_of(key) || now.wrapping_sub(reverse.learned_ns) > control.revalidate_ns {
        return;
    }
    reverse.flags |= Flow::<F::Address>::PROMPTED;
    reverse.learned_ns = now.wrapping_sub(control.revalidate_ns).wrapping_sub(1);
}

/// Ends the conversation of a packet in both directions.
#[inline(always)]
pub fn end<F: Tables>(key: &FlowKey<F::Address>) {
    // SAFETY: the element lives as long as the program runs; a torn read at worst ends another flow, which is then
    // learned again.
    let Some(flow) = (unsafe { F::flows().get(key) }) else {
        if key.protocol != TCP {
            let _ = F::unreplied().remove(key);
        }
        return;
    };
    if let Ok(reverse_key) = F::keep(Place::Reverse, |reverse| flow.write_reverse_key(key, reverse)) {
        let _ = F::flows().remove(reverse_key.borrow());
    }
    let _ = F::flows().remove(key);
}

/// Whether two flows do the same to a packet.
#[inline(always)]
fn is_same_mapping<A: netfast_common::net::Address>(known: &Flow<A>, new: &Flow<A>) -> bool {
    known.out_ifindex == new.out_ifindex
        && known.source == new.source
        && known.destination == new.destination
        && known.source_port == new.source_port
        && known.destination_port == new.destination_port
        && known.in_macs == new.in_macs
        && known.out_macs == new.out_macs
        && known.exit == new.exit
        && (known.flags ^ new.flags) & Flow::<A>::MAPPING == 0
        && known.in_slot == new.in_slot
        && known.out_slot == new.out_slot
}

/// Stamps a known flow anew, in place: each field alone is right at any moment.
#[inline(always)]
fn refresh<A: Copy>(known: &mut Flow<A>, new: &Flow<A>) {
    // After a question the answer counts alone; a packet that was only too long raises the limit.
    let asked = new.learned_ns.wrapping_sub(known.learned_ns) > ASKED_NS;
    if asked || new.max_length > known.max_length {
        known.max_length = new.max_length;
    }
    known.flags &= !Flow::<A>::PROMPTED;
    known.dscp = new.dscp;
    known.mark = new.mark;
    known.priority = new.priority;
    known.in_generation = new.in_generation;
    known.out_generation = new.out_generation;
    known.epoch = new.epoch;
    known.learned_ns = new.learned_ns;
}

/// Two packets of a flow that are learned closer together than this belong to one question, in nanoseconds.
const ASKED_NS: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use netfast_common::net::{Ip4, Port};

    use super::*;
    use crate::{
        ctx::fake::{reset, set_contended},
        packet::V4,
    };

    /// One direction of a conversation on a bridge, and what is learned of it.
    fn direction(from: u8, to: u8) -> (FlowKey<Ip4>, Flow<Ip4>) {
        let key = FlowKey {
            source: Ip4::from_bytes([172, 17, 0, from]),
            destination: Ip4::from_bytes([172, 17, 0, to]),
            source_port: Port::new(7000 + u16::from(from)),
            destination_port: Port::new(7000 + u16::from(to)),
            ifindex: u32::from(from),
            protocol: 17,
            ..FlowKey::default()
        };
        let flow = Flow {
            tag: key.tag(),
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            out_ifindex: u32::from(to),
            tag_end: key.tag(),
            ..Flow::default()
        };
        (key, flow)
    }

    #[test]
    fn a_table_that_takes_nothing_leaves_no_half_of_a_pair() {
        reset();
        let ((key, flow), (back_key, back)) = (direction(2, 3), direction(3, 2));
        let remember = |key, flow: &Flow<Ip4>| remember::<V4>(key, &mut flow.clone());
        set_contended(true);
        assert_eq!(remember(&key, &flow), Reason::TableFull);
        set_contended(false);
        assert_eq!(remember(&key, &flow), Reason::Learned);
        set_contended(true);
        assert_eq!(remember(&back_key, &back), Reason::TableFull);
        assert!(V4::flows().entries().is_empty() && is_waiting::<V4>(&key));
        // The one that waits is found again by the next packet.
        set_contended(false);
        assert_eq!(remember(&back_key, &back), Reason::Paired);
        assert_eq!((V4::flows().entries().len(), V4::unreplied().entries().len()), (2, 0));
        // What is known is stamped in place and needs none.
        set_contended(true);
        assert_eq!(remember(&key, &flow), Reason::Refreshed);
        reset();
    }
}
