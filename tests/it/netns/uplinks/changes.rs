//! What becomes of an uplink in mid-flow: another name, another address, another MTU, down and up, another port.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    netns::NsHandle,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
};

use super::{
    super::lab::{Echo, TIMEOUT, arrives_whole, ask, at, connect, udp, until_answered, until_silent, warm},
    kinds::{SOON, without_br_netfilter},
    world::{Kind, World, second_port},
};

/// The kinds whose changes are tried.
const KINDS: [Kind; 2] = [Kind::Ethernet, Kind::Bridge];

/// A host, and a conversation of a container with the outside that goes fast.
pub(super) fn conversation(kind: Kind) -> (World, Echo, UdpSocket) {
    let world = World::with(kind, &without_br_netfilter(), None);
    let echo = Echo::start(world.lan(), 7002);
    let socket = udp(&world.lab.topo.container(0, 0).ns, 40_010, at(LAN_IP, 7002));
    until_answered(&socket, "the first answer");
    warm(&world.lab, &socket);
    (world, echo, socket)
}

/// A server that says by which address it is asked.
pub(super) struct Witness(UdpSocket);

impl Witness {
    pub(super) fn start(ns: &NsHandle, to: SocketAddr) -> Self {
        let socket = ns.run(|| UdpSocket::bind(to)).expect("entered").expect("a socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a timeout");
        Self(socket)
    }

    /// Who the question of this socket seems to come from, if it arrives. It is answered.
    pub(super) fn sees(&self, asker: &UdpSocket) -> Option<SocketAddr> {
        let _refused = asker.send(b"who am I?");
        let mut data = [0; 64];
        let (length, from) = self.0.recv_from(&mut data).ok()?;
        let _lost = self.0.send_to(&data[..length], from);
        asker.recv(&mut data).ok()?;
        Some(from)
    }

    /// Asks until the questions come from there, which must be soon, and then always.
    pub(super) fn sees_soon(&self, asker: &UdpSocket, from: std::net::Ipv4Addr) {
        let since = Instant::now();
        cmd::poll("another source address", TIMEOUT, || {
            self.sees(asker).filter(|seen| seen.ip() == from)
        })
        .unwrap_or_else(|error| panic!("{error:#}: it comes from {:?}, not {from}", self.sees(asker)));
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
        for _ in 0..50 {
            assert_eq!(self.sees(asker).map(|seen| seen.ip()), Some(from.into()));
        }
    }
}

/// Asks until questions and answers are on the fast path.
pub(super) fn goes_fast(world: &World, witness: &Witness, asker: &UdpSocket) {
    cmd::poll("the fast path", TIMEOUT, || {
        let before = world.lab.fast();
        let all = (0..50).all(|_| witness.sees(asker).is_some());
        (all && world.lab.fast() >= before + 90).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", world.lab.told()));
}

/// What rules say of the new name holds at once, and it goes fast on under it.
#[test]
fn renamed() {
    if !needs(&[Need::Root]) {
        return;
    }
    for kind in KINDS {
        let (world, _echo, socket) = conversation(kind);
        world
            .lab
            .topo
            .iptables("-I DOCKER-USER -o wan0 -j DROP")
            .expect("a rule");
        until_answered(&socket, "no such interface yet");
        warm(&world.lab, &socket);
        let since = Instant::now();
        world
            .host()
            .ip(&format!("link set {} name wan0", kind.uplink()))
            .expect("renamed");
        until_silent(&socket, "silence under its new name");
        assert!(since.elapsed() < SOON, "{kind:?}: {:?}", since.elapsed());
        world.lab.topo.iptables("-F DOCKER-USER").expect("no rule");
        until_answered(&socket, "an answer");
        warm(&world.lab, &socket);
        let check = world.check();
        let mut lines = check.lines();
        assert!(
            lines.any(|line| line.contains("uplinks") && line.contains("wan0")),
            "{check}"
        );
    }
}

/// What was masqueraded with the old address comes from the new one.
#[test]
fn another_address() {
    if !needs(&[Need::Root]) {
        return;
    }
    for kind in KINDS {
        let (world, echo, socket) = conversation(kind);
        drop(echo);
        let witness = Witness::start(world.lan(), at(LAN_IP, 7002));
        assert_eq!(witness.sees(&socket).map(|seen| seen.ip()), Some(HOST_IP.into()));
        let (host, name) = (world.host(), kind.uplink());
        host.ip(&format!("addr del {HOST_IP}/24 dev {name}"))
            .expect("no address");
        assert!(!ask(&socket), "{kind:?}: it has no address, and no route");
        host.ip(&format!("addr add 198.18.0.2/24 dev {name}"))
            .expect("an address");
        host.ip(&format!("route replace default via {LAN_IP}"))
            .expect("a route");
        witness.sees_soon(&socket, [198, 18, 0, 2].into());
        goes_fast(&world, &witness, &socket);
    }
}

/// A smaller MTU than the container's: the kernel asks for smaller packets, and all arrives.
#[test]
fn a_smaller_mtu_in_mid_connection() {
    if !needs(&[Need::Root]) {
        return;
    }
    let world = World::with(Kind::Bridge, &without_br_netfilter(), None);
    let a = world.lab.topo.container(0, 0);
    let (mut near, mut far) = connect(&a.ns, at(LAN_IP, 7003), world.lan(), 7003);
    let data: Vec<u8> = (0..32_u32 << 20)
        .map(|at| u8::try_from(at % 253).expect("below 253"))
        .collect();
    for mtu in ["1500", "1100"] {
        world
            .host()
            .ip(&format!("link set {} mtu {mtu}", Kind::Bridge.uplink()))
            .expect("an MTU");
        let before = world.lab.fast();
        arrives_whole(&mut near, &mut far, &data);
        assert!(world.lab.fast() > before, "nothing was fast with an MTU of {mtu}");
    }
    let learned = a.ns.ip(&format!("route get {LAN_IP}")).expect("a route");
    assert!(learned.contains("mtu 1100"), "{learned}");
}

#[test]
fn down_and_up() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = conversation(Kind::Bridge);
    let (host, name) = (world.host(), Kind::Bridge.uplink());
    host.ip(&format!("link set {name} down")).expect("down");
    until_silent(&socket, "silence while it is down");
    host.ip(&format!("link set {name} up")).expect("up");
    host.ip(&format!("route replace default via {LAN_IP}"))
        .expect("a route");
    until_answered(&socket, "an answer when it is up again");
    warm(&world.lab, &socket);
}

/// The outside is behind another port of the bridge: it goes on, and fast.
#[test]
fn another_port_of_the_bridge() {
    if !needs(&[Need::Root]) {
        return;
    }
    let (world, _echo, socket) = conversation(Kind::Bridge);
    second_port(&world);
    let lan = world.lan();
    lan.ip("addr flush dev eth0").expect("no address");
    lan.ip("link set eth0 down").expect("down");
    lan.ip("link set eth1 up").expect("up");
    lan.ip(&format!("addr add {LAN_IP}/24 dev eth1")).expect("an address");
    let since = Instant::now();
    // What it says moves its MAC address to the other port.
    lan.sh(&format!("busybox ping -c1 -W5 {HOST_IP}"))
        .expect("the host answers");
    until_answered(&socket, "an answer from the other port");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    warm(&world.lab, &socket);
}
