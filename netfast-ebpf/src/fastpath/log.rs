//! What the programs say in builds for debugging (feature `bpf-log`), by aya-log; nothing in all others. The fast path
//! says nothing in either: what it does is seen by `netfast trace`.

use netfast_common::reason::Reason;

use crate::ctx::Skb;

/// A packet takes the slow path from where it entered.
#[inline(always)]
pub fn slow<S: Skb>(skb: &S, reason: Reason) {
    #[cfg(feature = "bpf-log")]
    say::slow(skb.ifindex(), reason.number());
    let _ = (skb, reason);
}

/// What came of a packet where it left.
#[inline(always)]
pub fn learned<S: Skb>(skb: &S, reason: Reason) {
    #[cfg(feature = "bpf-log")]
    say::learned(skb.ifindex(), reason.number());
    let _ = (skb, reason);
}

#[cfg(all(feature = "bpf-log", target_arch = "bpf"))]
mod say {
    use aya_log_ebpf::{debug, trace};
    use netfast_common::reason::Reason;

    pub fn slow(ifindex: u32, reason: u32) {
        netfast_log_in(ifindex, reason);
    }

    pub fn learned(ifindex: u32, reason: u32) {
        netfast_log_out(ifindex, reason);
    }

    /// A global function: the verifier looks at the long code of a log line once, not on each path that leads here.
    #[inline(never)]
    #[unsafe(no_mangle)]
    extern "C" fn netfast_log_in(ifindex: u32, reason: u32) -> u32 {
        trace!(&(), "device {}: slow, reason {}", ifindex, reason);
        0
    }

    /// As above. Most packets leave without anything to learn from them.
    #[inline(never)]
    #[unsafe(no_mangle)]
    extern "C" fn netfast_log_out(ifindex: u32, reason: u32) -> u32 {
        if reason == Reason::NoCandidate.number() {
            trace!(&(), "device {}: out, reason {}", ifindex, reason);
        } else {
            debug!(&(), "device {}: out, reason {}", ifindex, reason);
        }
        0
    }
}

/// On the host there is no kernel to say it to.
#[cfg(all(feature = "bpf-log", not(target_arch = "bpf")))]
mod say {
    pub fn slow(_ifindex: u32, _reason: u32) {}
    pub fn learned(_ifindex: u32, _reason: u32) {}
}
