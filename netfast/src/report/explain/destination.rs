//! Where to: what was typed, what it is to the host, and what that means for its packets.

use std::{fmt, net::IpAddr};

use netfast_common::reason::Reason;
use serde::Serialize;

use super::{
    Facts, Route, Step, addresses,
    alias::{self, AliasName},
    is_named,
};
use crate::plan::{
    AliasReport,
    report::{EndpointReport, NetworkReport},
};

/// A destination that was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// As it was typed.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
    /// The port, if one was given.
    pub port: Option<u16>,
    /// The alias that it is, if it is one.
    pub alias: Option<AliasName>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        // Of a container, the address that it was asked by is news.
        if !self.name.contains(&self.ip.to_string()) {
            write!(f, " ({})", self.ip)?;
        }
        Ok(())
    }
}

/// A destination that is neither an address, nor a container with one, nor an alias.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address, nor a container with one, nor a name that several containers share")]
pub struct NoDestination(String);

impl Destination {
    /// Understands `DEST[:PORT]`; of a container, the address on a network that it shares with `from`, or any.
    pub fn parse(
        text: &str,
        from: &str,
        networks: &[NetworkReport],
        aliases: &[AliasReport],
    ) -> Result<Self, NoDestination> {
        let (host, port) = split(text);
        let (alias, ip) = match host.parse() {
            Ok(ip) => (None, ip),
            Err(_) => match alias::find(host, from, networks, aliases) {
                Some((alias, ip)) => (Some(alias), ip),
                None => (
                    None,
                    address_of(host, from, networks).ok_or_else(|| NoDestination(text.into()))?,
                ),
            },
        };
        Ok(Self {
            name: text.into(),
            ip,
            port,
            alias,
        })
    }

    /// Whether an address with a port is it.
    pub fn is(&self, address: IpAddr, port: u16) -> bool {
        self.ip == address && self.port.is_none_or(|wanted| wanted == port)
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT`, `IPV6`.
fn split(text: &str) -> (&str, Option<u16>) {
    if let Some((host, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        None => (text, None),
    }
}

fn address_of(name: &str, from: &str, networks: &[NetworkReport]) -> Option<IpAddr> {
    let of = |network: &NetworkReport, name: &str| {
        let endpoint = network.endpoints.iter().find(|endpoint| is_named(endpoint, name))?;
        // IPv4 first: only that can be fast.
        let mut all: Vec<_> = addresses(endpoint).collect();
        all.sort_by_key(IpAddr::is_ipv6);
        all.first().copied()
    };
    let shared = networks
        .iter()
        .filter(|network| network.endpoints.iter().any(|endpoint| is_named(endpoint, from)));
    shared
        .filter_map(|network| of(network, name))
        .chain(networks.iter().filter_map(|network| of(network, name)))
        .next()
}

/// What the destination means for packets that come in from an endpoint of a network.
pub fn step(network: &NetworkReport, endpoint: &EndpointReport, to: &Destination, facts: &Facts<'_>) -> Step {
    const ABOUT: &str = "destination";
    let ip = to.ip;
    if ip.is_ipv6() {
        return Step::reason(ABOUT, Reason::NotIp, "IPv6 always takes the kernel's path");
    }
    if ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast()) {
        return Step::reason(ABOUT, Reason::NotUnicast, "a multicast or broadcast address");
    }
    let all = facts.state.networks.iter();
    let peer = all
        .flat_map(|network| network.endpoints.iter().map(move |endpoint| (network, endpoint)))
        .find(|(_, other)| addresses(other).any(|address| address == ip));
    if let Some((other, peer)) = peer {
        return to_container(network, other, peer);
    }
    match (facts.route)(network, endpoint, ip) {
        Route::Host => to_host(network, facts),
        Route::Out(ifindex, device) => to_device(ifindex, &device, facts),
        Route::None(why) => Step::reason(
            ABOUT,
            Reason::OtherPacket,
            format!("the kernel has no route to it ({why}): it refuses the packets"),
        ),
    }
}

pub(super) fn to_container(network: &NetworkReport, other: &NetworkReport, peer: &EndpointReport) -> Step {
    let about = format!("{} ({})", peer.container, peer.veth.as_deref().unwrap_or("no veth"));
    let text = if other.name == network.name {
        "a container on the same network; netfast is attached to its interface, too".into()
    } else {
        format!(
            "a container on another network ({}): Docker's rules usually drop such packets; those that a rule lets \
             through go fast",
            other.name
        )
    };
    Step::planned(about, &peer.path, &text)
}

fn to_host(network: &NetworkReport, facts: &Facts<'_>) -> Step {
    let bridge = network.bridge.as_deref().unwrap_or("the bridge");
    let device = network
        .bridge_ifindex
        .and_then(|ifindex| facts.state.devices.get(&ifindex));
    match device {
        Some(device) if device.attached => Step::fast(
            format!("host ({bridge})"),
            "the host itself: its rules see every packet, the way over the bridge is shortened; a published port of a \
             container is fast like the container",
        ),
        Some(_) | None => Step::reason(
            format!("host ({bridge})"),
            Reason::EgressUnknown,
            "the host itself, and netfast is not attached to the bridge device (a rule of the host's own INPUT or OUTPUT \
             chain must see every packet, or it could not be attached)",
        ),
    }
}

fn to_device(ifindex: u32, device: &str, facts: &Facts<'_>) -> Step {
    match facts.state.devices.get(&ifindex) {
        Some(known) if known.attached && known.kind == "uplink" => Step::fast(
            format!("way out ({device})"),
            "the kernel routes it out of an interface that netfast is attached to",
        ),
        Some(known) if known.kind == "bridge" => Step::reason(
            format!("way out ({device})"),
            Reason::OtherPacket,
            "the kernel routes it to a network of containers, and no container there has this address",
        ),
        Some(_) | None => Step::reason(
            format!("way out ({device})"),
            Reason::EgressUnknown,
            "the kernel routes it out of an interface that netfast is not attached to",
        ),
    }
}
