//! What `netfast trace` is shown by the programs, and that nobody is shown anything without asking.

use aya::maps::PerCpuValues;
use netfast_common::{
    net::{Ip4, Port},
    reason::{FAST, Reason},
    trace::{CAPTURE, Filter, RING_BYTES, Tally, Traced, step},
};
use netfast_tests::scene::{Dev, Way, masquerade};
use zerocopy::FromBytes as _;

use super::{
    change::{control, in_use},
    harness::{Context, Hook, Lab, now_ns},
};

/// A lease that does not end, and flows that need not ask.
fn traced(lab: &mut Lab, filter: Filter) {
    let filter = Filter {
        sample: filter.sample.max(1),
        limit: if filter.limit == 0 { u32::MAX } else { filter.limit },
        ..filter
    };
    lab.filter.set(0, filter, 0).expect("a filter");
    control(|control| {
        control.traced_until = u32::MAX;
        control.revalidate_ns = u64::MAX;
    })
    .make(lab);
    shown(lab);
    let cpus = lab.tally.get(&0, 0).expect("a tally").len();
    let zeros = PerCpuValues::try_from(vec![Tally::default(); cpus]).expect("one for each CPU");
    lab.tally.set(0, zeros, 0).expect("a tally");
}

/// A packet of a way, as it enters.
fn enter(lab: &mut Lab, way: &Way, repeat: u32) -> Vec<u8> {
    let frame = way.packet().bytes();
    let context = Context {
        ifindex: lab.ifindex(way.enters),
        ..Context::default()
    };
    lab.repeat(Hook::EndpointIn, context, &frame, repeat);
    frame
}

/// What was shown since the last call.
fn shown(lab: &mut Lab) -> Vec<Traced> {
    let mut packets = Vec::new();
    while let Some(item) = lab.traced.next() {
        packets.push(Traced::read_from_bytes(&item).expect("a whole one"));
    }
    packets
}

fn tally(lab: &Lab) -> Tally {
    let parts = lab.tally.get(&0, 0).expect("a tally");
    parts.iter().fold(Tally::default(), |sum, part| Tally {
        wanted: sum.wanted + part.wanted,
        shown: sum.shown + part.shown,
        limited: sum.limited + part.limited,
        lost: sum.lost + part.lost,
        ..sum
    })
}

fn captured(packet: &Traced) -> &[u8] {
    &packet.bytes[..packet.captured as usize]
}

#[test]
fn packets_are_shown_as_they_entered_with_their_verdict() {
    Lab::run(|lab| {
        lab.reset();
        traced(lab, Filter::default());
        let (there, _) = masquerade();
        let frame = enter(lab, &there, 1);
        in_use(&there).make(lab);
        enter(lab, &there, 1);
        let packets = shown(lab);
        let verdicts: Vec<_> = packets
            .iter()
            .map(|packet| (packet.reason, packet.out_ifindex))
            .collect();
        assert_eq!(
            verdicts,
            [(Reason::NoFlow.number(), 0), (FAST, lab.ifindex(Dev::Uplink))]
        );
        for packet in &packets {
            assert_eq!(packet.ifindex, lab.ifindex(there.enters));
            assert_eq!((packet.length as usize, packet.gso_size), (frame.len(), 0));
            // The one on the fast path, too: before its addresses are translated.
            assert_eq!(captured(packet), &frame[..frame.len().min(CAPTURE as usize)]);
            let age = now_ns().saturating_sub(packet.time_ns);
            assert!(age < 60_000_000_000, "{age}");
        }
    });
}

#[test]
fn long_packets_are_cut_and_refused_ones_are_shown() {
    Lab::run(|lab| {
        lab.reset();
        traced(lab, Filter::default());
        let context = Context {
            ifindex: lab.ifindex(Dev::A),
            ..Context::default()
        };
        // No family that is accelerated, and longer than what is captured.
        let long: Vec<u8> = [[2; 12].as_slice(), &[0x88, 0xcc], &[7; 1000]].concat();
        lab.repeat(Hook::EndpointIn, context, &long, 1);
        let arp: Vec<u8> = [[0xff; 12].as_slice(), &[8, 6], &[0; 28]].concat();
        lab.repeat(Hook::EndpointIn, context, &arp, 1);
        let packets = shown(lab);
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[0].length, 1014);
        assert_eq!(captured(&packets[0]), &long[..CAPTURE as usize]);
        assert_eq!(captured(&packets[1]), arp);
        assert!(packets.iter().all(|packet| packet.reason == Reason::NotIp.number()));
    });
}

