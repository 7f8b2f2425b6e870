//! What happens at each kind of hook, step by step.

use core::borrow::Borrow as _;

use netfast_common::{
    control::Control,
    device::Device,
    flow::{FlowKey, Origin},
    reason::Reason,
};

use crate::{
    ctx::{NEXT, Skb, kernel::coarse_ns},
    fastpath::{
        Entry,
        checksum::{self, Sums},
        direct::{self, Forward},
        gate, log,
        lookup::{self, Hit},
        rewrite,
        trace::{self, Show},
        verdict,
    },
    learn::{self, candidate, pairs, warmup},
    packet::{Family, Packet, TCP, V4, V6, parse},
    state::{self, Tables, maps},
};

/// What the programs at the hooks need of a packet.
pub trait Hooked: Skb + Sums + Show + Forward {}

impl<S: Skb + Sums + Show + Forward> Hooked for S {}

/// A packet enters the host's network here.
#[inline(always)]
pub fn entry<S: Hooked>(skb: &S, entry: Entry) -> i32 {
    // A forwarded packet on its way into a bridge: it entered elsewhere.
    if entry == Entry::Host && skb.ingress_ifindex() != 0 {
        return NEXT;
    }
    if entry == Entry::Uplink && skb.is_for_another_mac() && !is_bridged(skb) {
        return NEXT;
    }
    let Some(control) = maps::CONTROL.get(0) else {
        // There is no such map without this element, but the verifier wants to hear it.
        return NEXT;
    };
    let due = match directly(skb, entry, control) {
        Ok(verdict) => return verdict,
        Err(due) => due,
    };
    if skb.ethertype() == V6::ETHERTYPE {
        of_family::<V6, S>(skb, entry, control, due)
    } else {
        of_family::<V4, S>(skb, entry, control, due)
    }
}

/// Whether an uplink is a port of a bridge, which takes frames for others. Otherwise the host itself takes none, and those
/// that come in are none of ours: macvlan devices send each other's frames through their parent's ingress, for its taps
/// (`macvlan_queue_xmit`, drivers/net/macvlan.c), and looking at them took a tenth of their time.
#[inline(always)]
fn is_bridged<S: Hooked>(skb: &S) -> bool {
    state::device(skb.ifindex()).is_some_and(|device| device.bridge != 0)
}

/// Sends a packet straight to its receiver, whatever family it is of, and counts it. Otherwise the reason why the bridge must
/// see it, if it must; if there is none, it goes by its flow.
#[inline(always)]
fn directly<S: Hooked>(skb: &S, entry: Entry, control: &Control) -> Result<i32, Option<Reason>> {
    if entry != Entry::Endpoint || !control.may_forward_directly() {
        return Err(None);
    }
    let outcome = direct::Outcome::from_number(skb.forward());
    let Some(verdict) = outcome.verdict() else {
        return Err(outcome.reason());
    };
    trace::fast(skb, control, coarse_ns(), outcome.out_ifindex());
    Ok(verdict)
}

/// What is neither IPv4 nor IPv6 goes with IPv4, where ARP belongs.
#[inline(always)]
fn of_family<F: Tables, S: Hooked>(skb: &S, entry: Entry, control: &Control, due: Option<Reason>) -> i32 {
    match enter::<F, S>(skb, entry, control, due) {
        Ok((hit, bytes)) => verdict::fast(skb, &hit, bytes),
        Err(reason) => {
            trace::slow(skb, reason);
            log::slow(skb, reason);
            verdict::slow::<F, S>(skb, entry, reason)
        }
    }
}

/// A packet leaves the host's network here.
#[inline(always)]
pub fn exit<S: Hooked>(skb: &S) -> i32 {
    let reason = if skb.ethertype() == V6::ETHERTYPE {
        learn::at_exit::<V6, S>(skb)
    } else {
        learn::at_exit::<V4, S>(skb)
    };
    log::learned(skb, reason);
    verdict::learned(skb, reason)
}

/// A bridge hands a packet to the host here.
#[inline(always)]
pub fn delivery<S: Hooked>(skb: &S) -> i32 {
    let reason = if skb.ethertype() == V6::ETHERTYPE {
        learn::at_host::<V6, S>(skb)
    } else {
        learn::at_host::<V4, S>(skb)
    };
    log::learned(skb, reason);
    verdict::learned(skb, reason)
}

/// The flow that a packet may be used with, and its bytes, network layer and up.
#[inline(always)]
fn enter<F: Tables, S: Hooked>(
    skb: &S,
    entry: Entry,
    control: &Control,
    due: Option<Reason>,
) -> Result<(Hit<F::Address>, u32), Reason> {
    if control.switches == 0 {
        candidate::refuse(skb, entry.arrival());
        return Err(Reason::Disabled);
    }
    if let Some(reason) = due {
        candidate::refuse(skb, entry.arrival());
        return Err(reason);
    }
    match examine::<F, S>(skb, entry, control) {
        Err(reason) => {
            // What was refused must not be taken for what an earlier packet left here.
            candidate::refuse(skb, entry.arrival());
            Err(reason)
        }
        Ok((packet, key)) => {
            let key = key.borrow();
            let now = coarse_ns();
            match hit::<F, S>(skb, &packet, key, control, now) {
                Ok(hit) => Ok((hit, packet.network.length)),
                Err(reason) => {
                    if gate::ends_flow(reason) {
                        pairs::end::<F>(key);
                    } else if gate::is_stale(reason) || reason == Reason::Revalidate {
                        pairs::prompt_reverse::<F>(key, control, now, gate::is_stale(reason));
                    }
                    Err(miss::<F, S>(skb, &packet, key, control, now, entry, reason))
                }
            }
        }
    }
}

