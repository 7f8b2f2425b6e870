//! What a destination is to the host, and what that means for the packets of an endpoint that go there.
//!
//! What the plan has decided and what the programs were told is certain. Where the kernel routes is asked; whether rules
//! let packets through is not known to netfast, and said to be so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netfast_common::{
    device::{Device, DeviceKey},
    reason::Reason,
};

use super::{Destination, Facts, Flows, Route, Step, addresses, advice};
use crate::plan::report::{EndpointReport, NetworkReport, Path, Slow, Why};

mod beyond;

/// Any address of each family, where only that matters.
const V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const ABOUT: &str = "destination";
const CUT_OFF: &str = "the container's own side of its veth is down: nothing passes";
const DIRECT: &str = "direct: nobody judges what the containers of this bridge send to each other, so all of it is fast from the \
                      first packet on, whatever protocol it is of";
const SAME: &str = "a container on the same network; netfast is attached to its interface, too";

/// An endpoint with its network.
#[derive(Clone, Copy)]
pub(super) struct From<'a> {
    /// The network.
    pub network: &'a NetworkReport,
    /// The endpoint.
    pub endpoint: &'a EndpointReport,
}

/// What the endpoint's own interface means.
pub(super) fn own(from: From<'_>, to: Option<&Destination>, facts: &Facts<'_>) -> Step {
    let From { network, endpoint } = from;
    let veth = endpoint.veth.as_deref().unwrap_or("no veth");
    let about = format!("{} ({veth})", network.name);
    let known: Vec<String> = match to {
        None => vec![facts.source(endpoint, V4), facts.source(endpoint, V6)],
        Some(to) => vec![facts.source(endpoint, to.ip)],
    }
    .into_iter()
    .filter_map(|source| Some(source.only()?.to_string()))
    .collect();
    let source = if known.is_empty() {
        String::new()
    } else {
        let known = known.join(" and ");
        format!("; packets from {known} may be fast, packets from other source addresses not")
    };
    let text = format!("netfast is attached to the container's interface{source}");
    let mut step = Step::planned(about, &endpoint.path, &text);
    if let Some(owner) = owner_of_namespace(from) {
        let to = to.map_or_else(String::new, |to| format!(" {}", to.name));
        step.remedy = Some(format!("Run `netfast explain {owner}{to}`."));
    }
    if endpoint.path.is_fast() && !facts.is_accelerated(endpoint.ifindex) {
        return Step::reason(step.about, Reason::UnknownDevice, "netfast is not attached to it yet");
    }
    if endpoint.path.is_fast() && endpoint.is_cut_off {
        return Step::reason(step.about, Reason::OtherPacket, CUT_OFF);
    }
    step
}

/// The only source that an endpoint's packets may have to be fast, for a destination.
pub(super) fn source_of(from: From<'_>, to: Option<&Destination>, facts: &Facts<'_>) -> Option<IpAddr> {
    facts.source(from.endpoint, to.map_or(V4, |to| to.ip)).only()
}

/// The container whose namespace an endpoint's container shares, by its name or the beginning of its identifier.
fn owner_of_namespace(from: From<'_>) -> Option<&str> {
    let is_shared = matches!(&from.endpoint.path, Path::Slow(slow) if slow.why == Why::SharedNamespace);
    from.network.name.strip_prefix("container:").filter(|_| is_shared)
}

/// Whether the plan keeps an endpoint slow that has no bridge to send by: then no destination says more.
pub(super) fn goes_by_no_bridge(from: From<'_>) -> bool {
    from.network.bridge_ifindex.is_none() && !from.endpoint.path.is_fast()
}

/// What the host itself means for an endpoint, whatever is asked.
pub(super) fn host_in_general(network: &NetworkReport) -> Option<Step> {
    let bridge = network.bridge.as_deref()?;
    (network.path.is_fast() && !network.host.is_fast())
        .then(|| Step::planned(format!("from and to the host ({bridge})"), &network.host, ""))
}

