//! What comes in: outer headers are taken off at the uplink, data is exact, and whatever judges outer packets or packets inside goes on
//! deciding.

use std::{collections::BTreeMap, net::SocketAddr};

use netfast_tests::{
    netns::{NetNs, veth_pair},
    packet::Packet,
    traffic::flood,
};
use nix::sys::signal::Signal;

use super::*;

impl World {
    /// Packets that came in through the tunnel of a host so far: taken off at the uplink, and by the kernel.
    fn received(&self, number: usize) -> (u64, u64) {
        let by_kernel = self
            .host(number)
            .ns
            .sh(&format!("cat /proc/thread-self/net/dev | grep {TUNNEL}"))
            .expect("its counters");
        let words: Vec<&str> = by_kernel.split_whitespace().collect();
        (
            self.count(number, Reason::Decapsulated),
            words[2].parse().expect("a number"),
        )
    }

    /// Enough was taken off since then.
    fn check_received(&self, number: usize, before: (u64, u64), at_least: u64, share: f64) {
        let now = self.received(number);
        let (taken, by_kernel) = (now.0 - before.0, now.1 - before.1);
        assert!(
            taken >= at_least && taken as f64 / (taken + by_kernel) as f64 > share,
            "host {number}: {taken} outer headers were taken off at the uplink, and {by_kernel} by the kernel"
        );
    }

    /// Asks until outer headers are taken off on both hosts.
    fn warm_in(&self, socket: &UdpSocket) {
        cmd::poll("outer headers that are taken off", TIMEOUT, || {
            let before = [0, 1].map(|number| self.count(number, Reason::Decapsulated));
            let answered = (0..4).filter(|_| ask(socket)).count();
            let now = [0, 1].map(|number| self.count(number, Reason::Decapsulated));
            (answered == 4 && now[0] >= before[0] + 4 && now[1] >= before[1] + 4).then_some(())
        })
        .expect("they are learned");
    }
}

/// TCP with segments that stay together, datagrams and echo arrive as they were sent, most of them without the kernel's tunnel.
fn arrives(kind: Kind, options: &str) {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let world = World::with(kind, options);
    let before = [0, 1].map(|number| world.received(number));
    bulk(&world);
    for number in [0, 1] {
        world.check_received(number, before[number], 100, 0.5);
    }
    let before = world.received(1);
    datagrams(&world);
    world.check_received(1, before, 1000, SHARE);
    let before = world.received(0);
    pings(&world);
    world.check_received(0, before, 20, 0.5);
    let said = world.check();
    assert!(
        said.contains("outer headers are repeated") && !said.contains("takes each one off"),
        "{said}"
    );
}

#[test]
fn data_by_a_route_is_exact() {
    arrives(Kind::Routed, "noudpcsum");
}

#[test]
fn data_by_a_bridge_is_exact() {
    arrives(Kind::Bridged, "noudpcsum");
}

#[test]
fn data_with_udp_checksums_is_exact() {
    arrives(Kind::Routed, "udpcsum");
}

/// A conversation that is warm both ways in, on both sides.
fn warm_conversation(kind: Kind) -> Option<(World, Echo, UdpSocket)> {
    let (world, echo, socket) = conversation(kind)?;
    world.warm_in(&socket);
    Some((world, echo, socket))
}

/// What is done on the near host stops the conversation within a second, with `FAR` for the far host's address and `MAC` for the far
/// container's MAC address; it goes on when it is undone.
fn stops(kind: Kind, changes: &[(&str, &str)]) {
    let Some((world, _echo, socket)) = warm_conversation(kind) else {
        return;
    };
    let (near, far) = (&world.host(0).ns, world.host(1));
    let told = |text: &str| {
        let text = text.replace("FAR", &far.ip.to_string());
        text.replace("PORT", &PORT.to_string())
            .replace("MAC", "02:00:00:00:03:02")
    };
    for (on, off) in changes {
        near.sh(&told(on)).expect("it is done");
        silent_soon(&socket, &format!("{on}: it holds"));
        near.sh(&told(off)).expect("it is undone");
        until_answered(&socket, "it is undone");
        world.warm_in(&socket);
    }
}

