//! The maps of each address family.

use netfast_common::{
    flow::{Flow, FlowKey},
    net::Ip4,
    vet::Answer,
};

use super::{candidate::Candidate, maps};
use crate::{
    ctx::kernel::{LruHashMap, PerCpuArray, RingBuf},
    packet::{Family, V4},
};

/// An IP version with its maps.
pub trait Tables: Family {
    /// Flows in use.
    fn flows() -> &'static LruHashMap<FlowKey<Self::Address>, Flow<Self::Address>>;
    /// Flows that wait for their reverse.
    fn unreplied() -> &'static LruHashMap<FlowKey<Self::Address>, Flow<Self::Address>>;
    /// Flows that wait to be vetted by the daemon.
    fn to_vet() -> &'static RingBuf;
    /// What it found.
    fn vetted() -> &'static LruHashMap<FlowKey<Self::Address>, Answer>;
    /// The candidate of each CPU.
    fn candidates() -> &'static PerCpuArray<Candidate<Self::Address>>;
}

impl Tables for V4 {
    #[inline(always)]
    fn flows() -> &'static LruHashMap<FlowKey<Ip4>, Flow<Ip4>> {
        &maps::FLOWS4
    }
    #[inline(always)]
    fn unreplied() -> &'static LruHashMap<FlowKey<Ip4>, Flow<Ip4>> {
        &maps::UNREPLIED4
    }
    #[inline(always)]
    fn to_vet() -> &'static RingBuf {
        &maps::VET4
    }
    #[inline(always)]
    fn vetted() -> &'static LruHashMap<FlowKey<Ip4>, Answer> {
        &maps::VETTED4
    }
    #[inline(always)]
    fn candidates() -> &'static PerCpuArray<Candidate<Ip4>> {
        &maps::CANDIDATE4
    }
}
