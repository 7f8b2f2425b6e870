//! What a CPU works on for an IPv6 packet.

use netfast_common::{flow::FlowKey, net::Ip6};

use crate::packet::{Packet, icmp::Quoted, ipv6::Header6};

/// What of an IPv6 packet is too long for the stack.
#[repr(C)]
pub struct Work6 {
    /// By [`Place`](super::tables::Place).
    pub(crate) keys: [FlowKey<Ip6>; 2],
    /// What is written over its start.
    pub(crate) header: Header6,
    /// Zero.
    reserved: u16,
    /// It, as the programs for virtual addresses have read it.
    pub(crate) packet: Packet<Ip6>,
    /// The packet that it quotes.
    pub(crate) quoted: Quoted<Ip6>,
    /// What of both there is, see `lb::read`.
    pub(crate) read: u32,
}
