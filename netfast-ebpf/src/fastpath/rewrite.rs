//! Makes of a packet what the kernel made of the first ones of its flow.

use core::borrow::Borrow as _;

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use netfast_common::{csum, flow::Flow, reason::Reason};

use super::lookup::Hit;
use crate::{
    ctx::{Ctx, Skb},
    packet::{
        ETHERNET, Packet, TCP, echo,
        rewrite::{TCP_CHECKSUM, UDP_CHECKSUM},
    },
    state::Tables,
};

/// Makes the packet what the kernel would make of it.
///
/// An error leaves the packet as it was.
#[inline(always)]
pub fn rewrite<F: Tables, S: Skb>(skb: &S, packet: &Packet<F::Address>, hit: &Hit<F::Address>) -> Result<(), Reason> {
    if hit.flags & Flow::<F::Address>::REWRITTEN == 0 {
        return Ok(());
    }
    // All that is needed of the flow, and only then the last look at its tag.
    let header = F::keep_header(|to| F::write_header(packet, hit.flow, to))?;
    let (address_difference, port_difference) = (hit.flow.address_difference, hit.flow.port_difference);
    let identifier = echo::identifier(hit.flow);
    if !hit.is_intact() {
        return Err(Reason::Replaced);
    }
    // Headers linear and ours alone: from here on no helper needs memory, so none fails half-way.
    if !skb.pull(packet.payload_offset) || !skb.store_header(header.borrow()) {
        return Err(Reason::RewriteFailed);
    }
    let is_routed = hit.flags & Flow::<F::Address>::ROUTED != 0;
    if hit.flags & Flow::<F::Address>::TRANSLATED == 0 {
        F::correct_sum(skb, is_routed, 0);
        return Ok(());
    }
    let mut done = true;
    let (offset, flags, has_addresses) = match packet.network.protocol {
        TCP => (F::TRANSPORT + TCP_CHECKSUM, 0, true),
        protocol if protocol == F::ICMP => {
            done &= skb.store_half(F::TRANSPORT + echo::IDENTIFIER, identifier);
            (F::TRANSPORT + echo::ICMP_CHECKSUM, 0, F::ICMP_HAS_ADDRESSES)
        }
        // A UDP checksum of zero means none (RFC 768) and stays so.
        _ => (F::TRANSPORT + UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0), true),
    };
    if address_difference != 0 && has_addresses {
        done &= skb.correct_checksum(offset, address_difference, F::ADDRESS_CHECKSUM | flags);
    }
    if port_difference != 0 {
        done &= skb.correct_checksum(offset, port_difference, flags);
    }
    F::correct_sum(skb, is_routed, address_difference);
    if done { Ok(()) } else { Err(Reason::RewriteFailed) }
}

/// The same of a UDP datagram in a frame that is in no `struct sk_buff`, so that its checksum is whole.
///
/// An error leaves the packet as it was.
#[inline(always)]
pub fn rewrite_frame<F: Tables, C: Ctx>(
    frame: &C,
    packet: &Packet<F::Address>,
    hit: &Hit<F::Address>,
) -> Result<(), Reason> {
    if hit.flags & Flow::<F::Address>::REWRITTEN == 0 {
        return Ok(());
    }
    let header = F::keep_header(|to| F::write_header(packet, hit.flow, to))?;
    let difference = u64::from(hit.flow.address_difference) + u64::from(hit.flow.port_difference);
    if !hit.is_intact() {
        return Err(Reason::Replaced);
    }
    if !frame.store_header(header.borrow()) {
        return Err(Reason::RewriteFailed);
    }
    // None (RFC 768) stays none.
    if hit.flags & Flow::<F::Address>::TRANSLATED == 0 || packet.checksum == 0 {
        return Ok(());
    }
    let checksum = match csum::apply(packet.checksum, csum::fold32(difference)) {
        0 => 0xffff,
        checksum => checksum,
    };
    if frame.store_half(F::TRANSPORT + UDP_CHECKSUM, checksum) {
        Ok(())
    } else {
        Err(Reason::RewriteFailed)
    }
}

/// Cuts off what follows the IP packet in its frame, as the kernel does (`ip_rcv_core`, `net/ipv4/ip_input.c`). `false` leaves
/// it as it was.
#[inline(always)]
pub fn trim<A, S: Ctx>(skb: &S, packet: &Packet<A>) -> bool {
    skb.resize(ETHERNET + packet.network.length)
}

#[cfg(test)]
mod tests;
