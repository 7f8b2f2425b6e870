//! Findings in iptables-legacy tables.

use std::collections::HashMap;

use super::reachability::{Common, Entrance, Graph};
use super::reading::Reading;
use super::table::Place;
use super::xt::{is_other_protocol, known};
use crate::bytes::{text, u16_at, u32_at};
use crate::host::{RuleFinding, RuleSource, Verdict};
use crate::observe::legacy::{Entry, Layout, Table};

/// The names of the hooks, by `NF_INET_*`.
pub(crate) const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// `struct xt_entry_match` and `struct xt_entry_target` before their data: size, name, revision.
const XT_HEADER: usize = 32;
const XT_NAME: std::ops::Range<usize> = 2..31;
const XT_REVISION: usize = 31;
/// The target that begins a user's chain, with the chain's name as its data, and that ends the table.
pub(crate) const ERROR: &str = "ERROR";

/// Looks through a table. An entry that makes no sense ends it.
pub fn findings(table: &Table) -> Vec<RuleFinding> {
    let layout = table.family.layout();
    let chains = chains(table);
    let at = |chain: &str| (table.family.name().to_owned(), table.name.clone(), chain.to_owned());
    let mut graph = Graph::default();
    for (number, hook) in (0u32..).zip(HOOKS) {
        if table.hooks[number as usize].is_some() {
            graph.enter(at(hook), Entrance::of_inet(number, table.name == "nat"));
        }
    }
    let mut rules = Vec::new();
    let (mut chain, mut number) = (String::new(), 0);
    for entry in table.iter() {
        if let Some(name) = chains.get(&entry.offset) {
            chain.clone_from(name);
            number = 0;
        }
        let Some(rule) = read(&entry, &layout, &chains) else {
            continue;
        };
        number += 1;
        if let Some(to) = &rule.jump {
            graph.jump(at(&chain), at(to), rule.common.clone());
        }
        rules.push((chain.clone(), number, rule));
    }
    let found = rules.iter().filter(|(_, _, rule)| !rule.is_plain());
    found
        .flat_map(|(chain, number, rule)| rule.findings(&graph, RuleSource::Legacy, &at(chain), *number))
        .collect()
}

/// The chains by the offset of their first rule.
pub(crate) fn chains(table: &Table) -> HashMap<usize, String> {
    let hooks = table.hooks.iter().zip(HOOKS);
    let mut chains: HashMap<_, _> = hooks
        .filter_map(|(offset, name)| Some((usize::try_from((*offset)?).ok()?, name.into())))
        .collect();
    for entry in table.iter() {
        if let Some((name, data)) = target(&entry)
            && name == ERROR
        {
            chains.insert(entry.offset + entry.bytes.len(), text(data));
        }
    }
    chains
}

/// The name and data of an entry's target.
pub(crate) fn target<'a>(entry: &Entry<'a>) -> Option<(String, &'a [u8])> {
    let target = entry.bytes.get(entry.target..)?;
    Some((text(target.get(XT_NAME)?), target.get(XT_HEADER..)?))
}

