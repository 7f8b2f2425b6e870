//! How packets get to a rule: from the hooks, through the jumps between chains.
//!
//! A rule in a chain of its own is met only by the packets that some chain sends there. What they have in common is
//! told only when it is plain; everything else counts as a way without conditions.

use std::collections::{BTreeSet, HashMap};

use crate::world::{NftChain, Way};

/// Ways that are followed at most; a rule with more counts as one that any packet can meet.
const MOST: usize = 512;

/// A chain: its family, its table, its name.
pub type Chain = (String, String, String);

/// What all packets that pass a rule have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Common {
    /// The interface they come in by, if the rule asks for a certain one.
    pub iif: Option<String>,
    /// The interface they leave by, likewise.
    pub oif: Option<String>,
    /// They take the slow path whatever rules there are: neither TCP nor UDP, or the first of a connection.
    pub always_slow: bool,
}

impl Common {
    /// Of packets that pass both rules; `None` if no packet does.
    fn and(&self, other: &Self) -> Option<Self> {
        let both = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.clone().or_else(|| b.clone())),
        };
        Some(Self {
            iif: both(&self.iif, &other.iif)?,
            oif: both(&self.oif, &other.oif)?,
            always_slow: self.always_slow || other.always_slow,
        })
    }
}

/// What a hook of the kernel sends into a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// Packets that the host forwards, and its own.
    Any,
    /// The host's own packets only.
    Host,
    /// The first packet of each connection only, which is what nat chains are asked about (`nf_nat_inet_fn`).
    First,
}

impl Entrance {
    /// Of an nftables base chain.
    pub fn of(chain: &NftChain) -> Self {
        // NF_INET_LOCAL_IN and NF_INET_LOCAL_OUT. On a bridge what is routed onwards passes its input, too.
        let own = [1, 3].contains(&chain.hook) && ["ip", "ip6", "inet"].contains(&chain.family.as_str());
        match chain.kind.as_str() {
            "nat" => Self::First,
            _ if own => Self::Host,
            _ => Self::Any,
        }
    }
}

/// The chains of a rule set, and how they lead to each other.
#[derive(Debug, Default)]
pub struct Graph {
    entrances: HashMap<Chain, Entrance>,
    /// The rules that lead to a chain: where they are, and what passes them.
    jumps: HashMap<Chain, Vec<(Chain, Common)>>,
    /// Tables in which a map leads to chains, so that not all jumps are known.
    unclear: BTreeSet<(String, String)>,
}

impl Graph {
    /// A chain that a hook leads to.
    pub fn enter(&mut self, chain: Chain, entrance: Entrance) {
        self.entrances.insert(chain, entrance);
    }

    /// A rule that leads from one chain to another.
    pub fn jump(&mut self, from: Chain, to: Chain, common: Common) {
        self.jumps.entry(to).or_default().push((from, common));
    }

    /// Not all jumps of a table are known.
    pub fn obscure(&mut self, family: &str, table: &str) {
        self.unclear.insert((family.into(), table.into()));
    }

    /// The ways to a rule, for packets that may be on the fast path otherwise: none, if only packets meet it that never
    /// are.
    pub fn ways(&self, chain: &Chain, rule: &Common) -> BTreeSet<Way> {
        let mut ways = BTreeSet::new();
        let mut seen = std::collections::HashSet::new();
        let mut left = vec![(chain.clone(), rule.clone())];
        while let Some((chain, common)) = left.pop() {
            if common.always_slow || !seen.insert((chain.clone(), common.clone())) {
                continue;
            }
            if seen.len() > MOST {
                return [Self::unknown(rule)].into();
            }
            let entrance = self.entrances.get(&chain);
            match entrance {
                Some(Entrance::First) => {}
                Some(entrance) => {
                    ways.insert(Way {
                        host_only: *entrance == Entrance::Host,
                        iif: common.iif.clone(),
                        oif: common.oif.clone(),
                    });
                }
                None if self.unclear.contains(&(chain.0.clone(), chain.1.clone())) => {
                    ways.insert(Self::unknown(&common));
                }
                None => {}
            }
            let jumps = self.jumps.get(&chain).into_iter().flatten();
            left.extend(jumps.filter_map(|(from, passing)| Some((from.clone(), common.and(passing)?))));
        }
        ways
    }

    fn unknown(common: &Common) -> Way {
        Way {
            host_only: false,
            iif: common.iif.clone(),
            oif: common.oif.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str) -> Chain {
        ("ip".into(), "filter".into(), name.into())
    }

    fn from(iif: &str) -> Common {
        Common {
            iif: Some(iif.into()),
            ..Common::default()
        }
    }

    fn way(host_only: bool, iif: Option<&str>) -> Way {
        Way {
            host_only,
            iif: iif.map(Into::into),
            oif: None,
        }
    }

    fn graph() -> Graph {
        let mut graph = Graph::default();
        graph.enter(chain("FORWARD"), Entrance::Any);
        graph.enter(chain("INPUT"), Entrance::Host);
        graph.enter(chain("PREROUTING"), Entrance::First);
        graph
    }

    #[test]
    fn conditions_add_up_along_a_way() {
        let mut graph = graph();
        let any = Common::default();
        graph.jump(chain("FORWARD"), chain("A"), from("br-1"));
        graph.jump(chain("A"), chain("B"), any.clone());
        assert_eq!(graph.ways(&chain("B"), &any), [way(false, Some("br-1"))].into());
        assert_eq!(
            graph.ways(&chain("B"), &from("br-2")),
            [].into(),
            "no packet comes from both"
        );
        graph.jump(chain("INPUT"), chain("B"), any.clone());
        let both = [way(false, Some("br-1")), way(true, None)];
        assert_eq!(graph.ways(&chain("B"), &any), both.into());
        assert_eq!(graph.ways(&chain("FORWARD"), &any), [way(false, None)].into());
    }

    #[test]
    fn what_no_packet_of_a_known_flow_meets_has_no_way() {
        let mut graph = graph();
        let any = Common::default();
        let syn = Common {
            always_slow: true,
            ..any.clone()
        };
        assert_eq!(graph.ways(&chain("FORWARD"), &syn), [].into());
        graph.jump(chain("FORWARD"), chain("NEW"), syn);
        assert_eq!(graph.ways(&chain("NEW"), &any), [].into());
        graph.jump(chain("PREROUTING"), chain("DNAT"), any.clone());
        assert_eq!(graph.ways(&chain("DNAT"), &any), [].into());
        assert_eq!(graph.ways(&chain("UNUSED"), &any), [].into());
    }

    #[test]
    fn maps_may_lead_anywhere() {
        let mut graph = graph();
        graph.obscure("ip", "filter");
        assert_eq!(
            graph.ways(&chain("MAPPED"), &from("br-1")),
            [way(false, Some("br-1"))].into()
        );
    }

    #[test]
    fn loops_and_thickets_end() {
        let mut graph = graph();
        let any = Common::default();
        graph.jump(chain("A"), chain("B"), any.clone());
        graph.jump(chain("B"), chain("A"), any.clone());
        assert_eq!(graph.ways(&chain("A"), &any), [].into());
        for number in 0..2 * MOST {
            let name = format!("C{number}");
            graph.jump(chain("FORWARD"), chain(&name), from(&name));
            graph.jump(chain(&name), chain("ALL"), any.clone());
        }
        assert_eq!(graph.ways(&chain("ALL"), &any), [way(false, None)].into());
    }
}
