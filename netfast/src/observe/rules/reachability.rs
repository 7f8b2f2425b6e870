//! How packets get to a rule: from the hooks, through the jumps between chains.
//!
//! A rule in a chain of its own is met only by the packets that some chain sends there. What they have in common is
//! told only when it is plain; everything else counts as a way without conditions.

use std::collections::{BTreeSet, HashMap};

use crate::host::{NftChain, Way};

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
    /// They take the slow path whatever rules there are: of another protocol, a SYN, ...
    pub always_slow: bool,
    /// Their connection or conversation was not answered yet (`ct state new`). Of these only UDP may take the fast path.
    pub unreplied: bool,
    /// Their protocol, if it is one of those.
    pub protocol: Option<Protocol>,
}

/// A protocol of which not all packets may take the fast path: none before the first reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// ICMP of either family, and of that only echo.
    Icmp,
}

impl Common {
    /// Of packets that pass both rules; `None` if no packet does.
    fn and(&self, other: &Self) -> Option<Self> {
        let both = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.clone().or_else(|| b.clone())),
        };
        let protocol = match (self.protocol, other.protocol) {
            (Some(a), Some(b)) if a != b => return None,
            (a, b) => a.or(b),
        };
        Some(Self {
            iif: both(&self.iif, &other.iif)?,
            oif: both(&self.oif, &other.oif)?,
            always_slow: self.always_slow || other.always_slow,
            unreplied: self.unreplied || other.unreplied,
            protocol,
        })
    }

    /// Whether none of them is ever on the fast path.
    const fn is_slow(&self) -> bool {
        self.always_slow || (self.unreplied && self.protocol.is_some())
    }

    /// Those of a protocol among them. There are none of two protocols, which are slow like any others that there are not.
    pub fn narrow(&mut self, protocol: Protocol) {
        self.always_slow |= self.protocol.is_some_and(|known| known != protocol);
        self.protocol = Some(protocol);
    }
}

/// What a hook of the kernel sends into a chain, and what of it the fast path skips.
///
/// Of forwarded packets it skips every hook. A packet from a container to the host is handed to the bridge device
/// itself, so `ip_rcv`, prerouting and input run for each; the host's own packets are taken where they enter the bridge
/// device, behind output and postrouting. The bridge's own hooks and `br_netfilter` are skipped by either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entrance {
    /// What the fast path takes from rules here, and [`Aspect::Any`] where packets pass at all.
    pub takes: &'static [Aspect],
    /// What packets have in common that pass here.
    pub common: Common,
}

impl Entrance {
    /// Of a hook of IPv4, IPv6 or both (`NF_INET_*`), or of iptables.
    pub fn of_inet(hook: u32, is_nat: bool) -> Self {
        let takes: &[Aspect] = match hook {
            // Nat chains are asked about the first packet of each connection only (`nf_nat_inet_fn`).
            _ if is_nat => &[],
            // PRE_ROUTING, LOCAL_IN, LOCAL_OUT
            0 => &[Aspect::Any, Aspect::Packet, Aspect::Port, Aspect::Received],
            1 => &[Aspect::Any, Aspect::Port, Aspect::Received],
            3 => &[Aspect::Any, Aspect::Own],
            // POST_ROUTING
            4 => &[Aspect::Any, Aspect::Packet, Aspect::Own],
            _ => &[Aspect::Any, Aspect::Packet],
        };
        Self::plain(takes)
    }

    /// Of a hook of bridges (`NF_BR_*`), or of ebtables. What a bridge routes passes its input, too.
    pub fn of_bridge(hook: u32) -> Self {
        Self::plain(match hook {
            // PRE_ROUTING, LOCAL_IN, BROUTING
            0 | 1 | 5 => &[Aspect::Any, Aspect::Packet, Aspect::EarlyMark],
            _ => &[Aspect::Any, Aspect::Packet],
        })
    }

    /// Of a hook of a device: ingress, or else egress. A redirect by a tc program skips both
    /// (`CONFIG_NETFILTER_SKIP_EGRESS`).
    fn of_device(device: Option<String>, is_ingress: bool) -> Self {
        let (iif, oif) = if is_ingress { (device, None) } else { (None, device) };
        Self {
            takes: if is_ingress {
                &[Aspect::Any, Aspect::Packet, Aspect::EarlyMark, Aspect::Received]
            } else {
                &[Aspect::Any, Aspect::Packet, Aspect::Own]
            },
            common: Common {
                iif,
                oif,
                ..Common::default()
            },
        }
    }

