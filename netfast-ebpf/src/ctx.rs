//! What the kernel gives a program: the packet, by way of [`Ctx`] and [`Skb`], maps, clocks and chance.
//!
//! The only calls of packet helpers are here. The lowest layer: it knows nothing of headers.

use netfast_common::{trace::CAPTURE, vip::Syn};

pub mod atomic;
#[cfg(target_arch = "bpf")]
mod bounds;
#[cfg(not(target_arch = "bpf"))]
pub mod fake;
pub mod inner;
pub mod kernel;
#[cfg(target_arch = "bpf")]
mod tc;
#[cfg(target_arch = "bpf")]
mod xdp;

/// What tc and XDP programs have in common: a packet at a hook of an interface. A trait, so that host tests can run the
/// programs' own code on a packet of their making.
pub trait Ctx {
    /// Whether the checksum of a packet may be left to a device (`CHECKSUM_PARTIAL`) that is still to come, without the program's
    /// seeing it.
    const LEAVES_CHECKSUMS: bool;

    /// Bytes from the Ethernet header on, fragments included.
    fn length(&self) -> u32;
    /// Address of the first byte that can be read directly.
    fn data(&self) -> usize;
    /// Address after the last byte that can be read directly.
    fn data_end(&self) -> usize;
    /// The interface whose hook runs.
    fn ifindex(&self) -> u32;
    /// Copies `N` bytes out of the packet, wherever they are, to the start of a buffer.
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool;
    /// Copies the packet's first bytes, as many as there are and have room, and returns how many; 0 if the kernel
    /// refuses. `length` is the packet's.
    fn capture(&self, length: u32, to: &mut [u8; CAPTURE as usize]) -> u32;
    /// MTU of the interface whose hook runs, in bytes.
    fn mtu(&self) -> Option<u32>;
    /// Whether the kernel's routes would deliver a packet that came in by `ifindex` to the host itself.
    fn is_for_host(&self, query: &RouteQuery) -> bool;
    /// Copies `length` bytes, more than none and no more than there is room, a power of two, out of the packet.
    fn load_some<const N: usize>(&self, offset: u32, length: u32, to: &mut [u8; N]) -> bool;
    /// Sends the packet out of an interface, or with [`BPF_F_INGRESS`](aya_ebpf::bindings::BPF_F_INGRESS) into it;
    /// returns the program's verdict.
    fn redirect(&self, ifindex: u32, flags: u64) -> i32;
    /// `EtherType` as loaded from the header, in wire order.
    fn ethertype(&self) -> u16;
    /// Whether a VLAN tag was taken off the packet (`skb->vlan_present`).
    fn has_vlan(&self) -> bool;
    /// Payload bytes of each segment of a GSO packet; 0 if it is none.
    fn gso_size(&self) -> u32;
    /// Makes the first `length` bytes directly readable.
    fn pull(&self, length: u32) -> bool;
    /// Writes `header` over the start of the packet.
    fn store_header<H: Header>(&self, header: &H) -> bool;
    /// How many checksums, from the outermost on, the device has found to be right (`CHECKSUM_UNNECESSARY`,
    /// `skb->csum_level`).
    fn verified(&self) -> u32;
    /// Writes a 16-bit field in wire order.
    fn store_half(&self, offset: u32, half: u16) -> bool;
    /// Cuts the packet to this length in bytes, Ethernet header included, or makes it so long with zeros.
    fn resize(&self, length: u32) -> bool;
}

