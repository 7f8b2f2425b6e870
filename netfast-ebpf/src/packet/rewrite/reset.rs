//! Makes of a SYN the reset that refuses it (RFC 9293, 3.5.2).

use super::{TCP_CHECKSUM, segment::Segment};
use crate::{
    ctx::{Headers, Skb},
    packet::{
        Packet,
        ends::{Ends, Translated, write_word},
    },
};

/// Bytes of a TCP header without options.
const TCP: u16 = 20;
/// Offset of the data in words, and RST with ACK, as the first half of their word; the window is zero.
const FLAGS: u16 = u16::from_ne_bytes([0x50, 0x14]);

/// Makes of a client's SYN its refusal by whom it was sent to. `false` leaves it as it was, but that it may have been cut
/// to a bare header. `room` is for its headers.
#[inline(always)]
pub fn reset<F: Translated, S: Skb>(skb: &S, packet: &Packet<F::Address>, room: &mut Headers) -> bool {
    let length = F::TRANSPORT + u32::from(TCP);
    let Some(old) = Segment::<F>::of(skb, packet).filter(|_| skb.resize(length)) else {
        return false;
    };
    let ends = Ends::of(packet).swapped();
    let acknowledgement = u32::from_be(packet.transport[0]).wrapping_add(1).to_be();
    F::write_new_link(packet, &ends, TCP, room);
    let tcp = (F::TRANSPORT / 2) as usize;
    room[tcp] = packet.destination_port.wire();
    room[tcp + 1] = packet.source_port.wire();
    write_word(room, tcp + 2, 0);
    write_word(room, tcp + 4, acknowledgement);
    room[tcp + 6] = FLAGS;
    // The window; the checksum is corrected below; the urgent pointer.
    room[tcp + 7] = 0;
    room[tcp + (TCP_CHECKSUM / 2) as usize] = old.checksum;
    room[tcp + 9] = 0;
    let sum = u64::from(packet.source_port.wire())
        + u64::from(packet.destination_port.wire())
        + u64::from(acknowledgement)
        + u64::from(FLAGS);
    // Linear and ours alone, as `resize` leaves it.
    skb.store_headers(length, room) && old.becomes(skb, ends.sum(), TCP.into(), || sum)
}
