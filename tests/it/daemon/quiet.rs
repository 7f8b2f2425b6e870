//! What a healthy host's log gets: nothing.

use std::{thread::sleep, time::Duration};

use netfast_tests::require::{Need, needs};

use super::{
    fast_endpoints, names, start,
    survive::{self, Load, must_be_fast},
    wait_for,
};

/// Longer than the time between two of the daemon's thorough looks.
const LONG: Duration = Duration::from_secs(32);
const SOON: Duration = Duration::from_secs(5);

#[test]
fn nothing_is_logged_while_all_is_well() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let mut topo = survive::host();
    let netfast = start(topo.host());
    let load = Load::start(&topo);
    must_be_fast(&netfast, "there is traffic");
    let before = netfast.log();
    assert!(before.lines().count() < 20, "{before}");
    let two = names(&["veth0x0", "veth0x1"]);
    let three = names(&["veth0x0", "veth0x1", "veth0x2"]);
    for _ in 0..5 {
        let gateway = topo.bridges[0].gateway;
        let new = topo.add_container(0).expect("one more");
        new.ns
            .sh(&format!("busybox ping -c1 -W2 {gateway}"))
            .expect("it is heard from");
        wait_for(&netfast, "it came", SOON, |state| fast_endpoints(state) == three);
        drop(topo.bridges[0].containers.pop());
        wait_for(&netfast, "it went", SOON, |state| fast_endpoints(state) == two);
    }
    topo.host()
        .sh("iptables -I DOCKER-USER -p tcp --dport 9 -j DROP; ip route add 203.0.113.0/24 dev eth0")
        .expect("rules and routes change");
    sleep(LONG);
    must_be_fast(&netfast, "there still is traffic");
    assert_eq!(netfast.log(), before, "containers, rules and routes are no news");
    load.end();
}
