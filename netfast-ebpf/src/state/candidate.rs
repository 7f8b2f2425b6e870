//! What a CPU remembers of a packet, for the module of this name in `learn`.

use netfast_common::{
    flow::{Flow, FlowKey},
    net::MacPair,
};

/// Bytes of the transport's payload that are compared.
pub const SAMPLE: usize = 16;

/// Of whom a packet is, as far as the interface tells that it entered by.
pub struct Sort;

impl Sort {
    /// It came in by an uplink, and is nobody's unless it leaves for a container.
    pub const OTHERS: u8 = 0;
    /// It is a container's, or the host's own.
    pub const LOCAL: u8 = 1;
    /// It came in by an uplink and may leave by another.
    pub const TRANSIT: u8 = 2;
}

/// The packet that this CPU let go the slow path last. There is one place for both families, so all that does not depend on
/// the family stands before what does.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Candidate<A> {
    /// The clock when it was left; 0: the slot is empty.
    pub(crate) left_ns: u64,
    /// The kernel stack it was left on: an address on it.
    pub(crate) stack: u64,
    /// Room to look at the current stack, and at the packet at hand.
    pub(crate) here: u64,
    /// Where the kernel keeps the packet: the address of its `struct sk_buff`.
    pub(crate) address: u64,
    /// MAC addresses as it entered.
    pub macs: MacPair,
    /// The interface it was seen to come in by last; 0 for the host's own.
    pub(crate) received_by: u32,
    /// Epoch when it entered.
    pub epoch: u32,
    /// Generation of the device it entered by.
    pub generation: u32,
    /// Slot of that device.
    pub slot: u16,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Network-layer length in bytes.
    pub(crate) length: u32,
    /// IP identification and fragment bits, or flow label.
    pub(crate) identity: u32,
    /// See [`Packet::transport`].
    pub(crate) transport: [u32; 3],
    /// First bytes of the transport's payload.
    pub(crate) sample: [u8; SAMPLE],
    /// Of whom it is: one of [`Sort`]'s.
    pub sort: u8,
    /// Whether it is a TCP packet without payload.
    pub(crate) is_bare: u8,
    /// Whether it is UDP, and what it entered by lets that be used before it is answered.
    pub may_be_one_way: u8,
    /// Number of its family ([`Family::NUMBER`](crate::packet::Family::NUMBER)).
    pub(crate) family: u8,
    /// Where it entered.
    pub key: FlowKey<A>,
    /// Room for the flow that is learned from it.
    pub(crate) flow: Flow<A>,
}
