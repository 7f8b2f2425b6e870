//! flannel's backend `vxlan`: its device with all that the kernel has by default (UDP checksums among it), its routes, neighbours and
//! forwarding entries, and its rules.

use super::*;

/// Datagrams and requests are exact and get repeated outer headers with right UDP checksums; TCP in bulk is exact.
fn carries(world: &World) {
    let _echo = Echo::start(&world.host(1).container, 7002);
    let socket = udp(&world.host(0).container, 0, at(world.host(1).container_ip, 7002));
    world.warm(&socket);
    let far = &world.host(1).ns;
    far.sh(&format!(
        "nft add table ip seen && nft add chain ip seen c '{{ type filter hook input priority 0; }}' && \
         nft add rule ip seen c udp dport {PORT} udp checksum 0 counter"
    ))
    .expect("a rule that counts those without a checksum");
    world.warm(&socket);
    for length in 1..400 {
        let question: Vec<u8> = (0..length)
            .map(|place| u8::try_from(place % 251).expect("a byte"))
            .collect();
        let mut answer = [0; 512];
        socket.send(&question).expect("sent");
        let got = socket.recv(&mut answer).expect("an answer");
        assert_eq!(&answer[..got], &question[..]);
    }
    let before = world.sent(0);
    datagrams(world);
    world.check_share(0, before, 1000);
    // A device's help is not asked for with these, so the far host has looked at each checksum.
    pings(world);
    bulk(world);
    assert_eq!(outer::packets(&far.sh("nft list table ip seen").expect("the rule")), 0);
    for number in [0, 1] {
        let counted = world
            .host(number)
            .ns
            .sh("cat /proc/thread-self/net/snmp | grep Udp:")
            .expect("the counters");
        let mut lines = counted.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let place = names
            .iter()
            .position(|name| *name == "InCsumErrors")
            .expect("it is counted");
        assert_eq!(values[place], "0", "wrong checksums at host {number}");
    }
}

#[test]
fn flannel_with_its_devices_and_rules() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let world = World::with(Kind::Routed, "");
    let host = world.host(0);
    let device = host.ns.sh(&format!("ip -d link show {TUNNEL}")).expect("the device");
    assert!(device.contains(" udpcsum "), "{device}");
    for number in [0, 1] {
        world.host(number).add_rules_of_flannel().expect("rules");
    }
    carries(&world);
    let said = world.check();
    assert!(
        said.contains("are repeated, but for packets that are still to be segmented"),
        "{said}"
    );
}

#[test]
fn a_tunnel_with_udp_checksums_as_a_port_of_a_bridge() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    carries(&World::with(Kind::Bridged, "udpcsum"));
}
