//! Each thing that judges packets within a bridge, and that it keeps them from being forwarded directly there, and only there.

use netfast_common::flow::Exit;

use super::{reasons::after as planned, *};
use crate::{host::NftChain, plan::DirectPort};

/// Why packets of web, on docker0, and of db, on br-app, are not forwarded directly; `None`: they are.
type Whys = [Option<Why>; 2];

/// A change, with its name.
type Edit<T> = (&'static str, fn(&mut T));

fn set_up(host: &mut Host, config: &mut Config) {
    config.direct = true;
    host.served_mut().sysctls.bridge_nf_call_iptables = Some(false);
    for ifindex in [VETH_WEB, 11, 12, 13] {
        let link = host.served_mut().links.get_mut(&ifindex).expect("a veth");
        link.port = Some(BridgePort {
            state: PortState::Forwarding,
            ..BridgePort::default()
        });
    }
}

fn after(change: impl FnOnce(&mut Host, &mut Config, &mut Facts)) -> Desired {
    planned(|host, config, facts| {
        set_up(host, config);
        change(host, config, facts);
    })
}

fn whys(desired: &Desired) -> Whys {
    let why = |path: &Option<Path>| match path.as_ref().expect("it has a bridge") {
        Path::Fast => None,
        Path::Slow(slow) => Some(slow.why),
    };
    ["web", "db"].map(|name| {
        let mut all = desired
            .networks
            .iter()
            .flat_map(|network| network.endpoints.iter().map(move |endpoint| (network, endpoint)));
        let (network, endpoint) = all
            .find(|(_, endpoint)| endpoint.container == name)
            .expect("the container");
        let found = why(&endpoint.direct);
        // What is said of a network holds for its endpoints; and only ports of which nothing is said are in the map.
        let of_network = why(&network.direct);
        assert!(of_network.is_none() || of_network == found, "{name}");
        let key = endpoint.device().expect("a veth");
        assert_eq!(desired.direct.contains_key(&key), found.is_none(), "{name}");
        found
    })
}

/// Checks what a change of the host means for both.
fn check(what: &str, wanted: Whys, change: impl FnOnce(&mut Host)) {
    assert_eq!(whys(&after(|host, _, _| change(host))), wanted, "{what}");
}

fn link(host: &mut Host, ifindex: u32) -> &mut Link {
    host.served_mut().links.get_mut(&ifindex).expect("a link")
}

fn info(host: &mut Host, change: impl FnOnce(&mut BridgeInfo)) {
    let bridge = link(host, BRIDGE);
    let LinkKind::Bridge(info) = &mut bridge.kind else {
        panic!("a bridge");
    };
    change(info);
}

fn port(host: &mut Host, change: impl FnOnce(&mut BridgePort)) {
    change(link(host, VETH_WEB).port.as_mut().expect("a port"));
}

const NOBODY: Whys = [None, None];

#[test]
fn nobody_judges() {
    let desired = after(|_, _, _| ());
    assert_eq!(whys(&desired), NOBODY);
    let web = DirectPort {
        bridge: BRIDGE,
        mac: mac(10),
        max_length: 1500,
        exit: Exit::Peer,
    };
    assert_eq!(desired.direct[&key(VETH_WEB)], web);
    let other = desired.networks.iter().find(|network| network.name == "host");
    assert_eq!(other.expect("it is there").direct, None);
}

#[test]
fn the_switch_and_the_path() {
    let off = after(|_, config, _| config.direct = false);
    assert_eq!(whys(&off), [Some(Why::DirectOff); 2]);
    check("a slow network", [Some(Why::Accounting); 2], |host| {
        host.served_mut().sysctls.conntrack_acct = Some(true);
    });
    check("a slow endpoint", [Some(Why::VethDown), None], |host| {
        link(host, VETH_WEB).up = false;
    });
}

#[test]
fn br_netfilter() {
    let both = [Some(Why::BridgeNetfilter); 2];
    check("iptables", both, |host| {
        host.served_mut().sysctls.bridge_nf_call_iptables = Some(true);
    });
    check("ip6tables", both, |host| {
        host.served_mut().sysctls.bridge_nf_call_ip6tables = Some(true);
    });
    let one = [Some(Why::BridgeNetfilter), None];
    check("iptables of one", one, |host| {
        info(host, |info| info.nf_call_iptables = true);
    });
    check("ip6tables of one", one, |host| {
        info(host, |info| info.nf_call_ip6tables = true);
    });
}

#[test]
fn rules_for_frames() {
    let both = [Some(Why::BridgeRules); 2];
    let with = |chain: NftChain| {
        move |host: &mut Host| {
            host.served_mut().ruleset.nft_chains.insert(chain);
        }
    };
    check("bridge", both, with(chain("bridge", 2, None)));
    check("netdev of several", both, with(chain("netdev", 0, None)));
    check("inet ingress", both, with(chain("inet", 5, None)));
    check("netdev by a pattern", both, with(chain("netdev", 0, Some("veth*"))));
    for device in ["docker0", "veth10"] {
        let one = [Some(Why::BridgeRules), None];
        check(device, one, with(chain("netdev", 0, Some(device))));
        check(device, one, with(chain("inet", 5, Some(device))));
    }
    check("netdev elsewhere", NOBODY, with(chain("netdev", 0, Some("eth0"))));
    for (family, hook) in [("ip", 2), ("ip6", 2), ("inet", 2), ("arp", 0)] {
        check(family, NOBODY, with(chain(family, hook, None)));
    }
    let legacy = |table: &'static str| {
        move |host: &mut Host| {
            host.served_mut().ruleset.legacy.insert(table.into(), 1);
        }
    };
    check("ebtables", both, legacy("bridge/filter"));
    check("iptables", NOBODY, legacy("ip/filter"));
    check("ip6tables", NOBODY, legacy("ip6/filter"));
    check("unreadable", both, |host| {
        host.served_mut().ruleset.unreadable = Some("no".into());
    });
    check("icc=false", [Some(Why::BridgeRules), None], |host| {
        let network = host
            .networks
            .get_mut(&NetworkId("id-of-bridge".into()))
            .expect("it is there");
        let option = "com.docker.network.bridge.enable_icc";
        network.options.insert(option.into(), "false".into());
    });
}

