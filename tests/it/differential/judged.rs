//! Rules that look at what packets of one flow differ in: whoever is refused by the kernel is refused with netfast, from
//! the moment on that the rule is there. Each comes in mid-flow, and goes again.

use netfast_tests::cmd;

use super::{
    conversation::{Conversation, set_tcp},
    describe::sum,
    rules::{at, case},
    runner::{Case, check},
    wire::{ACK, Checksum, PSH, Packet, TCP, Transport, UDP, pseudo_header},
    world::{TIMEOUT, World},
};

/// Packets in a row that must not arrive before a rule counts as noticed.
const NOTICED: usize = 5;

/// A rule that drops some packets of a flow.
struct Rule {
    /// Shell lines in the host.
    add: &'static str,
    remove: &'static str,
    protocol: u8,
    /// What makes a packet one of those.
    odd: fn(&mut Packet),
}

const fn tcp(add: &'static str, remove: &'static str, odd: fn(&mut Packet)) -> Rule {
    Rule {
        add,
        remove,
        protocol: TCP,
        odd,
    }
}

const fn udp(add: &'static str, remove: &'static str, odd: fn(&mut Packet)) -> Rule {
    Rule {
        add,
        remove,
        protocol: UDP,
        odd,
    }
}

fn flags(packet: &mut Packet, new: u8, more: &[u8]) {
    let Transport::Tcp { seq, ack, .. } = packet.transport else {
        panic!("not TCP: {packet:?}");
    };
    set_tcp(packet, new, seq, ack, more);
}

fn psh(packet: &mut Packet) {
    flags(packet, ACK | PSH, &[]);
}

