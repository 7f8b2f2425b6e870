//! The packet as the kernel hands it to a tc program: the only calls of packet helpers.

use netfast_common::{alias::MESSAGE, trace::CAPTURE, vip::Syn};

use crate::{
    checksum::Part,
    dns::{Buffer, Step},
};

/// What the programs read of a packet and ask of the kernel. A trait, so that host tests can run the programs' own
/// code on a packet of their making.
pub trait Skb {
    /// Bytes from the Ethernet header on, fragments included.
    fn length(&self) -> u32;
    /// Address of the first byte that can be read directly.
    fn data(&self) -> usize;
    /// Address after the last byte that can be read directly.
    fn data_end(&self) -> usize;
    /// `EtherType` as loaded from the header, in wire order.
    fn ethertype(&self) -> u16;
    /// Whether a VLAN tag was taken off the packet (`skb->vlan_present`).
    fn has_vlan(&self) -> bool;
    /// `skb->mark`.
    fn mark(&self) -> u32;
    /// `skb->priority`.
    fn priority(&self) -> u32;
    /// Payload bytes of each segment of a GSO packet; 0 if it is none.
    fn gso_size(&self) -> u32;
    /// The interface whose hook runs.
    fn ifindex(&self) -> u32;
    /// The interface the packet was received by last (`skb->skb_iif`); 0 if it was made on this host.
    fn ingress_ifindex(&self) -> u32;
    /// Makes the first `length` bytes directly readable.
    fn pull(&self, length: u32) -> bool;
    /// Copies `N` bytes out of the packet, wherever they are, to the start of a buffer.
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool;
    /// Copies the packet's first bytes, as many as there are and have room, and returns how many; 0 if the kernel
    /// refuses. `length` is the packet's.
    fn capture(&self, length: u32, to: &mut [u8; CAPTURE as usize]) -> u32;
    /// Writes `header` over the start of the packet.
    fn store_header<H: Header>(&self, header: &H) -> bool;
    /// Corrects a transport checksum by a difference ([`netfast_common::csum::difference`]), whatever state of
    /// offloading it is in. `pseudo` for changes of the pseudo header, that is of addresses.
    fn correct_checksum(&self, offset: u32, difference: u32, flags: u64) -> bool;
    /// Sets `skb->mark`.
    fn set_mark(&self, mark: u32);
    /// Sets `skb->priority`.
    fn set_priority(&self, priority: u32);
    /// Whether the device has found the transport checksum to be right (`CHECKSUM_UNNECESSARY`).
    fn is_verified(&self) -> bool;
    /// Runs [`checksum::examine`](crate::checksum::examine) out of line.
    fn has_sound_checksum(&self, field: u32, pseudo: u32, offset: u32, length: u32) -> bool;
    /// Runs [`checksum::sum_parts`](crate::checksum::sum_parts) out of line.
    fn sum_parts(&self, offset: u32, parts: u32) -> u32;
    /// Runs [`checksum::sum_rest`](crate::checksum::sum_rest) out of line.
    fn sum_rest(&self, offset: u32, length: u32) -> u32;
    /// Copies `length` bytes, more than none and no more than there is room, out of the packet.
    fn load_part(&self, offset: u32, length: u32, to: &mut Part) -> bool;
    /// MTU of the interface whose hook runs, in bytes.
    fn mtu(&self) -> Option<u32>;
    /// Whether the kernel's routes would deliver a packet that came in by `ifindex` to the host itself.
    fn is_for_host(&self, query: &RouteQuery) -> bool;
    /// Shows the packet to a tracer ([`trace::show`](crate::trace::show)), out of line.
    fn show(&self, reason: u32, out_ifindex: u32);
    /// Whether a tracer wants to see the packet ([`trace::is_wanted`](crate::trace::is_wanted)), out of line.
    fn is_wanted(&self, reason: u32, out_ifindex: u32) -> bool;
    /// Copies `length` bytes, more than none and no more than there is room, out of the packet.
    fn load_message(&self, offset: u32, length: u32, to: &mut [u8; MESSAGE as usize]) -> bool;
    /// Writes `length` bytes, more than none and no more than the buffer has, into the packet.
    fn store_message(&self, offset: u32, length: u32, from: &[u8; MESSAGE as usize]) -> bool;
    /// Writes a 16-bit field in wire order.
    fn store_half(&self, offset: u32, half: u16) -> bool;
    /// Copies `length` bytes, more than none and no more than there is room, from the start of the packet.
    fn load_headers(&self, length: u32, to: &mut Headers) -> bool;
    /// Writes `length` bytes, more than none and no more than there are, over the start of the packet.
    fn store_headers(&self, length: u32, from: &Headers) -> bool;
    /// Cuts the packet to this length in bytes, Ethernet header included, or makes it so long with zeros.
    fn resize(&self, length: u32) -> bool;
    /// Runs a step of [`dns`](crate::dns) out of line, on this CPU's buffer.
    fn dns_step(&self, step: Step, buffer: Buffer) -> u32;
    /// Runs [`vip::member`](crate::vip::member) out of line.
    fn vip_member(&self, opens: u32, flags: u32) -> u32;
    /// Runs [`vip::talk`](crate::vip::talk) out of line.
    fn vip_talk(&self, way: u32) -> u32;
    /// Runs [`vip::retry::refused`](crate::vip::retry::refused) out of line.
    fn vip_retry(&self) -> u32;
    /// Runs [`vip::icmp::message`](crate::vip::icmp::message) out of line.
    fn vip_icmp(&self, way: u32) -> u32;
    /// Sends the packet out of an interface, or with [`BPF_F_INGRESS`](aya_ebpf::bindings::BPF_F_INGRESS) into it;
    /// returns the program's verdict.
    fn redirect(&self, ifindex: u32, flags: u64) -> i32;
    /// Hands the packet to the other end of a veth, as one that is addressed to it. A frame that was bridged is for
    /// somebody else's MAC to the host (`PACKET_OTHERHOST`), and before kernel 6.15 nobody looks at it again.
    fn redirect_peer(&self, ifindex: u32) -> i32;
}

