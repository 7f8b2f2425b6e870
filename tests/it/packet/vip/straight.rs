//! A client that talks to a member straight, by the very ports of its connection to the virtual address.

use super::*;

/// A SYN straight to a member.
fn straight(number: u8, sequence: u32) -> Packet {
    at_member(&syn(4000), number).with(|packet| packet.sequence = sequence)
}

/// A member's packet with these flags, about a sequence number.
fn answer(flags: u8, acknowledgement: u32) -> Packet {
    from_member(TCP, 1, 4000).with(|packet| {
        packet.flags = flags;
        packet.acknowledgement = acknowledgement;
        packet.payload.clear();
    })
}

/// A live connection of A to the first member.
fn live(lab: &mut Lab) {
    sends(lab, &syn(4000), Verdict::Chosen, &at_member(&syn(4000), 1));
    let accepted = answer(flag::SYN | flag::ACK, syn(4000).sequence + 1);
    gets(lab, &accepted, &at_client(&accepted));
}

#[test]
fn a_connection_that_the_member_knows_lives_and_the_other_is_refused() {
    run(&[1, 2], |lab| {
        live(lab);
        stays(lab, &straight(1, 5000), None);
        // RFC 5961, 4.2: whatever its number, the member asks whether it is meant, by the connection that it knows.
        let challenge = answer(flag::ACK, 4321);
        gets(lab, &challenge, &at_client(&challenge));
        let (outcome, counted) = pass(lab, Hook::VipIn, Dev::A, &straight(1, 5000).bytes());
        assert_eq!(counted, Some(Verdict::Taken));
        let reset = straight(1, 5000).with(|packet| {
            (packet.to_mac, packet.from_mac) = (packet.from_mac, packet.to_mac);
            (packet.source, packet.destination) = (packet.destination, packet.source);
            packet.id = 0;
            packet.flags = flag::RST | flag::ACK;
            packet.acknowledgement = packet.sequence + 1;
            (packet.sequence, packet.window) = (0, 0);
            packet.tcp_options.clear();
        });
        same(&outcome, REDIRECT, &reset);
        let data = to_vip(TCP, 4000);
        sends(lab, &data, Verdict::Kept, &at_member(&data, 1));
        let data = from_member(TCP, 1, 4000);
        gets(lab, &data, &at_client(&data));
        // Another try is another SYN, and other members are none of its business.
        stays(lab, &straight(1, 6000), None);
        stays(lab, &straight(2, 6000), None);
        stays(lab, &straight(2, 6000), None);
    });
}

#[test]
fn a_member_that_takes_it_has_forgotten_the_other() {
    for flags in [flag::SYN | flag::ACK, flag::RST | flag::ACK] {
        run(&[1, 2], |lab| {
            live(lab);
            stays(lab, &straight(1, 5000), None);
            // About another SYN it is the virtual address's.
            let other = answer(flag::SYN | flag::ACK, 4001);
            gets(lab, &other, &at_client(&other));
            gets(lab, &answer(flags, 5001), &answer(flags, 5001));
            stays(lab, &to_vip(TCP, 4000), Some(Verdict::NoConnection));
            let data = from_member(TCP, 1, 4000);
            gets(lab, &data, &data);
        });
    }
}
