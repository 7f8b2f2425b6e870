//! Messages and their attributes (linux/netlink.h), read without trusting a length, and requests.

use std::net::IpAddr;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NetlinkBuffer, NetlinkSerializable, NlaBuffer, NlasIterator, Parseable, ParseableParametrized,
    parse_i32, parse_ip, parse_mac, parse_u8, parse_u16, parse_u32, parse_u32_be, parse_u64_be,
};

use super::Malformed;

/// Length of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// `NLMSG_ALIGNTO` and `NLA_ALIGNTO`.
const ALIGN: usize = 4;

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

/// The messages of one datagram. One whose length cannot be true is an error, and the last.
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let buffer = match NetlinkBuffer::new_checked(bytes) {
            Ok(buffer) => buffer,
            Err(error) => return Some(Err(error.into())),
        };
        let len = buffer.length() as usize;
        self.0 = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Ok(Message {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            seq: buffer.sequence_number(),
            payload: buffer.payload(),
        }))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// `nla_type` without its flags.
    pub kind: u16,
    /// Its content.
    pub payload: &'a [u8],
    nla: NlaBuffer<&'a [u8]>,
}

impl<'a> From<NlaBuffer<&'a [u8]>> for Attr<'a> {
    fn from(nla: NlaBuffer<&'a [u8]>) -> Self {
        Self {
            kind: nla.kind(),
            payload: &nla.into_inner()[NLA_HEADER_SIZE..usize::from(nla.length())],
            nla,
        }
    }
}

/// The attributes of a run as they come, each with its length checked. After one whose length cannot be true there is
/// none.
pub fn walk(bytes: &[u8]) -> impl Iterator<Item = Result<Attr<'_>, Malformed>> {
    NlasIterator::new(bytes).map(|nla| Ok(nla?.into()))
}

/// The bytes after a message's fixed header.
pub fn after(payload: &[u8], header: usize) -> Result<&[u8], Malformed> {
    payload
        .get(header..)
        .ok_or(Malformed::wrong("it is shorter than its header"))
}

/// A run of attributes whose lengths have all been checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// Checks a run.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        walk(bytes).try_for_each(|attr| attr.map(drop))?;
        Ok(Self(bytes))
    }

    /// The attributes after a fixed header of `len` bytes.
    pub fn after(payload: &'a [u8], len: usize) -> Result<Self, Malformed> {
        Self::new(after(payload, len)?)
    }

    /// One by one.
    pub fn iter(self) -> impl Iterator<Item = Attr<'a>> {
        walk(self.0).map_while(Result::ok)
    }

    /// The first attribute of that kind.
    pub fn find(self, kind: u16) -> Option<Attr<'a>> {
        self.iter().find(|attr| attr.kind == kind)
    }

    /// The first attribute of that kind, which must be there.
    pub fn need(self, kind: u16, name: &'static str) -> Result<Attr<'a>, Malformed> {
        self.find(kind).ok_or_else(|| Malformed::missing(name))
    }

    /// The attributes nested in the first one of that kind; none if there is none.
    pub fn inside(self, kind: u16) -> Result<Self, Malformed> {
        self.find(kind).map_or(Ok(Self::default()), Attr::nested)
    }
}

impl<'a> Attr<'a> {
    /// The attributes nested in it.
    pub fn nested(self) -> Result<Attrs<'a>, Malformed> {
        Attrs::new(self.payload)
    }

    /// As a type of one of the packet crates.
    pub fn decode<T: Parseable<NlaBuffer<&'a [u8]>>>(self) -> Result<T, Malformed> {
        Ok(T::parse(&self.nla)?)
    }

    /// The same for a type that needs to know more.
    pub fn decode_with<T: ParseableParametrized<NlaBuffer<&'a [u8]>, P>, P>(self, with: P) -> Result<T, Malformed> {
        Ok(T::parse_with_param(&self.nla, with)?)
    }

    /// A number of one byte.
    pub fn u8(self) -> Result<u8, Malformed> {
        Ok(parse_u8(self.payload)?)
    }

    /// A switch of one byte.
    pub fn flag(self) -> Result<bool, Malformed> {
        Ok(self.u8()? != 0)
    }

    /// A number of two bytes in host order.
    pub fn u16(self) -> Result<u16, Malformed> {
        Ok(parse_u16(self.payload)?)
    }

    /// A number of four bytes in host order.
    pub fn u32(self) -> Result<u32, Malformed> {
        Ok(parse_u32(self.payload)?)
    }

    /// An index of four bytes, of which 0 is none.
    pub fn index(self) -> Result<Option<u32>, Malformed> {
        Ok(Some(self.u32()?).filter(|index| *index != 0))
    }

    /// A signed number of four bytes in host order.
    pub fn i32(self) -> Result<i32, Malformed> {
        Ok(parse_i32(self.payload)?)
    }

    /// A number of four bytes in network order, as `nf_tables` has them.
    pub fn be32(self) -> Result<u32, Malformed> {
        Ok(parse_u32_be(self.payload)?)
    }

    /// A number of eight bytes in network order.
    pub fn be64(self) -> Result<u64, Malformed> {
        Ok(parse_u64_be(self.payload)?)
    }

    /// A text, up to its terminating zero. Bytes that are not UTF-8 are replaced: names are anybody's, and
    /// `netlink-packet-core` would refuse them.
    pub fn text(self) -> String {
        crate::bytes::text(self.payload)
    }

    /// An Ethernet address; `None` if it is of another kind of link.
    pub fn mac(self) -> Option<[u8; 6]> {
        parse_mac(self.payload).ok()
    }
}

