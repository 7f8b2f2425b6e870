//! Queueing disciplines and programs of others that a redirect would skip.

use netfast_common::abi::PREFIX;

use crate::{
    host::{Link, Mac, Namespace, Peer},
    plan::Facts,
};

/// `tcm_parent` of filters on the ingress of clsact or of the ingress qdisc (`TC_H_MIN_INGRESS` in `linux/pkt_sched.h`).
const PARENT_INGRESS: u32 = 0xffff_fff2;
/// `tcm_parent` of filters on the egress of clsact (`TC_H_MIN_EGRESS`).
const PARENT_EGRESS: u32 = 0xffff_fff3;
/// The ingress qdisc itself is the parent of its filters when they were added by its handle.
const HANDLE_INGRESS: u32 = 0xffff_0000;

/// Programs of others on the tcx hooks of an interface, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// On ingress after ours, or where ours is not attached: none, since ours would come last.
    pub ingress_after: Vec<String>,
    /// Anywhere on ingress.
    pub ingress: Vec<String>,
    /// Anywhere on egress.
    pub egress: Vec<String>,
}

/// The queueing discipline on an interface that must see every packet.
pub fn shaper(netns: &Namespace, ifindex: u32) -> Option<&str> {
    let qdiscs = netns.qdiscs.get(&ifindex)?;
    qdiscs
        .iter()
        .map(|qdisc| qdisc.kind.as_str())
        .find(|kind| !["noqueue", "clsact", "ingress"].contains(kind))
}

fn classic_filter(netns: &Namespace, ifindex: u32, egress: bool) -> Option<String> {
    let filters = netns.tc_filters.get(&ifindex)?;
    let found = filters.iter().find(|filter| {
        let ours = filter.name.as_deref().is_some_and(|name| name.starts_with(PREFIX));
        let ingress = filter.parent == PARENT_INGRESS || filter.parent == HANDLE_INGRESS;
        !ours
            && if egress {
                filter.parent == PARENT_EGRESS
            } else {
                ingress
            }
    })?;
    Some(match &found.name {
        Some(name) => format!("{} filter {name}", found.kind),
        None => format!("{} filter", found.kind),
    })
}

/// What runs on an interface's ingress after us: a redirect happens before it. Classic filters run after tcx
/// (`sch_handle_ingress`, net/core/dev.c).
pub fn foreign_on_ingress(netns: &Namespace, facts: &Facts, link: &Link) -> Option<String> {
    let after = facts
        .foreign
        .get(&netns.key(link.ifindex))
        .and_then(|foreign| foreign.ingress_after.first());
    let what = after
        .map(|name| format!("program {name}"))
        .or_else(|| classic_filter(netns, link.ifindex, false))?;
    Some(format!("the {what} on {} ingress must see every packet", link.name))
}

/// An XDP program in the stack of the container: the kernel leaves it out for packets that a program has redirected to a
/// device (`skb_is_redirected`, `netif_receive_generic_xdp` in net/core/dev.c), as those of the host and of bulk flows are.
pub fn generic_xdp_inside(netns: &Namespace, link: &Link) -> Option<String> {
    let peer = netns.peers.get(&link.ifindex).filter(|_| link.peer_in_other_netns())?;
    peer.xdp.generic?;
    Some(format!(
        "the generic XDP program on the container's end of {} must see every packet",
        link.name
    ))
}

/// What runs on either hook of an interface, or as XDP there: a bridge device is not touched at all by packets that are
/// redirected, nor are its ports by those that go straight.
pub fn anything_on(netns: &Namespace, facts: &Facts, link: &Link) -> Option<String> {
    let foreign = facts.foreign.get(&netns.key(link.ifindex));
    let program = foreign.and_then(|foreign| foreign.ingress.first().or(foreign.egress.first()));
    let xdp = link.xdp.is_attached().then(|| "XDP program".to_owned());
    let what = program
        .map(|name| format!("program {name}"))
        .or(xdp)
        .or_else(|| classic_filter(netns, link.ifindex, false))
        .or_else(|| classic_filter(netns, link.ifindex, true))?;
    Some(format!("the {what} on {} must see every packet", link.name))
}

/// BPF programs that see what is forwarded, wherever it comes from and goes: on netfilter's hooks and of routes.
pub fn on_the_way(netns: &Namespace) -> Option<String> {
    let hook = netns
        .netfilter_programs
        .first()
        .map(|id| format!("a BPF program on a netfilter hook (link {id})"));
    let of_route = || {
        let route = netns.routes.iter().find(|route| route.has_programs)?;
        Some(format!("the BPF program of the route to {}", route.dst))
    };
    Some(format!("{} must see every packet", hook.or_else(of_route)?))
}

/// Whether packets to an interface must pass its egress and its cable, where a queueing discipline, a program or a limit
/// waits for them.
pub fn must_pass_egress(netns: &Namespace, facts: &Facts, link: &Link, mac: Mac) -> bool {
    shaper(netns, link.ifindex).is_some()
        || classic_filter(netns, link.ifindex, true).is_some()
        || facts
            .foreign
            .get(&netns.key(link.ifindex))
            .is_some_and(|foreign| !foreign.egress.is_empty())
        || judged_at_the_other_end(netns, link, mac)
}

/// Whether the way into the other end of a veth judges packets to a MAC address: a native XDP program there, an MTU that is
/// smaller than here (`____dev_forward_skb`, include/linux/netdevice.h), or another address (`eth_type_trans`). Of an end
/// that cannot be asked about, it is not known.
fn judged_at_the_other_end(netns: &Namespace, link: &Link, mac: Mac) -> bool {
    let is_plain = |peer: &Peer| peer.xdp.native.is_none() && peer.mtu >= link.mtu && peer.mac == Some(mac);
    link.peer_in_other_netns() && !netns.peers.get(&link.ifindex).is_some_and(is_plain)
}
