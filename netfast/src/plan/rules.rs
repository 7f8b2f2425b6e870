//! Rules that judge each packet anew (limit, quota, statistic, …): the fast path would show them one packet per
//! second of a flow. The policy is conservative: the networks that such a rule may concern stay slow.
//!
//! NFQUEUE rules do not appear here: queued flows are never learned.

use crate::{
    config::Config,
    host::{Link, LinkKind, Namespace, RuleFinding, Severity, Way},
    plan::uplinks::has_way_out,
};

/// The rules found that a verdict for one packet does not speak for.
pub struct RateRules<'a> {
    /// Those that packets meet which may be on the fast path.
    met: Vec<Met<'a>>,
    /// The same of those that meet no packet but IPv6's.
    met6: Vec<Met<'a>>,
    /// Those that only packets meet, of either family, which were not answered yet.
    unreplied: Vec<Met<'a>>,
    /// Those that only ICMP meets, of either family.
    icmp: Vec<Met<'a>>,
    /// Those that meet what the host itself sends by UDP.
    own: Vec<Met<'a>>,
    /// Those that meet what the host itself receives by UDP.
    received: Vec<Met<'a>>,
}

/// A rule, with one way that leads to it.
type Met<'a> = (&'a RuleFinding, &'a Way);

impl<'a> RateRules<'a> {
    /// Sorts the findings.
    pub fn judge(netns: &'a Namespace, config: &Config) -> Self {
        let findings = netns.ruleset.findings.iter();
        let judging = findings.filter(|finding| {
            // ARP is never accelerated.
            let judges = matches!(
                finding.severity,
                Severity::SlowPath | Severity::SlowUnreplied | Severity::SlowEcho
            );
            judges && finding.family != "arp" && !config.allow_rate_rules
        });
        let own = netns.ruleset.findings.iter().filter(|_| !config.allow_rate_rules);
        let own = own
            .flat_map(|finding| finding.own.iter().map(move |way| (finding, way)))
            .collect();
        let received = netns.ruleset.findings.iter().filter(|_| !config.allow_rate_rules);
        let received = received
            .flat_map(|finding| finding.received.iter().map(move |way| (finding, way)))
            .collect();
        let ways = judging.flat_map(|finding| finding.ways.iter().map(move |way| (finding, way)));
        let (unreplied, replied): (Vec<_>, Vec<_>) = ways.partition(|(_, way)| way.unreplied);
        let (icmp, all): (Vec<_>, Vec<_>) = replied.into_iter().partition(|(_, way)| way.icmp);
        let (met6, met) = all.into_iter().partition(|(finding, _)| finding.family == "ip6");
        Self {
            met,
            met6,
            unreplied,
            icmp,
            own,
            received,
        }
    }

