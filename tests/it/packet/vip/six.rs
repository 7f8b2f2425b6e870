//! What IPv6 has of its own.

use netfast_tests::packet::internet_checksum;

use super::{
    icmp::{message, quote},
    *,
};

/// Key of the service of IPv6 beside that of IPv4.
const ID6: u64 = 10;

/// A frame of IPv6 at A's veth: what came out, and what it was counted as.
fn pass6(lab: &mut Lab, hook: Hook, frame: &[u8]) -> (Outcome, Option<Verdict>) {
    let before = counts(lab);
    let ifindex = lab.ifindex(Dev::A);
    let context = Context {
        ifindex,
        ingress_ifindex: ifindex,
        ..Context::default()
    };
    let outcome = lab.test_run(hook, context, frame);
    let after = counts(lab);
    let mut rose = Verdict::ALL.iter().zip(before.iter().zip(&after));
    let counted = rose.find(|(_, (before, after))| before != after);
    (outcome, counted.map(|(verdict, _)| *verdict))
}

fn six(packet: &Packet) -> Vec<u8> {
    like::frame(&packet.bytes()).expect("it has a like")
}

/// Runs a body in IPv6 alone.
fn run6(slots: &[u8], body: impl Fn(&mut Lab) + Send + Sync) {
    run(slots, |lab| {
        if IS_SIX.get() {
            body(lab);
        }
    });
}

/// The place of the destination address in a frame of IPv6.
const DESTINATION: usize = 38;

#[test]
fn an_address_that_stands_for_one_of_ipv4_is_none_of_ipv6() {
    run(&[1], |lab| {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let packet = six(&to_vip(UDP, 4000));
        let mut odd = packet.clone();
        odd[DESTINATION..DESTINATION + 12].copy_from_slice(&mapped);
        for hook in [Hook::VipIn, Hook::VipOut] {
            let (outcome, counted) = pass6(lab, hook, &odd);
            assert_eq!((counted, &outcome.packet), (None, &odd));
        }
    });
}

#[test]
fn extension_headers_and_neighbours_are_none_of_its_business() {
    run6(&[1], |lab| {
        for next_header in [0, 43, 44, 60] {
            let mut odd = six(&to_vip(UDP, 4000));
            odd[20] = next_header;
            let (outcome, counted) = pass6(lab, Hook::VipIn, &odd);
            assert_eq!((counted, &outcome.packet), (Some(Verdict::OtherProtocol), &odd));
        }
        // A neighbour solicitation to the virtual address itself.
        let mut solicitation = six(&icmp::echo(to_vip(UDP, 0), 8, 7));
        solicitation[54] = 135;
        let (outcome, counted) = pass6(lab, Hook::VipIn, &solicitation);
        assert_eq!(
            (counted, &outcome.packet),
            (Some(Verdict::OtherProtocol), &solicitation)
        );
        let (outcome, counted) = pass6(lab, Hook::VipOut, &solicitation);
        assert_eq!((counted, &outcome.packet), (None, &solicitation));
    });
}

#[test]
fn another_address_of_the_client_is_not_its_own() {
    run6(&[1], |lab| {
        let mut spoofed = six(&to_vip(UDP, 4000));
        spoofed[DESTINATION - 1] ^= 1;
        let (outcome, counted) = pass6(lab, Hook::VipIn, &spoofed);
        assert_eq!((counted, &outcome.packet), (Some(Verdict::Spoofed), &spoofed));
    });
}

