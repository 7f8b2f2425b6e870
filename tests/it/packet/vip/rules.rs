//! Who is given, when it is somebody else's turn, and what is left alone.

use netfast_common::{
    flow::{Flow, FlowKey, Origin},
    net::{Ip4, Port},
};

use super::*;
use crate::packet::harness::now_ns;

/// Opens, answers and closes a connection of A.
fn whole_connection(lab: &mut Lab, port: u16, number: u8) {
    let flags = |packet: Packet, flags: u8| packet.with(|packet| packet.flags = flags);
    sends(lab, &syn(port), Verdict::Chosen, &at_member(&syn(port), number));
    let back = |bits: u8| flags(from_member(TCP, number, port), bits);
    let there = |bits: u8| flags(to_vip(TCP, port), bits);
    for packet in [
        back(flag::SYN | flag::ACK),
        back(flag::ACK),
        back(flag::FIN | flag::ACK),
    ] {
        gets(lab, &packet, &at_client(&packet));
    }
    for packet in [there(flag::ACK), there(flag::FIN | flag::ACK)] {
        sends(lab, &packet, Verdict::Kept, &at_member(&packet, number));
    }
}

#[test]
fn each_connection_goes_to_the_next_exactly() {
    run(&[1, 2, 3], |lab| {
        for port in 0..300_u16 {
            assert_eq!(u16::from(went_to(lab, &syn(20_000 + port))), port % 3 + 1);
        }
        assert_eq!([1, 2, 3].map(|number| given(lab, number)), [100, 100, 100]);
    });
}

#[test]
fn weights_are_the_sequence_of_slots() {
    run(&[3, 2, 3, 1, 2, 3], |lab| {
        for port in 0..60 {
            went_to(lab, &syn(20_000 + port));
        }
        assert_eq!([1, 2, 3].map(|number| given(lab, number)), [10, 20, 30]);
    });
}

#[test]
fn affinity_gives_a_client_the_same_member() {
    run(&[1, 2, 3], |lab| {
        set_service(lab, &[1, 2, 3, 1, 2, 3, 1], 2, Service::AFFINITY);
        let first = went_to(lab, &syn(20_000));
        for port in 1..20 {
            assert_eq!(went_to(lab, &syn(20_000 + port)), first);
        }
    });
}

#[test]
fn a_connection_keeps_its_member_until_it_is_closed() {
    run(&[1, 2, 3], |lab| {
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        sends(lab, &syn(4000), Verdict::SynAgain, &at_member(&syn(4000), 1));
        assert_eq!(given(lab, 1), 1, "counted once");
        whole_connection(lab, 4001, 2);
        // The last acknowledgements still find their way.
        let last = to_vip(TCP, 4001).with(|packet| packet.flags = flag::ACK);
        sends(lab, &last, Verdict::Kept, &at_member(&last, 2));
        // The same ports again: another connection, and so another member.
        whole_connection(lab, 4001, 3);
        // A reset of either side closes as well.
        let reset = from_member(TCP, 1, 4000).with(|packet| packet.flags = flag::RST | flag::ACK);
        gets(lab, &reset, &at_client(&reset));
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        assert_eq!([1, 2, 3].map(|number| given(lab, number)), [2, 1, 1]);
    });
}

/// A whole connection to the only member, and the SYN of the next one between the same ports by another virtual address;
/// returns that address and the SYN.
fn closed_and_opened_by_another(lab: &mut Lab) -> (Ipv4Addr, Packet) {
    let other = Ipv4Addr::new(198, 18, 0, 3);
    let service = lab.vips.get(&ip(VIP), 0).expect("it was set");
    lab.vips.insert(ip(other), service, 0).expect("a service");
    whole_connection(lab, 4000, 1);
    let again = syn(4000).with(|packet| packet.destination.0 = other);
    sends(lab, &again, Verdict::Chosen, &at_member(&again, 1));
    (other, again)
}

/// By two virtual addresses, one after the other, between the same ports: late packets of the first connection change nothing
/// about the second.
#[test]
fn a_closed_connection_takes_nothing_from_the_next_to_its_member() {
    run(&[1], |lab| {
        let (other, again) = closed_and_opened_by_another(lab);
        // A SYN to the first address is not let in between: the member could not tell the two apart.
        stays(lab, &syn(4000), Some(Verdict::InUse));
        let reset = to_vip(TCP, 4000).with(|packet| packet.flags = flag::RST | flag::ACK);
        stays(lab, &reset, Some(Verdict::NoConnection));
        let answer = from_member(TCP, 1, 4000).with(|packet| packet.flags = flag::SYN | flag::ACK);
        let (outcome, counted) = pass(lab, Hook::VipOut, Dev::A, &answer.bytes());
        assert_eq!(counted, Some(Verdict::Returned));
        same(&outcome, NEXT, &answer.with(|packet| packet.source.0 = other));
        sends(lab, &again, Verdict::SynAgain, &at_member(&again, 1));
    });
}