#[test]
fn what_a_bridge_does_by_itself() {
    check("VLANs", [Some(Why::BridgeVlans), None], |host| {
        info(host, |info| info.vlan_filtering = true);
    });
    check("ageing", [Some(Why::BridgeForgets), None], |host| {
        info(host, |info| info.ageing_time = 299);
    });
    check("slow ageing", NOBODY, |host| info(host, |info| info.ageing_time = 300));
    check("the spanning tree, forwarding", NOBODY, |host| {
        info(host, |info| info.stp = true);
    });
    check(
        "neigh_suppress of another port",
        [Some(Why::BridgeAnswers), None],
        |host| {
            let mut other = build::link(50, "other", LinkKind::Dummy);
            other.master = Some(BRIDGE);
            other.port = Some(BridgePort {
                neigh_suppress: true,
                ..BridgePort::default()
            });
            host.served_mut().links.insert(50, other);
        },
    );
}

#[test]
fn what_a_port_is() {
    let forwarding = [Some(Why::PortNotForwarding), None];
    check("blocking", forwarding, |host| {
        port(host, |port| port.state = PortState::Blocking);
    });
    check("no port", forwarding, |host| link(host, VETH_WEB).port = None);
    check("no carrier", forwarding, |host| link(host, VETH_WEB).lower_up = false);
    let restrictions: [Edit<BridgePort>; 3] = [
        ("isolated", |port| port.isolated = true),
        ("not flooded", |port| port.unicast_flood = false),
        ("tunnel", |port| port.vlan_tunnel = true),
    ];
    for (what, change) in restrictions {
        check(what, [Some(Why::PortRestricted), None], |host| port(host, change));
    }
    let told = |change: fn(&mut BridgePort)| {
        move |host: &mut Host| {
            port(host, change);
            let entries = std::mem::take(&mut host.served_mut().fdb).into_iter();
            let state = FdbState::Static;
            host.served_mut().fdb = entries.map(|entry| FdbEntry { state, ..entry }).collect();
        }
    };
    // Otherwise all of its packets are slow.
    check(
        "locked",
        [Some(Why::PortRestricted), None],
        told(|port| port.locked = true),
    );
    check(
        "not learning",
        [Some(Why::PortRestricted), None],
        told(|port| port.learning = false),
    );
    check("a static entry", NOBODY, told(|_| ()));
    check("hairpin is of no matter", NOBODY, |host| {
        port(host, |port| port.hairpin = true);
    });
    check("a larger MTU", NOBODY, |host| link(host, VETH_WEB).mtu = 9000);
}

