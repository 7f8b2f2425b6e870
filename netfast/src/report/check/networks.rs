//! What would be accelerated, and what not: the plan, before it is carried out.

use std::collections::BTreeMap;

use super::{Area, Level, Line};
use crate::config::Config;
use crate::host::{Container, Host, InsideRules};
use crate::plan::{
    Desired, LocalReport,
    report::{NetworkReport, Path, Slow, Why},
    wanted_resolvers,
};
use crate::report::localhost;

/// Says of each network and endpoint which path it would take.
pub fn networks(desired: &Desired) -> Vec<Line> {
    let mut lines: Vec<Line> = desired.networks.iter().flat_map(network).collect();
    if let Some(why) = &desired.learning_off {
        lines.push(Line::new(
            Area::Networks,
            Level::Slow,
            "all",
            format!("no flow is learned: {why}"),
        ));
    }
    lines
}

/// Says in which containers Docker's rules for its resolver would be replaced, or are, if that is wanted anywhere. `off`: why
/// not on this kernel.
pub fn resolvers(host: &Host, config: &Config, inside: &BTreeMap<u64, InsideRules>, off: Option<&str>) -> Vec<Line> {
    let subject = |container: &str| format!("{container}: resolver");
    let line =
        |container: &Container, level, text: String| Line::new(Area::Networks, level, subject(&container.name), text);
    let wanted = wanted_resolvers(host, config).into_iter();
    let all = wanted.map(|(loopback, container)| match (off, inside.get(&loopback.netns)) {
        (Some(why), _) => line(container, Level::Note, format!("Docker's rules for it stay: {why}")),
        (None, Some(InsideRules::Resolver(_))) => {
            line(container, Level::Ok, "Docker's rules for it would be replaced".into())
        }
        (None, Some(InsideRules::None)) => line(container, Level::Ok, "Docker's rules for it are not there".into()),
        (None, Some(InsideRules::Other(why))) => {
            line(container, Level::Note, format!("Docker's rules for it stay: {why}"))
        }
        (None, None) => line(
            container,
            Level::Note,
            "its network namespace cannot be looked into".into(),
        ),
    });
    all.collect()
}

/// Says of each published port whether the host's own connections to it at a loopback address would go past docker-proxy, if
/// that is wanted.
pub fn published(desired: &Desired) -> Vec<Line> {
    let line = |report: &LocalReport| {
        let subject = format!("{}: localhost", report.container);
        let name = localhost::name(report);
        if report.led {
            let text = format!("the host's own connections to {name} would go past docker-proxy");
            return Line::new(Area::Networks, Level::Ok, subject, text);
        }
        let text = format!(
            "the host's own connections to {name} go through docker-proxy: {}",
            localhost::why(report)
        );
        Line::new(Area::Networks, Level::Note, subject, text)
    };
    let lines = desired.localhost.reports.iter().map(line);
    let off = desired
        .localhost
        .off
        .iter()
        .filter(|_| desired.localhost.reports.is_empty());
    let off = off.map(|why| {
        let text = format!("the host's own connections to published ports go through docker-proxy: {why}");
        Line::new(Area::Networks, Level::Note, "localhost", text)
    });
    lines.chain(off).collect()
}

fn network(network: &NetworkReport) -> Vec<Line> {
    let mut lines = by_path(network);
    lines.extend(shared_pools(network));
    lines
}

/// Pools whose addresses somebody else may give as well: containers of macvlan and ipvlan are on the parent's LAN.
fn shared_pools(network: &NetworkReport) -> impl Iterator<Item = Line> {
    let parent = network.parent.iter().filter(|_| !network.internal);
    let whole = network.pools.iter().filter(|pool| pool.ip_range.is_none());
    parent.flat_map(move |parent| {
        let name = network.name.clone();
        whole.clone().filter_map(move |pool| {
            let subnet = pool.subnet.as_ref()?;
            let detail = format!(
                "gives its containers any address of {subnet}, which another host's network, or a DHCP server, on the LAN \
                 of {parent} may give as well"
            );
            let line = Line::new(Area::Networks, Level::Note, name.clone(), detail);
            Some(line.remedy("Make it anew with --ip-range, and with another range on each host."))
        })
    })
}

