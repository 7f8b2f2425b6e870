//! Other headers and other messages for a packet: through the kernel's helpers, since traffic of a veth carries partial
//! checksums, which only they can correct.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use netfast_common::{alias::MESSAGE, csum, net::Ip4};

use super::{
    Packet, TCP,
    family::Family as _,
    ipv4::{self, V4},
};
use crate::ctx::Skb;

/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: u32 = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: u32 = 6;
/// Offset of the length in a UDP header.
const UDP_LENGTH: u32 = 4;

/// A DNS message that takes another's place in a packet.
pub struct Message {
    /// Where it begins, from the start of the frame.
    pub offset: u32,
    /// Bytes that it had.
    pub old_length: u32,
    /// Bytes that it has: as many, or with UDP fewer.
    pub new_length: u32,
    /// Sum over the bytes that it had (in wire order, folded to 32 bits).
    pub old_sum: u32,
    /// Sum over the bytes that it has.
    pub new_sum: u32,
}

/// Puts a message in the place of another. `false` leaves the packet as it was.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "no longer than the packet was")]
pub fn message<S: Skb>(skb: &S, packet: &Packet<Ip4>, message: &Message, bytes: &[u8; MESSAGE as usize]) -> bool {
    let cut = message.old_length.wrapping_sub(message.new_length);
    // All linear and ours alone: from here on no helper needs memory, so none fails half-way.
    if !skb.pull(skb.length()) {
        return false;
    }
    if packet.network.protocol == TCP {
        let difference = csum::difference(message.old_sum.into(), message.new_sum.into());
        return skb.store_some(message.offset, message.new_length, bytes)
            && skb.correct_checksum(V4::TRANSPORT + TCP_CHECKSUM, difference, 0);
    }
    let checksum = V4::TRANSPORT + UDP_CHECKSUM;
    let none = u64::from(BPF_F_MARK_MANGLED_0);
    let (mut old_sum, mut new_sum) = (u64::from(message.old_sum), u64::from(message.new_sum));
    let mut done = true;
    if cut != 0 {
        let old_length = packet.network.payload as u16;
        let new_length = old_length.wrapping_sub(cut as u16);
        if !skb.resize(skb.length().wrapping_sub(cut)) {
            return false;
        }
        let header = ipv4::header_of_length(packet, (packet.network.length as u16).wrapping_sub(cut as u16));
        done &= skb.store_header(&header);
        done &= skb.store_half(V4::TRANSPORT + UDP_LENGTH, new_length.to_be());
        let (old, new) = (u64::from(old_length.to_be()), u64::from(new_length.to_be()));
        // The length counts twice: in the header, and in the pseudo header (RFC 768).
        done &= skb.correct_checksum(checksum, csum::difference(old, new), V4::ADDRESS_CHECKSUM | none);
        old_sum += old;
        new_sum += new;
    }
    done &= skb.store_some(message.offset, message.new_length, bytes);
    done & skb.correct_checksum(checksum, csum::difference(old_sum, new_sum), none)
}

mod ends;
mod reset;
mod segment;
mod syn;

pub use self::{
    ends::{ends, quoted_ends},
    reset::reset,
    syn::syn,
};
