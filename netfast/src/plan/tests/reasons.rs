//! Each reason for the slow path, and what it does not take with it.

use super::*;

/// The plan of the host after a change.
pub(super) fn after(change: impl FnOnce(&mut Host, &mut Config, &mut Facts)) -> Desired {
    let (mut host, mut config, mut facts) = (docker_host(), Config::default(), watching());
    change(&mut host, &mut config, &mut facts);
    plan(&host, &config, &facts)
}

/// Why an endpoint is slow; `None` when it is fast.
pub(super) fn why(desired: &Desired, container: &str) -> Option<Why> {
    let mut endpoints = desired.networks.iter().flat_map(|network| &network.endpoints);
    let endpoint = endpoints
        .find(|endpoint| endpoint.container == container)
        .expect("the container");
    match &endpoint.path {
        Path::Fast => None,
        Path::Slow(slow) => Some(slow.why),
    }
}

/// Checks web (on docker0) and db (on br-app).
pub(super) fn check(desired: &Desired, web: Option<Why>, db: Option<Why>) {
    assert_eq!(
        (why(desired, "web"), why(desired, "db")),
        (web, db),
        "{}",
        text(desired)
    );
    for (container, ifindex, bridge) in [("web", VETH_WEB, BRIDGE), ("db", 11, 4)] {
        let fast = why(desired, container).is_none();
        assert_eq!(desired.devices.contains_key(&key(ifindex)), fast, "{container}");
        // br-app has the router besides.
        assert!(!fast || desired.devices.contains_key(&key(bridge)), "{container}");
    }
}

fn web(host: &mut Host) -> &mut Container {
    host.containers.get_mut(&ContainerId("id-of-web".into())).expect("web")
}

fn web_interface(host: &mut Host) -> &mut ContainerInterface {
    &mut web(host).interfaces[0]
}

/// podman has no network that is the host's, and names it in the container's only place.
#[test]
fn a_container_on_a_network_that_the_runtime_does_not_list_is_told() {
    for (mode, name, reason) in [
        (NetworkMode::Host, "host", Why::HostNetwork),
        (NetworkMode::None, "none", Why::NoNetwork),
    ] {
        let desired = after(|host, _, _| {
            host.networks.retain(|_, network| network.driver == "bridge");
            let web = web(host);
            web.network_mode = mode.clone();
            web.attachments[0].network = NetworkId(name.into());
            web.attachments[0].network_name = name.into();
        });
        assert_eq!(why(&desired, "web"), Some(reason), "{}", text(&desired));
        let network = desired.networks.iter().find(|network| network.name == name);
        assert_eq!(network.map(|network| network.endpoints.len()), Some(1));
    }
}

#[test]
fn switched_off_by_configuration_or_label() {
    for name in ["bridge", "id-of-bridge"] {
        let desired = after(|_, config, _| {
            config.disabled_networks.insert(name.into());
        });
        check(&desired, Some(Why::DisabledByConfig), None);
        assert!(!desired.devices.contains_key(&key(BRIDGE)), "no endpoint, no bridge");
    }
    let label = |labels: &mut BTreeMap<String, String>| {
        labels.insert("netfast.enable".into(), "False".into());
    };
    let desired = after(|host, _, _| {
        label(
            &mut host
                .networks
                .get_mut(&NetworkId("id-of-app".into()))
                .expect("app")
                .labels,
        );
    });
    check(&desired, None, Some(Why::DisabledByLabel));
    check(
        &after(|host, _, _| label(&mut web(host).labels)),
        Some(Why::DisabledByLabel),
        None,
    );
}

#[test]
fn what_is_not_known_or_not_there() {
    let desired = after(|host, _, _| {
        web(host).netns = None;
        web(host).interfaces.clear();
    });
    check(&desired, Some(Why::NoNamespace), None);
    check(
        &after(|host, _, _| web_interface(host).host_ifindex = None),
        Some(Why::NoVeth),
        None,
    );
    let desired = after(|host, _, _| host.served_mut().links.get_mut(&VETH_WEB).expect("veth").master = Some(4));
    check(&desired, Some(Why::NoVeth), None);
    let desired = after(|host, _, _| host.served_mut().links.get_mut(&VETH_WEB).expect("veth").up = false);
    check(&desired, Some(Why::VethDown), None);
    let desired = after(|host, _, _| {
        web(host).interfaces[0].mac = None;
        web(host).attachments[0].mac = None;
    });
    check(&desired, Some(Why::NoMac), None);
    let desired = after(|host, _, _| host.served_mut().links.get_mut(&BRIDGE).expect("bridge").up = false);
    check(&desired, Some(Why::BridgeDown), None);
}

