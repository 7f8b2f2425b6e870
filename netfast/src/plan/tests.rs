//! The plan of worlds made by hand: one whole as text, then each reason for the slow path.

use std::{collections::BTreeMap, fmt::Write as _};

use super::*;
use crate::{
    host::{
        Address, AddressScope, Attachment, BridgeInfo, BridgePort, Container, ContainerId, ContainerInterface,
        FdbEntry, FdbState, IpNet, LinkKind, Neighbour, NeighbourKey, NeighbourState, NetnsId, Network, NetworkId,
        NetworkMode, Peer, PortState, Qdisc, Route, RouteType, RuleFinding, RuleSource, Severity, TcFilter, Verdict,
        Way, Xdp,
    },
    plan::report::Slow,
    report::golden::assert_golden,
};

pub(super) mod build;
mod flooding;
mod macvlan;
mod openvswitch;
mod pace;
mod reasons;
mod rules;
mod sandbox;
mod segments;
mod transit;
mod tunnels;
mod unjudged;
mod uplinks;
mod xdp;

use build::*;

/// An interface of the namespace that is planned.
const fn key(ifindex: u32) -> DeviceKey {
    DeviceKey::served(ifindex)
}

/// Everything that is decided, as text.
fn text(desired: &Desired) -> String {
    let mut text = String::new();
    for network in &desired.networks {
        let bridge = network.bridge.as_deref().unwrap_or("-");
        let path = path_text(&network.path);
        writeln!(
            text,
            "network {} ({}, bridge {bridge}): {path}",
            network.name, network.driver
        )
        .expect("text");
        for endpoint in &network.endpoints {
            let (veth, mac) = (
                endpoint.veth.as_deref().unwrap_or("-"),
                endpoint.mac.as_deref().unwrap_or("-"),
            );
            let (name, addresses) = (&endpoint.container, endpoint.addresses.join(" "));
            let path = path_text(&endpoint.path);
            writeln!(text, "  endpoint {name} {veth} {mac} {addresses}: {path}").expect("text");
        }
    }
    for (ifindex, spec) in &desired.devices {
        let flags = [
            (Device::ACCELERATED, "accelerated"),
            (Device::PEER_IN_OTHER_NETNS, "peer-elsewhere"),
            (Device::EGRESS_QDISC, "queued"),
            (Device::ONE_WAY, "one-way"),
            (Device::ECHO, "echo"),
            (Device::ANY_SOURCE, "any-source"),
            (Device::IP_TRANSLATES, "ip-translates"),
        ];
        let flags: Vec<&str> = flags
            .iter()
            .filter(|(flag, _)| spec.flags & flag != 0)
            .map(|(_, name)| *name)
            .collect();
        write!(
            text,
            "device {ifindex} {} {:?} {}",
            spec.name,
            spec.kind,
            flags.join(" ")
        )
        .expect("text");
        if spec.kind == Kind::Endpoint {
            let ip = |ip: Option<String>| ip.unwrap_or_else(|| "-".into());
            let (v4, v6) = (
                spec.address4.map(|ip| ip.to_string()),
                spec.address6.map(|ip| ip.to_string()),
            );
            write!(text, " {} {} {}", spec.mac, ip(v4), ip(v6)).expect("text");
        }
        text.push('\n');
    }
    let control = desired.control(0);
    writeln!(text, "use {} learn {}", control.may_use(), control.may_learn()).expect("text");
    text
}

fn path_text(path: &Path) -> String {
    match path {
        Path::Fast => "fast".into(),
        Path::Slow(Slow { why, text }) => format!("slow, {why:?}: {text}"),
    }
}

#[test]
fn a_host_with_one_of_each() {
    assert_golden(
        "plan.txt",
        &text(&plan(&docker_host(), &Config::default(), &watching())),
    );
}

#[test]
fn the_same_host_without_a_runtime() {
    let config = Config {
        runtime: Runtime::None,
        ..Config::default()
    };
    let host = Host {
        networks: BTreeMap::new(),
        containers: BTreeMap::new(),
        ..docker_host()
    };
    assert_golden("plan-bare.txt", &text(&plan(&host, &config, &watching())));
}

#[test]
fn without_a_runtime_what_is_known_of_a_silent_container_stays() {
    let config = Config {
        runtime: Runtime::None,
        ..Config::default()
    };
    let mut host = Host {
        networks: BTreeMap::new(),
        containers: BTreeMap::new(),
        ..docker_host()
    };
    let before = plan(&host, &config, &watching());
    let endpoints = before.devices.iter().filter(|(_, spec)| spec.kind == Kind::Endpoint);
    let facts = Facts {
        endpoints: endpoints.map(|(ifindex, spec)| (*ifindex, spec.device(0))).collect(),
        ..watching()
    };
    host.served_mut().fdb.clear();
    host.served_mut().neighbours.clear();
    assert_eq!(plan(&host, &config, &facts).devices, before.devices);
}

