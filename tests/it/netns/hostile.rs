//! A container that does what it should not: whatever it sends, the flows of others stay on the fast path, none of them
//! is used or evicted by it, and its own addresses are told.
//!
//! What is asserted is the share of the fast path, never a speed: how fast an attacker is depends on the machine.

use std::net::Ipv4Addr;

use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    packet::{Mac, Packet, flag},
    require::{Need, needs},
};

use super::lab::{TIMEOUT, warm};
use crate::differential::station::{Tap, mac_of};

mod scene;

use scene::{Attack, EVIL, FLOOD, NEIGHBOUR, OWN, Scene, Talk, VICTIM};

/// Numbers that look like none in particular (splitmix64).
fn scatter(number: u64) -> u64 {
    let mut mix = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix = (mix ^ (mix >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mix = (mix ^ (mix >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mix ^ (mix >> 31)
}

fn bytes_of(number: u64) -> [u8; 8] {
    scatter(number).to_le_bytes()
}

fn port_of(number: u64) -> u16 {
    let [a, b, ..] = bytes_of(number);
    u16::from_le_bytes([a, b]) | 1
}

/// An ARP answer: `ip` is at `mac`.
fn arp(from: Mac, to: Mac, mac: Mac, ip: Ipv4Addr, asked: Ipv4Addr) -> Vec<u8> {
    let mut frame = [to, from].concat();
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend(to);
    frame.extend(asked.octets());
    frame
}

fn ready() -> bool {
    needs(&[Need::Root])
}

#[test]
fn floods_evict_nobody() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (evil, victim) = (scene.ip(EVIL), scene.ip(VICTIM));
    let (from, to) = (scene.evil_mac, scene.mac(VICTIM));
    let gateway = mac_of(scene.lab.topo.host(), "br-0").expect("the bridge's address");

    let [packets, spoofed, _] = scene.attack(
        "UDP to random ports",
        |_| true,
        move |number| {
            // Each tuple several times, which is what it takes to be learned.
            let (source, destination) = (port_of(number / 8), port_of(number / 8 + 1_000_000));
            Packet::udp((evil, source), (victim, destination))
                .macs(to, from)
                .bytes()
        },
    );
    assert!(packets > FLOOD && spoofed == 0, "{packets} {spoofed}");
    scene.is_intact("UDP to random ports");

    scene.attack(
        "UDP to random hosts",
        |_| true,
        move |number| {
            let [a, b, c, ..] = bytes_of(number / 8);
            let far = Ipv4Addr::new(198, 18 + (a & 1), b, c);
            Packet::udp((evil, port_of(number / 8)), (far, 9))
                .macs(gateway, from)
                .bytes()
        },
    );
    scene.is_intact("UDP to random hosts");

    let syn = scene.lab.count(Reason::TcpSyn);
    scene.attack(
        "SYN",
        |_| true,
        move |number| {
            let packet = Packet::tcp((evil, port_of(number)), (victim, 80)).macs(to, from);
            packet.with(|packet| packet.flags = flag::SYN).bytes()
        },
    );
    assert!(scene.lab.count(Reason::TcpSyn) > syn + FLOOD / 2);
    scene.is_intact("SYN");

    scene.attack(
        "acknowledgements of no connection",
        |_| true,
        move |number| {
            Packet::tcp((evil, port_of(number / 8)), (victim, port_of(number / 8 + 7)))
                .macs(to, from)
                .bytes()
        },
    );
    scene.is_intact("acknowledgements of no connection");
}

#[test]
fn others_addresses_learn_and_use_nothing() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (victim, neighbour) = (scene.ip(VICTIM), scene.ip(NEIGHBOUR));
    let (from, to) = (scene.evil_mac, scene.mac(NEIGHBOUR));

    let [packets, spoofed, _] = scene.attack(
        "a neighbour's address",
        |_| true,
        move |number| {
            Packet::udp((victim, port_of(number / 8)), (neighbour, 7010))
                .macs(to, from)
                .bytes()
        },
    );
    assert!(spoofed + OWN >= packets, "{spoofed} of {packets}");
    scene.is_intact("a neighbour's address");

    // The victim's own tuple, to the letter, but for the MAC address, which would take its place on the bridge.
    let [packets, spoofed, _] = scene.attack(
        "a neighbour's conversation",
        |_| true,
        move |_| {
            let packet = Packet::udp((victim, 41_000 + 7010), (neighbour, 7010)).macs(to, from);
            packet.with(|packet| packet.payload = vec![b'q'; 64]).bytes()
        },
    );
    assert!(spoofed + OWN >= packets, "{spoofed} of {packets}");
    scene.is_intact("a neighbour's conversation");

    // What ends a connection ends only the sender's own.
    for flags in [flag::SYN, flag::RST | flag::ACK, flag::FIN | flag::ACK] {
        scene.attack(
            "the end of others' connections",
            |_| true,
            move |number| {
                let packet = Packet::tcp((victim, port_of(number)), (neighbour, 7010)).macs(to, from);
                packet.with(|packet| packet.flags = flags).bytes()
            },
        );
    }
    scene.is_intact("the end of others' connections");
}

/// Found: every answer made the daemon start a new epoch, so that one container could keep the whole host on the slow
/// path.
#[test]
fn arp_for_others_leaves_third_parties_on_the_fast_path() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (evil, victim) = (scene.ip(EVIL), scene.ip(VICTIM));
    let bridge = scene.lab.topo.bridges[0].gateway;
    let (from, gateway) = (
        scene.evil_mac,
        mac_of(scene.lab.topo.host(), "br-0").expect("the bridge's address"),
    );
    let stale = scene.lab.count(Reason::StaleEpoch);
    let [packets, spoofed, _] = scene.attack(
        "ARP for others",
        |talk| talk.who != VICTIM,
        move |number| {
            // The victim's address, and addresses of nobody, are now here and now there.
            let there = if number & 1 == 0 {
                from
            } else {
                [2, 0xba, 0xd0, 0, 0, 1]
            };
            let whose = if number & 2 == 0 {
                victim
            } else {
                Ipv4Addr::new(172, 30, 0, 200)
            };
            // Gratuitous, since the kernel believes others only after a while (neigh_update, `locktime`).
            arp(from, gateway, there, whose, whose)
        },
    );
    assert!(packets > FLOOD && spoofed + OWN >= packets, "{spoofed} of {packets}");
    assert!(
        scene.lab.count(Reason::StaleEpoch) <= stale + 20,
        "ARP outdates everybody: {}",
        scene.lab.told()
    );
    // Whoever it is about takes the kernel's way until the host knows better, and then the fast one.
    let right = scene.mac(VICTIM);
    Tap::open(&scene.lab.topo.container(VICTIM.0, VICTIM.1).ns, "eth0")
        .expect("a raw socket")
        .send(&arp(right, gateway, right, victim, bridge))
        .expect("the truth");
    warm(&scene.lab, &scene.talks[0].socket);
    assert_eq!(scene.of_the_attacker().1, 0, "{evil} uses a flow");
}

/// Found: every station that moved made the daemon start a new epoch.
#[test]
fn stolen_and_invented_macs_leave_third_parties_on_the_fast_path() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (evil, victim) = (scene.ip(EVIL), scene.mac(VICTIM));
    let (own, to) = (scene.evil_mac, scene.mac(NEIGHBOUR));
    let neighbour = scene.ip(NEIGHBOUR);
    let third = |talk: &Talk| talk.who != VICTIM;
    let stale = scene.lab.count(Reason::StaleEpoch);
    // The bridge believes that the victim has moved, and moves it back when it hears from it.
    scene.attack("a neighbour's MAC", third, move |number| {
        let from = if number % 4 == 0 { own } else { victim };
        Packet::udp((evil, 9), (neighbour, 9)).macs(to, from).bytes()
    });
    assert!(
        scene.lab.count(Reason::StaleEpoch) <= stale + 20,
        "a stolen MAC outdates everybody: {}",
        scene.lab.told()
    );
    warm(&scene.lab, &scene.talks[0].socket);
}

