//! Gives a packet other ends: MAC addresses and IPv4 addresses, the ports stay.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use netfast_common::{csum, net::Ip4};

use super::{TCP_CHECKSUM, UDP_CHECKSUM};
use crate::{
    ctx::Skb,
    packet::{
        Packet, TCP, UDP,
        family::Family as _,
        icmp::{self, Quoted},
        ipv4::{Ends, V4, halves, link_header},
    },
};

/// Offsets in an IPv4 header.
const CHECKSUM: u32 = 10;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

/// Gives a packet these ends. `false` leaves it as it was.
#[inline(always)]
pub fn ends<S: Skb>(skb: &S, packet: &Packet<Ip4>, ends: &Ends) -> bool {
    let header = link_header(packet, ends);
    let difference = csum::difference(Ends::of(packet).sum(), ends.sum());
    // Headers linear and ours alone: from here on no helper needs memory, so none fails half-way.
    if !skb.pull(packet.payload_offset) || !skb.store_header(&header) {
        return false;
    }
    match packet.network.protocol {
        TCP => skb.correct_checksum(V4::TRANSPORT + TCP_CHECKSUM, difference, V4::ADDRESS_CHECKSUM),
        UDP => {
            // A UDP checksum of zero means none (RFC 768) and stays so.
            let flags = V4::ADDRESS_CHECKSUM | u64::from(BPF_F_MARK_MANGLED_0);
            skb.correct_checksum(V4::TRANSPORT + UDP_CHECKSUM, difference, flags)
        }
        _ => true,
    }
}

/// Gives an ICMP error these ends, and the packet that it quotes those addresses. `false` leaves it as it was.
///
/// The sum over the quoted IPv4 header stays what it is; what its transport's checksum becomes must be made good in that of
/// the message.
#[inline(always)]
pub fn quoted_ends<S: Skb>(
    skb: &S,
    packet: &Packet<Ip4>,
    quoted: &Quoted,
    to: &Ends,
    source: Ip4,
    destination: Ip4,
) -> bool {
    let old = u64::from(quoted.source.wire()) + u64::from(quoted.destination.wire());
    let new = u64::from(source.wire()) + u64::from(destination.wire());
    let difference = csum::difference(old, new);
    let (old_transport, place) = quoted.transport_checksum;
    let transport = match csum::apply(old_transport, difference) {
        0 if quoted.protocol == UDP => 0xffff,
        checksum => checksum,
    };
    let change = csum::difference(old_transport.into(), transport.into());
    let message_checksum = csum::apply(quoted.message_checksum, change);
    let (source, destination) = (halves(source.wire()), halves(destination.wire()));
    let header = link_header(packet, to);
    // The last bytes that are written, so that no helper fails half-way.
    let end = if place == 0 { icmp::QUOTED + 20 } else { place + 2 };
    if !skb.pull(end) || !skb.store_header(&header) {
        return false;
    }
    let mut done = skb.store_half(icmp::QUOTED + CHECKSUM, csum::apply(quoted.checksum, difference))
        && skb.store_half(icmp::QUOTED + SOURCE, source[0])
        && skb.store_half(icmp::QUOTED + SOURCE + 2, source[1])
        && skb.store_half(icmp::QUOTED + DESTINATION, destination[0])
        && skb.store_half(icmp::QUOTED + DESTINATION + 2, destination[1]);
    if place != 0 {
        done = done && skb.store_half(place, transport) && skb.store_half(icmp::CHECKSUM, message_checksum);
    }
    done
}