/// Two no-operations and a timestamp (RFC 7323).
fn timestamp(packet: &mut Packet) {
    flags(packet, ACK, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
}

fn ce(packet: &mut Packet) {
    packet.tos = 3;
}

fn ect(packet: &mut Packet) {
    packet.tos = 2;
}

fn long(packet: &mut Packet) {
    packet.payload = vec![b'l'; 300];
}

fn word(packet: &mut Packet) {
    packet.payload = b"the secret word".to_vec();
}

fn far(packet: &mut Packet) {
    packet.ttl = 33;
}

fn numbered(packet: &mut Packet) {
    packet.id = 0x4eef;
}

fn fragmentable(packet: &mut Packet) {
    packet.fragment = 0;
}

fn unsummed(packet: &mut Packet) {
    packet.transport_checksum = Checksum::Zero;
}

/// The same segment with a window of 100.
fn narrow(packet: &mut Packet) {
    let mut bytes = packet.ip_bytes().split_off(20);
    bytes[14..18].copy_from_slice(&[0, 100, 0, 0]);
    let pseudo = pseudo_header(packet.source.ip(), packet.destination.ip(), TCP, bytes.len());
    let checksum = !sum(&[&pseudo, &bytes]);
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    packet.transport = Transport::None;
    packet.payload = bytes;
}

/// Adds each rule while flows are fast, sends packets that it is about and others in turn, and takes it away again.
fn in_turn(world: &mut World, (client, to, server): (&str, std::net::SocketAddrV4, &str), rules: &[Rule]) {
    let open = |world: &mut World, protocol| {
        let conversation = Conversation::open(world, protocol, client, 40_000, to, server);
        conversation.warm(world);
        conversation
    };
    let conversations = [(TCP, open(world, TCP)), (UDP, open(world, UDP))];
    for rule in rules {
        let (_, conversation) = conversations
            .iter()
            .find(|(protocol, _)| *protocol == rule.protocol)
            .expect("either protocol");
        conversation.warm(world);
        let plain = conversation.forward(b"data").with(|packet| {
            if rule.protocol == TCP {
                flags(packet, ACK, &[]);
            }
        });
        let odd = plain.clone().with(rule.odd);
        world.step(&format!("odd, without {}", rule.add), &[(client, odd.clone())]);
        world.sh(rule.add);
        let mut refused = 0;
        cmd::poll(rule.add, TIMEOUT, || {
            let got = world.exchange(&[(client, plain.clone()), (client, odd.clone())]);
            refused = if got[server].len() == 1 { refused + 1 } else { 0 };
            (refused == NOTICED).then_some(())
        })
        .expect("the rule holds");
        for number in 0..6 {
            let packets = [(client, odd.clone()), (client, plain.clone()), (client, odd.clone())];
            let got = world.step(&format!("{number}, with {}", rule.add), &packets);
            assert_eq!(got[server].len(), 1, "{}: {:?}", rule.add, world.lines(&got));
        }
        world.sh(rule.remove);
    }
    for (_, conversation) in &conversations {
        conversation.warm(world);
    }
}

/// In each chain that forwarded packets pass.
const IPTABLES: [Rule; 13] = [
    tcp(
        "iptables -w -I DOCKER-USER -p tcp --dport 7000 --tcp-flags PSH PSH -j DROP",
        "iptables -w -F DOCKER-USER",
        psh,
    ),
    tcp(
        "iptables -w -I DOCKER-USER -p tcp --dport 7000 --tcp-option 8 -j DROP",
        "iptables -w -F DOCKER-USER",
        timestamp,
    ),
    udp(
        "iptables -w -I DOCKER-USER -m ecn --ecn-ip-ect 3 -j DROP",
        "iptables -w -F DOCKER-USER",
        ce,
    ),
    tcp(
        "iptables -w -I DOCKER-USER -m tos --tos 0x02 -j DROP",
        "iptables -w -F DOCKER-USER",
        ect,
    ),
    udp(
        "iptables -w -I DOCKER-USER -m length --length 200:400 -j DROP",
        "iptables -w -F DOCKER-USER",
        long,
    ),
    tcp(
        "iptables -w -I DOCKER-USER -m string --string 'secret word' --algo bm -j DROP",
        "iptables -w -F DOCKER-USER",
        word,
    ),
    udp(
        "iptables -w -I DOCKER-USER -m ttl --ttl-lt 40 -j DROP",
        "iptables -w -F DOCKER-USER",
        far,
    ),
    udp(
        "iptables -w -I DOCKER-USER -m u32 --u32 '4>>16=0x4eef' -j DROP",
        "iptables -w -F DOCKER-USER",
        numbered,
    ),
    udp(
        // The byte of TTL, below 40.
        "iptables -w -I DOCKER-USER -m bpf --bytecode '4,48 0 0 8,53 1 0 40,6 0 0 1,6 0 0 0' -j DROP",
        "iptables -w -F DOCKER-USER",
        far,
    ),
    udp(
        "iptables -w -t raw -I PREROUTING -m ecn --ecn-ip-ect 3 -j DROP",
        "iptables -w -t raw -F",
        ce,
    ),
    tcp(
        "iptables -w -t mangle -I PREROUTING -p tcp --tcp-flags PSH PSH -m tcp --dport 7000 -j MARK --set-mark 7 &&
         iptables -w -I DOCKER-USER -m mark --mark 7 -j DROP",
        "iptables -w -F DOCKER-USER; iptables -w -t mangle -F",
        psh,
    ),
    // By a chain that only such packets are sent to.
    udp(
        "iptables -w -N ODD && iptables -w -A ODD -j DROP && iptables -w -I DOCKER-USER -m ecn --ecn-ip-ect 3 -j ODD",
        "iptables -w -F DOCKER-USER; iptables -w -F ODD; iptables -w -X ODD",
        ce,
    ),
    udp(
        "iptables -w -I DOCKER-USER -j DROP && iptables -w -I DOCKER-USER -m ttl --ttl-gt 40 -j RETURN",
        "iptables -w -F DOCKER-USER",
        far,
    ),
];

/// Not announced: found by asking every second.
const LEGACY: [Rule; 4] = [
    tcp(
        "iptables-legacy -w -I FORWARD -p tcp --dport 7000 --tcp-flags PSH PSH -j DROP",
        "iptables-legacy -w -F",
        psh,
    ),
    udp(
        "iptables-legacy -w -I FORWARD -m ecn --ecn-ip-ect 3 -j DROP",
        "iptables-legacy -w -F",
        ce,
    ),
    udp(
        "iptables-legacy -w -t raw -I PREROUTING -m tos --tos 0x02 -j DROP",
        "iptables-legacy -w -t raw -F",
        ect,
    ),
    udp(
        "iptables-legacy -w -t mangle -I FORWARD -m length --length 200:400 -j DROP",
        "iptables-legacy -w -t mangle -F",
        long,
    ),
];

/// Rules of nft that both IPv4 and bridges have.
macro_rules! nft {
    ($family:literal) => {
        [
            udp(nft!($family, "ip ecn ce drop"), nft!($family,), ce),
            udp(
                nft!($family, "ip ecn vmap { ce : drop, ect1 : drop }"),
                nft!($family,),
                ce,
            ),
            tcp(
                nft!($family, "tcp flags & psh != 0 tcp dport 7000 drop"),
                nft!($family,),
                psh,
            ),
            tcp(
                nft!($family, "tcp flags { ack | psh, ack | urg } tcp dport 7000 drop"),
                nft!($family,),
                psh,
            ),
            tcp(
                nft!($family, "tcp option timestamp exists drop"),
                nft!($family,),
                timestamp,
            ),
            tcp(
                nft!($family, "tcp doff > 5 tcp dport 7000 drop"),
                nft!($family,),
                timestamp,
            ),
            tcp(
                nft!($family, "tcp window < 1000 tcp dport 7000 drop"),
                nft!($family,),
                narrow,
            ),
            udp(
                nft!($family, "udp dport 7000 ip frag-off & 0x4000 == 0 drop"),
                nft!($family,),
                fragmentable,
            ),
            udp(nft!($family, "udp checksum 0 drop"), nft!($family,), unsummed),
            udp(nft!($family, "udp length > 200 drop"), nft!($family,), long),
            udp(nft!($family, "ip ttl < 40 udp dport 7000 drop"), nft!($family,), far),
            udp(nft!($family, "@nh,8,8 & 0x3 == 3 drop"), nft!($family,), ce),
        ]
    };
    ($family:literal, $rule:literal) => {
        concat!(
            "nft 'table ",
            $family,
            " odd { chain c { type filter hook forward priority -5; ",
            $rule,
            "; }; }'"
        )
    };
    ($family:literal,) => {
        concat!("nft delete table ", $family, " odd")
    };
}

const EBTABLES: [Rule; 1] = [udp(
    "ebtables-nft -A FORWARD -p IPv4 --ip-tos 3 -j DROP",
    "ebtables-nft -F",
    ce,
)];

#[test]
fn iptables_on_one_bridge() {
    check(&Case {
        script: |world| {
            let neighbour = at(world, "c01", 7000);
            in_turn(world, ("c00", neighbour, "c01"), &IPTABLES);
        },
        ..case()
    });
}

#[test]
fn iptables_to_the_outside() {
    check(&Case {
        script: |world| {
            let outside = at(world, "lan", 7000);
            in_turn(world, ("c00", outside, "lan"), &IPTABLES);
        },
        ..case()
    });
}

#[test]
fn iptables_legacy() {
    check(&Case {
        script: |world| {
            let neighbour = at(world, "c01", 7000);
            in_turn(world, ("c00", neighbour, "c01"), &LEGACY);
        },
        ..case()
    });
}

#[test]
fn nftables() {
    check(&Case {
        script: |world| {
            let neighbour = at(world, "c01", 7000);
            in_turn(world, ("c00", neighbour, "c01"), &nft!("ip"));
        },
        ..case()
    });
}

#[test]
fn bridge_tables() {
    check(&Case {
        script: |world| {
            let neighbour = at(world, "c01", 7000);
            let rules: Vec<_> = nft!("bridge").into_iter().chain(EBTABLES).collect();
            in_turn(world, ("c00", neighbour, "c01"), &rules);
        },
        ..case()
    });
}
