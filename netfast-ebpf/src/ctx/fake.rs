//! The kernel's part, on the host: packets, the helpers as net/core/filter.c has them, and [`maps`].
//!
//! The programs' own code runs on it in unit tests, under the fuzzer, and beside the real kernel.

mod devmap;
mod frame;
mod maps;
#[cfg(test)]
mod plain;

use std::cell::{Cell, RefCell};

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use netfast_common::{
    csum,
    net::{Ip4, Ip6},
    trace::CAPTURE,
    tunnel::GROWTH,
};

pub use self::maps::{
    Array, HashMap, LruHashMap, PerCpuArray, RingBuf, coarse_ns, ns, random, reset, set_ns, set_random, set_stack,
    stack,
};
pub use self::{devmap::DevMapHash, frame::FakeFrame};
#[cfg(test)]
pub use self::{
    maps::set_contended,
    plain::{Plain, plain},
};
use super::{AF_INET, Ctx, Header, Headers, Part, RouteQuery, Skb};

/// Where a packet was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// `bpf_redirect`, with its flags.
    To(u32, u64),
    /// `bpf_redirect_peer`.
    ToPeer(u32),
}

/// A packet.
#[expect(clippy::struct_excessive_bools, reason = "one bit of the kernel's each")]
pub struct FakeSkb {
    /// All of it.
    bytes: RefCell<Vec<u8>>,
    /// What can be read directly now is the last of these, a copy in memory of its own; the others are what pulling has
    /// left behind, spoiled.
    linear: RefCell<Vec<Box<[u8]>>>,
    /// `EtherType`, in wire order.
    pub ethertype: u16,
    /// Whether a VLAN tag was taken off.
    pub vlan: bool,
    /// Whether its frame is for another MAC address than its interface's.
    pub for_another_mac: bool,
    /// `skb->mark`.
    pub mark: Cell<u32>,
    /// `skb->priority`.
    pub priority: Cell<u32>,
    /// Payload bytes of each segment.
    pub gso_size: u32,
    /// The interface whose hook runs.
    pub ifindex: u32,
    /// The interface it was received by last; 0 if it was made on this host.
    pub received_by: u32,
    /// MTU of the interface whose hook runs.
    pub mtu: u32,
    /// The host's own addresses.
    pub local: Vec<Ip4>,
    /// The same of IPv6.
    pub local6: Vec<Ip6>,
    /// Whether the checksum is left to the device (`CHECKSUM_PARTIAL`).
    pub partial: bool,
    /// What the device has summed up (`CHECKSUM_COMPLETE`), from the network header on.
    pub complete: Cell<Option<u32>>,
    /// Where its `struct sk_buff` is.
    pub address: u64,
    /// The number of its socket's network namespace.
    pub netns_cookie: u64,
    /// It is within a tunnel (`skb->encapsulation`).
    pub encapsulated: Cell<bool>,
    /// Checksums that the device has found to be right.
    pub verified: Cell<u32>,
    /// The kernel has no memory.
    pub no_memory: bool,
    /// Where it was sent.
    pub sent: Cell<Option<Sent>>,
    /// Where copies of it were sent, with their bytes and marks.
    pub copies: RefCell<Vec<(Sent, Vec<u8>, u32)>>,
}

impl FakeSkb {
    /// All of it directly readable.
    pub fn new(bytes: &[u8]) -> Self {
        let ethertype = bytes.get(12..14).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]));
        Self {
            bytes: RefCell::new(bytes.to_vec()),
            linear: RefCell::new(vec![bytes.into()]),
            ethertype,
            vlan: false,
            for_another_mac: false,
            mark: Cell::new(0),
            priority: Cell::new(0),
            gso_size: 0,
            ifindex: 2,
            received_by: 2,
            mtu: 1500,
            local: Vec::new(),
            local6: Vec::new(),
            partial: false,
            complete: Cell::new(None),
            address: 0,
            netns_cookie: 1,
            encapsulated: Cell::new(false),
            verified: Cell::new(0),
            no_memory: false,
            sent: Cell::new(None),
            copies: RefCell::default(),
        }
    }

    /// Only so many of its bytes are directly readable, the others are in fragments.
    #[must_use]
    pub fn with_linear(self, length: usize) -> Self {
        let length = length.min(self.bytes.borrow().len());
        self.make_linear(length);
        self
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// Another copy, so that whoever still reads the old place reads nonsense.
    fn make_linear(&self, length: usize) {
        let mut linear = self.linear.borrow_mut();
        if let Some(old) = linear.last_mut() {
            old.fill(0xee);
        }
        linear.push(self.bytes.borrow()[..length].into());
    }

    fn change(&self, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.bytes.borrow_mut();
        change(&mut bytes);
        let mut linear = self.linear.borrow_mut();
        let now = linear.last_mut().expect("one");
        let length = now.len();
        now.copy_from_slice(&bytes[..length]);
    }
}

