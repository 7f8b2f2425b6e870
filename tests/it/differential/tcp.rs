//! TCP segments that open, close, and do not fit.

use std::net::SocketAddrV4;

use netfast_common::reason::Reason;
use netfast_tests::{
    site::HOST_IP,
    topo::{Options, Published},
};

use super::{
    conversation::{Conversation, set_tcp},
    runner::{Case, Inherent, LIBERAL, RESETS, check},
    wire::{ACK, FIN, PSH, RST, SYN, TCP},
    world::World,
};

/// The same script over a bridge, to the outside, and from the outside to a published port.
fn check_paths(inherent: Option<Inherent>, script: fn(&mut World)) {
    check(&Case {
        topology: Options {
            bridges: vec![2],
            published: vec![Published {
                host_port: 8080,
                container: (0, 0),
                port: 80,
            }],
            ..Options::default()
        },
        script,
        inherent,
        ..Case::default()
    });
}

fn each(world: &mut World, body: impl Fn(&mut World, Conversation)) {
    let neighbour = SocketAddrV4::new(world.ip("c01"), 7000);
    let outside = SocketAddrV4::new(world.ip("lan"), 7000);
    let published = SocketAddrV4::new(HOST_IP, 8080);
    for (client, to, server) in [
        ("c00", neighbour, "c01"),
        ("c00", outside, "lan"),
        ("lan", published, "c00"),
    ] {
        let mut conversation = Conversation::open(world, TCP, client, 40_000, to, server);
        conversation.warm(world);
        conversation.say(world, "a question", b"question");
        conversation.answer(world, "an answer", b"answer, which is longer");
        conversation.warm(world);
        body(world, conversation);
    }
}

/// A segment with these flags from the client (or the server), which is a step.
fn flagged(world: &mut World, conversation: &mut Conversation, from_client: bool, flags: u8) {
    let (name, seq, ack) = if from_client {
        (
            conversation.client.clone(),
            conversation.client_seq,
            conversation.server_seq,
        )
    } else {
        (
            conversation.server.clone(),
            conversation.server_seq,
            conversation.client_seq,
        )
    };
    let base = if from_client {
        conversation.forward(b"")
    } else {
        conversation.back(b"")
    };
    world.step(
        &format!("flags {flags:#04x} from {name}"),
        &[(&name, base.with(|packet| set_tcp(packet, flags, seq, ack, &[])))],
    );
    if flags & (FIN | SYN) != 0 {
        let next = if from_client {
            &mut conversation.client_seq
        } else {
            &mut conversation.server_seq
        };
        *next += 1;
    }
    world.note_conntrack();
}

#[test]
fn close_by_the_client_first() {
    check_paths(None, |world| {
        each(world, |world, mut conversation| {
            flagged(world, &mut conversation, true, FIN | ACK);
            world.was(Reason::TcpFin);
            flagged(world, &mut conversation, false, ACK);
            // Half closed: the server goes on.
            conversation.answer(world, "more of the answer", b"more");
            flagged(world, &mut conversation, true, ACK);
            flagged(world, &mut conversation, false, FIN | ACK);
            flagged(world, &mut conversation, true, ACK);
        });
    });
}

#[test]
fn close_by_the_server_first() {
    check_paths(None, |world| {
        each(world, |world, mut conversation| {
            flagged(world, &mut conversation, false, FIN | PSH | ACK);
            flagged(world, &mut conversation, true, ACK);
            conversation.say(world, "more questions", b"more");
            flagged(world, &mut conversation, false, ACK);
            flagged(world, &mut conversation, true, FIN | ACK);
            flagged(world, &mut conversation, false, ACK);
        });
    });
}

#[test]
fn close_by_both_at_once() {
    check_paths(None, |world| {
        each(world, |world, mut conversation| {
            let (client, server) = (conversation.client.clone(), conversation.server.clone());
            let forward = conversation.forward(b"").with(|packet| {
                set_tcp(packet, FIN | ACK, conversation.client_seq, conversation.server_seq, &[]);
            });
            let back = conversation.back(b"").with(|packet| {
                set_tcp(packet, FIN | ACK, conversation.server_seq, conversation.client_seq, &[]);
            });
            world.step("both", &[(&client, forward), (&server, back)]);
            conversation.client_seq += 1;
            conversation.server_seq += 1;
            flagged(world, &mut conversation, true, ACK);
            flagged(world, &mut conversation, false, ACK);
        });
    });
}

