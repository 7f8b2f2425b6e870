//! Docker's resolver in containers' network namespaces.
//!
//! It listens on ports that the kernel chose, and NAT rules of Docker's in each namespace lead there what is sent to port 53
//! (libnetwork, `resolver_unix.go`). A program on the loopback interface can do that one translation instead, without
//! conntrack.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Ip4, Port};

/// Its address in every container's namespace (libnetwork, `resolverIPSandbox`).
pub const ADDRESS: Ip4 = Ip4::from_bytes([127, 0, 0, 11]);
/// The port that everybody asks at.
pub const DOMAIN: Port = Port::new(53);
/// Namespaces that may be known.
pub const NAMESPACES: u32 = 16 * 1024;

/// Where the resolver of a namespace listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ports {
    /// For datagrams.
    pub udp: Port,
    /// For connections.
    pub tcp: Port,
}

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for Ports {}
