//! What netfast should be attached to, and why everything else stays on the slow path. Pure: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use netfast_common::{
    abi::MAX_DEVICES,
    control::{Control, Pace},
    device::{Device, DeviceKey, Kind},
    tunnel::Tunnel,
};

use crate::{
    config::{Config, Runtime},
    host::{self, FdbState, Host, InsideRules, Link, LinkKind, Mac, Namespace, NetworkId},
};

mod aliases;
mod bare;
mod deciders;
mod device;
mod docker;
mod index;
mod inputs;
mod joins;
mod labels;
mod localhost;
mod macvlan;
mod openvswitch;
mod pace;
pub mod report;
mod resolver;
mod rules;
mod segments;
mod swarm;
mod tc;
mod transit;
mod tunnels;
mod unjudged;
mod uplinks;
mod vip;
mod xdp;

pub use aliases::{AliasReport, AliasTable, Aliases, Loopback, MemberReport};
pub use device::{DeviceSpec, Identity};
pub use inputs::{Cause, EpochInputs};
pub use labels::{is_off, is_switched_off};
pub use localhost::{LocalReport, Localhost, is_wanted as wants_localhost};
pub use macvlan::{MacvlanTable, Macvlans};
pub use resolver::{Inside, ResolverReport, reports as resolver_reports, wanted as wanted_resolvers};
pub use segments::{BIGGER, SegmentEnd, USUAL};
pub use tc::Foreign;
pub use tunnels::TunnelReport;
pub use unjudged::DirectPort;
pub use uplinks::NotUplink;
pub use vip::{Client, VipMemory, VipService, VipTable, Vips, Way, next_hop};
pub use xdp::{Xdp, XdpEnd, XdpFacts, XdpReport, XdpWish};

use index::Index;
use report::{NetworkReport, Path, Why};
pub use report::{report_failure, report_waiting};
use rules::RateRules;

/// Places that are kept for bridges and uplinks in the table of devices.
const RESERVED_DEVICES: usize = 1024;

/// What only `apply` can know, since it asks the BPF subsystem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Packets that are handed to user space are noticed (the `netfast_queued` program is attached).
    pub queue_watch: bool,
    /// Programs of others on tcx.
    pub foreign: BTreeMap<DeviceKey, Foreign>,
    /// The endpoints as they are in the devices map.
    pub endpoints: BTreeMap<DeviceKey, Device>,
    /// Why answers of resolvers cannot be seen, if they cannot.
    pub aliases_off: Option<String>,
    /// Why packets to virtual addresses cannot be translated, if they cannot.
    pub vip_off: Option<String>,
    /// Why outer headers of tunnels cannot be repeated, if they cannot.
    pub tunnels_off: Option<String>,
    /// Why outer headers of tunnels cannot be taken off, if they cannot.
    pub way_in_off: Option<String>,
    /// Why what Open vSwitch does with packets cannot be watched, if it cannot.
    pub ovs_off: Option<String>,
    /// Why the host and containers of macvlan networks cannot reach each other, if they cannot.
    pub macvlan_off: Option<String>,
    /// Why nobody can be led past docker-proxy, if nobody can.
    pub localhost_off: Option<String>,
    /// What stands before published ports at loopback addresses; `None` where nobody asks.
    pub localhost: Option<Box<host::Localhost>>,
    /// Why Docker's rules for its resolver cannot be replaced, if they cannot.
    pub resolver_off: Option<String>,
    /// The packet-filter rules in containers' network namespaces, by their inodes, where that matters.
    pub inside: BTreeMap<u64, InsideRules>,
    /// The virtual addresses that were given.
    pub vips: VipMemory,
    /// What XDP depends on.
    pub xdp: XdpFacts,
}

/// What should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Devices to be attached to.
    pub devices: BTreeMap<DeviceKey, DeviceSpec>,
    /// Every network with every endpoint, fast or slow.
    pub networks: Vec<NetworkReport>,
    /// What learned flows depend on, besides their devices.
    pub inputs: EpochInputs,
    /// Why nothing may be learned, if nothing may.
    pub learning_off: Option<String>,
    /// When a flow is learned, and when it must ask again.
    pub pace: Pace,
    /// Uplinks that the operator named and that do not exist.
    pub missing_uplinks: Vec<String>,
    /// Interfaces with routes that are no uplinks.
    pub not_uplinks: Vec<NotUplink>,
    /// Where it is wanted: whether what is forwarded between uplinks may be fast, or why not.
    pub transit: Option<Result<(), String>>,
    /// Names that several containers share.
    pub aliases: Aliases,
    /// The endpoints between which packets are forwarded directly, within their bridge.
    pub direct: BTreeMap<DeviceKey, DirectPort>,
    /// The tunnels whose outer headers are repeated.
    pub tunnels: BTreeMap<DeviceKey, Tunnel>,
    /// All tunnels that packets of containers leave by.
    pub tunnel_reports: Vec<TunnelReport>,
    /// The host and its containers on macvlan networks that want it.
    pub macvlans: Macvlans,
    /// Published ports at loopback addresses.
    pub localhost: Localhost,
    /// Containers in which Docker's rules for its resolver should be replaced.
    pub resolvers: BTreeMap<Loopback, Inside>,
    /// Interfaces that take bigger segments, with a name for each.
    pub segments: BTreeMap<SegmentEnd, String>,
    /// XDP at uplinks.
    pub xdp: Xdp,
}

