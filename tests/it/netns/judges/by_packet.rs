//! Programs and filters that judge by what is in a packet: no verdict about one packet of a flow is good for the next.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use netfast::apply::flows::FlowTables;
use netfast_common::flow::{Exit, Flow, FlowKey};
use netfast_tests::{
    cmd, leftovers,
    netns::NsHandle,
    require::{Need, needs},
    site::LAN_IP,
    topo::Container,
};

use super::{
    Held, SELDOM, SILENCE, UNWANTED, Undo, WANTED, Way, ask_with, held, judged, judges_on, last_answer,
    program::{Judge, Pinned, Place},
    until_unjudged,
};
use crate::netns::lab::{Lab, at, topology, udp, until_answered, warm};

/// Where it is attached.
#[derive(Clone, Copy, Debug)]
enum At {
    /// `eth0` of container 0.
    Inside,
    /// Container 0's veth, on the host's side.
    Veth,
    /// Its neighbour's.
    OtherVeth,
    Bridge,
    Uplink,
}

impl At {
    fn device(self, lab: &Lab) -> String {
        match self {
            Self::Inside | Self::Uplink => "eth0".into(),
            Self::Veth => lab.topo.container(0, 0).veth.clone(),
            Self::OtherVeth => lab.topo.container(0, 1).veth.clone(),
            Self::Bridge => lab.topo.bridges[0].name.clone(),
        }
    }
}

fn program(way: Way, at: At, place: Place) {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    judged(way, |lab| {
        let ns = match at {
            At::Inside => lab.topo.container(0, 0).ns.handle(),
            At::Veth | At::OtherVeth | At::Bridge | At::Uplink => lab.topo.host().handle(),
        };
        Box::new(Judge::on(&ns, &at.device(lab), place))
    });
}

#[test]
fn native_xdp_in_the_container() {
    program(Way::Bridge, At::Inside, Place::XdpNative);
}

#[test]
fn native_xdp_in_the_container_behind_a_published_port() {
    program(Way::Published, At::Inside, Place::XdpNative);
}

/// Native XDP on one end of a veth changes the features of the other, which is announced there.
#[test]
fn native_xdp_in_the_container_is_noticed_at_once() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let lab = Lab::with(&topology(), Some(SELDOM));
    let (_echo, socket) = Way::Bridge.open(&lab, 40_102);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    // At other moments between two polls each time: one of these would find it late.
    for moment in 0..4 {
        thread::sleep(Duration::from_millis(250) * moment);
        let judge = Judge::on(&lab.topo.container(0, 0).ns, "eth0", Place::XdpNative);
        let last = last_answer(&socket, UNWANTED, Instant::now());
        assert!(last < Duration::from_millis(400), "{last:?}");
        drop(judge);
        until_answered(&socket, "an answer without the judge");
        warm(&lab, &socket);
    }
}

#[test]
fn generic_xdp_in_the_container() {
    program(Way::Bridge, At::Inside, Place::XdpGeneric);
}

/// The kernel leaves it out for what `bpf_redirect` sends, as the host's packets are.
#[test]
fn generic_xdp_in_the_container_on_what_the_host_sends() {
    program(Way::Host, At::Inside, Place::XdpGeneric);
}

#[test]
fn tcx_in_the_container() {
    program(Way::Bridge, At::Inside, Place::TcxIngress);
}

#[test]
fn tcx_in_the_container_on_what_it_sends() {
    program(Way::Out, At::Inside, Place::TcxEgress);
}

#[test]
fn tcx_egress_of_the_veth_behind_ours() {
    program(Way::Bridge, At::Veth, Place::TcxEgress);
}

#[test]
fn tcx_egress_of_the_veth_before_ours() {
    program(Way::Bridge, At::Veth, Place::TcxEgressFirst);
}

#[test]
fn tcx_egress_of_the_veth_of_the_host_s_packets() {
    program(Way::Host, At::Veth, Place::TcxEgress);
}

#[test]
fn tcx_ingress_of_the_veth_behind_ours() {
    program(Way::Bridge, At::OtherVeth, Place::TcxIngress);
}

#[test]
fn tcx_ingress_of_the_veth_before_ours() {
    program(Way::Bridge, At::OtherVeth, Place::TcxIngressFirst);
}

#[test]
fn tcx_ingress_of_the_bridge() {
    program(Way::Out, At::Bridge, Place::TcxIngress);
}

#[test]
fn tcx_ingress_of_the_bridge_before_ours() {
    program(Way::Out, At::Bridge, Place::TcxIngressFirst);
}

#[test]
fn tcx_egress_of_the_bridge() {
    program(Way::Published, At::Bridge, Place::TcxEgress);
}

#[test]
fn tcx_ingress_of_the_uplink_behind_ours() {
    program(Way::Published, At::Uplink, Place::TcxIngress);
}

#[test]
fn tcx_ingress_of_the_uplink_before_ours() {
    program(Way::Published, At::Uplink, Place::TcxIngressFirst);
}

#[test]
fn tcx_egress_of_the_uplink() {
    program(Way::Out, At::Uplink, Place::TcxEgress);
}

