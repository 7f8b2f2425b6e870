//! Routes, neighbours and MTUs, and what changes in mid-flow.

use std::net::{Ipv4Addr, SocketAddrV4};

use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    netns::{NetNs, veth_pair},
    site::HOST_IP,
    topo::{Options, Published},
};

use super::{
    conversation::Conversation,
    runner::{Case, check},
    station::{Station, mac_of},
    wire::{DF, TCP, UDP},
    world::{TIMEOUT, World},
};

fn case() -> Case {
    Case {
        topology: Options {
            published: vec![Published {
                host_port: 8080,
                container: (0, 0),
                port: 80,
            }],
            ..Options::default()
        },
        ..Case::default()
    }
}

/// Behind the uplinks there is another network, which this address is in.
const BEHIND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// A second uplink `eth1` (198.19.0.1/24) with an outside client `lan2` (198.19.0.100) at its other end.
fn second_uplink(world: &mut World) {
    let ns = NetNs::new("lan2").expect("a namespace");
    veth_pair((world.topo.host(), "eth1"), (&ns, "eth0")).expect("a veth pair");
    for (ns, name, ip) in [(world.topo.host(), "eth1", "198.19.0.1"), (&ns, "eth0", "198.19.0.100")] {
        ns.ip(&format!("addr add {ip}/24 dev {name}")).expect("an address");
        ns.ip(&format!("link set {name} up")).expect("up");
    }
    let gateway = mac_of(world.topo.host(), "eth1").expect("a MAC");
    world.name_mac(gateway, "eth1");
    let station = Station::open("lan2", &ns, Ipv4Addr::new(198, 19, 0, 100), gateway).expect("a station");
    world.add_station(station);
    world.keep(ns);
}

/// Says something until it is `name` that gets it.
fn until_it_reaches(world: &mut World, conversation: &Conversation, name: &str) {
    cmd::poll("the other way", TIMEOUT, || {
        let got = world.exchange(&[(&conversation.client, conversation.forward(b"which way?"))]);
        (!got[name].is_empty()).then_some(())
    })
    .expect("it comes there");
}

#[test]
fn second_uplink_used() {
    check(&Case {
        prepare: second_uplink,
        script: |world| {
            for (name, port) in [("lan", 7000), ("lan2", 7000)] {
                for protocol in [UDP, TCP] {
                    let to = SocketAddrV4::new(world.ip(name), port);
                    let mut conversation = Conversation::open(world, protocol, "c00", 40_000, to, name);
                    conversation.warm(world);
                    conversation.say(world, "said", b"a question");
                    conversation.answer(world, "answered", b"an answer");
                }
            }
            // A published port answers by the uplink that the question came by.
            let to = SocketAddrV4::new(Ipv4Addr::new(198, 19, 0, 1), 8080);
            let conversation = Conversation::open(world, UDP, "lan2", 41_000, to, "c00");
            conversation.warm(world);
            // The same packet by the other uplink is another flow.
            world.step(
                "by the wrong uplink",
                &[("lan", conversation.forward(b"not from there"))],
            );
            assert!(!world.was_fast());
        },
        ..case()
    });
}

#[test]
fn route_changed_in_mid_flow() {
    check(&Case {
        config: Some("revalidate_ms = 10000\n"),
        prepare: |world| {
            second_uplink(world);
            world.sh(&format!("ip route add {BEHIND}/32 via 198.18.0.100"));
        },
        script: |world| {
            let mut all = Vec::new();
            for protocol in [UDP, TCP] {
                let to = SocketAddrV4::new(BEHIND, 7000);
                let conversation = Conversation::open(world, protocol, "c00", 40_000, to, "lan");
                conversation.warm(world);
                all.push(conversation);
            }
            let before = world.outdated();
            world.sh(&format!("ip route replace {BEHIND}/32 via 198.19.0.100"));
            for mut conversation in all {
                until_it_reaches(world, &conversation, "lan2");
                // As the kernel does it: with the source address that the connection began with.
                conversation.say(world, "the other way", b"the other way");
                conversation.say(world, "and again", b"again");
            }
            world.assert_outdated(before);
        },
        ..case()
    });
}

