//! Virtual addresses of aliases: each new connection goes to the next member.
//!
//! [`from_client`] comes behind the entry hook of the client's veth, so it sees what the fast path has let go; from there on
//! the packet is what the client would have sent straight to the member, and the kernel judges it as such. [`to_client`]
//! comes before the exit hook. So the flow that is learned is that from the client to the virtual address, and what becomes
//! of it between the two hooks contains what is done here: the fast path does it without being told.

use netfast_common::{
    net::{Ip4, MacPair},
    vip::{Conn, Direction, Service, Verdict},
};

use crate::{
    family::{Ends, V4},
    gate::{ACK, FIN, RST, SYN},
    kernel::coarse_ns,
    maps,
    parse::{self, Packet, TCP, UDP, icmp::ICMP, parse},
    redirect, rewrite,
    skb::Skb,
    verdict::NEXT,
};

pub mod choose;
pub mod icmp;
pub mod table;
pub mod work;

use work::{Work, work};

/// Set beside the number of a [`Verdict`]: the packet goes back to who sent it.
const BACK: u32 = 0x100;
/// What is neither a verdict's number nor [`BACK`].
const NOTHING: u32 = 0;

/// Which way a packet goes: from a client to a virtual address, from a member to a client, or from a client elsewhere.
pub const TO_VIP: u32 = 0;
/// As above.
pub const FROM_MEMBER: u32 = 1;
/// As above.
pub const STRAIGHT: u32 = 2;

/// A packet of a conversation.
struct Talk<'a> {
    packet: &'a Packet<Ip4>,
    /// It may be the first one.
    opens: bool,
    /// See [`Conn::from_client`].
    flags: u8,
}

impl<'a> Talk<'a> {
    /// A TCP or UDP packet.
    #[inline(always)]
    fn of(packet: &'a Packet<Ip4>) -> Self {
        let mut talk = Self {
            packet,
            opens: true,
            flags: Conn::SEEN,
        };
        if packet.network.protocol == TCP {
            let flags = packet.tcp_flags();
            talk.opens = flags & (SYN | ACK | RST | FIN) == SYN;
            if flags & FIN != 0 {
                talk.flags |= Conn::FIN;
            }
            if flags & RST != 0 {
                talk.flags = Conn::RST;
            }
        }
        talk
    }
}

/// A packet of a client that the fast path has let go passes here.
#[inline(always)]
pub fn from_client<S: Skb>(skb: &S) -> i32 {
    let Some((destination, protocol)) = parse::glance(skb) else {
        return NEXT;
    };
    // SAFETY: copied at once; what the daemon may put in its place meanwhile is a service as well.
    let Some(service) = (unsafe { maps::VIPS.get(destination) }) else {
        if protocol == TCP || protocol == UDP {
            skb.vip_talk(STRAIGHT);
        }
        return NEXT;
    };
    let done = match to_vip(skb, service, protocol) {
        Ok(done) => done,
        Err(verdict) => verdict.number(),
    };
    count(done);
    if done & BACK != 0 {
        return redirect::back(skb);
    }
    NEXT
}

/// A packet to a client passes here, before anything is learned of it.
#[inline(always)]
pub fn to_client<S: Skb>(skb: &S) -> i32 {
    let done = match parse::glance(skb) {
        Some((_, TCP | UDP)) => skb.vip_talk(FROM_MEMBER),
        Some((_, ICMP)) => skb.vip_icmp(FROM_MEMBER),
        _ => NOTHING,
    };
    if done != NOTHING {
        count(done);
    }
    NEXT
}

#[inline(always)]
fn count(done: u32) {
    if let Some(count) = maps::VIP_VERDICTS.get_ptr_mut(done & !BACK) {
        // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
        unsafe { *count += 1 };
    }
}

/// Carries a packet to a virtual address on.
#[inline(always)]
fn to_vip<S: Skb>(skb: &S, service: &Service, protocol: u8) -> Result<u32, Verdict> {
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    let device = unsafe { maps::DEVICES.get(skb.ifindex()) }.ok_or(Verdict::OtherBridge)?;
    if !device.is_endpoint() || device.bridge == 0 || device.bridge != service.bridge {
        return Err(Verdict::OtherBridge);
    }
    work()?.service = *service;
    match protocol {
        TCP | UDP => Ok(skb.vip_talk(TO_VIP)),
        ICMP => Ok(skb.vip_icmp(TO_VIP)),
        _ => Err(Verdict::OtherProtocol),
    }
}

/// A TCP or UDP packet passes: [`STRAIGHT`], [`FROM_MEMBER`], or [`TO_VIP`] of the service that this CPU works on. Returns a
/// verdict's number, perhaps with [`BACK`], or [`NOTHING`]. Out of line ([`Skb::vip_talk`]), for the stack that it needs.
#[inline(always)]
pub fn talk<S: Skb>(skb: &S, way: u32) -> u32 {
    let Ok(packet) = parse::<V4, S>(skb) else {
        return if way == TO_VIP {
            Verdict::Unreadable.number()
        } else {
            NOTHING
        };
    };
    let talk = Talk::of(&packet);
    if way == STRAIGHT {
        straight(skb, &packet);
        return NOTHING;
    }
    if way == FROM_MEMBER {
        return give_back(skb, &talk);
    }
    match check(skb, &packet).and_then(|()| carry(skb, &talk)) {
        Ok(done) => done,
        Err(verdict) => verdict.number(),
    }
}

