//! Scripts of packets through both programs: each is either left alone byte for byte, or has the ends that it should have,
//! checksums that are right, and nothing else changed.

use std::collections::BTreeSet;

use aya_ebpf::bindings::BPF_F_INGRESS;
use etherparse::PacketBuilder;
use netfast_common::{
    alias::{MemberKey, address4},
    device::{Device, DeviceKey, Kind},
    net::{AnyIp, Ip4},
    vip::{Backend, BackendStats, Member, SlotKey},
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::*;
use crate::ctx::fake::{FakeSkb, Plain, Sent, plain, reset, set_contended, set_ns};

mod checksums;

use checksums::{checksum_at, has_right_checksums, leave_to_device, pseudo, sum, with_ends_of};

const ID: u64 = 9;
const BRIDGE: u32 = 7;
/// The host side of the client's veth, as [`FakeSkb::new`] has it.
const VETH: u32 = 2;
const VIP: [u8; 4] = [198, 18, 0, 2];
const CLIENT: [u8; 4] = [172, 17, 0, 2];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A member's address and MAC address. The first one is the client itself.
fn member(number: u8) -> ([u8; 4], [u8; 6]) {
    ([172, 17, 0, 2 + number], [2, 0, 0, 0, 0, 2 + number])
}

/// A service of the members with these numbers.
fn set_up(members: &[u8]) {
    reset();
    set_ns(1_000_000_000_000);
    let mut device = Device::new(Kind::Endpoint, Device::ACCELERATED, 1);
    device.mac = CLIENT_MAC;
    device.address4 = Ip4::from_bytes(CLIENT);
    device.bridge = BRIDGE;
    maps::DEVICES.insert(DeviceKey::served(VETH), device, 0).expect("room");
    for (slot, number) in (0..).zip(members) {
        let (address, mac) = member(*number);
        let key = SlotKey {
            service: ID,
            version: 1,
            slot,
        };
        let backend = Backend {
            address: ip(address),
            mac,
            reserved: [0; 2],
        };
        maps::VIP_SLOTS.insert(key, backend, 0).expect("room");
        let key = MemberKey {
            alias: ID,
            address: address4(address),
        };
        let well = Member {
            eligible: 1,
            reserved: 0,
        };
        maps::VIP_MEMBERS.insert(key, well, 0).expect("room");
        maps::VIP_STATS.insert(key, BackendStats::default(), 0).expect("room");
    }
    maps::CURSORS.insert(ID, 0, 0).expect("room");
    let service = Service {
        id: ID,
        bridge: BRIDGE,
        version: 1,
        slots: members.len().try_into().expect("few"),
        flags: 0,
    };
    maps::VIPS.insert(ip(VIP), service, 0).expect("room");
}

fn ip(bytes: [u8; 4]) -> AnyIp {
    AnyIp::v4(Ip4::from_bytes(bytes))
}

/// How often each verdict was counted.
fn counts() -> Vec<u64> {
    let count = |verdict: &Verdict| *maps::VIP_VERDICTS.get(verdict.number()).expect("a count");
    Verdict::ALL.iter().map(count).collect()
}

/// The verdict that was counted meanwhile, at most one.
fn counted(during: impl FnOnce()) -> Option<Verdict> {
    let before = counts();
    during();
    let after = counts();
    let rose = Verdict::ALL.iter().zip(before.iter().zip(&after));
    let rose: Vec<_> = rose.filter(|(_, (before, after))| before != after).collect();
    assert!(rose.len() <= 1, "{rose:?}");
    rose.first().map(|(verdict, _)| **verdict)
}

/// A packet of a script.
#[derive(Clone, Debug)]
struct Step {
    /// To the virtual address, or from a member.
    from: Option<u8>,
    packet: Plain,
    /// Flags, if it is TCP.
    flags: u8,
    /// An echo with this identifier in its place.
    echo: Option<u8>,
    /// Something about the ends is not as it should be.
    odd: Option<u8>,
    partial: bool,
    linear: usize,
    pause: u64,
}

impl Step {
    fn frame(&self) -> Vec<u8> {
        let mut packet = self.packet.clone();
        let (near, far) = (40_000 + packet.ports[0] % 2, 80);
        match self.from {
            None => {
                packet.macs = [CLIENT_MAC, HOST_MAC];
                packet.addresses = [CLIENT, VIP];
                packet.ports = [near, far];
            }
            Some(number) => {
                let (address, mac) = member(number);
                packet.macs = [mac, CLIENT_MAC];
                packet.addresses = [address, CLIENT];
                packet.ports = [far, near];
            }
        }
        match self.odd {
            Some(0) => packet.macs[0] = [2, 9, 9, 9, 9, 9],
            Some(1) => packet.addresses[0] = [172, 17, 0, 99],
            Some(2) => packet.addresses[1] = [172, 17, 0, 98],
            Some(_) => packet.macs[1] = [0xff; 6],
            None => {}
        }
        if let Some(identifier) = self.echo {
            return self.echo_frame(&packet, identifier);
        }
        // A SYN always has the same number, so that a refusal is about it.
        if let Some((sequence, acknowledgement, _)) = &mut packet.tcp {
            (*sequence, *acknowledgement) = (77, 78);
            if self.flags & SYN != 0 || self.flags & RST != 0 {
                packet.payload.clear();
            }
        }
        let mut frame = packet.frame();
        if packet.tcp.is_some() {
            let place = checksum_at(&frame);
            frame[47] = self.flags;
            frame[place..place + 2].fill(0);
            let whole = !sum(&[
                &u16::try_from(pseudo(&frame)).expect("folded").to_be_bytes(),
                &frame[34..],
            ]);
            frame[place..place + 2].copy_from_slice(&whole.to_be_bytes()[2..]);
        }
        if self.partial {
            leave_to_device(&mut frame);
        }
        frame
    }

    fn echo_frame(&self, packet: &Plain, identifier: u8) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(packet.macs[0], packet.macs[1]).ipv4(
            packet.addresses[0],
            packet.addresses[1],
            packet.ttl,
        );
        let identifier = u16::from(identifier);
        let builder = match self.from {
            None => builder.icmpv4_echo_request(identifier, 1),
            Some(_) => builder.icmpv4_echo_reply(identifier, 1),
        };
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &packet.payload).expect("a vector takes all");
        bytes
    }

    /// Runs it; what comes out, the verdict and where it was sent.
    fn run(&self, frame: &[u8]) -> (Vec<u8>, i32, Option<Sent>) {
        let mut skb = FakeSkb::new(frame).with_linear(self.linear);
        skb.partial = self.partial && self.echo.is_none();
        let verdict = if self.from.is_none() {
            from_client(&skb)
        } else {
            to_client(&skb)
        };
        (skb.bytes(), verdict, skb.sent.get())
    }
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        4 => Just(SYN),
        2 => Just(SYN | ACK),
        4 => Just(RST | ACK),
        1 => Just(RST),
        2 => Just(FIN | ACK),
        3 => Just(ACK),
        1 => any::<u8>(),
    ];
    let kinds = (
        prop::option::of(0_u8..4),
        prop::option::weighted(0.2, 0_u8..2),
        prop::option::weighted(0.1, 0_u8..4),
    );
    let rest = (
        any::<bool>(),
        34_usize..80,
        prop_oneof![Just(0), Just(600_000_000), Just(130_000_000_000)],
    );
    (plain(), flags, kinds, rest).prop_map(|(packet, flags, (from, echo, odd), (partial, linear, pause))| Step {
        from,
        packet,
        flags,
        echo,
        odd,
        partial,
        linear,
        pause,
    })
}