#[test]
fn what_must_see_every_packet() {
    let filter = |parent| TcFilter {
        parent,
        kind: "bpf".into(),
        priority: 1,
        name: Some("theirs".into()),
    };
    let (ingress, egress) = (filter(0xffff_fff2), filter(0xffff_fff3));
    // On the veth's ingress it would be skipped; on its egress the packets can be led past it.
    let desired = after(|host, _, _| {
        host.served_mut().tc_filters.insert(VETH_WEB, vec![ingress.clone()]);
    });
    check(&desired, Some(Why::ForeignPrograms), None);
    let desired = after(|host, _, _| {
        host.served_mut().tc_filters.insert(VETH_WEB, vec![egress.clone()]);
    });
    check(&desired, None, None);
    assert_ne!(desired.devices[&key(VETH_WEB)].flags & Device::EGRESS_QDISC, 0);
    for filter in [ingress.clone(), egress] {
        let desired = after(|host, _, _| {
            host.served_mut().tc_filters.insert(BRIDGE, vec![filter]);
        });
        check(&desired, Some(Why::ForeignPrograms), None);
    }
    let desired = after(|host, _, _| {
        host.served_mut().tc_filters.insert(UPLINK, vec![ingress]);
    });
    check(&desired, None, None);
    assert!(!desired.devices.contains_key(&key(UPLINK)));

    let qdisc = |kind: &str| Qdisc {
        kind: kind.into(),
        handle: 0x10000,
        parent: u32::MAX,
    };
    let desired = after(|host, _, _| {
        host.served_mut()
            .qdiscs
            .insert(VETH_WEB, vec![qdisc("noqueue"), qdisc("clsact")]);
    });
    assert_eq!(desired.devices[&key(VETH_WEB)].flags & Device::EGRESS_QDISC, 0);
    let desired = after(|host, _, _| {
        host.served_mut().qdiscs.insert(VETH_WEB, vec![qdisc("tbf")]);
    });
    assert_ne!(desired.devices[&key(VETH_WEB)].flags & Device::EGRESS_QDISC, 0);
    let desired = after(|host, _, _| {
        host.served_mut().qdiscs.insert(BRIDGE, vec![qdisc("tbf")]);
    });
    check(&desired, Some(Why::BridgeShaped), None);
}

#[test]
fn programs_of_others_on_tcx() {
    let theirs = || vec!["theirs".to_owned()];
    let on = |ifindex: u32, foreign: Foreign| {
        after(|_, _, facts| {
            facts.foreign.insert(key(ifindex), foreign);
        })
    };
    let before = Foreign {
        ingress: theirs(),
        ..Foreign::default()
    };
    let behind = Foreign {
        ingress_after: theirs(),
        ..before.clone()
    };
    let egress = Foreign {
        egress: theirs(),
        ..Foreign::default()
    };
    check(&on(VETH_WEB, before.clone()), None, None);
    check(&on(VETH_WEB, behind), Some(Why::ForeignPrograms), None);
    assert_ne!(
        on(VETH_WEB, egress.clone()).devices[&key(VETH_WEB)].flags & Device::EGRESS_QDISC,
        0
    );
    check(&on(BRIDGE, before), Some(Why::ForeignPrograms), None);
    check(&on(BRIDGE, egress.clone()), Some(Why::ForeignPrograms), None);
    assert!(on(UPLINK, egress).devices.contains_key(&key(UPLINK)));
}

#[test]
fn programs_on_netfilter_s_hooks_and_of_routes() {
    let slow = Some(Why::ForeignPrograms);
    let desired = after(|host, _, _| {
        host.served_mut().routes.insert(Route {
            has_programs: true,
            ..route(UPLINK, "10.9.0.0/16")
        });
    });
    check(&desired, slow, slow);
    let desired = after(|host, _, _| {
        host.served_mut().netfilter_programs.insert(7);
    });
    check(&desired, slow, slow);
}

/// What would stop a packet on its way into a container is passed by only where it is known not to be there.
#[test]
fn judges_at_the_other_end_of_a_veth() {
    let queued = |change: &dyn Fn(&mut Host)| {
        let desired = after(|host, _, _| change(host));
        check(&desired, None, None);
        desired.devices[&key(VETH_WEB)].flags & Device::EGRESS_QDISC != 0
    };
    let peer = |change: fn(&mut Peer)| {
        queued(&move |host: &mut Host| change(host.served_mut().peers.get_mut(&VETH_WEB).expect("its other end")))
    };
    assert!(!queued(&|_| {}));
    assert!(peer(|peer| peer.xdp.native = Some(3)));
    assert!(peer(|peer| peer.mtu = 1499));
    assert!(!peer(|peer| peer.mtu = 9000));
    assert!(peer(|peer| peer.mac = Some(mac(77))));
    let unknown = |host: &mut Host| {
        host.served_mut().peers.remove(&VETH_WEB).expect("its other end");
    };
    assert!(queued(&unknown));
}

