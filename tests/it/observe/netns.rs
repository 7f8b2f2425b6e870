//! Links and what belongs to them, routes, switches: in a namespace without Docker.

use std::time::Duration;

use netfast::{
    host::{AddressScope, FdbState, LinkKind, Mac, NeighbourKey, NeighbourState, PortState, RouteType},
    observe::Change::{self, Addresses, FdbAdded, PolicyRules, Routes, Sysctls, Tc},
};
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
};

use super::watch;

/// A bridge with two ports whose other ends are in another namespace, as containers have them.
fn bridge_with_two_ports() -> (NetNs, NetNs) {
    let host = NetNs::new("host").expect("a namespace");
    let inside = NetNs::new("inside").expect("a namespace");
    let there = inside.name();
    let script = format!(
        "ip link add br0 type bridge && ip link set br0 address 02:00:00:00:00:01 up
         for n in 1 2; do
           ip link add v$n type veth peer name eth$n netns {there} && ip link set v$n master br0 up
           ip -n {there} link set eth$n address 02:00:00:00:01:0$n up
         done
         ip addr add 10.1.0.1/24 dev br0"
    );
    host.sh(&script).expect("a bridge");
    (host, inside)
}

#[test]
fn a_snapshot_holds_what_is_there() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (host, _inside) = bridge_with_two_ports();
    host.sh("ip link add lonely type veth peer name alone
         ip link set v2 mtu 1400; ip link set v1 type bridge_slave isolated on hairpin on
         ip link set v1 gso_max_size 40000
         ip addr add 10.9.9.1 peer 10.9.9.2/32 dev lonely; ip link set lonely up; ip link set alone up
         ip route add 10.2.0.0/16 via 10.1.0.9 mtu 1300 metric 7
         ip route add table 99 10.3.0.0/16 nexthop via 10.1.0.8 nexthop via 10.1.0.9
         ip route add blackhole 10.4.0.0/16; ip rule add from 10.5.0.0/16 table 99
         ip neigh add 10.1.0.7 lladdr 02:00:00:00:00:07 dev br0
         bridge fdb add 02:00:00:00:00:07 dev v2 master static
         tc qdisc add dev br0 clsact")
        .expect("things to see");
    watch(&host.handle(), None, |watch| async move {
        let host = watch.snapshot().await;
        let link = |name: &str| host.served().link_by_name(name).unwrap_or_else(|| panic!("no {name}"));
        let (br0, v1, v2) = (link("br0"), link("v1"), link("v2"));
        assert!(matches!(&br0.kind, LinkKind::Bridge(info) if !info.vlan_filtering && info.ageing_time == 30_000));
        assert_eq!(br0.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(host.served().ports_of(br0.ifindex).count(), 2);
        assert!(v1.peer_in_other_netns() && v1.is_ethernet() && v1.up && v1.lower_up);
        assert!(!link("lonely").peer_in_other_netns());
        let alone = link("alone").ifindex;
        assert!(matches!(link("lonely").kind, LinkKind::Veth { peer_ifindex: Some(peer), .. } if peer == alone));
        let port = v1.port.expect("v1 is a port");
        assert!(port.isolated && port.hairpin && port.learning && port.state == PortState::Forwarding);
        assert!(v2.port.is_some_and(|port| !port.isolated) && v2.mtu == 1400);
        assert_eq!(v1.offload.gso_max_size, Some(40_000));
        assert_eq!(link("lo").kind, LinkKind::Loopback);

        let peer = host
            .served()
            .addresses_of(link("lonely").ifindex)
            .find(|a| a.peer.is_some())
            .expect("an address");
        assert_eq!(
            (peer.net.to_string(), peer.scope),
            ("10.9.9.1/32".into(), AddressScope::Universe)
        );
        assert!(host.served().is_local("10.1.0.1".parse().expect("an address")));

        let routes = |dst: &str| {
            host.served()
                .routes
                .iter()
                .filter(|r| r.dst.to_string() == dst)
                .collect::<Vec<_>>()
        };
        let [route] = routes("10.2.0.0/16")[..] else {
            panic!("one route")
        };
        assert_eq!(
            (route.mtu, route.priority, route.table, route.oif),
            (Some(1300), 7, 254, Some(br0.ifindex))
        );
        let hops = routes("10.3.0.0/16");
        assert!(
            hops.len() == 2 && hops.iter().all(|hop| hop.multipath && hop.table == 99),
            "{hops:?}"
        );
        assert_eq!(routes("10.4.0.0/16")[0].kind, RouteType::Blackhole);
        assert_eq!(host.served().policy_rules.v4, 4);

        let key = NeighbourKey {
            ifindex: br0.ifindex,
            ip: "10.1.0.7".parse().expect("an address"),
        };
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        assert_eq!(host.served().neighbours[&key].mac, Some(mac));
        assert_eq!(host.served().neighbours[&key].state, NeighbourState::Permanent);
        let entry = host
            .served()
            .fdb
            .iter()
            .find(|entry| entry.mac == mac)
            .expect("a forwarding entry");
        assert_eq!((entry.bridge, entry.ifindex), (Some(br0.ifindex), v2.ifindex));
        assert_eq!(entry.state, FdbState::Static);
        assert!(
            host.served().qdiscs[&br0.ifindex]
                .iter()
                .any(|qdisc| qdisc.kind == "clsact")
        );
        assert_eq!(host.served().sysctls.ip_forward, Some(false));
        // The kernel goes on by itself for a while after the last change (addresses become valid, neighbours age).
        let mut last = host.clone();
        for _ in 0..50 {
            let next = watch.snapshot().await;
            if next == last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            last = next;
        }
        panic!("no two snapshots of one state are equal");
    });
}

#[test]
fn hints_come_when_something_matters_and_only_then() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (host, inside) = bridge_with_two_ports();
    let there = inside.handle();
    host.sh("ip neigh add 10.1.0.7 lladdr 02:00:00:00:00:07 dev br0 nud reachable")
        .expect("a neighbour");
    let ns = host.handle();
    watch(&host.handle(), None, |mut watch| async move {
        watch.hints(None).await;
        let index = |name: &str| {
            let line = ns.sh(&format!("ip -o link show {name}")).expect("an interface");
            let found = line.split(':').next();
            found.and_then(|number| number.parse().ok()).expect("its index")
        };
        let lost = |number| Change::Neighbours {
            device: index("br0"),
            mac: Some(Mac([2, 0, 0, 0, 0, number])),
        };
        let changed = |name: &str| Change::Device { device: index(name) };
        let steps: &[(&str, Option<Change>)] = &[
            ("ip link set v1 mtu 1400", Some(changed("v1"))),
            ("ip link set v1 mtu 1400", None),
            ("bridge link set dev v1 isolated on", Some(changed("v1"))),
            ("ip addr add 10.7.0.1/24 dev br0", Some(Addresses)),
            (
                "ip addr change 10.7.0.1/24 dev br0 valid_lft 1000 preferred_lft 1000",
                None,
            ),
            ("ip addr add fe80::77/64 dev br0 nodad", None),
            ("ip route add 10.2.0.0/16 via 10.1.0.9", Some(Routes)),
            ("ip nexthop add id 5 via 10.1.0.9 dev br0", Some(Routes)),
            ("ip rule add from 10.5.0.0/16 table 99", Some(PolicyRules)),
            (
                "ip xfrm policy add src 10.5.0.0/16 dst 10.6.0.0/16 dir fwd action block",
                Some(Change::Ipsec),
            ),
            (
                "ip neigh change 10.1.0.7 lladdr 02:00:00:00:00:07 dev br0 nud stale",
                None,
            ),
            (
                "ip neigh change 10.1.0.7 lladdr 02:00:00:00:00:08 dev br0 nud reachable",
                Some(lost(7)),
            ),
            (
                "ip neigh add 10.1.0.5 lladdr 02:00:00:00:00:05 dev br0 nud reachable",
                None,
            ),
            ("ip neigh del 10.1.0.7 dev br0", Some(lost(8))),
            (
                "bridge fdb add 02:00:00:00:00:07 dev v1 master static",
                Some(FdbAdded { port: index("v1") }),
            ),
            (
                "bridge fdb replace 02:00:00:00:00:07 dev v2 master static",
                Some(Change::FdbMoved { port: index("v1") }),
            ),
            (
                "bridge fdb del 02:00:00:00:00:07 dev v2 master",
                Some(Change::FdbMoved { port: index("v2") }),
            ),
            ("tc qdisc add dev br0 clsact", Some(Tc)),
            ("sysctl -qw net.ipv4.conf.br0.forwarding=1", Some(Sysctls)),
            ("sysctl -qw net.ipv4.conf.all.route_localnet=1", Some(Sysctls)),
        ];
        let inside = [
            ("ip link set eth1 mtu 1300", changed("v1")),
            ("ip link set eth2 address 02:00:00:00:01:99", changed("v2")),
        ];
        for (line, expected) in inside {
            there.sh(line).unwrap_or_else(|error| panic!("{error:#}"));
            let hints = watch.hints(Some(expected)).await;
            assert!(hints.contains(&expected), "{line}: {hints:?}");
        }
        // Another MAC address is announced to the bridge.
        for _ in 0..50 {
            if watch.hints(None).await.is_empty() {
                break;
            }
        }
        for (line, expected) in steps {
            ns.sh(line).unwrap_or_else(|error| panic!("{error:#}"));
            let hints = watch.hints(*expected).await;
            match expected {
                Some(expected) => assert!(hints.contains(expected), "{line}: {hints:?}"),
                None => assert!(hints.is_empty(), "{line}: {hints:?}"),
            }
        }
    });
}