/// Reads an entry; `None` for the entries that only mark where a chain begins or the table ends.
fn read(entry: &Entry<'_>, layout: &Layout, chains: &HashMap<usize, String>) -> Option<Reading> {
    let (target, data) = target(entry)?;
    if target == ERROR {
        return None;
    }
    // IPT_INV_VIA_IN 1, IPT_INV_VIA_OUT 2, IPT_INV_FRAG 32, XT_INV_PROTO 64; IPT_F_FRAG 1
    let inverted = *entry.bytes.get(layout.inversion)?;
    let protocol = u16_at(entry.bytes, layout.protocol)?;
    let is_named = protocol != 0 && inverted & 64 == 0;
    let is_other = is_named && u8::try_from(protocol).is_ok_and(is_other_protocol);
    // `-f`: later fragments. IPv6 has no such flag; the bit is that of a protocol that was given.
    let is_fragment = layout.has_fragments && *entry.bytes.get(layout.inversion - 1)? & 1 != 0 && inverted & 32 == 0;
    let common = Common {
        iif: interface(entry, layout, 0).filter(|_| inverted & 1 == 0),
        oif: interface(entry, layout, 1).filter(|_| inverted & 2 == 0),
        always_slow: is_other || is_fragment,
        protocol: u8::try_from(protocol).ok().filter(|_| is_named).and_then(known),
        ..Common::default()
    };
    let mut rule = Reading::new(common, false);
    rule.words
        .extend(rule.common.iif.iter().map(|name| format!("-i {name}")));
    rule.words
        .extend(rule.common.oif.iter().map(|name| format!("-o {name}")));
    let mut offset = layout.matches;
    while offset < entry.target {
        let part = entry.bytes.get(offset..entry.target)?;
        let len = usize::from(u16_at(part, 0)?).max(XT_HEADER);
        let name = text(part.get(XT_NAME)?);
        rule.words.push(format!("-m {name}"));
        let info = part.get(XT_HEADER..len).unwrap_or_default();
        rule.see_xt(Place::Match, &name, *part.get(XT_REVISION)?, info);
        offset += len;
    }
    if target.is_empty() {
        standard(&mut rule, entry, data, chains);
        return Some(rule);
    }
    rule.words.push(format!("-j {target}"));
    let revision = *entry.bytes.get(entry.target + XT_REVISION)?;
    rule.see_xt(Place::Target, &target, revision, data);
    match target.as_str() {
        "REJECT" => rule.verdict = Verdict::Drop,
        "QUEUE" | "NFQUEUE" => rule.verdict = Verdict::Queue,
        _ => {}
    }
    Some(rule)
}

/// The standard target: a verdict as -code - 1, or the offset of the entry to go on with. A rule without a target goes on
/// with the next one.
fn standard(rule: &mut Reading, entry: &Entry<'_>, data: &[u8], chains: &HashMap<usize, String>) {
    let Some(code) = u32_at(data, 0).map(u32::cast_signed) else {
        return;
    };
    match code {
        -1 => rule.decide(Verdict::Drop, "-j DROP"),
        -2 => rule.decide(Verdict::Accept, "-j ACCEPT"),
        -4 => rule.decide(Verdict::Queue, "-j QUEUE"),
        -5 => rule.decide(Verdict::Return, "-j RETURN"),
        code => {
            let offset = usize::try_from(code).ok();
            if offset == Some(entry.offset + entry.bytes.len()) {
                return;
            }
            let chain = offset.and_then(|offset| chains.get(&offset));
            rule.decide(Verdict::Jump, format!("-j {}", chain.map_or("?", String::as_str)));
            rule.jump = chain.cloned();
        }
    }
}

