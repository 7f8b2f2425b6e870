//! Findings in nftables rules (`NFT_MSG_GETRULE`, `linux/netfilter/nf_tables.h`), iptables-nft's among them.

use std::collections::{BTreeMap, BTreeSet};

use super::reachability::{Entrance, Graph};
use super::table::Place;
use crate::host::{NftChain, RuleFinding, RuleSource};
use crate::observe::nftables::{GETRULE, GETSET, GETSETELEM, NEWRULE, NEWSET, NEWSETELEM, NFGENMSG};
use crate::sys::netlink::{Attr, Attrs, DUMP, Malformed, Message, NetlinkError, NetlinkSocket, Request};

mod registers;
mod rule;
#[cfg(test)]
mod tests;

pub use rule::{Rule, parse};

const NFTA_EXPR_NAME: u16 = 1;

/// Looks through all rules of the socket's namespace.
pub fn findings(socket: &mut NetlinkSocket, chains: &BTreeSet<NftChain>) -> Result<Vec<RuleFinding>, NetlinkError> {
    let request = Request::new(GETSET, DUMP, &[0; NFGENMSG]);
    let sets = socket.dump("nftables sets", &request, |sets: &mut Sets, message| {
        if message.kind == NEWSET {
            sets.note(message)?;
        }
        Ok(())
    })?;
    let Sets {
        judging,
        brief,
        mut maps,
    } = sets;
    // A map that has gone since is one that is not known, and its rule with it.
    for (set, chains) in &mut maps {
        let request = Request::new(GETSETELEM, DUMP, &[set.number, 0, 0, 0])
            .attr(1, &terminated(&set.table))
            .attr(2, &terminated(&set.name));
        let found = socket.dump("nftables maps", &request, |found: &mut Sets, message| {
            if message.kind == NEWSETELEM {
                found.note_elements(message)?;
            }
            Ok(())
        });
        match found {
            Ok(found) => *chains = Some(found.maps.into_values().flatten().flatten().collect()),
            Err(error) if error.refused().is_some() => {}
            Err(error) => return Err(error),
        }
    }
    let request = Request::new(GETRULE, DUMP, &[0; NFGENMSG]);
    let rules = socket.dump("nftables rules", &request, |rules: &mut Vec<Rule>, message| {
        if message.kind == NEWRULE {
            rules.push(parse(message)?);
        }
        Ok(())
    })?;
    Ok(judge(rules, chains, &Sets { judging, brief, maps }))
}

/// The findings of rules, with the ways that lead to each.
pub fn judge(mut rules: Vec<Rule>, chains: &BTreeSet<NftChain>, sets: &Sets) -> Vec<RuleFinding> {
    let mut graph = Graph::default();
    for chain in chains {
        let at = (chain.family.clone(), chain.table.clone(), chain.name.clone());
        graph.enter(at, Entrance::of(chain));
    }
    for rule in &mut rules {
        let (family, table, _) = &rule.chain;
        let set = |name: &String| Set {
            number: rule.number,
            table: table.clone(),
            name: name.clone(),
        };
        let is_judging = rule.sets.iter().any(|name| sets.judging.contains(&set(name)));
        let is_brief = rule.adds_to.iter().any(|name| sets.brief.contains(&set(name)));
        for (applies, name) in [(is_judging, "meter"), (is_brief, "brief set")] {
            if applies {
                rule.reading.see(Place::Expression, name);
            }
        }
        let maps: Vec<_> = rule.sets.iter().filter_map(|name| sets.maps.get(&set(name))).collect();
        if rule.has_map && (maps.is_empty() || maps.contains(&&None)) {
            graph.obscure(family, table);
        }
        for to in maps.into_iter().flatten().flatten() {
            let to = (family.clone(), table.clone(), to.clone());
            graph.jump(rule.chain.clone(), to, rule.reading.common.clone());
        }
        if let Some(to) = &rule.reading.jump {
            let to = (family.clone(), table.clone(), to.clone());
            graph.jump(rule.chain.clone(), to, rule.reading.common.clone());
        }
    }
    let found = rules.iter().filter(|rule| !rule.reading.is_plain());
    found
        .flat_map(|rule| rule.reading.findings(&graph, RuleSource::Nft, &rule.chain, rule.handle))
        .collect()
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set {
    /// Its table's family (`NFPROTO_*`).
    number: u8,
    table: String,
    name: String,
}

/// What matters of sets.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    /// Those whose elements limit by rate or amount: to look something up in one is to be judged.
    judging: BTreeSet<Set>,
    /// Those that keep what packets add for a moment only.
    brief: BTreeSet<Set>,
    /// Those that lead to verdicts, and the chains that are among them, if it is known.
    maps: BTreeMap<Set, Option<BTreeSet<String>>>,
}

impl Sets {
    /// Reads a set's message.
    pub fn note(&mut self, message: Message<'_>) -> Result<(), Malformed> {
        /// `NFT_DATA_VERDICT`
        const VERDICT: u32 = 0xffff_ff00;
        // NFTA_SET_DATA_TYPE, NFTA_SET_EXPR (one) and NFTA_SET_EXPRESSIONS (a list).
        let attrs = Attrs::after(message.payload, NFGENMSG)?;
        let set = Set::read(message, attrs)?;
        if is_rated(attrs, 17, 18)? {
            self.judging.insert(set.clone());
        }
        // NFTA_SET_TIMEOUT
        if attrs.find(11).map(Attr::be64).transpose()?.is_some_and(rule::is_brief) {
            self.brief.insert(set.clone());
        }
        if attrs.find(6).map(Attr::be32).transpose()? == Some(VERDICT) {
            self.maps.entry(set).or_default();
        }
        Ok(())
    }

    /// Reads a message with elements of a set.
    pub fn note_elements(&mut self, message: Message<'_>) -> Result<(), Malformed> {
        // NFTA_SET_ELEM_LIST_ELEMENTS; NFTA_SET_ELEM_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CHAIN
        let attrs = Attrs::after(message.payload, NFGENMSG)?;
        let set = Set::read(message, attrs)?;
        let targets = self.maps.entry(set).or_default().get_or_insert_default();
        for element in attrs.inside(3)?.iter() {
            let verdict = element.nested()?.inside(2)?.inside(2)?;
            targets.extend(verdict.find(2).map(Attr::text));
        }
        Ok(())
    }
}

impl Set {
    /// Which set a message is about.
    fn read(message: Message<'_>, attrs: Attrs<'_>) -> Result<Self, Malformed> {
        // NFTA_SET_TABLE and NFTA_SET_NAME, NFTA_SET_ELEM_LIST_TABLE and NFTA_SET_ELEM_LIST_SET.
        Ok(Self {
            number: message.payload[0],
            table: attrs.need(1, "the table")?.text(),
            name: attrs.need(2, "the set")?.text(),
        })
    }
}

fn terminated(text: &str) -> Vec<u8> {
    text.bytes().chain([0]).collect()
}

/// Whether a set, or a statement that adds to one, limits by rate or amount per element, or does what is not known:
/// `add @set { ip saddr limit rate 10/second }`. `one` is the attribute of a single expression, `list` of several.
fn is_rated(data: Attrs<'_>, one: u16, list: u16) -> Result<bool, Malformed> {
    for expression in data
        .iter()
        .filter(|attr| attr.kind == one)
        .chain(data.inside(list)?.iter())
    {
        let name = expression.nested()?.find(NFTA_EXPR_NAME).map(Attr::text);
        if name.is_some_and(|name| !matches!(name.as_str(), "counter" | "connlimit" | "last")) {
            return Ok(true);
        }
    }
    Ok(false)
}
