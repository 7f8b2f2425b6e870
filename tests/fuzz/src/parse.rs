//! The parser of the data path on frames of anybody's making.

use netfast_ebpf::{
    ctx::fake::FakeSkb,
    fastpath::gate,
    packet::{Family, V4, V6, parse},
};

const ETHERNET: usize = 14;

/// The parser and the gate on one packet of either family: a byte of how much can be read directly, two of segment size, and
/// the frame.
pub fn parse_one(bytes: &[u8]) {
    let Some(([linear, gso, more], frame)) = bytes.split_first_chunk() else {
        return;
    };
    let mut skb = FakeSkb::new(frame).with_linear((*linear).into());
    skb.gso_size = u32::from(u16::from_le_bytes([*gso, *more]));
    parse_as::<V4>(&mut skb, frame);
    parse_as::<V6>(&mut skb, frame);
}

fn parse_as<F: Family>(skb: &mut FakeSkb, frame: &[u8]) {
    skb.ethertype = F::ETHERTYPE;
    let Ok(packet) = parse::<F, _>(skb) else { return };
    let _ = gate::admit::<F>(&packet);
    assert!(packet.network.length as usize <= frame.len() - ETHERNET);
    assert_eq!(
        (packet.payload_offset + packet.payload) as usize,
        ETHERNET + packet.network.length as usize
    );
    assert_eq!(&skb.bytes(), frame);
}
