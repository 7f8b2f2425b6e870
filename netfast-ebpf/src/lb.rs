//! Virtual addresses of aliases: each new connection goes to the next member.
//!
//! [`from_client`] comes behind the entry hook of the client's veth, so it sees what the fast path has let go; from there on
//! the packet is what the client would have sent straight to the member, and the kernel judges it as such. [`to_client`]
//! comes before the exit hook. So the flow that is learned is that from the client to the virtual address, and what becomes
//! of it between the two hooks contains what is done here: the fast path does it without being told.

use netfast_common::{
    device::Device,
    net::{Ip4, MacPair},
    vip::{Conn, Direction, Service, Syn, Verdict},
};

use crate::{
    ctx::{NEXT, Skb, kernel::coarse_ns},
    fastpath::redirect,
    packet::{
        ACK, FIN, Packet, RST, SYN, TCP, UDP,
        icmp::ICMP,
        ipv4::{Ends, V4},
        parse, rewrite,
    },
    state::{lb::Work, maps},
};

pub mod choose;
mod global;
pub mod icmp;
pub mod retry;
pub mod table;
pub mod work;

use work::work;

/// What is run out of line: the verifier looks at each once, and the stack is not deep enough for all.
pub trait Calls: Skb + Sized {
    /// Runs [`member`].
    fn member(opens: u32, flags: u32) -> u32;
    /// Runs [`choose::choose`].
    fn choose() -> u32;
    /// Runs [`retry::another`].
    fn another() -> u32;
    /// Runs [`talk`].
    fn talk(&self, way: u32) -> u32;
    /// Runs [`retry::refused`].
    fn refused(&self) -> u32;
    /// Runs [`icmp::message`].
    fn icmp(&self, way: u32) -> u32;
}

/// Set beside the number of a [`Verdict`]: the packet goes back to who sent it.
const BACK: u32 = 0x100;
/// Likewise: the packet enters once more where the hook is.
const AGAIN: u32 = 0x200;
/// Likewise: the packet goes into the container that sent it.
const INSIDE: u32 = 0x800;
/// What is neither a verdict's number nor one of these.
const NOTHING: u32 = 0;
/// The packet may refuse a connection.
const REFUSAL: u32 = 0x400;
/// The packet is a SYN that another member may answer.
const SILENT: u32 = 0x1000;
/// The packet opens a connection, and if that is known its member stays.
const STAYS: u32 = 2;

/// Which way a packet goes: from a client to a virtual address, from a member to a client, or from a client elsewhere.
pub const TO_VIP: u32 = 0;
/// As above.
pub const FROM_MEMBER: u32 = 1;
/// As above.
pub const STRAIGHT: u32 = 2;
/// Set beside these: a refusal stands.
pub const STANDS: u32 = 4;

/// A packet of a conversation.
struct Talk<'a> {
    packet: &'a Packet<Ip4>,
    /// It may be the first one.
    opens: bool,
    /// See [`Conn::from_client`].
    flags: u8,
    /// It may refuse the connection, and nobody has asked yet whether another member would take it.
    may_refuse: bool,
}

impl<'a> Talk<'a> {
    /// A TCP or UDP packet.
    #[inline(always)]
    fn of(packet: &'a Packet<Ip4>, stands: bool) -> Self {
        let mut talk = Self {
            packet,
            opens: true,
            flags: Conn::SEEN,
            may_refuse: false,
        };
        if packet.network.protocol == TCP {
            let flags = packet.tcp_flags();
            talk.opens = flags & (SYN | ACK | RST | FIN) == SYN;
            if flags & FIN != 0 {
                talk.flags |= Conn::FIN;
            }
            if flags & RST != 0 {
                talk.flags = Conn::RST;
                talk.may_refuse = !stands;
            }
        }
        talk
    }
}

/// A packet of a client that the fast path has let go passes here.
#[inline(always)]
pub fn from_client<S: Calls>(skb: &S) -> i32 {
    let Some((destination, protocol)) = parse::glance(skb) else {
        return NEXT;
    };
    // SAFETY: copied at once; what the daemon may put in its place meanwhile is a service as well.
    let Some(service) = (unsafe { maps::VIPS.get(destination) }) else {
        let done = match protocol {
            TCP | UDP => skb.talk(STRAIGHT),
            _ => NOTHING,
        };
        return if done == NOTHING { NEXT } else { finish(skb, done) };
    };
    let done = match to_vip(skb, service, protocol) {
        Ok(done) => done,
        Err(verdict) => verdict.number(),
    };
    finish(skb, done)
}

/// A packet to a client passes here, before anything is learned of it.
#[inline(always)]
pub fn to_client<S: Calls>(skb: &S) -> i32 {
    let done = match parse::glance(skb) {
        Some((_, TCP | UDP)) => talk_or_retry(skb, FROM_MEMBER),
        Some((_, ICMP)) => skb.icmp(FROM_MEMBER),
        _ => NOTHING,
    };
    if done == NOTHING {
        return NEXT;
    }
    finish(skb, done)
}

