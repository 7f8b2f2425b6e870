//! What leads off the host, and what does not.

use super::{reasons::after, *};
use crate::host::Sysctls;

#[test]
fn an_interface_with_a_default_route_that_is_no_uplink_is_named_with_the_reason() {
    let left_out = |change: &dyn Fn(&mut Host, &mut Config)| {
        let desired = after(|host, config, _| change(host, config));
        let found = desired.not_uplinks.into_iter().filter(|one| one.has_default);
        found
            .map(|one| (one.name, one.why, one.can_be_named))
            .collect::<Vec<_>>()
    };
    let said = |why: &str, can_be_named| vec![("eth0".to_owned(), why.to_owned(), can_be_named)];
    let link = |host: &mut Host, change: &dyn Fn(&mut Link)| {
        change(host.served_mut().links.get_mut(&UPLINK).expect("uplink"));
    };
    assert_eq!(left_out(&|_, _| {}), []);
    assert_eq!(
        left_out(&|host, _| link(host, &|link| link.kind = veth(99, None))),
        said("it is a veth whose other end is in this network namespace", true)
    );
    assert_eq!(
        left_out(&|host, _| link(host, &|link| link.arp_type = 65534)),
        said("its packets have no Ethernet header", false)
    );
    assert_eq!(
        left_out(&|host, _| link(host, &|link| link.up = false)),
        said("it is down", false)
    );
    assert_eq!(
        left_out(&|_, config| config.uplinks = ["eth1".into()].into()),
        said("other interfaces are named as uplinks, and it is not", true)
    );
}

/// A bridge that leads off the host, and a VLAN on it, under rules that are asked within it.
#[test]
fn an_uplink_whose_packets_meet_rules_before_netfast_sees_them_is_none() {
    let planned = |name: &str, switch: fn(&mut Sysctls), family: &str| {
        after(|host, config, _| {
            let served = host.served_mut();
            served.links.get_mut(&5).expect("eth1").master = Some(30);
            let bridge = link(30, "br0", LinkKind::Bridge(BridgeInfo::default()));
            served.links.insert(30, bridge);
            let vlan = Link {
                lower: Some(30),
                ..link(31, "br0.7", LinkKind::Vlan { id: 7 })
            };
            served.links.insert(31, vlan);
            // At prerouting.
            served.ruleset.nft_chains.insert(chain(family, 0, None));
            switch(&mut served.sysctls);
            served
                .routes
                .insert(route(if name == "br0" { 30 } else { 31 }, "0.0.0.0/0"));
            config.uplinks = [name.to_owned()].into();
        })
    };
    let flags = |desired: &Desired| {
        let mut found = desired.devices.values().filter(|spec| spec.kind == Kind::Uplink);
        found
            .next()
            .map(|spec| spec.flags & (Device::ACCELERATED | Device::IPV6))
    };
    let of_ip: fn(&mut Sysctls) = |sysctls| sysctls.bridge_nf_call_iptables = Some(true);
    let of_ip6: fn(&mut Sysctls) = |sysctls| sysctls.bridge_nf_call_ip6tables = Some(true);
    let all = Some(Device::ACCELERATED | Device::IPV6);
    for name in ["br0", "br0.7"] {
        let desired = planned(name, of_ip, "ip");
        assert_eq!(flags(&desired), None, "{name}");
        let mut said = desired.not_uplinks.iter().filter(|one| one.name == name);
        let said = said.next().expect("it has a default route");
        assert!(
            said.why.contains("bridge-nf-call-iptables") && !said.can_be_named,
            "{said:?}"
        );
        assert_eq!(flags(&planned(name, |_| (), "ip")), all, "{name}");
        assert_eq!(flags(&planned(name, of_ip, "ip6")), all, "{name}");
        assert_eq!(
            flags(&planned(name, of_ip6, "ip6")),
            Some(Device::ACCELERATED),
            "{name}"
        );
    }
}

#[test]
fn uplinks() {
    let names = |desired: &Desired| -> Vec<String> {
        let uplinks = desired.devices.values().filter(|spec| spec.kind == Kind::Uplink);
        uplinks.map(|spec| spec.name.clone()).collect()
    };
    // Not eth1 (no address), not dummy0, not wg0 (no Ethernet), not bridges of the runtime.
    assert_eq!(names(&after(|_, _, _| {})), ["eth0"]);
    let chosen = after(|_, config, _| config.uplinks = ["eth1".into(), "lan7".into()].into());
    assert_eq!(
        (names(&chosen), chosen.missing_uplinks),
        (vec!["eth1".into()], vec!["lan7".into()])
    );

    let with = |link: Link| {
        after(|host, _, _| {
            host.served_mut().addresses.insert(address(link.ifindex, "10.1.1.1/24"));
            host.served_mut().links.insert(link.ifindex, link);
        })
    };
    let bridge = || link(30, "br0", LinkKind::Bridge(BridgeInfo::default()));
    assert_eq!(names(&with(bridge())), ["eth0"], "a bridge with no way out");
    let desired = after(|host, _, _| {
        host.served_mut().links.get_mut(&5).expect("eth1").master = Some(30);
        host.served_mut().addresses.insert(address(30, "10.1.1.1/24"));
        host.served_mut().links.insert(30, bridge());
    });
    assert_eq!(
        names(&desired),
        ["eth0", "br0"],
        "the host's own bridge, with eth1 in it"
    );
    let lab = link(31, "lab0", veth(2, Some(1)));
    assert_eq!(
        names(&with(lab)),
        ["eth0", "lab0"],
        "a veth that leads to another namespace"
    );
    let inner = link(31, "lab0", veth(2, None));
    assert_eq!(names(&with(inner)), ["eth0"]);
    let vlan = link(32, "eth0.5", LinkKind::Vlan { id: 5 });
    assert_eq!(names(&with(vlan)), ["eth0", "eth0.5"]);
    let macvlan = link(33, "mv0", LinkKind::Macvlan);
    assert_eq!(names(&with(macvlan)), ["eth0"]);
    let down = after(|host, _, _| host.served_mut().links.get_mut(&UPLINK).expect("eth0").up = false);
    assert!(names(&down).is_empty());
}

/// Without an engine every bridge is a network, but not the one that the host itself goes out by.
#[test]
fn a_bridge_that_the_host_goes_out_by_is_no_network() {
    let planned = |port: LinkKind, named: bool| {
        let (mut host, mut config) = (docker_host(), Config::default());
        config.runtime = Runtime::None;
        let served = host.served_mut();
        let bridge = link(30, "br0", LinkKind::Bridge(BridgeInfo::default()));
        let port = Link {
            master: Some(30),
            ..link(31, "port0", port)
        };
        served.links.extend([(30, bridge), (31, port)]);
        served.addresses.insert(address(30, "10.1.1.1/24"));
        if named {
            config.uplinks = ["br0".into()].into();
        }
        let desired = plan(&host, &config, &watching());
        let is_network = desired.networks.iter().any(|network| network.name == "br0");
        let is_uplink = desired
            .devices
            .get(&key(30))
            .is_some_and(|spec| spec.kind == Kind::Uplink);
        (is_network, is_uplink)
    };
    assert_eq!(planned(LinkKind::Physical, false), (false, true));
    assert_eq!(planned(veth(2, Some(1)), false), (true, false));
    assert_eq!(planned(veth(2, Some(1)), true), (false, true));
}
