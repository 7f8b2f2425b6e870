//! A rule while it is read, in whatever form: what is found in it, whom it meets, and what it does.

use std::collections::BTreeSet;

use super::reachability::{Aspect, Chain, Common, Graph, Protocol};
use super::table::{Class, Known, Place, UNKNOWN, find};
use super::xt::{Answer, Changes, ask, changes};
use crate::host::{RuleFinding, RuleSource, Severity, Verdict, Way};

/// Why a rule that does nothing but log or count keeps nobody slow.
const ONLY_LOGS: &str = "decides only which packets are logged or counted, of those on the slow path";
/// Why one in a chain of the host itself keeps nobody slow.
const SEES_ALL: &str = "sees every packet: the fast path does not take it past the host's own input and output";

/// Expressions that do something to a packet or to later ones. What ends in a verdict is told by it.
const ACTING: [&str; 12] = [
    "dynset",
    "dup",
    "fwd",
    "tproxy",
    "synproxy",
    "notrack",
    "flow_offload",
    "masq",
    "nat",
    "redir",
    "queue",
    "reject",
];

/// What was found in a rule.
#[derive(Clone, Debug)]
struct Found {
    what: &'static str,
    class: Class,
    reason: &'static str,
    aspect: Aspect,
    /// What packets have in common that come as far as to it, if it depends on them.
    here: Option<Common>,
    /// Whether it depends on nothing but ICMP.
    icmp_only: bool,
}

/// What has been read of a rule.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What is found in it.
    found: Vec<Found>,
    /// Matches and targets by name, in order.
    pub words: Vec<String>,
    /// What all packets that pass it have in common.
    pub common: Common,
    /// What it ends in.
    pub verdict: Verdict,
    /// The chain that it leads to.
    pub jump: Option<String>,
    /// Whether it does more than to log or count.
    pub acts: bool,
    /// Whether it is in a table of bridges or of a device, where packets for the host pass before the host's own rules.
    is_early: bool,
}

impl Reading {
    /// Of a rule whose packets have this in common.
    pub fn new(common: Common, is_early: bool) -> Self {
        Self {
            common,
            is_early,
            ..Self::default()
        }
    }

    /// Something that judges, known by `what`.
    pub fn judges(&mut self, what: &'static str, reason: &'static str) {
        self.add(what, Class::Judges, reason);
    }

    /// The same, but of no packets but ICMP's.
    pub fn judges_icmp(&mut self, what: &'static str, reason: &'static str) {
        self.found.push(Found {
            what,
            class: Class::Judges,
            reason,
            aspect: Aspect::Packet,
            here: None,
            icmp_only: true,
        });
    }

    /// A name of nftables; a row that depends is the caller's business.
    pub fn see(&mut self, place: Place, name: &str) {
        match find(place, name) {
            Some(known) => self.know(known),
            None => self.unknown(place, name),
        }
    }

    /// A name that is not in the table.
    pub fn unknown(&mut self, place: Place, name: &str) {
        let what = match place {
            Place::Match => "unknown match",
            Place::Target => "unknown target",
            Place::Expression => "unknown expression",
            Place::Meta | Place::MetaSet => "unknown meta key",
            Place::Ct | Place::CtSet => "unknown ct key",
            Place::Extension => "unknown extension header",
            Place::Object => "unknown object",
        };
        self.acts |= matches!(place, Place::Target | Place::MetaSet | Place::CtSet | Place::Object);
        if !matches!(place, Place::Match | Place::Target) {
            self.words.push(name.to_owned());
        }
        self.add(what, Class::Acts, UNKNOWN);
    }

    /// A match or target of iptables or ebtables. `info` is its own structure, as the kernel has it.
    pub fn see_xt(&mut self, place: Place, name: &str, revision: u8, info: &[u8]) {
        let Some(known) = find(place, name) else {
            self.unknown(place, name);
            return;
        };
        match changes(place, name, revision, info) {
            Some(Changes::Toggles) => self.see(Place::Expression, "toggle"),
            Some(Changes::Brief) => self.see(Place::Expression, "brief set"),
            None => {}
        }
        if known.row.class != Class::Depends {
            self.know(known);
            return;
        }
        match (place, ask(place, name, revision, info)) {
            (Place::Target, answer) => {
                self.acts = true;
                let class = if answer == Answer::Judges {
                    Class::Acts
                } else {
                    Class::Excluded
                };
                self.add(known.what(), class, known.row.reason);
            }
            (_, Answer::Judges) => self.judges(known.what(), known.row.reason),
            (_, Answer::SlowOnly) => self.common.always_slow = true,
            (_, Answer::Unreplied) => self.common.unreplied = true,
            (_, Answer::Icmp) => self.common.narrow(Protocol::Icmp),
            (_, Answer::Repeatable) => {}
        }
    }