/// Whether the client sends as itself, to one receiver.
#[inline(always)]
fn check<S: Skb>(skb: &S, packet: &Packet<Ip4>) -> Result<(), Verdict> {
    if !packet.macs.is_unicast() {
        return Err(Verdict::Unreadable);
    }
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    let device = unsafe { maps::DEVICES.get(skb.ifindex()) }.ok_or(Verdict::OtherBridge)?;
    if packet.macs.source() != device.mac || packet.network.source != device.address4 {
        return Err(Verdict::Spoofed);
    }
    Ok(())
}

/// Carries a packet to the member of its connection.
#[inline(always)]
fn carry<S: Skb>(skb: &S, talk: &Talk<'_>) -> Result<u32, Verdict> {
    let packet = talk.packet;
    table::key_to(&mut work()?.key, packet, skb.ifindex(), Direction::ToVip);
    let number = skb.vip_member(talk.opens.into(), talk.flags.into());
    let verdict = Verdict::of(number).ok_or(Verdict::NoSlot)?;
    if verdict == Verdict::Nobody && packet.network.protocol == TCP {
        return if rewrite::reset(skb, packet) {
            Ok(Verdict::Refused.number() | BACK)
        } else {
            Err(Verdict::Unwritable)
        };
    }
    if !matches!(verdict, Verdict::Chosen | Verdict::Kept | Verdict::SynAgain) {
        return Err(verdict);
    }
    let work = work()?;
    choose::count(work, u64::from(verdict == Verdict::Chosen), packet.network.length);
    if !rewrite::ends(skb, packet, &ends_to_member(packet, &work.conn)) {
        return Err(Verdict::Unwritable);
    }
    Ok(if work.conn.hairpin != 0 {
        Verdict::Hairpin.number() | BACK
    } else {
        verdict.number()
    })
}

/// Finds the connection of the packet whose key and service this CPU works on, or begins one; returns a [`Verdict`]'s number.
/// Out of line ([`Skb::vip_member`]): all ways out of it would be ways of their own through what follows.
#[inline(always)]
pub fn member(opens: u32, flags: u32) -> u32 {
    let done = work().and_then(|work| find_or_begin(work, opens != 0, flags.to_le_bytes()[0]));
    match done {
        Ok(verdict) | Err(verdict) => verdict.number(),
    }
}

#[inline(always)]
fn find_or_begin(work: &mut Work, opens: bool, flags: u8) -> Result<Verdict, Verdict> {
    let now = coarse_ns();
    if let Some(place) = table::find(work) {
        if !(opens && begins_anew(work, now)) {
            table::note(work, place, flags, now);
            let is_syn = opens && work.key.protocol == TCP;
            return Ok(if is_syn { Verdict::SynAgain } else { Verdict::Kept });
        }
        table::forget(work);
    }
    if !opens {
        return Err(Verdict::NoConnection);
    }
    choose::choose(work, now)?;
    if table::open(work, now) {
        Ok(Verdict::Chosen)
    } else {
        Err(Verdict::TableFull)
    }
}

/// Whether an opening packet of a known connection is the first one of another.
#[inline(always)]
fn begins_anew(work: &mut Work, now: u64) -> bool {
    if work.key.protocol == TCP {
        return work.conn.is_closed() || choose::is_eligible(work) != Some(true);
    }
    table::is_over(work, now) || choose::is_eligible(work).is_none()
}

/// Who a packet to the virtual address goes to: a container that was given itself gets it from that address.
#[inline(always)]
fn ends_to_member(packet: &Packet<Ip4>, conn: &Conn) -> Ends {
    if conn.hairpin != 0 {
        return Ends::of(packet).swapped();
    }
    Ends {
        macs: MacPair::new(conn.backend.mac, packet.macs.source()),
        source: packet.network.source,
        destination: conn.backend.address,
    }
}

/// Gives a member's packet the virtual address.
#[inline(always)]
fn give_back<S: Skb>(skb: &S, talk: &Talk<'_>) -> u32 {
    let packet = talk.packet;
    let Ok(work) = work() else {
        return NOTHING;
    };
    table::key_from(&mut work.key, packet, skb.ifindex());
    let Some(place) = table::find(work) else {
        return NOTHING;
    };
    table::note(work, place, talk.flags, coarse_ns());
    choose::count(work, 0, packet.network.length);
    let ends = Ends {
        source: work.conn.vip,
        ..Ends::of(packet)
    };
    if rewrite::ends(skb, packet, &ends) {
        Verdict::Returned.number()
    } else {
        Verdict::Unwritable.number()
    }
}

/// A packet to no virtual address. If a client talks to a member straight, by the ports of a connection to its virtual address
/// that is over, what comes back is not of that one any more.
#[inline(always)]
fn straight<S: Skb>(skb: &S, packet: &Packet<Ip4>) {
    let is_tcp = packet.network.protocol == TCP;
    if is_tcp && packet.tcp_flags() & (SYN | ACK) != SYN {
        return;
    }
    let Ok(work) = work() else {
        return;
    };
    table::key_to(&mut work.key, packet, skb.ifindex(), Direction::FromMember);
    if table::find(work).is_none() {
        return;
    }
    if !is_tcp {
        // Whom the client asked last is who answers it; to the virtual address it is remembered again.
        table::forget_one(&work.key);
    } else if work.conn.is_closed() {
        table::forget(work);
    }
}