/// An interface that is named in full. `which` is 0 for the incoming one, 1 for the outgoing.
fn interface(entry: &Entry<'_>, layout: &Layout, which: usize) -> Option<String> {
    const LEN: usize = 16;
    let at = |index: usize| entry.bytes.get(layout.interfaces + LEN * index..)?.get(..LEN);
    let name = text(at(which)?);
    // The mask covers the terminating zero unless the name ends in '+'.
    let whole = *at(2 + which)?.get(name.len())? != 0;
    (whole && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::table::{Class, rows};
    use super::*;
    use crate::host::Severity;
    use crate::observe::legacy::Family;
    use crate::observe::legacy::tests::{entry, table};

    #[test]
    fn rules_are_numbered_within_their_chain() {
        for family in [Family::Ip, Family::Ip6] {
            let accept = (-2i32).to_ne_bytes();
            let mut limited = entry(family, &[("limit", &[0; 40])], ("", &accept), 1);
            limited[family.layout().interfaces..][..7].copy_from_slice(b"docker0");
            limited[family.layout().interfaces + 32..][..8].fill(0xff);
            let mut name = [0; 32];
            name[..4].copy_from_slice(b"MINE");
            let table = table(
                family,
                &[
                    entry(family, &[], ("", &accept), 1),
                    limited,
                    entry(family, &[], ("", &accept), 1),
                    entry(family, &[], ("ERROR", &name), 0),
                    entry(family, &[("tcp", &[0; 16])], ("NFQUEUE", &[0; 8]), 0),
                    entry(family, &[], ("ERROR", b"ERROR\0"), 0),
                ],
            );
            let found = findings(&table);
            let seen: Vec<_> = found
                .iter()
                .map(|f| (f.chain.as_str(), f.rule, f.what, f.verdict, f.iif.as_deref()))
                .collect();
            assert_eq!(
                seen,
                [
                    ("FORWARD", 2, "limit", Verdict::Accept, Some("docker0")),
                    ("MINE", 1, "nfqueue", Verdict::Queue, None)
                ]
            );
            assert_eq!(found[0].text, "-i docker0 -m limit -j ACCEPT");
        }
    }

    /// What is found in a rule of FORWARD that accepts.
    fn severity(matches: &[(&str, &[u8])], target: (&str, &[u8]), edit: impl FnOnce(&mut Vec<u8>)) -> Option<Severity> {
        let mut rule = entry(Family::Ip, matches, target, 0);
        edit(&mut rule);
        let table = table(Family::Ip, &[rule, entry(Family::Ip, &[], ("ERROR", b"ERROR\0"), 0)]);
        let found = findings(&table);
        found.iter().map(|finding| finding.severity).max()
    }

    const ACCEPT: [u8; 4] = (-2i32).to_ne_bytes();

    /// Every match and target of the table, without parameters.
    #[test]
    fn each_name_by_itself() {
        for row in rows().filter(|row| [Place::Match, Place::Target].contains(&row.place)) {
            for name in row.names {
                let found = if row.place == Place::Match {
                    severity(&[(name, &[])], ("", &ACCEPT), |_| {})
                } else {
                    severity(&[], (name, &[]), |_| {})
                };
                // Without parameters, what depends on them is not understood.
                let expected = if row.class == Class::Depends {
                    Some(Severity::SlowPath)
                } else {
                    row.class.severity().filter(|_| row.class != Class::Bridged)
                };
                assert_eq!(found, expected, "{} {name}", row.place.name());
            }
        }
        assert_eq!(
            severity(&[("novelty", &[])], ("", &ACCEPT), |_| {}),
            Some(Severity::SlowPath)
        );
        assert_eq!(severity(&[], ("NOVELTY", &[]), |_| {}), Some(Severity::SlowPath));
    }

    /// A rule without a target goes on with the next one.
    #[test]
    fn a_rule_without_a_target_only_counts() {
        let len = entry(Family::Ip, &[("ecn", &[0; 8])], ("", &ACCEPT), 0).len();
        let next = u32::try_from(len).expect("short").to_ne_bytes();
        assert_eq!(severity(&[("ecn", &[0; 8])], ("", &next), |_| {}), Some(Severity::Note));
        assert_eq!(
            severity(&[("ecn", &[0; 8])], ("", &[0; 4]), |_| {}),
            Some(Severity::SlowPath),
            "a jump"
        );
        assert_eq!(
            severity(&[("recent", &[0; 8])], ("", &next), |_| {}),
            Some(Severity::SlowPath),
            "remembers"
        );
    }

    /// `-p icmp` and `! -p icmp`: rules about ICMP are about echo alone, and those about SCTP about nobody.
    #[test]
    fn protocols() {
        for family in [Family::Ip, Family::Ip6] {
            let severity = |protocol: u16, inverted: u8| {
                let mut rule = entry(family, &[("limit", &[0; 40])], ("", &ACCEPT), 0);
                let layout = family.layout();
                rule[layout.protocol..][..2].copy_from_slice(&protocol.to_ne_bytes());
                rule[layout.inversion] = inverted;
                let table = table(family, &[rule, entry(family, &[], ("ERROR", b"ERROR\0"), 0)]);
                let found = findings(&table).remove(0);
                (!found.ways.is_empty()).then_some(found.severity)
            };
            assert_eq!(severity(1, 0), Some(Severity::SlowEcho));
            assert_eq!(severity(58, 0), Some(Severity::SlowEcho));
            assert_eq!(severity(1, 64), Some(Severity::SlowPath));
            assert_eq!(severity(132, 0), None);
            assert_eq!(severity(17, 0), Some(Severity::SlowPath));
        }
    }

    /// `-f` and `! -f`: fragments are always slow.
    #[test]
    fn fragments() {
        let with = |flags: u8, inverted: u8| {
            let table = {
                let mut rule = entry(Family::Ip, &[("ecn", &[0; 8])], ("", &ACCEPT), 0);
                let place = Family::Ip.layout().inversion;
                (rule[place - 1], rule[place]) = (flags, inverted);
                table(Family::Ip, &[rule, entry(Family::Ip, &[], ("ERROR", b"ERROR\0"), 0)])
            };
            !findings(&table)[0].ways.is_empty()
        };
        assert!(with(0, 0) && with(1, 32) && !with(1, 0));
    }
}
