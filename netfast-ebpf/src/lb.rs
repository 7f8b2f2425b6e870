//! Virtual addresses of aliases: each new connection goes to the next member.
//!
//! [`from_client`] comes behind the entry hook of the client's veth, so it sees what the fast path has let go; from there on
//! the packet is what the client would have sent straight to the member, and the kernel judges it as such. [`to_client`]
//! comes before the exit hook. So the flow that is learned is that from the client to the virtual address, and what becomes
//! of it between the two hooks contains what is done here: the fast path does it without being told.

use core::borrow::Borrow as _;

use netfast_common::{
    device::Device,
    net::{Address, MacPair},
    vip::{Conn, Direction, Service, Syn, Verdict},
};

use crate::{
    ctx::{NEXT, Skb, kernel::coarse_ns},
    fastpath::redirect,
    packet::{ACK, FIN, Family as _, Packet, RST, SYN, TCP, UDP, V4, V6, ends::Ends, parse, rewrite},
    state::{lb::Work, maps},
};

pub mod conntrack;
pub mod failover;
mod global;
pub mod icmp;
pub mod outcome;
pub mod read;
pub mod select;
pub mod work;

use outcome::Outcome;
use read::Read;
use work::{device, work};

/// What is run out of line: the verifier looks at each once, and the stack is not deep enough for all.
pub trait Calls: Skb + Sized {
    /// Runs [`member`].
    fn member(opens: u32, flags: u32) -> u32;
    /// Runs [`read::read6`].
    fn read6(&self, what: u32) -> u32;
    /// Runs [`select::select`].
    fn select() -> u32;
    /// Runs [`failover::next_backend`].
    fn next_backend() -> u32;
    /// Runs [`translate`].
    fn translate<F: Read>(&self, way: u32) -> u32;
    /// Runs [`failover::refused`].
    fn refused<F: Read>(&self) -> u32;
    /// Runs [`icmp::echo_message`].
    fn icmp_echo<F: Read>(&self, way: u32) -> u32;
    /// Runs [`icmp::error_message`].
    fn icmp_error<F: Read>(&self, way: u32) -> u32;
}

/// How a packet opens a connection: not, by being the first one, or only if there is none yet.
mod opening {
    pub const NOT: u32 = 0;
    pub const FIRST: u32 = 1;
    /// What is known keeps its backend.
    pub const KEEP: u32 = 2;
}

/// Which way a packet goes: from a client to a virtual address, from a member to a client, or from a client elsewhere.
pub const TO_VIP: u32 = 0;
/// As above.
pub const FROM_MEMBER: u32 = 1;
/// As above.
pub const DIRECT: u32 = 2;
/// Set beside these: a refusal stands.
pub const STANDS: u32 = 4;

/// A packet of a conversation.
struct Segment<'a, A> {
    packet: &'a Packet<A>,
    /// It may be the first one.
    opens: bool,
    /// See [`Conn::from_client`].
    flags: u8,
    /// It may refuse the connection, and nobody has asked yet whether another member would take it.
    may_refuse: bool,
}

impl<'a, A: Address> Segment<'a, A> {
    /// A TCP or UDP packet.
    #[inline(always)]
    fn of(packet: &'a Packet<A>, stands: bool) -> Self {
        let mut segment = Self {
            packet,
            opens: true,
            flags: Conn::SEEN,
            may_refuse: false,
        };
        if packet.network.protocol == TCP {
            let flags = packet.tcp_flags();
            segment.opens = flags & (SYN | ACK | RST | FIN) == SYN;
            if flags & FIN != 0 {
                segment.flags |= Conn::FIN;
            }
            if flags & RST != 0 {
                segment.flags = Conn::RST;
                segment.may_refuse = !stands;
            }
        }
        segment
    }
}

/// A packet of a client that the fast path has let go passes here.
#[inline(always)]
pub fn from_client<S: Calls>(skb: &S) -> i32 {
    match skb.ethertype() {
        V4::ETHERTYPE => clients::<V4, S>(skb),
        V6::ETHERTYPE => clients::<V6, S>(skb),
        _ => NEXT,
    }
}

