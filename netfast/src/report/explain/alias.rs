//! A destination that is a name which several containers share.

use std::net::IpAddr;

use netfast_common::reason::Reason;
use serde::Serialize;

use super::{Facts, Step, addresses, destination, is_named};
use crate::{
    config::AliasMode,
    plan::{
        AliasReport,
        report::{EndpointReport, NetworkReport},
    },
};

/// Which alias a destination is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AliasName {
    /// The name, in lower case.
    pub alias: String,
    /// Its network's name.
    pub network: String,
}

/// The alias that a container means by a name, with or without the network's name behind it, and where its packets
/// go: the virtual address, or a member.
pub(super) fn find(
    name: &str,
    from: &str,
    networks: &[NetworkReport],
    aliases: &[AliasReport],
) -> Option<(AliasName, IpAddr)> {
    let is_on = |alias: &&AliasReport| {
        let mut networks = networks.iter().filter(|network| network.name == alias.network);
        networks.any(|network| network.endpoints.iter().any(|endpoint| is_named(endpoint, from)))
    };
    let is_meant = |alias: &&AliasReport| {
        let full = format!("{}.{}", alias.alias, alias.network);
        alias.alias.eq_ignore_ascii_case(name) || full.eq_ignore_ascii_case(name)
    };
    let alias = aliases.iter().filter(is_meant).find(is_on)?;
    let given = alias.members.iter().filter(|member| member.eligible);
    let member = given.flat_map(|member| &member.addresses).min_by_key(|ip| ip.is_ipv6());
    let name = AliasName {
        alias: alias.alias.clone(),
        network: alias.network.clone(),
    };
    Some((name, alias.vip.map(IpAddr::from).or(member.copied())?))
}

/// What the alias means for packets that come in from an endpoint of a network.
pub(super) fn steps(network: &NetworkReport, name: &AliasName, facts: &Facts<'_>) -> Vec<Step> {
    let mut reports = facts.state.aliases.iter();
    let Some(alias) = reports.find(|one| one.alias == name.alias && one.network == name.network) else {
        return Vec::new();
    };
    let about = format!("{} ({})", alias.alias, alias.network);
    let given: Vec<_> = alias.members.iter().filter(|member| member.eligible).collect();
    if given.is_empty() && alias.vip.is_some() {
        let text = "no member may be given (none runs, or none is healthy): connections are refused at once";
        return vec![Step::reason(about, Reason::OtherPacket, text)];
    }
    let count = format!("{} of {} members", given.len(), alias.members.len());
    let text = match (alias.mode, alias.vip) {
        (AliasMode::Vip, Some(vip)) if alias.affinity => {
            format!("virtual address {vip}: a client is given the same one of {count}")
        }
        (AliasMode::Vip, Some(vip)) => format!("virtual address {vip}: each connection goes to the next of {count}"),
        (AliasMode::Rr, _) => format!("each answer of the resolver begins with the next of {count}"),
        (AliasMode::Vip | AliasMode::Off, _) => format!("Docker's resolver names {count} in any order"),
    };
    let text = match &alias.why {
        Some(why) => format!("{text} ({why})"),
        None => text,
    };
    let mut steps = vec![Step::fast(about, text)];
    for member in given {
        let is_its = |endpoint: &&EndpointReport| {
            let mut own = addresses(endpoint);
            endpoint.container_id == member.container_id && own.any(|ip| member.addresses.contains(&ip))
        };
        if let Some(endpoint) = network.endpoints.iter().find(is_its) {
            steps.push(destination::to_container(network, network, endpoint));
        }
    }
    steps
}
