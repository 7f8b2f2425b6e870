//! Makes of a member's reset the SYN that it refuses, as the client sent it.

use core::ops::Range;

use netfast_common::vip::Syn;

use super::{TCP_CHECKSUM, segment::Segment};
use crate::{
    ctx::Skb,
    packet::{Packet, ends::Translated},
};

/// Where the headers end, in halves of words.
const END: usize = (Syn::LONGEST / 2) as usize;

/// Makes of a reset this SYN, whose checksum field is spoiled. `false` leaves it as it was, but perhaps for its length.
#[inline(always)]
pub fn syn<F: Translated, S: Skb>(skb: &S, packet: &Packet<F::Address>, syn: &mut Syn) -> bool {
    let length = syn.length;
    let Some(old) = Segment::<F>::of(skb, packet).filter(|_| skb.resize(length)) else {
        return false;
    };
    let transport = (F::TRANSPORT / 2) as usize;
    let checksum = transport + (TCP_CHECKSUM / 2) as usize;
    syn.headers[checksum] = old.checksum;
    // Linear and ours alone, as `resize` leaves it.
    if !skb.store_headers(length, &syn.headers) {
        return false;
    }
    let addresses = sum(&syn.headers, (F::SOURCE / 2) as usize..transport);
    old.becomes(skb, addresses, length - F::TRANSPORT, || {
        sum(&syn.headers, transport..checksum) + sum(&syn.headers, checksum + 1..END)
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