impl Desired {
    /// The control map's entry under this epoch.
    pub fn control(&self, epoch: u32) -> Control {
        let learn = if self.learning_off.is_none() { Control::LEARN } else { 0 };
        let control = Control {
            epoch,
            ..Control::default()
        };
        control.with(Control::USE | Control::VET | learn, self.pace)
    }
}

/// Decides what should be, from what is.
pub fn plan(host: &Host, config: &Config, facts: &Facts) -> Desired {
    let netns = host.served();
    let rules = RateRules::judge(netns, config);
    let rules6 = rules.of_ipv6_alone();
    let index = Index::of(host, netns);
    let mut build = Build {
        host,
        netns,
        config,
        facts,
        rules,
        rules6,
        devices: BTreeMap::new(),
        vips: aliases::networks_with_vips(host, &index, config),
        index,
        on_the_way: tc::on_the_way(netns),
    };
    let mut networks = match config.runtime {
        Runtime::Docker => docker::networks(&mut build),
        Runtime::None => bare::networks(&mut build),
    };
    networks.extend(openvswitch::networks(&mut build));
    build.add_bridges(&mut networks);
    openvswitch::add_uplinks(&mut build);
    joins::add(&mut build);
    let missing_uplinks = uplinks::add(&mut build);
    tunnels::add(&mut build);
    let transit = transit::add(&mut build);
    let not_uplinks = uplinks::left_out(&build);
    build.allow_what_rules_leave();
    let aliases = aliases::aliases(host, &build.index, config, facts, &networks, &build.devices);
    let direct = unjudged::add(&build, &mut networks, &aliases.vips.endpoints);
    let (tunnels, tunnel_reports) = tunnels::ends(&build);
    let macvlans = macvlan::plan(&build);
    let resolvers = resolver::plan(host, config, facts);
    let localhost = localhost::plan(host, config, facts);
    let segments = segments::add(&build, &mut networks);
    let xdp = xdp::plan(&build);
    let devices = build.devices;
    let inputs = EpochInputs::of(netns, &devices);
    Desired {
        aliases,
        direct,
        tunnels,
        tunnel_reports,
        macvlans,
        localhost,
        resolvers,
        segments,
        xdp,
        networks,
        inputs,
        learning_off: pace::learning_off(netns, facts),
        pace: Pace {
            revalidate_ns: pace::revalidate_ns(netns, config),
            learn_after: config.learn_after,
        },
        missing_uplinks,
        not_uplinks,
        transit,
        devices,
    }
}

/// The plan while it is made.
struct Build<'a> {
    host: &'a Host,
    /// The namespace that is planned for.
    netns: &'a Namespace,
    config: &'a Config,
    facts: &'a Facts,
    rules: RateRules<'a>,
    /// Those that meet IPv6 alone.
    rules6: RateRules<'a>,
    devices: BTreeMap<DeviceKey, DeviceSpec>,
    /// Networks with virtual addresses.
    vips: BTreeSet<NetworkId>,
    index: Index<'a>,
    /// Programs of others that see all that is forwarded.
    on_the_way: Option<String>,
}

/// What is known of a container's interface.
struct Endpoint {
    veth: u32,
    mac: Option<Mac>,
    address4: Option<Ipv4Addr>,
    address6: Option<Ipv6Addr>,
    any_source: bool,
    /// It is on a network with virtual addresses: it is a device also while it is slow.
    virtual_addresses: bool,
}

