//! Packets that leave through a tunnel: what is learned of an outer header, and what is made of it.
//!
//! The tunnel's device is `Uplink2`, and the outer packets leave by `Uplink`.

use std::net::Ipv4Addr;

use netfast_common::{
    control::Control,
    device::DeviceKey,
    flow::{FlowKey, Origin},
    net::{Ip4, Port},
    reason::Reason,
    tunnel::{Encap, Tunnel},
};
use netfast_tests::{
    packet::{DF, MF, Mac, Packet, UDP, flag},
    scene::{Dev, HOST, ROUTER_MAC, UPLINK_MAC},
};

use super::harness::{Context, EPOCH, Hook, Lab, clear, now_ns};

const NEXT: i32 = -1;
const REDIRECT: i32 = 7;
const MS: u64 = 1_000_000;
const VNI: u32 = 0x01_0203;
const PORT: u16 = 8472;
/// The tunnel's other end.
const END: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// A container behind it, and its MAC address as the tunnel's device is told.
const FAR: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 244, 2, 5), 9000);
const FAR_MAC: Mac = [0x02, 0x42, 10, 244, 2, 5];
const NEAR: (Ipv4Addr, u16) = (Ipv4Addr::new(172, 17, 0, 2), 40000);

/// A datagram for the tunnel's device.
fn datagram() -> Packet {
    Packet::udp(NEAR, FAR).macs(FAR_MAC, Dev::Uplink2.mac())
}

fn segment() -> Packet {
    Packet::tcp(NEAR, FAR).macs(FAR_MAC, Dev::Uplink2.mac())
}

/// What the kernel makes of it, with this identification.
fn around(inner: &Packet, id: u16) -> Packet {
    let [_, a, b, c] = VNI.to_be_bytes();
    let ecn = if inner.tos & 3 == 3 { 2 } else { inner.tos & 3 };
    Packet::udp((HOST, 50123), (END, PORT))
        .macs(ROUTER_MAC, UPLINK_MAC)
        .with(|outer| {
            outer.id = id;
            outer.fragment = 0;
            outer.tos = 0x40 | ecn;
            outer.checksum = Some(0);
            outer.payload = [&[8, 0, 0, 0, a, b, c, 0][..], &inner.bytes()].concat();
        })
}

/// A laboratory with a tunnel.
fn run(body: impl FnOnce(&mut World<'_>) + Send) {
    Lab::run(|lab| body(&mut World { lab, mark: 0 }));
}

struct World<'a> {
    lab: &'a mut Lab,
    /// The mark of packets for the tunnel's device.
    mark: u32,
}

impl World<'_> {
    /// Nothing is known but the tunnel.
    fn reset(&mut self) {
        self.lab.reset();
        self.lab.reset_counts();
        clear(&mut self.lab.encaps);
        let device = self.device();
        self.lab
            .tunnels
            .insert(device, Tunnel::new(VNI, PORT), 0)
            .expect("a tunnel");
    }

    fn device(&self) -> DeviceKey {
        DeviceKey::new(self.lab.netns, self.lab.ifindex(Dev::Uplink2))
    }

    fn context(&self, dev: Dev) -> Context {
        Context {
            ifindex: self.lab.ifindex(dev),
            ..Context::default()
        }
    }

    /// A packet is given to the device: the verdict, and what became of it.
    fn gives(&mut self, inner: &Packet) -> (i32, Vec<u8>) {
        self.gives_gso(inner, 0)
    }

    fn gives_gso(&mut self, inner: &Packet, gso_size: u32) -> (i32, Vec<u8>) {
        let context = Context {
            mark: self.mark,
            gso_size,
            ..self.context(Dev::Uplink2)
        };
        let outcome = self.lab.test_run(Hook::TunnelOut, context, &inner.bytes());
        (outcome.verdict, outcome.packet)
    }

    /// The kernel has put something before it, and it leaves: what is counted.
    fn leaves(&mut self, outer: &Packet) -> Option<Reason> {
        let context = self.context(Dev::Uplink);
        self.leaves_with(outer, context)
    }

    fn leaves_with(&mut self, outer: &Packet, context: Context) -> Option<Reason> {
        self.lab.reset_counts();
        let bytes = outer.bytes();
        let outcome = self.lab.test_run(Hook::TunnelUp, context, &bytes);
        assert_eq!(
            (outcome.verdict, outcome.packet),
            (NEXT, bytes),
            "nothing is changed there"
        );
        let counts = self.lab.counts();
        let counted = (1..counts.len()).filter(|number| counts[*number].packets != 0);
        let counted: Vec<Reason> = counted
            .filter_map(|number| Reason::of(u32::try_from(number).ok()?))
            .collect();
        assert!(counted.len() <= 1, "{counted:?}");
        counted.first().copied()
    }

    /// The kernel carries a packet, and puts something before it: what is counted where it leaves. On a busy machine it takes
    /// too long, and then once more.
    fn carries(&mut self, inner: &Packet, outer: &Packet) -> Option<Reason> {
        for _ in 0..50 {
            assert_eq!(self.gives(inner), (NEXT, inner.bytes()), "the kernel carries it");
            let reason = self.leaves(outer);
            if reason != Some(Reason::OtherRun) {
                return reason;
            }
        }
        panic!("the machine is too slow");
    }

    /// The same, and it is learned.
    fn learns(&mut self, inner: &Packet, outer: &Packet) {
        assert_eq!(self.carries(inner, outer), Some(Reason::OuterLearned));
    }

    /// A packet is sent with this before it.
    fn repeats(&mut self, inner: &Packet, outer: &Packet) {
        let before = self.encapsulated();
        assert_eq!(self.gives(inner), (REDIRECT, outer.bytes()));
        assert_eq!(self.encapsulated(), before + 1);
    }

    /// A packet is left to the kernel as it is.
    fn declines(&mut self, what: &str, inner: &Packet) {
        assert_eq!(self.gives(inner), (NEXT, inner.bytes()), "{what}");
        assert_eq!(self.encapsulated(), 0, "{what}");
    }

    fn encapsulated(&self) -> u64 {
        self.lab.counts()[Reason::Encapsulated.number() as usize].packets
    }

    fn entry(&self, protocol: u8) -> (FlowKey<Ip4>, Encap) {
        let key = FlowKey {
            source: Ip4::from_bytes(NEAR.0.octets()),
            destination: Ip4::from_bytes(FAR.0.octets()),
            source_port: Port::new(NEAR.1),
            destination_port: Port::new(FAR.1),
            ifindex: self.lab.ifindex(Dev::Uplink2),
            protocol,
            origin: Origin::Tunnel as u8,
            netns: self.lab.netns.0,
        };
        (key, self.lab.encaps.get(&key, 0).expect("it was learned"))
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Encap)) {
        let (key, mut encap) = self.entry(UDP);
        edit(&mut encap);
        self.lab.encaps.insert(key, encap, 0).expect("room");
    }
}

mod learned;
mod used;
mod way_in;