/// Counts what became of a packet, and sends it where it belongs.
#[inline(always)]
fn finish<S: Calls>(skb: &S, done: u32) -> i32 {
    if let Some(count) = maps::VIP_VERDICTS.get_ptr_mut(done & !(BACK | AGAIN | INSIDE)) {
        // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
        unsafe { *count += 1 };
    }
    if done & BACK != 0 {
        return redirect::back(skb);
    }
    if done & AGAIN != 0 {
        return redirect::again(skb);
    }
    if done & INSIDE != 0 {
        return redirect::inside(skb);
    }
    NEXT
}

/// [`talk`], and if the packet refuses a connection that another member may take, [`retry::refused`].
#[inline(always)]
fn talk_or_retry<S: Calls>(skb: &S, way: u32) -> u32 {
    let done = skb.talk(way);
    if done != REFUSAL {
        return done;
    }
    match skb.refused() {
        NOTHING => skb.talk(way | STANDS),
        done => done,
    }
}

/// Carries a packet to a virtual address on.
#[inline(always)]
fn to_vip<S: Calls>(skb: &S, service: &Service, protocol: u8) -> Result<u32, Verdict> {
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    let device = unsafe { maps::DEVICES.get(skb.ifindex()) }.ok_or(Verdict::OtherBridge)?;
    if !device.is_endpoint() || device.bridge == 0 || device.bridge != service.bridge {
        return Err(Verdict::OtherBridge);
    }
    work()?.service = *service;
    match protocol {
        TCP | UDP => Ok(talk_or_retry(skb, TO_VIP)),
        ICMP => Ok(skb.icmp(TO_VIP)),
        _ => Err(Verdict::OtherProtocol),
    }
}

/// A TCP or UDP packet passes: [`STRAIGHT`], [`FROM_MEMBER`], or [`TO_VIP`] of the service that this CPU works on, perhaps
/// with [`STANDS`]. Returns a verdict's number, perhaps with [`BACK`] or [`INSIDE`], or [`REFUSAL`], or [`NOTHING`]. Out of line
/// ([`Calls`]), for the stack that it needs.
#[inline(always)]
pub fn talk<S: Calls>(skb: &S, way: u32) -> u32 {
    let (way, stands) = (way & !STANDS, way & STANDS != 0);
    let Ok(packet) = parse::<V4, S>(skb) else {
        return if way == TO_VIP {
            Verdict::Unreadable.number()
        } else {
            NOTHING
        };
    };
    let talk = Talk::of(&packet, stands);
    if way == FROM_MEMBER {
        return give_back(skb, &talk);
    }
    let done = if way == STRAIGHT {
        straight(skb, &packet)
    } else {
        match check(skb, &packet).and_then(|()| carry(skb, &talk)) {
            Ok(done) => done,
            Err(verdict) => verdict.number(),
        }
    };
    let refused = match Verdict::of(done) {
        Some(Verdict::Refused) => done | BACK,
        // The egress hooks would take it for a packet of the connection that lives.
        Some(Verdict::Taken) => done | INSIDE,
        _ => return done,
    };
    if rewrite::reset(skb, &packet) {
        refused
    } else {
        Verdict::Unwritable.number()
    }
}