    /// What an entry of the table says.
    fn know(&mut self, known: Known) {
        let (what, class, reason) = (known.what(), known.row.class, known.row.reason);
        let logs = ["log", "nflog", "notice", "trace"].contains(&what);
        self.acts |= matches!(known.row.place, Place::Target | Place::MetaSet | Place::CtSet) && !logs;
        self.acts |= known.row.place == Place::Expression && ACTING.contains(&known.name);
        self.common.always_slow |= class == Class::SlowOnly;
        if class.severity().is_some() {
            self.add(what, class, reason);
        }
        if what == "mark" && self.is_early {
            let lost = "marks packets before the host's own rules see them; on the fast path to the host it does not";
            self.found.push(Found {
                what: "early mark",
                class: Class::Bridged,
                reason: lost,
                aspect: Aspect::EarlyMark,
                here: None,
                icmp_only: false,
            });
        }
    }

    fn add(&mut self, what: &'static str, class: Class, reason: &'static str) {
        let aspect = if class == Class::Bridged {
            Aspect::Port
        } else {
            Aspect::Packet
        };
        let here = matches!(class, Class::Counts | Class::Acts).then(|| self.common.clone());
        if self.found.iter().any(|found| found.what == what && found.here == here) {
            return;
        }
        self.found.push(Found {
            what,
            class,
            reason,
            aspect,
            here,
            icmp_only: false,
        });
    }

    /// A verdict, and its word.
    pub fn decide(&mut self, verdict: Verdict, word: impl Into<String>) {
        self.verdict = verdict;
        self.acts = true;
        self.words.push(word.into());
    }

    /// The findings, with the ways that lead to each.
    pub fn findings(&self, graph: &Graph, source: RuleSource, chain: &Chain, rule: u64) -> Vec<RuleFinding> {
        let findings = self.found.iter().filter_map(|found| {
            let common = found.here.as_ref().unwrap_or(&self.common);
            let mut common = common.clone();
            if found.icmp_only {
                common.narrow(Protocol::Icmp);
            }
            let common = &common;
            let mut severity = found.class.severity()?;
            let ways = graph.ways(chain, common, found.aspect);
            let judges = severity == Severity::SlowPath && (self.acts || found.class == Class::Acts);
            let outer = |aspect| {
                if judges {
                    graph.ways(chain, common, aspect)
                } else {
                    BTreeSet::new()
                }
            };
            let (own, received) = (outer(Aspect::Own), outer(Aspect::Received));
            let mut reason = found.reason;
            if ways.is_empty() && found.class == Class::Bridged {
                return None;
            }
            if !self.acts && matches!(found.class, Class::Judges | Class::Counts | Class::Bridged) {
                (severity, reason) = (Severity::Note, ONLY_LOGS);
            } else if severity == Severity::SlowPath && ways.is_empty() && graph.is_met(chain, common) {
                (severity, reason) = (Severity::Note, SEES_ALL);
            } else if severity == Severity::SlowPath && !ways.is_empty() {
                severity = Self::slow_for(&ways);
            }
            // Rules about ports are many, and few are of protocols that are not told.
            if found.icmp_only && (severity == Severity::Note || ways.is_empty()) {
                return None;
            }
            Some(RuleFinding {
                source,
                family: chain.0.clone(),
                table: chain.1.clone(),
                chain: chain.2.clone(),
                rule,
                what: found.what,
                severity,
                reason,
                iif: self.common.iif.clone(),
                oif: self.common.oif.clone(),
                ways,
                own,
                received,
                verdict: self.verdict,
                text: self.words.join(" "),
            })
        });
        findings.collect()
    }