/// Found: the daemon mirrored the bridge's table, whatever its size, and read it anew for every station.
#[test]
fn invented_macs_do_not_grow_the_daemon() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let evil = scene.ip(EVIL);
    let (to, neighbour) = (scene.mac(NEIGHBOUR), scene.ip(NEIGHBOUR));
    let stale = scene.lab.count(Reason::StaleEpoch);
    let attack = Attack::start(&scene.lab.topo.container(EVIL.0, EVIL.1).ns, move |number| {
        let [a, b, c, d, ..] = bytes_of(number);
        Packet::udp((evil, 9), (neighbour, 9))
            .macs(to, [2, 1, a, b, c, d])
            .bytes()
    });
    let memory = scene.memory();
    cmd::poll("the flood", TIMEOUT * 3, || (attack.sent() > 2 * FLOOD).then_some(())).expect("an attack");
    scene.goes_on("invented MACs", |_| true);
    let grown = scene.memory().saturating_sub(memory);
    assert!(grown < 32 * 1024, "the daemon took {grown} KiB more");
    assert!(
        scene.lab.count(Reason::StaleEpoch) <= stale + 20,
        "{}",
        scene.lab.told()
    );
    drop(attack);
}

#[test]
fn broken_frames_do_no_harm() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (evil, neighbour) = (scene.ip(EVIL), scene.ip(NEIGHBOUR));
    let (from, to) = (scene.evil_mac, scene.mac(NEIGHBOUR));
    let whole = [
        Packet::udp((evil, 41_000), (neighbour, 7099)).macs(to, from),
        Packet::tcp((evil, 41_000), (neighbour, 7099)).macs(to, from),
    ];
    let [packets, _, malformed] = scene.attack(
        "broken frames",
        |_| true,
        move |number| {
            let mut frame = whole[usize::from(number & 1 == 0)].bytes();
            let random = bytes_of(number);
            let place = 14 + usize::from(random[0]) % (frame.len() - 14);
            match number % 5 {
                0 => frame.truncate(place),
                1 => frame[place] ^= random[1] | 1,
                2 => frame.extend([0; 100]),
                // As much as its interface lets out.
                3 => frame.resize(1514, random[2]),
                // Only noise after the addresses.
                _ => frame[12..]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, byte)| *byte = bytes_of(number + at as u64)[3]),
            }
            frame
        },
    );
    assert!(malformed > packets / 10, "{malformed} of {packets}");
    scene.is_intact("broken frames");
}

