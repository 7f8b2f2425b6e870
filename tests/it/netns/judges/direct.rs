//! A bridge where nobody judges packets: they are forwarded directly from the first one on, whatever they are. Whoever begins
//! to judge there sees them within a second, whether or not the daemon lives, and no conversation breaks for it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use netfast::apply::read::Tables;
use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    netns::NsHandle,
    programs,
    require::{Need, needs},
    topo::{self, Container},
    traffic::hash,
};
use nix::sys::signal::Signal;

use super::{
    BOUND, Held, LOOK, UNWANTED, Way, held, last_answer,
    program::{Judge, Pinned, Place},
};
use crate::netns::lab::{Lab, TIMEOUT, at, connect, topology, udp, until_answered, until_silent};

/// A protocol for experiments (RFC 3692).
const EXPERIMENT: i32 = 253;

/// Two containers on a bridge that shows nothing to iptables; flows ask the kernel so seldom that only the end of direct
/// forwarding can have been noticed.
fn unjudged() -> Lab {
    unjudged_with("")
}

/// The same, after a shell line in the host.
fn unjudged_with(line: &str) -> Lab {
    let options = topo::Options {
        br_netfilter: false,
        ..topology()
    };
    let topo = topo::Topo::new(&options).expect("a topology");
    topo.host().sh(line).expect("what is there before");
    let lab = Lab::around(topo, Some("direct = true\nrevalidate_ms = 10000\n"));
    until_direct(&lab);
    lab
}

fn ends(lab: &Lab) -> (&Container, &Container) {
    (lab.topo.container(0, 0), lab.topo.container(0, 1))
}

/// Sends datagrams that nobody answers: by flows none of them could be fast.
fn throw(socket: &UdpSocket, number: u64) {
    for _ in 0..number {
        // Refused, or no longer.
        let _refused = socket.send(&[b'q'; 64]);
    }
}

/// A socket that swallows what comes, and one that sends to it.
fn one_way(lab: &Lab, port: u16) -> (UdpSocket, UdpSocket) {
    let (a, b) = ends(lab);
    let sink = a.ns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
    (
        sink.expect("entered").expect("a socket"),
        udp(&b.ns, port + 1, at(a.ip, port)),
    )
}

/// Whether what goes between both containers is forwarded directly.
fn is_direct(lab: &Lab, socket: &UdpSocket) -> bool {
    let before = lab.fast();
    throw(socket, 20);
    lab.fast() - before >= 18
}

fn until_direct(lab: &Lab) {
    let (_sink, socket) = one_way(lab, 7300);
    let direct = cmd::poll("direct forwarding", TIMEOUT, || is_direct(lab, &socket).then_some(()));
    direct.unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", lab.told(), networks(lab)));
}

fn until_not_direct(lab: &Lab) {
    let (_sink, socket) = one_way(lab, 7310);
    let end = cmd::poll("the end of direct forwarding", TIMEOUT, || {
        (!is_direct(lab, &socket)).then_some(())
    });
    end.unwrap_or_else(|error| panic!("{error:#}\n{}", networks(lab)));
}

fn networks(lab: &Lab) -> String {
    lab.netfast
        .verb(&["networks", "br-0"])
        .unwrap_or_else(|error| format!("{error:#}"))
}

fn lease(lab: &Lab) -> u64 {
    let tables = Tables::open(lab.netfast.pin_dir()).expect("the maps are pinned");
    tables.control().expect("the switches").direct_until_ns
}

/// All of these packets are on the fast path, but one a second in each direction, and what finds the neighbours.
fn all_fast(lab: &Lab, what: &str, number: u64, send: impl FnOnce()) {
    let (before, begin) = (lab.fast(), Instant::now());
    send();
    let fast = lab.fast() - before;
    let due = 2 * (begin.elapsed().as_secs() + 3);
    assert!(fast + due >= number, "{what}: {fast} of {number}\n{}", lab.told());
}