    /// How much one that must see every packet stands against the fast path, by the ways that lead to it.
    fn slow_for(ways: &BTreeSet<Way>) -> Severity {
        if ways.iter().all(|way| way.unreplied) {
            Severity::SlowUnreplied
        } else if ways.iter().all(|way| way.unreplied || way.icmp) {
            Severity::SlowEcho
        } else {
            Severity::SlowPath
        }
    }

    /// Whether there is nothing to find.
    pub fn is_plain(&self) -> bool {
        self.found.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::reachability::Entrance;
    use super::super::table::rows;
    use super::*;

    /// What a rule of these parts in FORWARD comes to: the severity of the worst finding.
    fn judged(build: impl FnOnce(&mut Reading)) -> Option<Severity> {
        let chain: Chain = ("ip".into(), "filter".into(), "FORWARD".into());
        let mut graph = Graph::default();
        graph.enter(chain.clone(), Entrance::of_inet(2, false));
        let mut reading = Reading::default();
        build(&mut reading);
        let findings = reading.findings(&graph, RuleSource::Nft, &chain, 1);
        let found = |severity| findings.iter().any(|finding| finding.severity == severity);
        [Severity::SlowPath, Severity::SelfExcluding, Severity::Note]
            .into_iter()
            .find(|severity| found(*severity))
    }

    /// Each name of the table, with a verdict behind it.
    #[test]
    fn every_row_comes_to_what_it_says() {
        for row in rows() {
            for name in row.names {
                let got = judged(|rule| {
                    rule.see(row.place, name);
                    rule.decide(Verdict::Drop, "drop");
                });
                let expected = if row.class == Class::Bridged {
                    None
                } else {
                    row.class.severity()
                };
                assert_eq!(got, expected, "{} {name}", row.place.name());
            }
        }
    }

    #[test]
    fn what_is_not_in_the_table_judges() {
        for place in [
            Place::Match,
            Place::Target,
            Place::Expression,
            Place::Meta,
            Place::CtSet,
            Place::Object,
        ] {
            assert_eq!(
                judged(|rule| rule.see(place, "novelty")),
                Some(Severity::SlowPath),
                "{place:?}"
            );
        }
        assert_eq!(
            judged(|rule| rule.see_xt(Place::Match, "novelty", 0, &[])),
            Some(Severity::SlowPath)
        );
    }

    #[test]
    fn a_limit_on_logging_is_no_limit_on_packets() {
        let with = |target: &str| {
            judged(|rule| {
                rule.see(Place::Match, "limit");
                rule.see(Place::Target, target);
            })
        };
        for target in ["LOG", "NFLOG", "log", "AUDIT"] {
            assert_eq!(with(target), Some(Severity::Note), "{target}");
        }
        for target in ["MARK", "REJECT", "CATALOG", "TEE", "CT"] {
            assert_eq!(with(target), Some(Severity::SlowPath), "{target}");
        }
        assert_eq!(
            judged(|rule| rule.see(Place::Match, "ecn")),
            Some(Severity::Note),
            "only counts"
        );
        let both = judged(|rule| {
            rule.see(Place::Match, "ecn");
            rule.see(Place::Expression, "log");
            rule.decide(Verdict::Drop, "drop");
        });
        assert_eq!(both, Some(Severity::SlowPath));
    }

    /// `limit` counts every packet that comes as far as to it, so what stands behind it does not matter.
    #[test]
    fn what_counts_depends_on_what_is_before_it() {
        let limited = |first: &str, second: &str| {
            let chain: Chain = ("ip".into(), "filter".into(), "FORWARD".into());
            let mut graph = Graph::default();
            graph.enter(chain.clone(), Entrance::of_inet(2, false));
            let mut rule = Reading::default();
            rule.see(Place::Match, first);
            rule.see(Place::Match, second);
            rule.decide(Verdict::Drop, "drop");
            rule.findings(&graph, RuleSource::Nft, &chain, 1)
                .iter()
                .any(|finding| !finding.ways.is_empty())
        };
        assert!(!limited("sctp", "limit") && limited("limit", "sctp"));
        assert!(
            !limited("sctp", "ecn") && !limited("ecn", "sctp"),
            "no memory, no matter"
        );
    }
}