/// A packet that may be of a flow, and the key to look it up by.
type Admitted<F> = (Packet<<F as Family>::Address>, <F as Tables>::Key);

/// Parse and gate; a packet that opens or closes a connection ends its flow.
#[inline(always)]
fn examine<F: Tables, S: Hooked>(skb: &S, entry: Entry, control: &Control) -> Result<Admitted<F>, Reason> {
    let packet = parse::<F, S>(skb)?;
    let origin = if entry == Entry::Host {
        Origin::Host
    } else {
        Origin::Wire
    };
    let key = lookup::key::<F, S>(skb, &packet, origin)?;
    if let Err(reason) = gate::admit::<F>(&packet) {
        if gate::ends_flow(reason) && control.switches != 0 {
            pairs::end::<F>(key.borrow());
            warmup::reset(key.borrow());
        }
        return Err(reason);
    }
    if skb.mark() != 0 {
        return Err(Reason::Marked);
    }
    // Network cards pad short frames, and the kernel cuts that off; a veth does not.
    if packet.network.is_padded && (entry != Entry::Uplink || skb.gso_size() != 0) {
        return Err(Reason::Malformed);
    }
    if !checksum::is_sound::<F, S>(skb, &packet) {
        return Err(Reason::BadChecksum);
    }
    Ok((packet, key))
}

#[inline(always)]
fn hit<F: Tables, S: Hooked>(
    skb: &S,
    packet: &Packet<F::Address>,
    key: &FlowKey<F::Address>,
    control: &Control,
    now: u64,
) -> Result<Hit<F::Address>, Reason> {
    if !control.may_use() {
        return Err(Reason::Disabled);
    }
    let hit = lookup::find::<F, S>(skb, packet, key, control, now)?;
    trace::fast(skb, control, now, hit.out_ifindex);
    // As ip_rcv does, whatever becomes of the packet then.
    if packet.network.is_padded && !rewrite::trim(skb, packet) {
        return Err(Reason::RewriteFailed);
    }
    rewrite::rewrite::<F, S>(skb, packet, &hit)?;
    Ok(hit)
}

/// Leaves a candidate; returns the reason to count, which a better one may replace.
#[inline(always)]
fn miss<F: Tables, S: Hooked>(
    skb: &S,
    packet: &Packet<F::Address>,
    key: &FlowKey<F::Address>,
    control: &Control,
    now: u64,
    entry: Entry,
    reason: Reason,
) -> Reason {
    if reason == Reason::RewriteFailed {
        candidate::refuse(skb, entry.arrival());
        return reason;
    }
    if !control.may_learn() {
        candidate::refuse(skb, entry.arrival());
        return Reason::LearnOff;
    }
    let Some(device) = state::device(skb.ifindex()) else {
        candidate::refuse(skb, entry.arrival());
        return Reason::UnknownDevice;
    };
    if !device.has(Device::ACCELERATED) {
        candidate::refuse(skb, entry.arrival());
        return Reason::UnknownDevice;
    }
    if !device.has_all(F::ACCELERATED) {
        candidate::refuse(skb, entry.arrival());
        return F::NOT_ACCELERATED;
    }
    if key.protocol == F::ICMP && !device.has(Device::ECHO) {
        candidate::refuse(skb, entry.arrival());
        return Reason::EchoOff;
    }
    if entry == Entry::Endpoint && is_spoofed::<F>(packet.macs.source(), key, device) {
        candidate::refuse(skb, entry.arrival());
        return Reason::Spoofed;
    }
    // UDP is learned at once: one answer may be all that ever comes back (iperf3 -u, video, logs), and the table of
    // flows that wait for one bounds what a flood can do. So is ICMP echo.
    if reason == Reason::NoFlow && key.protocol == TCP && !warmup::is_enough(key, control.learn_after) {
        candidate::refuse(skb, entry.arrival());
        return Reason::Young;
    }
    if let Err(refusal) = candidate::leave::<F, S>(skb, packet, key, device, control, now, entry.arrival()) {
        return refusal;
    }
    if reason == Reason::NoFlow && key.protocol != TCP && pairs::is_waiting::<F>(key) {
        return Reason::Unreplied;
    }
    reason
}

/// Whether an endpoint sends with what is not its own.
#[inline(always)]
fn is_spoofed<F: Tables>(mac: [u8; 6], key: &FlowKey<F::Address>, device: &Device) -> bool {
    mac != device.mac || !(device.has(Device::ANY_SOURCE) || F::is_endpoints(key.source, device))
}