/// Sends packets of a protocol that nobody knows.
fn experiment(ns: &NsHandle, to: Ipv4Addr, number: u64) {
    let send = || {
        // SAFETY: a new descriptor, which is ours.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, EXPERIMENT) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: as above.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET.cast_unsigned().try_into().expect("small"),
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(to.octets()),
            },
            sin_zero: [0; 8],
        };
        let payload = [0x5a_u8; 40];
        for _ in 0..number {
            // SAFETY: the buffers live, and their lengths are right.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    payload.as_ptr().cast(),
                    payload.len(),
                    0,
                    (&raw const address).cast(),
                    size_of_val(&address).try_into().expect("small"),
                )
            };
            assert_eq!(usize::try_from(sent).ok(), Some(payload.len()));
        }
    };
    ns.run(send).expect("entered");
}

#[test]
fn everything_is_fast_from_the_first_packet_on() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = unjudged();
    let (a, b) = ends(&lab);
    let (to, from) = (a.ip, b.ns.handle());
    for (container, number) in [(a, 1), (b, 2)] {
        let add = format!("ip address add fd00::{number}/64 dev eth0 nodad");
        container.ns.sh(&add).expect("an address");
    }
    let ping = |to: &str| {
        from.sh(&format!("busybox ping -A -q -c 200 -w 10 {to}"))
            .expect("answers")
    };
    all_fast(&lab, "ICMP", 400, || drop(ping(&to.to_string())));
    all_fast(&lab, "ICMPv6", 400, || drop(ping("fd00::1")));
    let (_sink, socket) = one_way(&lab, 7320);
    all_fast(&lab, "datagrams that nobody answers", 300, || throw(&socket, 300));
    all_fast(&lab, "an unknown protocol", 200, || experiment(&from, to, 200));
    // A handshake, data each way, the close of both.
    all_fast(&lab, "TCP connections", 20 * 8, || {
        for port in 7400..7420 {
            let (mut client, mut server) = connect(&from, at(to, port), &a.ns, port);
            let mut byte = [0];
            client.write_all(b"q").expect("sent");
            server.read_exact(&mut byte).expect("received");
            server.write_all(b"a").expect("sent");
            client.read_exact(&mut byte).expect("received");
        }
    });
    let slow = lab.count(Reason::PortDue);
    thread::sleep(Duration::from_millis(1100));
    throw(&socket, 10);
    assert_eq!(lab.count(Reason::PortDue), slow + 1, "the bridge is not forgotten");
    let explained = lab
        .netfast
        .verb(&["explain", &b.veth, &to.to_string()])
        .expect("it explains");
    assert!(explained.contains("nobody judges"), "{explained}");
}

/// Bulk goes through the receiver's queue, and nothing of it is learned.
#[test]
fn bulk_is_exact_both_ways() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = unjudged();
    let (a, b) = ends(&lab);
    let traffic = programs::traffic().expect("the traffic tool").display().to_string();
    let server = a.ns.spawn(&[&traffic, "recv-hash", "7001"]).expect("the server starts");
    thread::sleep(Duration::from_millis(300));
    let line = format!("{traffic} send-hash {}:7001 --bytes 300000000 --back 200000000", a.ip);
    let client = b.ns.sh(&line).expect("data both ways");
    let client: hash::Report = serde_json::from_str(&client).expect("a report");
    let server = server.wait(TIMEOUT).expect("its end").stdout;
    let server: hash::ServerReport = serde_json::from_str(&server).expect("a report");
    assert!(client.exact && server.connections[0].exact);
    assert_eq!(client.sent_sha256, server.connections[0].received_sha256);
    assert_eq!(lab.flows_of(a.ip), 0, "{}", lab.told());
    assert!(lab.count(Reason::PortDue) > 0, "{}", lab.told());
}

