//! A frame that is in no `struct sk_buff`, as XDP programs see it.

use netfast_common::trace::CAPTURE;

use super::FakeSkb;
use crate::ctx::{Ctx, Header, RouteQuery};

/// A frame.
pub struct FakeFrame(pub FakeSkb);

impl FakeFrame {
    /// Of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(FakeSkb::new(bytes))
    }
}

impl Ctx for FakeFrame {
    const LEAVES_CHECKSUMS: bool = false;

    fn length(&self) -> u32 {
        self.0.length()
    }
    fn data(&self) -> usize {
        self.0.data()
    }
    fn data_end(&self) -> usize {
        self.0.data_end()
    }
    fn ifindex(&self) -> u32 {
        self.0.ifindex()
    }
    fn load<const N: usize>(&self, offset: u32, to: &mut [u8; 16]) -> bool {
        self.0.load::<N>(offset, to)
    }
    fn capture(&self, length: u32, to: &mut [u8; CAPTURE as usize]) -> u32 {
        self.0.capture(length, to)
    }
    fn mtu(&self) -> Option<u32> {
        None
    }
    fn is_for_host(&self, _: &RouteQuery) -> bool {
        false
    }
    fn load_some<const N: usize>(&self, offset: u32, length: u32, to: &mut [u8; N]) -> bool {
        self.0.load_some(offset, length, to)
    }
    fn redirect(&self, ifindex: u32, flags: u64) -> i32 {
        self.0.redirect(ifindex, flags)
    }
    fn ethertype(&self) -> u16 {
        let bytes = self.0.bytes();
        bytes.get(12..14).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]))
    }
    fn has_vlan(&self) -> bool {
        false
    }
    fn gso_size(&self) -> u32 {
        0
    }
    fn pull(&self, _: u32) -> bool {
        false
    }
    fn store_header<H: Header>(&self, header: &H) -> bool {
        self.0.store_header(header)
    }
    fn verified(&self) -> u32 {
        0
    }
    fn store_half(&self, offset: u32, half: u16) -> bool {
        self.0.store_half(offset, half)
    }
    fn resize(&self, length: u32) -> bool {
        self.0.resize(length)
    }
}
