//! Whose turn it is, and what each member was given.
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value a key is copied to the stack, which is scarce here"
)]

use netfast_common::{
    alias::address,
    flow::Origin,
    vip::{Direction, Service, UDP_IDLE_NS, Verdict, affinity},
};

use super::{conntrack, work::work};
use crate::{
    ctx::{atomic, kernel::coarse_ns},
    packet::{V4, V6},
    state::{kept::Kept, lb::Work, maps},
};

/// No verdict's number.
pub const CHOSEN: u32 = 0;
/// Slots that are tried for a connection.
const TRIES: u32 = 16;

/// Chooses the member for the new connection that this CPU works on; returns [`CHOSEN`], or the number of the verdict why
/// there is none. Out of line ([`Calls`](super::Calls)), so its caller holds no reference to [`Work`].
#[inline(always)]
pub fn select() -> u32 {
    match work().and_then(|work| next(work, coarse_ns())) {
        Ok(()) => CHOSEN,
        Err(verdict) => verdict.number(),
    }
}

#[inline(always)]
fn next(work: &mut Work, now: u64) -> Result<(), Verdict> {
    if work.service.slots == 0 {
        return Err(Verdict::Nobody);
    }
    let first = if work.service.flags & Service::AFFINITY != 0 {
        affinity(&work.key.client)
    } else {
        let turn = maps::CURSORS.get_ptr_mut(&work.service.id).ok_or(Verdict::NoSlot)?;
        // SAFETY: it lives as long as the program runs; the daemon makes it and removes it, and does not change it.
        unsafe { atomic::increment(turn) }
    };
    let mut verdict = Verdict::NoSlot;
    let mut tried = 0;
    while tried < TRIES {
        set_slot(work, first.wrapping_add(tried.into()));
        tried += 1;
        // SAFETY: copied at once; what the daemon may put in its place meanwhile is a member as well.
        if let Some(backend) = unsafe { maps::VIP_SLOTS.get(&work.slot) } {
            work.backend = *backend;
            if is_tried(work) {
                continue;
            }
            if work.backend.address == work.key.client || !is_in_use(work, now) {
                return Ok(());
            }
            verdict = Verdict::InUse;
            continue;
        }
        // Another version has just taken its place.
        // SAFETY: as above.
        work.service = *unsafe { maps::VIPS.get(&work.key.remote) }.ok_or(Verdict::NoSlot)?;
        if work.service.slots == 0 {
            return Err(Verdict::Nobody);
        }
    }
    Err(verdict)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than a number of 32 bits")]
fn set_slot(work: &mut Work, index: u64) {
    let Work { service, slot, .. } = work;
    slot.service = service.id;
    slot.version = service.version;
    slot.slot = match service.slots {
        0 => 0,
        slots => (index % u64::from(slots)) as u32,
    };
}

/// Whether the connection was given to the member before.
#[inline(always)]
fn is_tried(work: &Work) -> bool {
    work.syn.tried.contains(&work.backend.address)
}

/// Whether the client talks to the member by these ports already: straight, or by another virtual address. The member could
/// not tell the two apart.
#[inline(always)]
fn is_in_use(work: &mut Work, now: u64) -> bool {
    let Work {
        key, tried, backend, ..
    } = work;
    *tried = *key;
    tried.remote = backend.address;
    tried.direction = Direction::FromMember as u8;
    if conntrack::is_live(tried, now) {
        return true;
    }
    let used = if key.client.is_v4() {
        straight::<V4>(work)
    } else {
        straight::<V6>(work)
    };
    used.is_some_and(|used| now.wrapping_sub(used) <= UDP_IDLE_NS)
}

/// When the flow was used last that goes straight to the member that was chosen, if there is one.
#[inline(always)]
fn straight<F: Kept>(work: &mut Work) -> Option<u64> {
    let (to, backend, key) = F::straight(work);
    key.source = F::of_any(to.client);
    key.destination = F::of_any(backend.address);
    key.source_port = to.client_port;
    key.destination_port = to.remote_port;
    key.ifindex = to.ifindex;
    key.protocol = to.protocol;
    key.origin = Origin::Wire as u8;
    key.netns = to.netns;
    // SAFETY: the elements live as long as the program runs; a torn read at worst passes over a member's turn.
    unsafe {
        F::flows()
            .get(&*key)
            .or_else(|| F::unreplied().get(&*key))
            .map(|flow| flow.used_ns)
    }
}

/// Whether the connection's member may be given: `None` if it is no more.
#[inline(always)]
pub fn is_eligible(work: &mut Work) -> Option<bool> {
    set_member(work);
    // SAFETY: read at once.
    unsafe { maps::VIP_MEMBERS.get(&work.member) }.map(|member| member.eligible != 0)
}

/// Counts a packet for the connection's member.
#[inline(always)]
pub fn count_packet(work: &mut Work, bytes: u32) {
    set_member(work);
    if let Some(stats) = maps::VIP_STATS.get_ptr_mut(&work.member) {
        // SAFETY: it lives as long as the program runs; the daemon makes it and removes it, and does not change it.
        unsafe {
            atomic::add(&raw mut (*stats).packets, 1);
            atomic::add(&raw mut (*stats).bytes, bytes.into());
        }
    }
}

/// Counts the connection for its member.
#[inline(always)]
pub fn count_connection(work: &mut Work) {
    set_member(work);
    if let Some(stats) = maps::VIP_STATS.get_ptr_mut(&work.member) {
        // SAFETY: as in `count_packet`.
        unsafe { atomic::increment(&raw mut (*stats).connections) };
    }
}

/// Counts for the connection's member that another one gets it.
#[inline(always)]
pub fn count_retried(work: &mut Work) {
    set_member(work);
    if let Some(stats) = maps::VIP_STATS.get_ptr_mut(&work.member) {
        // SAFETY: as in `count_packet`.
        unsafe { atomic::increment(&raw mut (*stats).retried) };
    }
}

#[inline(always)]
fn set_member(work: &mut Work) {
    work.member.alias = work.conn.service;
    work.member.address = address(&work.conn.backend.address);
}