/// Which path its packets take, and those of its endpoints.
fn by_path(network: &NetworkReport) -> Vec<Line> {
    if let Path::Slow(slow) = &network.path {
        // Docker makes `host` and `none` on every host: worth a word only if somebody is there.
        if network.endpoints.is_empty() && judge(slow.why).0 == Level::Note {
            return Vec::new();
        }
        let names: Vec<_> = network
            .endpoints
            .iter()
            .map(|endpoint| endpoint.container.as_str())
            .collect();
        let who = if names.is_empty() {
            "no endpoints".into()
        } else {
            names.join(", ")
        };
        let text = if slow.why == Why::Overlay {
            // What is there is not looked at before the start.
            "netfast works in the network's own namespace (with tcx, Linux 6.6)"
        } else {
            &slow.text
        };
        return vec![line(network.name.clone(), format!("{text}; {who}"), slow)];
    }
    let fast = network
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.path.is_fast())
        .count();
    let of = match (fast, network.endpoints.len()) {
        (_, 0) => "no endpoints".into(),
        (1, 1) => "its endpoint is accelerated".into(),
        (fast, all) if fast == all => format!("all {all} endpoints are accelerated"),
        (fast, all) => format!("{fast} of {all} endpoints are accelerated"),
    };
    let mut lines = vec![Line::new(Area::Networks, Level::Ok, network.name.clone(), of)];
    if let Path::Slow(slow) = &network.host {
        let subject = format!("{}: from and to the host", network.name);
        lines.push(line(subject, slow.text.clone(), slow));
    }
    for endpoint in &network.endpoints {
        if let Path::Slow(slow) = &endpoint.path {
            let subject = format!("{}: {}", network.name, endpoint.container);
            lines.push(line(subject, slow.text.clone(), slow));
        }
    }
    lines
}

fn line(subject: String, detail: String, slow: &Slow) -> Line {
    let (level, remedy) = judge(slow.why);
    let line = Line::new(Area::Networks, level, subject, detail);
    match remedy {
        Some(remedy) => line.remedy(remedy),
        None => line,
    }
}

/// How bad it is, and what to do about it. What the operator has chosen, or what has nothing to shorten, is no loss.
fn judge(why: Why) -> (Level, Option<&'static str>) {
    match why {
        Why::HostNetwork
        | Why::NoNetwork
        | Why::SharedNamespace
        | Why::Macvlan
        | Why::Overlay
        | Why::DisabledByLabel
        | Why::DisabledByConfig
        // These keep packets from being forwarded directly only.
        | Why::DirectOff
        | Why::BridgeNetfilter
        | Why::BridgeRules
        | Why::BridgeVlans
        | Why::BridgeForgets
        | Why::BridgeAnswers
        | Why::PortNotForwarding
        | Why::PortRestricted
        | Why::PortShaped
        | Why::PeerUnknown
        | Why::VirtualAddresses
        | Why::OvsHost
        | Why::OvsFlows
        | Why::NotHeard => (Level::Note, None),
        Why::Ipvlan
        | Why::OtherDriver
        | Why::NoBridge
        | Why::BridgeDown
        | Why::NoVeth
        | Why::VethDown
        | Why::NoMac
        | Why::SeveralMacs
        | Why::NotLearned
        | Why::TooManyDevices
        | Why::NotAttached => (Level::Slow, None),
        Why::RateRules => (
            Level::Slow,
            Some("If such rules may see one packet per second of a flow: allow_rate_rules = true."),
        ),
        Why::Accounting => (
            Level::Slow,
            Some(
                "sysctl -w net.netfilter.nf_conntrack_acct=0, or, if its counters may lag (netfast's metrics do not): \
                 allow_accounting = true.",
            ),
        ),
        Why::ForeignPrograms => (
            Level::Slow,
            Some("Remove it, or have it run on the device's egress or, with tcx, before netfast's programs."),
        ),
        Why::BridgeShaped => (
            Level::Slow,
            Some("Shape the containers' veths or the uplink instead: the fast path passes through those."),
        ),
        Why::OvsUnwatched => (
            Level::Slow,
            Some("The kernel needs the tracepoint ovs_do_execute_action (Linux 5.14) for that."),
        ),
        Why::NoNamespace => (
            Level::Slow,
            Some("Run netfast with CAP_SYS_ADMIN and CAP_SYS_PTRACE, in the host's PID namespace."),
        ),
    }
}
