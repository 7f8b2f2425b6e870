//! Findings in nftables rules (`NFT_MSG_GETRULE`, `linux/netfilter/nf_tables.h`), iptables-nft's among them.

use std::collections::BTreeSet;

use super::table::Place;
use super::ways::{Entrance, Graph};
use crate::observe::nftables::{GETRULE, GETSET, NEWRULE, NEWSET, NFGENMSG, family};
use crate::observe::socket::{Asker, DUMP, NetlinkError};
use crate::observe::wire::{Attr, Attrs, Message, Request};
use crate::world::{NftChain, RuleFinding, RuleSource};

mod registers;
mod rule;
#[cfg(test)]
mod tests;

pub use rule::{Rule, parse};

const NFTA_EXPR_NAME: u16 = 1;

/// Looks through all rules of the socket's namespace.
pub fn findings(asker: &mut Asker, chains: &BTreeSet<NftChain>) -> Result<Vec<RuleFinding>, NetlinkError> {
    let request = Request::new(GETSET, DUMP, &[0; NFGENMSG]);
    let judging = asker.dump("nftables sets", &request, |sets: &mut BTreeSet<Set>, message| {
        if message.kind == NEWSET {
            sets.extend(judging_set(message));
        }
        Ok(())
    })?;
    let request = Request::new(GETRULE, DUMP, &[0; NFGENMSG]);
    let rules = asker.dump("nftables rules", &request, |rules: &mut Vec<Rule>, message| {
        if message.kind == NEWRULE {
            rules.extend(parse(message));
        }
        Ok(())
    })?;
    Ok(judge(rules, chains, &judging))
}

/// The findings of rules, with the ways that lead to each.
pub fn judge(mut rules: Vec<Rule>, chains: &BTreeSet<NftChain>, judging: &BTreeSet<Set>) -> Vec<RuleFinding> {
    let mut graph = Graph::default();
    for chain in chains {
        let at = (chain.family.clone(), chain.table.clone(), chain.name.clone());
        graph.enter(at, Entrance::of(chain));
    }
    for rule in &mut rules {
        let (family, table, _) = &rule.chain;
        let is_judging = |set: &String| judging.contains(&(family.clone(), table.clone(), set.clone()));
        if rule.sets.iter().any(is_judging) {
            rule.reading.see(Place::Expression, "meter");
        }
        if rule.has_map {
            graph.obscure(family, table);
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

/// A set: its family, its table, its name.
pub type Set = (String, String, String);

/// A set whose elements limit by rate or amount: to look something up in it is to be judged.
pub fn judging_set(message: Message<'_>) -> Option<Set> {
    // NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_EXPR (one) and NFTA_SET_EXPRESSIONS (a list).
    let attrs = Attrs::after(message.payload, NFGENMSG);
    is_rated(attrs, 17, 18)
        .then(|| {
            let family = family(*message.payload.first()?);
            Some((family, attrs.find(1)?.text(), attrs.find(2)?.text()))
        })
        .flatten()
}

/// Whether a set, or a statement that adds to one, limits by rate or amount per element, or does what is not known:
/// `add @set { ip saddr limit rate 10/second }`. `one` is the attribute of a single expression, `list` of several.
fn is_rated(data: Attrs<'_>, one: u16, list: u16) -> bool {
    let one = data.find(one).into_iter().map(Attr::nested);
    let list = data
        .find(list)
        .map_or(Attrs(&[]), Attr::nested)
        .iter()
        .map(Attr::nested);
    one.chain(list)
        .filter_map(|expression| expression.find(NFTA_EXPR_NAME))
        .any(|name| !matches!(name.text().as_str(), "counter" | "connlimit" | "last"))
}
