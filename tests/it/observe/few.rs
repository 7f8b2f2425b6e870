//! What is read after hints is what reading everything would have brought.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netfast::host::{Address, FdbEntry, Host, Link, Peer, Qdisc, Route, TcFilter};
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
};

use super::watch;

/// What must be the same whichever way it was read. Neighbours that come are no news, nor is what IPv6 does on each link by itself.
#[derive(Debug, PartialEq)]
struct Seen {
    links: BTreeMap<u32, Link>,
    peers: BTreeMap<u32, Peer>,
    addresses: BTreeSet<Address>,
    fdb: BTreeSet<FdbEntry>,
    routes: BTreeSet<Route>,
    qdiscs: BTreeMap<u32, Vec<Qdisc>>,
    tc_filters: BTreeMap<u32, Vec<TcFilter>>,
}

impl Seen {
    fn of(host: &Host) -> Self {
        let netns = host.served().clone();
        Self {
            links: netns.links,
            peers: netns.peers,
            addresses: netns
                .addresses
                .into_iter()
                .filter(|own| !is_of_every_link(own.net.addr))
                .collect(),
            fdb: netns.fdb,
            routes: netns
                .routes
                .into_iter()
                .filter(|route| !is_of_every_link(route.dst.addr))
                .collect(),
            qdiscs: netns.qdiscs,
            tc_filters: netns.tc_filters,
        }
    }
}

fn is_of_every_link(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast())
}

#[test]
fn what_hints_name_is_all_that_has_changed() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (host, inside) = (
        NetNs::new("few").expect("a namespace"),
        NetNs::new("inside").expect("a namespace"),
    );
    let there = inside.name().to_owned();
    let script = "ip link add br0 type bridge && ip link set br0 up && ip addr add 10.1.0.1/24 dev br0
         ip link add br1 type bridge && ip link set br1 up && ip addr add 10.2.0.1/24 dev br1
         ip link add up0 type veth peer name up1 && ip link set up0 up && ip link set up1 up
         ip addr add 198.18.0.1/24 dev up0 && ip route add default via 198.18.0.2";
    host.sh(script).expect("a host");
    let ns = host.handle();
    let steps = [
        "ip link add v1 type veth peer name w1".to_owned(),
        "ip link set v1 master br0".to_owned(),
        format!("ip link set w1 netns {there} name eth0"),
        "ip link set v1 up".to_owned(),
        format!("ip -n {there} link set eth0 address 02:00:00:00:00:01 mtu 1400 up"),
        format!("ip -n {there} addr add 10.1.0.2/24 dev eth0"),
        "bridge fdb add 02:00:00:00:00:07 dev v1 master static".to_owned(),
        format!(
            "ip link add v2 type veth peer name eth1 netns {there} && ip link set v2 master br0 up
             ip -n {there} link set eth1 up"
        ),
        "bridge fdb replace 02:00:00:00:00:07 dev v2 master static".to_owned(),
        "bridge link set dev v1 isolated on learning off".to_owned(),
        "ip link set v1 mtu 1300".to_owned(),
        "ip link set v2 down && ip link set v2 name v3 && ip link set v3 up".to_owned(),
        "tc qdisc add dev v1 clsact".to_owned(),
        "ip link set v1 down".to_owned(),
        "tc qdisc add dev v3 root handle 1: pfifo limit 100".to_owned(),
        "ip link set v3 nomaster && ip addr add 10.3.0.1/24 dev v3".to_owned(),
        "ip link set v3 down".to_owned(),
        "ip link set v3 master br1 up".to_owned(),
        "ip link set br1 type bridge ageing_time 20000".to_owned(),
        "ip link set br1 down".to_owned(),
        "ip link add m0 link up0 type macvlan".to_owned(),
        format!("ip link set m0 netns {there}"),
        "ip link set up1 down".to_owned(),
        "ip link del v1 && ip link del br0".to_owned(),
    ];
    watch(&host.handle(), None, |mut watch| async move {
        watch.hints(None).await;
        let mut known = watch.snapshot().await;
        for step in steps {
            ns.sh(&step).unwrap_or_else(|error| panic!("{error:#}"));
            let hints = watch.hints(None).await;
            watch
                .observer
                .refresh(&mut known, &hints)
                .await
                .expect("it can be read");
            assert_eq!(Seen::of(&known), Seen::of(&watch.snapshot().await), "{step}: {hints:?}");
        }
    });
}