impl Build<'_> {
    /// Which path a network's packets may take, by its bridge device.
    fn judge_bridge(&self, name: &str) -> (Option<u32>, Path) {
        let Some(link) = self.index.links.get(name).copied() else {
            return (
                None,
                Path::slow_since(Why::NoBridge, format!("its bridge device {name} does not exist")),
            );
        };
        let is_datapath = matches!(link.kind, LinkKind::Openvswitch);
        let path = if !matches!(link.kind, LinkKind::Bridge(_)) && !is_datapath {
            Path::slow_since(Why::NoBridge, format!("{name} is not a bridge"))
        } else if let Some(why) = self.facts.ovs_off.as_ref().filter(|_| is_datapath) {
            Path::slow_since(
                Why::OvsUnwatched,
                format!("what Open vSwitch does with packets cannot be watched: {why}"),
            )
        // The device of a datapath is usually down, and its ports forward all the same.
        } else if !link.up && !is_datapath {
            Path::slow(Why::BridgeDown)
        } else if let Some(text) = tc::anything_on(self.netns, self.facts, link) {
            Path::slow_since(Why::ForeignPrograms, text)
        } else if let Some(text) = &self.on_the_way {
            Path::slow_since(Why::ForeignPrograms, text)
        } else if let Some(kind) = tc::shaper(self.netns, link.ifindex) {
            Path::slow_since(
                Why::BridgeShaped,
                format!("the queueing discipline {kind} on {name} must see every packet"),
            )
        } else if let Some(rule) = self.rules.concerning(self.netns, link) {
            Path::slow_since(
                Why::RateRules,
                format!("this rule must see every packet (see allow_rate_rules): {rule}"),
            )
        } else if self.netns.sysctls.counts_each_packet(self.config.allow_accounting) {
            Path::slow(Why::Accounting)
        } else {
            Path::Fast
        };
        (Some(link.ifindex), path)
    }

    /// Which path the IPv6 packets of a bridge may take, if its packets may take the fast one.
    fn judge_ipv6(&self, bridge: &Link) -> Path {
        match self.rules6.concerning(self.netns, bridge) {
            Some(rule) => Path::slow_since(
                Why::RateRules,
                format!("this rule must see every packet of IPv6 (see allow_rate_rules): {rule}"),
            ),
            None => Path::Fast,
        }
    }

    /// Which path an endpoint's packets may take on a network with this one; on the fast path it becomes a device.
    fn add_endpoint(&mut self, endpoint: &Endpoint, network: &Path) -> Path {
        let Some(link) = self.netns.links.get(&endpoint.veth) else {
            return Path::slow(Why::NoVeth);
        };
        if !link.up {
            return Path::slow_since(Why::VethDown, format!("its veth {} is down", link.name));
        }
        let foreign =
            tc::foreign_on_ingress(self.netns, self.facts, link).or_else(|| tc::generic_xdp_inside(self.netns, link));
        let path = match foreign.map(|text| Path::slow_since(Why::ForeignPrograms, text)) {
            Some(path) if network.is_fast() => path,
            _ => network.clone(),
        };
        let mac = endpoint.mac.filter(|mac| !mac.is_multicast());
        let path = match mac {
            Some(mac) => self.unless_flooded(path, link, mac),
            None => path,
        };
        if !path.is_fast() && !endpoint.virtual_addresses {
            return path;
        }
        let Some(mac) = mac else {
            return Path::slow(Why::NoMac);
        };
        if self.devices.len() + RESERVED_DEVICES >= MAX_DEVICES as usize {
            return Path::slow(Why::TooManyDevices);
        }
        let mut flags = if path.is_fast() { Device::ACCELERATED } else { 0 };
        let bridge = link.master.and_then(|master| self.netns.links.get(&master));
        if path.is_fast() && bridge.is_some_and(|bridge| self.judge_ipv6(bridge).is_fast()) {
            flags |= Device::IPV6;
        }
        if link.peer_in_other_netns() {
            flags |= Device::PEER_IN_OTHER_NETNS;
        }
        if tc::must_pass_egress(self.netns, self.facts, link, mac) {
            flags |= Device::EGRESS_QDISC;
        }
        if endpoint.any_source || (endpoint.address4.is_none() && endpoint.address6.is_none()) {
            flags |= Device::ANY_SOURCE;
        }
        let spec = DeviceSpec {
            name: link.name.clone(),
            kind: Kind::Endpoint,
            flags,
            mac,
            address4: endpoint.address4,
            address6: endpoint.address6,
            identity: Identity::of(link),
        };
        self.devices.insert(self.netns.key(link.ifindex), spec);
        path
    }

    /// Where a bridge learns nothing of who is behind a port (`BR_LEARNING`, `BR_PORT_LOCKED`, an ageing time of 0;
    /// `net/bridge/br_input.c` and `br_fdb.c`), frames for it go to all ports unless somebody has told the bridge, and others
    /// may wait for their copy.
    fn unless_flooded(&self, path: Path, link: &Link, mac: Mac) -> Path {
        let bridge = link.master.and_then(|master| self.netns.links.get(&master));
        let forgets =
            bridge.is_some_and(|bridge| matches!(bridge.kind, LinkKind::Bridge(info) if info.ageing_time == 0));
        let what = match link.port {
            _ if forgets => "its bridge forgets at once (ageing_time 0)",
            Some(port) if port.locked => "its port of the bridge is locked",
            Some(port) if !port.learning => "its port of the bridge is set not to learn",
            _ => return path,
        };
        let is_told = self.netns.fdb.iter().any(|entry| {
            entry.ifindex == link.ifindex
                && entry.mac == mac
                && entry.state == FdbState::Static
                && entry.bridge.is_some()
        });
        if is_told || !path.is_fast() {
            return path;
        }
        Path::slow_since(
            Why::NotLearned,
            format!("{what}, and no static entry leads to {mac} behind {}", link.name),
        )
    }

    /// Where UDP may be used before it is answered, and where ICMP echo may be used: at both of its ends, so an uplink has no
    /// say of its own.
    fn allow_what_rules_leave(&mut self) {
        let is_read = self.netns.ruleset.unreadable.is_none() || self.config.allow_rate_rules;
        let concerning = |concerns: &dyn Fn(&Link) -> bool| -> BTreeSet<u32> {
            let links = self.netns.links.values();
            let bridges = links.filter(|link| matches!(link.kind, LinkKind::Bridge(_) | LinkKind::Openvswitch));
            bridges
                .filter(|bridge| !is_read || concerns(bridge))
                .map(|bridge| bridge.ifindex)
                .collect()
        };
        let unreplied = concerning(&|bridge| self.rules.concerning_unreplied(self.netns, bridge).is_some());
        let icmp = concerning(&|bridge| self.rules.concerning_icmp(self.netns, bridge).is_some());
        for (key, spec) in &mut self.devices {
            let bridge = match spec.kind {
                Kind::Bridge => Some(key.ifindex),
                // An uplink as a port of one is a VXLAN device, or leads to another bridge.
                Kind::Endpoint | Kind::Uplink => spec.identity.master,
            };
            for (flag, judged) in [(Device::ONE_WAY, &unreplied), (Device::ECHO, &icmp)] {
                // Whom nobody has heard of a bridge looks for everywhere: what it sends to such a port may be for another.
                let is_flooded = flag == Device::ONE_WAY && spec.kind == Kind::Uplink && bridge.is_some();
                if !is_flooded && !bridge.is_some_and(|bridge| judged.contains(&bridge)) {
                    spec.flags |= flag;
                }
            }
        }
    }

    /// The bridges that have endpoints on the fast path, and what that means for the host's own packets.
    fn add_bridges(&mut self, networks: &mut [NetworkReport]) {
        for network in networks {
            network.host = network.path.clone();
            network.ipv6 = network.path.clone();
            let link = network
                .bridge_ifindex
                .and_then(|ifindex| self.netns.links.get(&ifindex));
            let Some(link) = link else { continue };
            if network.path.is_fast() {
                network.ipv6 = self.judge_ipv6(link);
            }
            let runtime = self.host.networks.get(&NetworkId(network.id.clone()));
            network.deciders = deciders::of_bridge(self.netns, link, runtime, deciders::Family::V4);
            network.deciders6 = deciders::of_bridge(self.netns, link, runtime, deciders::Family::V6);
            if matches!(link.kind, LinkKind::Openvswitch) {
                if network.path.is_fast() {
                    network.host = Path::slow(Why::OvsHost);
                }
                continue;
            }
            if !network.endpoints.iter().any(|endpoint| endpoint.path.is_fast()) {
                continue;
            }
            let mut bridge = plain(link, Kind::Bridge);
            if !network.ipv6.is_fast() || self.rules6.concerning_host(self.netns, link).is_some() {
                bridge.flags &= !Device::IPV6;
            }
            if deciders::only_ip_translates(self.netns, link) {
                bridge.flags |= Device::IP_TRANSLATES;
            }
            if let Some(rule) = self.rules.concerning_host(self.netns, link) {
                // Its own packets and those for it stay slow. What it forwards still has to be seen passing.
                bridge.flags &= !Device::ACCELERATED;
                network.host = Path::slow_since(
                    Why::RateRules,
                    format!("this rule must see every packet from and to the host (see allow_rate_rules): {rule}"),
                );
            }
            self.devices.insert(self.netns.key(link.ifindex), bridge);
        }
    }
}

/// A device that no container owns.
fn plain(link: &Link, kind: Kind) -> DeviceSpec {
    DeviceSpec {
        name: link.name.clone(),
        kind,
        flags: Device::ACCELERATED | Device::IPV6,
        mac: Mac::default(),
        address4: None,
        address6: None,
        identity: Identity::of(link),
    }
}

/// Whether a veth that is up has no carrier: its other end is down.
fn is_cut_off(veth: &Link) -> bool {
    veth.up && !veth.lower_up
}

#[cfg(test)]
mod tests;
