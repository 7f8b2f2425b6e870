//! The namespace of an overlay network.

use super::*;
use crate::{
    config::{Runtime, Sandbox},
    host::VxlanInfo,
};

const VXLAN: u32 = 30;
const MAC: &str = "02:42:0a:00:09:04";

/// As Docker makes it, with a container that the bridge has heard from.
fn planned(sandbox: Option<Sandbox>) -> Desired {
    let mut host = Host::default();
    let netns = host.served_mut();
    netns
        .links
        .insert(BRIDGE, link(BRIDGE, "br0", LinkKind::Bridge(BridgeInfo::default())));
    let port = Some(BridgePort {
        state: PortState::Forwarding,
        learning: true,
        ..BridgePort::default()
    });
    let device = VxlanInfo {
        vni: 4097,
        port: 4789,
        answers: true,
        ..VxlanInfo::default()
    };
    let veth = LinkKind::Veth {
        peer_ifindex: Some(2),
        peer_netns: Some(1),
    };
    for (ifindex, name, kind) in [(VXLAN, "vxlan0", LinkKind::Vxlan(device)), (7, "veth0", veth)] {
        let link = Link {
            master: Some(BRIDGE),
            port,
            ..link(ifindex, name, kind)
        };
        netns.links.insert(ifindex, link);
    }
    netns.fdb.insert(FdbEntry {
        ifindex: 7,
        mac: MAC.parse().expect("a MAC address"),
        bridge: Some(BRIDGE),
        vlan: None,
        remote: None,
        state: FdbState::Learned,
    });
    let config = match sandbox {
        Some(sandbox) => Config::default().in_sandbox(sandbox),
        None => Config {
            runtime: Runtime::None,
            ..Config::default()
        },
    };
    plan(&host, &config, &Facts::default())
}

#[test]
fn its_vxlan_device_leads_off_the_host_and_the_kernel_writes_the_headers() {
    let desired = planned(Some(Sandbox::default()));
    let kinds: Vec<_> = desired
        .devices
        .iter()
        .map(|(key, spec)| (key.ifindex, spec.kind))
        .collect();
    assert_eq!(
        kinds,
        [(BRIDGE, Kind::Bridge), (7, Kind::Endpoint), (VXLAN, Kind::Uplink)]
    );
    assert!(desired.tunnels.is_empty());
    let [report] = &desired.tunnel_reports[..] else {
        panic!("one tunnel");
    };
    assert_eq!(
        report.why.as_deref(),
        Some("its outer packets leave by another network namespace")
    );
    // In the host's own namespace that is a matter of the key `tunnels`.
    assert!(!planned(None).devices.contains_key(&key(VXLAN)));
}

#[test]
fn a_container_that_is_switched_off_is_known_by_its_mac_address() {
    let desired = planned(Some(Sandbox {
        network: "ov".into(),
        off: [MAC.to_owned()].into(),
    }));
    assert!(desired.devices.is_empty(), "{:?}", desired.devices);
    assert_eq!(desired.networks[0].endpoints[0].path, Path::slow(Why::DisabledByLabel));
}

#[test]
fn its_configuration_is_the_hosts_but_for_what_is_of_the_host() {
    let host = Config {
        flows: 65_536,
        revalidate_ms: 500,
        allow_rate_rules: true,
        tunnels: true,
        uplinks: ["eth0".to_owned()].into(),
        disabled_networks: ["br0".to_owned()].into(),
        ..Config::default()
    };
    let inside = host.in_sandbox(Sandbox::default());
    assert_eq!(
        (inside.runtime, inside.flows, inside.metrics),
        (Runtime::None, 8192, None)
    );
    assert!(inside.uplinks.is_empty() && inside.disabled_networks.is_empty() && !inside.tunnels);
    assert!(inside.allow_rate_rules && inside.revalidate_ms == 500);
    let text = serde_json::to_string(&inside).expect("JSON");
    assert_eq!(serde_json::from_str::<Config>(&text).expect("the same"), inside);
    assert_eq!(
        Config { flows: 1024, ..host }.in_sandbox(Sandbox::default()).flows,
        1024
    );
}

/// The second interface of a container of an overlay network, which the engine does not tell of.
#[test]
fn the_way_out_of_an_overlay_network_is_an_endpoint() {
    const GATEWAY: u32 = 40;
    let planned = |edit: &dyn Fn(&mut Host)| {
        let mut host = docker_host();
        let netns = host.served_mut();
        netns.links.insert(
            GATEWAY,
            link(GATEWAY, "docker_gwbridge", LinkKind::Bridge(BridgeInfo::default())),
        );
        let network = network("docker_gwbridge", "bridge", Some("docker_gwbridge"));
        host.networks.insert(network.id.clone(), network);
        let mut task = container("task", "swarm", "172.20.0.3/16", 41);
        task.attachments[0].ipv4 = Some(net("10.0.1.5/24"));
        add(&mut host, task, GATEWAY);
        let mut beside = container("beside", "swarm", "172.20.0.3/16", 41);
        beside.attachments.clear();
        beside.network_mode = NetworkMode::Container(ContainerId("id-of-task".into()));
        host.containers.insert(beside.id.clone(), beside);
        edit(&mut host);
        let desired = plan(&host, &Config::default(), &watching());
        let mut networks = desired.networks.into_iter();
        let network = networks
            .find(|network| network.name == "docker_gwbridge")
            .expect("it is listed");
        let device = desired.devices.get(&key(41)).map(|spec| (spec.mac, spec.address4));
        let endpoints = network.endpoints.into_iter();
        let endpoints: Vec<_> = endpoints.map(|one| (one.container, one.path.is_fast())).collect();
        (endpoints, device)
    };
    let (endpoints, device) = planned(&|_| ());
    assert_eq!(endpoints, [("task".to_owned(), true)]);
    assert_eq!(device, Some((mac(41), Some(Ipv4Addr::new(172, 20, 0, 3)))));
    let (endpoints, device) = planned(&|host| {
        let task = host
            .containers
            .get_mut(&ContainerId("id-of-task".into()))
            .expect("it is there");
        task.labels.insert("netfast.enable".into(), "false".into());
    });
    assert_eq!((endpoints, device), (vec![("task".to_owned(), false)], None));
    // Another bridge on which somebody has put a container by hand is none.
    let (endpoints, device) = planned(&|host| {
        let id = NetworkId("id-of-docker_gwbridge".into());
        host.networks.get_mut(&id).expect("it is there").name = "mine".into();
        let named = network("docker_gwbridge", "bridge", None);
        host.networks.insert(
            NetworkId("other".into()),
            Network {
                id: NetworkId("other".into()),
                ..named
            },
        );
    });
    assert_eq!((endpoints, device), (Vec::new(), None));
}