#[test]
fn neighbour_changed_in_mid_flow() {
    check(&Case {
        config: Some("revalidate_ms = 10000\n"),
        script: |world| {
            let mut all = Vec::new();
            for protocol in [UDP, TCP] {
                let to = SocketAddrV4::new(world.ip("lan"), 7000);
                let conversation = Conversation::open(world, protocol, "c00", 40_000, to, "lan");
                conversation.warm(world);
                all.push(conversation);
            }
            let before = world.outdated();
            world.sh("ip neigh replace 198.18.0.100 lladdr 02:00:00:00:00:77 dev eth0");
            for conversation in all {
                cmd::poll("the new neighbour", TIMEOUT, || {
                    let got = world.exchange(&[("c00", conversation.forward(b"to whom?"))]);
                    let to = got["lan"].first()?.bytes[..6].to_vec();
                    (to == [2, 0, 0, 0, 0, 0x77]).then_some(())
                })
                .expect("frames for it");
                world.step("to the new one", &[("c00", conversation.forward(b"to you"))]);
            }
            world.assert_outdated(before);
        },
        ..case()
    });
}

#[test]
fn policy_routing_by_mark() {
    check(&Case {
        prepare: |world| {
            second_uplink(world);
            world.sh(&format!(
                "ip route add {BEHIND}/32 via 198.18.0.100; ip route add default via 198.19.0.100 table 77; \
                 ip rule add fwmark 7 lookup 77"
            ));
            world.iptables("-t mangle -A PREROUTING -i br-0 -p udp --dport 7007 -j MARK --set-mark 7");
        },
        script: |world| {
            for (port, server) in [(7000, "lan"), (7007, "lan2")] {
                let to = SocketAddrV4::new(BEHIND, port);
                let mut conversation = Conversation::open(world, UDP, "c00", 40_000, to, server);
                for _ in 0..6 {
                    conversation.say(world, "said", b"a question");
                    conversation.answer(world, "answered", b"an answer");
                }
            }
        },
        ..case()
    });
}

#[test]
fn policy_routing_by_source() {
    check(&Case {
        prepare: |world| {
            second_uplink(world);
            world.sh(&format!(
                "ip route add {BEHIND}/32 via 198.18.0.100; ip route add default via 198.19.0.100 table 77; \
                 ip rule add from 172.30.0.3 lookup 77"
            ));
        },
        script: |world| {
            for (client, server) in [("c00", "lan"), ("c01", "lan2")] {
                for protocol in [UDP, TCP] {
                    let to = SocketAddrV4::new(BEHIND, 7000);
                    let mut conversation = Conversation::open(world, protocol, client, 40_000, to, server);
                    conversation.warm(world);
                    conversation.say(world, "said", b"a question");
                    conversation.answer(world, "answered", b"an answer");
                }
            }
        },
        ..case()
    });
}

/// Longer than what the way carries, with "don't fragment" and without.
fn too_big(world: &mut World) {
    for protocol in [UDP, TCP] {
        for (client, to, server) in [
            ("c00", SocketAddrV4::new(world.ip("lan"), 7000), "lan"),
            ("lan", SocketAddrV4::new(HOST_IP, 8080), "c00"),
        ] {
            let conversation = Conversation::open(world, protocol, client, 40_000, to, server);
            for (name, packet) in [
                (client, conversation.forward(&[b'x'; 1300])),
                (server, conversation.back(&[b'y'; 1300])),
                (client, conversation.forward(&[b'x'; 1000])),
                (server, conversation.back(&[b'y'; 1000])),
                // That one of a length that is let through was learned says nothing of longer ones.
                (client, conversation.forward(&[b'x'; 1300])),
                (server, conversation.back(&[b'y'; 1300])),
            ] {
                conversation.warm(world);
                let length = packet.payload.len();
                world.step(&format!("{length} bytes from {name}"), &[(name, packet.clone())]);
                // What is too long for the host's own end of the uplink does not even get there.
                if length > 1200 && name == "c00" {
                    world.was(Reason::TooBig);
                }
                conversation.warm(world);
                let packet = packet.with(|packet| packet.fragment &= !DF);
                world.step("the same, may be fragmented", &[(name, packet)]);
            }
        }
    }
}

