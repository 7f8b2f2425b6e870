//! A packet for host tests: what the programs see of it, and the kernel's helpers as net/core/filter.c has them.

use std::cell::{Cell, RefCell};

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use etherparse::PacketBuilder;
use netfast_common::csum;

use crate::{
    family::V4,
    parse::{Packet, parse},
    skb::{Header, RouteQuery, Skb},
};

/// Where a packet was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// `bpf_redirect`, with its flags.
    To(u32, u64),
    /// `bpf_redirect_peer`.
    ToPeer(u32),
}

/// A packet.
pub struct FakeSkb {
    /// What can be read now is the last of these; the others are what pulling has left behind, spoiled.
    buffers: RefCell<Vec<Vec<u8>>>,
    /// Bytes that can be read directly.
    pub linear: Cell<usize>,
    /// `EtherType`, in wire order.
    pub ethertype: u16,
    /// Whether a VLAN tag was taken off.
    pub vlan: bool,
    /// `skb->mark`.
    pub mark: Cell<u32>,
    /// `skb->priority`.
    pub priority: Cell<u32>,
    /// Payload bytes of each segment.
    pub gso_size: u32,
    /// Whether the checksum is left to the device (`CHECKSUM_PARTIAL`).
    pub partial: bool,
    /// The kernel has no memory.
    pub no_memory: bool,
    /// Where it was sent.
    pub sent: Cell<Option<Sent>>,
}

impl FakeSkb {
    /// All of it directly readable.
    pub fn new(bytes: &[u8]) -> Self {
        let ethertype = bytes.get(12..14).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]));
        Self {
            buffers: RefCell::new(vec![bytes.to_vec()]),
            linear: Cell::new(bytes.len()),
            ethertype,
            vlan: false,
            mark: Cell::new(0),
            priority: Cell::new(0),
            gso_size: 0,
            partial: false,
            no_memory: false,
            sent: Cell::new(None),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.buffers.borrow().last().expect("one").clone()
    }

    /// What the programs make of it.
    pub fn parsed(&self) -> Result<Packet<netfast_common::net::Ip4>, netfast_common::reason::Reason> {
        parse::<V4, _>(self)
    }

    fn change(&self, change: impl FnOnce(&mut [u8])) {
        change(self.buffers.borrow_mut().last_mut().expect("one"));
    }
}

impl Skb for FakeSkb {
    fn length(&self) -> u32 {
        self.bytes().len().try_into().expect("short")
    }
    fn data(&self) -> usize {
        self.buffers.borrow().last().expect("one").as_ptr().expose_provenance()
    }
    fn data_end(&self) -> usize {
        self.data() + self.linear.get()
    }
    fn ethertype(&self) -> u16 {
        self.ethertype
    }
    fn has_vlan(&self) -> bool {
        self.vlan
    }
    fn mark(&self) -> u32 {
        self.mark.get()
    }
    fn priority(&self) -> u32 {
        self.priority.get()
    }
    fn gso_size(&self) -> u32 {
        self.gso_size
    }
    fn ifindex(&self) -> u32 {
        2
    }
    fn ingress_ifindex(&self) -> u32 {
        2
    }
    fn pull(&self, length: u32) -> bool {
        let bytes = self.bytes();
        if self.no_memory || length as usize > bytes.len() {
            return false;
        }
        self.linear.set(self.linear.get().max(length as usize));
        // Whoever still reads the old place reads nonsense.
        self.change(|old| old.fill(0xee));
        self.buffers.borrow_mut().push(bytes);
        true
    }
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool {
        let bytes = self.bytes();
        let Some(part) = bytes.get(offset as usize..offset as usize + N) else {
            return false;
        };
        to[..N].copy_from_slice(part);
        true
    }
    fn capture(&self, length: u32, to: &mut [u8; netfast_common::trace::CAPTURE as usize]) -> u32 {
        let bytes = self.bytes();
        let count = (length as usize).min(to.len()).min(bytes.len());
        to[..count].copy_from_slice(&bytes[..count]);
        count.try_into().expect("short")
    }
    fn show(&self, _reason: u32, _out_ifindex: u32) {
        unreachable!("nobody traces in host tests")
    }
    fn is_wanted(&self, _reason: u32, _out_ifindex: u32) -> bool {
        unreachable!("nobody traces in host tests")
    }
    fn store_header<H: Header>(&self, header: &H) -> bool {
        if self.no_memory {
            return false;
        }
        let length = H::LENGTH as usize;
        assert_eq!(size_of::<H>(), length);
        // SAFETY: a header has no padding and this many bytes.
        let new = unsafe { core::slice::from_raw_parts((&raw const *header).cast::<u8>(), length) };
        self.change(|bytes| bytes[..length].copy_from_slice(new));
        true
    }
    /// `bpf_l4_csum_replace` with a size of 0, and `inet_proto_csum_replace_by_diff`.
    fn correct_checksum(&self, offset: u32, difference: u32, flags: u64) -> bool {
        let place = offset as usize;
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
    fn set_mark(&self, mark: u32) {
        self.mark.set(mark);
    }
    fn set_priority(&self, priority: u32) {
        self.priority.set(priority);
    }
    fn mtu(&self) -> Option<u32> {
        Some(1500)
    }
    fn is_for_host(&self, _: &RouteQuery) -> bool {
        false
    }
    fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
        self.sent.set(Some(Sent::To(ifindex, flags)));
        7
    }
    fn redirect_peer(&self, ifindex: u32) -> i32 {
        self.sent.set(Some(Sent::ToPeer(ifindex)));
        7
    }
}

