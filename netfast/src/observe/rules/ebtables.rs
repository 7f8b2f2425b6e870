//! Findings in ebtables-legacy tables.

use super::reachability::{Common, Entrance, Graph};
use super::reading::Reading;
use super::table::Place;
use crate::bytes::{text, u32_at};
use crate::host::{RuleFinding, RuleSource, Verdict};
use crate::observe::ebtables::Table;

/// `struct ebt_entries`, which begins a chain: its first word, whose lowest bit is clear, its name, its rules behind it.
const CHAIN: usize = 48;
const CHAIN_NAME: std::ops::Range<usize> = 4..36;
/// `struct ebt_entry`, a rule: bits, inversions, protocol in network order, interfaces of 16 bytes each (in, logical in, out,
/// logical out), addresses, and where watchers, target and the next entry begin.
const ENTRY: usize = 112;
const INVERSIONS: usize = 4;
const PROTOCOL: usize = 8;
const INTERFACES: usize = 10;
const WATCHERS: usize = 100;
const TARGET: usize = 104;
const NEXT: usize = 108;
/// `EBT_ENTRY_OR_ENTRIES`, `EBT_NOPROTO`, `EBT_802_3`.
const IS_ENTRY: u32 = 1;
const NO_PROTOCOL: u32 = 2;
const IS_802_3: u32 = 4;
/// `struct ebt_entry_match` before its data: name, revision, size of the data, which is aligned to eight bytes.
const PART: usize = 40;
const PART_NAME: std::ops::Range<usize> = 0..31;
const PART_REVISION: usize = 31;
const PART_SIZE: usize = 32;

/// Looks through a table. An entry that makes no sense ends it.
pub fn findings(table: &Table) -> Vec<RuleFinding> {
    let at = |chain: &str| ("bridge".to_owned(), table.name.clone(), chain.to_owned());
    let mut graph = Graph::default();
    let mut hooks = table.hooks();
    let mut rules = Vec::new();
    let (mut chain, mut number, mut offset) = (String::new(), 0, 0);
    while let Some(rest) = table.entries.get(offset..)
        && let Some(bits) = u32_at(rest, 0)
    {
        if bits & IS_ENTRY == 0 {
            let Some(name) = rest.get(CHAIN_NAME) else { break };
            (chain, number) = (text(name), 0);
            // Those of hooks come first.
            if let Some(hook) = hooks.next() {
                graph.enter(at(&chain), Entrance::of_bridge(hook));
            }
            offset += CHAIN;
            continue;
        }
        let Some(entry) = u32_at(rest, NEXT).and_then(|len| rest.get(..len as usize)) else {
            break;
        };
        let Some(rule) = read(entry, bits, &table.entries) else {
            break;
        };
        number += 1;
        if let Some(to) = &rule.jump {
            graph.jump(at(&chain), at(to), rule.common.clone());
        }
        rules.push((chain.clone(), number, rule));
        offset += entry.len();
    }
    let found = rules.iter().filter(|(_, _, rule)| !rule.is_plain());
    found
        .flat_map(|(chain, number, rule)| rule.findings(&graph, RuleSource::Legacy, &at(chain), *number))
        .collect()
}