/// What only a packet in a `struct sk_buff` has, as tc programs see it.
pub trait Skb: Ctx {
    /// Whether its frame is for another MAC address than its interface's (`PACKET_OTHERHOST`).
    fn is_for_another_mac(&self) -> bool;
    /// `skb->mark`.
    fn mark(&self) -> u32;
    /// `skb->priority`.
    fn priority(&self) -> u32;
    /// The interface the packet was received by last (`skb->skb_iif`); 0 if it was made on this host.
    fn ingress_ifindex(&self) -> u32;
    /// The number, which is never given again, of the network namespace of the socket that sends it (Linux 6.15 for tc).
    fn netns_cookie(&self) -> u64;
    /// Corrects a transport checksum by a difference ([`netfast_common::csum::difference`]), whatever state of
    /// offloading it is in. `flags` are those of
    /// `bpf_l4_csum_replace`, of which `BPF_F_PSEUDO_HDR` is for changes of the pseudo header, that is of addresses.
    fn correct_checksum(&self, offset: u32, difference: u32, flags: u64) -> bool;
    /// Adds to the sum over the packet that its device took (`skb->csum` of `CHECKSUM_COMPLETE`), if it took one.
    fn add_to_sum(&self, difference: u32);
    /// Notes the address of this packet's `struct sk_buff` in a place of a map's, and returns it. By way of memory: the verifier
    /// lets no program calculate with it, but lets a privileged one store it, and what is loaded from a map is a number.
    fn note_address(&self, place: &mut u64) -> u64;
    /// What test runs of programs have instead of it: the first word of what the kernel's layers may note of a packet (`skb->cb`).
    fn stand_in(&self) -> u32;
    /// Sets `skb->mark`.
    fn set_mark(&self, mark: u32);
    /// Sets `skb->priority`.
    fn set_priority(&self, priority: u32);
    /// Writes `length` bytes, more than none and no more than the buffer has, a power of two, into the packet.
    fn store_some<const N: usize>(&self, offset: u32, length: u32, from: &[u8; N]) -> bool;
    /// Copies `length` bytes, more than none and no more than there is room, from the start of the packet.
    fn load_headers(&self, length: u32, to: &mut Headers) -> bool;
    /// Writes `length` bytes, more than none and no more than there are, over the start of the packet.
    fn store_headers(&self, length: u32, from: &Headers) -> bool;
    /// Makes room for the headers of VXLAN over IPv4 between the Ethernet header and the network header, of
    /// [`GROWTH`](netfast_common::tunnel::GROWTH) bytes, and tells the kernel that the packet is within a tunnel now: its
    /// segments, if it is a GSO packet, get these headers each. `false` leaves it as it was.
    fn encapsulate(&self) -> bool;
    /// Takes that room away again, before anything was written.
    fn take_room_back(&self) -> bool;
    /// Takes what stands between the Ethernet header and the network header of the frame inside away, of
    /// [`GROWTH`](netfast_common::tunnel::GROWTH) bytes, and one checksum with it of those that the device has found to be right.
    /// `false` leaves it as it was.
    ///
    /// That the packet is within a tunnel (`skb->encapsulation`, `SKB_GSO_UDP_TUNNEL`) no helper takes back: what the kernel notes of
    /// the headers inside are its only headers then, and right.
    fn decapsulate(&self) -> bool;
    /// Hands the packet to the other end of a veth, as one that is addressed to it. A frame that was bridged is for
    /// somebody else's MAC to the host (`PACKET_OTHERHOST`), and before kernel 6.15 nobody looks at it again.
    fn redirect_peer(&self, ifindex: u32) -> i32;
    /// Sends a copy out of an interface, or into it, as [`Ctx::redirect`] does with the packet. Nothing can be read directly
    /// of the packet afterwards that could before.
    fn redirect_copy(&self, ifindex: u32, flags: u64);
}

/// On to the next program of the chain, then the stack: `TCX_NEXT`, and for clsact `TC_ACT_UNSPEC`. Never `TC_ACT_OK`,
/// which would end the chain and skip other people's programs.
pub const NEXT: i32 = -1;

/// Of an XDP program: on to the stack, and the tc programs in it (`XDP_PASS`).
pub const XDP_PASS: u32 = 2;
/// Of an XDP program: where [`DevMapHash::redirect`](kernel::DevMapHash::redirect) said (`XDP_REDIRECT`).
pub const XDP_REDIRECT: u32 = 4;

/// Linux's number of the IPv4 family (`socket.h`).
pub const AF_INET: u8 = 2;
/// Linux's number of the IPv6 family (`socket.h`).
pub const AF_INET6: u8 = 10;

/// Bytes that are summed up at a time: what `bpf_csum_diff` takes on all kernels (`MAX_BPF_STACK`); a power of two.
pub const PART: u32 = 512;
/// Room for them.
pub type Part = [u8; PART as usize];

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
    /// TOS or traffic class.
    pub tos: u8,
    /// Where the packet came in.
    pub ifindex: u32,
    /// Source address, in words in wire order.
    pub source: [u32; 4],
    /// Destination address, in words in wire order.
    pub destination: [u32; 4],
}
