//! Which outer headers are learned, and what is made of them.

use super::*;

/// The header is the kernel's, but for what is of each packet: lengths, identification, checksum, ECN.
#[test]
fn a_packet_gets_the_outer_header_that_the_kernel_wrote() {
    run(|world| {
        for packet in [
            datagram(),
            segment(),
            segment().with(|packet| packet.flags |= flag::SYN),
        ] {
            world.reset();
            world.learns(&packet, &around(&packet, 700));
            world.lab.reset_counts();
            for (id, (tos, length)) in (701..).zip([(0, 43), (1, 0), (2, 1), (3, 400), (0, 476)]) {
                let inner = packet.clone().with(|packet| {
                    packet.tos = tos;
                    packet.id = 9;
                    packet.payload = vec![0x5a; length];
                });
                world.repeats(&inner, &around(&inner, id));
            }
        }
    });
}

/// What the kernel makes of an ECN mark inside is known of it (RFC 6040, "normal mode" without telling congestion twice).
#[test]
fn congestion_before_the_tunnel_is_not_told_again() {
    run(|world| {
        world.reset();
        let marked = datagram().with(|packet| packet.tos = 3);
        world.learns(&marked, &around(&marked, 700));
        world.reset();
        let told = around(&marked, 700).with(|outer| outer.tos |= 3);
        assert_eq!(world.carries(&marked, &told), Some(Reason::OuterOdd));
    });
}

/// With a UDP checksum it is that of each packet: as the kernel writes it whole, or begins it for the device.
#[test]
fn a_udp_checksum_is_made_for_each_packet() {
    run(|world| {
        let echo = Packet::echo(NEAR, FAR).macs(FAR_MAC, Dev::Uplink2.mac());
        for packet in [datagram(), segment(), echo] {
            let whole = |inner: &Packet, id| around(inner, id).with(|outer| outer.checksum = None);
            for begun in [false, true] {
                world.reset();
                let device = world.device();
                let tunnel = Tunnel::new(VNI, PORT).with_checksums();
                world.lab.tunnels.insert(device, tunnel, 0).expect("a tunnel");
                let mut outer = whole(&packet, 700);
                if begun {
                    outer.checksum = Some(begun_for(&outer));
                }
                world.learns(&packet, &outer);
                world.lab.reset_counts();
                for (id, length) in (701..).zip([0, 1, 43, 400, 476]) {
                    let inner = packet.clone().with(|packet| packet.payload = vec![0x5a; length]);
                    world.repeats(&inner, &whole(&inner, id));
                }
            }
            // One that is neither, and one without.
            for checksum in [0x1234, 0] {
                world.reset();
                let device = world.device();
                let tunnel = Tunnel::new(VNI, PORT).with_checksums();
                world.lab.tunnels.insert(device, tunnel, 0).expect("a tunnel");
                let outer = around(&packet, 700).with(|outer| outer.checksum = Some(checksum));
                assert_eq!(world.carries(&packet, &outer), Some(Reason::OuterOdd), "{checksum}");
            }
        }
    });
}

#[test]
fn a_udp_checksum_is_never_the_zero_that_means_none() {
    run(|world| {
        world.reset();
        let device = world.device();
        let tunnel = Tunnel::new(VNI, PORT).with_checksums();
        world.lab.tunnels.insert(device, tunnel, 0).expect("a tunnel");
        let inner = datagram().with(|packet| packet.payload = vec![7; 43]);
        let of = |port: u16| {
            let outer = around(&inner, 701).with(|outer| {
                outer.checksum = None;
                outer.source.1 = port;
            });
            let bytes = outer.bytes();
            (outer, u16::from_be_bytes([bytes[40], bytes[41]]))
        };
        // A source port that makes it zero.
        let port = u32::from(of(50123).1) + 50123;
        let (outer, checksum) = of(u16::try_from((port & 0xffff) + (port >> 16)).expect("folded"));
        assert_eq!(checksum, 0xffff);
        world.learns(
            &datagram(),
            &around(&datagram(), 700).with(|first| {
                first.checksum = None;
                first.source.1 = outer.source.1;
            }),
        );
        world.lab.reset_counts();
        world.repeats(&inner, &outer);
    });
}