fn read(entry: &[u8], bits: u32, entries: &[u8]) -> Option<Reading> {
    // EBT_IPROTO 1, EBT_IIN 2, EBT_IOUT 4, EBT_ILOGICALIN 32, EBT_ILOGICALOUT 64
    let inverted = u32_at(entry, INVERSIONS)?;
    let protocol = [*entry.get(PROTOCOL)?, *entry.get(PROTOCOL + 1)?];
    let is_other = bits & NO_PROTOCOL == 0 && ![[0x08, 0x00], [0x86, 0xdd]].contains(&protocol);
    let port = |which, bit| interface(entry, which).filter(|_| inverted & bit == 0);
    let common = Common {
        iif: port(0, 2).or_else(|| port(1, 32)),
        oif: port(2, 4).or_else(|| port(3, 64)),
        always_slow: inverted & 1 == 0 && (is_other || bits & IS_802_3 != 0),
        ..Common::default()
    };
    let mut rule = Reading::new(common, true);
    let interfaces = [("-i", &rule.common.iif), ("-o", &rule.common.oif)];
    let words = interfaces.map(|(option, name)| name.as_ref().map(|name| format!("{option} {name}")));
    rule.words.extend(words.into_iter().flatten());
    let [watchers, target] = [WATCHERS, TARGET].map(|place| u32_at(entry, place).map(|offset| offset as usize));
    let (watchers, target) = (watchers?, target?);
    let mut offset = ENTRY;
    while offset < target {
        let (name, revision, data) = part(entry, offset)?;
        let (place, word) = if offset < watchers {
            (Place::Match, "-m")
        } else {
            (Place::Target, "-w")
        };
        rule.words.push(format!("{word} {name}"));
        rule.see_xt(place, &name, revision, data);
        offset += PART + data.len();
    }
    let (name, revision, data) = part(entry, target)?;
    if name == "standard" {
        standard(&mut rule, data, entries);
    } else {
        rule.words.push(format!("-j {name}"));
        rule.see_xt(Place::Target, &name, revision, data);
    }
    Some(rule)
}

/// A verdict, or the offset of the chain to go on in.
fn standard(rule: &mut Reading, data: &[u8], entries: &[u8]) {
    match u32_at(data, 0).map(u32::cast_signed) {
        Some(-1) => rule.decide(Verdict::Accept, "-j ACCEPT"),
        Some(-2) => rule.decide(Verdict::Drop, "-j DROP"),
        // CONTINUE
        Some(-3) | None => {}
        Some(-4) => rule.decide(Verdict::Return, "-j RETURN"),
        Some(code) => {
            let chain = usize::try_from(code).ok().and_then(|offset| entries.get(offset..));
            let name = chain.and_then(|chain| chain.get(CHAIN_NAME)).map(text);
            rule.decide(Verdict::Jump, format!("-j {}", name.as_deref().unwrap_or("?")));
            rule.jump = name;
        }
    }
}

/// Name, revision and data of a match, watcher or target.
fn part(entry: &[u8], offset: usize) -> Option<(String, u8, &[u8])> {
    let part = entry.get(offset..)?;
    let size = u32_at(part, PART_SIZE)? as usize;
    Some((
        text(part.get(PART_NAME)?),
        *part.get(PART_REVISION)?,
        part.get(PART..PART.checked_add(size)?)?,
    ))
}

