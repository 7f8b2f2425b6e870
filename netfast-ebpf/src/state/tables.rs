//! The maps of each address family.

use core::borrow::Borrow;

use netfast_common::{
    flow::{Flow, FlowKey},
    net::{Ip4, Ip6},
    reason::Reason,
    vet::Answer,
};

use super::{maps, six::Work6};
use crate::{
    ctx::kernel::{LruHashMap, RingBuf},
    packet::{Family, V4, V6, ipv4::Header4, ipv6::Header6},
};

/// What a key is of that is kept for as long as a packet is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Of the packet's own flow.
    Own = 0,
    /// Of the other direction, or of what was that: one at a time.
    Reverse = 1,
}

/// An IP version with its maps.
pub trait Tables: Family {
    /// A key for the time that a packet is looked at: itself, or where it is, if it is too long for the stack.
    type Key: Borrow<FlowKey<Self::Address>>;
    /// Headers that are to be written, likewise.
    type Headers: Borrow<Self::Header>;

    /// Flows in use.
    fn flows() -> &'static LruHashMap<FlowKey<Self::Address>, Flow<Self::Address>>;
    /// Flows that wait for their reverse.
    fn unreplied() -> &'static LruHashMap<FlowKey<Self::Address>, Flow<Self::Address>>;
    /// Flows that wait to be vetted by the daemon.
    fn to_vet() -> &'static RingBuf;
    /// What it found.
    fn vetted() -> &'static LruHashMap<FlowKey<Self::Address>, Answer>;
    /// Keeps the key that `write` writes, each field of it. Another one in the same place takes the place of this one.
    fn keep(place: Place, write: impl FnOnce(&mut FlowKey<Self::Address>)) -> Result<Self::Key, Reason>;
    /// Keeps the headers that `write` writes, each field of them, until they are written to the packet.
    fn keep_header(write: impl FnOnce(&mut Self::Header)) -> Result<Self::Headers, Reason>;
}

impl Tables for V4 {
    type Key = FlowKey<Ip4>;
    type Headers = Header4;

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
    fn keep(_: Place, write: impl FnOnce(&mut FlowKey<Ip4>)) -> Result<FlowKey<Ip4>, Reason> {
        let mut key = FlowKey::default();
        write(&mut key);
        Ok(key)
    }
    #[inline(always)]
    fn keep_header(write: impl FnOnce(&mut Header4)) -> Result<Header4, Reason> {
        let mut header = Header4::default();
        write(&mut header);
        Ok(header)
    }
}

impl Tables for V6 {
    type Key = &'static FlowKey<Ip6>;
    type Headers = &'static Header6;

    #[inline(always)]
    fn flows() -> &'static LruHashMap<FlowKey<Ip6>, Flow<Ip6>> {
        &maps::FLOWS6
    }
    #[inline(always)]
    fn unreplied() -> &'static LruHashMap<FlowKey<Ip6>, Flow<Ip6>> {
        &maps::UNREPLIED6
    }
    #[inline(always)]
    fn to_vet() -> &'static RingBuf {
        &maps::VET6
    }
    #[inline(always)]
    fn vetted() -> &'static LruHashMap<FlowKey<Ip6>, Answer> {
        &maps::VETTED6
    }
    #[inline(always)]
    fn keep(place: Place, write: impl FnOnce(&mut FlowKey<Ip6>)) -> Result<&'static FlowKey<Ip6>, Reason> {
        let work = work()?;
        // SAFETY: see `work`. Only this key is borrowed, since the other one may be in use.
        let kept = unsafe { &mut (*work).keys[place as usize] };
        write(kept);
        Ok(kept)
    }
    #[inline(always)]
    fn keep_header(write: impl FnOnce(&mut Header6)) -> Result<&'static Header6, Reason> {
        let work = work()?;
        // SAFETY: see `work`. Only the header is borrowed, since keys may be in use.
        let kept = unsafe { &mut (*work).header };
        write(kept);
        Ok(kept)
    }
}

/// This CPU's element: hooks run with softirqs off, so nothing else touches it meanwhile, and who keeps something in a place has
/// no more use for what was there before. Made of integers. There is no such map without this element, but the verifier wants to
/// hear it.
#[inline(always)]
pub(super) fn work() -> Result<*mut Work6, Reason> {
    maps::WORK6.get_ptr_mut(0).ok_or(Reason::RewriteFailed)
}
