//! Metrics of aliases: one series for each member of each, by names.

use std::{collections::BTreeMap, fmt};

use netfast_common::{alias::Verdict, vip};
use prometheus_client::encoding::DescriptorEncoder;

use super::{Labels, counters, gauges, truth};
use crate::{config::AliasMode, report::aliases::Aliases};

/// Writes them.
pub(super) fn encode(aliases: &Aliases, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    counters(
        encoder,
        "netfast_resolver_answers",
        "Answers of containers' resolvers by what became of them (netfast aliases --json explains each).",
        Verdict::ALL.iter().map(|verdict| {
            let said = aliases.answers.iter().find(|count| count.verdict == verdict.name());
            (vec![("verdict", verdict.name())], said.map_or(0, |count| count.answers))
        }),
    )?;
    let labels = |alias, network| -> Labels<'_> { vec![("network", network), ("alias", alias)] };
    gauges(
        encoder,
        "netfast_alias_rotated",
        "1 if answers for a name that several containers share are rotated, else 0.",
        aliases
            .aliases
            .iter()
            .map(|alias| (labels(&alias.alias, &alias.network), truth(alias.mode == AliasMode::Rr))),
    )?;
    gauges(
        encoder,
        "netfast_alias_virtual",
        "1 if a name that several containers share has a virtual address, else 0.",
        aliases.aliases.iter().map(|alias| {
            (
                labels(&alias.alias, &alias.network),
                truth(alias.mode == AliasMode::Vip),
            )
        }),
    )?;
    counters(
        encoder,
        "netfast_virtual_packets",
        "Packets to and from virtual addresses on the slow path by what became of them (netfast aliases --json explains \
         each).",
        vip::Verdict::ALL.iter().map(|verdict| {
            let seen = aliases
                .virtual_packets
                .iter()
                .find(|count| count.verdict == verdict.name());
            (vec![("verdict", verdict.name())], seen.map_or(0, |count| count.packets))
        }),
    )?;
    // By name: while containers are renamed, two may have had the same.
    let mut members = BTreeMap::new();
    for alias in &aliases.aliases {
        for member in &alias.members {
            members.insert((&alias.network, &alias.alias, &member.container), member);
        }
    }
    let named = || {
        members.iter().map(|((network, alias, container), member)| {
            let mut labels = labels(alias, network);
            labels.push(("container", container));
            (labels, member)
        })
    };
    gauges(
        encoder,
        "netfast_alias_member_eligible",
        "1 if clients are given a member of an alias, 0 if it is unhealthy, paused or not ready.",
        named().map(|(labels, member)| (labels, truth(member.eligible))),
    )?;
    counters(
        encoder,
        "netfast_alias_first_answers",
        "Answers that named a member of an alias first.",
        named().map(|(labels, member)| (labels, member.first)),
    )?;
    gauges(
        encoder,
        "netfast_alias_member_weight",
        "How often a member of an alias is given for its virtual address, in proportion to the others.",
        named().map(|(labels, member)| (labels, f64::from(member.weight))),
    )?;
    counters(
        encoder,
        "netfast_alias_member_connections",
        "Connections to an alias's virtual address that a member was given, UDP conversations and pings among them.",
        // It may only rise, so those that went on to another member stay in it.
        named().map(|(labels, member)| (labels, member.connections + member.retried)),
    )?;
    counters(
        encoder,
        "netfast_alias_member_retried_connections",
        "Connections among them that the member refused or did not answer, and that were given to another one.",
        named().map(|(labels, member)| (labels, member.retried)),
    )
}