impl Ctx for FakeSkb {
    const LEAVES_CHECKSUMS: bool = true;

    fn length(&self) -> u32 {
        self.bytes.borrow().len().try_into().expect("short")
    }
    fn data(&self) -> usize {
        self.linear.borrow().last().expect("one").as_ptr().expose_provenance()
    }
    fn data_end(&self) -> usize {
        self.data() + self.linear.borrow().last().expect("one").len()
    }
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool {
        let bytes = self.bytes.borrow();
        let Some(part) = bytes.get(offset as usize..offset as usize + N) else {
            return false;
        };
        to[..N].copy_from_slice(part);
        true
    }
    fn capture(&self, length: u32, to: &mut [u8; CAPTURE as usize]) -> u32 {
        let bytes = self.bytes.borrow();
        let count = (length as usize).min(to.len()).min(bytes.len());
        to[..count].copy_from_slice(&bytes[..count]);
        count.try_into().expect("short")
    }
    fn load_some<const N: usize>(&self, offset: u32, length: u32, to: &mut [u8; N]) -> bool {
        let bytes = self.bytes();
        let (start, length) = (offset as usize, length as usize);
        let Some(part) = bytes
            .get(start..start + length)
            .filter(|_| (1..=to.len()).contains(&length))
        else {
            return false;
        };
        to[..length].copy_from_slice(part);
        true
    }
    fn mtu(&self) -> Option<u32> {
        (self.mtu != 0).then_some(self.mtu)
    }
    fn is_for_host(&self, query: &RouteQuery) -> bool {
        match query.family {
            AF_INET => self.local.contains(&Ip4::from_wire(query.destination[0])),
            _ => self.local6.contains(&Ip6::from_wire(query.destination)),
        }
    }
    fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
        self.send(Sent::To(ifindex, flags))
    }
    fn ethertype(&self) -> u16 {
        self.ethertype
    }
    fn has_vlan(&self) -> bool {
        self.vlan
    }
    fn gso_size(&self) -> u32 {
        self.gso_size
    }
    fn pull(&self, length: u32) -> bool {
        let length = length as usize;
        if self.no_memory || length > self.bytes.borrow().len() {
            return false;
        }
        let now = self.linear.borrow().last().expect("one").len();
        self.make_linear(now.max(length));
        true
    }
    fn store_half(&self, offset: u32, half: u16) -> bool {
        let start = offset as usize;
        self.change(|bytes| bytes[start..start + 2].copy_from_slice(&half.to_ne_bytes()));
        true
    }
    fn resize(&self, length: u32) -> bool {
        if self.no_memory {
            return false;
        }
        self.bytes.borrow_mut().resize(length as usize, 0);
        self.make_linear(length as usize);
        true
    }
    fn store_header<H: Header>(&self, header: &H) -> bool {
        let length = H::LENGTH as usize;
        assert_eq!(size_of::<H>(), length);
        if self.no_memory || length > self.bytes.borrow().len() {
            return false;
        }
        // SAFETY: a header has no padding and this many bytes.
        let new = unsafe { core::slice::from_raw_parts((&raw const *header).cast::<u8>(), length) };
        self.change(|bytes| bytes[..length].copy_from_slice(new));
        true
    }
    fn verified(&self) -> u32 {
        self.verified.get()
    }
}

