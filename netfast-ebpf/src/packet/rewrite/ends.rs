//! Gives a packet other ends: MAC addresses and IP addresses, the ports stay.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use netfast_common::{csum, net::Address as _};

use super::{TCP_CHECKSUM, UDP_CHECKSUM};
use crate::{
    ctx::{Headers, Skb},
    packet::{
        Packet, TCP, UDP,
        echo::ICMP_CHECKSUM,
        ends::{self, Ends, Translated},
        halves,
        icmp::{self, Quoted},
    },
};

/// Gives a packet these ends. `false` leaves it as it was. `room` is for its headers.
#[inline(always)]
pub fn ends<F: Translated, S: Skb>(
    skb: &S,
    packet: &Packet<F::Address>,
    ends: &Ends<F::Address>,
    room: &mut Headers,
) -> bool {
    F::write_link(packet, ends, room);
    let difference = csum::difference(Ends::of(packet).sum(), ends.sum());
    // Headers linear and ours alone: from here on no helper needs memory, so none fails half-way.
    if !skb.pull(packet.payload_offset) || !skb.store_headers(F::TRANSPORT, room) {
        return false;
    }
    let (offset, flags) = match packet.network.protocol {
        TCP => (TCP_CHECKSUM, 0),
        // A UDP checksum of zero means none (RFC 768) and stays so.
        UDP => (UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0)),
        _ if F::ICMP_HAS_ADDRESSES => (ICMP_CHECKSUM, 0),
        _ => return true,
    };
    let done = skb.correct_checksum(F::TRANSPORT + offset, difference, F::ADDRESS_CHECKSUM | flags);
    F::correct_sum(skb, false, difference);
    done
}

/// Gives an ICMP error these ends, and the packet that it quotes those addresses. `false` leaves it as it was. `room` is for
/// its headers.
///
/// The sum over a quoted IPv4 header stays what it is, and a quoted IPv6 header has none. What becomes of the quoted
/// addresses and of their transport's checksum must be made good in the checksum of the message, which of IPv6 covers the
/// message's own addresses, too.
#[inline(always)]
pub fn quoted_ends<F: Translated, S: Skb>(
    skb: &S,
    packet: &Packet<F::Address>,
    quoted: &Quoted<F::Address>,
    to: &Ends<F::Address>,
    (source, destination): (F::Address, F::Address),
    room: &mut Headers,
) -> bool {
    let old = ends::sum(&quoted.source, &quoted.destination);
    let new = ends::sum(&source, &destination);
    let difference = csum::difference(old, new);
    let (old_transport, place) = quoted.transport_checksum;
    let transport = match csum::apply(old_transport, difference) {
        // Not quoted, so nothing becomes of it.
        _ if place == 0 => old_transport,
        0 if quoted.protocol == UDP => 0xffff,
        checksum => checksum,
    };
    let (mut old, mut new) = (u64::from(old_transport), u64::from(transport));
    if F::ICMP_HAS_ADDRESSES {
        old += ends::sum(&quoted.source, &quoted.destination) + Ends::of(packet).sum();
        new += ends::sum(&source, &destination) + to.sum();
    }
    let message_checksum = csum::apply(quoted.message_checksum, csum::difference(old, new));
    F::write_link(packet, to, room);
    // The last bytes that are written, so that no helper fails half-way.
    let end = if place == 0 {
        icmp::quoted_at::<F>() + icmp::quoted_length::<F>()
    } else {
        place + 2
    };
    if !skb.pull(end) || !skb.store_headers(F::TRANSPORT, room) {
        return false;
    }
    let mut done = true;
    if F::HEADER_CHECKSUM != 0 {
        let checksum = csum::apply(quoted.checksum, difference);
        done &= skb.store_half(icmp::quoted_at::<F>() + F::HEADER_CHECKSUM, checksum);
    }
    let (source, destination) = (source.words(), destination.words());
    let length = ends::address_length::<F>();
    let mut at = quoted_address::<F>();
    let mut index = 0;
    while index < size_of::<F::Address>() / 4 {
        done &= store_word(skb, at, source[index]) && store_word(skb, at + length, destination[index]);
        at += 4;
        index += 1;
    }
    if place != 0 {
        done &= skb.store_half(place, transport);
    }
    if place != 0 || F::ICMP_HAS_ADDRESSES {
        done &= skb.store_half(icmp::checksum::<F>(), message_checksum);
    }
    done
}

/// Offset of the source address in the packet that an error quotes, from the start of the frame.
const fn quoted_address<F: Translated>() -> u32 {
    icmp::quoted_at::<F>() + icmp::quoted_length::<F>() - 2 * ends::address_length::<F>()
}

#[inline(always)]
fn store_word<S: Skb>(skb: &S, offset: u32, word: u32) -> bool {
    let [first, second] = halves(word);
    skb.store_half(offset, first) && skb.store_half(offset + 2, second)
}
