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

/// How packets come to a hook.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// One by one: each has left before the next enters.
    Alone,
    /// Maybe in lists, of which all have entered before the first leaves.
    InLists,
}

impl Entry {
    /// How packets come there: NAPI hands over lists (`netif_receive_skb_list_internal`, net/core/dev.c), and IP takes each step
    /// for all of a list (`ip_list_rcv`). What a bridge takes from its ports goes on at once (`br_handle_frame`), and a network card
    /// may be a port, too, but then its packets leave by containers alone, each by the one that it is addressed to.
    #[inline(always)]
    pub const fn arrival(self) -> Arrival {
        match self {
            Self::Uplink => Arrival::InLists,
            Self::Endpoint | Self::Host => Arrival::Alone,
        }
    }
}
