//! Datagrams of known flows that an uplink's driver hands over before there is a `struct sk_buff`: straight on to the
//! container. Whatever is not one of them goes on to the stack, and to the tc program of the uplink, as it is.
//!
//! The flows are those that the other programs learn, and the checks are theirs. In addition:
//!
//! - The way out must be the container's veth, and that must be in [`XDP_ENDS`](maps::XDP_ENDS): the daemon has seen that its other
//!   end takes frames. A veth whose other end does not (no NAPI) drops them (`veth_xdp_xmit`, drivers/net/veth.c).
//! - Nothing may have happened since that could have changed that, and the daemon must live: it counts, and renews a lease
//!   ([`netfast_common::xdp`]). Who judges before tc must be seen at once.
//! - TCP is left to the stack, which makes few packets of many there (GRO).
//!
//! The map is asked before anything is written: what it does not have goes on unchanged.

use core::borrow::Borrow as _;

use netfast_common::{
    control::Control,
    flow::Origin,
    xdp::{CHANGES, SEEN, UNTIL},
};

use crate::{
    ctx::{XDP_PASS, XDP_REDIRECT, kernel::coarse_ns},
    fastpath::{
        checksum::{self, Sums},
        gate, lookup, rewrite,
        trace::{self, Show},
        verdict,
    },
    packet::{Family as _, UDP, V4, V6, parse},
    state::{Tables, maps},
};

/// A frame comes in by an uplink; returns the program's verdict.
#[inline(always)]
pub fn at_uplink<C: Sums + Show>(frame: &C) -> u32 {
    let Some(control) = maps::CONTROL.get(0) else {
        return XDP_PASS;
    };
    let now = coarse_ns();
    if !control.may_use() || !is_seen(now) {
        return XDP_PASS;
    }
    let sent = if frame.ethertype() == V6::ETHERTYPE {
        send::<V6, C>(frame, control, now)
    } else {
        send::<V4, C>(frame, control, now)
    };
    if sent.is_some() { XDP_REDIRECT } else { XDP_PASS }
}

/// Sends a datagram of a known flow; `None`: it is as it was.
#[inline(always)]
fn send<F: Tables, C: Sums + Show>(frame: &C, control: &Control, now: u64) -> Option<()> {
    let packet = parse::parse_with_ports::<F, C>(frame).ok()?;
    if packet.network.protocol != UDP {
        return None;
    }
    gate::admit::<F>(&packet).ok()?;
    let key = lookup::key::<F, C>(frame, &packet, Origin::Wire).ok()?;
    let found = lookup::look::<F, C>(frame, &packet, key.borrow(), control, now).ok()?;
    let out_ifindex = found.peer()?;
    if !checksum::is_sound::<F, C>(frame, &packet) {
        return None;
    }
    if maps::XDP_ENDS.redirect(out_ifindex, XDP_PASS.into()) != Ok(XDP_REDIRECT) {
        return None;
    }
    let hit = found.take(packet.network.length, now).ok()?;
    trace::fast(frame, control, now, hit.out_ifindex);
    // As ip_rcv does, whatever becomes of the packet then.
    if packet.network.is_padded && !rewrite::trim(frame, &packet) {
        return None;
    }
    rewrite::rewrite_frame::<F, C>(frame, &packet, &hit).ok()?;
    let bytes = packet.network.length;
    verdict::count_fast(hit.in_slot, hit.out_slot, bytes);
    verdict::add(maps::XDP_DONE.get_ptr_mut(0), bytes);
    Some(())
}

/// Whether the daemon has looked at the ends since the last change, and that still holds.
#[inline(always)]
fn is_seen(now: u64) -> bool {
    let at = |index| maps::XDP_STATE.get(index).copied();
    at(CHANGES).is_some() && at(CHANGES) == at(SEEN) && at(UNTIL).is_some_and(|until| until > now)
}