#[test]
fn xdp_on_the_bridge() {
    program(Way::Out, At::Bridge, Place::XdpGeneric);
}

/// The first program on a bridge changes its features, which is announced; another one by a link is not.
#[test]
fn another_xdp_program_on_the_bridge() {
    if !needs(&[Need::Root]) {
        return;
    }
    judged(Way::Out, |lab| {
        let attach = || Judge::on(lab.topo.host(), &lab.topo.bridges[0].name, Place::XdpGeneric);
        drop(attach());
        thread::sleep(SILENCE);
        Box::new(attach())
    });
}

#[test]
fn native_xdp_on_the_veth() {
    program(Way::Bridge, At::OtherVeth, Place::XdpNative);
}

#[test]
fn generic_xdp_on_the_veth() {
    program(Way::Bridge, At::OtherVeth, Place::XdpGeneric);
}

#[test]
fn native_xdp_on_the_uplink() {
    program(Way::Published, At::Uplink, Place::XdpNative);
}

#[test]
fn generic_xdp_on_the_uplink() {
    program(Way::Published, At::Uplink, Place::XdpGeneric);
}

/// A filter with such a program; `add` is what tc is told, with DEV and PROGRAM in it, and `qdisc` what is taken away.
fn filter(way: Way, at: At, add: &str, qdisc: &str) {
    if !needs(&[Need::Root]) {
        return;
    }
    judged(way, |lab| {
        let (pinned, device) = (Pinned::of_filter(), at.device(lab));
        let program = format!("bpf da pinned {}", pinned.path());
        let on = add.replace("DEV", &device).replace("PROGRAM", &program);
        let undo = held(lab, &on, &format!("tc qdisc del dev {device} {qdisc}"));
        let both: (Undo, Pinned) = (undo, pinned);
        Box::new(both) as Held
    });
}

#[test]
fn a_filter_on_egress() {
    let add = "tc qdisc add dev DEV clsact; tc filter add dev DEV egress PROGRAM";
    filter(Way::Bridge, At::Veth, add, "clsact");
}

#[test]
fn a_filter_on_ingress() {
    let add = "tc qdisc add dev DEV clsact; tc filter add dev DEV ingress PROGRAM";
    filter(Way::Bridge, At::OtherVeth, add, "clsact");
}

#[test]
fn a_filter_on_the_ingress_discipline() {
    let add = "tc qdisc add dev DEV ingress; tc filter add dev DEV parent ffff: PROGRAM";
    filter(Way::Bridge, At::OtherVeth, add, "ingress");
}

#[test]
fn a_filter_in_a_shared_egress_block() {
    let add = "tc qdisc add dev DEV egress_block 22 clsact; tc filter add block 22 PROGRAM";
    filter(Way::Bridge, At::Veth, add, "clsact");
}

#[test]
fn a_filter_in_a_shared_ingress_block() {
    let add = "tc qdisc add dev DEV ingress_block 23 clsact; tc filter add block 23 PROGRAM";
    filter(Way::Bridge, At::OtherVeth, add, "clsact");
}

#[test]
fn a_filter_in_a_shared_block_of_the_bridge() {
    let add = "tc qdisc add dev DEV ingress_block 24 clsact; tc filter add block 24 PROGRAM";
    filter(Way::Out, At::Bridge, add, "clsact");
}

#[test]
fn a_filter_in_a_shared_block_of_the_uplink() {
    let add = "tc qdisc add dev DEV ingress_block 25 clsact; tc filter add block 25 PROGRAM";
    filter(Way::Published, At::Uplink, add, "clsact");
}

/// A chain of the device's own that drops what begins with [`UNWANTED`].
fn chain(way: Way, at: At, hook: &str) {
    if !needs(&[Need::Root]) {
        return;
    }
    judged(way, |lab| {
        let device = at.device(lab);
        let on = format!(
            "nft 'table netdev judge {{ chain c {{ type filter hook {hook} device \"{device}\" priority 0;
             meta l4proto udp @th,64,8 {UNWANTED} drop; }}; }}'"
        );
        Box::new(held(lab, &on, "nft delete table netdev judge")) as Held
    });
}

#[test]
fn a_chain_on_ingress_of_the_veth() {
    chain(Way::Bridge, At::OtherVeth, "ingress");
}

#[test]
fn a_chain_on_egress_of_the_veth() {
    chain(Way::Bridge, At::Veth, "egress");
}

#[test]
fn a_program_of_a_route() {
    if !needs(&[Need::Root]) {
        return;
    }
    judged(Way::Out, |lab| {
        let (pinned, to) = (Pinned::of_route(), LAN_IP);
        let on = format!("ip route add {to}/32 encap bpf xmit pinned {} dev eth0", pinned.path());
        let both: (Undo, Pinned) = (held(lab, &on, &format!("ip route del {to}/32")), pinned);
        Box::new(both) as Held
    });
}

/// A cgroup of our own; what programs in it receive is judged.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        // Where version 2 is mounted, alone or beside version 1.
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        let root = root.into_iter().find(|root| root.join("cgroup.procs").exists());
        let path = root.expect("cgroup version 2").join(leftovers::tag());
        fs::create_dir_all(&path).expect("a cgroup");
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _gone = cmd::poll("an empty cgroup", crate::netns::lab::TIMEOUT, || {
            fs::remove_dir(&self.0).ok()
        });
    }
}