#[inline(always)]
fn clients<F: Read, S: Calls>(skb: &S) -> i32 {
    let Some((destination, protocol)) = parse::glance::<F, S>(skb) else {
        return NEXT;
    };
    // SAFETY: copied at once; what the daemon may put in its place meanwhile is a service as well.
    let Some(service) = (unsafe { maps::VIPS.get(F::any(destination)) }) else {
        let done = match protocol {
            TCP | UDP => {
                F::read(skb, read::SEGMENT);
                Outcome::from_number(skb.translate::<F>(DIRECT))
            }
            _ => Outcome::NONE,
        };
        return if done == Outcome::NONE { NEXT } else { finish(skb, done) };
    };
    finish(skb, to_vip::<F, S>(skb, service, protocol).into())
}

/// A packet to a client passes here, before anything is learned of it.
#[inline(always)]
pub fn to_client<S: Calls>(skb: &S) -> i32 {
    match skb.ethertype() {
        V4::ETHERTYPE => members::<V4, S>(skb),
        V6::ETHERTYPE => members::<V6, S>(skb),
        _ => NEXT,
    }
}

#[inline(always)]
fn members<F: Read, S: Calls>(skb: &S) -> i32 {
    let done = match parse::glance::<F, S>(skb) {
        Some((_, TCP | UDP)) => translate_or_fail_over::<F, S>(skb, FROM_MEMBER),
        Some((_, protocol)) if protocol == F::ICMP => {
            F::read(skb, read::MESSAGE);
            icmp::message::<F, S>(skb, FROM_MEMBER)
        }
        _ => Outcome::NONE,
    };
    if done == Outcome::NONE {
        return NEXT;
    }
    finish(skb, done)
}

/// Counts what became of a packet, and sends it where it belongs.
#[inline(always)]
fn finish<S: Calls>(skb: &S, done: Outcome) -> i32 {
    if let Some(count) = maps::VIP_VERDICTS.get_ptr_mut(done.counter()) {
        // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
        unsafe { *count += 1 };
    }
    if done.is_reflected() {
        return redirect::reflect(skb);
    }
    if done.is_reinjected() {
        return redirect::reinject(skb);
    }
    if done.is_to_peer() {
        return redirect::to_peer(skb);
    }
    NEXT
}

/// [`translate`], and if the packet refuses a connection that another member may take, [`failover::refused`].
#[inline(always)]
fn translate_or_fail_over<F: Read, S: Calls>(skb: &S, way: u32) -> Outcome {
    F::read(skb, read::SEGMENT);
    let done = Outcome::from_number(skb.translate::<F>(way));
    if done != Outcome::REFUSAL {
        return done;
    }
    match Outcome::from_number(skb.refused::<F>()) {
        Outcome::NONE => Outcome::from_number(skb.translate::<F>(way | STANDS)),
        done => done,
    }
}

/// Carries a packet to a virtual address on.
#[inline(always)]
fn to_vip<F: Read, S: Calls>(skb: &S, service: &Service, protocol: u8) -> Result<Outcome, Verdict> {
    let device = device(skb).ok_or(Verdict::OtherBridge)?;
    if !device.is_endpoint() || device.bridge == 0 || device.bridge != service.bridge {
        return Err(Verdict::OtherBridge);
    }
    work()?.service = *service;
    match protocol {
        TCP | UDP => Ok(translate_or_fail_over::<F, S>(skb, TO_VIP)),
        protocol if protocol == F::ICMP => {
            F::read(skb, read::MESSAGE);
            Ok(icmp::message::<F, S>(skb, TO_VIP))
        }
        _ => Err(Verdict::OtherProtocol),
    }
}

/// A TCP or UDP packet passes: [`DIRECT`], [`FROM_MEMBER`], or [`TO_VIP`] of the service that this CPU works on, perhaps
/// with [`STANDS`]. Returns an [`Outcome`] as number. Out of line ([`Calls`]), for the stack that it needs.
#[inline(always)]
pub fn translate<F: Read, S: Calls>(skb: &S, way: u32) -> u32 {
    translated::<F, S>(skb, way).number()
}

