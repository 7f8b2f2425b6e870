//! The frame inside a tunnel's packet, as a packet: all that reads headers reads those inside. It is not written to.

use netfast_common::{trace::CAPTURE, tunnel::GROWTH};

use super::{Ctx, Header, Headers, RouteQuery, Skb};

/// The frame inside a packet of VXLAN over IPv4 without options.
pub struct Inner<'a, S> {
    outer: &'a S,
    ethertype: u16,
    ifindex: u32,
}

impl<'a, S: Skb> Inner<'a, S> {
    /// What is inside, whose `EtherType` is this, in wire order.
    #[inline(always)]
    pub fn new(outer: &'a S, ethertype: u16) -> Self {
        Self::at(outer, ethertype, outer.ifindex())
    }

    /// The same, as it is at this interface.
    #[inline(always)]
    pub const fn at(outer: &'a S, ethertype: u16, ifindex: u32) -> Self {
        Self {
            outer,
            ethertype,
            ifindex,
        }
    }

    /// The packet that it is within.
    #[inline(always)]
    pub const fn outer(&self) -> &'a S {
        self.outer
    }
}

impl<S: Skb> Ctx for Inner<'_, S> {
    const LEAVES_CHECKSUMS: bool = S::LEAVES_CHECKSUMS;

    #[inline(always)]
    fn length(&self) -> u32 {
        self.outer.length().saturating_sub(GROWTH)
    }
    #[inline(always)]
    fn data(&self) -> usize {
        self.outer.data() + GROWTH as usize
    }
    #[inline(always)]
    fn data_end(&self) -> usize {
        self.outer.data_end()
    }
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool {
        self.outer.load::<N>(offset + GROWTH, to)
    }
    #[inline(always)]
    fn capture(&self, _: u32, _: &mut [u8; CAPTURE as usize]) -> u32 {
        0
    }
    #[inline(always)]
    fn mtu(&self) -> Option<u32> {
        self.outer.mtu()
    }
    #[inline(always)]
    fn is_for_host(&self, _: &RouteQuery) -> bool {
        false
    }
    #[inline(always)]
    fn load_some<const N: usize>(&self, offset: u32, length: u32, to: &mut [u8; N]) -> bool {
        self.outer.load_some(offset + GROWTH, length, to)
    }
    #[inline(always)]
    fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
        self.outer.redirect(ifindex, flags)
    }
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.ethertype
    }
    #[inline(always)]
    fn has_vlan(&self) -> bool {
        self.outer.has_vlan()
    }
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        self.outer.gso_size()
    }
    #[inline(always)]
    fn pull(&self, length: u32) -> bool {
        self.outer.pull(length + GROWTH)
    }
    #[inline(always)]
    fn store_header<H: Header>(&self, _: &H) -> bool {
        false
    }
    #[inline(always)]
    fn verified(&self) -> u32 {
        self.outer.verified().saturating_sub(1)
    }
    #[inline(always)]
    fn store_half(&self, _: u32, _: u16) -> bool {
        false
    }
    #[inline(always)]
    fn resize(&self, _: u32) -> bool {
        false
    }
}

impl<S: Skb> Skb for Inner<'_, S> {
    #[inline(always)]
    fn is_for_another_mac(&self) -> bool {
        self.outer.is_for_another_mac()
    }
    #[inline(always)]
    fn mark(&self) -> u32 {
        self.outer.mark()
    }
    #[inline(always)]
    fn priority(&self) -> u32 {
        self.outer.priority()
    }
    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.outer.ingress_ifindex()
    }
    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        self.outer.netns_cookie()
    }
    #[inline(always)]
    fn correct_checksum(&self, _: u32, _: u32, _: u64) -> bool {
        false
    }
    #[inline(always)]
    fn add_to_sum(&self, _: u32) {}
    #[inline(always)]
    fn note_address(&self, place: &mut u64) -> u64 {
        self.outer.note_address(place)
    }
    #[inline(always)]
    fn stand_in(&self) -> u32 {
        self.outer.stand_in()
    }
    #[inline(always)]
    fn set_mark(&self, _: u32) {}
    #[inline(always)]
    fn set_priority(&self, _: u32) {}
    #[inline(always)]
    fn store_some<const N: usize>(&self, _: u32, _: u32, _: &[u8; N]) -> bool {
        false
    }
    #[inline(always)]
    fn load_headers(&self, _: u32, _: &mut Headers) -> bool {
        false
    }
    #[inline(always)]
    fn store_headers(&self, _: u32, _: &Headers) -> bool {
        false
    }
    #[inline(always)]
    fn encapsulate(&self) -> bool {
        false
    }
    #[inline(always)]
    fn take_room_back(&self) -> bool {
        false
    }
    #[inline(always)]
    fn decapsulate(&self) -> bool {
        false
    }
    #[inline(always)]
    fn redirect_peer(&self, ifindex: u32) -> i32 {
        self.outer.redirect_peer(ifindex)
    }
    #[inline(always)]
    fn redirect_copy(&self, ifindex: u32, flags: u64) {
        self.outer.redirect_copy(ifindex, flags);
    }
}