/// An interface that is named in full; the kernel has 1 for a `+` at the end.
fn interface(entry: &[u8], which: usize) -> Option<String> {
    const LEN: usize = 16;
    let name = text(entry.get(INTERFACES + LEN * which..)?.get(..LEN)?);
    (!name.is_empty() && !name.ends_with('\u{1}')).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::Severity;

    fn chain(name: &str) -> Vec<u8> {
        let mut bytes = vec![0; CHAIN];
        bytes[4..4 + name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    fn one(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; PART];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let len = data.len().next_multiple_of(8);
        bytes[PART_SIZE..PART_SIZE + 4].copy_from_slice(&u32::try_from(len).expect("short").to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(PART + len, 0);
        bytes
    }

    /// A rule for IPv4 with a match, a watcher and a target.
    fn rule(matches: &[Vec<u8>], watchers: &[Vec<u8>], target: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; ENTRY];
        bytes[0] = 1;
        bytes[PROTOCOL] = 8;
        let mut put = |place: usize, parts: &[u8]| {
            bytes.extend_from_slice(parts);
            let len = u32::try_from(bytes.len()).expect("short");
            bytes[place..place + 4].copy_from_slice(&len.to_ne_bytes());
        };
        put(WATCHERS, &matches.concat());
        put(TARGET, &watchers.concat());
        put(NEXT, target);
        bytes
    }

    fn verdict(code: i32) -> Vec<u8> {
        one("standard", &code.to_ne_bytes())
    }

    /// A table filter with these rules in FORWARD, and a chain of the user's behind.
    fn table(rules: &[Vec<u8>], mine: &[Vec<u8>]) -> Table {
        let chains = [
            chain("INPUT"),
            chain("FORWARD"),
            rules.concat(),
            chain("OUTPUT"),
            chain("MINE"),
            mine.concat(),
        ];
        Table {
            name: "filter".into(),
            hooks: 0b1110,
            entries: chains.concat(),
        }
    }

    /// `struct ebt_ip_info` that asks for TOS.
    fn tos() -> Vec<u8> {
        let mut info = vec![0; 32];
        info[18] = 4;
        one("ip", &info)
    }

    fn slow(table: &Table) -> Vec<(String, u64, &'static str)> {
        let found = findings(table).into_iter();
        let found = found.filter(|finding| finding.severity == Severity::SlowPath && !finding.ways.is_empty());
        found
            .map(|finding| (finding.chain, finding.rule, finding.what))
            .collect()
    }

    #[test]
    fn what_judges_is_found_where_it_is() {
        let plain = rule(&[one("ip", &[0; 32])], &[], &verdict(-2));
        let judging = rule(&[tos()], &[], &verdict(-2));
        let found = slow(&table(&[plain.clone(), judging.clone()], &[]));
        assert_eq!(found, [("FORWARD".into(), 2, "ip tos")]);
        assert_eq!(slow(&table(std::slice::from_ref(&plain), &[])), []);
        let unknown = rule(&[one("novelty", &[])], &[], &verdict(-2));
        assert_eq!(slow(&table(&[unknown], &[])), [("FORWARD".into(), 1, "unknown match")]);
        let logs = rule(&[tos()], &[one("log", &[0; 40])], &verdict(-3));
        assert_eq!(slow(&table(&[logs], &[])), []);
        let mut arp = judging.clone();
        arp[PROTOCOL + 1] = 6;
        assert_eq!(slow(&table(&[arp], &[])), [], "ARP is always slow");
        // A chain that nobody jumps to is met by nobody.
        assert_eq!(slow(&table(&[], std::slice::from_ref(&judging))), []);
        let place = i32::try_from(3 * CHAIN + rule(&[], &[], &verdict(0)).len()).expect("short");
        let jump = rule(&[], &[], &verdict(place));
        assert_eq!(slow(&table(&[jump], &[judging])), [("MINE".into(), 1, "ip tos")]);
    }

    #[test]
    fn interfaces_and_marks() {
        let mut limited = rule(&[one("limit", &[0; 32])], &[], &verdict(-1));
        limited[INTERFACES..INTERFACES + 5].copy_from_slice(b"veth1");
        let found = findings(&table(std::slice::from_ref(&limited), &[]));
        assert_eq!(
            (found[0].iif.as_deref(), found[0].text.as_str()),
            (Some("veth1"), "-i veth1 -m limit -j ACCEPT")
        );
        limited[INTERFACES + 5] = 1;
        assert_eq!(findings(&table(&[limited], &[]))[0].iif, None, "veth1+");
        let marks = rule(&[], &[], &one("mark", &[0; 16]));
        assert_eq!(slow(&table(std::slice::from_ref(&marks), &[])), [], "FORWARD");
        let early = Table {
            name: "filter".into(),
            hooks: 0b10,
            entries: [chain("INPUT"), marks].concat(),
        };
        assert_eq!(slow(&early), [("INPUT".into(), 1, "early mark")]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..600), hooks in any::<u32>()) {
            let table = Table { name: "nat".into(), hooks, entries: bytes };
            findings(&table);
            table.hash();
        }
    }
}
