//! The checksum of a TCP segment that takes another's place.
//!
//! How it has to be written depends on whether it is left to the device, which no helper tells. So it is corrected: by the
//! change of the pseudo header, and by what becomes of the segment, whose old sum follows from the old checksum.

use core::marker::PhantomData;

use netfast_common::csum;

use super::TCP_CHECKSUM;
use crate::{
    ctx::Skb,
    packet::{
        Packet, TCP,
        ends::{Ends, Translated},
    },
};

/// What is known of the segment that a packet has.
pub struct Segment<F> {
    /// Checksum field, in wire order.
    pub checksum: u16,
    /// Sum over the pseudo header.
    pseudo: u64,
    family: PhantomData<F>,
}

impl<F: Translated> Segment<F> {
    /// Offset of the checksum from the start of the frame.
    const PLACE: u32 = F::TRANSPORT + TCP_CHECKSUM;

    /// Of a packet as it is still.
    #[inline(always)]
    pub fn of<S: Skb>(skb: &S, packet: &Packet<F::Address>) -> Option<Self> {
        let mut loaded = [0; 16];
        skb.load::<2>(Self::PLACE, &mut loaded).then(|| Self {
            checksum: u16::from_ne_bytes([loaded[0], loaded[1]]),
            pseudo: pseudo(Ends::of(packet).sum(), packet.network.payload),
            family: PhantomData,
        })
    }

    /// Corrects the checksum field, which must be as it was, for a segment of this length and with this sum (its checksum
    /// field left out) between addresses of that sum. The segment's sum is asked for where it is needed: over what is read
    /// before, the compiler would keep every term on the stack across a call.
    #[inline(always)]
    pub fn becomes<S: Skb>(&self, skb: &S, addresses: u64, length: u32, sum: impl FnOnce() -> u64) -> bool {
        // Pseudo header, segment and checksum add up to nothing, so the segment is the complement of the others.
        let old_sum = u64::from(!csum::fold32(self.pseudo + u64::from(self.checksum)));
        let difference = csum::difference(self.pseudo, pseudo(addresses, length));
        skb.correct_checksum(Self::PLACE, difference, F::ADDRESS_CHECKSUM)
            && skb.correct_checksum(Self::PLACE, csum::difference(old_sum, sum()), 0)
    }
}

/// Sum over addresses, protocol and length.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "no longer than an IP packet")]
fn pseudo(addresses: u64, length: u32) -> u64 {
    addresses + u64::from(u16::from_be_bytes([0, TCP]).to_be()) + u64::from((length as u16).to_be())
}
