//! What outlives a packet: the maps, and what is in them that the daemon knows nothing of.

pub mod asked;
pub mod candidate;
pub mod dns;
pub mod kept;
pub mod lb;
#[cfg(target_arch = "bpf")]
pub mod localhost;
pub mod maps;
pub mod six;
pub mod tables;

pub use self::tables::{Place, Tables};

use netfast_common::device::{Device, DeviceKey, NetnsNumber};

/// The number of the network namespace whose hooks the programs run at; 0 is the one that the daemon runs in, and the
/// only one so far. Whoever loads them for another sets it then, so to the verifier it is a constant.
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
static NETFAST_NETNS: u16 = 0;

/// The same, read.
#[inline(always)]
pub fn netns() -> u16 {
    // SAFETY: a valid reference; volatile, since the compiler would take the number in the source for what it is.
    unsafe { (&raw const NETFAST_NETNS).read_volatile() }
}

/// Whether a packet is told by its address: 1 is yes. Test runs of programs have another packet each time, so tests of both ends
/// of one set it to 0 before they load them, and say what the address is ([`Skb::stand_in`](crate::ctx::Skb::stand_in)); nobody else
/// does.
#[cfg_attr(target_arch = "bpf", unsafe(no_mangle))]
static NETFAST_BY_SKB: u8 = 1;

/// The same, read.
#[inline(always)]
pub fn compares_addresses() -> bool {
    // SAFETY: as above.
    unsafe { (&raw const NETFAST_BY_SKB).read_volatile() != 0 }
}

/// What the daemon says of an interface of the namespace that the program runs in.
#[inline(always)]
pub fn device(ifindex: u32) -> Option<&'static Device> {
    let key = DeviceKey::new(NetnsNumber(netns()), ifindex);
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    unsafe { maps::DEVICES.get(key) }
}
