//! Virtual addresses: packets of clients and members through the two programs, one at a time.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr},
};

use netfast_common::{
    alias::{MemberKey, address},
    control::Control,
    device::DeviceKey,
    net::AnyIp,
    vip::{Backend, BackendStats, Member, Service, SlotKey, Verdict},
};
use netfast_tests::{
    packet::{Mac, Packet, TCP, UDP, check_checksums, flag, six as like},
    scene::{BRIDGE_MAC, Dev},
};

use super::harness::{Context, Hook, Lab, Outcome};

mod icmp;
mod idle;
mod learning;
mod retry;
mod rules;
mod six;
mod straight;
mod verdicts;

/// The virtual address.
const VIP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Key of its service.
const ID: u64 = 9;
/// Verdict of tc programs: on to the next one, and sent elsewhere.
const NEXT: i32 = -1;
const REDIRECT: i32 = 7;

/// A member's address on the bridge of A and B: the second one is B's.
fn member(number: u8) -> (Ipv4Addr, Mac) {
    let last = number + 2;
    (Ipv4Addr::new(172, 17, 0, last), [0x02, 0x42, 0xac, 0x11, 0, last])
}

thread_local! {
    /// Whether what a test says of IPv4 is meant of IPv6, see [`like`].
    static IS_SIX: Cell<bool> = const { Cell::new(false) };
}

/// A laboratory with a service of these members, each so many times in turn; once for each family.
fn run(slots: &[u8], body: impl Fn(&mut Lab) + Send + Sync) {
    Lab::run(|lab| {
        for is_six in [false, true] {
            IS_SIX.set(is_six);
            println!("IPv6: {is_six}");
            begin(lab, slots);
            body(lab);
        }
        IS_SIX.set(false);
    });
}

fn begin(lab: &mut Lab, slots: &[u8]) {
    lab.reset();
    lab.reset_vips();
    lab.six = IS_SIX.get();
    let bridge = lab.ifindex(Dev::Bridge);
    for dev in [Dev::A, Dev::B] {
        let mut device = dev.device().expect("known");
        device.bridge = bridge;
        lab.devices
            .insert(DeviceKey::served(lab.ifindex(dev)), device, 0)
            .expect("a device");
    }
    set_service(lab, slots, 1, 0);
    lab.turns.insert(ID, 0, 0).expect("a turn");
}

/// Writes slots of a version and the service that names them.
fn set_service(lab: &mut Lab, slots: &[u8], version: u32, flags: u32) {
    for (slot, number) in (0..).zip(slots) {
        let (address, mac) = member(*number);
        let key = SlotKey {
            service: ID,
            version,
            slot,
        };
        let backend = Backend {
            address: ip(address),
            mac,
            reserved: [0; 2],
        };
        lab.vip_slots.insert(key, backend, 0).expect("a slot");
        set_eligible(lab, *number, true);
        if lab.vip_stats.get(&member_key(*number), 0).is_err() {
            lab.vip_stats
                .insert(member_key(*number), BackendStats::default(), 0)
                .expect("a count");
        }
    }
    let service = Service {
        id: ID,
        bridge: lab.ifindex(Dev::Bridge),
        version,
        slots: slots.len().try_into().expect("few"),
        flags,
    };
    lab.vips.insert(ip(VIP), service, 0).expect("a service");
}

fn set_eligible(lab: &mut Lab, number: u8, eligible: bool) {
    let member = Member {
        eligible: eligible.into(),
        reserved: 0,
    };
    lab.vip_members.insert(member_key(number), member, 0).expect("a member");
}

fn member_key(number: u8) -> MemberKey {
    MemberKey {
        alias: ID,
        address: address(&ip(member(number).0)),
    }
}

/// Connections that a member was given.
fn given(lab: &Lab, number: u8) -> u64 {
    lab.vip_stats.get(&member_key(number), 0).expect("a count").connections
}

/// Connections that a member was given and that another one got then.
fn retried(lab: &Lab, number: u8) -> u64 {
    lab.vip_stats.get(&member_key(number), 0).expect("a count").retried
}

/// Lets time go by for all connections that there are.
fn wait(lab: &mut Lab, ns: u64) {
    for table in &mut lab.vip_connections {
        let all: Vec<_> = table.iter().collect::<Result<_, _>>().expect("connections");
        for (key, mut conn) in all {
            conn.used_ns -= ns;
            table.insert(key, conn, 0).expect("a connection");
        }
    }
}

fn ip(address: Ipv4Addr) -> AnyIp {
    if IS_SIX.get() {
        return IpAddr::from(like::address(address).expect("it has a like")).into();
    }
    IpAddr::from(address).into()
}

