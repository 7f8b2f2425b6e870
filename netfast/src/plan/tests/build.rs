//! Worlds made by hand.

use super::*;
use crate::host::NftChain;

/// docker0.
pub const BRIDGE: u32 = 3;
/// The veth of the container web.
pub const VETH_WEB: u32 = 10;
/// The uplink.
pub const UPLINK: u32 = 2;

pub fn ip(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

pub fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

pub fn mac(number: u8) -> Mac {
    Mac([2, 0x42, 0, 0, 0, number])
}

/// What a kernel with everything tells of the BPF subsystem.
pub fn watching() -> Facts {
    Facts {
        queue_watch: true,
        ..Facts::default()
    }
}

pub fn link(ifindex: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        mac: u8::try_from(ifindex).ok().map(mac),
        ..Link::sample(ifindex, name, kind)
    }
}

pub fn veth(peer: u32, netns: Option<i32>) -> LinkKind {
    LinkKind::Veth {
        peer_ifindex: Some(peer),
        peer_netns: netns,
    }
}

pub fn address(ifindex: u32, text: &str) -> Address {
    Address {
        ifindex,
        net: net(text),
        peer: None,
        scope: AddressScope::Universe,
    }
}

pub fn route(oif: u32, dst: &str) -> Route {
    Route {
        table: 254,
        dst: net(dst),
        priority: 0,
        gateway: None,
        oif: Some(oif),
        kind: RouteType::Unicast,
        protocol: 3,
        source: None,
        mtu: None,
        multipath: false,
        has_programs: false,
    }
}

pub fn neighbour(number: u8) -> Neighbour {
    Neighbour {
        mac: Some(mac(number)),
        state: NeighbourState::Reachable,
    }
}

pub fn network(name: &str, driver: &str, bridge: Option<&str>) -> Network {
    Network {
        id: NetworkId(format!("id-of-{name}")),
        name: name.into(),
        driver: driver.into(),
        scope: "local".into(),
        bridge_name: bridge.map(Into::into),
        ..Network::default()
    }
}

/// A container with one attachment; `veth` is the index of its host side, and the last byte of its MAC address.
pub fn container(name: &str, network: &str, address: &str, veth: u32) -> Container {
    let mac = u8::try_from(veth).ok().map(mac);
    Container {
        id: ContainerId(format!("id-of-{name}")),
        name: name.into(),
        pid: 1000 + veth,
        network_mode: NetworkMode::Network(network.into()),
        attachments: vec![Attachment {
            network: NetworkId(format!("id-of-{network}")),
            network_name: network.into(),
            ipv4: Some(net(address)),
            mac,
            ..Attachment::default()
        }],
        netns: Some(NetnsId {
            dev: 4,
            ino: u64::from(veth),
        }),
        interfaces: vec![ContainerInterface {
            name: "eth0".into(),
            ifindex: 2,
            mac,
            host_ifindex: Some(veth),
            up: true,
            kind: "veth".into(),
            addresses: vec![net(address)],
        }],
        ..Container::default()
    }
}

/// Puts a container, its veth and what the bridge and the host have learned of it into a host.
pub fn add(host: &mut Host, container: Container, bridge: u32) {
    let endpoint = &container.attachments[0];
    if let Some(interface) = container.interfaces.first()
        && let (Some(index), Some(mac), Some(address)) = (interface.host_ifindex, interface.mac, endpoint.ipv4)
    {
        let port = link(
            index,
            &format!("veth{index}"),
            veth(2, Some(i32::try_from(index).expect("small"))),
        );
        host.served_mut().links.insert(
            index,
            Link {
                master: Some(bridge),
                ..port
            },
        );
        let peer = Peer {
            mtu: 1500,
            mac: Some(mac),
            ..Peer::default()
        };
        host.served_mut().peers.insert(index, peer);
        host.served_mut().fdb.insert(FdbEntry {
            bridge: Some(bridge),
            ifindex: index,
            mac,
            vlan: None,
            remote: None,
            state: FdbState::Learned,
        });
        let key = NeighbourKey {
            ifindex: bridge,
            ip: address.addr,
        };
        let found = Neighbour {
            mac: Some(mac),
            state: NeighbourState::Stale,
        };
        host.served_mut().neighbours.insert(key, found);
    }
    host.containers.insert(container.id.clone(), container);
}

