//! A destination that is a name which several containers share.

use std::net::IpAddr;

use netfast_common::reason::Reason;
use serde::Serialize;

use super::{
    Facts, Step, Verdict, addresses, is_named,
    way::{self, From},
};
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
    let is_meant = |alias: &&AliasReport| {
        let full = format!("{}.{}", alias.alias, alias.network);
        alias.alias.eq_ignore_ascii_case(name) || full.eq_ignore_ascii_case(name)
    };
    let alias = aliases
        .iter()
        .filter(is_meant)
        .find(|alias| is_on(from, alias, networks))?;
    let given = alias.members.iter().filter(|member| member.eligible);
    let member = given.flat_map(|member| &member.addresses).min_by_key(|ip| ip.is_ipv6());
    let name = AliasName {
        alias: alias.alias.clone(),
        network: alias.network.clone(),
    };
    Some((name, alias.vips().next().or(member.copied())?))
}

/// The alias that a virtual address is of, for a container on its network.
pub(super) fn with_address(
    ip: IpAddr,
    from: &str,
    networks: &[NetworkReport],
    aliases: &[AliasReport],
) -> Option<AliasName> {
    let mut meant = aliases.iter().filter(|alias| alias.vips().any(|vip| vip == ip));
    let alias = meant.find(|alias| is_on(from, alias, networks))?;
    Some(AliasName {
        alias: alias.alias.clone(),
        network: alias.network.clone(),
    })
}

fn is_on(container: &str, alias: &AliasReport, networks: &[NetworkReport]) -> bool {
    let mut networks = networks.iter().filter(|network| network.name == alias.network);
    networks.any(|network| network.endpoints.iter().any(|endpoint| is_named(endpoint, container)))
}

/// What the alias means for packets that come in from an endpoint of a network.
pub(super) fn steps(from: From<'_>, name: &AliasName, facts: &Facts<'_>) -> (Vec<Step>, Verdict) {
    let mut reports = facts.state.aliases.iter();
    let Some(alias) = reports.find(|one| one.alias == name.alias && one.network == name.network) else {
        return (Vec::new(), Verdict::KernelDecides);
    };
    let about = format!("{} ({})", alias.alias, alias.network);
    let given: Vec<_> = alias.members.iter().filter(|member| member.eligible).collect();
    let vips: Vec<_> = alias.vips().map(|vip| vip.to_string()).collect();
    if given.is_empty() && !vips.is_empty() {
        let text = "no member may be given (none runs, or none is healthy): connections are refused at once";
        return (vec![Step::reason(about, Reason::OtherPacket, text)], Verdict::Slow);
    }
    let count = format!("{} of {} members", given.len(), alias.members.len());
    let address = match vips.as_slice() {
        [one] => format!("virtual address {one}"),
        both => format!("virtual addresses {}", both.join(" and ")),
    };
    let text = match alias.mode {
        AliasMode::Vip if !vips.is_empty() && alias.affinity => {
            format!("{address}: a client is given the same one of {count}")
        }
        AliasMode::Vip if !vips.is_empty() => format!("{address}: each connection goes to the next of {count}"),
        AliasMode::Rr if alias.one6 => {
            format!("each answer of the resolver begins with the next of {count}, and with IPv6 names no other")
        }
        AliasMode::Rr => format!("each answer of the resolver begins with the next of {count}"),
        AliasMode::Vip | AliasMode::Off => format!("the runtime's resolver names {count}, in its own order"),
    };
    let text = match &alias.why {
        Some(why) => format!("{text} ({why})"),
        None => text,
    };
    let mut members = Vec::new();
    for member in given {
        let is_its = |endpoint: &&EndpointReport| {
            let mut own = addresses(endpoint);
            endpoint.container_id == member.container_id && own.any(|ip| member.addresses.contains(&ip))
        };
        if let Some(endpoint) = from.network.endpoints.iter().find(is_its) {
            members.push(way::within(from, From { endpoint, ..from }, None, facts));
        }
    }
    let verdict = Verdict::of_all(members.iter().map(Verdict::of));
    let mut steps = vec![Step::fast(about, text)];
    steps.extend(members);
    (steps, verdict.unwrap_or(Verdict::KernelDecides))
}
