//! What leaves an endpoint's bridge: for the host itself, for another network, for the outside.

use std::net::IpAddr;

use netfast_common::{
    device::{DeviceKey, Kind},
    reason::Reason,
};

use super::{From, Source, name, slow};
use crate::{
    plan::{
        TunnelReport,
        report::{EndpointReport, NetworkReport, Path, Published, Why},
    },
    report::{
        explain::{Destination, Facts, Route, Step},
        tunnels, xdp,
    },
};

const OUT: &str = "the kernel routes it out of an interface that netfast is attached to";
const HOST: &str = "the host itself: the way over the bridge is shortened, its own rules see every packet";

/// To a container on another network.
pub(super) fn routed(from: From<'_>, peer: From<'_>, ip: IpAddr, facts: &Facts<'_>) -> Step {
    if let Some(step) = slow(peer, Some(ip), facts) {
        return step;
    }
    let about = name(peer);
    let deciders = [from, peer].map(|one| &one.network.deciders_of(ip).routed);
    let name = &peer.network.name;
    match deciders.into_iter().flatten().next() {
        None => Step::fast(
            about,
            format!("a container on another network ({name}), and no rule is in the way"),
        ),
        Some(who) => Step::decided(
            about,
            None,
            format!(
                "a container on another network ({name}); whether packets pass is decided by {who} (Docker's usually drop \
                 them)"
            ),
        ),
    }
}

/// To the host itself, by any of its addresses.
pub(super) fn to_host(from: From<'_>, to: &Destination, facts: &Facts<'_>) -> Step {
    let network = from.network;
    let about = format!("host ({})", network.bridge.as_deref().unwrap_or("the bridge"));
    if !network.host.is_fast() {
        return Step::planned(about, &network.host, "");
    }
    if !facts.is_accelerated(network.bridge_ifindex) {
        return Step::reason(
            about,
            Reason::EgressUnknown,
            "the host itself, and netfast is not attached to the bridge device",
        );
    }
    if facts.leaves_to_kernel(network.bridge_ifindex, to.ip) {
        return Step::reason(
            about,
            Reason::Ipv6Off,
            "the host itself, and IPv6 between it and its containers is left to the kernel: a rule must see every packet",
        );
    }
    let deciders = network.deciders_of(to.ip);
    let Some(who) = &deciders.host else {
        return Step::fast(about, HOST);
    };
    if let Some(owner) = publisher(to, facts) {
        return published(from, owner, facts);
    }
    // A packet that was translated back within the bridge is not what its container sent, and if not only IP's rules can
    // have done it, that is not repeated.
    let translated = if deciders.bridged {
        "; what the host sends to a published port by DNAT stays slow while bridge-nf-call-iptables is on and there are \
         rules for bridges or devices, too"
    } else {
        ""
    };
    Step::decided(
        about,
        deciders.bridged.then_some(Reason::NoFlow),
        format!("{HOST}; whether packets pass, and to whom, is decided by {who}{translated}"),
    )
}

/// The endpoint that has published this port of the host.
fn publisher<'a>(to: &Destination, facts: &Facts<'a>) -> Option<From<'a>> {
    let port = to.port?;
    let is_it = |published: &Published| {
        let is_any = published.host_ip.is_unspecified() && published.host_ip.is_ipv4() == to.ip.is_ipv4();
        published.host_port == port && (is_any || published.host_ip == to.ip)
    };
    let mut networks = facts.state.networks.iter();
    networks.find_map(|network| {
        let mut endpoints = network.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| endpoint.published.iter().any(is_it))?;
        Some(From { network, endpoint })
    })
}

/// To a published port: rules translate it to the container, or docker-proxy serves it on the host.
fn published(from: From<'_>, owner: From<'_>, facts: &Facts<'_>) -> Step {
    let name = &owner.endpoint.container;
    let about = format!("published port of {name}");
    if owner.endpoint.container_id == from.endpoint.container_id && owner.endpoint.container == from.endpoint.container
    {
        return Step::decided(
            about,
            Some(Reason::SameDevice),
            "its own published port: by DNAT the packets leave by the interface that they came in by, and stay slow; by \
             docker-proxy both ways over the host are fast",
        );
    }
    let Some(step) = slow(owner, None, facts) else {
        let text =
            format!("the host's rules send the packets to {name} (DNAT), or docker-proxy does; either way is fast");
        return Step::decided(about, None, text);
    };
    let why = step.path.reason.unwrap_or_default();
    Step::decided(
        about,
        Some(Reason::NoFlow),
        format!("by DNAT the packets go to {name}, and stay slow ({why}); by docker-proxy they go to the host"),
    )
}

