//! Packets that come in through a tunnel: which outer headers are taken off, what is made of the packets inside, and what is the
//! kernel's.
//!
//! They come in by `Uplink`, the tunnel's device is `Uplink2`, and the container `A`.

use netfast_common::{
    device::Device,
    flow::{Exit, Flow},
    net::MacPair,
    tunnel::Decap,
};

use netfast_tests::{packet::ICMP, scene::BRIDGE_MAC};

use super::*;

/// What it is, and what changes.
type Change = (&'static str, fn(&mut World<'_>));
/// What it is, and what is done to the packet inside and to the outer one.
type Frame = (&'static str, fn(&mut Packet), fn(&mut Packet));

/// A datagram from the far container, as it comes in by the tunnel's device.
fn answer() -> Packet {
    Packet::udp(FAR, NEAR).macs(Dev::Uplink2.mac(), FAR_MAC)
}

fn tcp_answer() -> Packet {
    Packet::tcp(FAR, NEAR).macs(Dev::Uplink2.mac(), FAR_MAC)
}

fn echo_answer() -> Packet {
    Packet::echo(FAR, (NEAR.0, 0)).macs(Dev::Uplink2.mac(), FAR_MAC)
}

/// As it comes in by the uplink.
fn wrapped(inner: &Packet) -> Packet {
    let [_, a, b, c] = VNI.to_be_bytes();
    Packet::udp((END, 50321), (HOST, PORT))
        .macs(UPLINK_MAC, ROUTER_MAC)
        .with(|outer| {
            outer.id = 77;
            outer.fragment = 0;
            outer.tos = 0x40 | inner.tos & 3;
            outer.checksum = Some(0);
            outer.payload = [&[8, 0, 0, 0, a, b, c, 0][..], &inner.bytes()].concat();
        })
}

/// As it goes to the container: routed.
fn delivered(inner: &Packet) -> Vec<u8> {
    inner
        .clone()
        .macs(Dev::A.mac(), BRIDGE_MAC)
        .with(|packet| packet.ttl -= 1)
        .bytes()
}

impl World<'_> {
    /// The tunnel has a way in, and the flow of the packets inside is known.
    fn begin(&mut self, inner: &Packet) {
        self.reset();
        let (device, tunnel) = (self.device(), Tunnel::new(VNI, PORT).with_way_in());
        clear(&mut self.lab.decaps);
        clear(&mut self.lab.ends);
        self.lab.tunnels.insert(device, tunnel, 0).expect("a tunnel");
        self.lab
            .ends
            .insert(tunnel.end(self.lab.netns), device.ifindex, 0)
            .expect("an end");
        let key = self.key_of(inner.protocol);
        let flow = self.flow(inner, &key);
        self.lab.flows.insert(key, flow, 0).expect("a flow");
        self.lab.reset_counts();
    }

    fn key_of(&self, protocol: u8) -> FlowKey<Ip4> {
        // Of a request of echo: its identifier, and none.
        let to = if protocol == ICMP { 0 } else { NEAR.1 };
        FlowKey {
            source: Ip4::from_bytes(FAR.0.octets()),
            destination: Ip4::from_bytes(NEAR.0.octets()),
            source_port: Port::new(FAR.1),
            destination_port: Port::new(to),
            ifindex: self.lab.ifindex(Dev::Uplink2),
            protocol,
            origin: Origin::Wire as u8,
            netns: self.lab.netns.0,
        }
    }

    fn flow(&self, inner: &Packet, key: &FlowKey<Ip4>) -> Flow<Ip4> {
        Flow {
            tag: key.tag(),
            tag_end: key.tag(),
            epoch: EPOCH,
            learned_ns: now_ns(),
            used_ns: now_ns(),
            created_ns: now_ns(),
            in_generation: Dev::Uplink2.generation(),
            out_generation: Dev::A.generation(),
            in_slot: Dev::Uplink2.slot(),
            out_slot: Dev::A.slot(),
            out_ifindex: self.lab.ifindex(Dev::A),
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            in_macs: MacPair::new(inner.to_mac, inner.from_mac),
            out_macs: MacPair::new(Dev::A.mac(), BRIDGE_MAC),
            max_length: 1450,
            exit: Exit::Device as u8,
            flags: Flow::<Ip4>::ROUTED | Flow::<Ip4>::REWRITTEN,
            ..Flow::default()
        }
    }

    fn comes(&mut self, bytes: &[u8]) -> (i32, Vec<u8>) {
        self.comes_with(bytes, 0)
    }

    fn comes_with(&mut self, bytes: &[u8], gso_size: u32) -> (i32, Vec<u8>) {
        let context = Context {
            gso_size,
            mark: self.mark,
            ..self.context(Dev::Uplink)
        };
        let outcome = self.lab.test_run(Hook::TunnelIn, context, bytes);
        (outcome.verdict, outcome.packet)
    }

    /// The kernel has taken something off, and this comes in by the tunnel's device: what is counted.
    fn appears(&mut self, inner: &Packet) -> Option<Reason> {
        self.lab.reset_counts();
        let context = self.context(Dev::Uplink2);
        let bytes = inner.bytes();
        let outcome = self.lab.test_run(Hook::TunnelTaken, context, &bytes);
        assert_eq!(
            (outcome.verdict, outcome.packet),
            (NEXT, bytes),
            "nothing is changed there"
        );
        let counts = self.lab.counts();
        let counted = (1..counts.len()).find(|number| counts[*number].packets != 0);
        counted.and_then(|number| Reason::of(u32::try_from(number).ok()?))
    }

    /// The kernel carries it from the uplink to the device: what is counted there.
    fn passes(&mut self, outer: &Packet, inner: &Packet) -> Option<Reason> {
        for _ in 0..50 {
            let bytes = outer.bytes();
            assert_eq!(self.comes(&bytes), (NEXT, bytes), "the kernel carries it");
            let reason = self.appears(inner);
            if reason != Some(Reason::OtherRun) {
                return reason;
            }
        }
        panic!("the machine is too slow");
    }

    fn teaches(&mut self, inner: &Packet) {
        assert_eq!(self.passes(&wrapped(inner), inner), Some(Reason::OuterLearned));
        self.lab.reset_counts();
    }

    fn is_taken_off(&mut self, what: &str, outer: &Packet, inner: &Packet) {
        let before = self.taken_off();
        assert_eq!(self.comes(&outer.bytes()), (REDIRECT, delivered(inner)), "{what}");
        assert_eq!(self.taken_off(), before + 1, "{what}");
    }

    fn is_the_kernels(&mut self, what: &str, bytes: &[u8]) {
        let before = self.taken_off();
        assert_eq!(self.comes(bytes), (NEXT, bytes.to_vec()), "{what}");
        assert_eq!(self.taken_off(), before, "{what}");
    }

    fn taken_off(&self) -> u64 {
        self.lab.counts()[Reason::Decapsulated.number() as usize].packets
    }

    fn edit_decap(&mut self, edit: fn(&mut Decap)) {
        let key = self.key_of(UDP);
        let mut known = self.lab.decaps.get(&key, 0).expect("it was learned");
        edit(&mut known);
        self.lab.decaps.insert(key, known, 0).expect("room");
    }
}

