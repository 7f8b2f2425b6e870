//! Bigger segments of TCP: where they are, that data arrives whole, and that everything is as before without netfast.

use netfast::{observe::netlink, sys::netlink::write::write};
use netfast_tests::{
    cmd,
    docker_host::Options,
    netns::NsHandle,
    require::{Need, needs},
};
use nix::{net::if_::if_nametoindex, sys::signal::Signal};

use super::bed::{Bed, TIMEOUT, docker_host, transfer};

const BYTES: u64 = 256 << 20;
const USUAL: u32 = 65_536;
const BIGGER: u32 = 2 * USUAL - 16;

/// How big the segments are that an interface takes. Debian 12's iproute2 does not tell.
fn size(ns: &NsHandle, interface: &str) -> u32 {
    let ask = || netlink::offload(if_nametoindex(interface).expect("an interface"));
    let told = ns.run(ask).expect("entered").expect("rtnetlink");
    told.and_then(|told| told.gso_ipv4_max_size).expect("a size")
}

fn set_size(ns: &NsHandle, interface: &str, size: u32) {
    let set = || {
        let ifindex = if_nametoindex(interface).expect("an interface");
        write(|writer| writer.set_gso_ipv4_max_size(ifindex, size))
    };
    ns.run(set).expect("entered").expect("rtnetlink");
}

/// The sizes of both ends of a container's veth.
fn sizes(bed: &Bed, container: &str) -> [u32; 2] {
    let veth = bed.host.container_veth(container, "eth0").expect("a veth");
    [size(&bed.host.host().handle(), &veth), size(&bed.ns(container), "eth0")]
}

fn becomes(bed: &Bed, container: &str, wanted: [u32; 2]) {
    let seen = cmd::poll("the sizes", TIMEOUT, || (sizes(bed, container) == wanted).then_some(()));
    seen.unwrap_or_else(|error| panic!("{container}: {:?}: {error}", sizes(bed, container)));
}

#[test]
fn segments_are_bigger_where_they_stay_on_the_host_and_as_before_without_netfast() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 3)]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("inside", &["--internal"]).expect("a network");
    host.create_network("outside", &[]).expect("a network");
    for (name, network) in [
        ("one", "inside"),
        ("two", "inside"),
        ("three", "outside"),
        ("four", "inside"),
    ] {
        host.run_container(name, network, &[], &[]).expect("a container");
    }
    // What somebody else has set is his.
    let own = 100_000;
    let veth = host.container_veth("four", "eth0").expect("a veth");
    set_size(&host.host().handle(), &veth, own);

    let mut bed = Bed::start(host, Some("segments = \"auto\"\n"));
    for name in ["one", "two"] {
        becomes(&bed, name, [BIGGER; 2]);
    }
    becomes(&bed, "four", [own, BIGGER]);
    assert_eq!(
        sizes(&bed, "three"),
        [USUAL; 2],
        "what leaves by the uplink would be cut up"
    );
    let told = bed.network("outside").expect("it is listed");
    assert_eq!(
        told["segments"],
        "up to 64 KiB: what leaves by eth0 would have to be cut up"
    );
    assert_eq!(
        bed.network("inside").expect("it is listed")["segments"],
        "up to 128 KiB"
    );
    for (from, to) in [("one", "two"), ("two", "four")] {
        let before = bed.netfast.totals().expect("totals");
        let _exact = transfer(&bed.ns(from), &bed.ns(to), bed.at(to, "inside"), BYTES);
        let share = bed.netfast.totals().expect("totals").since(before).fast_share();
        assert!(share.is_some_and(|share| share > 0.9), "{from} to {to}: {share:?}");
    }

    // One that comes has them; a crash changes nothing, and the next daemon knows what is to be restored.
    bed.host.run_container("five", "inside", &[], &[]).expect("a container");
    becomes(&bed, "five", [BIGGER; 2]);
    bed.netfast.stop(Signal::SIGKILL).expect("netfast is killed");
    assert_eq!(sizes(&bed, "one"), [BIGGER; 2]);
    bed.netfast.launch().expect("netfast starts again");
    bed.netfast.stop(Signal::SIGKILL).expect("netfast is killed");
    bed.netfast.detach().expect("netfast detaches");
    for name in ["one", "two", "three", "five"] {
        assert_eq!(sizes(&bed, name), [USUAL; 2], "{name}");
    }
    assert_eq!(sizes(&bed, "four"), [own, USUAL]);
    let _exact = transfer(&bed.ns("one"), &bed.ns("two"), bed.at("two", "inside"), BYTES);
}
