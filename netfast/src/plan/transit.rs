//! What is forwarded from one uplink to another, with no container at either end: on a router, and for containers behind routed veths.
//!
//! By the operator's wish only (`transit`). Nothing is known of who is behind an uplink, so whatever keeps any bridge's packets slow
//! keeps these slow.

use netfast_common::device::{Device, Kind};

use crate::plan::{Build, DeviceSpec, tc};

/// Lets what comes in by each uplink leave by another on the fast path, if it is wanted; returns whether, or why not. After the
/// uplinks were added.
pub fn add(build: &mut Build<'_>) -> Option<Result<(), String>> {
    if !build.config.transit {
        return None;
    }
    if let Some(why) = refused(build) {
        return Some(Err(why));
    }
    // A VXLAN device that is a port of a bridge gets copies of what the bridge looks for everywhere.
    let is_way_out = |spec: &&mut DeviceSpec| spec.kind == Kind::Uplink && spec.identity.master.is_none();
    for spec in build.devices.values_mut().filter(is_way_out) {
        spec.flags |= Device::ANY_SOURCE;
    }
    Some(Ok(()))
}

fn refused(build: &Build<'_>) -> Option<String> {
    let netns = build.netns;
    if let Some(text) = netns
        .ruleset
        .unreadable
        .as_ref()
        .filter(|_| !build.config.allow_rate_rules)
    {
        return Some(format!("the rules cannot be read ({text})"));
    }
    if let Some(text) = tc::on_the_way(netns) {
        return Some(text);
    }
    if let Some(rule) = build.rules.concerning_any_forwarded() {
        return Some(format!(
            "this rule must see every packet (see allow_rate_rules): {rule}"
        ));
    }
    let counts = netns.sysctls.conntrack_acct == Some(true) && !build.config.allow_accounting;
    counts.then(|| "net.netfilter.nf_conntrack_acct is on (see allow_accounting)".to_owned())
}