#[test]
fn without_a_lease_nothing_is_shown() {
    Lab::run(|lab| {
        lab.reset();
        let (there, _) = masquerade();
        in_use(&there).make(lab);
        traced(lab, Filter::default());
        let before = tally(lab);
        for until in [0, step(now_ns())] {
            control(move |control| control.traced_until = until).make(lab);
            enter(lab, &there, 1);
            enter(lab, &there.udp(), 1);
        }
        assert_eq!((shown(lab).len(), tally(lab)), (0, before));
        // It was not for want of packets.
        control(|control| control.traced_until = step(now_ns()) + 60).make(lab);
        enter(lab, &there.udp(), 1);
        assert_eq!(shown(lab).len(), 1);
    });
}

#[test]
fn filters_choose() {
    Lab::run(|lab| {
        let (there, _) = masquerade();
        let packet = there.packet();
        let port = Port::new(packet.destination.1);
        let address = Ip4::from_bytes(packet.source.0.octets());
        let uplink = lab.ifindex(Dev::Uplink);
        let enters = lab.ifindex(there.enters);
        let device = |ifindex| {
            let mut filter = Filter::default();
            filter.devices[1] = ifindex;
            filter.devices[0] = u32::MAX;
            filter
        };
        let of = |edit: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            edit(&mut filter);
            filter
        };
        // Of a packet on the slow path and the same on the fast one: how many are shown.
        for (what, filter, wanted) in [
            ("all", Filter::default(), 2),
            ("fast ones", of(&|f| f.paths = Filter::FAST), 1),
            ("slow ones", of(&|f| f.paths = Filter::SLOW), 1),
            ("a reason", of(&|f| f.reason = Reason::NoFlow.number()), 1),
            ("another reason", of(&|f| f.reason = Reason::TcpSyn.number()), 0),
            ("where it enters", device(enters), 2),
            ("where it leaves", device(uplink), 1),
            ("somewhere else", device(uplink + 1000), 0),
            ("an address", of(&|f| f.address = address), 2),
            ("another address", of(&|f| f.address = Ip4::from_bytes([9; 4])), 0),
            ("a port", of(&|f| f.port = port), 2),
            ("another port", of(&|f| f.port = Port::new(port.number() ^ 1)), 0),
            ("TCP", of(&|f| f.protocol = 6), 2),
            ("UDP", of(&|f| f.protocol = 17), 0),
        ] {
            lab.reset();
            traced(lab, filter);
            enter(lab, &there, 1);
            in_use(&there).make(lab);
            enter(lab, &there, 1);
            assert_eq!(shown(lab).len(), wanted, "{what}");
        }
    });
}

#[test]
fn what_is_left_out_is_counted() {
    const PACKETS: u32 = 10_000;
    Lab::run(|lab| {
        lab.reset();
        let (there, _) = masquerade();
        // Nobody reads: the buffer runs full, and the packets go their way.
        traced(lab, Filter::default());
        enter(lab, &there, PACKETS);
        let now = tally(lab);
        let room = RING_BYTES / (u32::try_from(size_of::<Traced>()).expect("small") + 8);
        assert_eq!((now.wanted, now.shown), (PACKETS.into(), room.into()));
        assert_eq!((now.lost, now.limited), (u64::from(PACKETS - room), 0));
        assert_eq!(shown(lab).len(), room as usize);

        // At most so many in a step of time; the packets may fall into a few of them.
        traced(
            lab,
            Filter {
                limit: 10,
                ..Filter::default()
            },
        );
        enter(lab, &there, PACKETS);
        let now = tally(lab);
        assert!((10..1000).contains(&now.shown), "{now:?}");
        assert_eq!((now.shown + now.limited, now.lost), (PACKETS.into(), 0));

        // By chance: far fewer than all, and not none.
        traced(
            lab,
            Filter {
                sample: 100,
                ..Filter::default()
            },
        );
        enter(lab, &there, PACKETS);
        let now = tally(lab);
        assert_eq!((now.wanted, now.limited, now.lost), (PACKETS.into(), 0, 0));
        assert!((10..1000).contains(&now.shown), "{now:?}");
    });
}