/// What a packet to the virtual address must have become.
fn check_sent(
    before: &[u8],
    after: &[u8],
    verdict: i32,
    sent: Option<Sent>,
    partial: bool,
) -> Result<(), TestCaseError> {
    if sent.is_none() {
        prop_assert_eq!(verdict, NEXT);
        let [number] = [after[33].wrapping_sub(2)];
        let (address, mac) = member(number);
        prop_assert!((1..4).contains(&number), "a member other than the client: {}", number);
        prop_assert_eq!((&after[..6], &after[30..34]), (&mac[..], &address[..]));
        prop_assert_eq!((&after[6..12], &after[26..30]), (&before[6..12], &before[26..30]));
    } else {
        // Refused, or a member that was given itself: it goes back the other way round.
        prop_assert_eq!((&after[..6], &after[6..12]), (&before[6..12], &before[..6]));
        prop_assert_eq!((&after[26..30], &after[30..34]), (&before[30..34], &before[26..30]));
        prop_assert_eq!(sent, Some(Sent::To(VETH, 0)));
        if before.len() != after.len() || before[34..38] != after[34..38] {
            prop_assert_eq!((after.len(), after[47]), (54, RST | ACK));
            prop_assert!(has_right_checksums(after, partial));
            return Ok(());
        }
    }
    prop_assert_eq!(with_ends_of(after, before), before.to_vec());
    prop_assert!(has_right_checksums(after, partial));
    Ok(())
}