/// An IPv4 or IPv6 address, by its length.
pub fn ip(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    Ok(parse_ip(bytes)?)
}

/// Appends a request with the fixed header of its family (`struct ifinfomsg`, `nfgenmsg`, ...) and attributes to what is
/// to be sent. Its sequence number is 0 so far.
pub fn append(bytes: &mut Vec<u8>, kind: u16, flags: u16, header: &[u8], attrs: &[(u16, &[u8])]) {
    let start = bytes.len();
    bytes.resize(start + HEADER, 0);
    let mut message = NetlinkBuffer::new(&mut bytes[start..]);
    message.set_message_type(kind);
    message.set_flags(flags);
    bytes.extend_from_slice(header);
    pad(bytes);
    for (kind, payload) in attrs {
        append_attr(bytes, *kind, payload);
    }
    end(bytes, start);
}

/// It must be shorter than 64 KiB.
fn append_attr(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let len = u16::try_from(payload.len() + NLA_HEADER_SIZE).expect("requests are built from short attributes");
    // Not by the setters of NlaBuffer: they take the nested flag off.
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(payload);
    pad(bytes);
}

/// Attributes as bytes. Each must be shorter than 64 KiB.
pub fn attributes(attrs: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, payload) in attrs {
        append_attr(&mut bytes, *kind, payload);
    }
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

fn end(bytes: &mut [u8], start: usize) {
    let len = u32::try_from(bytes.len() - start).expect("requests are short");
    NetlinkBuffer::new(&mut bytes[start..]).set_length(len);
}

/// Sets the sequence number of the message that begins there.
pub fn number(message: &mut [u8], seq: u32) {
    NetlinkBuffer::new(message).set_sequence_number(seq);
}

/// A request. The sequence number is set when it is sent.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request with the fixed header of its family.
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = Vec::new();
        append(&mut bytes, kind, flags, header, &[]);
        Self(bytes)
    }

    /// A request of one of the packet crates.
    pub fn of<M: NetlinkSerializable>(message: &M, flags: u16) -> Self {
        let mut payload = vec![0; message.buffer_len()];
        message.serialize(&mut payload);
        Self::new(message.message_type(), flags, &payload)
    }

    /// Appends an attribute. It must be shorter than 64 KiB.
    #[must_use]
    pub fn attr(mut self, kind: u16, payload: &[u8]) -> Self {
        append_attr(&mut self.0, kind, payload);
        end(&mut self.0, 0);
        self
    }

    /// Appends attributes that are bytes already, padded.
    #[must_use]
    pub fn attrs(mut self, attributes: &[u8]) -> Self {
        self.0.extend_from_slice(attributes);
        end(&mut self.0, 0);
        self
    }

    /// Appends it to what is to be sent.
    pub fn write(&self, seq: u32, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.extend_from_slice(&self.0);
        number(&mut bytes[start..], seq);
    }

    /// The finished bytes.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn finish(&self, seq: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(seq, &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLA_F_NESTED;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_round_trip() {
        let bytes = Request::new(18, 5, &[7; 3])
            .attr(3, b"eth0\0")
            .attr(4 | NLA_F_NESTED, &9u32.to_ne_bytes())
            .finish(42);
        let message = Messages(&bytes).next().expect("one").expect("whole");
        assert_eq!((message.kind, message.flags, message.seq), (18, 5, 42));
        let attrs = Attrs::after(message.payload, 4).expect("whole");
        assert_eq!(attrs.find(3).expect("the name").text(), "eth0");
        assert_eq!(attrs.find(4).expect("the number").u32(), Ok(9));
        assert!(attrs.find(5).is_none());
        assert_eq!(attrs.iter().count(), 2);
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        // Too short for its own header, longer than the buffer, cut in the header.
        for bytes in [&[3, 0, 1, 0][..], &[9, 0, 1, 0, 1, 2, 3, 4], &[8, 0, 1]] {
            assert!(Attrs::new(bytes).is_err(), "{bytes:?}");
            // What comes before it does not help.
            let behind = [&[4, 0, 1, 0], bytes].concat();
            assert!(Attrs::new(&behind).is_err(), "{behind:?}");
        }
        assert!(Attrs::after(&[0; 4], 5).is_err(), "cut in the fixed header");
        let whole = Request::new(1, 0, &[]).finish(0);
        for len in [0, 15, 17] {
            let mut bytes = whole.clone();
            bytes[0] = len;
            let found: Vec<_> = Messages(&bytes).collect();
            assert!(matches!(found[..], [Err(_)]), "{len}: {found:?}");
            let found: Vec<_> = Messages(&[&whole[..], &bytes].concat())
                .map(|one| one.is_ok())
                .collect();
            assert_eq!(found, [true, false], "{len}, behind another");
        }
        assert!(Messages(&whole[..7]).next().is_some_and(|one| one.is_err()), "cut");
    }

    #[test]
    fn a_number_of_another_length_is_an_error() {
        let bytes = Request::new(1, 0, &[]).attr(1, &[1, 2, 3]).finish(0);
        let attr = Attrs::new(&bytes[HEADER..]).expect("whole").find(1).expect("one");
        assert!(attr.u8().is_err() && attr.u16().is_err() && attr.u32().is_err() && attr.be64().is_err());
        assert!(ip(attr.payload).is_err() && attr.mac().is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(Messages(&bytes).count() <= bytes.len() / HEADER + 1);
            prop_assert!(walk(&bytes).count() <= bytes.len() / NLA_HEADER_SIZE + 1);
        }
    }
}