/// Whether the client sends as itself, to one receiver.
#[inline(always)]
fn check<S: Calls>(skb: &S, packet: &Packet<Ip4>) -> Result<(), Verdict> {
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
fn carry<S: Calls>(skb: &S, talk: &Talk<'_>) -> Result<u32, Verdict> {
    let packet = talk.packet;
    table::key_to(&mut work()?.key, packet, skb.ifindex(), Direction::ToVip);
    let flags = u32::from(talk.flags) | u32::from(talk.may_refuse) << 8;
    let mut number = S::member(talk.opens.into(), flags);
    if number == REFUSAL {
        return Ok(REFUSAL);
    }
    // From here and not from there, for the depth of the stack.
    if number == SILENT {
        number = match S::another() {
            retry::FOUND => Verdict::Retried.number(),
            _ => S::member(STAYS, flags),
        };
    }
    let verdict = Verdict::of(number).ok_or(Verdict::NoSlot)?;
    if verdict == Verdict::Nobody && packet.network.protocol == TCP {
        return Err(Verdict::Refused);
    }
    if !matches!(
        verdict,
        Verdict::Chosen | Verdict::Kept | Verdict::SynAgain | Verdict::Retried
    ) {
        return Err(verdict);
    }
    if verdict == Verdict::Chosen && packet.network.protocol == TCP {
        retry::remember(skb, packet);
    }
    let work = work()?;
    choose::count_packet(work, packet.network.length);
    if !rewrite::ends(skb, packet, &ends_to_member(packet, &work.conn)) {
        return Err(Verdict::Unwritable);
    }
    Ok(if work.conn.hairpin != 0 {
        Verdict::Hairpin.number() | BACK
    } else {
        verdict.number()
    })
}

/// Finds the connection of the packet whose key and service this CPU works on, or begins one; returns a [`Verdict`]'s number
/// or [`REFUSAL`] or [`SILENT`]. `opens` is [`Talk::opens`] or [`STAYS`]; `flags` are [`Talk::flags`], and above them [`Talk::may_refuse`]. Out of line ([`Calls`]): all
/// ways out of it would be ways of their own through what follows.
#[inline(always)]
pub fn member<S: Calls>(opens: u32, flags: u32) -> u32 {
    let [flags, may_refuse, ..] = flags.to_le_bytes();
    match find_or_begin::<S>(opens != 0, opens == STAYS, flags, may_refuse != 0) {
        Ok(number) => number,
        Err(verdict) => verdict.number(),
    }
}

#[inline(always)]
fn find_or_begin<S: Calls>(opens: bool, stays: bool, flags: u8, may_refuse: bool) -> Result<u32, Verdict> {
    let now = coarse_ns();
    let mut work = work()?;
    let mut was_unanswered = false;
    if let Some(place) = table::find(work) {
        if may_refuse && work.conn.hairpin == table::ANSWERS && retry::may_refuse(&work.conn, flags) {
            return Ok(REFUSAL);
        }
        if !(opens && begins_anew(work, now)) {
            if opens && !stays && is_silent(work, now) && retry::recall(work) {
                return Ok(SILENT);
            }
            table::note(work, place, flags, now);
            let is_syn = opens && work.key.protocol == TCP;
            return Ok(if is_syn { Verdict::SynAgain } else { Verdict::Kept }.number());
        }
        was_unanswered = retry::is_unanswered(work);
        table::forget(work);
    }
    if !opens {
        return Err(Verdict::NoConnection);
    }
    work.syn.tried = Default::default();
    if let Some(verdict) = Verdict::of(S::choose()) {
        return Err(verdict);
    }
    work = work::work()?;
    if was_unanswered {
        choose::count_retried(work);
    }
    if !table::open(work, now) {
        return Err(Verdict::TableFull);
    }
    choose::count_connection(work);
    Ok(Verdict::Chosen.number())
}

/// Whether the connection's SYN comes again after a time in which its member should have answered.
#[inline(always)]
fn is_silent(work: &Work, now: u64) -> bool {
    retry::is_unanswered(work) && now.wrapping_sub(work.conn.used_ns) >= Syn::SILENT_NS
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
fn give_back<S: Calls>(skb: &S, talk: &Talk<'_>) -> u32 {
    let packet = talk.packet;
    let Ok(work) = work() else {
        return NOTHING;
    };
    table::key_from(&mut work.key, packet, skb.ifindex());
    let Some(place) = table::find(work) else {
        return NOTHING;
    };
    if talk.may_refuse && retry::may_refuse(&work.conn, talk.flags) {
        return REFUSAL;
    }
    if retry::answers_straight(work, packet) {
        // So it knows the other connection no more.
        table::forget(work);
        return NOTHING;
    }
    table::note(work, place, talk.flags, coarse_ns());
    choose::count_packet(work, packet.network.length);
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
/// that is over, what comes back is not of that one any more. If that one lives, the member tells: by its answer to the SYN,
/// or by none, and then the client is refused when it sends the SYN again. Returns [`Verdict::Taken`]'s number or [`NOTHING`].
#[inline(always)]
fn straight<S: Calls>(skb: &S, packet: &Packet<Ip4>) -> u32 {
    let is_tcp = packet.network.protocol == TCP;
    if is_tcp && packet.tcp_flags() & (SYN | ACK) != SYN {
        return NOTHING;
    }
    let Ok(work) = work() else {
        return NOTHING;
    };
    table::key_to(&mut work.key, packet, skb.ifindex(), Direction::FromMember);
    if table::find(work).is_none() {
        return NOTHING;
    }
    if !is_tcp {
        // Whom the client asked last is who answers it; to the virtual address it is remembered again.
        table::forget_one(&work.key);
    } else if work.conn.is_closed() {
        table::forget(work);
    } else if retry::remember_straight(work, packet.transport[0]) && is_elsewhere(skb) {
        return Verdict::Taken.number();
    }
    NOTHING
}

/// Whether the veth's other end is in another namespace.
#[inline(always)]
fn is_elsewhere<S: Calls>(skb: &S) -> bool {
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    unsafe { maps::DEVICES.get(skb.ifindex()) }.is_some_and(|device| device.has(Device::PEER_ELSEWHERE))
}

#[cfg(test)]
mod tests;