/// A host with a LAN, docker0, a user-defined network, and one of each network that is not accelerated.
pub fn docker_host() -> Host {
    let mut host = Host::default();
    let bridge = || LinkKind::Bridge(BridgeInfo::default());
    for link in [
        link(1, "lo", LinkKind::Loopback),
        link(UPLINK, "eth0", LinkKind::Physical),
        link(BRIDGE, "docker0", bridge()),
        link(4, "br-app", bridge()),
        link(5, "eth1", LinkKind::Physical),
        link(6, "dummy0", LinkKind::Dummy),
        Link {
            arp_type: 65534,
            ..link(7, "wg0", LinkKind::Wireguard)
        },
    ] {
        host.served_mut().links.insert(link.ifindex, link);
    }
    for (ifindex, text) in [
        (1, "127.0.0.1/8"),
        (UPLINK, "192.168.1.10/24"),
        (BRIDGE, "172.17.0.1/16"),
        (4, "172.18.0.1/16"),
        (5, "fe80::5/64"),
        (6, "10.0.0.1/32"),
        (7, "10.8.0.1/24"),
    ] {
        host.served_mut().addresses.insert(address(ifindex, text));
    }
    host.served_mut().routes.insert(route(UPLINK, "0.0.0.0/0"));
    host.served_mut().routes.insert(route(BRIDGE, "172.17.0.0/16"));
    let router = NeighbourKey {
        ifindex: UPLINK,
        ip: ip("192.168.1.1"),
    };
    host.served_mut().neighbours.insert(router, neighbour(1));
    host.served_mut().sysctls.ip_forward = Some(true);
    host.served_mut().ruleset.nft_generation = Some(7);
    for network in [
        network("bridge", "bridge", Some("docker0")),
        network("app", "bridge", Some("br-app")),
        network("host", "host", None),
        network("none", "null", None),
        network("lan", "macvlan", None),
        network("swarm", "overlay", None),
        network("gone", "bridge", Some("br-gone")),
    ] {
        host.networks.insert(network.id.clone(), network);
    }
    add(&mut host, container("web", "bridge", "172.17.0.2/16", VETH_WEB), BRIDGE);
    add(&mut host, container("db", "app", "172.18.0.2/16", 11), 4);
    let mut router = container("router", "app", "172.18.0.3/16", 12);
    router.labels.insert("netfast.any-source".into(), "true".into());
    add(&mut host, router, 4);
    let mut quiet = container("quiet", "app", "172.18.0.4/16", 13);
    quiet.labels.insert("netfast.enable".into(), "false".into());
    add(&mut host, quiet, 4);
    for (name, on) in [("agent", "host"), ("batch", "none"), ("printer", "lan")] {
        let mut container = container(name, on, "192.168.1.99/24", 20);
        container.interfaces.clear();
        container.attachments[0].ipv4 = None;
        add(&mut host, container, 0);
    }
    let mut sidecar = container("sidecar", "app", "172.18.0.2/16", 11);
    sidecar.attachments.clear();
    sidecar.network_mode = NetworkMode::Container(ContainerId("id-of-db".into()));
    host.containers.insert(sidecar.id.clone(), sidecar);
    host
}

/// A base chain of nftables.
pub fn chain(family: &str, hook: u32, device: Option<&str>) -> NftChain {
    NftChain {
        family: family.into(),
        table: "filter".into(),
        name: "c".into(),
        kind: "filter".into(),
        hook,
        priority: 0,
        device: device.map(Into::into),
        policy_drop: false,
    }
}