/// What the destination means for packets that come in from an endpoint. `flows` are those that there are now.
pub(super) fn step(from: From<'_>, to: &Destination, flows: &Flows, facts: &Facts<'_>) -> Step {
    let ip = to.ip;
    if let IpAddr::V6(ip) = ip
        && ip.is_unicast_link_local()
    {
        return Step::reason(
            ABOUT,
            Reason::LinkLocal,
            "an address of one link: the kernel's path, always",
        );
    }
    if ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast()) {
        return Step::reason(ABOUT, Reason::NotUnicast, "a multicast or broadcast address");
    }
    let neighbour = owner(from, ip, facts).filter(|peer| peer.network.bridge_ifindex == from.network.bridge_ifindex);
    if neighbour.is_none_or(|peer| directly(from, peer, facts).is_none())
        && let Some(step) = not_sent(from, ip, facts)
    {
        return step;
    }
    if let Some(peer) = neighbour {
        return within(from, peer, Some(ip), facts);
    }
    let Some(bridge) = from.network.bridge_ifindex else {
        return unknown("its network has no bridge device");
    };
    let is_like = |own: &IpAddr| own.is_ipv4() == ip.is_ipv4() && !is_link_local(*own);
    let own = addresses(from.endpoint).find(is_like).or(flows.source.filter(is_like));
    // Routes seldom look at the source: any address of the network will do, where the container's is not known.
    let Some(source) = own.or_else(|| (facts.stand_in)(bridge, ip)) else {
        return unknown("the container's address is not known yet, so the kernel cannot be asked for the route");
    };
    match (facts.route)(bridge, source, ip) {
        Route::Host => beyond::to_host(from, to, facts),
        Route::Out(ifindex, device) => match owner(from, ip, facts) {
            Some(peer) if peer.network.bridge_ifindex == Some(ifindex) => beyond::routed(from, peer, ip, facts),
            _ => beyond::out(from, (ifindex, &device), (source, ip), facts),
        },
        Route::Many => Step::reason(ABOUT, Reason::NotUnicast, "a broadcast address of the network"),
        // A host that forwards nothing has no route even there, and within the bridge none is needed.
        Route::None(_) if (facts.is_on_link)(bridge, ip) => {
            unknown("an address of the same bridge that no container is known by")
        }
        Route::None(why) => Step {
            remedy: Some(format!(
                "`ip route get {ip} from {source} iif {}` says so.",
                bridge_of(from)
            )),
            ..Step::reason(
                ABOUT,
                Reason::OtherPacket,
                format!("the kernel has no route to it ({why}): it refuses the packets"),
            )
        }
        .guessed(),
    }
}

/// Why what an endpoint sends to addresses of a family goes by no flow, if it is so.
fn not_sent(from: From<'_>, ip: IpAddr, facts: &Facts<'_>) -> Option<Step> {
    if let (IpAddr::V6(_), Path::Slow(slow)) = (ip, &from.network.ipv6) {
        return Some(Step::reason(ABOUT, Reason::Ipv6Off, slow.text.clone()));
    }
    let is_none = from.endpoint.path.is_fast() && matches!(facts.source(from.endpoint, ip), Source::None);
    is_none.then(|| {
        let text = format!(
            "netfast knows no address of the container of {}: what it sends by it is slow",
            family(ip)
        );
        Step::reason(ABOUT, Reason::Spoofed, text)
    })
}

const fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

const fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn bridge_of(from: From<'_>) -> &str {
    from.network.bridge.as_deref().unwrap_or("BRIDGE")
}

fn unknown(text: &str) -> Step {
    Step::decided(ABOUT, None, text)
}

/// The endpoint that has an address: as reported, or as the host has heard.
fn owner<'a>(from: From<'a>, ip: IpAddr, facts: &Facts<'a>) -> Option<From<'a>> {
    let all = || {
        let networks = facts.state.networks.iter();
        networks.flat_map(|network| network.endpoints.iter().map(move |endpoint| From { network, endpoint }))
    };
    // A neighbour on the same network goes before somebody else's of the same address.
    let mut known: Vec<From<'a>> = all()
        .filter(|one| addresses(one.endpoint).any(|address| address == ip))
        .collect();
    known.sort_by_key(|one| one.network.bridge_ifindex != from.network.bridge_ifindex);
    known.first().copied().or_else(|| {
        let heard = (facts.behind)(ip)?;
        all().find(|one| one.endpoint.ifindex == Some(heard))
    })
}

fn name(peer: From<'_>) -> String {
    let veth = peer.endpoint.veth.as_deref().unwrap_or("no veth");
    format!("{} ({veth})", peer.endpoint.container)
}

/// What keeps packets to a container slow for certain.
fn slow(peer: From<'_>, ip: Option<IpAddr>, facts: &Facts<'_>) -> Option<Step> {
    if !peer.endpoint.path.is_fast() {
        return Some(Step::planned(name(peer), &peer.endpoint.path, ""));
    }
    if !facts.is_accelerated(peer.endpoint.ifindex) {
        let text = "netfast is not attached to its interface yet";
        return Some(Step::reason(name(peer), Reason::EgressUnknown, text));
    }
    if peer.endpoint.is_cut_off {
        return Some(Step::reason(name(peer), Reason::OtherPacket, CUT_OFF));
    }
    let ip = ip?;
    if facts.leaves_to_kernel(peer.endpoint.ifindex, ip) {
        return Some(Step::reason(
            name(peer),
            Reason::Ipv6Off,
            "IPv6 of its network is left to the kernel",
        ));
    }
    let text = match facts.source(peer.endpoint, ip) {
        Source::Any => return None,
        Source::Only(known) if known == ip => return None,
        Source::Only(known) => {
            format!("netfast knows it by the address {known}: what it sends from another one is slow")
        }
        Source::None => format!(
            "netfast knows no address of it of {}: what it sends from one is slow",
            family(ip)
        ),
    };
    Some(Step::reason(name(peer), Reason::Spoofed, text))
}