#[test]
fn reset_by_either() {
    check_paths(Some(RESETS), |world| {
        each(world, |world, mut conversation| {
            flagged(world, &mut conversation, true, RST | ACK);
            world.was(Reason::TcpRst);
            conversation.answer(world, "too late", b"too late");
        });
    });
    check_paths(Some(RESETS), |world| {
        each(world, |world, mut conversation| {
            flagged(world, &mut conversation, false, RST);
            conversation.say(world, "too late", b"too late");
        });
    });
}

#[test]
fn reset_with_a_wrong_sequence_number() {
    check_paths(Some(LIBERAL), |world| {
        each(world, |world, mut conversation| {
            let right = conversation.client_seq;
            conversation.client_seq = right.wrapping_add(1_000_000);
            flagged(world, &mut conversation, true, RST);
            conversation.client_seq = right.wrapping_sub(100_000);
            flagged(world, &mut conversation, true, RST | ACK);
            conversation.client_seq = right;
            conversation.say(world, "it lives on", b"it lives on");
            conversation.answer(world, "so it does", b"so it does");
            world.note_conntrack();
        });
    });
}

#[test]
fn data_outside_of_the_window() {
    check_paths(Some(LIBERAL), |world| {
        each(world, |world, mut conversation| {
            for distance in [200_000, 2_000_000_000, 4_294_000_000] {
                let right = conversation.client_seq;
                conversation.client_seq = right.wrapping_add(distance);
                let packet = conversation.forward(b"far away");
                world.step(&format!("{distance} ahead"), &[(&conversation.client, packet)]);
                conversation.client_seq = right;
            }
            conversation.say(world, "in the window", b"in the window");
            world.note_conntrack();
        });
    });
}

#[test]
fn syn_on_a_live_connection() {
    check_paths(Some(RESETS), |world| {
        each(world, |world, mut conversation| {
            // The client has forgotten the connection and takes the same port again.
            let old = conversation.clone();
            conversation.client_seq = 3_000_000_000;
            let syn = conversation.opening();
            world.step("a SYN again", &[(&conversation.client, syn)]);
            world.was(Reason::TcpSyn);
            world.note_conntrack();
            // The server challenges it (RFC 5961), the client resets.
            let challenge = old.back(b"");
            world.step("the challenge", &[(&old.server, challenge)]);
            let reset = old
                .forward(b"")
                .with(|packet| set_tcp(packet, RST, old.client_seq, 0, &[]));
            world.step("the reset", &[(&old.client, reset)]);
            world.note_conntrack();
            let syn = conversation.opening();
            world.step("a SYN once more", &[(&conversation.client, syn)]);
            conversation.client_seq += 1;
            conversation.server_seq = 77_000;
            let answer = conversation.back(b"").with(|packet| {
                set_tcp(packet, SYN | ACK, conversation.server_seq, conversation.client_seq, &[]);
            });
            world.step("accepted", &[(&conversation.server, answer)]);
            conversation.server_seq += 1;
            conversation.say(world, "the new connection", b"");
            conversation.warm(world);
            conversation.say(world, "and its data", b"data");
            world.note_conntrack();
        });
    });
}

#[test]
fn the_same_port_again_after_the_close() {
    check_paths(None, |world| {
        each(world, |world, mut conversation| {
            flagged(world, &mut conversation, true, FIN | ACK);
            flagged(world, &mut conversation, false, FIN | ACK);
            flagged(world, &mut conversation, true, ACK);
            let Conversation { client, to, server, .. } = &conversation;
            let again = Conversation::open(world, TCP, client, 40_000, *to, server);
            again.warm(world);
            world.note_conntrack();
        });
    });
}

#[test]
fn odd_flags_and_options() {
    check_paths(None, |world| {
        each(world, |world, conversation| {
            let (seq, ack) = (conversation.client_seq, conversation.server_seq);
            for flags in [0, PSH, FIN, SYN | FIN, SYN | RST, 0x20 | ACK, 0x40 | ACK, 0xff] {
                let packet = conversation
                    .forward(b"")
                    .with(|packet| set_tcp(packet, flags, seq, ack, &[]));
                world.step(&format!("flags {flags:#04x}"), &[(&conversation.client, packet)]);
                if flags == 0x40 | ACK {
                    conversation.warm(world);
                }
            }
            world.note_conntrack();
        });
    });
    check_paths(None, |world| {
        each(world, |world, conversation| {
            let (seq, ack) = (conversation.client_seq, conversation.server_seq);
            let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
            let sack = [1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2];
            for options in [&timestamps[..], &sack[..], &[0; 40][..]] {
                let packet = conversation
                    .forward(b"data")
                    .with(|packet| set_tcp(packet, ACK, seq, ack, options));
                world.step("options", &[(&conversation.client, packet)]);
            }
            conversation.warm(world);
        });
    });
}
