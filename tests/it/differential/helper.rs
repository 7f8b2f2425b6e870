//! Connections that a conntrack helper works on: it stays with them when the rule that gave it is gone.

use std::net::SocketAddrV4;

use super::{
    conversation::Conversation,
    runner::{Case, check},
    wire::{TCP, UDP},
    world::World,
};

fn to(world: &World, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(world.ip("lan"), port)
}

/// Nothing of it may be carried, now or later: the helper rewrites the address in PORT and makes room for the connection
/// back.
#[test]
fn ftp_goes_on_when_its_rule_is_gone() {
    const RULE: &str = "PREROUTING -p tcp --dport 21 -j CT --helper ftp";
    check(&Case {
        prepare: |world| world.iptables(&format!("-t raw -A {RULE}")),
        script: |world| {
            let to = to(world, 21);
            let mut conversation = Conversation::open(world, TCP, "c00", 40_000, to, "lan");
            conversation.answer(world, "a greeting", b"220 hello\r\n");
            world.iptables(&format!("-t raw -D {RULE}"));
            let other = Conversation::open(world, TCP, "c01", 40_001, to, "lan");
            // Without the rule the network is fast, and so is a connection that came after it.
            other.warm(world);
            for number in 0..8 {
                conversation.say(world, "a command", format!("NOOP {number}\r\n").as_bytes());
                conversation.answer(world, "its answer", b"200 OK\r\n");
            }
            conversation.say(world, "PORT", b"PORT 172,30,0,2,39,16\r\n");
            conversation.answer(world, "OK", b"200 OK\r\n");
            conversation.say(world, "PORT again", b"PORT 172,30,0,2,39,17\r\n");
            conversation.answer(world, "OK again", b"200 OK\r\n");
        },
        ..Case::default()
    });
}

#[test]
fn tftp_goes_on_when_its_rule_is_gone() {
    const RULE: &str = "PREROUTING -p udp --dport 69 -j CT --helper tftp";
    check(&Case {
        prepare: |world| world.iptables(&format!("-t raw -A {RULE}")),
        script: |world| {
            let to = to(world, 69);
            let mut conversation = Conversation::open(world, UDP, "c00", 40_000, to, "lan");
            world.iptables(&format!("-t raw -D {RULE}"));
            let other = Conversation::open(world, UDP, "c01", 40_001, to, "lan");
            other.warm(world);
            for number in 0..8 {
                conversation.say(world, "a question", format!("question {number}").as_bytes());
                conversation.answer(world, "its answer", b"an answer");
            }
            // Each request to read makes the helper expect an answer from another port.
            conversation.say(world, "a request to read", b"\x00\x01file\x00octet\x00");
            let from_another_port = SocketAddrV4::new(*to.ip(), 5_000);
            let packet = super::wire::Packet::udp(from_another_port, conversation.seen_from, b"\x00\x03\x00\x01data");
            world.step("data from another port", &[("lan", packet)]);
        },
        ..Case::default()
    });
}