/// To a container on the same network.
pub(super) fn within(from: From<'_>, peer: From<'_>, ip: Option<IpAddr>, facts: &Facts<'_>) -> Step {
    let about = name(peer);
    // By MAC addresses alone: those of IP are no matter.
    if let Some(step) = directly(from, peer, facts) {
        return Step { about, ..step };
    }
    if let Some(step) = slow(peer, ip, facts) {
        return step;
    }
    if from.endpoint.isolated && peer.endpoint.isolated {
        return Step::reason(
            about,
            Reason::OtherPacket,
            "both are on isolated ports: the bridge lets nothing pass between them",
        );
    }
    match &from.network.deciders_of(ip.unwrap_or(V4)).within {
        None => Step::fast(about, SAME),
        Some(who) => Step::decided(about, None, format!("{SAME}; whether packets pass is decided by {who}")),
    }
}

/// What is forwarded directly, if it is: the lease says whether the daemon still stands by it.
fn directly(from: From<'_>, peer: From<'_>, facts: &Facts<'_>) -> Option<Step> {
    let is_direct = |endpoint: &EndpointReport| endpoint.direct.as_ref().is_some_and(Path::is_fast);
    let is_leased = facts.running && facts.control.may_forward_directly();
    (is_leased && is_direct(from.endpoint) && is_direct(peer.endpoint)).then(|| Step {
        is_direct: true,
        ..Step::fast("", DIRECT)
    })
}

/// Why what an endpoint sends to others of its bridge is not forwarded directly, if it is not.
pub(super) fn not_direct(from: From<'_>) -> Option<Step> {
    let Some(Path::Slow(Slow { why, text })) = &from.endpoint.direct else {
        return None;
    };
    if !from.endpoint.path.is_fast() {
        return None;
    }
    Some(Step {
        remedy: advice::of_why(*why).map(Into::into),
        ..Step::fast("direct", format!("no, flows are learned: {text}"))
    })
}

/// The same of what it sends to one of them, by the step that says what becomes of it.
pub(super) fn not_direct_within(from: From<'_>, step: &Step, to: &Destination, facts: &Facts<'_>) -> Option<Step> {
    if step.is_direct || step.path.is_slow() {
        return None;
    }
    let peer = owner(from, to.ip, facts).filter(|peer| peer.network.bridge_ifindex == from.network.bridge_ifindex)?;
    not_direct(from).or_else(|| not_direct(peer))
}

/// What an endpoint's packets of a family must have as their source to be fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Any address.
    Any,
    /// This address.
    Only(IpAddr),
    /// No address of this family is known of it, so none will do.
    None,
}

impl Source {
    /// The address.
    pub(super) const fn only(self) -> Option<IpAddr> {
        match self {
            Self::Only(ip) => Some(ip),
            Self::Any | Self::None => None,
        }
    }
}

impl Facts<'_> {
    /// What an endpoint's packets must have as their source to be fast, as the programs were told: of the family of this address.
    pub(super) fn source(&self, endpoint: &EndpointReport, like: IpAddr) -> Source {
        let Some(device) = endpoint.device().and_then(|key| self.devices.get(&key)) else {
            return Source::Any;
        };
        let own: IpAddr = match like {
            IpAddr::V4(_) => Ipv4Addr::from(device.address4.bytes()).into(),
            IpAddr::V6(_) => Ipv6Addr::from(device.address6.bytes()).into(),
        };
        if device.has(Device::ANY_SOURCE) {
            Source::Any
        } else if own.is_unspecified() {
            Source::None
        } else {
            Source::Only(own)
        }
    }

    /// Whether the programs were told that packets of this address' family are not for them, by an interface that others are.
    fn leaves_to_kernel(&self, ifindex: Option<u32>, ip: IpAddr) -> bool {
        let device = ifindex.and_then(|ifindex| self.devices.get(&DeviceKey::served(ifindex)));
        ip.is_ipv6() && device.is_some_and(|device| !device.has(Device::IPV6))
    }

    /// Whether the programs are attached to an interface, and told that its flows may be learned and used.
    pub(super) fn is_accelerated(&self, ifindex: Option<u32>) -> bool {
        let Some(device) = ifindex.map(DeviceKey::served) else {
            return false;
        };
        let attached = self.state.devices.get(&device).is_some_and(|device| device.attached);
        let told = self
            .devices
            .get(&device)
            .is_some_and(|device| device.has(Device::ACCELERATED));
        attached && told
    }
}