/// Somebody begins to judge in mid-flow, and says no to everything, or to what begins with [`UNWANTED`].
fn judged_in_time(before: &str, kills: &[bool], judge: impl Fn(&Lab) -> Held) {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    for kill in kills {
        let mut lab = unjudged_with(before);
        let (_echo, socket) = Way::Bridge.open(&lab, 40_200);
        until_answered(&socket, "an answer");
        if *kill {
            lab.netfast.stop(Signal::SIGKILL).expect("it dies");
        }
        let held = judge(&lab);
        let last = last_answer(&socket, UNWANTED, Instant::now());
        println!("killed: {kill}, the last answer after {last:?}");
        assert!(
            last < BOUND,
            "killed: {kill}, passed by for {last:?}\n{}",
            lab.netfast.log()
        );
        drop(held);
    }
}

const BOTH: [bool; 2] = [false, true];

/// A rule that nobody asks while bridges show nothing to iptables.
const RULE: &str = "iptables -w -I FORWARD -i br-0 -o br-0 -p udp -j DROP";

#[test]
fn br_netfilter_of_all_bridges() {
    judged_in_time(RULE, &BOTH, |lab| {
        let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        Box::new(held(lab, &format!("echo 1 >{switch}"), &format!("echo 0 >{switch}")))
    });
}

#[test]
fn br_netfilter_of_one_bridge() {
    judged_in_time(RULE, &BOTH, |lab| {
        let set = |to: u8| format!("ip link set br-0 type bridge nf_call_iptables {to}");
        Box::new(held(lab, &set(1), &set(0)))
    });
}

#[test]
fn a_rule_of_nftables_for_bridges() {
    judged_in_time("", &BOTH, |lab| {
        let on = "nft 'table bridge judge { chain c { type filter hook forward priority 0; policy drop; }; }'";
        Box::new(held(lab, on, "nft delete table bridge judge"))
    });
}

#[test]
fn a_rule_of_ebtables() {
    if !needs(&[Need::Program("ebtables")]) {
        return;
    }
    judged_in_time("", &BOTH, |lab| {
        Box::new(held(lab, "ebtables -I FORWARD -j DROP", "ebtables -D FORWARD -j DROP"))
    });
}

#[test]
fn isolated_ports() {
    judged_in_time("", &BOTH, |lab| {
        let veths = [0, 1].map(|index| lab.topo.container(0, index).veth.clone());
        let set = |to: &str| {
            let lines = veths
                .iter()
                .map(|veth| format!("bridge link set dev {veth} isolated {to}"));
            lines.collect::<Vec<_>>().join("; ")
        };
        Box::new(held(lab, &set("on"), &set("off")))
    });
}

#[test]
fn a_port_that_is_switched_off() {
    judged_in_time("", &BOTH, |lab| {
        let veth = &lab.topo.container(0, 0).veth;
        let set = |to: &str| format!("bridge link set dev {veth} state {to}");
        Box::new(held(lab, &set("0"), &set("3")))
    });
}

/// A classic filter.
fn filter(hook: &str, index: usize) {
    judged_in_time("", &BOTH, |lab| {
        let (pinned, veth) = (Pinned::of_filter(), &lab.topo.container(0, index).veth);
        let on = format!(
            "tc qdisc add dev {veth} clsact; tc filter add dev {veth} {hook} bpf da pinned {}",
            pinned.path()
        );
        let undo = held(lab, &on, &format!("tc qdisc del dev {veth} clsact"));
        Box::new((undo, pinned))
    });
}

#[test]
fn a_filter_on_the_sender_s_port() {
    filter("ingress", 1);
}

#[test]
fn a_filter_on_the_receiver_s_port() {
    filter("egress", 0);
}

#[test]
fn a_program_on_a_port() {
    judged_in_time("", &BOTH, |lab| {
        let veth = &lab.topo.container(0, 0).veth;
        Box::new(Judge::on(lab.topo.host(), veth, Place::TcxEgress))
    });
}

#[test]
fn xdp_on_a_port() {
    judged_in_time("", &BOTH, |lab| {
        let veth = &lab.topo.container(0, 1).veth;
        Box::new(Judge::on(lab.topo.host(), veth, Place::XdpGeneric))
    });
}