/// The sum over the pseudo-header, which a device goes on from.
fn begun_for(outer: &Packet) -> u16 {
    let bytes = outer.bytes();
    let sum: u32 = bytes[26..34]
        .chunks(2)
        .chain([&bytes[38..40]])
        .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
        .sum::<u32>()
        + 17;
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded")
}

type Edit = fn(&mut Packet);

/// The outer packet is not such that it can be repeated.
const ODD: &[(&str, Edit)] = &[
    ("a UDP checksum", |p| p.checksum = Some(0x1234)),
    ("another port", |p| p.destination.1 = 4789),
    ("another network identifier", |p| p.payload[6] ^= 1),
    ("its last byte alone", |p| p.payload[6] = 4),
    ("its first byte alone", |p| p.payload[4] = 2),
    ("something behind it", |p| p.payload[7] = 1),
    ("a group policy", |p| p.payload[0] = 0x88),
    ("another protocol (GPE)", |p| p.payload[0] = 0x0c),
    ("no identifier", |p| p.payload[0] = 0),
    ("a policy's number", |p| p.payload[3] = 1),
    ("an option", |p| p.ip_options = vec![1; 4]),
    ("the first of its fragments", |p| p.fragment = MF),
    ("another fragment", |p| p.fragment = 1),
    ("a reserved bit", |p| p.fragment = 0x8000),
    ("a hop only", |p| p.ttl = 1),
    ("a wrong IP checksum", |p| p.ip_checksum = Some(1)),
    ("encrypted", |p| p.protocol = 50),
    ("a length of its own", |p| p.length = Some(110)),
    ("a UDP length of its own", |p| p.udp_length = Some(90)),
    ("a trailer", |p| p.trailer = vec![0; 4]),
    ("to a group", |p| p.to_mac[0] |= 1),
    ("from a group", |p| p.from_mac[0] |= 1),
    ("no IPv4", |p| p.ethertype = 0x86dd),
    ("other ECN bits", |p| p.tos |= 1),
];

/// What is inside is not what was given to the device.
const CHANGED: &[(&str, Edit)] = &[
    ("another identification", |p| p.id ^= 1),
    ("another TTL", |p| p.ttl -= 1),
    ("another TOS", |p| p.tos = 0x20),
    ("another source MAC", |p| p.from_mac[5] ^= 1),
    ("another destination MAC", |p| p.to_mac[5] ^= 1),
    ("another source", |p| p.source.0 = Ipv4Addr::new(172, 17, 0, 9)),
    ("another destination", |p| {
        p.destination.0 = Ipv4Addr::new(10, 244, 2, 6);
    }),
    ("another source port", |p| p.source.1 += 1),
    ("another destination port", |p| p.destination.1 += 1),
    ("a byte more", |p| p.payload.push(0)),
    ("another byte", |p| p.payload[0] ^= 1),
    ("DF", |p| p.fragment ^= DF),
    ("another protocol", |p| p.protocol = 132),
    ("no IPv4", |p| p.ethertype = 0x86dd),
    ("a wrong IP checksum", |p| p.ip_checksum = Some(1)),
];

#[test]
fn what_leaves_otherwise_is_not_learned() {
    run(|world| {
        let inner = datagram();
        for (what, edit) in ODD {
            world.reset();
            let outer = around(&inner, 700).with(edit);
            assert_eq!(world.carries(&inner, &outer), Some(Reason::OuterOdd), "{what}");
            world.declines(what, &inner);
        }
        for (what, edit) in CHANGED {
            world.reset();
            let outer = around(&inner.clone().with(edit), 700);
            assert_eq!(world.carries(&inner, &outer), Some(Reason::OuterOdd), "{what}");
            world.declines(what, &inner);
        }
        // Cut short: nothing is read behind its end.
        for length in 0..inner.bytes().len() {
            world.reset();
            let outer = around(&inner, 700).with(|outer| outer.payload.truncate(8 + length));
            assert_eq!(
                world.carries(&inner, &outer),
                Some(Reason::OuterOdd),
                "{length} bytes inside"
            );
        }
    });
}

