//! Odd IP and Ethernet headers on established flows of every path.

use std::net::{Ipv4Addr, SocketAddrV4};

use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    site::HOST_IP,
    topo::{Options, Published},
};

use super::{
    conversation::Conversation,
    describe::Frame,
    runner::{Case, check, check_oracle},
    wire::{Checksum, DF, ICMP, Packet, TCP, UDP},
    world::{TIMEOUT, World},
};

/// One bridge with two containers, the first of which publishes a port; the other bridge is elsewhere.
fn topology() -> Options {
    Options {
        bridges: vec![2],
        published: vec![Published {
            host_port: 8080,
            container: (0, 0),
            port: 80,
        }],
        ..Options::default()
    }
}

/// A conversation of either protocol on one bridge, to the outside, and from the outside to a published port.
fn conversations(world: &mut World) -> Vec<Conversation> {
    let mut all = Vec::new();
    for protocol in [UDP, TCP] {
        let neighbour = SocketAddrV4::new(world.ip("c01"), 7000);
        let outside = SocketAddrV4::new(world.ip("lan"), 7000);
        let published = SocketAddrV4::new(HOST_IP, 8080);
        for (client, port, to, server) in [
            ("c00", 40_000, neighbour, "c01"),
            ("c00", 41_000, outside, "lan"),
            ("lan", 42_000, published, "c00"),
        ] {
            all.push(Conversation::open(world, protocol, client, port, to, server));
        }
    }
    all
}

/// Sends what `make` makes of an ordinary packet, on every path and both ways, and says as what each must be counted.
fn odd(title: &str, reason: Option<Reason>, world: &mut World, make: impl Fn(Packet) -> Vec<Packet>) {
    for conversation in conversations(world) {
        let Conversation { client, server, .. } = &conversation;
        for (from, packet) in [
            (client, conversation.forward(b"an odd packet, of 38 bytes of payload.")),
            (server, conversation.back(b"an odd answer, of 36 bytes of payload.")),
        ] {
            conversation.warm(world);
            let title = format!("{title}: {from}, protocol {}", conversation.protocol);
            let packets: Vec<_> = make(packet).into_iter().map(|packet| (from.as_str(), packet)).collect();
            world.step(&title, &packets);
            if let Some(reason) = reason {
                world.was(reason);
            }
        }
        conversation.warm(world);
    }
}

fn check_odd(script: fn(&mut World)) {
    check(&Case {
        topology: topology(),
        script,
        ..Case::default()
    });
}

#[test]
fn ttl_1() {
    check_odd(|world| {
        odd("TTL 1", Some(Reason::TtlExpiring), world, |packet| {
            vec![packet.with(|packet| packet.ttl = 1)]
        });
    });
}

#[test]
fn ttl_2_and_others() {
    check_odd(|world| {
        for ttl in [2, 3, 255] {
            odd(&format!("TTL {ttl}"), None, world, |packet| {
                vec![packet.with(|packet| packet.ttl = ttl)]
            });
        }
    });
}

#[test]
fn tos_and_ecn() {
    check_odd(|world| {
        odd("another DSCP", Some(Reason::DscpChanged), world, |packet| {
            vec![packet.with(|packet| packet.tos = 0xb8)]
        });
        odd("ECN", None, world, |packet| {
            (1..4)
                .map(|ecn| packet.clone().with(|packet| packet.tos = ecn))
                .collect()
        });
    });
}

#[test]
fn ip_options() {
    check_odd(|world| {
        // Record route with room for two; timestamps are of the moment, so not that.
        let record = vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        odd("record route", Some(Reason::IpOptions), world, |packet| {
            vec![packet.with(|packet| packet.options.clone_from(&record))]
        });
        odd("no-operations", Some(Reason::IpOptions), world, |packet| {
            vec![packet.with(|packet| packet.options = vec![1, 1, 1, 0])]
        });
    });
}

