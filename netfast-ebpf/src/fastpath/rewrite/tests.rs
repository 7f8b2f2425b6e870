//! What a packet becomes, against the packet that etherparse makes with the other addresses from the start.

use netfast_common::{
    csum,
    net::{Address as _, Ip4, MacPair, Port},
};
use proptest::prelude::*;

mod echo;
mod six;

use super::*;
use crate::{
    ctx::fake::{FakeSkb, Plain, plain},
    packet::V4,
};

/// The flow that leads from one packet to another.
fn flow(before: &Plain, after: &Plain) -> &'static Flow<Ip4> {
    let addresses = |packet: &Plain| {
        let [source, destination] = packet.addresses.map(|bytes| Ip4::from_bytes(bytes).words()[0]);
        u64::from(source) + u64::from(destination)
    };
    let ports = |packet: &Plain| {
        let [source, destination] = packet.ports.map(|number| Port::new(number).wire());
        u64::from(source) + u64::from(destination)
    };
    let translated = before.addresses != after.addresses || before.ports != after.ports;
    let mut flags = Flow::<Ip4>::REWRITTEN;
    if before.ttl != after.ttl {
        flags |= Flow::<Ip4>::ROUTED;
    }
    if translated {
        flags |= Flow::<Ip4>::TRANSLATED;
    }
    Box::leak(Box::new(Flow {
        tag: 1,
        source: Ip4::from_bytes(after.addresses[0]),
        destination: Ip4::from_bytes(after.addresses[1]),
        source_port: Port::new(after.ports[0]),
        destination_port: Port::new(after.ports[1]),
        address_difference: csum::difference(addresses(before), addresses(after)),
        port_difference: csum::difference(ports(before), ports(after)),
        out_macs: MacPair::new(after.macs[1], after.macs[0]),
        flags,
        ..Flow::default()
    }))
}

fn rewritten(skb: &FakeSkb, flow: &'static Flow<Ip4>) -> Result<Vec<u8>, Reason> {
    let packet = skb.parsed()?;
    rewrite::<V4, _>(skb, &packet, &Hit::of(flow))?;
    Ok(skb.bytes())
}

/// A packet, and the same as NAT and routing might make it.
fn pairs() -> impl Strategy<Value = (Plain, Plain)> {
    (plain(), plain(), any::<[bool; 4]>()).prop_map(|(mut before, other, [macs, addresses, ports, routed])| {
        // The gate keeps out what a router would not pass on.
        before.ttl = before.ttl.max(2);
        let mut after = before.clone();
        if macs {
            after.macs = other.macs;
        }
        if addresses {
            after.addresses = other.addresses;
        }
        if ports {
            after.ports = other.ports;
        }
        if routed {
            after.ttl = before.ttl - 1;
        }
        (before, after)
    })
}

/// Place of the transport checksum.
fn checksum_at(packet: &Plain) -> usize {
    if packet.tcp.is_some() { 50 } else { 40 }
}

/// The sum over the pseudo header, as the kernel leaves it in the field for a device to complete.
fn partial(packet: &Plain, frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - 34).expect("short");
    let protocol = u32::from(frame[23]);
    let words = [
        u32::from_ne_bytes(packet.addresses[0]),
        u32::from_ne_bytes(packet.addresses[1]),
        (length + protocol).to_be(),
    ];
    let field = csum::fold16(csum::fold32(csum::sum(&words)));
    let place = checksum_at(packet);
    frame[place..place + 2].copy_from_slice(&field.to_ne_bytes());
}

proptest! {
    #[test]
    fn as_if_sent_so((before, after) in pairs(), linear in 34_usize..80) {
        let frame = before.frame();
        let skb = FakeSkb::new(&frame).with_linear(linear);
        prop_assert_eq!(rewritten(&skb, flow(&before, &after)), Ok(after.frame()));
    }

    /// Traffic of a veth carries no checksum yet, only the pseudo header's sum.
    #[test]
    fn with_the_checksum_left_to_the_device((before, after) in pairs()) {
        let mut frame = before.frame();
        partial(&before, &mut frame);
        let mut wanted = after.frame();
        partial(&after, &mut wanted);
        let mut skb = FakeSkb::new(&frame);
        skb.partial = true;
        prop_assert_eq!(rewritten(&skb, flow(&before, &after)), Ok(wanted));
    }

    /// A UDP checksum of zero means none, and stays so.
    #[test]
    fn without_checksum((mut before, mut after) in pairs()) {
        (before.tcp, after.tcp) = (None, None);
        let (mut frame, mut wanted) = (before.frame(), after.frame());
        frame[40..42].fill(0);
        wanted[40..42].fill(0);
        prop_assert_eq!(rewritten(&FakeSkb::new(&frame), flow(&before, &after)), Ok(wanted));
    }

    /// No memory for a copy of the headers: the packet is left as it was.
    #[test]
    fn without_memory((before, after) in pairs()) {
        let frame = before.frame();
        let mut skb = FakeSkb::new(&frame);
        skb.no_memory = true;
        prop_assert_eq!(rewritten(&skb, flow(&before, &after)), Err(Reason::RewriteFailed));
        prop_assert_eq!(skb.bytes(), frame);
    }
}

#[test]
fn a_flow_that_was_replaced_meanwhile() {
    let packet = plain_packet();
    let skb = FakeSkb::new(&packet.frame());
    let flow: *mut Flow<Ip4> = Box::leak(Box::new(*flow(&packet, &packet)));
    // SAFETY: leaked, and nobody else has it.
    let hit = Hit::of(unsafe { &*flow });
    // SAFETY: as above; what another CPU would do.
    unsafe { (&raw mut (*flow).tag).write_volatile(3) };
    let parsed = skb.parsed().expect("valid");
    assert_eq!(rewrite::<V4, _>(&skb, &parsed, &hit), Err(Reason::Replaced));
    assert_eq!(skb.bytes(), packet.frame());
}

#[test]
fn a_bridged_packet_is_not_written_to() {
    let packet = plain_packet();
    let mut skb = FakeSkb::new(&packet.frame());
    skb.no_memory = true;
    let mut bridged = *flow(&packet, &packet);
    bridged.flags = 0;
    assert_eq!(rewritten(&skb, Box::leak(Box::new(bridged))), Ok(packet.frame()));
}

fn plain_packet() -> Plain {
    Plain {
        macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
        addresses: [[172, 17, 0, 2], [172, 17, 0, 3]],
        ports: [40000, 80],
        ttl: 64,
        tos: 0,
        id: 7,
        df: true,
        tcp: None,
        payload: vec![1, 2, 3],
    }
}
