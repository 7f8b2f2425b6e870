//! The host's own way to published ports at its loopback addresses, past docker-proxy: when a program of the host connects, its
//! socket is told the container's address. From then on the connection is one from the host to the container, and no packet
//! costs anything here.
//!
//! What decides is the socket that such a connection would reach: only where docker-proxy listens, and the daemon has hung on
//! that socket where it leads to, is anybody led there. Whoever is bound to an address or an interface, is marked, or is in a
//! cgroup with programs of others goes through docker-proxy, as everybody does once the daemon is silent.
//!
//! The programs work on contexts that only the kernel has, so there is nothing of them on the host; what they decide by is in
//! [`netfast_common::localhost`].

#[cfg(target_arch = "bpf")]
mod socket;

#[cfg(target_arch = "bpf")]
pub use self::socket::{Socket, connect, name_own, name_peer, receive, send};

/// IPv4 or IPv6, as the program's attach type has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 as IPv6 maps it.
    V6,
}