#[cfg(target_arch = "bpf")]
pub use self::global::{vip_another, vip_choose};
#[cfg(not(target_arch = "bpf"))]
pub use crate::vip::{choose::choose as vip_choose, retry::another as vip_another};

/// All headers of a packet, and room.
pub type Headers = [u16; Syn::ROOM];

/// The first bytes of a packet, as a type without padding.
pub trait Header {
    /// Its length in bytes.
    const LENGTH: u32;
}

/// A question to the kernel's routes.
pub struct RouteQuery {
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// TOS of an IPv4 packet.
    pub tos: u8,
    /// Where the packet came in.
    pub ifindex: u32,
    /// Source address, in words in wire order.
    pub source: [u32; 4],
    /// Destination address, in words in wire order.
    pub destination: [u32; 4],
}

#[cfg(target_arch = "bpf")]
mod global;

#[cfg(target_arch = "bpf")]
mod kernel {
    use aya_ebpf::{
        bindings::{__sk_buff, BPF_CSUM_LEVEL_QUERY, BPF_FIB_LKUP_RET_NOT_FWDED, bpf_fib_lookup},
        helpers::generated::{
            bpf_check_mtu, bpf_csum_level, bpf_fib_lookup as bpf_fib_lookup_helper, bpf_l4_csum_replace, bpf_redirect,
            bpf_redirect_peer, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data,
            bpf_skb_store_bytes,
        },
        programs::TcContext,
    };

    use super::global::{
        netfast_dns_place, netfast_dns_question, netfast_dns_record, netfast_dns_shorten, netfast_dns_sum,
        netfast_dns_virtual, netfast_rest, netfast_show, netfast_sound, netfast_sum, netfast_vip_icmp,
        netfast_vip_member, netfast_vip_retry, netfast_vip_talk, netfast_wanted,
    };
    use super::{Buffer, CAPTURE, Header, Headers, MESSAGE, Part, RouteQuery, Skb, Step};
    use crate::{checksum::PART, family::AF_INET};

    /// `if_packet.h`: addressed to this host.
    const PACKET_HOST: u32 = 0;

    #[inline(always)]
    fn raw(context: &TcContext) -> *mut __sk_buff {
        context.skb.skb
    }

