//! ICMP to and from virtual addresses: echo is a conversation, errors go where the packets go that they are about.

use netfast_common::{
    net::Ip4,
    vip::{Conn, Direction, Verdict},
};

use super::{BACK, Calls, FROM_MEMBER, NOTHING, Talk, carry, check, ends_to_member, give_back, table, work::work};
use crate::packet::{
    Packet,
    icmp::{Kind, Quoted, echo, error, kind},
    ipv4::Ends,
    rewrite,
};

/// An ICMP message passes, [`FROM_MEMBER`] or [`TO_VIP`](super::TO_VIP); returns a verdict's number, perhaps with [`BACK`], or
/// [`NOTHING`] where it has nothing to do with a virtual address. Out of line ([`Calls`]).
#[inline(always)]
pub fn message<S: Calls>(skb: &S, way: u32) -> u32 {
    if way == FROM_MEMBER {
        return from_member(skb);
    }
    match from_client(skb) {
        Ok(done) => done,
        Err(verdict) => verdict.number(),
    }
}

#[inline(always)]
fn from_client<S: Calls>(skb: &S) -> Result<u32, Verdict> {
    match kind(skb) {
        Kind::Echo => {
            let Ok((packet, opens)) = echo(skb) else {
                return Err(Verdict::Unreadable);
            };
            check(skb, &packet)?;
            carry(skb, &talk(&packet, opens))
        }
        Kind::Error => {
            let Ok((packet, quoted)) = error(skb) else {
                return Err(Verdict::Unreadable);
            };
            check(skb, &packet)?;
            error_to_member(skb, &packet, &quoted)
        }
        Kind::Other => Err(Verdict::OtherProtocol),
    }
}

#[inline(always)]
fn from_member<S: Calls>(skb: &S) -> u32 {
    match kind(skb) {
        Kind::Echo => match echo(skb) {
            Ok((packet, opens)) => give_back(skb, &talk(&packet, opens)),
            Err(_) => NOTHING,
        },
        Kind::Error => match error(skb) {
            Ok((packet, quoted)) => error_to_client(skb, &packet, &quoted),
            Err(_) => NOTHING,
        },
        Kind::Other => NOTHING,
    }
}

#[inline(always)]
const fn talk(packet: &Packet<Ip4>, opens: bool) -> Talk<'_> {
    Talk {
        packet,
        opens,
        flags: Conn::SEEN,
        may_refuse: false,
    }
}

/// An error of a client about what it got from the virtual address.
#[inline(always)]
fn error_to_member<S: Calls>(skb: &S, packet: &Packet<Ip4>, quoted: &Quoted) -> Result<u32, Verdict> {
    if quoted.source != packet.network.destination || quoted.destination != packet.network.source {
        return Err(Verdict::NoConnection);
    }
    let work = work()?;
    table::key_about(&mut work.key, quoted, skb.ifindex(), Direction::ToVip);
    table::find(work).ok_or(Verdict::NoConnection)?;
    let conn = &work.conn;
    let (source, back) = if conn.hairpin == 0 {
        (conn.backend.address, 0)
    } else {
        (quoted.destination, BACK)
    };
    let destination = if conn.hairpin == 0 {
        quoted.destination
    } else {
        quoted.source
    };
    let ends = ends_to_member(packet, conn);
    if rewrite::quoted_ends(skb, packet, quoted, &ends, source, destination) {
        Ok(Verdict::IcmpError.number() | back)
    } else {
        Err(Verdict::Unwritable)
    }
}

/// An error about what a client sent to the virtual address: of the member, or of who stands between.
#[inline(always)]
fn error_to_client<S: Calls>(skb: &S, packet: &Packet<Ip4>, quoted: &Quoted) -> u32 {
    let Ok(work) = work() else {
        return NOTHING;
    };
    table::key_about(&mut work.key, quoted, skb.ifindex(), Direction::FromMember);
    if quoted.source != packet.network.destination || table::find(work).is_none() {
        return NOTHING;
    }
    let conn = &work.conn;
    let mut ends = Ends::of(packet);
    if ends.source == conn.backend.address {
        ends.source = conn.vip;
    }
    if rewrite::quoted_ends(skb, packet, quoted, &ends, quoted.source, conn.vip) {
        Verdict::IcmpError.number()
    } else {
        Verdict::Unwritable.number()
    }
}
