//! ICMP echo: its identifier is in the place of ports, and elsewhere in the packet.

use netfast_common::net::Ip6;

use super::*;
use crate::{
    packet::{V6, parse},
    state::Tables,
};

/// A message of echo, as plain values; its addresses and the rest of its headers are those of the packet.
#[derive(Clone, Debug)]
struct Echo {
    packet: Plain,
    is_request: bool,
    id: u16,
    sequence: u16,
}

impl Echo {
    fn frame(&self) -> Vec<u8> {
        let builder = self.packet.four();
        let builder = if self.is_request {
            builder.icmpv4_echo_request(self.id, self.sequence)
        } else {
            builder.icmpv4_echo_reply(self.id, self.sequence)
        };
        let mut bytes = Vec::new();
        builder
            .write(&mut bytes, &self.packet.payload)
            .expect("a vector takes all");
        bytes
    }

    fn frame6(&self) -> Vec<u8> {
        let builder = self.packet.six();
        let builder = if self.is_request {
            builder.icmpv6_echo_request(self.id, self.sequence)
        } else {
            builder.icmpv6_echo_reply(self.id, self.sequence)
        };
        let mut bytes = Vec::new();
        builder
            .write(&mut bytes, &self.packet.payload)
            .expect("a vector takes all");
        bytes
    }

    /// With the identifier where a flow has it.
    fn ported(&self) -> Plain {
        let ports = if self.is_request { [self.id, 0] } else { [0, self.id] };
        Plain {
            ports,
            ..self.packet.clone()
        }
    }
}

/// A message, and the same as NAT and routing might make it.
fn messages() -> impl Strategy<Value = (Echo, Echo)> {
    (pairs(), any::<bool>(), any::<u16>(), 1_u16.., 1_u16.., any::<bool>()).prop_map(
        |((before, after), is_request, sequence, id, new_id, is_translated)| {
            let echo = |packet, id| Echo {
                packet,
                is_request,
                id,
                sequence,
            };
            (echo(before, id), echo(after, if is_translated { new_id } else { id }))
        },
    )
}

fn rewritten_as<F: Tables>(skb: &FakeSkb, flow: &'static Flow<F::Address>) -> Result<Vec<u8>, Reason> {
    crate::ctx::fake::reset();
    let packet = parse::<F, _>(skb)?;
    rewrite::<F, _>(skb, &packet, &Hit::of(flow))?;
    Ok(skb.bytes())
}

proptest! {
    #[test]
    fn as_if_sent_so((before, after) in messages(), linear in 34_usize..80) {
        let skb = FakeSkb::new(&before.frame()).with_linear(linear);
        let flow = flow(&before.ported(), &after.ported());
        prop_assert_eq!(rewritten_as::<V4>(&skb, flow), Ok(after.frame()));
    }

    #[test]
    fn as_if_sent_so_by_ipv6((before, after) in messages(), linear in 54_usize..100) {
        let skb = FakeSkb::new(&before.frame6()).with_linear(linear);
        let flow = six::flow6(&before.ported(), &after.ported());
        prop_assert_eq!(rewritten_as::<V6>(&skb, flow), Ok(after.frame6()));
    }

    /// What the device has summed up is what it would sum up now (`CHECKSUM_COMPLETE`).
    #[test]
    fn with_the_sum_that_a_device_took((before, after) in messages()) {
        fn check(skb: &FakeSkb, before: &[u8], after: &[u8], done: &dyn Fn() -> Result<Vec<u8>, Reason>) {
            skb.complete.set(Some(six::complete(before)));
            assert_eq!(done(), Ok(after.to_vec()));
            let sum = skb.complete.get().expect("it was there");
            assert_eq!(csum::fold16(sum) % 0xffff, csum::fold16(six::complete(after)) % 0xffff);
        }
        let (frame, wanted) = (before.frame(), after.frame());
        let skb = FakeSkb::new(&frame);
        let of = flow(&before.ported(), &after.ported());
        check(&skb, &frame, &wanted, &|| rewritten_as::<V4>(&skb, of));
        let (frame, wanted) = (before.frame6(), after.frame6());
        let skb = FakeSkb::new(&frame);
        let of: &'static Flow<Ip6> = six::flow6(&before.ported(), &after.ported());
        check(&skb, &frame, &wanted, &|| rewritten_as::<V6>(&skb, of));
    }
}