/// The kernel leaves it out for redirected packets.
#[test]
fn generic_xdp_in_a_container() {
    let desired = after(|host, _, _| {
        host.served_mut()
            .peers
            .get_mut(&VETH_WEB)
            .expect("its other end")
            .xdp
            .generic = Some(3);
    });
    check(&desired, Some(Why::ForeignPrograms), None);
}

#[test]
fn xdp_on_a_bridge_device() {
    let desired = after(|host, _, _| host.served_mut().links.get_mut(&BRIDGE).expect("bridge").xdp.generic = Some(3));
    check(&desired, Some(Why::ForeignPrograms), None);
    let desired = after(|host, _, _| host.served_mut().links.get_mut(&VETH_WEB).expect("veth").xdp.native = Some(3));
    check(&desired, None, None);
    let desired = after(|host, _, _| host.served_mut().links.get_mut(&UPLINK).expect("uplink").xdp.native = Some(3));
    assert!(desired.devices.contains_key(&key(UPLINK)), "it runs before netfast");
}

#[test]
fn conntrack_s_accounting_keeps_every_network_slow_unless_it_may_lag() {
    let with = |allow| {
        after(|host, config, _| {
            host.served_mut().sysctls.conntrack_acct = Some(true);
            config.allow_accounting = allow;
        })
    };
    check(&with(false), Some(Why::Accounting), Some(Why::Accounting));
    check(&with(true), None, None);
    let off = after(|host, _, _| host.served_mut().sysctls.conntrack_acct = Some(false));
    check(&off, None, None);
}

#[test]
fn queued_packets_keep_learning_off_only_where_they_are_not_seen() {
    let desired = after(|host, _, facts| {
        host.served_mut().ruleset.nfqueue_bound.insert(5);
        facts.queue_watch = false;
    });
    assert!(
        desired
            .learning_off
            .as_deref()
            .is_some_and(|text| text.contains("NFQUEUE 5"))
    );
    let control = desired.control(1);
    assert!(control.may_use() && !control.may_learn());
    let desired = after(|host, _, _| {
        host.served_mut().ruleset.nfqueue_bound.insert(5);
    });
    assert_eq!(desired.learning_off, None);
    assert_eq!(after(|_, _, facts| facts.queue_watch = false).learning_off, None);
}

#[test]
fn a_container_with_two_networks_has_two_endpoints() {
    let desired = after(|host, _, _| {
        let more = container("web", "app", "172.18.0.9/16", 14);
        let port = link(14, "veth14", veth(3, Some(10)));
        host.served_mut().links.insert(
            14,
            Link {
                master: Some(4),
                ..port
            },
        );
        web(host).attachments.extend(more.attachments);
        web(host).interfaces.extend(more.interfaces);
    });
    let devices = &desired.devices;
    let spec = |ifindex: u32| (devices[&key(ifindex)].mac, devices[&key(ifindex)].address4);
    assert_eq!(spec(VETH_WEB), (mac(10), Some([172, 17, 0, 2].into())));
    assert_eq!(spec(14), (mac(14), Some([172, 18, 0, 9].into())));
}

#[test]
fn a_mac_address_that_is_being_changed_is_the_one_that_is_heard() {
    let mac_of = |change: &dyn Fn(&mut Host)| {
        let desired = after(|host, _, _| change(host));
        desired.devices[&key(VETH_WEB)].mac
    };
    // The bridge has heard 10, which the runtime tells, too.
    assert_eq!(mac_of(&|host| web_interface(host).mac = Some(mac(77))), mac(10));
    assert_eq!(mac_of(&|host| web(host).attachments[0].mac = Some(mac(77))), mac(10));
    let silent = |host: &mut Host| {
        host.served_mut().fdb.clear();
        web_interface(host).mac = Some(mac(77));
    };
    assert_eq!(mac_of(&silent), mac(10), "what the runtime is about to set");
    assert_eq!(mac_of(&|host| web(host).attachments[0].mac = None), mac(10));
}

#[test]
fn the_table_of_devices_is_never_full() {
    let desired = after(|host, _, _| {
        for index in 0..MAX_DEVICES {
            let mut container = container(&format!("c{index}"), "bridge", "172.17.9.9/16", 100);
            let ifindex = 1000 + index;
            container.interfaces[0].host_ifindex = Some(ifindex);
            let port = link(ifindex, &format!("v{index}"), veth(2, Some(1)));
            host.served_mut().links.insert(
                ifindex,
                Link {
                    master: Some(BRIDGE),
                    ..port
                },
            );
            host.containers.insert(container.id.clone(), container);
        }
    });
    assert!(desired.devices.len() <= MAX_DEVICES as usize);
    assert!(desired.devices.contains_key(&key(BRIDGE)) && desired.devices.contains_key(&key(UPLINK)));
    let full = desired.networks.iter().flat_map(|network| &network.endpoints);
    let full = full.filter(|endpoint| matches!(&endpoint.path, Path::Slow(slow) if slow.why == Why::TooManyDevices));
    assert!(full.count() > 0);
}