    /// A length of 1 to `MOST` bytes, a power of two, as it is; others are made such. The compiler would check one copy of the
    /// number and pass another, for which the verifier then knows no bounds.
    #[inline(always)]
    fn bounded<const MOST: u32>(length: u32) -> u32 {
        let mut length = u64::from(length);
        // SAFETY: arithmetic on a register.
        unsafe {
            core::arch::asm!(
                "{length} += -1",
                "{length} &= {mask}",
                "{length} += 1",
                length = inout(reg) length,
                mask = const MOST - 1,
                options(pure, nomem, nostack),
            );
        }
        length as u32
    }

    macro_rules! field {
        ($context:expr, $field:ident) => {
            // SAFETY: the kernel hands the program a valid context and rewrites loads of its fields.
            unsafe { (*raw($context)).$field }
        };
    }

    impl Skb for TcContext {
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
        #[expect(clippy::cast_possible_truncation, reason = "__sk_buff widens the 16-bit field")]
        fn ethertype(&self) -> u16 {
            field!(self, protocol) as u16
        }
        #[inline(always)]
        fn has_vlan(&self) -> bool {
            field!(self, vlan_present) != 0
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
        fn gso_size(&self) -> u32 {
            field!(self, gso_size)
        }
        #[inline(always)]
        fn ifindex(&self) -> u32 {
            field!(self, ifindex)
        }
        #[inline(always)]
        fn ingress_ifindex(&self) -> u32 {
            field!(self, ingress_ifindex)
        }
        #[inline(always)]
        fn pull(&self, length: u32) -> bool {
            // SAFETY: a valid context; the verifier checks that no packet pointer is used across the call.
            unsafe { bpf_skb_pull_data(raw(self), length) == 0 }
        }
        #[inline(always)]
        fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool {
            const { assert!(N <= 16) }
            // SAFETY: `to` has at least N bytes; the helper checks the packet's side.
            unsafe { bpf_skb_load_bytes(raw(self).cast(), offset, to.as_mut_ptr().cast(), N as u32) == 0 }
        }
        #[inline(always)]
        fn capture(&self, length: u32, to: &mut [u8; CAPTURE as usize]) -> u32 {
            let bytes = length.min(CAPTURE);
            // The verifier wants to see that it is not none.
            if bytes == 0 {
                return 0;
            }
            // SAFETY: `to` has at least that many bytes; the helper checks the packet's side.
            let done = unsafe { bpf_skb_load_bytes(raw(self).cast(), 0, to.as_mut_ptr().cast(), bytes) };
            if done == 0 { bytes } else { 0 }
        }
        #[inline(always)]
        fn store_header<H: Header>(&self, header: &H) -> bool {
            // SAFETY: `header` has that many bytes; the helper checks the packet's side and makes it writable.
            unsafe { bpf_skb_store_bytes(raw(self), 0, (&raw const *header).cast(), H::LENGTH, 0) == 0 }
        }
        #[inline(always)]
        fn correct_checksum(&self, offset: u32, difference: u32, flags: u64) -> bool {
            // SAFETY: a valid context; with a size of 0 (no bits in the low nibble of flags) `to` is a difference.
            unsafe { bpf_l4_csum_replace(raw(self), offset, 0, u64::from(difference), flags) == 0 }
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
        fn is_verified(&self) -> bool {
            // SAFETY: a valid context. It answers the number of checksums that were found right, or an error where none
            // was looked at (kernel 5.8, 7cdec54f9713).
            unsafe { bpf_csum_level(raw(self), u64::from(BPF_CSUM_LEVEL_QUERY)) >= 0 }
        }
        #[inline(always)]
        fn has_sound_checksum(&self, field: u32, pseudo: u32, offset: u32, length: u32) -> bool {
            netfast_sound(raw(self), field, pseudo, offset, length) != 0
        }
        #[inline(always)]
        fn sum_parts(&self, offset: u32, parts: u32) -> u32 {
            netfast_sum(raw(self), offset, parts)
        }
        #[inline(always)]
        fn sum_rest(&self, offset: u32, length: u32) -> u32 {
            netfast_rest(raw(self), offset, length)
        }
        #[inline(always)]
        fn load_part(&self, offset: u32, length: u32, to: &mut Part) -> bool {
            let length = bounded::<PART>(length);
            // SAFETY: `to` has at least that many bytes; the helper checks the packet's side.
            unsafe { bpf_skb_load_bytes(raw(self).cast(), offset, to.as_mut_ptr().cast(), length) == 0 }
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
                parameters.__bindgen_anon_3.ipv6_src = query.source;
                parameters.__bindgen_anon_4.ipv6_dst = query.destination;
            }
            let length = size_of::<bpf_fib_lookup>() as i32;
            // SAFETY: a valid context and parameters of the length given.
            let answer = unsafe { bpf_fib_lookup_helper(raw(self).cast(), &raw mut parameters, length, 0) };
            // The kernel says so of every route that is not unicast; the gate has refused multicast and broadcast, so
            // it is a local one (net/core/filter.c, bpf_ipv4_fib_lookup).
            answer == i64::from(BPF_FIB_LKUP_RET_NOT_FWDED)
        }
        #[inline(always)]
        fn show(&self, reason: u32, out_ifindex: u32) {
            netfast_show(raw(self), reason, out_ifindex);
        }
        #[inline(always)]
        fn is_wanted(&self, reason: u32, out_ifindex: u32) -> bool {
            netfast_wanted(raw(self), reason, out_ifindex) != 0
        }
        #[inline(always)]
        fn load_message(&self, offset: u32, length: u32, to: &mut [u8; MESSAGE as usize]) -> bool {
            let length = bounded::<MESSAGE>(length);
            // SAFETY: `to` has at least that many bytes; the helper checks the packet's side.
            unsafe { bpf_skb_load_bytes(raw(self).cast(), offset, to.as_mut_ptr().cast(), length) == 0 }
        }
        #[inline(always)]
        fn store_message(&self, offset: u32, length: u32, from: &[u8; MESSAGE as usize]) -> bool {
            let length = bounded::<MESSAGE>(length);
            // SAFETY: `from` has at least that many bytes; the helper checks the packet's side and makes it writable.
            unsafe { bpf_skb_store_bytes(raw(self), offset, from.as_ptr().cast(), length, 0) == 0 }
        }
        #[inline(always)]
        fn store_half(&self, offset: u32, half: u16) -> bool {
            // SAFETY: as above, two bytes.
            unsafe { bpf_skb_store_bytes(raw(self), offset, (&raw const half).cast(), 2, 0) == 0 }
        }
        #[inline(always)]
        fn load_headers(&self, length: u32, to: &mut Headers) -> bool {
            let length = bounded::<{ size_of::<Headers>() as u32 }>(length);
            // SAFETY: `to` has at least that many bytes; the helper checks the packet's side.
            unsafe { bpf_skb_load_bytes(raw(self).cast(), 0, to.as_mut_ptr().cast(), length) == 0 }
        }
        #[inline(always)]
        fn store_headers(&self, length: u32, from: &Headers) -> bool {
            let length = bounded::<{ size_of::<Headers>() as u32 }>(length);
            // SAFETY: `from` has at least that many bytes; the helper checks the packet's side and makes it writable.
            unsafe { bpf_skb_store_bytes(raw(self), 0, from.as_ptr().cast(), length, 0) == 0 }
        }
        #[inline(always)]
        fn resize(&self, length: u32) -> bool {
            // SAFETY: a valid context; the verifier checks that no packet pointer is used across the call.
            unsafe { bpf_skb_change_tail(raw(self), length, 0) == 0 }
        }
        #[inline(always)]
        fn dns_step(&self, step: Step, _buffer: Buffer) -> u32 {
            match step {
                Step::Question => netfast_dns_question(),
                Step::Record(index) => netfast_dns_record(index),
                Step::Place(index) => netfast_dns_place(index),
                Step::Virtual => netfast_dns_virtual(),
                Step::Shorten => netfast_dns_shorten(),
                Step::Sum => netfast_dns_sum(),
            }
        }
        #[inline(always)]
        fn vip_member(&self, opens: u32, flags: u32) -> u32 {
            netfast_vip_member(opens, flags)
        }
        #[inline(always)]
        fn vip_talk(&self, way: u32) -> u32 {
            netfast_vip_talk(raw(self), way)
        }
        #[inline(always)]
        fn vip_retry(&self) -> u32 {
            netfast_vip_retry(raw(self))
        }
        #[inline(always)]
        fn vip_icmp(&self, way: u32) -> u32 {
            netfast_vip_icmp(raw(self), way)
        }
        #[inline(always)]
        fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
            // SAFETY: no pointers.
            unsafe { bpf_redirect(ifindex, flags) as i32 }
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
    }
}