/// Plays a script on a service of these members; which verdicts there were.
fn play(members: &[u8], script: &[Step]) -> Result<BTreeSet<Verdict>, TestCaseError> {
    set_up(members);
    let mut now = 1_000_000_000_000;
    // The client's last SYN by each port.
    let mut syns: [Vec<u8>; 2] = Default::default();
    let mut seen = BTreeSet::new();
    for step in script {
        now += step.pause;
        set_ns(now);
        let before = step.frame();
        let is_tcp = before[23] == TCP;
        let is_syn = is_tcp && step.from.is_none() && before[47] & (SYN | ACK | RST | FIN) == SYN;
        let mut result = None;
        let verdict = counted(|| result = Some(step.run(&before)));
        let (after, returned, sent) = result.expect("it ran");
        match verdict {
            Some(Verdict::Chosen) if is_syn => syns[usize::from(before[35] & 1)].clone_from(&before),
            // To itself, which tells not whether it is a new one.
            Some(Verdict::Hairpin) if is_syn => syns[usize::from(before[35] & 1)].clear(),
            _ => {}
        }
        seen.extend(verdict);
        match verdict {
            Some(Verdict::Retried) if step.from.is_some() => {
                let syn = &syns[usize::from(before[37] & 1)];
                let mut after = after;
                prop_assert_eq!(sent, Some(Sent::To(VETH, u64::from(BPF_F_INGRESS))));
                prop_assert!(has_right_checksums(&after, step.partial));
                if !syn.is_empty() {
                    after[50..52].copy_from_slice(&syn[50..52]);
                    prop_assert_eq!(&after, syn);
                }
            }
            Some(Verdict::Returned) => {
                prop_assert_eq!((returned, sent), (NEXT, None));
                prop_assert_eq!(&after[26..30], &VIP[..]);
                prop_assert_eq!((&after[..12], &after[30..34]), (&before[..12], &before[30..34]));
                prop_assert_eq!(with_ends_of(&after, &before), before);
                prop_assert!(has_right_checksums(&after, step.partial));
            }
            Some(
                Verdict::Chosen
                | Verdict::Kept
                | Verdict::SynAgain
                | Verdict::Retried
                | Verdict::Hairpin
                | Verdict::Refused,
            ) => check_sent(&before, &after, returned, sent, step.partial)?,
            Some(Verdict::IcmpError) => prop_assert!(false, "there is none in the script"),
            _ => prop_assert_eq!((after, returned, sent), (before, NEXT, None)),
        }
    }
    Ok(seen)
}

fn members() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0_u8..4, 0..5)
}

fn script() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..24)
}

