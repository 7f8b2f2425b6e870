//! A tc program's packet.
use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_CSUM_LEVEL_DEC, BPF_CSUM_LEVEL_QUERY, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup,
    },
    helpers::generated::{
        bpf_check_mtu, bpf_clone_redirect, bpf_csum_level, bpf_csum_update, bpf_fib_lookup as bpf_fib_lookup_helper,
        bpf_get_netns_cookie, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_peer, bpf_skb_adjust_room,
        bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    },
    programs::TcContext,
};

use netfast_common::{trace::CAPTURE, tunnel::GROWTH};

use super::{
    AF_INET, Ctx, Header, Headers, RouteQuery, Skb,
    bounds::{bounded, clamped},
};

/// `if_packet.h`: addressed to this host.
const PACKET_HOST: u32 = 0;
/// Addressed to another.
const PACKET_OTHERHOST: u32 = 3;

#[inline(always)]
pub fn raw(context: &TcContext) -> *mut __sk_buff {
    context.skb.skb
}

/// Room behind the Ethernet header (`bpf_adj_room_mode`, linux/bpf.h).
const BPF_ADJ_ROOM_MAC: u32 = 1;
/// A frame in VXLAN over IPv4. The segments keep their size: the tunnel's device has an MTU of its own.
const VXLAN: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | 14 << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

macro_rules! field {
    ($context:expr, $field:ident) => {
        // SAFETY: the kernel hands the program a valid context and rewrites loads of its fields.
        unsafe { (*raw($context)).$field }
    };
}

impl Ctx for TcContext {
    const LEAVES_CHECKSUMS: bool = true;

