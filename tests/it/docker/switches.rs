//! What users switch off stays off, and what needs no runtime needs none.

use netfast_tests::{
    docker_host::Options,
    netfast_proc::{self, NetfastProc},
    require::{Need, needs},
};
use nix::sys::signal::Signal;
use serde_json::json;

use super::bed::{Bed, docker_host, transfer};

#[test]
fn labels_switch_off_and_no_runtime_is_needed() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("on", &[]).expect("a network");
    host.create_network("off", &["--label", "netfast.enable=false"])
        .expect("a network");
    host.create_network("off-by-file", &[]).expect("a network");
    for (name, network, extra) in [
        ("on-1", "on", &[][..]),
        ("on-2", "on", &[]),
        ("on-off", "on", &["--label", "netfast.enable=false"]),
        ("off-1", "off", &[]),
        ("off-2", "off", &[]),
        ("file-1", "off-by-file", &[]),
        ("file-2", "off-by-file", &[]),
    ] {
        host.run_container(name, network, extra, &[]).expect("a container");
    }
    let mut bed = Bed::start(host, Some("disabled_networks = [\"off-by-file\"]"));
    bed.await_fast("on-1", "on");
    bed.await_fast("on-2", "on");

    for (container, network, why) in [
        ("on-off", "on", "disabled-by-label"),
        ("off-1", "off", "disabled-by-label"),
        ("file-1", "off-by-file", "disabled-by-config"),
    ] {
        let end = bed.endpoint(container, network).expect("it is listed");
        assert_eq!((&end["path"], &end["why"]), (&json!("slow"), &json!(why)), "{end:#}");
    }
    bed.prove(
        "beside those that are off",
        &bed.ns("on-1"),
        &bed.ns("on-2"),
        bed.at("on-2", "on"),
    );
    for (client, server, network) in [
        ("on-1", "on-off", "on"),
        ("off-1", "off-2", "off"),
        ("file-1", "file-2", "off-by-file"),
    ] {
        let (client, to) = (bed.ns(client), bed.at(server, network));
        let (_, counted) = bed.count(|| transfer(&client, &bed.ns(server), to, 8 << 20));
        assert_eq!(counted.packets.fast_packets, 0, "{server}: {counted}");
    }

    // The same host without its engine's help.
    bed.netfast.stop(Signal::SIGTERM).expect("netfast stops");
    bed.netfast.detach().expect("netfast is detached");
    drop(bed.netfast);
    let options = netfast_proc::Options::no_runtime();
    bed.netfast = NetfastProc::start(bed.host.host(), options).expect("netfast starts");
    let (client, server, to) = (bed.ns("off-1"), bed.ns("off-2"), bed.at("off-2", "off"));
    // The containers must be heard of first: by a packet of each.
    transfer(&client, &server, to, 1 << 20);
    let bridge = bed.host.bridge_device("off").expect("a bridge");
    for container in ["off-1", "off-2"] {
        let veth = bed.host.container_veth(container, "eth0").expect("a veth");
        bed.await_fast(&veth, &bridge);
    }
    bed.prove("without a runtime", &client, &server, to);
    let status = bed.status();
    assert_eq!(status["runtime"]["state"], "none", "{status:#}");
}