/// Bytes in, bytes out: each packet is what the kernel would have made of it, whatever differs between packets.
#[test]
fn an_outer_header_that_the_kernel_took_off_is_taken_off() {
    run(|world| {
        for first in [answer(), tcp_answer(), echo_answer()] {
            world.begin(&first);
            world.teaches(&first);
            for (length, tos) in [(0, 0), (1, 1), (43, 2), (700, 3), (1400, 0)] {
                let inner = first.clone().with(|packet| {
                    packet.tos = tos;
                    packet.id = 0x4321;
                    packet.payload = vec![0x5a; length];
                });
                let outer = wrapped(&inner).with(|outer| outer.id = 0x1000);
                world.is_taken_off(&format!("{length} bytes, TOS {tos}"), &outer, &inner);
                let whole = outer.with(|outer| outer.checksum = None);
                world.is_taken_off(&format!("{length} bytes, with a UDP checksum"), &whole, &inner);
            }
        }
    });
}

/// What stands before the packet or in it is not what the kernel took off.
const HOSTILE: &[Frame] = &[
    ("another end", |_| (), |o| o.source.0 = Ipv4Addr::new(203, 0, 113, 8)),
    ("another source port", |_| (), |o| o.source.1 ^= 1),
    (
        "another address of the host's",
        |_| (),
        |o| o.destination.0 = Ipv4Addr::new(192, 0, 2, 2),
    ),
    ("another port", |_| (), |o| o.destination.1 ^= 1),
    ("another network identifier", |_| (), |o| o.payload[6] ^= 1),
    ("a reserved byte behind it", |_| (), |o| o.payload[7] = 1),
    ("group policy", |_| (), |o| o.payload[0] |= 0x80),
    ("another protocol inside", |_| (), |o| o.payload[0] |= 4),
    ("no network identifier", |_| (), |o| o.payload[0] = 0),
    ("reserved bits", |_| (), |o| o.payload[2] = 1),
    ("another gateway", |_| (), |o| o.from_mac[5] ^= 1),
    ("another interface", |_| (), |o| o.to_mac[5] ^= 1),
    ("another TTL", |_| (), |o| o.ttl -= 1),
    ("another DSCP", |_| (), |o| o.tos ^= 0x20),
    ("no TTL", |_| (), |o| o.ttl = 0),
    ("DF", |_| (), |o| o.fragment = DF),
    ("a fragment", |_| (), |o| o.fragment = MF),
    ("a fragment's rest", |_| (), |o| o.fragment = 3),
    ("IP options", |_| (), |o| o.ip_options = vec![1, 1, 1, 1]),
    ("a wrong IP checksum", |_| (), |o| o.ip_checksum = Some(1)),
    ("a wrong UDP checksum", |_| (), |o| o.checksum = Some(1)),
    ("TCP", |_| (), |o| o.protocol = 6),
    ("congestion on the way", |i| i.tos = 2, |o| o.tos |= 3),
    ("congestion told to who cannot hear it", |_| (), |o| o.tos |= 3),
    ("a UDP length that is too long", |_| (), |o| o.udp_length = Some(2000)),
    ("a UDP length that is too short", |_| (), |o| o.udp_length = Some(30)),
    ("an IP length that is too long", |_| (), |o| o.length = Some(2000)),
    ("bytes behind it", |_| (), |o| o.trailer = vec![0; 4]),
    (
        "another sender inside",
        |i| i.source.0 = Ipv4Addr::new(10, 244, 2, 6),
        |_| (),
    ),
    (
        "another receiver inside",
        |i| i.destination.0 = Ipv4Addr::new(172, 17, 0, 3),
        |_| (),
    ),
    ("another port inside", |i| i.destination.1 ^= 1, |_| ()),
    ("another MAC address of the sender's", |i| i.from_mac[5] ^= 1, |_| ()),
    ("another MAC address of the receiver's", |i| i.to_mac[5] ^= 1, |_| ()),
    ("to a group", |i| i.to_mac[0] |= 1, |_| ()),
    ("a TTL that ends", |i| i.ttl = 1, |_| ()),
    ("another DSCP inside", |i| i.tos = 0x20, |_| ()),
    ("a wrong IP checksum inside", |i| i.ip_checksum = Some(1), |_| ()),
    ("a wrong UDP checksum inside", |i| i.checksum = Some(1), |_| ()),
    ("IP options inside", |i| i.ip_options = vec![1, 1, 1, 1], |_| ()),
    ("a fragment inside", |i| i.fragment = MF, |_| ()),
    ("no IPv4 inside", |i| i.ethertype = 0x86dd, |_| ()),
    ("a VLAN tag inside", |i| i.ethertype = 0x8100, |_| ()),
    (
        "longer than what the kernel let through",
        |i| i.payload = vec![0; 1430],
        |_| (),
    ),
    ("padded inside", |i| i.trailer = vec![0; 4], |_| ()),
];