#[test]
fn fragments() {
    check_odd(|world| {
        odd("in order", Some(Reason::Fragment), world, |packet| packet.fragments(16));
        odd("out of order", Some(Reason::Fragment), world, |packet| {
            let mut pieces = packet.with(|packet| packet.id += 1).fragments(24);
            pieces.reverse();
            pieces
        });
        odd("the first one only", Some(Reason::Fragment), world, |packet| {
            let mut pieces = packet.with(|packet| packet.id += 2).fragments(16);
            pieces.truncate(1);
            pieces
        });
    });
}

#[test]
fn reserved_bit_and_may_fragment() {
    check_odd(|world| {
        odd("the reserved bit", Some(Reason::Malformed), world, |packet| {
            vec![packet.with(|packet| packet.fragment = 0x8000)]
        });
        odd("without DF", None, world, |packet| {
            vec![packet.with(|packet| packet.fragment &= !DF)]
        });
    });
}

#[test]
fn bad_ip_checksum() {
    check_odd(|world| {
        odd("IP checksum off by one", Some(Reason::BadIpChecksum), world, |packet| {
            vec![packet.with(|packet| packet.ip_checksum = Checksum::Wrong)]
        });
    });
}

/// conntrack calls it INVALID and does not translate it.
#[test]
fn bad_transport_checksum() {
    check_odd(|world| {
        odd(
            "transport checksum off by one",
            Some(Reason::BadChecksum),
            world,
            |packet| vec![packet.with(|packet| packet.transport_checksum = Checksum::Wrong)],
        );
        odd("of a long packet", Some(Reason::BadChecksum), world, |packet| {
            vec![
                packet
                    .data(&[b'x'; 1400])
                    .with(|packet| packet.transport_checksum = Checksum::Wrong),
            ]
        });
    });
}

#[test]
fn bad_transport_checksum_where_invalid_packets_are_dropped() {
    check(&Case {
        topology: topology(),
        prepare: |world| world.iptables("-I FORWARD -m conntrack --ctstate INVALID -j DROP"),
        script: |world| {
            odd("wrong and dropped", Some(Reason::BadChecksum), world, |packet| {
                vec![packet.with(|packet| packet.transport_checksum = Checksum::Wrong)]
            });
        },
        ..Case::default()
    });
}

#[test]
fn bad_transport_checksum_where_conntrack_does_not_look() {
    check(&Case {
        topology: topology(),
        prepare: |world| drop(world.sh("sysctl -qw net.netfilter.nf_conntrack_checksum=0")),
        script: |world| {
            odd("wrong and translated", Some(Reason::BadChecksum), world, |packet| {
                vec![packet.with(|packet| packet.transport_checksum = Checksum::Wrong)]
            });
        },
        ..Case::default()
    });
}

/// None with UDP, wrong with TCP.
#[test]
fn zero_transport_checksum() {
    check_odd(|world| {
        odd("a checksum of zero", None, world, |packet| {
            vec![packet.with(|packet| packet.transport_checksum = Checksum::Zero)]
        });
    });
}

/// The kernel cuts off what is behind the IP packet where it routes, and so does netfast.
#[test]
fn bytes_behind_the_packet() {
    check_odd(|world| {
        for length in [1, 6, 200] {
            odd(&format!("{length} bytes behind it"), None, world, move |packet| {
                vec![packet.with(|packet| packet.trailer = vec![0xa5; length])]
            });
        }
    });
}

#[test]
fn vlan_tags() {
    check_odd(|world| {
        odd("tagged", None, world, |packet| {
            vec![
                packet.clone().with(|packet| packet.vlan = Some(5)),
                packet.with(|packet| packet.vlan = Some(0)),
            ]
        });
    });
}

#[test]
fn other_protocols_between_the_same_hosts() {
    check_odd(|world| {
        odd("SCTP's number", None, world, |packet| {
            vec![packet.with(|packet| packet.protocol = 132)]
        });
        odd("ICMP echo", None, world, |packet| {
            let (source, destination) = (packet.source.ip(), packet.destination.ip());
            vec![Packet::icmp(source, destination, 8, 0, [0, 1, 0, 1], b"ping")]
        });
        odd("an ICMP type of nobody", None, world, |packet| {
            vec![packet.with(|packet| packet.protocol = ICMP)]
        });
    });
}

