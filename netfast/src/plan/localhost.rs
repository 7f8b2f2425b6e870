//! Published ports whose connections from the host's own programs to a loopback address are led past docker-proxy, and why those
//! of all others are not.
//!
//! With docker-proxy a packet to 127.0.0.1 passes the host's own rules twice, once on the loopback interface and once on its way
//! to the container. Only where the first is known to change nothing is it left out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Runtime},
    host::{self, Container, Host, Namespace, Protocol, Proxy, PublishedPort},
    plan::{Facts, labels, tc},
};

mod rules;

/// Rules for policy routing in a fresh namespace, of IPv4 and of IPv6.
const USUAL_RULES: (usize, usize) = (3, 2);
/// The hook of nftables' family inet that is a device's (`NF_INET_INGRESS`, linux/netfilter.h).
const INET_INGRESS: u32 = 5;

/// What should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Localhost {
    /// Whether the programs are attached.
    pub is_on: bool,
    /// The listeners past which connections are led.
    pub led: BTreeSet<Proxy>,
    /// Each published port.
    pub reports: Vec<LocalReport>,
    /// Why there are none, for all ports alike.
    pub off: Option<String>,
}

/// What becomes of connections of the host's own programs to a published port at a loopback address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalReport {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// What it is published on.
    pub listens: String,
    /// The port.
    pub port: u16,
    /// The container.
    pub container: String,
    /// The container's address and port.
    pub target: String,
    /// Whether they are led past docker-proxy.
    pub led: bool,
    /// Why not.
    pub why: Option<String>,
}

/// Whether somebody asks for it here.
pub fn is_wanted(config: &Config) -> bool {
    config.localhost && config.runtime == Runtime::Docker && config.sandbox.is_none()
}

/// Decides.
pub fn plan(host: &Host, config: &Config, facts: &Facts) -> Localhost {
    if !is_wanted(config) {
        return Localhost::default();
    }
    let Some(seen) = &facts.localhost else {
        return Localhost::default();
    };
    let impossible = facts.localhost_off.clone().or_else(|| seen.off.clone());
    let off = impossible.clone().or_else(|| of_host(host.served(), seen));
    let mut plan = Localhost {
        is_on: impossible.is_none(),
        off,
        ..Localhost::default()
    };
    for container in host.containers.values() {
        for port in &container.ports {
            let (report, proxy) = of_port(host, config, seen, container, port, plan.off.as_ref());
            plan.led.extend(proxy.filter(|_| report.led).cloned());
            plan.reports.push(report);
        }
    }
    plan.reports.sort();
    plan.reports.dedup();
    plan
}

/// What keeps all ports with docker-proxy: judges whose verdict on the loopback interface is not known.
fn of_host(netns: &Namespace, seen: &host::Localhost) -> Option<String> {
    if let Err(why) = &seen.rules {
        return Some(format!("the host's packet-filter rules could not be read: {why}"));
    }
    if netns.ruleset.unreadable.is_some() {
        return Some("the host's packet-filter rules could not be read".into());
    }
    if let Some(text) = tc::on_the_way(netns) {
        return Some(text);
    }
    let policy = (netns.policy_rules.v4, netns.policy_rules.v6);
    if policy.0 > USUAL_RULES.0 || policy.1 > USUAL_RULES.1 {
        return Some("policy routing may send a program's packets another way than docker-proxy's (ip rule)".into());
    }
    let sees_devices = |family: &str, hook| family == "netdev" || (family == "inet" && hook == INET_INGRESS);
    let on_device = netns.ruleset.nft_chains.iter().find(|chain| {
        let is_lo = chain.device.as_ref().is_none_or(|device| device == "lo");
        sees_devices(&chain.family, chain.hook) && is_lo
    });
    if let Some(chain) = on_device {
        return Some(format!(
            "the nftables chain {} {} {} may judge what passes the loopback interface",
            chain.family, chain.table, chain.name
        ));
    }
    let judge = |what: &str| Some(format!("{what} on the loopback interface must see every packet"));
    if let Some(name) = &seen.on_loopback {
        return judge(&format!("the program {name}"));
    }
    let loopback = netns.link_by_name("lo")?;
    if let Some(kind) = tc::shaper(netns, loopback.ifindex) {
        return judge(&format!("the queueing discipline {kind}"));
    }
    let has_filters = netns
        .tc_filters
        .get(&loopback.ifindex)
        .is_some_and(|found| !found.is_empty());
    if has_filters || loopback.xdp.is_attached() {
        return judge("a filter or program");
    }
    None
}

fn of_port<'a>(
    host: &Host,
    config: &Config,
    seen: &'a host::Localhost,
    container: &Container,
    port: &PublishedPort,
    off: Option<&String>,
) -> (LocalReport, Option<&'a Proxy>) {
    let proxy = seen.proxies.iter().find(|proxy| is_of(proxy, container, port));
    let why = why_not(host, config, seen, container, port, proxy, off);
    let report = LocalReport {
        protocol: name(port.protocol).into(),
        listens: port.host_ip.to_string(),
        port: port.host_port,
        container: container.name.clone(),
        target: proxy.map_or_else(|| port.container_port.to_string(), |proxy| proxy.target.to_string()),
        led: why.is_none(),
        why,
    };
    (report, proxy)
}

/// Whether it serves this port of this container.
fn is_of(proxy: &Proxy, container: &Container, port: &PublishedPort) -> bool {
    let mut places = container.attachments.iter();
    let mut has_address = |address: IpAddr| {
        places.any(|place| {
            let addresses = [place.ipv4, place.ipv6];
            addresses.into_iter().flatten().any(|net| net.addr == address)
        })
    };
    proxy.protocol == port.protocol
        && proxy.listens == (port.host_ip, port.host_port).into()
        && proxy.target.port() == port.container_port
        && has_address(proxy.target.ip())
}

fn why_not(
    host: &Host,
    config: &Config,
    seen: &host::Localhost,
    container: &Container,
    port: &PublishedPort,
    proxy: Option<&Proxy>,
    off: Option<&String>,
) -> Option<String> {
    if port.protocol == Protocol::Sctp {
        return Some("docker-proxy's SCTP is left as it is".into());
    }
    let loopback = loopback_of(port.host_ip);
    if !port.host_ip.is_unspecified() && !port.host_ip.is_loopback() {
        return Some(format!(
            "it is published on {} only, not at a loopback address",
            port.host_ip
        ));
    }
    let mut networks = container.attachments.iter();
    let disabled = networks.find_map(|on| labels::why_off(host.networks.get(&on.network)?, config));
    if labels::is_off(&container.labels) || disabled.is_some() {
        return Some("netfast is switched off for its container or its network".into());
    }
    let Some(proxy) = proxy else {
        return Some("no docker-proxy listens for it".into());
    };
    if proxy.target.is_ipv4() != loopback.is_ipv4() {
        return Some("docker-proxy leads from one family of IP to the other here".into());
    }
    if let Some(off) = off {
        return Some(off.clone());
    }
    let Ok(rules) = &seen.rules else {
        return Some("the host's packet-filter rules could not be read".into());
    };
    rules::judge(rules, proxy)
}

/// The loopback address of the family.
const fn loopback_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

const fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

#[cfg(test)]
mod tests;