/// A valid packet, as plain values.
#[derive(Clone, Debug)]
pub struct Plain {
    /// MAC addresses, source first.
    pub macs: [[u8; 6]; 2],
    /// Addresses, source first.
    pub addresses: [[u8; 4]; 2],
    /// Ports, source first.
    pub ports: [u16; 2],
    /// TTL.
    pub ttl: u8,
    /// TOS.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Don't fragment.
    pub df: bool,
    /// TCP: sequence, acknowledgement, window; UDP if there is none.
    pub tcp: Option<(u32, u32, u16)>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Plain {
    /// The frame, as etherparse makes it: an ACK with PSH if it is TCP.
    pub fn frame(&self) -> Vec<u8> {
        let mut ip = etherparse::Ipv4Header::new(
            0,
            self.ttl,
            etherparse::IpNumber(0),
            self.addresses[0],
            self.addresses[1],
        )
        .expect("short");
        ip.dscp = etherparse::IpDscp::try_new(self.tos >> 2).expect("six bits");
        ip.ecn = etherparse::IpEcn::try_new(self.tos & 3).expect("two bits");
        ip.identification = self.id;
        ip.dont_fragment = self.df;
        let builder = PacketBuilder::ethernet2(self.macs[0], self.macs[1])
            .ip(etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()));
        let mut bytes = Vec::new();
        match self.tcp {
            Some((sequence, acknowledgement, window)) => builder
                .tcp(self.ports[0], self.ports[1], sequence, window)
                .ack(acknowledgement)
                .psh()
                .write(&mut bytes, &self.payload),
            None => builder
                .udp(self.ports[0], self.ports[1])
                .write(&mut bytes, &self.payload),
        }
        .expect("a vector takes all");
        bytes
    }
}

/// Valid packets of all sorts.
pub fn plain() -> impl proptest::strategy::Strategy<Value = Plain> {
    use proptest::prelude::*;
    let link = (any::<[[u8; 6]; 2]>(), any::<[[u8; 4]; 2]>(), any::<[u16; 2]>());
    let ip = (any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>());
    let transport = (
        any::<Option<(u32, u32, u16)>>(),
        prop::collection::vec(any::<u8>(), 0..80),
    );
    (link, ip, transport).prop_map(|((macs, addresses, ports), (ttl, tos, id, df), (tcp, payload))| Plain {
        macs,
        addresses,
        ports,
        ttl,
        tos,
        id,
        df,
        tcp,
        payload,
    })
}