    /// Of an nftables base chain.
    pub fn of(chain: &NftChain) -> Self {
        const NETDEV_INGRESS: u32 = 0;
        const INET_INGRESS: u32 = 5;
        match chain.family.as_str() {
            "netdev" => Self::of_device(chain.device.clone(), chain.hook == NETDEV_INGRESS),
            "inet" if chain.hook == INET_INGRESS => Self::of_device(chain.device.clone(), true),
            "bridge" => Self::of_bridge(chain.hook),
            "ip" | "ip6" | "inet" => Self::of_inet(chain.hook, chain.kind == "nat"),
            _ => Self::plain(&[Aspect::Any, Aspect::Packet]),
        }
    }

    fn plain(takes: &'static [Aspect]) -> Self {
        Self {
            takes,
            common: Common::default(),
        }
    }
}

/// What a rule needs that the fast path takes from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// Every packet.
    Packet,
    /// The bridge's port by which a packet for the host came.
    Port,
    /// To mark packets for the host before the host's own rules see them.
    EarlyMark,
    /// Every packet of the host's own: those of tunnels skip output and postrouting where their outer header is repeated.
    Own,
    /// Every packet for the host's own: those of tunnels skip prerouting and input where their outer header is taken off.
    Received,
    /// Nothing: the question is only whether it is met.
    Any,
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

    /// The ways to a rule by which the fast path takes from it what it needs: none, if only packets meet it that never
    /// are on the fast path, or that meet it there too.
    pub fn ways(&self, chain: &Chain, rule: &Common, aspect: Aspect) -> BTreeSet<Way> {
        let mut ways = BTreeSet::new();
        let mut seen = std::collections::HashSet::new();
        let mut left = vec![(chain.clone(), rule.clone())];
        while let Some((chain, common)) = left.pop() {
            if common.is_slow() || !seen.insert((chain.clone(), common.clone())) {
                continue;
            }
            if seen.len() > MOST {
                return [Self::way(rule, aspect)].into();
            }
            match self.entrances.get(&chain) {
                Some(entrance) if entrance.takes.contains(&aspect) => {
                    let common = common.and(&entrance.common);
                    // What a tunnel sends and receives is UDP.
                    let is_outer = matches!(aspect, Aspect::Own | Aspect::Received);
                    let common = common.filter(|common| !is_outer || common.protocol.is_none());
                    ways.extend(common.map(|common| Self::way(&common, aspect)));
                }
                None if self.unclear.contains(&(chain.0.clone(), chain.1.clone())) => {
                    ways.insert(Self::way(&common, aspect));
                }
                Some(_) | None => {}
            }
            let jumps = self.jumps.get(&chain).into_iter().flatten();
            left.extend(jumps.filter_map(|(from, passing)| Some((from.clone(), common.and(passing)?))));
        }
        ways
    }

    /// Whether packets that may be on the fast path meet a rule at all, skipped or not. A nat chain is met by none.
    pub fn is_met(&self, chain: &Chain, rule: &Common) -> bool {
        self.ways(chain, rule, Aspect::Any).iter().any(|way| !way.unreplied)
    }

    fn way(common: &Common, aspect: Aspect) -> Way {
        Way {
            host_only: aspect != Aspect::Packet,
            iif: common.iif.clone(),
            oif: common.oif.clone(),
            unreplied: common.unreplied,
            icmp: common.protocol == Some(Protocol::Icmp),
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
            ..Way::default()
        }
    }

    fn packets(graph: &Graph, to: &str, rule: &Common) -> BTreeSet<Way> {
        graph.ways(&chain(to), rule, Aspect::Packet)
    }

    fn graph() -> Graph {
        let mut graph = Graph::default();
        graph.enter(chain("FORWARD"), Entrance::of_inet(2, false));
        graph.enter(chain("INPUT"), Entrance::of_inet(1, false));
        graph.enter(chain("PREROUTING"), Entrance::of_inet(0, true));
        graph
    }

    #[test]
    fn conditions_add_up_along_a_way() {
        let mut graph = graph();
        let any = Common::default();
        graph.jump(chain("FORWARD"), chain("A"), from("br-1"));
        graph.jump(chain("A"), chain("B"), any.clone());
        assert_eq!(packets(&graph, "B", &any), [way(false, Some("br-1"))].into());
        assert_eq!(
            packets(&graph, "B", &from("br-2")),
            [].into(),
            "no packet comes from both"
        );
        graph.jump(chain("INPUT"), chain("B"), any.clone());
        assert_eq!(
            packets(&graph, "B", &any),
            [way(false, Some("br-1"))].into(),
            "input sees every packet"
        );
        let port = graph.ways(&chain("B"), &any, Aspect::Port);
        assert_eq!(port, [way(true, None)].into(), "but not the port of each");
        assert_eq!(packets(&graph, "FORWARD", &any), [way(false, None)].into());
    }

    #[test]
    fn what_no_packet_of_a_known_flow_meets_has_no_way() {
        let mut graph = graph();
        let any = Common::default();
        let syn = Common {
            always_slow: true,
            ..any.clone()
        };
        assert_eq!(packets(&graph, "FORWARD", &syn), [].into());
        graph.jump(chain("FORWARD"), chain("NEW"), syn);
        assert_eq!(packets(&graph, "NEW", &any), [].into());
        graph.jump(chain("PREROUTING"), chain("DNAT"), any.clone());
        assert_eq!(packets(&graph, "DNAT", &any), [].into());
        assert_eq!(packets(&graph, "UNUSED", &any), [].into());
    }

    #[test]
    fn what_only_unanswered_packets_meet_is_a_way_for_one_way_udp() {
        let mut graph = graph();
        let new = Common {
            unreplied: true,
            ..from("br-1")
        };
        let unreplied = Way {
            unreplied: true,
            ..way(false, Some("br-1"))
        };
        assert_eq!(packets(&graph, "FORWARD", &new), [unreplied.clone()].into());
        assert!(!graph.is_met(&chain("FORWARD"), &new), "by what was answered");
        let tcp = Common {
            protocol: Some(Protocol::Tcp),
            ..new.clone()
        };
        assert_eq!(packets(&graph, "FORWARD", &tcp), [].into());
        graph.jump(chain("FORWARD"), chain("NEW"), new);
        assert_eq!(packets(&graph, "NEW", &Common::default()), [unreplied].into());
        let tcp = Common {
            protocol: Some(Protocol::Tcp),
            ..Common::default()
        };
        assert_eq!(packets(&graph, "NEW", &tcp), [].into());
    }

    #[test]
    fn what_only_icmp_meets_is_a_way_for_echo_that_was_answered() {
        let mut graph = graph();
        let icmp = Common {
            protocol: Some(Protocol::Icmp),
            ..from("br-1")
        };
        let echo = Way {
            icmp: true,
            ..way(false, Some("br-1"))
        };
        assert_eq!(packets(&graph, "FORWARD", &icmp), [echo.clone()].into());
        graph.jump(chain("FORWARD"), chain("PING"), icmp.clone());
        assert_eq!(packets(&graph, "PING", &Common::default()), [echo].into());
        for other in [
            Common {
                unreplied: true,
                ..Common::default()
            },
            Common {
                protocol: Some(Protocol::Tcp),
                ..Common::default()
            },
        ] {
            assert_eq!(packets(&graph, "PING", &other), [].into(), "{other:?}");
        }
    }

    /// What a tunnel sends passes output and postrouting, and is UDP.
    #[test]
    fn what_the_host_itself_sends() {
        let mut graph = graph();
        graph.enter(chain("OUTPUT"), Entrance::of_inet(3, false));
        graph.enter(chain("POSTROUTING"), Entrance::of_inet(4, false));
        graph.enter(chain("NAT"), Entrance::of_inet(4, true));
        let own = |to: &str, rule: &Common| graph.ways(&chain(to), rule, Aspect::Own);
        let any = Common::default();
        for to in ["OUTPUT", "POSTROUTING"] {
            assert_eq!(own(to, &any), [way(true, None)].into(), "{to}");
        }
        for to in ["FORWARD", "INPUT", "PREROUTING", "NAT"] {
            assert_eq!(own(to, &any), [].into(), "{to}");
        }
        let new = Common {
            unreplied: true,
            ..Common::default()
        };
        assert_eq!(own("OUTPUT", &new).len(), 1, "an outer flow is never answered");
        for protocol in [Protocol::Tcp, Protocol::Icmp] {
            let of = Common {
                protocol: Some(protocol),
                ..Common::default()
            };
            assert_eq!(own("OUTPUT", &of), [].into(), "{protocol:?}");
        }
    }

    /// What a tunnel receives passes prerouting and input, and is UDP.
    #[test]
    fn what_the_host_itself_receives() {
        let mut graph = graph();
        graph.enter(chain("RAW"), Entrance::of_inet(0, false));
        graph.enter(chain("POSTROUTING"), Entrance::of_inet(4, false));
        graph.enter(chain("INGRESS"), Entrance::of_device(Some("eth0".into()), true));
        graph.enter(chain("EGRESS"), Entrance::of_device(Some("eth0".into()), false));
        let received = |to: &str, rule: &Common| graph.ways(&chain(to), rule, Aspect::Received);
        let any = Common::default();
        for to in ["INPUT", "RAW"] {
            assert_eq!(received(to, &any), [way(true, None)].into(), "{to}");
        }
        assert_eq!(received("INGRESS", &any), [way(true, Some("eth0"))].into());
        for to in ["FORWARD", "POSTROUTING", "PREROUTING", "EGRESS"] {
            assert_eq!(received(to, &any), [].into(), "{to}");
        }
        let new = Common {
            unreplied: true,
            ..Common::default()
        };
        assert_eq!(received("INPUT", &new).len(), 1, "an outer flow is never answered");
        let tcp = Common {
            protocol: Some(Protocol::Tcp),
            ..Common::default()
        };
        assert_eq!(received("INPUT", &tcp), [].into());
    }

    #[test]
    fn maps_may_lead_anywhere() {
        let mut graph = graph();
        graph.obscure("ip", "filter");
        assert_eq!(
            packets(&graph, "MAPPED", &from("br-1")),
            [way(false, Some("br-1"))].into()
        );
    }

    #[test]
    fn loops_and_thickets_end() {
        let mut graph = graph();
        let any = Common::default();
        graph.jump(chain("A"), chain("B"), any.clone());
        graph.jump(chain("B"), chain("A"), any.clone());
        assert_eq!(packets(&graph, "A", &any), [].into());
        for number in 0..2 * MOST {
            let name = format!("C{number}");
            graph.jump(chain("FORWARD"), chain(&name), from(&name));
            graph.jump(chain(&name), chain("ALL"), any.clone());
        }
        assert_eq!(packets(&graph, "ALL", &any), [way(false, None)].into());
    }

    /// The families' hooks, and what of them the fast path skips.
    #[test]
    fn hooks() {
        let entrance = |family: &str, kind: &str, hook| {
            let chain = NftChain {
                family: family.into(),
                table: "t".into(),
                name: "c".into(),
                kind: kind.into(),
                hook,
                priority: 0,
                device: Some("eth0".into()),
                policy_drop: false,
            };
            Entrance::of(&chain)
        };
        let told = |family, kind, hook| {
            let takes = entrance(family, kind, hook).takes;
            [Aspect::Packet, Aspect::Port, Aspect::EarlyMark].map(|aspect| takes.contains(&aspect))
        };
        for family in ["ip", "inet"] {
            assert_eq!(told(family, "filter", 0), [true, true, false], "prerouting");
            assert_eq!(told(family, "filter", 1), [false, true, false], "input");
            assert_eq!(told(family, "filter", 2), [true, false, false], "forward");
            assert_eq!(told(family, "filter", 3), [false, false, false], "output");
            assert_eq!(told(family, "route", 3), [false, false, false], "output");
            assert_eq!(told(family, "filter", 4), [true, false, false], "postrouting");
            assert_eq!(told(family, "nat", 0), [false, false, false], "nat");
        }
        for (hook, early) in [(0, true), (1, true), (2, false), (3, false), (4, false), (5, true)] {
            assert_eq!(
                told("bridge", "filter", hook),
                [true, false, early],
                "bridge hook {hook}"
            );
        }
        assert_eq!(told("netdev", "filter", 0), [true, false, true]);
        assert_eq!(told("netdev", "filter", 1), [true, false, false]);
        assert_eq!(told("inet", "filter", 5), [true, false, true], "inet ingress");
        assert_eq!(entrance("netdev", "filter", 0).common.iif.as_deref(), Some("eth0"));
        assert_eq!(entrance("netdev", "filter", 1).common.oif.as_deref(), Some("eth0"));
    }
}