    #[inline(always)]
    fn length(&self) -> u32 {
        field!(self, len)
    }
    #[inline(always)]
    fn data(&self) -> usize {
        field!(self, data) as usize
    }
    #[inline(always)]
    fn data_end(&self) -> usize {
        field!(self, data_end) as usize
    }
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        field!(self, ifindex)
    }
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool {
        const { assert!(N <= 16) }
        // SAFETY: `to` has at least N bytes; the helper checks the packet's side.
        unsafe { bpf_skb_load_bytes(raw(self).cast(), offset, to.as_mut_ptr().cast(), N as u32) == 0 }
    }
    #[inline(always)]
    fn capture(&self, length: u32, to: &mut [u8; CAPTURE as usize]) -> u32 {
        let bytes = clamped::<CAPTURE>(length);
        // SAFETY: `to` has at least that many bytes; the helper checks the packet's side.
        let done = unsafe { bpf_skb_load_bytes(raw(self).cast(), 0, to.as_mut_ptr().cast(), bytes) };
        if done == 0 { bytes } else { 0 }
    }
    #[inline(always)]
    fn mtu(&self) -> Option<u32> {
        let mut mtu = 0;
        // SAFETY: a valid context and a valid place for the answer. The answer is filled in whether the packet
        // fits or not; only a missing device leaves it at 0.
        unsafe { bpf_check_mtu(raw(self).cast(), 0, &raw mut mtu, 0, 0) };
        (mtu != 0).then_some(mtu)
    }
    #[inline(always)]
    fn is_for_host(&self, query: &RouteQuery) -> bool {
        // SAFETY: every field of the parameters is an integer or a union of integers.
        let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        parameters.family = query.family;
        parameters.ifindex = query.ifindex;
        if query.family == AF_INET {
            parameters.__bindgen_anon_2.tos = query.tos;
            parameters.__bindgen_anon_3.ipv4_src = query.source[0];
            parameters.__bindgen_anon_4.ipv4_dst = query.destination[0];
        } else {
            parameters.__bindgen_anon_2.flowinfo = (u32::from(query.tos) << 20).to_be();
            parameters.__bindgen_anon_3.ipv6_src = query.source;
            parameters.__bindgen_anon_4.ipv6_dst = query.destination;
        }
        let length = size_of::<bpf_fib_lookup>() as i32;
        // SAFETY: a valid context and parameters of the length given.
        let answer = unsafe { bpf_fib_lookup_helper(raw(self).cast(), &raw mut parameters, length, 0) };
        // The kernel says so of every route that is not unicast; the gate has refused multicast and broadcast, so
        // it is a local one (net/core/filter.c, bpf_ipv4_fib_lookup). Where the interface forwards nothing it does not look
        // for a route: then who is not the host drops the packet, here as well as through the bridge device.
        answer == i64::from(BPF_FIB_LKUP_RET_NOT_FWDED) || answer == i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED)
    }
    #[inline(always)]
    fn load_some<const N: usize>(&self, offset: u32, length: u32, to: &mut [u8; N]) -> bool {
        let length = bounded::<N>(length);
        // SAFETY: `to` has at least that many bytes; the helper checks the packet's side.
        unsafe { bpf_skb_load_bytes(raw(self).cast(), offset, to.as_mut_ptr().cast(), length) == 0 }
    }
    #[inline(always)]
    fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
        // SAFETY: no pointers.
        unsafe { bpf_redirect(ifindex, flags) as i32 }
    }
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "__sk_buff widens the 16-bit field")]
    fn ethertype(&self) -> u16 {
        field!(self, protocol) as u16
    }
    #[inline(always)]
    fn has_vlan(&self) -> bool {
        field!(self, vlan_present) != 0
    }
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        field!(self, gso_size)
    }
    #[inline(always)]
    fn pull(&self, length: u32) -> bool {
        // SAFETY: a valid context; the verifier checks that no packet pointer is used across the call.
        unsafe { bpf_skb_pull_data(raw(self), length) == 0 }
    }
    #[inline(always)]
    fn store_header<H: Header>(&self, header: &H) -> bool {
        // SAFETY: `header` has that many bytes; the helper checks the packet's side and makes it writable.
        unsafe { bpf_skb_store_bytes(raw(self), 0, (&raw const *header).cast(), H::LENGTH, 0) == 0 }
    }
    #[inline(always)]
    fn verified(&self) -> u32 {
        // SAFETY: a valid context. It answers the number of checksums that were found right less one, or an error where none
        // was looked at (kernel 5.8, 7cdec54f9713).
        let level = unsafe { bpf_csum_level(raw(self), u64::from(BPF_CSUM_LEVEL_QUERY)) };
        if level < 0 { 0 } else { level as u32 + 1 }
    }
    #[inline(always)]
    fn store_half(&self, offset: u32, half: u16) -> bool {
        // SAFETY: as above, two bytes.
        unsafe { bpf_skb_store_bytes(raw(self), offset, (&raw const half).cast(), 2, 0) == 0 }
    }
    #[inline(always)]
    fn resize(&self, length: u32) -> bool {
        // SAFETY: a valid context; the verifier checks that no packet pointer is used across the call.
        unsafe { bpf_skb_change_tail(raw(self), length, 0) == 0 }
    }
}

