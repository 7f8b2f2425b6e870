//! What a packet is, as far as virtual addresses are concerned.
//!
//! A packet of IPv6 by value has no room on the stacks of those who work on it. It is read once, before anything else is done and
//! at the least depth, into this CPU's place for it; one of IPv4 is read where it is needed.

use super::Calls;
use crate::{
    packet::{V4, V6, icmp, icmp::Kind, parse},
    state::kept::Kept,
};

/// What is read: a TCP or UDP packet.
pub const SEGMENT: u32 = 0;
/// What is read: an ICMP message.
pub const MESSAGE: u32 = 1;

/// What has been read of an IPv6 packet: nothing, or what was not wanted.
const UNREADABLE: u32 = 0;
/// A TCP or UDP packet.
const TALK: u32 = 1;
/// A question of ICMP echo.
const QUESTION: u32 = 2;
/// An answer of it.
const ANSWER: u32 = 3;
/// An ICMP error.
const ERROR: u32 = 4;
/// An ICMP error, which cannot be read.
const ODD_ERROR: u32 = 5;
/// A message of echo, which cannot be read.
const ODD_ECHO: u32 = 6;
/// Another ICMP message.
const OTHER: u32 = 7;

/// An IP version whose packets are read.
pub trait Read: Kept {
    /// Reads what is too long for the stack, before one of the others is asked.
    fn read<S: Calls>(skb: &S, what: u32);
    /// A TCP or UDP packet.
    fn segment<S: Calls>(skb: &S) -> Option<Self::Parsed>;
    /// What an ICMP message is.
    fn kind<S: Calls>(skb: &S) -> Kind;
    /// A message of ICMP echo, and whether it is a question.
    fn echo<S: Calls>(skb: &S) -> Option<(Self::Parsed, bool)>;
    /// An ICMP error, and the packet that it quotes.
    fn error<S: Calls>(skb: &S) -> Option<(Self::Parsed, Self::About)>;
}

impl Read for V4 {
    #[inline(always)]
    fn read<S: Calls>(_: &S, _: u32) {}
    #[inline(always)]
    fn segment<S: Calls>(skb: &S) -> Option<Self::Parsed> {
        parse::parse_with_ports::<Self, S>(skb).ok()
    }
    #[inline(always)]
    fn kind<S: Calls>(skb: &S) -> Kind {
        icmp::kind::<Self, S>(skb)
    }
    #[inline(always)]
    fn echo<S: Calls>(skb: &S) -> Option<(Self::Parsed, bool)> {
        icmp::echo::<Self, S>(skb).ok()
    }
    #[inline(always)]
    fn error<S: Calls>(skb: &S) -> Option<(Self::Parsed, Self::About)> {
        let (frame, packet) = icmp::error::<Self, S>(skb).ok()?;
        let quoted = icmp::quoted::<Self>(&frame, packet.payload).ok()?;
        Some((packet, quoted))
    }
}

impl Read for V6 {
    #[inline(always)]
    fn read<S: Calls>(skb: &S, what: u32) {
        Self::set_read(skb.read6(what));
    }
    #[inline(always)]
    fn segment<S: Calls>(_: &S) -> Option<Self::Parsed> {
        Self::kept_packet().filter(|_| Self::what_is_read() == TALK)
    }
    #[inline(always)]
    fn kind<S: Calls>(_: &S) -> Kind {
        match Self::what_is_read() {
            QUESTION | ANSWER | ODD_ECHO => Kind::Echo,
            ERROR | ODD_ERROR => Kind::Error,
            _ => Kind::Other,
        }
    }
    #[inline(always)]
    fn echo<S: Calls>(_: &S) -> Option<(Self::Parsed, bool)> {
        match Self::what_is_read() {
            QUESTION => Some((Self::kept_packet()?, true)),
            ANSWER => Some((Self::kept_packet()?, false)),
            _ => None,
        }
    }
    #[inline(always)]
    fn error<S: Calls>(_: &S) -> Option<(Self::Parsed, Self::About)> {
        if Self::what_is_read() != ERROR {
            return None;
        }
        Some((Self::kept_packet()?, Self::kept_quoted()?))
    }
}

/// Reads an IPv6 packet into this CPU's place for it; returns what it is. Out of line ([`Calls`]), for the stack that it needs.
#[inline(always)]
pub fn read6<S: Calls>(skb: &S, what: u32) -> u32 {
    if what == SEGMENT {
        return segment6(skb).unwrap_or(UNREADABLE);
    }
    match icmp::kind::<V6, S>(skb) {
        Kind::Echo => echo6(skb).unwrap_or(ODD_ECHO),
        Kind::Error => error6(skb).unwrap_or(ODD_ERROR),
        Kind::Other => OTHER,
    }
}

#[inline(always)]
fn segment6<S: Calls>(skb: &S) -> Option<u32> {
    V6::keep_packet(parse::parse_with_ports::<V6, S>(skb).ok()?)?;
    Some(TALK)
}

#[inline(always)]
fn echo6<S: Calls>(skb: &S) -> Option<u32> {
    let (packet, is_question) = icmp::echo::<V6, S>(skb).ok()?;
    V6::keep_packet(packet)?;
    Some(if is_question { QUESTION } else { ANSWER })
}

#[inline(always)]
fn error6<S: Calls>(skb: &S) -> Option<u32> {
    let (frame, packet) = icmp::error::<V6, S>(skb).ok()?;
    let payload = packet.payload;
    V6::keep_packet(packet)?;
    V6::keep_quoted(icmp::quoted::<V6>(&frame, payload).ok()?)?;
    Some(ERROR)
}
