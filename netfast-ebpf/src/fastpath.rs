//! The way of a packet whose flow is known, from where it enters to where it is sent.

pub mod checksum;
pub mod direct;
pub mod gate;
mod global;
pub mod log;
pub mod lookup;
pub mod redirect;
pub mod rewrite;
pub mod trace;
pub mod verdict;
pub mod vet;

/// Where a packet enters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// From a container.
    Endpoint,
    /// From off the host.
    Uplink,
    /// From the host's own stack, through a bridge device.
    Host,
}