#[test]
fn xdp_in_the_container() {
    judged_in_time("", &BOTH, |lab| {
        Box::new(Judge::on(&lab.topo.container(0, 0).ns, "eth0", Place::XdpGeneric))
    });
}

/// The lease runs out, flows are learned, and a connection goes on; with a daemon everything is direct again.
#[test]
fn a_dead_daemon_ends_it_and_breaks_nothing() {
    if !needs(&[Need::Root]) {
        return;
    }
    let mut lab = unjudged();
    let (a, b) = ends(&lab);
    let (mut client, mut server) = connect(&b.ns, at(a.ip, 7500), &a.ns, 7500);
    let mut talk = |times: u32| {
        let mut bytes = [0; 100];
        for _ in 0..times {
            client.write_all(&[b'q'; 100]).expect("sent");
            server.read_exact(&mut bytes).expect("received");
            server.write_all(&[b'a'; 100]).expect("sent");
            client.read_exact(&mut bytes).expect("received");
            thread::sleep(Duration::from_millis(2));
        }
    };
    talk(20);
    assert!(lease(&lab) > 0);
    lab.netfast.stop(Signal::SIGKILL).expect("it dies");
    talk(600);
    until_not_direct(&lab);
    assert!(
        lab.count(Reason::NoFlow) + lab.count(Reason::Unreplied) > 0,
        "the kernel is asked: {}",
        lab.told()
    );
    talk(20);
    lab.netfast.launch().expect("it starts again");
    until_direct(&lab);
    talk(20);
    lab.netfast.stop(Signal::SIGTERM).expect("it stops");
    assert_eq!(lease(&lab), 0, "a daemon that stops takes it back at once");
    talk(20);
    lab.netfast.launch().expect("it starts again");
    until_direct(&lab);
    lab.netfast.detach().expect("detach");
    talk(20);
}

/// A station that moves to another port is followed there.
#[test]
fn a_station_that_moves() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = unjudged();
    let (a, b) = ends(&lab);
    let (_echo, socket) = Way::Bridge.open(&lab, 40_201);
    until_answered(&socket, "an answer");
    // The bridge is told that container 0 is where nobody is. Sticky: an answer that is on its way, or ARP, would take a
    // static entry back to where it came from (br_fdb_update), with netfast or without.
    let tell = format!(
        "ip link add elsewhere type dummy 2>/dev/null || ip link add elsewhere type veth peer name behind; \
         ip link set elsewhere master br-0 up; ip link set behind up 2>/dev/null; \
         bridge fdb replace {} dev elsewhere master static sticky",
        a.mac
    );
    lab.topo.host().sh(&tell).expect("an entry");
    until_silent(&socket, "the bridge sends them elsewhere");
    let gone = format!("bridge fdb del {} dev elsewhere master; ip link del elsewhere", a.mac);
    lab.topo.host().sh(&gone).expect("no entry");
    a.ns.sh(&format!("busybox ping -c1 -W5 {}", b.ip))
        .expect("it is heard of");
    until_answered(&socket, "an answer");
    until_direct(&lab);
}

/// Containers that come, and go, and hints without end: what is direct stays so, but for moments.
#[test]
fn it_comes_back_after_each_change() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = unjudged();
    for line in [
        "nft 'table ip other { chain c { type filter hook forward priority 0; }; }'",
        "nft delete table ip other",
        "ip link add other type veth peer name another; ip link set other master br-0 up",
        "ip link del other",
    ] {
        lab.topo.host().sh(line).expect("a change");
        until_direct(&lab);
    }
    lab.topo
        .host()
        .set_sysctl("net/bridge/bridge-nf-call-ip6tables", "1")
        .expect("a switch");
    thread::sleep(LOOK);
    until_not_direct(&lab);
    let said = networks(&lab);
    assert!(said.contains("bridge-nf-call-ip6tables"), "{said}");
}