    /// A rule that packets meet which a tunnel sends by one of these interfaces.
    pub fn concerning_tunnels(&self, uplinks: &[&str]) -> Option<&'a RuleFinding> {
        let is_one = |name: &str| name.ends_with(['*', '+']) || uplinks.contains(&name);
        let found = self.own.iter().find(|(finding, way)| {
            let is_by_one = way.oif.as_deref().is_none_or(is_one);
            // What comes in by an interface is not the host's own.
            is_by_one && way.iif.is_none() && finding.family != "ip6"
        });
        Some(found?.0)
    }

    /// A rule that packets meet which come in by one of these interfaces for a tunnel.
    pub fn concerning_way_in(&self, uplinks: &[&str]) -> Option<&'a RuleFinding> {
        let is_one = |name: &str| name.ends_with(['*', '+']) || uplinks.contains(&name);
        let found = self.received.iter().find(|(finding, way)| {
            // What leaves by an interface is not for the host.
            way.iif.as_deref().is_none_or(is_one) && way.oif.is_none() && finding.family != "ip6"
        });
        Some(found?.0)
    }

    /// The rules that meet IPv6 alone, in the place of those that meet IPv4.
    #[must_use]
    pub fn of_ipv6_alone(&self) -> Self {
        Self {
            met: self.met6.clone(),
            met6: Vec::new(),
            unreplied: Vec::new(),
            icmp: Vec::new(),
            own: Vec::new(),
            received: Vec::new(),
        }
    }

    /// A rule that judges what containers of this bridge send or get before there is an answer. One of IPv6 alone counts for both
    /// families: a device has one flag for one-way UDP.
    pub fn concerning_unreplied(&self, netns: &Namespace, bridge: &Link) -> Option<&'a RuleFinding> {
        forwarded(&self.unreplied, netns, bridge).or_else(|| of_host(&self.unreplied, netns, bridge))
    }

    /// A rule that judges the ICMP of containers of this bridge. One of IPv6 alone counts for both families: a device has one flag
    /// for echo.
    pub fn concerning_icmp(&self, netns: &Namespace, bridge: &Link) -> Option<&'a RuleFinding> {
        forwarded(&self.icmp, netns, bridge).or_else(|| of_host(&self.icmp, netns, bridge))
    }

    /// A rule that packets between the host and the containers of this bridge meet.
    pub fn concerning_host(&self, netns: &Namespace, bridge: &Link) -> Option<&'a RuleFinding> {
        of_host(&self.met, netns, bridge)
    }

    /// A rule that any forwarded packet may meet, or that judges some by their kind: whoever sends it and whatever it is.
    pub fn concerning_any_forwarded(&self) -> Option<&'a RuleFinding> {
        let mut all = [&self.met, &self.met6, &self.unreplied, &self.icmp]
            .into_iter()
            .flatten();
        Some(all.find(|(_, way)| !way.host_only)?.0)
    }

    /// A rule that forwarded packets of this bridge may meet.
    pub fn concerning(&self, netns: &Namespace, bridge: &Link) -> Option<&'a RuleFinding> {
        forwarded(&self.met, netns, bridge)
    }
}

/// One that packets between the host and the containers of a bridge meet.
fn of_host<'a>(met: &[Met<'a>], netns: &Namespace, bridge: &Link) -> Option<&'a RuleFinding> {
    let is_own = |name: &Option<String>| {
        name.as_deref()
            .is_none_or(|name| role(netns, bridge, name) == Role::Own)
    };
    let mut met = met.iter().filter(|(_, way)| way.host_only);
    Some(met.find(|(_, way)| is_own(&way.iif) && is_own(&way.oif))?.0)
}

/// One that forwarded packets of a bridge may meet.
fn forwarded<'a>(met: &[Met<'a>], netns: &Namespace, bridge: &Link) -> Option<&'a RuleFinding> {
    let role = |name: &Option<String>| name.as_deref().map(|name| role(netns, bridge, name));
    let mut met = met.iter().filter(|(_, way)| !way.host_only);
    let found = met.find(|(_, way)| {
        let ends = [role(&way.iif), role(&way.oif)];
        // What is about another network is never learned, since that one is slow: one end is enough.
        let others = [Some(Role::Elsewhere), Some(Role::OtherNetwork)];
        ends.contains(&Some(Role::Own)) && !ends.contains(&Some(Role::Elsewhere))
            || ends.contains(&None) && !ends.iter().any(|end| others.contains(end))
    });
    Some(found?.0)
}

/// What an interface that a rule names is to a bridge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The bridge or one of its ports.
    Own,
    /// Another bridge with containers only, or a port of it.
    OtherNetwork,
    /// The way off the host, of all bridges.
    Uplink,
    /// Where no packet of a container goes.
    Elsewhere,
}

fn role(netns: &Namespace, bridge: &Link, name: &str) -> Role {
    let Some(link) = netns.link_by_name(name) else {
        // It may be a pattern. If it comes later, the plan is made again.
        return if name.ends_with(['*', '+']) {
            Role::Own
        } else {
            Role::Elsewhere
        };
    };
    let network = link.master.and_then(|master| netns.links.get(&master)).unwrap_or(link);
    if link.ifindex == bridge.ifindex || network.ifindex == bridge.ifindex {
        Role::Own
    } else if matches!(link.kind, LinkKind::Loopback) {
        Role::Elsewhere
    } else if matches!(network.kind, LinkKind::Bridge(_)) && !has_way_out(netns, network) {
        Role::OtherNetwork
    } else {
        Role::Uplink
    }
}
