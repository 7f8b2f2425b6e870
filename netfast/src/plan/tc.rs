//! Queueing disciplines and programs of others that a redirect would skip.

use crate::{
    plan::Facts,
    world::{Link, World},
};

/// `tcm_parent` of filters on the ingress of clsact or of the ingress qdisc (`TC_H_MIN_INGRESS` in `linux/pkt_sched.h`).
const PARENT_INGRESS: u32 = 0xffff_fff2;
/// `tcm_parent` of filters on the egress of clsact (`TC_H_MIN_EGRESS`).
const PARENT_EGRESS: u32 = 0xffff_fff3;
/// The ingress qdisc itself is the parent of its filters when they were added by its handle.
const HANDLE_INGRESS: u32 = 0xffff_0000;
/// What the name of each of our programs begins with.
const OUR_PREFIX: &str = "netfast_";

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
pub fn shaper(world: &World, ifindex: u32) -> Option<&str> {
    let qdiscs = world.qdiscs.get(&ifindex)?;
    qdiscs
        .iter()
        .map(|qdisc| qdisc.kind.as_str())
        .find(|kind| !["noqueue", "clsact", "ingress"].contains(kind))
}

fn classic_filter(world: &World, ifindex: u32, egress: bool) -> Option<String> {
    let filters = world.tc_filters.get(&ifindex)?;
    let found = filters.iter().find(|filter| {
        let ours = filter.name.as_deref().is_some_and(|name| name.starts_with(OUR_PREFIX));
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
pub fn foreign_on_ingress(world: &World, facts: &Facts, link: &Link) -> Option<String> {
    let after = facts
        .foreign
        .get(&link.ifindex)
        .and_then(|foreign| foreign.ingress_after.first());
    let what = after
        .map(|name| format!("program {name}"))
        .or_else(|| classic_filter(world, link.ifindex, false))?;
    Some(format!("the {what} on {} ingress must see every packet", link.name))
}

/// What runs on a bridge device: redirected packets do not touch it at all.
pub fn foreign_on_bridge(world: &World, facts: &Facts, link: &Link) -> Option<String> {
    let foreign = facts.foreign.get(&link.ifindex);
    let program = foreign.and_then(|foreign| foreign.ingress.first().or(foreign.egress.first()));
    let what = program
        .map(|name| format!("program {name}"))
        .or_else(|| classic_filter(world, link.ifindex, false))
        .or_else(|| classic_filter(world, link.ifindex, true))?;
    Some(format!("the {what} on {} must see every packet", link.name))
}

/// Whether packets to an interface must pass its egress, where a queueing discipline or a program waits for them.
pub fn must_pass_egress(world: &World, facts: &Facts, ifindex: u32) -> bool {
    shaper(world, ifindex).is_some()
        || classic_filter(world, ifindex, true).is_some()
        || facts
            .foreign
            .get(&ifindex)
            .is_some_and(|foreign| !foreign.egress.is_empty())
}