impl Skb for TcContext {
    #[inline(always)]
    fn is_for_another_mac(&self) -> bool {
        field!(self, pkt_type) == PACKET_OTHERHOST
    }
    #[inline(always)]
    fn mark(&self) -> u32 {
        field!(self, mark)
    }
    #[inline(always)]
    fn priority(&self) -> u32 {
        field!(self, priority)
    }
    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        field!(self, ingress_ifindex)
    }
    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: a valid context.
        unsafe { bpf_get_netns_cookie(raw(self).cast()) }
    }
    #[inline(always)]
    fn correct_checksum(&self, offset: u32, difference: u32, flags: u64) -> bool {
        // SAFETY: a valid context; with a size of 0 (no bits in the low nibble of flags) `to` is a difference.
        unsafe { bpf_l4_csum_replace(raw(self), offset, 0, u64::from(difference), flags) == 0 }
    }
    #[inline(always)]
    fn add_to_sum(&self, difference: u32) {
        // SAFETY: a valid context. It refuses packets without such a sum, and leaves them as they are.
        unsafe { bpf_csum_update(raw(self), difference) };
    }
    #[inline(always)]
    fn note_address(&self, place: &mut u64) -> u64 {
        let place = &raw mut *place;
        // SAFETY: a valid reference. Volatile: what is compared is what was loaded, a number.
        unsafe {
            place.write_volatile(raw(self) as u64);
            place.read_volatile()
        }
    }
    #[inline(always)]
    fn stand_in(&self) -> u32 {
        field!(self, cb)[0]
    }
    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        // SAFETY: a valid context; tc programs may write this field.
        unsafe { (*raw(self)).mark = mark }
    }
    #[inline(always)]
    fn set_priority(&self, priority: u32) {
        // SAFETY: a valid context; tc programs may write this field.
        unsafe { (*raw(self)).priority = priority }
    }
    #[inline(always)]
    fn store_some<const N: usize>(&self, offset: u32, length: u32, from: &[u8; N]) -> bool {
        let length = bounded::<N>(length);
        // SAFETY: `from` has at least that many bytes; the helper checks the packet's side and makes it writable.
        unsafe { bpf_skb_store_bytes(raw(self), offset, from.as_ptr().cast(), length, 0) == 0 }
    }
    #[inline(always)]
    fn load_headers(&self, length: u32, to: &mut Headers) -> bool {
        let length = bounded::<{ size_of::<Headers>() }>(length);
        // SAFETY: `to` has at least that many bytes; the helper checks the packet's side.
        unsafe { bpf_skb_load_bytes(raw(self).cast(), 0, to.as_mut_ptr().cast(), length) == 0 }
    }
    #[inline(always)]
    fn store_headers(&self, length: u32, from: &Headers) -> bool {
        let length = bounded::<{ size_of::<Headers>() }>(length);
        // SAFETY: `from` has at least that many bytes; the helper checks the packet's side and makes it writable.
        unsafe { bpf_skb_store_bytes(raw(self), 0, from.as_ptr().cast(), length, 0) == 0 }
    }
    #[inline(always)]
    fn encapsulate(&self) -> bool {
        // SAFETY: a valid context; the verifier checks that no packet pointer is used across the call.
        unsafe { bpf_skb_adjust_room(raw(self), GROWTH as i32, BPF_ADJ_ROOM_MAC, VXLAN) == 0 }
    }
    #[inline(always)]
    fn take_room_back(&self) -> bool {
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
        // SAFETY: as above.
        unsafe { bpf_skb_adjust_room(raw(self), -(GROWTH as i32), BPF_ADJ_ROOM_MAC, flags) == 0 }
    }
    #[inline(always)]
    fn decapsulate(&self) -> bool {
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET);
        // SAFETY: as above.
        let done = unsafe { bpf_skb_adjust_room(raw(self), -(GROWTH as i32), BPF_ADJ_ROOM_MAC, flags) == 0 };
        if done {
            // The outer UDP checksum counts as one, also where it is none (`udp4_csum_init`, net/ipv4/udp.c).
            // SAFETY: as above. It refuses packets of which nothing was looked at, and leaves them as they are.
            unsafe { bpf_csum_level(raw(self), u64::from(BPF_CSUM_LEVEL_DEC)) };
        }
        done
    }
    #[inline(always)]
    fn redirect_peer(&self, ifindex: u32) -> i32 {
        // SAFETY: a valid context; the helpers take no other pointers.
        unsafe {
            if (*raw(self)).pkt_type != PACKET_HOST {
                bpf_skb_change_type(raw(self), PACKET_HOST);
            }
            bpf_redirect_peer(ifindex, 0) as i32
        }
    }
    #[inline(always)]
    fn redirect_copy(&self, ifindex: u32, flags: u64) {
        // SAFETY: a valid context; the verifier checks that no packet pointer is used across the call.
        unsafe { bpf_clone_redirect(raw(self), ifindex, flags) };
    }
}
