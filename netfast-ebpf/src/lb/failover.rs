//! A connection that its member refuses, or does not answer, goes to another one, and the client need not know.
//!
//! Between the end of a server and what Docker says of it, and between the start of a container and that of its server, the
//! kernel there refuses. The reset is made the client's SYN again, which enters by the client's veth as if it had been sent
//! twice. The members that have been tried are remembered with the SYN, so it ends.
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value a key is copied to the stack, which is scarce here"
)]

use core::{borrow::Borrow as _, ptr};

use netfast_common::{
    net::{Address, AnyIp},
    vip::{Conn, ConnKey, Syn, Verdict},
};

use super::{
    Calls, conntrack,
    outcome::Outcome,
    read::Read,
    select,
    work::{self, work},
};
use crate::{
    ctx::{Skb, kernel::coarse_ns},
    packet::{ACK, FIN, Packet, RST, SYN, TCP, rewrite},
    state::{lb::Work, maps},
};

/// Remembers the SYN of a new connection, unless there is only one member, or the SYN carries data.
#[inline(always)]
pub fn remember<A: Address, S: Skb>(skb: &S, packet: &Packet<A>) {
    let Ok(work) = work() else {
        return;
    };
    let length = packet.payload_offset;
    if packet.payload != 0 || work.service.slots < 2 || length > Syn::LONGEST {
        return;
    }
    let syn = &mut work.syn;
    syn.headers = [0; Syn::ROOM];
    syn.length = length;
    syn.sequence = packet.transport[0];
    syn.tries = 0;
    syn.tried = [AnyIp::default(); Syn::MORE as usize];
    if skb.load_headers(length, &mut syn.headers) {
        put(work);
    }
}

/// Whether a packet may refuse the connection of this direction, all that is known of which is the client's SYN.
#[inline(always)]
pub const fn may_refuse(conn: &Conn, flags: u8) -> bool {
    flags == Conn::RST && conn.from_client == Conn::SEEN && conn.from_member == 0 && conn.hairpin != conntrack::OPENS
}

/// Whether nothing has been heard of the connection's member.
#[inline(always)]
pub fn is_unanswered(work: &Work) -> bool {
    work.key.protocol == TCP && work.conn.from_client == Conn::SEEN && work.conn.from_member == 0
}

/// The packet [may refuse](may_refuse) the connection that this CPU works on: if it does, and there is another member, it is
/// made the client's SYN again. Returns an [`Outcome`] as number. Out of line ([`Calls`]).
#[inline(always)]
pub fn refused<F: Read, S: Calls>(skb: &S) -> u32 {
    failed_over::<F, S>(skb).number()
}

#[inline(always)]
fn failed_over<F: Read, S: Calls>(skb: &S) -> Outcome {
    let Some(packet) = F::segment(skb) else {
        return Outcome::NONE;
    };
    let packet = packet.borrow();
    let Ok(work) = work() else {
        return Outcome::NONE;
    };
    // By a third place of the CPU's memory, for the sake of the stack.
    let Work { key, other, tried, .. } = work;
    *tried = *key;
    *key = *other;
    *other = *tried;
    // RFC 9293, 3.10.7.3: only a reset that acknowledges the SYN is one for who sent it.
    if packet.tcp_flags() & (SYN | ACK | RST | FIN) != RST | ACK
        || !recall(work)
        || !acknowledges(packet, &work.syn)
        || S::next_backend() != FOUND
    {
        return Outcome::NONE;
    }
    let Ok(work) = work::work() else {
        return Outcome::NONE;
    };
    if rewrite::syn::<F, S>(skb, packet, &mut work.syn) {
        Outcome::of(Verdict::Retried).reinjected()
    } else {
        Outcome::of(Verdict::Unwritable)
    }
}

/// The client opens a connection straight to a member by the ports of a live one to its virtual address, whose direction
/// from the member the key is. Returns whether it has sent this SYN before.
#[inline(always)]
pub fn remember_direct(work: &mut Work, sequence: u32) -> bool {
    if recall(work) && work.syn.sequence == sequence {
        return true;
    }
    work.syn.sequence = sequence;
    put(work);
    false
}

/// Whether a packet of a member is its answer to a SYN that the client sent it straight.
#[inline(always)]
pub fn answers_direct<A: Address>(work: &mut Work, packet: &Packet<A>) -> bool {
    let flags = packet.tcp_flags();
    packet.network.protocol == TCP
        && flags & ACK != 0
        && flags & (SYN | RST) != 0
        && recall(work)
        && acknowledges(packet, &work.syn)
}

/// Whether a packet acknowledges this SYN and nothing else.
#[inline(always)]
const fn acknowledges<A>(packet: &Packet<A>, syn: &Syn) -> bool {
    u32::from_be(packet.transport[1]) == u32::from_be(syn.sequence).wrapping_add(1)
}

/// What [`next_backend`] returns.
pub const FOUND: u32 = 1;

/// Gives the connection that this CPU works on, with the SYN that was recalled, to a member that has not been tried; returns
/// [`FOUND`] if it did. Out of line ([`Calls`]), so its caller holds no reference to [`Work`].
#[inline(always)]
pub fn next_backend<S: Calls>() -> u32 {
    let is_found = prepare() && S::select() == select::CHOSEN && give();
    is_found.into()
}

/// Notes that the present member has been tried, for [`select`].
#[inline(always)]
fn prepare() -> bool {
    let Ok(work) = work() else {
        return false;
    };
    let tries = work.syn.tries;
    if tries >= Syn::MORE {
        return false;
    }
    work.syn.tried[tries as usize] = work.conn.backend.address;
    work.syn.tries = tries + 1;
    // SAFETY: copied at once; what the daemon may put in its place meanwhile is a service as well.
    let Some(service) = (unsafe { maps::VIPS.get(&work.key.remote) }) else {
        return false;
    };
    work.service = *service;
    true
}

/// Gives the connection to the member that was chosen.
#[inline(always)]
fn give() -> bool {
    let Ok(work) = work() else {
        return false;
    };
    // First it is noted who was tried, so that whatever fails, it ends.
    if !put(work) {
        return false;
    }
    select::count_retried(work);
    conntrack::forget_one(&work.other);
    if !conntrack::open(work, coarse_ns()) {
        return false;
    }
    select::count_connection(work);
    true
}

/// Copies the SYN of the key, if it was of this key before and after.
#[inline(always)]
pub fn recall(work: &mut Work) -> bool {
    let Work { key, syn: to, .. } = work;
    let key: &ConnKey = key;
    let Some(syn) = maps::VIP_SYNS.get_ptr_mut(key) else {
        return false;
    };
    let tag = key.tag();
    // SAFETY: as in `conntrack::copy`.
    unsafe {
        if (&raw const (*syn).tag_end).read_volatile() != tag {
            return false;
        }
        ptr::copy_nonoverlapping(syn, to, 1);
        (&raw const (*syn).tag).read_volatile() == tag
    }
}

#[inline(always)]
fn put(work: &mut Work) -> bool {
    let tag = work.key.tag();
    work.syn.tag = tag;
    work.syn.tag_end = tag;
    let (key, syn) = (&work.key, &work.syn);
    maps::VIP_SYNS.insert(key, syn, 0).is_ok()
}
