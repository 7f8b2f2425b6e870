//! ICMP to and from virtual addresses: echo is a conversation, errors go where the packets go that they are about.

use core::borrow::Borrow as _;

use netfast_common::vip::{Conn, Direction, Verdict};

use super::{
    Calls, FROM_MEMBER, Segment, check, conntrack, dnat, ends_to_member, outcome::Outcome, read::Read, snat, work::work,
};
use crate::packet::{
    Packet,
    ends::Ends,
    icmp::{Kind, Quoted},
    rewrite,
};

/// An ICMP message passes, [`FROM_MEMBER`] or to a virtual address.
#[inline(always)]
pub fn message<F: Read, S: Calls>(skb: &S, way: u32) -> Outcome {
    match F::kind(skb) {
        Kind::Echo => Outcome::from_number(skb.icmp_echo::<F>(way)),
        Kind::Error => Outcome::from_number(skb.icmp_error::<F>(way)),
        Kind::Other if way == FROM_MEMBER => Outcome::NONE,
        Kind::Other => Outcome::of(Verdict::OtherProtocol),
    }
}

/// A message of echo passes, likewise; returns an [`Outcome`] as number. Out of line ([`Calls`]).
#[inline(always)]
pub fn echo_message<F: Read, S: Calls>(skb: &S, way: u32) -> u32 {
    let Some((packet, opens)) = F::echo(skb) else {
        return if way == FROM_MEMBER {
            Outcome::NONE
        } else {
            Outcome::of(Verdict::Unreadable)
        }
        .number();
    };
    let segment = segment(packet.borrow(), opens);
    let done = if way == FROM_MEMBER {
        snat::<F, S>(skb, &segment)
    } else {
        check::<F, S>(skb, segment.packet)
            .and_then(|()| dnat::<F, S>(skb, &segment))
            .into()
    };
    done.number()
}

/// An error passes, likewise. Out of line ([`Calls`]): older kernels round each function's stack up to 32 bytes, and both
/// kinds of message in one would not fit.
#[inline(always)]
pub fn error_message<F: Read, S: Calls>(skb: &S, way: u32) -> u32 {
    let Some((packet, quoted)) = F::error(skb) else {
        return if way == FROM_MEMBER {
            Outcome::NONE
        } else {
            Outcome::of(Verdict::Unreadable)
        }
        .number();
    };
    let (packet, quoted) = (packet.borrow(), quoted.borrow());
    let done = if way == FROM_MEMBER {
        error_to_client::<F, S>(skb, packet, quoted)
    } else {
        check::<F, S>(skb, packet)
            .and_then(|()| error_to_member::<F, S>(skb, packet, quoted))
            .into()
    };
    done.number()
}

#[inline(always)]
const fn segment<A>(packet: &Packet<A>, opens: bool) -> Segment<'_, A> {
    Segment {
        packet,
        opens,
        flags: Conn::SEEN,
        may_refuse: false,
    }
}

/// An error of a client about what it got from the virtual address.
#[inline(always)]
fn error_to_member<F: Read, S: Calls>(
    skb: &S,
    packet: &Packet<F::Address>,
    quoted: &Quoted<F::Address>,
) -> Result<Outcome, Verdict> {
    if quoted.source != packet.network.destination || quoted.destination != packet.network.source {
        return Err(Verdict::NoConnection);
    }
    let work = work()?;
    conntrack::key_about::<F>(&mut work.key, quoted, skb.ifindex(), Direction::ToVip);
    conntrack::find(work).ok_or(Verdict::NoConnection)?;
    let conn = &work.conn;
    let done = Outcome::of(Verdict::IcmpError);
    let (about, done) = if conn.hairpin == 0 {
        ((F::of_any(conn.backend.address), quoted.destination), done)
    } else {
        ((quoted.destination, quoted.source), done.reflected())
    };
    let ends = ends_to_member::<F>(packet, conn);
    if rewrite::quoted_ends::<F, S>(skb, packet, quoted, &ends, about, &mut work.headers) {
        Ok(done)
    } else {
        Err(Verdict::Unwritable)
    }
}

/// An error about what a client sent to the virtual address: of the member, or of who stands between.
#[inline(always)]
fn error_to_client<F: Read, S: Calls>(skb: &S, packet: &Packet<F::Address>, quoted: &Quoted<F::Address>) -> Outcome {
    let Ok(work) = work() else {
        return Outcome::NONE;
    };
    conntrack::key_about::<F>(&mut work.key, quoted, skb.ifindex(), Direction::FromMember);
    if quoted.source != packet.network.destination || conntrack::find(work).is_none() {
        return Outcome::NONE;
    }
    let conn = &work.conn;
    let mut ends = Ends::of(packet);
    let vip = F::of_any(conn.vip);
    if ends.source == F::of_any(conn.backend.address) {
        ends.source = vip;
    }
    if rewrite::quoted_ends::<F, S>(skb, packet, quoted, &ends, (quoted.source, vip), &mut work.headers) {
        Outcome::of(Verdict::IcmpError)
    } else {
        Outcome::of(Verdict::Unwritable)
    }
}
