//! An IP version as programs for virtual addresses work on it: where its packets and keys are kept meanwhile.

use core::borrow::Borrow;

use netfast_common::{
    flow::FlowKey,
    net::{Ip4, Ip6},
    vip::{Backend, ConnKey},
};

use super::{Tables, lb::Work, tables::work};
use crate::packet::{Packet, V4, V6, ends::Translated, icmp::Quoted};

/// An IP version with its places for what a program for virtual addresses works on.
pub trait Kept: Tables + Translated {
    /// A packet for the time that it is looked at: itself, or where it is, if it is too long for the stack.
    type Parsed: Borrow<Packet<Self::Address>>;
    /// The packet that it quotes, likewise.
    type About: Borrow<Quoted<Self::Address>>;

    /// The key of the connection, the member that was chosen, and room for the key of the flow that goes straight to it.
    fn straight(work: &mut Work) -> (&ConnKey, &Backend, &mut FlowKey<Self::Address>);
}

impl Kept for V4 {
    type Parsed = Packet<Ip4>;
    type About = Quoted<Ip4>;

    #[inline(always)]
    fn straight(work: &mut Work) -> (&ConnKey, &Backend, &mut FlowKey<Ip4>) {
        (&work.key, &work.backend, &mut work.straight4)
    }
}

impl Kept for V6 {
    type Parsed = &'static Packet<Ip6>;
    type About = &'static Quoted<Ip6>;

    #[inline(always)]
    fn straight(work: &mut Work) -> (&ConnKey, &Backend, &mut FlowKey<Ip6>) {
        (&work.key, &work.backend, &mut work.straight6)
    }
}

impl V6 {
    /// Keeps a packet. Another one takes its place.
    #[inline(always)]
    pub(crate) fn keep_packet(packet: Packet<Ip6>) -> Option<()> {
        let work = work().ok()?;
        // SAFETY: see `work`. Nobody looks at the one before any more.
        unsafe { (*work).packet = packet };
        Some(())
    }

    /// Keeps the packet that it quotes, likewise.
    #[inline(always)]
    pub(crate) fn keep_quoted(quoted: Quoted<Ip6>) -> Option<()> {
        let work = work().ok()?;
        // SAFETY: as above.
        unsafe { (*work).quoted = quoted };
        Some(())
    }

    /// Notes what is kept.
    #[inline(always)]
    pub(crate) fn set_read(what: u32) {
        if let Ok(work) = work() {
            // SAFETY: as above.
            unsafe { (*work).read = what };
        }
    }

    /// What is kept; 0: nothing.
    #[inline(always)]
    pub(crate) fn what_is_read() -> u32 {
        // SAFETY: as above.
        work().map_or(0, |work| unsafe { (*work).read })
    }

    /// The packet that is kept.
    #[inline(always)]
    pub(crate) fn kept_packet() -> Option<&'static Packet<Ip6>> {
        let work = work().ok()?;
        // SAFETY: see `work`. It is written before it is looked at, and not while that is done.
        Some(unsafe { &(*work).packet })
    }

    /// The packet that it quotes.
    #[inline(always)]
    pub(crate) fn kept_quoted() -> Option<&'static Quoted<Ip6>> {
        let work = work().ok()?;
        // SAFETY: as above.
        Some(unsafe { &(*work).quoted })
    }
}
