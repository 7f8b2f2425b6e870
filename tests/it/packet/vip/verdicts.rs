//! One row for every verdict.

use super::{icmp::*, *};

/// What brings a verdict about.
enum Row {
    /// These members, and the last packet of a script: the hook that it passes, and the packet.
    Packets(&'static [u8], fn(&mut Lab) -> (Hook, Packet)),
    /// A test run cannot; where it is tested instead.
    Elsewhere,
}

/// A verdict without a row does not compile.
fn row(verdict: Verdict) -> Row {
    use Row::{Elsewhere, Packets};
    match verdict {
        Verdict::Chosen => Packets(&[1], |_| (Hook::VipIn, syn(4000))),
        Verdict::Kept => Packets(&[1], |lab| {
            open(lab);
            (Hook::VipIn, to_vip(TCP, 4000))
        }),
        Verdict::Returned => Packets(&[1], |lab| {
            open(lab);
            (Hook::VipOut, from_member(TCP, 1, 4000))
        }),
        Verdict::SynAgain => Packets(&[1], |lab| {
            open(lab);
            (Hook::VipIn, syn(4000))
        }),
        Verdict::Hairpin => Packets(&[0], |_| (Hook::VipIn, syn(4000))),
        Verdict::IcmpError => Packets(&[1], |lab| {
            open(lab);
            let about = quote(&at_member(&syn(4000), 1), 28);
            (Hook::VipOut, message(from_member(UDP, 1, 0), 3, [0; 4], &about))
        }),
        Verdict::Refused => Packets(&[], |_| (Hook::VipIn, syn(4000))),
        Verdict::Nobody => Packets(&[], |_| (Hook::VipIn, to_vip(UDP, 4000))),
        Verdict::NoConnection => Packets(&[1], |_| (Hook::VipIn, to_vip(TCP, 4000))),
        Verdict::OtherBridge => Packets(&[1], |lab| {
            let mut service = lab.vips.get(&ip(VIP), 0).expect("a service");
            service.bridge += 1;
            lab.vips.insert(ip(VIP), service, 0).expect("a service");
            (Hook::VipIn, syn(4000))
        }),
        Verdict::Spoofed => Packets(&[1], |_| {
            let packet = syn(4000).with(|packet| packet.from_mac[5] ^= 1);
            (Hook::VipIn, packet)
        }),
        Verdict::Unreadable => Packets(&[1], |_| {
            let packet = syn(4000).with(|packet| packet.fragment = netfast_tests::packet::MF);
            (Hook::VipIn, packet)
        }),
        Verdict::OtherProtocol => Packets(&[1], |_| {
            let packet = syn(4000).with(|packet| packet.protocol = 132);
            (Hook::VipIn, packet)
        }),
        Verdict::InUse => Packets(&[1], |lab| {
            open(lab);
            let service = lab.vips.get(&ip(VIP), 0).expect("a service");
            let other = Ipv4Addr::new(198, 18, 0, 3);
            lab.vips.insert(ip(other), service, 0).expect("a service");
            let packet = syn(4000).with(|packet| packet.destination.0 = other);
            (Hook::VipIn, packet)
        }),
        Verdict::NoSlot => Packets(&[1], |lab| {
            let mut service = lab.vips.get(&ip(VIP), 0).expect("a service");
            service.version += 1;
            lab.vips.insert(ip(VIP), service, 0).expect("a service");
            (Hook::VipIn, syn(4000))
        }),
        Verdict::Retried => Packets(&[1, 2], |lab| {
            open(lab);
            let reset = from_member(TCP, 1, 4000).with(|packet| {
                packet.flags = flag::RST | flag::ACK;
                packet.acknowledgement = syn(4000).sequence + 1;
            });
            (Hook::VipOut, reset)
        }),
        Verdict::Taken => Packets(&[1], |lab| {
            open(lab);
            let straight = at_member(&syn(4000), 1);
            pass(lab, Hook::VipIn, Dev::A, &straight.bytes());
            (Hook::VipIn, straight)
        }),
        // The kernel has no memory for a copy of a header; every place of a table is being written to in this very moment:
        // netfast-ebpf/src/lb/tests.rs.
        Verdict::Unwritable | Verdict::TableFull => Elsewhere,
    }
}

fn open(lab: &mut Lab) {
    let (_, counted) = pass(lab, Hook::VipIn, Dev::A, &syn(4000).bytes());
    assert_eq!(counted, Some(Verdict::Chosen));
}

#[test]
fn every_verdict_has_a_row() {
    for verdict in Verdict::ALL {
        let Row::Packets(members, script) = row(*verdict) else {
            continue;
        };
        run(members, |lab| {
            let (hook, packet) = script(lab);
            if lab.six && like::frame(&packet.bytes()).is_none() {
                // A fragment of IPv6 is another protocol to the program.
                return;
            }
            let (outcome, counted) = pass(lab, hook, Dev::A, &packet.bytes());
            assert_eq!(counted, Some(*verdict));
            let moved = matches!(
                verdict,
                Verdict::Refused | Verdict::Hairpin | Verdict::Retried | Verdict::Taken
            );
            assert_eq!(outcome.verdict, if moved { REDIRECT } else { NEXT }, "{verdict:?}");
            if *verdict as u32 >= Verdict::Nobody as u32 && !moved {
                same(&outcome, NEXT, &packet);
            }
        });
    }
}
