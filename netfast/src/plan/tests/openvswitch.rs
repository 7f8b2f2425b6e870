//! Containers at ports of Open vSwitch and on bridges that no runtime lists, and bridges joined by a veth pair.

use super::{reasons::after, *};
use crate::host::VxlanInfo;

const DATAPATH: u32 = 40;
const VETH_OVS: u32 = 41;

/// A datapath with a container that the runtime knows to be on no network, as `ovs-docker` leaves it.
fn with_datapath(host: &mut Host) {
    let mut own = container("switched", "none", "10.1.0.5/24", VETH_OVS);
    own.network_mode = NetworkMode::None;
    add(host, own, DATAPATH);
    let netns = host.served_mut();
    let datapath = Link {
        up: false,
        ..link(DATAPATH, "ovs-system", LinkKind::Openvswitch)
    };
    netns.links.insert(DATAPATH, datapath);
    netns.fdb.retain(|entry| entry.ifindex != VETH_OVS);
}

fn network<'a>(desired: &'a Desired, name: &str) -> Option<&'a NetworkReport> {
    desired.networks.iter().find(|network| network.name == name)
}

fn port(desired: &Desired, ifindex: u32) -> Option<Kind> {
    desired.devices.get(&key(ifindex)).map(|spec| spec.kind)
}

#[test]
fn a_container_at_a_port_is_an_endpoint_whose_packets_the_switch_decides_about() {
    let desired = after(|host, _, _| with_datapath(host));
    let network = network(&desired, "ovs-system").expect("it is told");
    assert_eq!((network.driver.as_str(), network.path.is_fast()), ("openvswitch", true));
    let [endpoint] = &network.endpoints[..] else {
        panic!("{:?}", network.endpoints)
    };
    assert!(
        endpoint.container == "switched" && endpoint.path.is_fast(),
        "{endpoint:?}"
    );
    assert_eq!(port(&desired, VETH_OVS), Some(Kind::Endpoint));
    assert_eq!(port(&desired, DATAPATH), None, "the host's packets come in another run");
    let said = |path: &Path| matches!(path, Path::Slow(slow) if slow.why == Why::OvsHost);
    assert!(said(&network.host), "{:?}", network.host);
    let is_decided = network.deciders.within.as_deref() == Some("the flows of Open vSwitch");
    assert!(is_decided, "{:?}", network.deciders);
    let direct = endpoint.direct.as_ref();
    assert!(direct.is_some_and(|path| !path.is_fast()), "{direct:?}");
}

#[test]
fn without_the_watch_it_is_slow_and_told() {
    let desired = after(|host, _, facts| {
        with_datapath(host);
        facts.ovs_off = Some("no such tracepoint".into());
    });
    let network = network(&desired, "ovs-system").expect("it is told");
    let is_told = |path: &Path| matches!(path, Path::Slow(slow) if slow.why == Why::OvsUnwatched && slow.text.contains("tracepoint"));
    assert!(
        is_told(&network.path) && is_told(&network.endpoints[0].path),
        "{network:?}"
    );
    assert_eq!(port(&desired, VETH_OVS), None);
}

#[test]
fn other_ports_of_a_datapath_lead_off_the_host_but_not_a_tunnels() {
    let with = |kind: LinkKind| {
        after(move |host, config, _| {
            config.tunnels = true;
            with_datapath(host);
            let card = Link {
                master: Some(DATAPATH),
                ..link(42, "eth7", kind)
            };
            host.served_mut().links.insert(42, card);
        })
    };
    assert_eq!(port(&with(LinkKind::Physical), 42), Some(Kind::Uplink));
    assert_eq!(port(&with(LinkKind::Openvswitch), 42), None);
    let tunnel = with(LinkKind::Vxlan(VxlanInfo {
        external: true,
        port: 4789,
        ..VxlanInfo::default()
    }));
    assert_eq!(port(&tunnel, 42), None);
    let [report] = &tunnel.tunnel_reports[..] else {
        panic!("{:?}", tunnel.tunnel_reports)
    };
    assert!(
        report.why.as_deref().is_some_and(|why| why.contains("external")),
        "{report:?}"
    );
}

#[test]
fn a_bridge_that_the_runtime_does_not_list_is_told_by_its_containers() {
    let desired = after(|host, _, _| {
        let mut own = container("pod", "none", "10.32.0.1/12", VETH_OVS);
        own.network_mode = NetworkMode::None;
        add(host, own, DATAPATH);
        let weave = link(DATAPATH, "weave", LinkKind::Bridge(BridgeInfo::default()));
        host.served_mut().links.insert(DATAPATH, weave);
    });
    let network = network(&desired, "weave").expect("it is told");
    assert_eq!((network.driver.as_str(), network.endpoints.len()), ("bridge", 1));
    assert_eq!(port(&desired, VETH_OVS), Some(Kind::Endpoint));
    assert_eq!(port(&desired, DATAPATH), Some(Kind::Bridge));
    assert!(
        after(|_, _, _| ())
            .networks
            .iter()
            .all(|network| network.name != "weave")
    );
}

/// weave: `vethwe-bridge` is a port of its bridge, and its other end one of its datapath.
#[test]
fn a_veth_pair_between_two_bridges_leads_off_the_one_with_containers() {
    const ENDS: [u32; 2] = [43, 44];
    let with = |change: &dyn Fn(&mut Link)| {
        after(|host, _, _| {
            let netns = host.served_mut();
            netns
                .links
                .insert(DATAPATH, link(DATAPATH, "datapath", LinkKind::Openvswitch));
            for (index, peer, master) in [(ENDS[0], ENDS[1], BRIDGE), (ENDS[1], ENDS[0], DATAPATH)] {
                let mut end = Link {
                    master: Some(master),
                    ..link(index, &format!("vethwe{index}"), veth(peer, None))
                };
                end.port = (master == BRIDGE).then(|| BridgePort {
                    state: PortState::Forwarding,
                    ..BridgePort::default()
                });
                change(&mut end);
                netns.links.insert(index, end);
            }
        })
    };
    let desired = with(&|_| ());
    assert_eq!(ENDS.map(|end| port(&desired, end)), [Some(Kind::Uplink), None]);
    let one_way = desired.devices[&key(ENDS[0])].flags & Device::ONE_WAY;
    assert_eq!(one_way, 0, "the bridge floods what it has not heard of");
    let locked = with(&|end| {
        if let Some(port) = &mut end.port {
            port.locked = true;
        }
    });
    assert_eq!(port(&locked, ENDS[0]), None);
    let alone = with(&|end| {
        if end.ifindex == ENDS[1] {
            end.master = None;
        }
    });
    assert_eq!(port(&alone, ENDS[0]), None);
}
