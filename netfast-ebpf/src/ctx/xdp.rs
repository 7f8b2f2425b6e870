//! An XDP program's packet: a frame in one buffer, before there is a `struct sk_buff`.
use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use netfast_common::trace::CAPTURE;

use super::{
    Ctx, Header, RouteQuery,
    bounds::{bounded, clamped},
};

/// Offset of the `EtherType` in a frame.
const ETHERTYPE: usize = 12;

impl Ctx for XdpContext {
    // What comes in by a card has left the host that sent it. A veth passes on what its other end has left to a device, and
    // nothing in the frame tells.
    const LEAVES_CHECKSUMS: bool = false;

    #[inline(always)]
    fn length(&self) -> u32 {
        let mut length = XdpContext::data_end(self) as u64;
        // SAFETY: arithmetic on registers. The compiler would put the one address into one sum and the other into another, and
        // the verifier takes nothing but their difference for a number.
        unsafe {
            core::arch::asm!(
                "{length} -= {start}",
                length = inout(reg) length,
                start = in(reg) XdpContext::data(self) as u64,
                options(pure, nomem, nostack),
            );
        }
        length as u32
    }
    #[inline(always)]
    fn data(&self) -> usize {
        XdpContext::data(self)
    }
    #[inline(always)]
    fn data_end(&self) -> usize {
        XdpContext::data_end(self)
    }
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ingress_ifindex() as u32
    }
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool {
        const { assert!(N <= 16) }
        // SAFETY: `to` has at least N bytes; the helper checks the packet's side (kernel 5.18, 3f364222d032).
        unsafe { bpf_xdp_load_bytes(raw(self), offset, to.as_mut_ptr().cast(), N as u32) == 0 }
    }
    #[inline(always)]
    fn capture(&self, length: u32, to: &mut [u8; CAPTURE as usize]) -> u32 {
        let bytes = clamped::<CAPTURE>(length);
        // SAFETY: as above.
        let done = unsafe { bpf_xdp_load_bytes(raw(self), 0, to.as_mut_ptr().cast(), bytes) };
        if done == 0 { bytes } else { 0 }
    }
    #[inline(always)]
    fn mtu(&self) -> Option<u32> {
        None
    }
    #[inline(always)]
    fn is_for_host(&self, _: &RouteQuery) -> bool {
        false
    }
    #[inline(always)]
    fn load_some<const N: usize>(&self, offset: u32, length: u32, to: &mut [u8; N]) -> bool {
        let length = bounded::<N>(length);
        // SAFETY: as above.
        unsafe { bpf_xdp_load_bytes(raw(self), offset, to.as_mut_ptr().cast(), length) == 0 }
    }
    #[inline(always)]
    fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
        // SAFETY: no pointers.
        unsafe { bpf_redirect(ifindex, flags) as i32 }
    }
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        let place = XdpContext::data(self) + ETHERTYPE;
        if place + 2 > XdpContext::data_end(self) {
            return 0;
        }
        // SAFETY: within the frame, as was just looked at.
        unsafe { *(place as *const u16) }
    }
    /// A tag that the card has taken off cannot be seen: the daemon attaches where none does that.
    #[inline(always)]
    fn has_vlan(&self) -> bool {
        false
    }
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }
    /// All there is can be read.
    #[inline(always)]
    fn pull(&self, _: u32) -> bool {
        false
    }
    #[inline(always)]
    fn store_header<H: Header>(&self, header: &H) -> bool {
        // SAFETY: `header` has that many bytes; the helper checks the packet's side.
        unsafe { bpf_xdp_store_bytes(raw(self), 0, (&raw const *header).cast_mut().cast(), H::LENGTH) == 0 }
    }
    #[inline(always)]
    fn verified(&self) -> u32 {
        0
    }
    #[inline(always)]
    fn store_half(&self, offset: u32, half: u16) -> bool {
        // SAFETY: as above, two bytes.
        unsafe { bpf_xdp_store_bytes(raw(self), offset, (&raw const half).cast_mut().cast(), 2) == 0 }
    }
    #[inline(always)]
    fn resize(&self, length: u32) -> bool {
        let change = length.wrapping_sub(self.length()).cast_signed();
        // SAFETY: a valid context; the verifier checks that no packet pointer is used across the call.
        unsafe { bpf_xdp_adjust_tail(raw(self), change) == 0 }
    }
}

#[inline(always)]
fn raw(context: &XdpContext) -> *mut xdp_md {
    context.ctx
}
