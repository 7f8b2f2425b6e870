//! Findings in iptables-legacy tables.

use std::collections::HashMap;

use super::first::{is_other_protocol, xt_is_always_slow};
use super::kind::{Kind, of_xt};
use super::ways::{Common, Entrance, Graph};
use crate::observe::legacy::{Entry, Layout, Table};
use crate::observe::wire::{text, u16_at, u32_at};
use crate::world::{RuleFinding, RuleSource, Verdict};

/// The names of the hooks, by `NF_INET_*`.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// `struct xt_entry_match` and `struct xt_entry_target` before their data: size, name, revision.
const XT_HEADER: usize = 32;
const XT_NAME: std::ops::Range<usize> = 2..31;
const XT_REVISION: usize = 31;
/// The target that begins a user's chain, with the chain's name as its data, and that ends the table.
const ERROR: &str = "ERROR";

/// Looks through a table. An entry that makes no sense ends it.
pub fn findings(table: &Table) -> Vec<RuleFinding> {
    let layout = table.family.layout();
    let chains = chains(table);
    let at = |chain: &str| (table.family.name().to_owned(), table.name.clone(), chain.to_owned());
    let mut graph = Graph::default();
    for (hook, _) in HOOKS.iter().zip(table.hooks).filter(|(_, offset)| offset.is_some()) {
        let entrance = match *hook {
            _ if table.name == "nat" => Entrance::First,
            "INPUT" | "OUTPUT" => Entrance::Host,
            _ => Entrance::Any,
        };
        graph.enter(at(hook), entrance);
    }
    let mut rules = Vec::new();
    let (mut chain, mut number) = (String::new(), 0);
    for entry in table.iter() {
        if let Some(name) = chains.get(&entry.offset) {
            chain.clone_from(name);
            number = 0;
        }
        let Some(rule) = Rule::read(&entry, &layout, &chains) else {
            continue;
        };
        number += 1;
        if let Some(to) = &rule.jump {
            graph.jump(at(&chain), at(to), rule.common.clone());
        }
        rules.push((chain.clone(), number, rule));
    }
    let mut findings = Vec::new();
    for (chain, number, rule) in rules.iter().filter(|(_, _, rule)| !rule.kinds.is_empty()) {
        let ways = graph.ways(&at(chain), &rule.common);
        findings.extend(rule.kinds.iter().map(|kind| RuleFinding {
            source: RuleSource::Legacy,
            family: table.family.name().into(),
            table: table.name.clone(),
            chain: chain.clone(),
            rule: *number,
            what: kind.what,
            severity: kind.severity,
            reason: kind.reason,
            iif: rule.common.iif.clone(),
            oif: rule.common.oif.clone(),
            ways: ways.clone(),
            verdict: rule.verdict,
            text: rule.words.join(" "),
        }));
    }
    findings
}

/// The chains by the offset of their first rule.
fn chains(table: &Table) -> HashMap<usize, String> {
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
fn target<'a>(entry: &Entry<'a>) -> Option<(String, &'a [u8])> {
    let target = entry.bytes.get(entry.target..)?;
    Some((text(target.get(XT_NAME)?), target.get(XT_HEADER..)?))
}

struct Rule {
    kinds: Vec<&'static Kind>,
    words: Vec<String>,
    common: Common,
    verdict: Verdict,
    /// The chain that it leads to.
    jump: Option<String>,
}

impl Rule {
    /// Reads an entry; `None` for the entries that only mark where a chain begins or the table ends.
    fn read(entry: &Entry<'_>, layout: &Layout, chains: &HashMap<usize, String>) -> Option<Self> {
        let (target, data) = target(entry)?;
        if target == ERROR {
            return None;
        }
        let mut rule = Self {
            kinds: Vec::new(),
            words: Vec::new(),
            common: Common::default(),
            verdict: Verdict::None,
            jump: None,
        };
        // IPT_INV_VIA_IN 1, IPT_INV_VIA_OUT 2, XT_INV_PROTO 64
        let inverted = *entry.bytes.get(layout.inversion)?;
        let protocol = u16_at(entry.bytes, layout.protocol)?;
        rule.common = Common {
            iif: interface(entry, layout, 0).filter(|_| inverted & 1 == 0),
            oif: interface(entry, layout, 1).filter(|_| inverted & 2 == 0),
            always_slow: protocol != 0 && inverted & 64 == 0 && u8::try_from(protocol).is_ok_and(is_other_protocol),
        };
        rule.words
            .extend(rule.common.iif.iter().map(|name| format!("-i {name}")));
        rule.words
            .extend(rule.common.oif.iter().map(|name| format!("-o {name}")));
        let mut offset = layout.matches;
        while offset < entry.target {
            let part = entry.bytes.get(offset..entry.target)?;
            let len = usize::from(u16_at(part, 0)?).max(XT_HEADER);
            let name = text(part.get(XT_NAME)?);
            rule.kinds.extend(of_xt(&name));
            let info = part.get(XT_HEADER..len).unwrap_or_default();
            rule.common.always_slow |= xt_is_always_slow(&name, *part.get(XT_REVISION)?, info);
            rule.words.push(format!("-m {name}"));
            offset += len;
        }
        rule.kinds.extend(of_xt(&target));
        let word = if target.is_empty() {
            rule.standard(data, chains)
        } else {
            target
        };
        rule.verdict = match word.as_str() {
            "DROP" | "REJECT" => Verdict::Drop,
            "QUEUE" | "NFQUEUE" => Verdict::Queue,
            _ => rule.verdict,
        };
        rule.words.push(format!("-j {word}"));
        Some(rule)
    }

    /// The standard target: a verdict as -code - 1, or the offset of the chain to go on in.
    fn standard(&mut self, data: &[u8], chains: &HashMap<usize, String>) -> String {
        let Some(code) = u32_at(data, 0).map(u32::cast_signed) else {
            return String::new();
        };
        let (verdict, word) = match code {
            -1 => (Verdict::Drop, "DROP"),
            -2 => (Verdict::Accept, "ACCEPT"),
            -4 => (Verdict::Queue, "QUEUE"),
            -5 => (Verdict::Return, "RETURN"),
            code => {
                let chain = usize::try_from(code).ok().and_then(|offset| chains.get(&offset));
                self.jump = chain.cloned();
                (Verdict::Jump, chain.map_or("?", String::as_str))
            }
        };
        self.verdict = verdict;
        word.into()
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
    use super::*;
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
}