#[test]
fn what_leaves_elsewhere_or_in_another_run_is_not_learned() {
    run(|world| {
        let (inner, outer) = (datagram(), around(&datagram(), 700));
        world.reset();
        assert_eq!(world.gives(&inner).0, NEXT);
        let context = Context {
            ingress_ifindex: world.lab.ifindex(Dev::A),
            ..world.context(Dev::Uplink)
        };
        assert_eq!(world.leaves_with(&outer, context), Some(Reason::OtherRun), "received");
        let mut ends = |what: &str, at: Dev, reason, between: &dyn Fn(&mut World<'_>)| {
            let context = world.context(at);
            let found = (0..50).find_map(|_| {
                world.reset();
                assert_eq!(world.gives(&inner).0, NEXT);
                between(world);
                let found = world.leaves_with(&outer, context);
                (found != Some(Reason::OtherRun)).then_some(found)
            });
            assert_eq!(found, Some(Some(reason)), "{what}");
        };
        for dev in [Dev::Stranger, Dev::Bridge, Dev::A] {
            ends(dev.name(), dev, Reason::EgressUnknown, &|_| ());
        }
        ends("not accelerated", Dev::Uplink, Reason::EgressUnknown, &|world| {
            let uplink = DeviceKey::new(world.lab.netns, world.lab.ifindex(Dev::Uplink));
            let mut device = world.lab.devices.get(&uplink, 0).expect("an uplink");
            device.flags = 0;
            world.lab.devices.insert(uplink, device, 0).expect("an uplink");
        });
        ends("ended in between", Dev::Uplink, Reason::OuterOdd, &|world| {
            let tunnel = world.device();
            world.lab.tunnels.remove(&tunnel).expect("it is there");
        });
        ends("as it should be", Dev::Uplink, Reason::OuterLearned, &|_| ());
        // The candidate is of one packet.
        assert_eq!(world.leaves(&outer), None);
        // Other candidates are not for this program.
        world.reset();
        let context = Context {
            ingress_ifindex: world.lab.ifindex(Dev::A),
            ..world.context(Dev::A)
        };
        let sent = Packet::udp(NEAR, FAR).macs([2, 0x42, 0, 0, 0, 1], Dev::A.mac());
        assert_eq!(
            world.lab.test_run(Hook::EndpointIn, context, &sent.bytes()).verdict,
            NEXT
        );
        assert_eq!(world.leaves(&around(&sent, 1)), None);
    });
}

#[test]
fn what_no_candidate_is_left_of_is_not_learned() {
    run(|world| {
        let outer = around(&datagram(), 700);
        let mut try_with = |what: &str, inner: Packet, prepare: &dyn Fn(&mut World<'_>)| {
            world.reset();
            prepare(world);
            world.declines(what, &inner);
            assert_eq!(world.leaves(&outer), None, "{what}");
        };
        let nothing = |_: &mut World<'_>| ();
        try_with("to a group", datagram().with(|p| p.to_mac = [0xff; 6]), &nothing);
        try_with("from a group", datagram().with(|p| p.from_mac[0] |= 1), &nothing);
        try_with("padded", datagram().with(|p| p.trailer = vec![0; 4]), &nothing);
        try_with("a fragment", datagram().with(|p| p.fragment = MF), &nothing);
        try_with("ARP", datagram().with(|p| p.ethertype = 0x0806), &nothing);
        try_with("no tunnel", datagram(), &|world| {
            let device = world.device();
            world.lab.tunnels.remove(&device).expect("it is there");
        });
        try_with("a tunnel of another namespace", datagram(), &|world| {
            let device = world.device();
            let tunnel = world.lab.tunnels.get(&device, 0).expect("it is there");
            world.lab.tunnels.remove(&device).expect("it is there");
            let other = DeviceKey::new(
                netfast_common::device::NetnsNumber(world.lab.netns.0 + 1),
                device.ifindex,
            );
            world.lab.tunnels.insert(other, tunnel, 0).expect("room");
        });
        try_with("a device that is not accelerated", datagram(), &|world| {
            let device = world.device();
            let mut entry = world.lab.devices.get(&device, 0).expect("a device");
            entry.flags = 0;
            world.lab.devices.insert(device, entry, 0).expect("a device");
        });
        try_with("learning is off", datagram(), &|world| {
            let mut control = world.lab.control.get(&0, 0).expect("control");
            control.switches = Control::USE;
            world.lab.set_control(control);
        });
        try_with("one of the first", datagram(), &|world| {
            let mut control = world.lab.control.get(&0, 0).expect("control");
            control.learn_after = 1;
            world.lab.set_control(control);
        });
    });
}
