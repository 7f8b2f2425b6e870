//! Packets from one container to another on a bridge where nobody judges them: sent by their MAC addresses from the first
//! one on, whatever protocol they carry. Nothing of them is read behind the Ethernet header, and nothing is changed.
//!
//! The bridge itself would do no more than look its table up (`br_handle_frame_finish`, `net/bridge/br_input.c`). Who may be
//! sent to and from says the daemon, by [`maps::PORTS`]: each entry holds only as long as its port's generation, and all of
//! them only as long as the daemon renews the lease. All others take the way of flows.
//!
//! ARP stays with the bridge, and so does all that is not IP: it is rare, and the bridge hears from everybody by it.

use netfast_common::{
    device::NetnsNumber,
    direct::{Port, PortKey, pair, step},
    flow::Exit,
    reason::Reason,
};

use super::{lookup::generation, verdict};
use crate::{
    ctx::{Skb, kernel::coarse_ns},
    packet::{ETHERNET, parse},
    state::{self, maps},
};

/// Steps of the clock after which one packet of a pair of ports takes the slow path, so that the bridge goes on hearing
/// of both and its counters move: a second. Where a bridge forgets within thrice that time the daemon allows none of it.
const INTERVAL: u32 = step(1_000_000_000);
/// A pause after which no packet of a pair can be waiting in a queue any more: two steps of the coarse clock at HZ=250.
const CALM: u32 = step(8_000_000);

/// The step that is run out of line: the verifier looks at it once, and not on each path that leads on from there.
pub trait Forward: Skb {
    /// Runs [`forward`]; the number of its outcome.
    fn forward(&self) -> u64;
}

/// What became of a packet, as a number: a global function gives no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(u64);

impl Outcome {
    /// It is to go by its flow.
    const BY_FLOW: Self = Self(0);
    /// It was sent: the program's verdict is in the eight bits below, the interface in the upper half. The lowest eight are for
    /// a reason.
    const SENT: u64 = 1 << 16;

    const fn slow(reason: Reason) -> Self {
        Self(reason.number() as u64)
    }

    #[expect(clippy::cast_sign_loss, reason = "verdicts of redirects are small numbers")]
    const fn sent(ifindex: u32, verdict: i32) -> Self {
        Self((ifindex as u64) << 32 | Self::SENT | ((verdict as u32 & 0xff) as u64) << 8)
    }

    /// The number that a global function gives.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The outcome of that number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The program's verdict, if the packet was sent.
    #[inline(always)]
    pub const fn verdict(self) -> Option<i32> {
        if self.0 & Self::SENT == 0 {
            return None;
        }
        Some((self.0 >> 8 & 0xff) as i32)
    }

    /// Where it was sent.
    #[inline(always)]
    pub const fn out_ifindex(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Why it takes the slow path, if it must.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a small number")]
    pub const fn reason(self) -> Option<Reason> {
        Reason::of(self.0 as u32 & 0xff)
    }
}

/// Sends a packet to its receiver, if nobody judges what goes between both.
#[inline(always)]
pub fn forward<S: Skb>(skb: &S) -> Outcome {
    let Some(macs) = parse::macs_of_ip(skb) else {
        return Outcome::BY_FLOW;
    };
    let ifindex = skb.ifindex();
    let Some(from) = port(ifindex, macs.source()) else {
        return Outcome::BY_FLOW;
    };
    let Some(to) = port(from.bridge, macs.destination()) else {
        return Outcome::BY_FLOW;
    };
    // A bridge sends nothing back by the port that it came by.
    if to.ifindex == ifindex {
        return Outcome::BY_FLOW;
    }
    // Asked last: most packets are for the outside, and never come as far as this.
    let now = coarse_ns();
    if maps::CONTROL
        .get(0)
        .is_none_or(|control| control.direct_until_ns <= now)
    {
        return Outcome::BY_FLOW;
    }
    match admit(skb, &to) {
        Ok(()) => send(skb, &from, &to, now),
        Err(reason) => Outcome::slow(reason),
    }
}

/// A port, as long as what the daemon has said of it holds.
#[inline(always)]
fn port(ifindex: u32, mac: [u8; 6]) -> Option<Port> {
    let key = PortKey::new(NetnsNumber(state::netns()), ifindex, mac);
    let place = maps::PORTS.get_ptr_mut(key)?;
    // SAFETY: the element lives as long as the program runs; it is made of integers, so a torn read is only a wrong number,
    // which the tags tell: a new value is copied in from its first field to its last.
    let port = unsafe {
        if (&raw const (*place).tag_end).read_volatile() != key.tag() {
            return None;
        }
        let port = Port {
            tag: 0,
            bridge: (&raw const (*place).bridge).read_volatile(),
            ifindex: (&raw const (*place).ifindex).read_volatile(),
            generation: (&raw const (*place).generation).read_volatile(),
            max_length: (&raw const (*place).max_length).read_volatile(),
            slot: (&raw const (*place).slot).read_volatile(),
            exit: (&raw const (*place).exit).read_volatile(),
            reserved: 0,
            tag_end: 0,
        };
        if (&raw const (*place).tag).read_volatile() != key.tag() {
            return None;
        }
        port
    };
    (generation(port.slot) == Some(port.generation)).then_some(port)
}

/// Refuses what a bridge would not just pass on.
#[inline(always)]
fn admit<S: Skb>(skb: &S, to: &Port) -> Result<(), Reason> {
    if skb.has_vlan() {
        return Err(Reason::Vlan);
    }
    if skb.mark() != 0 {
        return Err(Reason::Marked);
    }
    // As `is_skb_forwardable` (net/core/dev.c), which leaves some bytes for a VLAN tag.
    if skb.gso_size() == 0 && skb.length() > to.max_length + ETHERNET {
        return Err(Reason::PortTooSmall);
    }
    Ok(())
}

/// Sends it, unless it is this pair's turn to be seen by the bridge.
///
/// Through the peer a packet overtakes those that wait in the backlog queue, as slow ones and GSO packets do; so the rules
/// of [`lookup`](super::lookup) apply.
#[inline(always)]
fn send<S: Skb>(skb: &S, from: &Port, to: &Port, now: u64) -> Outcome {
    let Some(times) = maps::PACES.get_ptr_mut(pair(from.slot, to.slot)) else {
        return Outcome::BY_FLOW;
    };
    // SAFETY: the element lives as long as the program runs; another CPU may write it too, and a time that is a little off is
    // no harm.
    let pace = unsafe { &mut *times };
    let now = step(now);
    let (age, pause) = (now.wrapping_sub(pace.slow), now.wrapping_sub(pace.used));
    pace.used = now;
    // Of the packets that take the slow path, too: the pause that is used for one of them is over with the next packet.
    if skb.gso_size() != 0 {
        pace.bulk = 1;
    } else if pause > CALM {
        pace.bulk = 0;
    }
    if pace.slow == 0 {
        pace.slow = now;
    } else if age > INTERVAL || (pause > CALM && age > INTERVAL / 2) {
        pace.slow = now;
        return Outcome::slow(Reason::PortDue);
    }
    verdict::count_fast(from.slot, to.slot, skb.length().saturating_sub(ETHERNET));
    let sent = if to.exit == Exit::Peer as u8 && pace.bulk == 0 {
        skb.redirect_peer(to.ifindex)
    } else {
        skb.redirect(to.ifindex, 0)
    };
    Outcome::sent(to.ifindex, sent)
}

#[cfg(test)]
mod tests;
