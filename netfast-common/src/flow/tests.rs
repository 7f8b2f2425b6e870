//! Keys, tags and reverses.

extern crate std;

use std::{collections::HashSet, vec::Vec};

use proptest::prelude::*;

use super::*;

fn keys() -> impl Strategy<Value = FlowKey<Ip4>> {
    let ends = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u16>(), any::<u16>());
    (ends, any::<u32>(), prop::sample::select(&[6_u8, 17][..]), 0_u8..2).prop_map(
        |((source, destination, source_port, destination_port), ifindex, protocol, origin)| FlowKey {
            source: Ip4::from_bytes(source),
            destination: Ip4::from_bytes(destination),
            source_port: Port::new(source_port),
            destination_port: Port::new(destination_port),
            ifindex,
            protocol,
            origin,
            netns: 0,
        },
    )
}

/// The flow of a key that leaves with the addresses and ports of another, at its interface.
fn flow_to(out: &FlowKey<Ip4>, exit: Exit) -> Flow<Ip4> {
    Flow {
        source: out.source,
        destination: out.destination,
        source_port: out.source_port,
        destination_port: out.destination_port,
        out_ifindex: out.ifindex,
        exit: exit as u8,
        ..Flow::default()
    }
}

fn exits() -> impl Strategy<Value = Exit> {
    prop::sample::select(&[Exit::Peer, Exit::Device, Exit::Host][..])
}

/// Everything that makes a key another one.
const CHANGES: &[fn(&mut FlowKey<Ip4>)] = &[
    |key| key.source = Ip4::from_wire(key.source.wire() ^ 1),
    |key| key.destination = Ip4::from_wire(key.destination.wire() ^ 1),
    |key| key.source_port = Port::from_wire(key.source_port.wire() ^ 1),
    |key| key.destination_port = Port::from_wire(key.destination_port.wire() ^ 1),
    |key| key.ifindex ^= 1,
    |key| key.protocol = 23 - key.protocol,
    |key| key.origin ^= 1,
];

proptest! {
    /// Zero would be the tag of an element that was never written.
    #[test]
    fn a_tag_is_never_zero(key in keys()) {
        prop_assert_ne!(key.tag(), 0);
        prop_assert_eq!(key.tag(), key.tag());
    }

    /// The flow that goes back the whole way is the reverse, and it finds its own reverse at the first one's key.
    #[test]
    fn a_reverse_is_mutual(key in keys(), out in keys(), exit in exits(), back_exit in exits()) {
        let key = FlowKey { origin: u8::from(back_exit == Exit::Host), ..key };
        let there = flow_to(&out, exit);
        let back_key = there.reverse_key(&key);
        prop_assert_eq!(back_key.origin == Origin::Host as u8, exit == Exit::Host);
        let turned = FlowKey {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            ..key
        };
        let back = flow_to(&turned, back_exit);
        prop_assert!(back.is_reverse_of(&key));
        prop_assert_eq!(back.reverse_key(&back_key), key);
        prop_assert!(there.is_reverse_of(&back_key));
    }

    /// One thing off, and it is not.
    #[test]
    fn a_neighbour_is_no_reverse(key in keys(), change in 0..CHANGES.len()) {
        let back_exit = if key.origin == Origin::Host as u8 { Exit::Host } else { Exit::Peer };
        let turned = FlowKey {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            ..key
        };
        let back = flow_to(&turned, back_exit);
        let mut other = key;
        CHANGES[change](&mut other);
        // The protocol is in both keys and not in the flow.
        prop_assert_eq!(back.is_reverse_of(&other), other.protocol != key.protocol);
    }
}

/// A tag has 31 bits: two keys of a table rarely share one, and keys that differ little are no exception.
#[test]
fn tags_of_neighbours_differ() {
    let mut keys = Vec::new();
    for host in 2..34 {
        for port in 40_000..40_064 {
            for ifindex in 4..8 {
                keys.push(FlowKey {
                    source: Ip4::from_bytes([172, 17, 0, host]),
                    destination: Ip4::from_bytes([172, 17, 0, 1]),
                    source_port: Port::new(port),
                    destination_port: Port::new(443),
                    ifindex,
                    protocol: 6,
                    origin: 0,
                    netns: 0,
                });
            }
        }
    }
    let tags: HashSet<u32> = keys.iter().map(FlowKey::tag).collect();
    // 8192 keys in 2^31 tags: 0.016 shared ones are expected.
    assert!(
        tags.len() >= keys.len() - 1,
        "{} tags of {} keys",
        tags.len(),
        keys.len()
    );
    for key in &keys[..64] {
        for change in CHANGES {
            let mut other = *key;
            change(&mut other);
            assert_ne!(other.tag(), key.tag(), "{other:?} {key:?}");
        }
    }
}