#[test]
fn status_tells_who_spoofs() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (victim, neighbour) = (scene.ip(VICTIM), scene.ip(NEIGHBOUR));
    let tap = Tap::open(&scene.lab.topo.container(EVIL.0, EVIL.1).ns, "eth0").expect("a raw socket");
    let (from, to) = (scene.evil_mac, scene.mac(NEIGHBOUR));
    let spoofed = Packet::udp((victim, 1), (neighbour, 9)).macs(to, from).bytes();
    let broken = Packet::udp((scene.ip(EVIL), 1), (neighbour, 9)).macs(to, from);
    let broken = broken.with(|packet| packet.udp_length = Some(3)).bytes();
    for frame in [&spoofed, &spoofed, &broken] {
        tap.send(frame).expect("sent");
    }
    let veth = &scene.lab.topo.container(EVIL.0, EVIL.1).veth;
    cmd::poll("the counters", TIMEOUT, || (scene.traffic(EVIL)[3] == 1).then_some(())).expect("counted");
    let json = scene.lab.netfast.verb(&["status", "--json"]).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let endpoints = report["networks"].as_array().expect("networks").iter();
    let mut endpoints = endpoints.flat_map(|network| network["endpoints"].as_array().expect("endpoints"));
    let evil = endpoints
        .find(|endpoint| endpoint["veth"] == veth.as_str())
        .expect("the attacker");
    assert_eq!(evil["traffic"]["in_spoofed_packets"], 2, "{evil}");
    assert_eq!(evil["traffic"]["in_malformed_packets"], 1, "{evil}");
    let text = scene.lab.netfast.verb(&["status"]).expect("a report");
    let mut lines = text
        .lines()
        .skip_while(|line| !line.contains("ADDRESSES NOT THEIR OWN"));
    let line = lines.find(|line| line.contains(veth.as_str())).expect("the attacker");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[words.len() - 2..], ["2", "1"], "{text}");
}