#[test]
fn a_container_that_comes_or_goes_outdates_nobody_elses_flows() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (host, inside) = bridge_with_two_ports();
    host.set_sysctl("net/ipv4/ip_forward", "1").expect("forwarding");
    let (ns, there) = (host.handle(), inside.name().to_owned());
    watch(&host.handle(), None, |mut watch| async move {
        watch.hints(None).await;
        let start = format!(
            "ip link add v3 type veth peer name eth3 netns {there} && ip link set v3 master br0 up
             ip -n {there} addr add 10.1.0.3/24 dev eth3 && ip -n {there} link set eth3 up"
        );
        let quiet = |hints: &std::collections::BTreeSet<Change>| {
            let is_named = hints.iter().any(|hint| matches!(hint, Change::Links { .. }));
            assert!(
                is_named && !hints.iter().any(|hint| hint.outdates_all_flows()),
                "{hints:?}"
            );
        };
        ns.sh(&start).expect("an interface comes");
        let device = ns
            .run(|| nix::net::if_::if_nametoindex("v3"))
            .expect("the namespace")
            .expect("v3");
        quiet(&watch.hints(Some(Change::Links { device })).await);
        assert!(watch.snapshot().await.served().link_by_name("v3").is_some());
        ns.sh("ip link del v3").expect("it goes");
        quiet(&watch.hints(Some(Change::Links { device })).await);
        assert!(watch.snapshot().await.served().link_by_name("v3").is_none());
    });
}
