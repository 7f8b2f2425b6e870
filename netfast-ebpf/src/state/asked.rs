//! What a CPU remembers of packets of tunnels that it let the kernel take the outer headers off, for `tunnel/way_in`.

use netfast_common::{flow::FlowKey, net::Ip4, tunnel::OUTER_HALVES};

/// Conversations that are told apart; a power of two. Two that share a place ask a little longer.
pub const PLACES: u32 = 256;
/// The element behind them, of which only the round counts.
pub const ROUND: u32 = PLACES;

/// The packet of a conversation that came in last and went the kernel's way.
///
/// It is not a candidate: the kernel does not carry a tunnel's packets in one run from the uplink to the tunnel's device. It queues
/// them between (`gro_cells_receive`), on the same CPU, and others come in meanwhile.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Asked {
    /// The clock when it came in; 0: there is none.
    pub(crate) left_ns: u64,
    /// Where the kernel keeps it: the address of its `struct sk_buff`.
    pub(crate) address: u64,
    /// Room to look at the packet at hand.
    pub(crate) here: u64,
    /// As it will come in by the tunnel's device.
    pub(crate) key: FlowKey<Ip4>,
    /// Identification and fragment bits inside.
    pub(crate) identity: u32,
    /// See [`Packet::transport`](crate::packet::Packet::transport): the first two words.
    pub(crate) transport: [u32; 2],
    /// The uplink.
    pub(crate) ifindex: u32,
    /// Epoch when it came in.
    pub(crate) epoch: u32,
    /// Generation of the uplink.
    pub(crate) generation: u32,
    /// Which time it is that the kernel handed no packet to user space in between.
    pub(crate) round: u32,
    /// Slot of the uplink.
    pub(crate) slot: u16,
    /// TOS inside, without the two ECN bits: a tunnel may tell congestion by them.
    pub(crate) dscp: u8,
    /// Zero.
    pub(crate) reserved: [u8; 5],
    /// Its outer header, but for what differs between packets.
    pub(crate) header: [u16; OUTER_HALVES],
}

netfast_common::assert_no_padding!(
    Asked,
    [u64; 3],
    FlowKey<Ip4>,
    u32,
    [u32; 2],
    [u32; 4],
    u16,
    [u8; 6],
    [u16; OUTER_HALVES],
);