#[test]
fn what_differs_is_the_kernels() {
    run(|world| {
        for (what, inside, outside) in HOSTILE {
            world.begin(&answer());
            world.teaches(&answer());
            let inner = answer().with(inside);
            let outer = wrapped(&inner).with(outside);
            world.is_the_kernels(what, &outer.bytes());
        }
    });
}

/// Cut short anywhere, outside or inside: nothing is read behind its end.
#[test]
fn what_is_cut_short_is_the_kernels() {
    run(|world| {
        world.begin(&answer());
        world.teaches(&answer());
        let (whole, inner) = (wrapped(&answer()).bytes(), answer().bytes());
        // A test run wants an IP header.
        for length in 34..whole.len() {
            world.is_the_kernels("a frame that ends", &whole[..length]);
        }
        for length in 0..inner.len() {
            let outer = wrapped(&answer()).with(|outer| outer.payload.truncate(8 + length));
            world.is_the_kernels("a packet inside that ends", &outer.bytes());
        }
    });
}

/// A tunnel within the tunnel, to the same end: the packet inside is UDP like any other, and nothing in it counts.
#[test]
fn nothing_counts_of_a_tunnel_within_a_tunnel() {
    run(|world| {
        world.begin(&answer());
        world.teaches(&answer());
        let nested = wrapped(&answer()).macs(Dev::Uplink2.mac(), FAR_MAC);
        let outer = wrapped(&nested);
        world.is_the_kernels("nested", &outer.bytes());
    });
}