impl Skb for FakeSkb {
    fn is_for_another_mac(&self) -> bool {
        self.for_another_mac
    }
    fn mark(&self) -> u32 {
        self.mark.get()
    }
    fn priority(&self) -> u32 {
        self.priority.get()
    }
    fn ingress_ifindex(&self) -> u32 {
        self.received_by
    }
    fn netns_cookie(&self) -> u64 {
        self.netns_cookie
    }
    fn store_some<const N: usize>(&self, offset: u32, length: u32, from: &[u8; N]) -> bool {
        let (start, length) = (offset as usize, length as usize);
        if !(1..=from.len()).contains(&length) || start + length > self.bytes().len() {
            return false;
        }
        self.change(|bytes| bytes[start..start + length].copy_from_slice(&from[..length]));
        true
    }
    fn load_headers(&self, length: u32, to: &mut Headers) -> bool {
        let bytes = self.bytes();
        let Some(part) = bytes
            .get(..length as usize)
            .filter(|_| length as usize <= size_of_val(to))
        else {
            return false;
        };
        // SAFETY: numbers, of that many bytes.
        let to = unsafe { core::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u8>(), size_of::<Headers>()) };
        to[..part.len()].copy_from_slice(part);
        true
    }
    fn store_headers(&self, length: u32, from: &Headers) -> bool {
        // SAFETY: numbers, of that many bytes.
        let from = unsafe { core::slice::from_raw_parts(from.as_ptr().cast::<u8>(), size_of::<Headers>()) };
        let Some(part) = from.get(..length as usize) else {
            return false;
        };
        if self.no_memory || part.len() > self.bytes.borrow().len() {
            return false;
        }
        self.change(|bytes| bytes[..part.len()].copy_from_slice(part));
        true
    }
    /// `bpf_l4_csum_replace` with a size of 0, and `inet_proto_csum_replace_by_diff`.
    fn correct_checksum(&self, offset: u32, difference: u32, flags: u64) -> bool {
        let place = offset as usize;
        if place + 2 > self.bytes.borrow().len() {
            return false;
        }
        let is_pseudo = flags & u64::from(BPF_F_PSEUDO_HDR) != 0;
        let none_is_zero = flags & u64::from(BPF_F_MARK_MANGLED_0) != 0;
        self.change(|bytes| {
            let field = u16::from_ne_bytes([bytes[place], bytes[place + 1]]);
            if none_is_zero && field == 0 {
                return;
            }
            let mut new = field;
            if !self.partial {
                new = csum::apply(field, difference);
                if let Some(sum) = self.complete.get().filter(|_| is_pseudo) {
                    self.complete.set(Some(csum::difference(difference.into(), sum.into())));
                }
            } else if is_pseudo {
                new = csum::fold16(csum::fold32(u64::from(field) + u64::from(difference)));
            }
            if none_is_zero && new == 0 {
                new = 0xffff;
            }
            bytes[place..place + 2].copy_from_slice(&new.to_ne_bytes());
        });
        true
    }
    fn add_to_sum(&self, difference: u32) {
        let sum = self.complete.get();
        let sum = sum.map(|sum| csum::fold32(u64::from(sum) + u64::from(difference)));
        self.complete.set(sum);
    }
    fn note_address(&self, place: &mut u64) -> u64 {
        *place = self.address;
        self.address
    }
    fn stand_in(&self) -> u32 {
        0
    }
    fn set_mark(&self, mark: u32) {
        self.mark.set(mark);
    }
    fn set_priority(&self, priority: u32) {
        self.priority.set(priority);
    }
    fn encapsulate(&self) -> bool {
        if self.no_memory || self.encapsulated.replace(true) {
            return false;
        }
        let linear = self.linear.borrow().last().expect("one").len();
        self.bytes.borrow_mut().splice(14..14, [0; GROWTH as usize]);
        self.make_linear(linear + GROWTH as usize);
        true
    }
    fn take_room_back(&self) -> bool {
        self.bytes.borrow_mut().drain(14..14 + GROWTH as usize);
        self.make_linear(14);
        true
    }
    fn decapsulate(&self) -> bool {
        if self.no_memory {
            return false;
        }
        let linear = self.linear.borrow().last().expect("one").len();
        self.bytes.borrow_mut().drain(14..14 + GROWTH as usize);
        self.make_linear(linear - GROWTH as usize);
        self.verified.set(self.verified.get().saturating_sub(1));
        true
    }
    fn redirect_peer(&self, ifindex: u32) -> i32 {
        self.send(Sent::ToPeer(ifindex))
    }
    fn redirect_copy(&self, ifindex: u32, flags: u64) {
        let copy = (Sent::To(ifindex, flags), self.bytes(), self.mark());
        self.copies.borrow_mut().push(copy);
    }
}

impl FakeSkb {
    fn send(&self, to: Sent) -> i32 {
        let before = self.sent.replace(Some(to));
        assert_eq!(before, None, "a packet is sent once");
        TC_ACT_REDIRECT
    }
}

/// `bpf_csum_diff` with nothing to take away.
pub fn sum(bytes: &mut Part) -> u32 {
    let words = bytes
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes(word.try_into().expect("four")));
    csum::fold32(words.map(u64::from).sum())
}

/// `TC_ACT_REDIRECT`: what both redirects answer when all is well.
pub const TC_ACT_REDIRECT: i32 = 7;