#[test]
fn a_late_reset_of_a_closed_connection_closes_no_other() {
    run(&[1], |lab| {
        let (other, again) = closed_and_opened_by_another(lab);
        let reset = to_vip(TCP, 4000).with(|packet| packet.flags = flag::RST | flag::ACK);
        sends(lab, &reset, Verdict::Kept, &at_member(&reset, 1));
        let answer = from_member(TCP, 1, 4000).with(|packet| packet.flags = flag::SYN | flag::ACK);
        let (outcome, _) = pass(lab, Hook::VipOut, Dev::A, &answer.bytes());
        same(&outcome, NEXT, &answer.with(|packet| packet.source.0 = other));
        sends(lab, &again, Verdict::SynAgain, &at_member(&again, 1));
    });
}

#[test]
fn who_is_not_eligible_keeps_what_it_has_and_gets_nothing_new() {
    run(&[1, 2], |lab| {
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        set_service(lab, &[2], 2, 0);
        set_eligible(lab, 1, false);
        let data = to_vip(TCP, 4000);
        sends(lab, &data, Verdict::Kept, &at_member(&data, 1));
        // A SYN that nobody has answered goes to one that may answer.
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 2));
        assert_eq!(went_to(lab, &syn(4001)), 2);
    });
}

#[test]
fn nobody_is_eligible_and_the_client_is_told() {
    run(&[], |lab| {
        let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &syn(4000).bytes());
        let reset = Packet::tcp((VIP, 80), (Dev::A.address(), 4000))
            .macs(Dev::A.mac(), BRIDGE_MAC)
            .with(|packet| {
                packet.id = 0;
                packet.flags = flag::RST | flag::ACK;
                packet.sequence = 0;
                packet.acknowledgement = syn(4000).sequence + 1;
                packet.window = 0;
                packet.payload.clear();
            });
        assert_eq!(counted, Some(Verdict::Refused));
        same(&outcome, REDIRECT, &reset);
        check_checksums(&outcome.packet).expect("checksums");
        stays(lab, &to_vip(UDP, 4000), Some(Verdict::Nobody));
    });
}

#[test]
fn datagrams_have_conversations_too() {
    run(&[1, 2], |lab| {
        let ask = to_vip(UDP, 4000);
        sends(lab, &ask, Verdict::Chosen, &at_member(&ask, 1));
        sends(lab, &ask, Verdict::Kept, &at_member(&ask, 1));
        let answer = from_member(UDP, 1, 4000);
        gets(lab, &answer, &at_client(&answer));
        let other = to_vip(UDP, 4001);
        sends(lab, &other, Verdict::Chosen, &at_member(&other, 2));
        // Without a checksum there is none afterwards either.
        let bare = to_vip(UDP, 4001).with(|packet| packet.checksum = Some(0));
        sends(lab, &bare, Verdict::Kept, &at_member(&bare, 2));
        // A member that is no more is replaced at once.
        lab.vip_members.remove(&member_key(1)).expect("it is there");
        set_service(lab, &[2], 2, 0);
        sends(lab, &ask, Verdict::Chosen, &at_member(&ask, 2));
    });
}

#[test]
fn what_is_not_a_client_s_is_left_alone() {
    run(&[1, 2], |lab| {
        let spoofed = [
            syn(4000).with(|packet| packet.source.0 = Ipv4Addr::new(172, 17, 0, 77)),
            syn(4000).with(|packet| packet.from_mac = [2, 0, 0, 0, 0, 9]),
        ];
        for packet in &spoofed {
            stays(lab, packet, Some(Verdict::Spoofed));
        }
        stays(lab, &to_vip(TCP, 4000), Some(Verdict::NoConnection));
        let unreadable = [
            syn(4000).with(|packet| packet.fragment = netfast_tests::packet::MF),
            syn(4000).with(|packet| packet.ip_options = vec![1; 4]),
            syn(4000).with(|packet| packet.ip_checksum = Some(1)),
            syn(4000).with(|packet| packet.to_mac = [0xff; 6]),
        ];
        // Options, fragments and header checksums are of IPv4 alone.
        let has_like = |packet: &&Packet| !lab.six || like::frame(&packet.bytes()).is_some();
        let unreadable: Vec<_> = unreadable.iter().filter(has_like).collect();
        for packet in unreadable {
            stays(lab, packet, Some(Verdict::Unreadable));
        }
        let other = syn(4000).with(|packet| packet.protocol = 132);
        stays(lab, &other, Some(Verdict::OtherProtocol));
        // Somebody else's address, and a network that is not the service's.
        let elsewhere = syn(4000).with(|packet| packet.destination.0 = Ipv4Addr::new(198, 18, 0, 3));
        stays(lab, &elsewhere, None);
        let foreign = syn(4000).macs(BRIDGE_MAC, Dev::C.mac());
        let foreign = foreign.with(|packet| packet.source.0 = Dev::C.address());
        let (outcome, counted) = pass(lab, Hook::VipIn, Dev::C, &foreign.bytes());
        assert_eq!(counted, Some(Verdict::OtherBridge));
        same(&outcome, NEXT, &foreign);
        // Nobody lost a turn, and what members send to others is theirs.
        assert_eq!(lab.turns.get(&ID, 0).expect("a turn"), 0);
        gets(lab, &from_member(TCP, 1, 4000), &from_member(TCP, 1, 4000));
    });
}

