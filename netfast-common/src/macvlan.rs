//! macvlan: the host and its own containers on such a network, which the kernel keeps apart.
//!
//! A macvlan device sends its frames out of its parent (`macvlan_queue_xmit`, drivers/net/macvlan.c), and the parent hands
//! it what comes in for it; what the host itself sends out of the parent does not come in there again, nor does what such
//! a device sends to the host. With a switch that sends frames back by the port they came by, neither would. Here is who is
//! behind a parent, so that a program at its egress can be that switch for the host and the containers of networks that ask for it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{device::DeviceKey, net::AnyIp};

/// Ends that may be known: the parents, and the containers behind them.
pub const STATIONS: u32 = 8 * 1024;
/// Addresses of containers that may be known.
pub const ADDRESSES: u32 = 16 * 1024;

/// A MAC address behind a parent interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StationKey {
    /// The parent.
    pub parent: DeviceKey,
    /// The address.
    pub mac: [u8; 6],
    /// Zero.
    reserved: [u8; 2],
}

impl StationKey {
    /// This address behind this parent.
    #[inline(always)]
    pub const fn new(parent: DeviceKey, mac: [u8; 6]) -> Self {
        Self {
            parent,
            mac,
            reserved: [0; 2],
        }
    }
}

/// Whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Station {
    /// [`HOST`](Self::HOST) or [`CONTAINER`](Self::CONTAINER).
    pub who: u16,
    /// The parent's own MAC address: the host's.
    pub host: [u8; 6],
}

impl Station {
    /// The host: the address is the parent's own.
    pub const HOST: u16 = 1;
    /// A container of a network that asks for the host.
    pub const CONTAINER: u16 = 2;
}

/// An address that ARP or neighbour discovery asks for behind a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddressKey {
    /// The parent.
    pub parent: DeviceKey,
    /// The address.
    pub address: AnyIp,
}

/// Whose address it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddressOwner {
    /// The container's MAC address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for StationKey {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for Station {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for AddressKey {}
#[cfg(feature = "aya")]
// SAFETY: as above.
unsafe impl aya::Pod for AddressOwner {}
