//! What is known of the packet filter: enough to notice a change, and to find rules that a cache cannot repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

/// The rules of nftables (which includes iptables-nft), iptables-legacy and ebtables-legacy, as stamps and findings.
///
/// Two equal values mean: no rule was added, removed or replaced in between. Counters do not enter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ruleset {
    /// The nftables generation, which the kernel counts up with every transaction; `None` without `nf_tables`.
    pub nft_generation: Option<u32>,
    /// The nftables base chains: who is asked for a verdict, and where.
    pub nft_chains: BTreeSet<NftChain>,
    /// A hash per table of iptables-legacy and ebtables-legacy, by `ip/NAME`, `ip6/NAME` or `bridge/NAME`, counters left out.
    /// Comparable within one run.
    pub legacy: BTreeMap<String, u64>,
    /// The NFQUEUE queues that a program listens on.
    pub nfqueue_bound: BTreeSet<u16>,
    /// Rules whose verdict on one packet says little about the next.
    pub findings: Vec<RuleFinding>,
    /// Set when the rules could not be read whole; then their findings are not complete. In words.
    pub unreadable: Option<String>,
}

/// An nftables base chain (one that is hooked).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NftChain {
    /// The address family: `ip`, `ip6`, `inet`, `arp`, `bridge`, `netdev`.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub name: String,
    /// Its type: `filter`, `nat` or `route`.
    pub kind: String,
    /// The hook's number in its family (`NF_INET_*`, `NF_BR_*`, `NF_NETDEV_*`).
    pub hook: u32,
    /// The priority at the hook; lower is asked first.
    pub priority: i32,
    /// The device, for a chain of one device (netdev family, ingress hook); `None` if it is of several.
    pub device: Option<String>,
    /// Whether the chain drops what no rule of it decided.
    pub policy_drop: bool,
}

/// Which rule set a rule is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleSource {
    /// nftables or iptables-nft.
    Nft,
    /// iptables-legacy.
    Legacy,
}

/// How much a rule stands against repeating its verdict for the packets that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Harmless to the traffic: the rule only sees fewer packets (log, counters).
    Note,
    /// The traffic is treated otherwise than the rule means when its flows are taken from it (limit, quota).
    SlowPath,
    /// It judges only what was not answered yet, in the same sense: one-way UDP must not be taken from it.
    SlowUnreplied,
    /// It judges ICMP only, or what was not answered yet as well, in the same sense: echo must not be taken from it.
    SlowEcho,
    /// The data path recognises it by itself: such packets do not come out again as they went in (NFQUEUE, TPROXY).
    SelfExcluding,
}

/// What the rule ends in, as far as it is plain to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No verdict, or none that was recognised.
    #[default]
    None,
    /// Let through.
    Accept,
    /// Dropped or rejected.
    Drop,
    /// On to another chain, by name.
    Jump,
    /// Back to the calling chain.
    Return,
    /// A queue.
    Queue,
}

/// A way to a rule, from a hook through the chains in between: what all packets that come by it have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Way {
    /// They are sent by the host itself, or to it.
    pub host_only: bool,
    /// The interface they come in by, if it must be a certain one.
    pub iif: Option<String>,
    /// The interface they leave by, likewise.
    pub oif: Option<String>,
    /// Nobody has answered them yet: of these only UDP that is sent one way may be on the fast path.
    pub unreplied: bool,
    /// They are ICMP: of these only echo that was answered may be on the fast path.
    pub icmp: bool,
}

/// A rule that a cached verdict cannot repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RuleFinding {
    /// Which rule set.
    pub source: RuleSource,
    /// `ip`, `ip6`, `inet`, `arp`, `bridge`, `netdev`.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain; for iptables-legacy the hook or the user's chain.
    pub chain: String,
    /// The kernel's number of the rule: the nftables handle, or its place in the legacy chain, from 1.
    pub rule: u64,
    /// What it does or looks at: `limit`, `nfqueue`, `ip ecn`, `unknown match`, ... (from the table of what rules are made of).
    pub what: &'static str,
    /// How much it stands against the fast path.
    pub severity: Severity,
    /// Why, for people.
    pub reason: &'static str,
    /// The incoming interface that the rule asks for, when it does so plainly (equality, no negation).
    pub iif: Option<String>,
    /// The outgoing interface, likewise.
    pub oif: Option<String>,
    /// How packets get to it.
    pub ways: BTreeSet<Way>,
    /// How packets get to it that the host itself sends, as what a tunnel makes of others: where outer headers are repeated it
    /// would not see each of them. TCP and ICMP are none of them.
    pub own: BTreeSet<Way>,
    /// How packets get to it that the host itself receives, as a tunnel's outer ones: where outer headers are taken off it would not
    /// see each of them. TCP and ICMP are none of them.
    pub received: BTreeSet<Way>,
    /// What it ends in.
    pub verdict: Verdict,
    /// The rule in short: matches and targets by name, in order.
    pub text: String,
}

