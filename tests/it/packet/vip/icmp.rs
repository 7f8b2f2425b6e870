//! Echo is a conversation; errors go where the packets go that they are about.

use netfast_tests::packet::ICMP;

use super::*;

pub fn message(packet: Packet, kind: u8, rest: [u8; 4], behind: &[u8]) -> Packet {
    packet.with(|packet| {
        packet.protocol = ICMP;
        (packet.icmp_type, packet.icmp_word) = (Some([kind, 0]), Some(rest));
        packet.payload = behind.to_vec();
    })
}

pub fn echo(packet: Packet, kind: u8, id: u16) -> Packet {
    let [a, b] = id.to_be_bytes();
    message(packet, kind, [a, b, 0, 1], b"abcdefgh")
}

#[test]
fn each_identifier_is_a_conversation() {
    run(&[1, 2, 3], |lab| {
        for (id, number) in [(7, 1), (8, 2), (9, 3)] {
            let ask = echo(to_vip(UDP, 0), 8, id);
            sends(lab, &ask, Verdict::Chosen, &at_member(&ask, number));
            sends(lab, &ask, Verdict::Kept, &at_member(&ask, number));
            let answer = echo(from_member(UDP, number, 0), 0, id);
            gets(lab, &answer, &at_client(&answer));
        }
        // An answer that nobody asked for, and a question of another kind.
        stays(lab, &echo(to_vip(UDP, 0), 0, 10), Some(Verdict::NoConnection));
        stays(
            lab,
            &message(to_vip(UDP, 0), 13, [0; 4], &[0; 12]),
            Some(Verdict::OtherProtocol),
        );
    });
}

/// The packet that an error quotes: so many bytes from its IPv4 header on.
pub fn quote(packet: &Packet, bytes: usize) -> Vec<u8> {
    let mut all = packet.bytes()[14..].to_vec();
    all.truncate(bytes);
    all
}

#[test]
fn errors_are_about_what_the_client_knows() {
    run(&[1], |lab| {
        for (protocol, bytes) in [(TCP, 28), (TCP, 60), (UDP, 28), (UDP, 60)] {
            let asked = if protocol == TCP { syn(4000) } else { to_vip(UDP, 4000) };
            pass(lab, Hook::VipIn, Dev::A, &asked.bytes());
            let got = at_member(&asked, 1);
            // Of the member, and of somebody between the two: the host.
            let host = Ipv4Addr::new(172, 17, 0, 1);
            for (sender, seen) in [(member(1).0, VIP), (host, host)] {
                let from = |address: Ipv4Addr| from_member(UDP, 1, 4000).with(|packet| packet.source.0 = address);
                let error = message(from(sender), 3, [0; 4], &quote(&got, bytes));
                let expected = message(from(seen), 3, [0; 4], &quote(&asked, bytes));
                let (outcome, counted) = pass(lab, Hook::VipOut, Dev::A, &error.bytes());
                assert_eq!(counted, Some(Verdict::IcmpError), "{protocol} {bytes}");
                same(&outcome, NEXT, &expected);
            }
        }
        let strange = message(from_member(UDP, 1, 0), 3, [0; 4], &quote(&from_member(UDP, 1, 1), 28));
        gets(lab, &strange, &strange);
    });
}

#[test]
fn errors_of_a_client_go_to_the_member() {
    run(&[1], |lab| {
        let asked = to_vip(UDP, 4000);
        pass(lab, Hook::VipIn, Dev::A, &asked.bytes());
        let answer = from_member(UDP, 1, 4000);
        gets(lab, &answer, &at_client(&answer));
        let error = message(to_vip(UDP, 0), 3, [0; 4], &quote(&at_client(&answer), 60));
        let expected = message(at_member(&to_vip(UDP, 0), 1), 3, [0; 4], &quote(&answer, 60));
        sends(lab, &error, Verdict::IcmpError, &expected);
        let unknown = from_member(UDP, 1, 4001);
        let error = message(to_vip(UDP, 0), 3, [0; 4], &quote(&at_client(&unknown), 60));
        stays(lab, &error, Some(Verdict::NoConnection));
    });
}
