//! What test runs of the kernel cannot show: where packets are sent, segments, what a device says of checksums, and whether a packet is
//! the same one.

use netfast_common::{
    device::{DeviceKey, NetnsNumber},
    flow::{Exit, Flow},
    net::MacPair,
    tunnel::Tunnel,
};

use super::*;
use crate::{
    ctx::fake::{self, FakeSkb, Plain, Sent},
    tunnel::tests::{self, SECOND, TUNNEL, UPLINK},
};

const VETH: u32 = 9;
/// What it is, what is done to the container, and whether the outer header is learned.
type Edit = (&'static str, fn(&mut Device), bool);

/// A tunnel, an uplink, a container, and the flow of a packet inside.
fn world(inner: &Plain, exit: Exit) {
    tests::world();
    let mut container = Device::new(Kind::Endpoint, Device::ACCELERATED, 3);
    container.address4 = Ip4::from_bytes([10, 0, 0, 2]);
    maps::DEVICES
        .insert(DeviceKey::served(VETH), container, 0)
        .expect("room");
    let tunnel = Tunnel::new(9, 4789).with_way_in();
    maps::TUNNELS
        .insert(DeviceKey::served(TUNNEL), tunnel, 0)
        .expect("room");
    maps::ENDS
        .insert(tunnel.end(NetnsNumber::SERVED), TUNNEL, 0)
        .expect("room");
    let frame = FakeSkb::new(&inner.frame());
    let packet = frame.parsed().expect("a packet");
    let at_device = Inner::at(&frame, V4::ETHERTYPE, TUNNEL);
    let key = lookup::key::<V4, _>(&at_device, &packet, Origin::Wire).expect("room");
    let flow = Flow {
        tag: key.tag(),
        tag_end: key.tag(),
        learned_ns: SECOND,
        used_ns: SECOND,
        in_slot: 1,
        out_slot: 3,
        out_ifindex: VETH,
        source: key.source,
        destination: key.destination,
        source_port: key.source_port,
        destination_port: key.destination_port,
        in_macs: packet.macs,
        out_macs: MacPair::new([6; 6], [8; 6]),
        max_length: 1450,
        exit: exit as u8,
        flags: Flow::<Ip4>::ROUTED | Flow::<Ip4>::REWRITTEN,
        ..Flow::default()
    };
    maps::FLOWS4.insert(key, flow, 0).expect("room");
}

/// A packet at the uplink.
fn coming(inner: &Plain) -> FakeSkb {
    let head = [
        0x02, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0x33, 0x44, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0,
        0, 1, 0xc3, 0x50, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 9, 0,
    ];
    let mut bytes = [&head[..], &inner.frame()].concat();
    let length = u16::try_from(bytes.len() - 14).expect("short");
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes[38..40].copy_from_slice(&(length - 20).to_be_bytes());
    let sum: u32 = bytes[14..34]
        .chunks(2)
        .map(|two| u32::from(u16::from_ne_bytes([two[0], two[1]])))
        .sum();
    let field = !netfast_common::csum::fold16(sum);
    bytes[24..26].copy_from_slice(&field.to_ne_bytes());
    let mut skb = FakeSkb::new(&bytes);
    skb.ifindex = UPLINK;
    skb.encapsulated.set(true);
    skb
}

/// The same where it comes in by the tunnel's device.
fn come_in(inner: &Plain) -> FakeSkb {
    let mut skb = FakeSkb::new(&inner.frame());
    skb.ifindex = TUNNEL;
    skb
}

/// The kernel carries one of them.
fn learn(inner: &Plain, exit: Exit) {
    world(inner, exit);
    assert_eq!(from_uplink(&coming(inner)), NEXT);
    assert_eq!(from_device(&come_in(inner)), NEXT);
    assert_eq!(maps::DECAP4.entries().len(), 1);
}

/// As the container gets it.
fn delivered(inner: &Plain) -> Vec<u8> {
    let mut inner = inner.clone();
    inner.macs = [[8; 6], [6; 6]];
    inner.ttl -= 1;
    inner.frame()
}

fn datagram() -> Plain {
    Plain::udp(vec![7; 20])
}

#[test]
fn it_goes_where_its_flow_goes() {
    for (exit, sent) in [(Exit::Peer, Sent::ToPeer(VETH)), (Exit::Device, Sent::To(VETH, 0))] {
        learn(&datagram(), exit);
        let skb = coming(&datagram());
        assert_eq!(from_uplink(&skb), fake::TC_ACT_REDIRECT);
        assert_eq!((skb.sent.get(), skb.bytes()), (Some(sent), delivered(&datagram())));
    }
}

/// What a container sends on is the kernel's: no program can say that it is no longer within a tunnel.
#[test]
fn what_is_not_for_the_container_itself_is_the_kernels() {
    let edits: [Edit; 5] = [
        ("its own", |_| (), true),
        (
            "another's",
            |device| device.address4 = Ip4::from_bytes([10, 0, 0, 3]),
            false,
        ),
        ("it forwards", |device| device.flags |= Device::ANY_SOURCE, false),
        (
            "nobody knows",
            |device| {
                device.flags |= Device::ANY_SOURCE;
                device.address4 = Ip4::default();
            },
            true,
        ),
        (
            "no container",
            |device| *device = Device::new(Kind::Uplink, Device::ACCELERATED, 3),
            false,
        ),
    ];
    for (what, edit, is_learned) in edits {
        world(&datagram(), Exit::Peer);
        let mut container = *state::device(VETH).expect("a container");
        edit(&mut container);
        maps::DEVICES
            .insert(DeviceKey::served(VETH), container, 0)
            .expect("room");
        from_uplink(&coming(&datagram()));
        from_device(&come_in(&datagram()));
        assert_eq!(!maps::DECAP4.entries().is_empty(), is_learned, "{what}");
    }
}

/// Segments that GRO put together, or that the sender left to the device, stay together, and go through the device.
#[test]
fn segments_stay_together() {
    let mut inner = datagram();
    inner.tcp = Some((1, 2, 3));
    learn(&inner, Exit::Peer);
    inner.payload = vec![7; 4000];
    let mut skb = coming(&inner);
    skb.gso_size = 1000;
    assert_eq!(from_uplink(&skb), fake::TC_ACT_REDIRECT);
    assert_eq!(
        (skb.sent.get(), skb.bytes()),
        (Some(Sent::To(VETH, 0)), delivered(&inner))
    );
}

/// Datagrams that GRO put together would be taken apart as those of a tunnel.
#[test]
fn datagrams_that_were_put_together_are_the_kernels() {
    learn(&datagram(), Exit::Peer);
    let mut skb = coming(&datagram());
    skb.gso_size = 10;
    assert_eq!((from_uplink(&skb), skb.sent.get()), (NEXT, None));
}

/// One checksum that the device has found to be right is the outer one's; of the other it says nothing then.
#[test]
fn what_the_device_says_of_checksums_is_counted_from_outside() {
    for (verified, is_taken) in [(0, false), (1, false), (2, true)] {
        learn(&datagram(), Exit::Peer);
        let mut bytes = coming(&datagram()).bytes();
        *bytes.last_mut().expect("a payload") ^= 1;
        let mut skb = FakeSkb::new(&bytes);
        skb.ifindex = UPLINK;
        skb.verified.set(verified);
        let verdict = if is_taken { fake::TC_ACT_REDIRECT } else { NEXT };
        assert_eq!(from_uplink(&skb), verdict, "{verified}");
        assert_eq!(skb.verified.get(), if is_taken { verified - 1 } else { verified });
    }
}

#[test]
fn what_cannot_be_written_to_a_tag_and_other_hosts_frames_are_the_kernels() {
    let edits: [fn(&mut FakeSkb); 3] = [
        |skb| skb.no_memory = true,
        |skb| skb.vlan = true,
        |skb| skb.for_another_mac = true,
    ];
    for edit in edits {
        learn(&datagram(), Exit::Peer);
        let mut skb = coming(&datagram());
        edit(&mut skb);
        let before = skb.bytes();
        assert_eq!((from_uplink(&skb), skb.sent.get(), skb.bytes()), (NEXT, None, before));
    }
}

/// Only the packet itself says that the kernel took its header off, and only if nobody held it.
#[test]
fn another_packet_and_one_that_was_held_are_not_learned() {
    let at = |address: u64, mut skb: FakeSkb| {
        skb.address = address;
        skb
    };
    world(&datagram(), Exit::Peer);
    from_uplink(&at(0x1000, coming(&datagram())));
    from_device(&at(0x1100, come_in(&datagram())));
    assert!(maps::DECAP4.entries().is_empty());
    // It comes in behind that one.
    from_device(&at(0x1000, come_in(&datagram())));
    assert_eq!(maps::DECAP4.entries().len(), 1);
    let holds: [fn(); 2] = [forget, || fake::set_ns(SECOND + MAX_WAY_NS)];
    for hold in holds {
        world(&datagram(), Exit::Peer);
        from_uplink(&coming(&datagram()));
        hold();
        from_device(&come_in(&datagram()));
        assert!(maps::DECAP4.entries().is_empty());
    }
}

/// A packet is on its way: those behind it follow it until it has come in, or is taken for lost.
#[test]
fn none_overtakes_one_that_is_on_its_way() {
    learn(&datagram(), Exit::Peer);
    let marked = || {
        let mut bytes = coming(&datagram()).bytes();
        // Congestion on the way; the IP checksum falls by as much.
        bytes[15] |= 3;
        let field = u16::from_be_bytes([bytes[24], bytes[25]]) - 3;
        bytes[24..26].copy_from_slice(&field.to_be_bytes());
        let mut skb = FakeSkb::new(&bytes);
        skb.ifindex = UPLINK;
        skb
    };
    assert_eq!(from_uplink(&marked()), NEXT);
    assert_eq!(from_uplink(&coming(&datagram())), NEXT);
    from_device(&come_in(&datagram()));
    assert_eq!(from_uplink(&coming(&datagram())), fake::TC_ACT_REDIRECT);
    assert_eq!(from_uplink(&marked()), NEXT);
    fake::set_ns(SECOND + MAX_WAY_NS);
    assert_eq!(from_uplink(&coming(&datagram())), fake::TC_ACT_REDIRECT);
}