#[test]
fn a_member_that_is_given_itself_hears_from_the_virtual_address() {
    // The first one is A itself.
    run(&[0], |lab| {
        let there = syn(4000);
        let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &there.bytes());
        assert_eq!(counted, Some(Verdict::Hairpin));
        let turned = |packet: &Packet| {
            packet.clone().with(|packet| {
                (packet.to_mac, packet.from_mac) = (packet.from_mac, packet.to_mac);
                (packet.source.0, packet.destination.0) = (packet.destination.0, packet.source.0);
            })
        };
        same(&outcome, REDIRECT, &turned(&there));
        let back = Packet::tcp((Dev::A.address(), 80), (VIP, 4000)).macs(BRIDGE_MAC, Dev::A.mac());
        let back = back.with(|packet| packet.flags = flag::SYN | flag::ACK);
        let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &back.bytes());
        assert_eq!(counted, Some(Verdict::Hairpin));
        same(&outcome, REDIRECT, &turned(&back));
        assert_eq!(given(lab, 0), 1);
    });
}

#[test]
fn ports_that_are_in_use_are_not_given_again() {
    run(&[1, 2], |lab| {
        // Another virtual address of the same members.
        let other_vip = Ipv4Addr::new(198, 18, 0, 3);
        let service = lab.vips.get(&ip(VIP), 0).expect("a service");
        lab.vips.insert(ip(other_vip), service, 0).expect("a service");
        let other = syn(4000).with(|packet| packet.destination.0 = other_vip);
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        lab.turns.insert(ID, 0, 0).expect("a turn");
        sends(lab, &other, Verdict::Chosen, &at_member(&other, 2));
        let third = syn(4000).with(|packet| packet.destination.0 = Ipv4Addr::new(198, 18, 0, 4));
        lab.vips.insert(ip(third.destination.0), service, 0).expect("a service");
        stays(lab, &third, Some(Verdict::InUse));
    });
}

#[test]
fn a_member_that_the_client_talks_to_straight_is_passed_over() {
    run(&[1, 2], |lab| {
        for (port, is_in_use) in [(4000, true), (4001, false)] {
            let key = FlowKey {
                source: Ip4::from_bytes(Dev::A.address().octets()),
                destination: Ip4::from_bytes(member(1).0.octets()),
                source_port: Port::new(port),
                destination_port: Port::new(80),
                ifindex: lab.ifindex(Dev::A),
                protocol: TCP,
                origin: Origin::Wire as u8,
                netns: 0,
            };
            let flow = Flow {
                used_ns: now_ns(),
                ..Flow::default()
            };
            lab.put_flow(is_in_use, key, flow);
            lab.turns.insert(ID, 0, 0).expect("a turn");
            sends(lab, &syn(port), Verdict::Chosen, &at_member(&syn(port), 2));
        }
    });
}

#[test]
fn a_flood_of_new_connections_evicts_only_its_like() {
    run(&[1, 2, 3], |lab| {
        sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
        let answer = from_member(TCP, 1, 4000).with(|packet| packet.flags = flag::SYN | flag::ACK);
        gets(lab, &answer, &at_client(&answer));
        for port in 10_000..20_000 {
            let (_, counted) = pass(lab, Hook::VipIn, Dev::A, &syn(port).bytes());
            assert_eq!(counted, Some(Verdict::Chosen));
        }
        let data = to_vip(TCP, 4000);
        sends(lab, &data, Verdict::Kept, &at_member(&data, 1));
        let data = from_member(TCP, 1, 4000);
        gets(lab, &data, &at_client(&data));
    });
}

#[test]
fn slots_of_another_version_are_asked_for_anew_or_left_alone() {
    run(&[1, 2], |lab| {
        let mut service = lab.vips.get(&ip(VIP), 0).expect("a service");
        service.version = 5;
        lab.vips.insert(ip(VIP), service, 0).expect("a service");
        stays(lab, &syn(4000), Some(Verdict::NoSlot));
    });
}