#[test]
fn short_and_long_lengths() {
    check_odd(|world| {
        odd("a full packet", None, world, |packet| {
            let room = 1500 - packet.clone().data(b"").ip_bytes().len();
            vec![packet.clone().data(&vec![b'x'; room]), packet.data(b"y")]
        });
    });
}

#[test]
fn spoofed_source_address() {
    check_odd(|world| {
        for conversation in conversations(world) {
            conversation.warm(world);
            if conversation.client == "c00" {
                // The neighbour claims to be the client, on the client's own flow.
                world.step("spoofed", &[("c01", conversation.forward(b"not me"))]);
                world.was(Reason::Spoofed);
                let strange = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), conversation.from.port());
                let packet = conversation
                    .forward(b"nobody")
                    .with(|packet| packet.source = strange.into());
                world.step("from an address of nobody's", &[("c00", packet)]);
                world.was(Reason::Spoofed);
            } else {
                world.step("spoofed answer", &[("c01", conversation.back(b"not me"))]);
                world.was(Reason::Spoofed);
            }
            conversation.warm(world);
        }
    });
}

#[test]
fn spoofed_mac() {
    check_odd(|world| {
        for conversation in conversations(world) {
            conversation.warm(world);
            let mac = world.station("c01").mac;
            let packet = conversation
                .forward(b"with another's MAC")
                .with(|packet| packet.source_mac = Some(mac));
            if conversation.client == "c00" {
                world.step("with the neighbour's MAC", &[("c00", packet)]);
            }
            // The bridge has believed it. The owner speaks up.
            let mine = Packet::udp(
                SocketAddrV4::new(world.ip("c01"), 9),
                SocketAddrV4::new(world.ip("c00"), 9),
                b"mine",
            );
            world.step("its owner speaks", &[("c01", mine)]);
        }
        for conversation in conversations_again(world) {
            world.step(
                "after that",
                &[(&conversation.client, conversation.forward(b"still here"))],
            );
        }
    });
}

/// More of them, from other ports.
fn conversations_again(world: &mut World) -> Vec<Conversation> {
    let outside = SocketAddrV4::new(world.ip("lan"), 7001);
    vec![Conversation::open(world, UDP, "c00", 43_000, outside, "lan")]
}

#[test]
fn multicast_and_broadcast() {
    check_odd(|world| {
        let mut all = conversations(world);
        all.retain(|conversation| conversation.client == "c00");
        for conversation in all {
            conversation.warm(world);
            let group = [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb];
            for (title, mac) in [("a multicast MAC", group), ("a broadcast MAC", [0xff; 6])] {
                let packet = conversation
                    .forward(b"to all")
                    .with(|packet| packet.destination_mac = Some(mac));
                world.step(title, &[("c00", packet)]);
                world.was(Reason::NotUnicast);
            }
            for address in [
                Ipv4Addr::new(224, 0, 0, 251),
                Ipv4Addr::BROADCAST,
                Ipv4Addr::new(172, 30, 0, 255),
            ] {
                let to = SocketAddrV4::new(address, conversation.to.port());
                let packet = conversation.forward(b"to all").with(|packet| {
                    packet.destination = to.into();
                    packet.destination_mac = Some([0xff; 6]);
                });
                world.step(&format!("to {address}"), &[("c00", packet)]);
            }
            // conntrack ends a masqueraded connection when one of its packets leaves by another interface, here by the
            // bridge; what is sent then is no longer translated. With netfast that holds from the next question on.
            cmd::poll("a packet that is not translated", TIMEOUT, || {
                let got = world.exchange(&[("c00", conversation.forward(b"to one"))]);
                let tuple = got[&conversation.server].first().and_then(Frame::tuple)?;
                (tuple.source == conversation.from).then_some(())
            })
            .expect("the kernel's new verdict");
            world.step("after that", &[("c00", conversation.forward(b"to one"))]);
        }
    });
}

#[test]
fn the_oracle_agrees_with_itself() {
    check_oracle(&Case {
        topology: topology(),
        script: |world| {
            odd("TTL 1", None, world, |packet| {
                vec![packet.with(|packet| packet.ttl = 1)]
            });
            odd("in order", None, world, |packet| packet.fragments(16));
        },
        ..Case::default()
    });
}
