//! The netlink encoding: messages and attributes (linux/netlink.h), read without trusting a length.
//!
//! It is shared by rtnetlink, nfnetlink and `nf_tables`. Why not the `rtnetlink` crate: it drops a message that it cannot
//! decode with no more than a line in the log, so that one new attribute could make a link vanish from a snapshot, and
//! it does not see `NLM_F_DUMP_INTR`, so that a torn dump looks whole. Both would make the daemon take away what is
//! still there. Here unknown attributes are skipped, and a message without what is needed is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::world::Mac;

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Without the flags `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;

/// One netlink message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram. It ends at the first one whose length cannot be true.
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let len = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..len)?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            seq: u32_at(bytes, 8)?,
            payload,
        };
        self.0 = bytes.get(align(len)..).unwrap_or_default();
        Some(message)
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// `nla_type` without its flags.
    pub kind: u16,
    /// Its content.
    pub payload: &'a [u8],
}

/// A run of attributes. It ends at the first one whose length cannot be true.
#[derive(Clone, Copy, Debug)]
pub struct Attrs<'a>(pub &'a [u8]);

/// The attributes of a run, one by one.
pub struct AttrIter<'a>(&'a [u8]);

impl<'a> IntoIterator for Attrs<'a> {
    type Item = Attr<'a>;
    type IntoIter = AttrIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        AttrIter(self.0)
    }
}

impl<'a> Iterator for AttrIter<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        let len = usize::from(u16_at(bytes, 0)?);
        let payload = bytes.get(4..len)?;
        let attr = Attr {
            kind: u16_at(bytes, 2)? & TYPE_MASK,
            payload,
        };
        self.0 = bytes.get(align(len)..).unwrap_or_default();
        Some(attr)
    }
}

impl<'a> Attrs<'a> {
    /// The attributes after a fixed header of `len` bytes.
    pub fn after(payload: &'a [u8], len: usize) -> Self {
        Self(payload.get(len..).unwrap_or_default())
    }

    /// One by one.
    pub fn iter(self) -> AttrIter<'a> {
        self.into_iter()
    }

    /// The first attribute of that kind.
    pub fn find(self, kind: u16) -> Option<Attr<'a>> {
        self.iter().find(|attr| attr.kind == kind)
    }
}

impl<'a> Attr<'a> {
    /// The attributes nested in it.
    pub fn nested(self) -> Attrs<'a> {
        Attrs(self.payload)
    }

    /// Its first byte.
    pub fn u8(self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// A switch of one byte.
    pub fn flag(self) -> bool {
        self.u8().is_some_and(|byte| byte != 0)
    }

    /// A number of two bytes in host order.
    pub fn u16(self) -> Option<u16> {
        u16_at(self.payload, 0)
    }

    /// A number of four bytes in host order.
    pub fn u32(self) -> Option<u32> {
        u32_at(self.payload, 0)
    }

    /// A signed number of four bytes in host order.
    pub fn i32(self) -> Option<i32> {
        self.u32().map(u32::cast_signed)
    }

    /// A number of four bytes in network order, as `nf_tables` has them.
    pub fn be32(self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.get(..4)?.try_into().ok()?))
    }

    /// A number of eight bytes in network order.
    pub fn be64(self) -> Option<u64> {
        Some(u64::from_be_bytes(self.payload.get(..8)?.try_into().ok()?))
    }

    /// A text, up to its terminating zero. Bytes that are not UTF-8 are replaced.
    pub fn text(self) -> String {
        text(self.payload)
    }

    /// An IPv4 or IPv6 address, by its length.
    pub fn ip(self) -> Option<IpAddr> {
        ip(self.payload)
    }

    /// An Ethernet address.
    pub fn mac(self) -> Option<Mac> {
        Some(Mac(self.payload.try_into().ok()?))
    }
}

/// A text, up to its terminating zero.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An address of 4 or 16 bytes.
pub fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

/// Two bytes in host order.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(
        bytes.get(offset..offset.checked_add(2)?)?.try_into().ok()?,
    ))
}

/// Four bytes in host order.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(
        bytes.get(offset..offset.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// `NLMSG_ALIGN` and `NLA_ALIGN`.
fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// A request being built. The sequence number is set when it is sent.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request with the fixed header of its family (`struct ifinfomsg`, `nfgenmsg`, ...).
    pub fn new(kind: u16, flags: u16, family_header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(family_header);
        Self(bytes).padded()
    }

    /// Appends an attribute. It must be shorter than 64 KiB.
    pub fn attr(mut self, kind: u16, payload: &[u8]) -> Self {
        let len = u16::try_from(payload.len() + 4).expect("requests are built from short attributes");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.padded()
    }

    /// The finished bytes.
    pub fn finish(&self, seq: u32) -> Vec<u8> {
        let mut bytes = self.0.clone();
        let len = u32::try_from(bytes.len()).expect("requests are short");
        bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        bytes
    }

    fn padded(mut self) -> Self {
        self.0.resize(align(self.0.len()), 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_round_trip() {
        const NESTED: u16 = 1 << 15;
        let bytes = Request::new(18, 5, &[7; 3])
            .attr(3, b"eth0\0")
            .attr(4 | NESTED, &9u32.to_ne_bytes())
            .finish(42);
        let message = Messages(&bytes).next().expect("one message");
        assert_eq!((message.kind, message.flags, message.seq), (18, 5, 42));
        let attrs = Attrs::after(message.payload, 4);
        assert_eq!(attrs.find(3).expect("the name").text(), "eth0");
        assert_eq!(attrs.find(4).expect("the number").u32(), Some(9));
        assert!(attrs.find(5).is_none());
        assert_eq!(attrs.iter().count(), 2);
    }

    #[test]
    fn lengths_that_lie_end_the_iteration() {
        // Too short for its own header, longer than the buffer, cut in the header.
        for bytes in [&[3, 0, 1, 0][..], &[9, 0, 1, 0, 1, 2, 3, 4], &[8, 0, 1]] {
            assert_eq!(Attrs(bytes).iter().count(), 0, "{bytes:?}");
        }
        let mut bytes = Request::new(1, 0, &[]).finish(0);
        bytes[0] = 15;
        assert_eq!(Messages(&bytes).count(), 0);
        bytes[0] = 17;
        assert_eq!(Messages(&bytes).count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(Messages(&bytes).count() <= bytes.len() / HEADER);
            prop_assert!(Attrs(&bytes).iter().count() <= bytes.len() / 4);
        }
    }
}
