//! ICMP to and from virtual addresses: echo is a conversation, errors go where the packets go that they are about.

use netfast_common::{
    net::Ip4,
    vip::{Conn, Direction, Verdict},
};

use super::{
    Calls, FROM_MEMBER, Segment, TO_VIP, check, conntrack, dnat, ends_to_member, outcome::Outcome, snat, work::work,
};
use crate::packet::{
    Packet,
    icmp::{Kind, Quoted, echo, error, kind},
    ipv4::Ends,
    rewrite,
};

/// An ICMP message passes, [`FROM_MEMBER`] or [`TO_VIP`]; returns an [`Outcome`] as number.
/// Out of line ([`Calls`]).
#[inline(always)]
pub fn message<S: Calls>(skb: &S, way: u32) -> u32 {
    let done = if way == FROM_MEMBER {
        from_member(skb)
    } else {
        from_client(skb).into()
    };
    done.number()
}

#[inline(always)]
fn from_client<S: Calls>(skb: &S) -> Result<Outcome, Verdict> {
    match kind(skb) {
        Kind::Echo => {
            let Ok((packet, opens)) = echo(skb) else {
                return Err(Verdict::Unreadable);
            };
            check(skb, &packet)?;
            dnat(skb, &segment(&packet, opens))
        }
        Kind::Error => Ok(Outcome::from_number(skb.icmp_error(TO_VIP))),
        Kind::Other => Err(Verdict::OtherProtocol),
    }
}

#[inline(always)]
fn from_member<S: Calls>(skb: &S) -> Outcome {
    match kind(skb) {
        Kind::Echo => match echo(skb) {
            Ok((packet, opens)) => snat(skb, &segment(&packet, opens)),
            Err(_) => Outcome::NONE,
        },
        Kind::Error => Outcome::from_number(skb.icmp_error(FROM_MEMBER)),
        Kind::Other => Outcome::NONE,
    }
}

/// An error passes, likewise. Out of line ([`Calls`]): older kernels round each function's stack up to 32 bytes, and both
/// kinds of message in one would not fit.
#[inline(always)]
pub fn error_message<S: Calls>(skb: &S, way: u32) -> u32 {
    let Ok((packet, quoted)) = error(skb) else {
        return if way == FROM_MEMBER {
            Outcome::NONE
        } else {
            Outcome::of(Verdict::Unreadable)
        }
        .number();
    };
    let done = if way == FROM_MEMBER {
        error_to_client(skb, &packet, &quoted)
    } else {
        check(skb, &packet)
            .and_then(|()| error_to_member(skb, &packet, &quoted))
            .into()
    };
    done.number()
}

#[inline(always)]
const fn segment(packet: &Packet<Ip4>, opens: bool) -> Segment<'_> {
    Segment {
        packet,
        opens,
        flags: Conn::SEEN,
        may_refuse: false,
    }
}

/// An error of a client about what it got from the virtual address.
#[inline(always)]
fn error_to_member<S: Calls>(skb: &S, packet: &Packet<Ip4>, quoted: &Quoted) -> Result<Outcome, Verdict> {
    if quoted.source != packet.network.destination || quoted.destination != packet.network.source {
        return Err(Verdict::NoConnection);
    }
    let work = work()?;
    conntrack::key_about(&mut work.key, quoted, skb.ifindex(), Direction::ToVip);
    conntrack::find(work).ok_or(Verdict::NoConnection)?;
    let conn = &work.conn;
    let done = Outcome::of(Verdict::IcmpError);
    let (source, destination, done) = if conn.hairpin == 0 {
        (conn.backend.address, quoted.destination, done)
    } else {
        (quoted.destination, quoted.source, done.reflected())
    };
    let ends = ends_to_member(packet, conn);
    if rewrite::quoted_ends(skb, packet, quoted, &ends, source, destination) {
        Ok(done)
    } else {
        Err(Verdict::Unwritable)
    }
}

/// An error about what a client sent to the virtual address: of the member, or of who stands between.
#[inline(always)]
fn error_to_client<S: Calls>(skb: &S, packet: &Packet<Ip4>, quoted: &Quoted) -> Outcome {
    let Ok(work) = work() else {
        return Outcome::NONE;
    };
    conntrack::key_about(&mut work.key, quoted, skb.ifindex(), Direction::FromMember);
    if quoted.source != packet.network.destination || conntrack::find(work).is_none() {
        return Outcome::NONE;
    }
    let conn = &work.conn;
    let mut ends = Ends::of(packet);
    if ends.source == conn.backend.address {
        ends.source = conn.vip;
    }
    if rewrite::quoted_ends(skb, packet, quoted, &ends, quoted.source, conn.vip) {
        Outcome::of(Verdict::IcmpError)
    } else {
        Outcome::of(Verdict::Unwritable)
    }
}