#[test]
fn a_packet_that_is_too_big_is_told_of_to_the_client() {
    run6(&[1], |lab| {
        let asked = to_vip(UDP, 4000);
        pass(lab, Hook::VipIn, Dev::A, &asked.bytes());
        let about = |packet: &Packet, sender: Ipv4Addr| {
            let from = from_member(UDP, 1, 4000).with(|packet| packet.source.0 = sender);
            let mut frame = six(&message(from, 3, [0; 4], &quote(packet, 60)));
            frame[54] = 2;
            frame[58..62].copy_from_slice(&1280_u32.to_be_bytes());
            frame[56..58].fill(0);
            let length = u32::try_from(frame.len() - 54).expect("short").to_be_bytes();
            let pseudo = [&frame[22..54], &length, &[0, 0, 0, 58]].concat();
            let checksum = internet_checksum(&[&pseudo, &frame[54..]]).to_be_bytes();
            frame[56..58].copy_from_slice(&checksum);
            frame
        };
        let host = Ipv4Addr::new(172, 17, 0, 1);
        let (outcome, counted) = pass6(lab, Hook::VipOut, &about(&at_member(&asked, 1), host));
        assert_eq!(counted, Some(Verdict::IcmpError));
        assert_eq!(outcome.packet, about(&asked, host));
    });
}

/// What has been read of a packet is kept; of the next one that is not so, nothing is.
#[test]
fn what_cannot_be_read_is_not_taken_for_the_packet_before() {
    run6(&[1], |lab| {
        let asked = to_vip(UDP, 4000);
        sends(lab, &asked, Verdict::Chosen, &at_member(&asked, 1));
        let mut odd = six(&asked);
        // Longer than the packet.
        odd[58..60].fill(0xff);
        let (outcome, counted) = pass6(lab, Hook::VipIn, &odd);
        assert_eq!((counted, &outcome.packet), (Some(Verdict::Unreadable), &odd));
        let error = |packet: &Packet| message(from_member(UDP, 1, 4000), 3, [0; 4], &quote(packet, 28));
        let right = six(&error(&at_member(&asked, 1)));
        let (_, counted) = pass6(lab, Hook::VipOut, &right);
        assert_eq!(counted, Some(Verdict::IcmpError));
        // One that quotes too little.
        let mut odd = right;
        odd.truncate(odd.len() - 4);
        odd[19] -= 4;
        let (outcome, counted) = pass6(lab, Hook::VipOut, &odd);
        assert_eq!((counted, &outcome.packet), (None, &odd));
    });
}

/// One name, two addresses, the same ports: a connection of each family, and neither knows of the other.
#[test]
fn both_families_at_once_take_turns_of_their_own() {
    run6(&[1, 2], |lab| {
        // The laboratory's service is of IPv6; this is that of IPv4.
        IS_SIX.set(false);
        lab.turns.insert(ID6, 0, 0).expect("a turn");
        for (slot, number) in [(0, 2), (1, 1)] {
            let (address, mac) = member(number);
            let key = SlotKey {
                service: ID6,
                version: 1,
                slot,
            };
            let backend = Backend {
                address: ip(address),
                mac,
                reserved: [0; 2],
            };
            lab.vip_slots.insert(key, backend, 0).expect("a slot");
            let key = MemberKey {
                alias: ID6,
                address: netfast_common::alias::address(&ip(address)),
            };
            let well = Member {
                eligible: 1,
                reserved: 0,
            };
            lab.vip_members.insert(key, well, 0).expect("a member");
        }
        let service = Service {
            id: ID6,
            bridge: lab.ifindex(Dev::Bridge),
            version: 1,
            slots: 2,
            flags: 0,
        };
        lab.vips.insert(ip(VIP), service, 0).expect("a service");
        for (port, four, other) in [(4000, 2, 1), (4001, 1, 2)] {
            IS_SIX.set(false);
            sends(lab, &syn(port), Verdict::Chosen, &at_member(&syn(port), four));
            IS_SIX.set(true);
            sends(lab, &syn(port), Verdict::Chosen, &at_member(&syn(port), other));
            for (is_six, number) in [(false, four), (true, other)] {
                IS_SIX.set(is_six);
                let answer = from_member(TCP, number, port).with(|packet| packet.flags = flag::SYN | flag::ACK);
                gets(lab, &answer, &at_client(&answer));
            }
        }
        IS_SIX.set(true);
    });
}