#[test]
fn what_must_ask_the_kernel_does() {
    run(|world| {
        let edits: &[Change] = &[
            ("another epoch", |world| world.edit_decap(|known| known.epoch ^= 1)),
            ("another generation of the uplink", |world| {
                world.edit_decap(|known| known.generation ^= 1);
            }),
            ("another uplink", |world| world.edit_decap(|known| known.ifindex ^= 1)),
            ("it is older than a second", |world| {
                world.edit_decap(|known| known.learned_ns = now_ns() - 1100 * MS);
            }),
            ("its place was given away at the end", |world| {
                world.edit_decap(|known| known.tag_end ^= 2);
            }),
            ("its place was given away at the start", |world| {
                world.edit_decap(|known| known.tag ^= 2);
            }),
            ("the tunnel is no longer one", |world| clear(&mut world.lab.ends)),
            ("flows are not used", |world| {
                let mut control = world.lab.control.get(&0, 0).expect("control");
                control.switches = Control::LEARN;
                world.lab.set_control(control);
            }),
            ("a mark", |world| world.mark = 1),
            ("the flow has ended", |world| clear(&mut world.lab.flows)),
            ("the flow is older than a second", |world| {
                let key = world.key_of(UDP);
                let mut flow = world.lab.flows.get(&key, 0).expect("a flow");
                flow.learned_ns = now_ns() - 1100 * MS;
                world.lab.flows.insert(key, flow, 0).expect("room");
            }),
            ("the tunnel's device is another", |world| {
                let slot = u32::from(Dev::Uplink2.slot());
                world.lab.generations.set(slot, 1, 0).expect("a generation");
            }),
            ("the container is another", |world| {
                let slot = u32::from(Dev::A.slot());
                world.lab.generations.set(slot, 1, 0).expect("a generation");
            }),
        ];
        for (what, edit) in edits {
            world.begin(&answer());
            world.teaches(&answer());
            edit(world);
            world.is_the_kernels(what, &wrapped(&answer()).bytes());
            world.mark = 0;
        }
    });
}

/// What the kernel may have done with a packet, or with another one.
#[test]
fn what_is_not_learned() {
    run(|world| {
        let outer = wrapped(&answer());
        for (what, inside) in [
            ("another packet", (|packet| packet.id ^= 1) as fn(&mut Packet)),
            ("another length field", |packet| packet.payload.push(0)),
            ("other MAC addresses", |packet| packet.from_mac[5] ^= 1),
            ("another DSCP", |packet| packet.tos = 0x20),
        ] {
            world.begin(&answer());
            assert_eq!(
                world.passes(&outer, &answer().with(inside)),
                Some(Reason::OuterOdd),
                "{what}"
            );
            world.is_the_kernels(what, &outer.bytes());
        }
        for (what, inside) in [
            ("another sender", (|packet| packet.source.1 ^= 1) as fn(&mut Packet)),
            ("no IP", |packet| packet.ethertype = 0x806),
        ] {
            world.begin(&answer());
            assert_eq!(world.passes(&outer, &answer().with(inside)), None, "{what}");
        }
        // What no later packet was taken for is forgotten by then.
        let forget = || std::thread::sleep(std::time::Duration::from_millis(30));
        forget();
        world.begin(&answer());
        clear(&mut world.lab.flows);
        assert_eq!(world.passes(&outer, &answer()), None, "nobody's flow");
        world.begin(&answer());
        forget();
        let device = world.device();
        world
            .lab
            .tunnels
            .insert(device, Tunnel::new(VNI, PORT), 0)
            .expect("a tunnel");
        assert_eq!(world.passes(&outer, &answer()), None, "a tunnel without a way in");
        let key = DeviceKey::new(world.lab.netns, world.lab.ifindex(Dev::Uplink));
        for (what, edit) in [
            ("not accelerated", (|device| device.flags = 0) as fn(&mut Device)),
            ("a port of a bridge", |device| device.bridge = 9),
            ("no uplink", |device| *device = Dev::A.device().expect("an endpoint")),
        ] {
            forget();
            world.begin(&answer());
            let mut device = Dev::Uplink.device().expect("an uplink");
            edit(&mut device);
            world.lab.devices.insert(key, device, 0).expect("room");
            assert_eq!(world.passes(&outer, &answer()), None, "{what}");
        }
        forget();
        world.begin(&answer());
        let mut control = world.lab.control.get(&0, 0).expect("control");
        control.switches = Control::USE;
        world.lab.set_control(control);
        assert_eq!(world.passes(&outer, &answer()), None, "nothing is learned");
    });
}

/// Behind a packet that is on its way through the kernel all take that way until it has come in: none overtakes it.
#[test]
fn none_overtakes_a_packet_that_asks() {
    run(|world| {
        let outer = wrapped(&answer()).bytes();
        for _ in 0..50 {
            world.begin(&answer());
            world.teaches(&answer());
            let begun = std::time::Instant::now();
            world.is_the_kernels("congestion", &wrapped(&answer()).with(|outer| outer.tos |= 3).bytes());
            let (verdict, _) = world.comes(&outer);
            if begun.elapsed() > std::time::Duration::from_millis(10) {
                continue;
            }
            assert_eq!(verdict, NEXT, "it would overtake");
            if world.appears(&answer()) != Some(Reason::OuterLearned) {
                continue;
            }
            world.is_taken_off("they have come in", &wrapped(&answer()), &answer());
            return;
        }
        panic!("the machine is too slow");
    });
}