impl RuleFinding {
    /// Where it is: nftables' rules by their handle (`nft -a list chain`), which is no place in the chain.
    pub fn place(&self) -> String {
        let what = match self.source {
            RuleSource::Nft => "handle",
            RuleSource::Legacy => "rule",
        };
        format!("{} {} {} {what} {}", self.family, self.table, self.chain, self.rule)
    }
}

impl fmt::Display for RuleFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.place(), self.what, self.text)
    }
}

/// Kernel switches that matter to forwarding, of the observed namespace. `None`: the switch does not exist there
/// (its module is not loaded).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sysctls {
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    pub ipv6_forwarding: Option<bool>,
    /// `net.bridge.bridge-nf-call-iptables`.
    pub bridge_nf_call_iptables: Option<bool>,
    /// `net.bridge.bridge-nf-call-ip6tables`.
    pub bridge_nf_call_ip6tables: Option<bool>,
    /// `net.netfilter.nf_conntrack_tcp_be_liberal`.
    pub conntrack_tcp_be_liberal: Option<bool>,
    /// `net.netfilter.nf_conntrack_tcp_ignore_invalid_rst`.
    pub conntrack_tcp_ignore_invalid_rst: Option<bool>,
    /// `net.netfilter.nf_conntrack_acct`: each connection's packets and bytes are counted.
    pub conntrack_acct: Option<bool>,
    /// `net.netfilter.nf_conntrack_udp_timeout`, in seconds.
    pub conntrack_udp_timeout: Option<u32>,
    /// `net.netfilter.nf_conntrack_udp_timeout_stream`, in seconds.
    pub conntrack_udp_timeout_stream: Option<u32>,
    /// `net.netfilter.nf_conntrack_icmp_timeout`, in seconds.
    pub conntrack_icmp_timeout: Option<u32>,
    /// `net.netfilter.nf_conntrack_icmpv6_timeout`, in seconds.
    pub conntrack_icmpv6_timeout: Option<u32>,
    /// `net.ipv4.conf.all.rp_filter`: 0 off, 1 strict, 2 loose.
    pub rp_filter_all: Option<u32>,
    /// `net.ipv4.conf.all.route_localnet`.
    pub route_localnet_all: Option<bool>,
    /// `net.core.netdev_max_backlog`, in packets; of the whole machine.
    pub netdev_max_backlog: Option<u32>,
}

impl Sysctls {
    /// Whom `br_netfilter` shows the packets within every bridge: `iptables` or `ip6tables`, if anybody.
    pub fn bridged_shown_to(&self) -> Option<&'static str> {
        let switches = [
            ("iptables", self.bridge_nf_call_iptables),
            ("ip6tables", self.bridge_nf_call_ip6tables),
        ];
        switches
            .into_iter()
            .find_map(|(name, on)| (on == Some(true)).then_some(name))
    }

    /// Whether conntrack is to count each packet, and may not lag behind (key `allow_accounting`).
    pub fn counts_each_packet(&self, allow_accounting: bool) -> bool {
        self.conntrack_acct == Some(true) && !allow_accounting
    }

    /// Those that the kernel's verdict on a packet may depend on; the others, of which netfast sets one itself, are
    /// `None`.
    #[must_use]
    pub const fn of_verdicts(self) -> Self {
        Self {
            conntrack_tcp_be_liberal: None,
            conntrack_tcp_ignore_invalid_rst: None,
            conntrack_acct: None,
            conntrack_udp_timeout: None,
            conntrack_udp_timeout_stream: None,
            conntrack_icmp_timeout: None,
            conntrack_icmpv6_timeout: None,
            netdev_max_backlog: None,
            ..self
        }
    }
}
