//! A published port through XDP: the uplink is a veth that has it natively, its other end the LAN.

use netfast::{apply::read::Tables, sys::ethtool};
use netfast_tests::{
    docker_host::Options,
    require::{Need, needs},
    site::HOST_IP,
};

use super::bed::{Bed, PORT, docker_host};

#[test]
fn datagrams_to_a_published_port_go_by_xdp_and_tcp_does_not() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6)]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("app", &[]).expect("a network");
    let publish = [format!("8080:{PORT}"), format!("8080:{PORT}/udp")];
    let more = ["-p", &publish[0], "-p", &publish[1]];
    host.run_container("server", "app", &more, &[]).expect("a container");
    let lan = host.lan().handle();
    // What comes in by a card has its checksums.
    let switched = lan.run(|| ethtool::set_tx_checksums("eth0", false));
    switched.expect("entered").expect("a setting");
    let bed = Bed::start(host, Some("xdp = \"on\"\n"));
    bed.await_fast("server", "app");
    let server = bed.ns("server");
    let sent = || {
        let tables = Tables::open(bed.netfast.pin_dir()).expect("the maps are pinned");
        tables.xdp().expect("the count").packets
    };
    let has_gro = || {
        server
            .run(|| ethtool::has_gro("eth0"))
            .expect("entered")
            .expect("a setting")
    };
    assert_eq!(bed.status()["xdp"]["uplinks"][0]["why"], serde_json::Value::Null);
    assert!(has_gro(), "frames cannot be sent to it");

    let to = std::net::SocketAddrV4::new(HOST_IP, 8080);
    let ((), counted) = bed.count(|| bed.prove_udp("published, by XDP", &lan, &server, to));
    let by_xdp = sent();
    let fast = counted.packets.fast_packets;
    assert!(by_xdp * 10 > fast * 9, "{by_xdp} of {fast} fast datagrams went by XDP");
    bed.prove_tcp("published, beside XDP", &lan, &server, to);
    assert_eq!(sent(), by_xdp, "TCP went by XDP");

    bed.netfast.detach().expect("netfast detaches");
    assert!(!has_gro(), "GRO is off again");
    let shown = bed.host.host().sh("ip -d link show dev eth0").expect("the uplink");
    assert!(!shown.contains("prog/xdp"), "{shown}");
}