/// Out of an interface of the host that no known container is behind.
pub(super) fn out(
    from: From<'_>,
    (ifindex, device): (u32, &str),
    (source, ip): (IpAddr, IpAddr),
    facts: &Facts<'_>,
) -> Step {
    let about = format!("way out ({device})");
    // Also one that is no network by the operator's wish.
    let is_uplink = facts
        .state
        .devices
        .get(&DeviceKey::served(ifindex))
        .is_some_and(|device| device.kind == Kind::Uplink.name());
    let mut networks = facts.state.networks.iter();
    if let Some(network) = networks.find(|network| !is_uplink && network.bridge_ifindex == Some(ifindex)) {
        let heard = (facts.behind)(ip);
        let is_meant = |tunnel: &&TunnelReport| match heard {
            Some(port) => tunnel.ifindex == port,
            None => tunnel.bridge == Some(ifindex),
        };
        if let Some(tunnel) = facts.state.tunnels.iter().find(is_meant) {
            return through(tunnel, heard.is_some(), network, ip, facts);
        }
        return to_network(about, network, ip, facts);
    }
    if !is_uplink || !facts.is_accelerated(Some(ifindex)) {
        let mut left_out = facts.state.not_uplinks.iter();
        let why = left_out
            .find(|one| one.ifindex == ifindex)
            .map_or_else(String::new, |one| format!(": {}", one.why));
        let text = format!("the kernel routes it out of an interface that netfast is not attached to{why}");
        return Step::reason(about, Reason::EgressUnknown, text).guessed();
    }
    if facts.leaves_to_kernel(Some(ifindex), ip) {
        return Step::reason(about, Reason::Ipv6Off, "IPv6 of this interface is left to the kernel");
    }
    if let Route::None(why) = (facts.route)(ifindex, ip, source) {
        let text = format!("the kernel routes it there, and refuses its answers ({why})");
        return Step::reason(about, Reason::Unreplied, text).guessed();
    }
    let mut tunnels = facts.state.tunnels.iter();
    let outer = tunnels
        .find(|tunnel| tunnel.ifindex == ifindex)
        .map_or_else(String::new, outer);
    let xdp = facts.state.xdp.iter().find(|report| report.ifindex == ifindex);
    let xdp = xdp.map_or_else(String::new, |report| format!("; {}", xdp::incoming(report)));
    let text = match &from.network.deciders_of(ip).routed {
        None => format!("{OUT}: conversations that are answered go fast{outer}{xdp}"),
        Some(who) => format!("{OUT}; whether packets pass is decided by {who}{outer}{xdp}"),
    };
    Step::decided(about, None, text)
}

/// What becomes of the outer header there.
fn outer(tunnel: &TunnelReport) -> String {
    let outer = tunnels::outer(tunnel.why.as_deref(), tunnel.why_in.as_deref(), tunnel.checksums);
    format!("; it is a tunnel (VXLAN {}): {outer}", tunnel.vni)
}

/// To a station that the host has heard of behind a tunnel that is a port of the bridge, or that is not known on this side of it.
fn through(tunnel: &TunnelReport, heard: bool, network: &NetworkReport, ip: IpAddr, facts: &Facts<'_>) -> Step {
    let about = format!("way out ({})", tunnel.name);
    let outer = outer(tunnel);
    let place = if heard {
        "it is behind a port of the bridge"
    } else {
        "no container of this host is known by it; if it is another host's, it is behind a port of the bridge"
    };
    if !facts.is_accelerated(Some(tunnel.ifindex)) {
        let text = format!("{place} that netfast is not attached to{outer}");
        return Step::reason(about, Reason::EgressUnknown, text);
    }
    let text = format!("{place} that netfast is attached to{outer}");
    match &network.deciders_of(ip).within {
        None if heard => Step::fast(about, text),
        None => Step::decided(about, None, text),
        Some(who) => Step::decided(about, None, format!("{text}; whether packets pass is decided by {who}")),
    }
}

/// To an address of a network that no container of it is known by.
fn to_network(about: String, network: &NetworkReport, ip: IpAddr, facts: &Facts<'_>) -> Step {
    let is_told = facts.state.runtime.state != "none";
    if is_told {
        let text = "the kernel routes it to a network of containers, and no container there has this address";
        return Step::reason(about, Reason::OtherPacket, text).guessed();
    }
    if let Path::Slow(_) = network.path {
        return Step::planned(about, &network.path, "");
    }
    // Whoever has it is known by another one, unless it has not been heard at all yet.
    let is_other = |endpoint: &EndpointReport| match &endpoint.path {
        Path::Fast => !matches!(facts.source(endpoint, ip), Source::Any),
        Path::Slow(slow) => !matches!(slow.why, Why::NoMac | Why::NotAttached),
    };
    if !network.endpoints.is_empty() && network.endpoints.iter().all(is_other) {
        let text = "the kernel routes it to a network of containers, and netfast knows those that are fast by other addresses: \
                    what they send from this one is slow";
        return Step::reason(about, Reason::Spoofed, text).guessed();
    }
    Step::decided(
        about,
        Some(Reason::NoFlow),
        "the kernel routes it to a network of containers, and it is not known yet which of them has this address: fast, if \
         that one is",
    )
}
