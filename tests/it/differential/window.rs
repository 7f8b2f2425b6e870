//! Connections that netfast does not carry, or not yet: conntrack judges their windows as without netfast, and rules that
//! drop what is INVALID stop the same segments.

use std::net::SocketAddrV4;

use netfast_tests::{
    site::HOST_IP,
    topo::{Options, Published},
};

use super::{
    conversation::{Conversation, set_tcp},
    runner::{Case, check},
    wire::{ACK, FIN, Packet, TCP},
    world::World,
};

/// How far a segment is from where it should be, in bytes: within the window, at its edges, far outside, and behind.
const DISTANCES: [u32; 9] = [
    1,
    1_000,
    60_000,
    66_000,
    200_000,
    2_000_000,
    2_000_000_000,
    4_294_900_000,
    4_294_967_295,
];

fn case() -> Case {
    Case {
        topology: Options {
            bridges: vec![2],
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

/// Segments in both directions that are out of place, on a connection over each path that has just been opened.
fn out_of_place(world: &mut World, first_port: u16) {
    let neighbour = SocketAddrV4::new(world.ip("c01"), 7000);
    let outside = SocketAddrV4::new(world.ip("lan"), 7000);
    let published = SocketAddrV4::new(HOST_IP, 8080);
    let paths = [
        ("c00", neighbour, "c01"),
        ("c00", outside, "lan"),
        ("lan", published, "c00"),
    ];
    for (client, to, server) in paths {
        for (number, distance) in (0..).zip(DISTANCES) {
            let mut conversation = Conversation::open(world, TCP, client, first_port + number, to, server);
            let (right, answered) = (conversation.client_seq, conversation.server_seq);
            conversation.client_seq = right.wrapping_add(distance);
            let packet = conversation.forward(b"far away");
            world.step(&format!("{distance} ahead to {to}"), &[(client, packet)]);
            conversation.client_seq = right;
            conversation.server_seq = answered.wrapping_add(distance);
            let packet = conversation.back(b"far away");
            world.step(&format!("{distance} ahead from {to}"), &[(server, packet)]);
            conversation.server_seq = answered;
            conversation.say(world, "in its place", b"in its place");
            conversation.answer(world, "and an answer", b"and an answer");
        }
    }
    world.note_conntrack();
}

#[test]
fn of_connections_that_are_not_carried_yet() {
    check(&Case {
        // So many packets each way are the kernel's.
        config: Some("learn_after = 200\n"),
        script: |world| out_of_place(world, 41_000),
        ..case()
    });
}

#[test]
fn of_such_connections_where_invalid_packets_are_dropped() {
    check(&Case {
        config: Some("learn_after = 200\n"),
        prepare: |world| world.iptables("-I FORWARD -m conntrack --ctstate INVALID -j DROP"),
        script: |world| out_of_place(world, 42_000),
        ..case()
    });
}

/// Others are carried at the same time: the mark is theirs alone.
#[test]
fn of_such_connections_beside_one_that_is_carried() {
    check(&Case {
        prepare: |world| world.iptables("-I FORWARD -m conntrack --ctstate INVALID -j DROP"),
        script: |world| {
            let to = SocketAddrV4::new(world.ip("lan"), 7000);
            let carried = Conversation::open(world, TCP, "c01", 40_000, to, "lan");
            carried.warm(world);
            // From the first packet out of place on, nothing of these is in its window.
            let mut lost = Conversation::open(world, TCP, "c00", 40_001, to, "lan");
            lost.client_seq = lost.client_seq.wrapping_add(2_000_000_000);
            for _ in 0..5 {
                let packet = lost.forward(b"far away");
                world.step("far ahead", &[("c00", packet)]);
            }
            carried.warm(world);
            world.note_conntrack();
        },
        ..case()
    });
}

/// Of a connection that is carried conntrack sees few segments; it must still know its end.
#[test]
fn a_carried_connection_closes_where_invalid_packets_are_dropped() {
    check(&Case {
        prepare: |world| world.iptables("-I FORWARD -m conntrack --ctstate INVALID -j DROP"),
        script: |world| {
            let to = SocketAddrV4::new(world.ip("lan"), 7000);
            let mut conversation = Conversation::open(world, TCP, "c00", 40_000, to, "lan");
            conversation.warm(world);
            // More than a window, of which conntrack sees next to nothing with netfast on.
            for number in 0..120 {
                conversation.answer(world, &format!("data {number}"), &[b'x'; 1_400]);
                conversation.say(world, &format!("acknowledgement {number}"), b"");
            }
            let fin =
                |packet: Packet, seq: u32, ack: u32| packet.with(|packet| set_tcp(packet, FIN | ACK, seq, ack, &[]));
            let (client_seq, server_seq) = (conversation.client_seq, conversation.server_seq);
            let packet = fin(conversation.back(b""), server_seq, client_seq);
            world.step("the server's FIN", &[("lan", packet)]);
            conversation.server_seq += 1;
            let packet = fin(conversation.forward(b""), client_seq, conversation.server_seq);
            world.step("the client's FIN", &[("c00", packet)]);
            conversation.client_seq += 1;
            conversation.answer(world, "the last acknowledgement", b"");
            world.note_conntrack();
        },
        ..case()
    });
}
