//! How a packet of a known flow leaves: which redirect, for which kind of device, and why.
//!
//! - To an endpoint, from an ingress hook: `bpf_redirect_peer` moves the packet into the container's namespace in the
//!   same run; `bpf_redirect` would send it through the veth and the CPU's backlog queue, a second softirq. Only
//!   ingress hooks may do it, and only to a peer in another namespace: the kernel drops otherwise.
//! - Bulk flows, and veths with a queueing discipline, go through the device all the same, see
//!   [`lookup`](super::lookup).
//! - To an uplink, and from the host's own stack: `bpf_redirect` to the device's egress, its qdisc included.
//! - To the host's own stack: `bpf_redirect` to the ingress of the bridge device.

use aya_ebpf::bindings::BPF_F_INGRESS;
use netfast_common::flow::Exit;

use super::lookup::Hit;
use crate::ctx::Skb;

/// Sends the packet where its flow goes; returns the program's verdict.
#[inline(always)]
pub fn redirect<A, S: Skb>(skb: &S, hit: &Hit<A>) -> i32 {
    if hit.exit == Exit::Peer as u8 && hit.bulk == 0 {
        return skb.redirect_peer(hit.out_ifindex);
    }
    if hit.exit == Exit::Host as u8 {
        return skb.redirect(hit.out_ifindex, u64::from(BPF_F_INGRESS));
    }
    if hit.mark != 0 {
        skb.set_mark(hit.mark);
    }
    if hit.priority != skb.priority() {
        skb.set_priority(hit.priority);
    }
    skb.redirect(hit.out_ifindex, 0)
}

/// Sends the packet back out of the interface that it came in by; returns the program's verdict.
#[inline(always)]
pub fn reflect<S: Skb>(skb: &S) -> i32 {
    skb.redirect(skb.ifindex(), 0)
}

/// Sends the packet into an interface, as one that comes in there; returns the program's verdict.
#[inline(always)]
pub fn into<S: Skb>(skb: &S, ifindex: u32) -> i32 {
    skb.redirect(ifindex, u64::from(BPF_F_INGRESS))
}

/// Sends the packet into the interface whose hook runs, as one that comes in there; returns the program's verdict.
#[inline(always)]
pub fn reinject<S: Skb>(skb: &S) -> i32 {
    into(skb, skb.ifindex())
}

/// Hands the packet to the container whose packets come in by the interface, past all hooks of its egress; returns the
/// program's verdict. Only for an ingress hook and a peer in another namespace.
#[inline(always)]
pub fn to_peer<S: Skb>(skb: &S) -> i32 {
    skb.redirect_peer(skb.ifindex())
}

#[cfg(test)]
mod tests {
    use netfast_common::{flow::Flow, net::Ip4};

    use super::*;
    use crate::ctx::fake::{FakeSkb, Sent};

    /// Where a packet of such a flow goes, with which mark and priority. Test runs show neither device nor way.
    fn sent(edit: impl FnOnce(&mut Flow<Ip4>)) -> (Option<Sent>, u32, u32) {
        let mut flow = Flow {
            out_ifindex: 9,
            mark: 5,
            priority: 3,
            ..Flow::default()
        };
        edit(&mut flow);
        let skb = FakeSkb::new(&[0; 60]);
        skb.priority.set(6);
        assert_eq!(redirect(&skb, &Hit::of(Box::leak(Box::new(flow)))), 7);
        (skb.sent.get(), skb.mark.get(), skb.priority.get())
    }

    #[test]
    fn to_the_peer() {
        let way = |bulk: u8| {
            sent(|flow| {
                flow.exit = Exit::Peer as u8;
                flow.bulk = bulk;
            })
        };
        assert_eq!(way(0), (Some(Sent::ToPeer(9)), 0, 6));
        assert_eq!(way(1), (Some(Sent::To(9, 0)), 5, 3));
    }

    #[test]
    fn to_the_device() {
        for bulk in 0..2 {
            let way = sent(|flow| {
                flow.exit = Exit::Device as u8;
                flow.bulk = bulk;
            });
            assert_eq!(way, (Some(Sent::To(9, 0)), 5, 3));
        }
    }

    #[test]
    fn to_the_host() {
        for bulk in 0..2 {
            let way = sent(|flow| {
                flow.exit = Exit::Host as u8;
                flow.bulk = bulk;
            });
            assert_eq!(way, (Some(Sent::To(9, u64::from(BPF_F_INGRESS))), 0, 6));
        }
    }
}