#[inline(always)]
fn translated<F: Read, S: Calls>(skb: &S, way: u32) -> Outcome {
    let (way, stands) = (way & !STANDS, way & STANDS != 0);
    let Some(packet) = F::segment(skb) else {
        return if way == TO_VIP {
            Outcome::of(Verdict::Unreadable)
        } else {
            Outcome::NONE
        };
    };
    let packet = packet.borrow();
    let segment = Segment::of(packet, stands);
    if way == FROM_MEMBER {
        return snat::<F, S>(skb, &segment);
    }
    let done = if way == DIRECT {
        direct::<F, S>(skb, packet)
    } else {
        check::<F, S>(skb, packet)
            .and_then(|()| dnat::<F, S>(skb, &segment))
            .into()
    };
    let refused = match done.verdict() {
        Some(Verdict::Refused) => done.reflected(),
        // The egress hooks would take it for a packet of the connection that lives.
        Some(Verdict::Taken) => done.to_peer(),
        _ => return done,
    };
    let is_reset = work().is_ok_and(|work| rewrite::reset::<F, S>(skb, packet, &mut work.headers));
    if is_reset {
        refused
    } else {
        Outcome::of(Verdict::Unwritable)
    }
}

/// Whether the client sends as itself, to one receiver.
#[inline(always)]
fn check<F: Read, S: Calls>(skb: &S, packet: &Packet<F::Address>) -> Result<(), Verdict> {
    if !packet.macs.is_unicast() {
        return Err(Verdict::Unreadable);
    }
    let device = device(skb).ok_or(Verdict::OtherBridge)?;
    if packet.macs.source() != device.mac || !F::is_endpoints(packet.network.source, device) {
        return Err(Verdict::Spoofed);
    }
    Ok(())
}

/// Carries a packet to the member of its connection.
#[inline(always)]
fn dnat<F: Read, S: Calls>(skb: &S, segment: &Segment<'_, F::Address>) -> Result<Outcome, Verdict> {
    let packet = segment.packet;
    conntrack::key_to::<F>(&mut work()?.key, packet, skb.ifindex(), Direction::ToVip);
    let flags = u32::from(segment.flags) | u32::from(segment.may_refuse) << 8;
    let opens = if segment.opens { opening::FIRST } else { opening::NOT };
    let mut done = Outcome::from_number(S::member(opens, flags));
    if done == Outcome::REFUSAL {
        return Ok(done);
    }
    // From here and not from there, for the depth of the stack.
    if done == Outcome::SILENT {
        done = match S::next_backend() {
            failover::FOUND => Outcome::of(Verdict::Retried),
            _ => Outcome::from_number(S::member(opening::KEEP, flags)),
        };
    }
    let verdict = done.verdict().ok_or(Verdict::NoSlot)?;
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
        failover::remember(skb, packet);
    }
    let work = work()?;
    select::count_packet(work, packet.network.length);
    let ends = ends_to_member::<F>(packet, &work.conn);
    if !rewrite::ends::<F, S>(skb, packet, &ends, &mut work.headers) {
        return Err(Verdict::Unwritable);
    }
    Ok(if work.conn.hairpin != 0 {
        Outcome::of(Verdict::Hairpin).reflected()
    } else {
        Outcome::of(verdict)
    })
}

/// Finds the connection of the packet whose key and service this CPU works on, or begins one; returns an [`Outcome`] as number.
/// `opens` is one of [`opening`]; `flags` are [`Segment::flags`], and above them [`Segment::may_refuse`]. Out of line
/// ([`Calls`]): all ways out of it would be ways of their own through what follows.
#[inline(always)]
pub fn member<S: Calls>(opens: u32, flags: u32) -> u32 {
    let [flags, may_refuse, ..] = flags.to_le_bytes();
    Outcome::from(find_or_begin::<S>(opens, flags, may_refuse != 0)).number()
}

#[inline(always)]
fn find_or_begin<S: Calls>(opening: u32, flags: u8, may_refuse: bool) -> Result<Outcome, Verdict> {
    let opens = opening != opening::NOT;
    let now = coarse_ns();
    let mut work = work()?;
    let mut was_unanswered = false;
    if let Some(place) = conntrack::find(work) {
        if may_refuse && work.conn.hairpin == conntrack::ANSWERS && failover::may_refuse(&work.conn, flags) {
            return Ok(Outcome::REFUSAL);
        }
        if !(opens && begins_anew(work, now)) {
            if opening == opening::FIRST && is_silent(work, now) && failover::recall(work) {
                return Ok(Outcome::SILENT);
            }
            conntrack::note(work, place, flags, now);
            let is_syn = opens && work.key.protocol == TCP;
            return Ok(Outcome::of(if is_syn { Verdict::SynAgain } else { Verdict::Kept }));
        }
        was_unanswered = failover::is_unanswered(work);
        conntrack::forget(work);
    }
    if !opens {
        return Err(Verdict::NoConnection);
    }
    work.syn.tried = Default::default();
    if let Some(verdict) = Verdict::of(S::select()) {
        return Err(verdict);
    }
    work = work::work()?;
    if was_unanswered {
        select::count_retried(work);
    }
    if !conntrack::open(work, now) {
        return Err(Verdict::TableFull);
    }
    select::count_connection(work);
    Ok(Outcome::of(Verdict::Chosen))
}