/// A packet of A to the virtual address.
fn to_vip(protocol: u8, port: u16) -> Packet {
    let ends = ((Dev::A.address(), port), (VIP, 80));
    let packet = if protocol == TCP {
        Packet::tcp(ends.0, ends.1)
    } else {
        Packet::udp(ends.0, ends.1)
    };
    packet.macs(BRIDGE_MAC, Dev::A.mac())
}

/// A's SYN to the virtual address.
fn syn(port: u16) -> Packet {
    to_vip(TCP, port).with(|packet| {
        packet.flags = flag::SYN;
        packet.acknowledgement = 0;
        packet.tcp_options = vec![2, 4, 5, 0xb4];
        packet.payload.clear();
    })
}

/// The same packet as a member gets it.
fn at_member(packet: &Packet, number: u8) -> Packet {
    let (address, mac) = member(number);
    packet.clone().with(|packet| {
        packet.destination.0 = address;
        packet.to_mac = mac;
    })
}

/// A member's packet to A.
fn from_member(protocol: u8, number: u8, port: u16) -> Packet {
    let (address, mac) = member(number);
    let ends = ((address, 80), (Dev::A.address(), port));
    let packet = if protocol == TCP {
        Packet::tcp(ends.0, ends.1)
    } else {
        Packet::udp(ends.0, ends.1)
    };
    packet.macs(Dev::A.mac(), mac)
}

/// The same packet as A gets it.
fn at_client(packet: &Packet) -> Packet {
    packet.clone().with(|packet| packet.source.0 = VIP)
}

/// Runs a frame at a hook; what comes out is told in IPv4.
fn run_frame(lab: &mut Lab, hook: Hook, context: Context, frame: &[u8]) -> Outcome {
    if !IS_SIX.get() {
        return lab.test_run(hook, context, frame);
    }
    let frame = like::frame(frame).expect("it has a like");
    let mut outcome = lab.test_run(hook, context, &frame);
    outcome.packet = like::four(&outcome.packet).expect("a packet of IPv6");
    outcome
}

/// Runs a frame at a hook of a device: what came out, and what it was counted as.
fn pass(lab: &mut Lab, hook: Hook, dev: Dev, frame: &[u8]) -> (Outcome, Option<Verdict>) {
    let before = counts(lab);
    let context = Context {
        ifindex: lab.ifindex(dev),
        ingress_ifindex: lab.ifindex(dev),
        ..Context::default()
    };
    let outcome = run_frame(lab, hook, context, frame);
    let after = counts(lab);
    let counted: Vec<Verdict> = Verdict::ALL
        .iter()
        .zip(before.iter().zip(&after))
        .filter(|(_, (before, after))| before != after)
        .map(|(verdict, _)| *verdict)
        .collect();
    assert!(counted.len() <= 1, "counted once: {counted:?}");
    (outcome, counted.first().copied())
}

fn counts(lab: &Lab) -> Vec<u64> {
    let count = |verdict: &Verdict| {
        lab.vip_verdicts
            .get(&verdict.number(), 0)
            .expect("a count")
            .iter()
            .sum()
    };
    Verdict::ALL.iter().map(count).collect()
}

/// A packet of A, which must be counted so and come out so.
#[track_caller]
fn sends(lab: &mut Lab, packet: &Packet, verdict: Verdict, out: &Packet) {
    let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &packet.bytes());
    assert_eq!(counted, Some(verdict));
    same(&outcome, NEXT, out);
}

/// A packet of A that must stay as it is.
#[track_caller]
fn stays(lab: &mut Lab, packet: &Packet, verdict: Option<Verdict>) {
    let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &packet.bytes());
    assert_eq!(counted, verdict);
    same(&outcome, NEXT, packet);
}

/// A packet to A, which must come out so.
#[track_caller]
fn gets(lab: &mut Lab, packet: &Packet, out: &Packet) {
    let (outcome, counted) = pass(lab, Hook::VipOut, Dev::A, &packet.bytes());
    assert_eq!(counted, (packet != out).then_some(Verdict::Returned));
    same(&outcome, NEXT, out);
}

#[track_caller]
fn same(outcome: &Outcome, verdict: i32, out: &Packet) {
    let difference = netfast_tests::packet::difference(&out.bytes(), &outcome.packet);
    assert!(difference.is_empty(), "{difference}");
    assert_eq!(outcome.verdict, verdict);
}

/// Which member A's packet went to; its checksums must be right.
#[track_caller]
fn went_to(lab: &mut Lab, packet: &Packet) -> u8 {
    let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &packet.bytes());
    assert_eq!(counted, Some(Verdict::Chosen));
    check_checksums(&outcome.packet).expect("checksums");
    outcome.packet[33] - 2
}