/// The scripts are worth playing.
#[test]
fn scripts_come_everywhere() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        let case = (members(), script()).new_tree(&mut runner).expect("a case");
        let (members, script) = case.current();
        seen.extend(play(&members, &script).expect("it is right"));
    }
    for verdict in [
        Verdict::Chosen,
        Verdict::Kept,
        Verdict::Returned,
        Verdict::SynAgain,
        Verdict::Hairpin,
        Verdict::Refused,
        Verdict::Nobody,
        Verdict::NoConnection,
        Verdict::Spoofed,
        Verdict::Unreadable,
        Verdict::Retried,
    ] {
        assert!(seen.contains(&verdict), "{verdict:?} is not among {seen:?}");
    }
}

proptest! {
    #[test]
    fn left_alone_or_right(members in members(), script in script()) {
        play(&members, &script)?;
    }

    /// Whatever it is, it is left alone or understood; nothing is read or written beyond it.
    #[test]
    fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 14..120), to_vip in any::<bool>(), ip in any::<bool>()) {
        set_up(&[1, 2]);
        if ip && bytes.len() >= 34 && bytes[0] & 1 == 0 {
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            if to_vip {
                bytes[30..34].copy_from_slice(&VIP);
            }
        } else if ip && bytes.len() >= 54 {
            bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
            if to_vip {
                // The address that stands for one of IPv4 is no address of IPv6 on a wire.
                bytes[38..50].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
                bytes[50..54].copy_from_slice(&VIP);
            }
        }
        for program in [from_client, to_client] {
            let skb = FakeSkb::new(&bytes);
            prop_assert_eq!(program(&skb), NEXT);
            // Neither is it the client's, nor is anything known of it.
            prop_assert_eq!(skb.bytes(), bytes.clone());
        }
    }
}

fn syn() -> Step {
    Step {
        from: None,
        packet: Plain {
            macs: [[0; 6]; 2],
            addresses: [[0; 4]; 2],
            ports: [0; 2],
            ttl: 64,
            tos: 0,
            id: 1,
            df: true,
            tcp: Some((0, 0, 100)),
            payload: Vec::new(),
        },
        flags: SYN,
        echo: None,
        odd: None,
        partial: true,
        linear: 54,
        pause: 0,
    }
}

#[test]
fn without_memory_and_without_a_place() {
    set_up(&[1, 2]);
    let frame = syn().frame();
    let mut skb = FakeSkb::new(&frame);
    skb.no_memory = true;
    assert_eq!(
        counted(|| assert_eq!(from_client(&skb), NEXT)),
        Some(Verdict::Unwritable)
    );
    assert_eq!(skb.bytes(), frame);

    set_up(&[1, 2]);
    set_contended(true);
    let skb = FakeSkb::new(&frame);
    assert_eq!(
        counted(|| assert_eq!(from_client(&skb), NEXT)),
        Some(Verdict::TableFull)
    );
    assert_eq!(skb.bytes(), frame);
    set_contended(false);
}

/// No place to note that it was tried, or no memory for the SYN: it is not made again, so that it ends.
#[test]
fn a_refusal_without_memory_or_place() {
    for contended in [false, true] {
        set_up(&[1, 2]);
        syn().run(&syn().frame());
        let refusal = Step {
            from: Some(1),
            flags: RST | ACK,
            ..syn()
        };
        let frame = refusal.frame();
        let mut skb = FakeSkb::new(&frame);
        skb.no_memory = !contended;
        set_contended(contended);
        let verdict = counted(|| assert_eq!(to_client(&skb), NEXT));
        set_contended(false);
        if contended {
            assert_eq!(verdict, Some(Verdict::Returned));
            assert_eq!(skb.bytes()[26..30], VIP);
        } else {
            assert_eq!(verdict, Some(Verdict::Unwritable));
            assert_eq!(skb.bytes(), frame);
        }
        assert_eq!(skb.sent.get(), None);
    }
}