/// Whether the connection's SYN comes again after a time in which its member should have answered.
#[inline(always)]
fn is_silent(work: &Work, now: u64) -> bool {
    failover::is_unanswered(work) && now.wrapping_sub(work.conn.used_ns) >= Syn::SILENT_NS
}

/// Whether an opening packet of a known connection is the first one of another.
#[inline(always)]
fn begins_anew(work: &mut Work, now: u64) -> bool {
    if work.key.protocol == TCP {
        return work.conn.is_closed() || select::is_eligible(work) != Some(true);
    }
    conntrack::is_over(work, now) || select::is_eligible(work).is_none()
}

/// Who a packet to the virtual address goes to: a container that was given itself gets it from that address.
#[inline(always)]
fn ends_to_member<F: Read>(packet: &Packet<F::Address>, conn: &Conn) -> Ends<F::Address> {
    if conn.hairpin != 0 {
        return Ends::of(packet).swapped();
    }
    Ends {
        macs: MacPair::new(conn.backend.mac, packet.macs.source()),
        source: packet.network.source,
        destination: F::of_any(conn.backend.address),
    }
}

/// Gives a member's packet the virtual address.
#[inline(always)]
fn snat<F: Read, S: Calls>(skb: &S, segment: &Segment<'_, F::Address>) -> Outcome {
    let packet = segment.packet;
    let Ok(work) = work() else {
        return Outcome::NONE;
    };
    conntrack::key_from::<F>(&mut work.key, packet, skb.ifindex());
    let Some(place) = conntrack::find(work) else {
        return Outcome::NONE;
    };
    if segment.may_refuse && failover::may_refuse(&work.conn, segment.flags) {
        return Outcome::REFUSAL;
    }
    if failover::answers_direct(work, packet) {
        // So it knows the other connection no more.
        conntrack::forget(work);
        return Outcome::NONE;
    }
    conntrack::note(work, place, segment.flags, coarse_ns());
    select::count_packet(work, packet.network.length);
    let ends = Ends {
        source: F::of_any(work.conn.vip),
        ..Ends::of(packet)
    };
    if rewrite::ends::<F, S>(skb, packet, &ends, &mut work.headers) {
        Outcome::of(Verdict::Returned)
    } else {
        Outcome::of(Verdict::Unwritable)
    }
}

/// A packet to no virtual address. If a client talks to a member straight, by the ports of a connection to its virtual address
/// that is over, what comes back is not of that one any more. If that one lives, the member tells: by its answer to the SYN,
/// or by none, and then the client is refused when it sends the SYN again. Returns [`Verdict::Taken`] or nothing.
#[inline(always)]
fn direct<F: Read, S: Calls>(skb: &S, packet: &Packet<F::Address>) -> Outcome {
    let is_tcp = packet.network.protocol == TCP;
    if is_tcp && packet.tcp_flags() & (SYN | ACK) != SYN {
        return Outcome::NONE;
    }
    let Ok(work) = work() else {
        return Outcome::NONE;
    };
    conntrack::key_to::<F>(&mut work.key, packet, skb.ifindex(), Direction::FromMember);
    if conntrack::find(work).is_none() {
        return Outcome::NONE;
    }
    if !is_tcp {
        // Whom the client asked last is who answers it; to the virtual address it is remembered again.
        conntrack::forget_one(&work.key);
    } else if work.conn.is_closed() {
        conntrack::forget(work);
    } else if failover::remember_direct(work, packet.transport[0]) && is_elsewhere(skb) {
        return Outcome::of(Verdict::Taken);
    }
    Outcome::NONE
}

/// Whether the veth's other end is in another namespace.
#[inline(always)]
fn is_elsewhere<S: Calls>(skb: &S) -> bool {
    device(skb).is_some_and(|device| device.has(Device::PEER_IN_OTHER_NETNS))
}

#[cfg(test)]
mod tests;
