//! What a CPU remembers of a packet, for the module of this name in `learn`.

use netfast_common::{
    flow::{Flow, FlowKey},
    net::{Ip6, MacPair},
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

/// Packets that a CPU remembers at once; a power of two. A network card hands over up to eight in a list, and sets out to hand
/// over the next when it has (`gro_normal_one`, include/net/gro.h).
pub const PLACES: u32 = 16;

/// The packets that this CPU let go the slow path last, and that may still leave. Their places are used in turn.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Candidates {
    /// The place of the newest.
    pub newest: u32,
    /// How many may still leave: so many of the newest.
    pub waiting: u32,
    /// Whether the next one may be of the same list: 1 is yes.
    pub is_open: u32,
    /// How many are newer than the one at hand.
    pub(crate) newer: u32,
    /// Room to look at the packet at hand.
    pub(crate) here: u64,
    /// Where the kernel keeps each: the address of its `struct sk_buff`.
    pub addresses: [u64; PLACES as usize],
    /// What is remembered of each, of either family: a place has room for the longer one.
    pub places: [Candidate<Ip6>; PLACES as usize],
}

#[cfg(not(target_arch = "bpf"))]
impl Candidates {
    /// Whether there is one that would be recognised.
    pub fn any(&self) -> bool {
        let place = |newer: u32| (self.newest.wrapping_sub(newer) % PLACES) as usize;
        let mut newer = 0..self.waiting.min(PLACES);
        // What has the same address has taken the place of an older one.
        newer.any(|at| {
            let is_last = !(0..at).any(|newer| self.addresses[place(newer)] == self.addresses[place(at)]);
            is_last && self.places[place(at)].left_ns != 0
        })
    }

    /// They were left so much earlier, in nanoseconds.
    pub fn grow_older(&mut self, ns: u64) {
        for place in self.places.iter_mut().filter(|place| place.left_ns != 0) {
            place.left_ns = place.left_ns.wrapping_sub(ns);
        }
    }

    /// They were left on another stack.
    pub fn change_stack(&mut self) {
        for place in &mut self.places {
            place.stack ^= 1 << 16;
        }
    }
}

/// A packet that this CPU let go the slow path. Places are of both families, so all that does not depend on the family stands
/// before what does.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Candidate<A> {
    /// The clock when it was left; 0: it was refused.
    pub(crate) left_ns: u64,
    /// The kernel stack it was left on: an address on it.
    pub(crate) stack: u64,
    /// Room to look at the current stack.
    pub(crate) here: u64,
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