#[test]
fn rules_about_outer_packets_that_come_in_hold() {
    stops(
        Kind::Routed,
        &[
            (
                "iptables -w -I INPUT -p udp --dport PORT -j DROP",
                "iptables -w -D INPUT -p udp --dport PORT -j DROP",
            ),
            (
                "iptables -w -t raw -I PREROUTING -p udp --dport PORT -s FAR -j DROP",
                "iptables -w -t raw -D PREROUTING -p udp --dport PORT -s FAR -j DROP",
            ),
            (
                "nft add table netdev n && nft add chain netdev n i '{ type filter hook ingress device eth0 priority 0; }' && \
                 nft add rule netdev n i udp dport PORT drop",
                "nft delete table netdev n",
            ),
            (
                "ip xfrm policy add src FAR/32 dst 0.0.0.0/0 proto udp dport PORT dir in action block",
                "ip xfrm policy delete src FAR/32 dst 0.0.0.0/0 proto udp dport PORT dir in",
            ),
        ],
    );
}

#[test]
fn rules_about_packets_inside_hold() {
    stops(
        Kind::Routed,
        &[
            (
                "iptables -w -I FORWARD -i flannel.1 -p udp -j DROP",
                "iptables -w -D FORWARD -i flannel.1 -p udp -j DROP",
            ),
            (
                "iptables -w -t raw -I PREROUTING -i flannel.1 -p udp -j DROP",
                "iptables -w -t raw -D PREROUTING -i flannel.1 -p udp -j DROP",
            ),
        ],
    );
}

/// The device is told that the far container is behind another end: the kernel drops what comes from this one (`vxlan_snoop`).
#[test]
fn a_forwarding_entry_that_says_another_end_holds() {
    stops(
        Kind::Bridged,
        &[(
            "bridge fdb replace MAC dev flannel.1 dst 198.18.0.99 self static",
            "bridge fdb replace MAC dev flannel.1 dst FAR self dynamic",
        )],
    );
}

#[test]
fn the_device_and_the_uplink_may_go_down() {
    stops(
        Kind::Bridged,
        &[
            ("ip link set flannel.1 down", "ip link set flannel.1 up"),
            ("ip link set eth0 down", "ip link set eth0 up"),
        ],
    );
}

/// One that must see each packet that comes in keeps the kernel taking all headers off, and goes on seeing each.
#[test]
fn a_rule_that_judges_by_the_packet_sees_every_one_that_comes_in() {
    let Some((world, _echo, socket)) = warm_conversation(Kind::Routed) else {
        return;
    };
    limit_in(&world, &socket, "INPUT", Reason::Decapsulated);
    // What goes out is none of its business.
    world.warm(&socket);
    let said = world.check();
    assert!(
        said.contains(
            "the kernel takes each one off what comes in: this rule must see every outer packet that comes in"
        ),
        "{said}"
    );
    let rule = format!("iptables -w -D INPUT -p udp --dport {PORT} {LIMIT}");
    world.host(0).ns.sh(&rule).expect("no rule");
    world.warm_in(&socket);
}

/// A frame from the far host, whose outer header is the one that is known.
fn forged(world: &World, header: &[u8; 64], inside: &Packet, outside: impl FnOnce(&mut Packet)) -> Vec<u8> {
    let mac = |at: usize| -> [u8; 6] { header[at..at + 6].try_into().expect("six bytes") };
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let outer = Packet::udp((world.host(1).ip, port(34)), (world.host(0).ip, port(36)))
        .macs(mac(0), mac(6))
        .with(|outer| {
            outer.fragment = u16::from_be_bytes([header[20], header[21]]);
            outer.tos = header[15];
            outer.ttl = header[22];
            outer.checksum = Some(0);
            outer.payload = [&header[42..50], &inside.bytes()[..]].concat();
        });
    outer.with(outside).bytes()
}

