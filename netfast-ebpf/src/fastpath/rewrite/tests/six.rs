//! The same of IPv6, with what its device may have summed up.

use netfast_common::net::Ip6;

use super::*;
use crate::packet::{V6, parse};

fn ip(bytes: [u8; 4]) -> Ip6 {
    Ip6::from_bytes(Plain::address6(bytes))
}

/// The flow that leads from one packet to another.
pub fn flow6(before: &Plain, after: &Plain) -> &'static Flow<Ip6> {
    let of = flow(before, after);
    let addresses = |packet: &Plain| {
        let [source, destination] = packet.addresses.map(|bytes| csum::sum(&ip(bytes).words()));
        source + destination
    };
    let mut flow = of.with_addresses(|_| Ip6::default());
    (flow.source, flow.destination) = (ip(after.addresses[0]), ip(after.addresses[1]));
    flow.address_difference = csum::difference(addresses(before), addresses(after));
    Box::leak(Box::new(flow))
}

fn rewritten6(skb: &FakeSkb, flow: &'static Flow<Ip6>) -> Result<Vec<u8>, Reason> {
    crate::ctx::fake::reset();
    let packet = parse::<V6, _>(skb)?;
    rewrite::<V6, _>(skb, &packet, &Hit::of(flow))?;
    Ok(skb.bytes())
}

/// The sum that a device takes over a frame, from the network header on.
pub fn complete(frame: &[u8]) -> u32 {
    let mut padded = frame[14..].to_vec();
    padded.resize(padded.len().next_multiple_of(4), 0);
    let words = padded
        .chunks(4)
        .map(|word| u32::from_ne_bytes(word.try_into().expect("four")));
    csum::fold32(words.map(u64::from).sum())
}

proptest! {
    #[test]
    fn as_if_sent_so((before, after) in pairs(), linear in 54_usize..100) {
        let skb = FakeSkb::new(&before.frame6()).with_linear(linear);
        prop_assert_eq!(rewritten6(&skb, flow6(&before, &after)), Ok(after.frame6()));
    }

    /// What the device has summed up is what it would sum up now (`CHECKSUM_COMPLETE`).
    #[test]
    fn with_the_sum_that_a_device_took((before, after) in pairs()) {
        let frame = before.frame6();
        let skb = FakeSkb::new(&frame);
        skb.complete.set(Some(complete(&frame)));
        let got = rewritten6(&skb, flow6(&before, &after));
        prop_assert_eq!(got, Ok(after.frame6()));
        let (sum, wanted) = (skb.complete.get().expect("it was there"), complete(&after.frame6()));
        prop_assert_eq!(csum::fold16(sum) % 0xffff, csum::fold16(wanted) % 0xffff);
    }

    /// Traffic of a veth carries no checksum yet, only the pseudo header's sum.
    #[test]
    fn with_the_checksum_left_to_the_device((before, after) in pairs()) {
        let partial = |packet: &Plain| {
            let mut frame = packet.frame6();
            let length = u32::try_from(frame.len() - 54).expect("short").to_be();
            let words = packet.addresses.map(|bytes| csum::sum(&ip(bytes).words()));
            let rest = u64::from(length) + u64::from(u32::from(frame[20]).to_be());
            let field = csum::fold16(csum::fold32(words[0] + words[1] + rest));
            let place = 20 + checksum_at(packet);
            frame[place..place + 2].copy_from_slice(&field.to_ne_bytes());
            frame
        };
        let mut skb = FakeSkb::new(&partial(&before));
        skb.partial = true;
        prop_assert_eq!(rewritten6(&skb, flow6(&before, &after)), Ok(partial(&after)));
    }
}