#[test]
fn too_big_for_the_uplink() {
    check(&Case {
        prepare: |world| {
            world.sh("ip link set eth0 mtu 1200");
        },
        script: too_big,
        ..case()
    });
}

#[test]
fn too_big_for_the_route() {
    check(&Case {
        prepare: |world| {
            world.sh("ip route replace 198.18.0.0/24 dev eth0 src 198.18.0.1 mtu 1200");
        },
        script: too_big,
        ..case()
    });
}

#[test]
fn mtu_lowered_in_mid_flow() {
    check(&Case {
        script: |world| {
            let mut all = Vec::new();
            for protocol in [UDP, TCP] {
                let to = SocketAddrV4::new(world.ip("lan"), 7000);
                let conversation = Conversation::open(world, protocol, "c00", 40_000, to, "lan");
                conversation.warm(world);
                world.step("large", &[("c00", conversation.forward(&[b'x'; 1400]))]);
                conversation.warm(world);
                world.step("large again", &[("c00", conversation.forward(&[b'x'; 1400]))]);
                all.push(conversation);
            }
            world.sh("ip link set eth0 mtu 1000");
            for conversation in all {
                cmd::poll("the kernel's objection", TIMEOUT, || {
                    let got = world.exchange(&[("c00", conversation.forward(&[b'x'; 1400]))]);
                    (got["lan"].is_empty()).then_some(())
                })
                .expect("large packets no longer pass");
                world.step("large after that", &[("c00", conversation.forward(&[b'x'; 1400]))]);
                conversation.warm(world);
                world.step("small", &[("c00", conversation.forward(&[b'x'; 900]))]);
            }
        },
        ..case()
    });
}

/// A flow to the outside ends by what this line does, because the daemon hears of it.
fn ends_by(world: &mut World, line: &str) {
    let to = SocketAddrV4::new(world.ip("lan"), 7000);
    let conversation = Conversation::open(world, UDP, "c00", 40_000, to, "lan");
    conversation.warm(world);
    let before = world.outdated();
    world.sh(line);
    cmd::poll("the end of what was allowed", TIMEOUT, || {
        let got = world.exchange(&[("c00", conversation.forward(b"still?"))]);
        (got["lan"].is_empty()).then_some(())
    })
    .expect("it stops");
    world.step("no more", &[("c00", conversation.forward(b"no more"))]);
    world.assert_outdated(before);
}

#[test]
fn forwarding_switched_off_in_mid_flow() {
    check(&Case {
        config: Some("revalidate_ms = 10000\n"),
        script: |world| ends_by(world, "sysctl -qw net.ipv4.ip_forward=0"),
        ..case()
    });
}

/// Rules name interfaces: for a renamed bridge none of them holds, and the policy is to drop.
#[test]
fn bridge_renamed_in_mid_flow() {
    check(&Case {
        config: Some("revalidate_ms = 10000\n"),
        script: |world| ends_by(world, "ip link set br-0 name renamed"),
        ..case()
    });
}

/// A packet of a masqueraded connection that leaves by the bridge, since it is for another's MAC address, makes
/// conntrack forget the connection (`nf_nat_oif_changed`). What is sent next begins it anew.
#[test]
fn packet_to_another_mac_ends_the_flow() {
    check(&Case {
        config: Some("revalidate_ms = 10000\n"),
        script: |world| {
            let to = SocketAddrV4::new(world.ip("lan"), 7000);
            let neighbour = world.station("c01").mac;
            for mac in [neighbour, [0xff; 6]] {
                let conversation = Conversation::open(world, UDP, "c00", 40_000, to, "lan");
                conversation.warm(world);
                let packet = conversation
                    .forward(b"by another way")
                    .with(|packet| packet.destination_mac = Some(mac));
                world.step("by the bridge", &[("c00", packet)]);
                world.note_conntrack();
                world.step("after that", &[("c00", conversation.forward(b"after that"))]);
                world.note_conntrack();
            }
        },
        ..case()
    });
}