#[test]
fn epochs_end_for_what_verdicts_depend_on_and_for_nothing_else() {
    let inputs = |host: &Host| plan(host, &Config::default(), &watching()).inputs;
    let host = docker_host();
    let causes = |change: &dyn Fn(&mut Host)| {
        let mut changed = host.clone();
        change(&mut changed);
        let causes = inputs(&host).causes(&inputs(&changed));
        causes.into_iter().map(Cause::name).collect::<Vec<_>>().join(" ")
    };
    let lan = NeighbourKey {
        ifindex: UPLINK,
        ip: ip("192.168.1.1"),
    };
    let check = |what: &str, expected: &str, change: &dyn Fn(&mut Host)| assert_eq!(causes(change), expected, "{what}");
    check("nothing", "", &|_| {});
    check("a transaction", "rules", &|host| {
        host.served_mut().ruleset.nft_generation = Some(8);
    });
    check("a listener", "rules", &|host| {
        host.served_mut().ruleset.nfqueue_bound.insert(3);
    });
    check("a route", "routes", &|host| {
        host.served_mut().routes.pop_first();
    });
    check("an address", "addresses", &|host| {
        host.served_mut().addresses.pop_first();
    });
    check("link-local ones", "", &|host| {
        host.served_mut().addresses.insert(address(BRIDGE, "fe80::1/64"));
        host.served_mut().routes.insert(route(BRIDGE, "fe80::/64"));
    });
    check("the router's MAC address", "neighbours", &|host| {
        host.served_mut().neighbours.get_mut(&lan).expect("the router").mac = Some(mac(99));
    });
    check("the router is gone", "neighbours", &|host| {
        host.served_mut().neighbours.remove(&lan);
    });
    check("the router has not answered for a while", "", &|host| {
        host.served_mut().neighbours.get_mut(&lan).expect("the router").state = NeighbourState::Stale;
    });
    check("somebody new on the LAN", "", &|host| {
        let key = NeighbourKey {
            ifindex: UPLINK,
            ip: ip("192.168.1.77"),
        };
        host.served_mut().neighbours.insert(key, neighbour(77));
    });
    check("a container's neighbour entry ages", "", &|host| {
        host.served_mut().neighbours.retain(|key, _| key.ifindex != BRIDGE);
    });
    let container = NeighbourKey {
        ifindex: BRIDGE,
        ip: ip("172.17.0.2"),
    };
    // It concerns that container alone, or any container could slow down all others.
    check("a container's neighbour entry has another MAC address", "", &|host| {
        host.served_mut().neighbours.insert(container, neighbour(99));
    });
    let mut stolen = host.clone();
    stolen.served_mut().neighbours.insert(container, neighbour(99));
    assert_eq!(inputs(&host).outdated(&inputs(&stolen)), [key(VETH_WEB)].into());
    assert_eq!(inputs(&host).outdated(&inputs(&host)), [].into());
    check("a container comes", "", &|host| {
        let veth = link(40, "veth9", veth(2, Some(9)));
        host.served_mut().links.insert(
            40,
            Link {
                master: Some(BRIDGE),
                ..veth
            },
        );
    });
    check("a container goes", "", &|host| {
        host.containers.pop_first();
        host.served_mut().links.remove(&VETH_WEB);
    });
    check("forwarding", "sysctls", &|host| {
        host.served_mut().sysctls.ip_forward = Some(false);
    });
    check("what no verdict on a flow depends on", "", &|host| {
        host.served_mut().sysctls.conntrack_tcp_be_liberal = Some(true);
    });
    check("a bridge calls iptables", "bridges", &|host| {
        let bridge = host.served_mut().links.get_mut(&BRIDGE).expect("the bridge");
        bridge.kind = LinkKind::Bridge(BridgeInfo {
            nf_call_iptables: true,
            ..BridgeInfo::default()
        });
    });
    check("a bridge gets another name", "interface names", &|host| {
        host.served_mut().links.get_mut(&BRIDGE).expect("the bridge").name = "br-other".into();
    });
    check("an uplink gets another name", "interface names", &|host| {
        host.served_mut().links.get_mut(&UPLINK).expect("the uplink").name = "lan0".into();
    });
    check("a bridge comes", "", &|host| {
        host.served_mut()
            .links
            .insert(50, link(50, "br-new", LinkKind::Bridge(BridgeInfo::default())));
    });
}