#[test]
fn a_cgroup_s_program() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let cgroup = Cgroup::new();
    let traffic = netfast_tests::programs::traffic().expect("the traffic tool");
    let line = format!(
        "echo $$ > {}/cgroup.procs && exec {} rr-server 7001",
        cgroup.0.display(),
        traffic.display()
    );
    let server = a.ns.spawn(&["sh", "-c", &line]).expect("a server");
    let socket = udp(&b.ns, 40_103, at(a.ip, 7001));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    assert_eq!(ask_with(&socket, UNWANTED), Some(UNWANTED), "nobody judges yet");
    let judge = Judge::on_cgroup(&cgroup.0);
    judges_on(&socket, "in mid-flow");
    drop(judge);
    until_unjudged(&lab, &socket);
    server.stop().expect("it ends");
}

/// What a queueing discipline of a veth has sent, in packets.
fn sent(lab: &Lab, device: &str) -> u64 {
    let text = lab
        .topo
        .host()
        .sh(&format!("tc -s qdisc show dev {device}"))
        .expect("told");
    let mut words = text.split_whitespace().skip_while(|word| *word != "Sent");
    let packets = words.nth(3).expect("a number of packets");
    packets.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// It shapes each packet, so each must pass it.
#[test]
fn a_queueing_discipline_on_the_veth() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), Some(SELDOM));
    let Container { veth, .. } = lab.topo.container(0, 0);
    let (_echo, socket) = Way::Bridge.open(&lab, 40_104);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let add = format!("tc qdisc add dev {veth} root tbf rate 1gbit burst 100k latency 50ms");
    let _held = held(&lab, &add, &format!("tc qdisc del dev {veth} root"));
    // The daemon reads it at once.
    thread::sleep(Duration::from_millis(500));
    let (fast, before, number) = (lab.fast(), sent(&lab, veth), 200);
    for _ in 0..number {
        assert_eq!(
            ask_with(&socket, WANTED),
            Some(WANTED),
            "nothing is held back at this rate"
        );
    }
    let passed = sent(&lab, veth) - before;
    assert!(passed >= number, "{passed} of {number} packets passed it");
    assert!(lab.fast() > fast + number, "they are forwarded by netfast all the same");
}

/// Something that the way into the container stops, and that is not announced on the host's side.
fn stopped_at_the_other_end(length: usize, on: &str, off: &str) {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), Some(SELDOM));
    let a = lab.topo.container(0, 0);
    let (_echo, socket) = Way::Bridge.open(&lab, 40_105);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let arrives = |patience: u64| {
        let patience = Duration::from_millis(patience);
        socket.set_read_timeout(Some(patience)).expect("an option");
        let mut bytes = vec![WANTED; length];
        let _refused = socket.send(&bytes);
        socket.recv(&mut bytes).is_ok_and(|got| got == length)
    };
    assert!(arrives(200), "nothing stops it yet");
    let known = |ns: &NsHandle, container: &Container| {
        let line = format!(
            "ip neigh replace {} lladdr {} dev eth0 nud permanent",
            container.ip, container.mac
        );
        ns.sh(&line).expect("a neighbour");
    };
    // What is looked at is the way in, not whether each finds the other.
    known(&lab.topo.container(0, 1).ns, a);
    known(&a.ns, lab.topo.container(0, 1));
    a.ns.sh(on).expect("done");
    let begin = Instant::now();
    let mut last = Duration::ZERO;
    while begin.elapsed() < super::BOUND * 2 {
        if arrives(10) {
            last = begin.elapsed();
        }
    }
    assert!(last < super::BOUND, "let in for {last:?}");
    a.ns.sh(off).expect("undone");
    cmd::poll("an answer", crate::netns::lab::TIMEOUT, || arrives(200).then_some(())).expect("let in again");
}

#[test]
fn an_mtu_in_the_container_that_is_lowered() {
    stopped_at_the_other_end(1400, "ip link set eth0 mtu 1000", "ip link set eth0 mtu 1500");
}

#[test]
fn a_mac_address_in_the_container_that_is_changed() {
    stopped_at_the_other_end(
        64,
        "ip link set eth0 address 02:42:00:00:00:99",
        "ip link set eth0 address 02:42:ac:1e:00:02",
    );
}

/// Where nobody judges, packets go straight into the container.
#[test]
fn nobody_judges() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::start();
    let (_echo, socket) = Way::Bridge.open(&lab, 40_106);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    let mut exits = Vec::new();
    let each = |_: &FlowKey<IpAddr>, flow: &Flow<IpAddr>, usable: bool| exits.extend(usable.then_some(flow.exit));
    FlowTables::open(lab.netfast.pin_dir())
        .expect("the maps are pinned")
        .for_each(each)
        .expect("the flows");
    assert!(exits.len() >= 2, "{exits:?}");
    assert!(exits.iter().all(|exit| *exit == Exit::Peer as u8), "{exits:?}");
}