/// What it is, and what is done to the packet inside and to the outer one.
type Forgery = (&'static str, fn(&mut Packet), fn(&mut Packet));

const FORGERIES: &[Forgery] = &[
    ("as it should be", |_| (), |_| ()),
    ("another end", |_| (), |o| o.source.0 = Ipv4Addr::new(198, 18, 0, 66)),
    ("another identifier", |_| (), |o| o.payload[6] ^= 1),
    ("another sender", |i| i.source.0 = Ipv4Addr::new(10, 244, 9, 9), |_| ()),
    ("cut short", |_| (), |o| o.payload.truncate(o.payload.len() - 3)),
    ("a wrong checksum", |i| i.checksum = Some(1), |_| ()),
    ("another station", |i| i.to_mac[5] ^= 0x40, |_| ()),
];

/// What a socket gets, and how often.
fn heard(socket: &UdpSocket) -> BTreeMap<Vec<u8>, u32> {
    let mut heard = BTreeMap::new();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("an option");
    let mut buffer = [0; 512];
    while let Ok(length) = socket.recv(&mut buffer) {
        *heard.entry(buffer[..length].to_vec()).or_insert(0) += 1;
    }
    heard
}

/// Whoever can send to the uplink sends packets that look like those of a conversation: only those reach the container that the
/// kernel would let through.
#[test]
fn forged_packets_reach_nobody_whom_the_kernel_would_not_let_them_reach() {
    let Some((world, _echo, socket)) = warm_conversation(Kind::Routed) else {
        return;
    };
    let (near, far) = (world.host(0), world.host(1));
    near.ns
        .sh(&format!(
            "iptables -w -A INPUT -i {TUNNEL} -p udp --dport {PORT} -j DROP && \
             iptables -w -A INPUT -p udp --dport {PORT} -s {} -j ACCEPT && iptables -w -A INPUT -p udp --dport {PORT} -j DROP && \
             iptables -w -I FORWARD -s 10.244.9.0/24 -j DROP",
            far.ip
        ))
        .expect("rules");
    world.warm_in(&socket);
    let SocketAddr::V4(own) = socket.local_addr().expect("its address") else {
        panic!("IPv4");
    };
    let tables = Tables::open(world.netfast[0].pin_dir()).expect("the maps are pinned");
    let header = tables
        .headers_in()
        .expect("they are read")
        .into_iter()
        .find(|(key, _)| key.destination_port.number() == own.port())
        .expect("it is known")
        .1;
    let mac = |at: usize| -> [u8; 6] { header[at..at + 6].try_into().expect("six bytes") };
    let inside = |mark: &str| {
        Packet::udp((far.container_ip, 7002), (near.container_ip, own.port()))
            .macs(mac(50), mac(56))
            .with(|packet| {
                packet.ttl = 63;
                packet.payload = mark.as_bytes().to_vec();
            })
    };
    let mut frames: Vec<Vec<u8>> = FORGERIES
        .iter()
        .map(|(what, within, outside)| forged(&world, &header, &inside(what).with(within), outside))
        .collect();
    let within = forged(&world, &header, &inside("nested"), |_| ());
    let mut nested = Packet::udp((far.ip, 1234), (near.ip, PORT)).macs(mac(50), mac(56));
    nested.payload = [&header[42..50], &within[..]].concat();
    frames.push(forged(&world, &header, &nested, |_| ()));
    let before = world.count(0, Reason::Decapsulated);
    far.ns
        .run(|| {
            for _ in 0..5 {
                for frame in &frames {
                    flood::send_one("eth0", frame).expect("sent");
                }
            }
        })
        .expect("entered");
    let mut heard = heard(&socket);
    assert_eq!(heard.remove(&b"as it should be"[..]), Some(5), "{heard:?}");
    assert!(heard.is_empty(), "{heard:?}");
    let taken = world.count(0, Reason::Decapsulated) - before;
    assert!((1..=5).contains(&taken), "{taken} were taken off");
}

/// The far host has another address: its packets come from there at once, and the old one counts no more.
#[test]
fn an_end_that_moves_is_learned_anew() {
    let Some((world, _echo, socket)) = warm_conversation(Kind::Routed) else {
        return;
    };
    let (near, far) = (&world.host(0).ns, &world.host(1).ns);
    far.ip("addr add 198.18.0.77/24 dev eth0").expect("an address");
    near.sh(&format!(
        "iptables -w -I INPUT -p udp --dport {PORT} -s 198.18.0.77 -j DROP"
    ))
    .expect("a rule");
    // Its outer packets leave from the new address.
    far.sh(&format!(
        "iptables -w -t nat -I POSTROUTING -p udp --dport {PORT} -j SNAT --to-source 198.18.0.77 && \
         conntrack -F || true"
    ))
    .expect("a rule");
    let is_moved = cmd::poll("packets come from elsewhere", Duration::from_secs(4), || {
        (!ask(&socket) && !ask(&socket)).then_some(())
    });
    if is_moved.is_ok() {
        near.sh(&format!(
            "iptables -w -D INPUT -p udp --dport {PORT} -s 198.18.0.77 -j DROP"
        ))
        .expect("no rule");
        until_answered(&socket, "the kernel takes them");
    }
    world.warm_in(&socket);
}

/// Without a daemon: each conversation asks the kernel by itself. The next daemon takes over what is there; detached, all is gone and
/// nothing breaks.
#[test]
fn it_goes_on_when_the_daemon_is_killed_and_is_gone_when_detached() {
    let Some((mut world, _echo, socket)) = warm_conversation(Kind::Routed) else {
        return;
    };
    world.netfast[0].stop(Signal::SIGKILL).expect("it dies");
    thread::sleep(Duration::from_millis(1100));
    world.warm_in(&socket);
    let rule = format!("INPUT -p udp --dport {PORT} -j DROP");
    let ns = &world.host(0).ns;
    ns.sh(&format!("iptables -w -I {rule}")).expect("a rule");
    silent_soon(&socket, "the rule holds");
    ns.sh(&format!("iptables -w -D {rule}")).expect("no rule");
    until_answered(&socket, "the rule is gone");
    world.warm_in(&socket);
    let before = [TUNNEL, "eth0"].map(|interface| programs_at(&world.host(0).ns, interface));
    world.netfast[0].launch().expect("it starts again");
    let after = [TUNNEL, "eth0"].map(|interface| programs_at(&world.host(0).ns, interface));
    assert_eq!(before, after);
    world.warm_in(&socket);
    world.netfast[0].detach().expect("detached");
    for interface in [TUNNEL, "eth0"] {
        assert!(programs_at(&world.host(0).ns, interface).is_empty(), "{interface}");
    }
    assert_eq!((0..20).filter(|_| ask(&socket)).count(), 20);
}

/// The container hands what comes to its own address on to another one within it, whose link takes no segments that were put together:
/// its kernel makes them out of packets that it takes for those of a tunnel.
#[test]
fn a_container_that_translates_to_another_within_it() {
    let Some((world, _echo, _socket)) = warm_conversation(Kind::Routed) else {
        return;
    };
    let far = world.host(1);
    let nested = NetNs::new("nested").expect("a namespace");
    veth_pair((&far.container, "veth9"), (&nested, "eth0")).expect("a link");
    far.container
        .sh(
            "ip addr add 192.168.9.1/24 dev veth9 && ip link set veth9 gso_max_segs 1 mtu 1200 up && \
             echo 1 > /proc/sys/net/ipv4/ip_forward && \
             iptables -w -t nat -A PREROUTING -i eth0 -p tcp --dport 7001 -j DNAT --to-destination 192.168.9.2",
        )
        .expect("it forwards");
    nested
        .sh("ip addr add 192.168.9.2/24 dev eth0 && ip link set eth0 mtu 1200 up && ip route add default via 192.168.9.1")
        .expect("it is reached");
    let before = world.received(1);
    transfer::bulk(&world.host(0).container, at(far.container_ip, 7001), &nested, 7001);
    world.check_received(1, before, 100, 0.3);
}

/// A smaller MTU on the way inside: the kernel answers, and data arrives whole.
#[test]
fn a_smaller_mtu_inside() {
    let Some((world, _echo, _socket)) = warm_conversation(Kind::Routed) else {
        return;
    };
    bulk(&world);
    let near = world.host(0);
    let to = near.container_ip;
    near.ns
        .ip(&format!("route add {to}/32 dev cni0 mtu lock 1200"))
        .expect("a route");
    bulk(&world);
    near.ns.ip(&format!("route del {to}/32")).expect("no route");
    let before = world.received(0);
    bulk(&world);
    world.check_received(0, before, 50, 0.5);
}
