//! Makes of a member's reset the SYN that it refuses, as the client sent it.

use core::ops::Range;

use netfast_common::{net::Ip4, vip::Syn};

use super::{TCP_CHECKSUM, segment::Segment};
use crate::{
    ctx::Skb,
    packet::{
        Packet,
        family::Family as _,
        ipv4::{DESTINATION, SOURCE, V4},
    },
};

/// Where the checksum, the addresses and the TCP header are in the headers, in halves of words.
const ADDRESSES: usize = (SOURCE / 2) as usize;
const TRANSPORT: usize = (V4::TRANSPORT / 2) as usize;
const CHECKSUM: usize = TRANSPORT + (TCP_CHECKSUM / 2) as usize;
const END: usize = (Syn::LONGEST / 2) as usize;

const _: () = assert!(DESTINATION == SOURCE + 4 && V4::TRANSPORT == DESTINATION + 4);

/// Makes of a reset this SYN, whose checksum field is spoiled. `false` leaves it as it was, but perhaps for its length.
#[inline(always)]
pub fn syn<S: Skb>(skb: &S, packet: &Packet<Ip4>, syn: &mut Syn) -> bool {
    let length = syn.length;
    let Some(old) = Segment::of(skb, packet).filter(|_| skb.resize(length)) else {
        return false;
    };
    syn.headers[CHECKSUM] = old.checksum;
    // Linear and ours alone, as `resize` leaves it.
    if !skb.store_headers(length, &syn.headers) {
        return false;
    }
    let addresses = sum(&syn.headers, ADDRESSES..TRANSPORT);
    old.becomes(skb, addresses, length - V4::TRANSPORT, || {
        sum(&syn.headers, TRANSPORT..CHECKSUM) + sum(&syn.headers, CHECKSUM + 1..END)
    })
}

/// Sum over a part of the headers.
#[inline(always)]
fn sum(headers: &[u16; Syn::ROOM], places: Range<usize>) -> u64 {
    let mut sum = 0;
    for place in places {
        sum += u64::from(headers[place]);
    }
    sum
}