#[test]
fn queues_and_programs() {
    let filter = |parent| TcFilter {
        parent,
        kind: "u32".into(),
        priority: 1,
        name: None,
    };
    let qdisc = Qdisc {
        kind: "tbf".into(),
        handle: 1,
        parent: u32::MAX,
    };
    check("a shaper", [Some(Why::PortShaped), None], |host| {
        host.served_mut().qdiscs.insert(VETH_WEB, vec![qdisc]);
    });
    let program = [Some(Why::ForeignPrograms), None];
    for parent in [0xffff_fff2, 0xffff_fff3] {
        check("a filter", program, |host| {
            host.served_mut().tc_filters.insert(VETH_WEB, vec![filter(parent)]);
        });
    }
    let names = || vec!["theirs".to_owned()];
    let ingress = Foreign {
        ingress: names(),
        ..Foreign::default()
    };
    let egress = Foreign {
        egress: names(),
        ..Foreign::default()
    };
    for foreign in [ingress, egress] {
        for (ifindex, wanted) in [(VETH_WEB, program), (BRIDGE, program), (UPLINK, NOBODY)] {
            let desired = after(|_, _, facts| {
                facts.foreign.insert(key(ifindex), foreign.clone());
            });
            assert_eq!(whys(&desired), wanted, "{foreign:?} on {ifindex}");
        }
    }
    let xdp = Xdp {
        generic: Some(1),
        ..Xdp::default()
    };
    for ifindex in [VETH_WEB, BRIDGE] {
        check("XDP", program, |host| link(host, ifindex).xdp = xdp);
    }
    let native = Xdp {
        native: Some(1),
        ..Xdp::default()
    };
    for xdp in [xdp, native] {
        check("XDP inside", program, |host| {
            host.served_mut().peers.get_mut(&VETH_WEB).expect("a peer").xdp = xdp;
        });
    }
    check("nobody knows what is inside", [Some(Why::PeerUnknown), None], |host| {
        host.served_mut().peers.remove(&VETH_WEB);
    });
}

#[test]
fn the_other_end_in_the_same_namespace() {
    let here = |host: &mut Host, xdp: Xdp| {
        link(host, VETH_WEB).kind = veth(51, None);
        let mut peer = build::link(51, "inside", veth(VETH_WEB, None));
        peer.xdp = xdp;
        host.served_mut().links.insert(51, peer);
    };
    let desired = after(|host, _, _| here(host, Xdp::default()));
    assert_eq!(whys(&desired), NOBODY);
    assert_eq!(desired.direct[&key(VETH_WEB)].exit, Exit::Device);
    let xdp = Xdp {
        native: Some(1),
        ..Xdp::default()
    };
    check("XDP", [Some(Why::ForeignPrograms), None], |host| here(host, xdp));
}

#[test]
fn a_smaller_mtu_inside_is_met_on_the_cable() {
    let desired = after(|host, _, _| {
        host.served_mut().peers.get_mut(&VETH_WEB).expect("a peer").mtu = 1400;
    });
    assert_eq!(whys(&desired), NOBODY);
    assert_eq!(desired.direct[&key(VETH_WEB)].exit, Exit::Device);
}

#[test]
fn stations() {
    let entry = |host: &mut Host, change: fn(&mut FdbEntry)| {
        let entries = std::mem::take(&mut host.served_mut().fdb).into_iter();
        host.served_mut().fdb = entries
            .map(|mut entry| {
                if entry.ifindex == VETH_WEB {
                    change(&mut entry);
                }
                entry
            })
            .collect();
    };
    let changes: [Edit<FdbEntry>; 4] = [
        ("behind another port", |entry| entry.ifindex = 99),
        ("on another bridge", |entry| entry.bridge = Some(4)),
        ("the bridge's own", |entry| entry.state = FdbState::Local),
        ("of a VLAN", |entry| entry.vlan = Some(1)),
    ];
    for (what, change) in changes {
        check(what, [Some(Why::NotHeard), None], |host| entry(host, change));
    }
    check("forgotten", [Some(Why::NotHeard), None], |host| {
        host.served_mut().fdb.retain(|entry| entry.ifindex != VETH_WEB);
    });
}

#[test]
fn virtual_addresses() {
    let desired = after(|host, _, _| {
        let network = host
            .networks
            .get_mut(&NetworkId("id-of-app".into()))
            .expect("it is there");
        network.labels.insert("netfast.alias".into(), "vip".into());
        for name in ["db", "router"] {
            let id = ContainerId(format!("id-of-{name}"));
            let container = host.containers.get_mut(&id).expect("it is there");
            container.attachments[0].aliases = vec!["shared".into()].into_iter().collect();
        }
    });
    assert!(!desired.aliases.vips.endpoints.is_empty(), "{:?}", desired.aliases);
    assert_eq!(whys(&desired), [None, Some(Why::VirtualAddresses)]);
}
