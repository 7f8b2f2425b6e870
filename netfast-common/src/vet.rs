//! Vetting: before a flow is used, the daemon looks at its conntrack entry.
//!
//! Programs cannot: no helper shows an entry's helper, expectations or TCP flags. So the program that refreshes a flow
//! asks by a ring buffer, and the daemon answers by a map.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    assert_no_padding,
    flow::FlowKey,
    net::{Address, Ip4, Ip6},
};

/// A flow that waits to be vetted. Both directions have the same conntrack entry, which knows one of them by its
/// addresses; where netfast itself translates (virtual addresses) it knows only the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Request<A> {
    /// When it was asked, `CLOCK_MONOTONIC` coarse, nanoseconds: an answer to an older question does not count.
    pub asked_ns: u64,
    /// Where the flow enters.
    pub key: FlowKey<A>,
    /// Where its reverse enters.
    pub reverse: FlowKey<A>,
}

impl<A: Address> Request<A> {
    /// Reads one from a ring buffer; `None` if it has another length.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        // SAFETY: all of its fields are integers without padding, asserted below; the length is compared.
        (bytes.len() == size_of::<Self>()).then(|| unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

/// What the daemon found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Answer {
    /// [`Request::asked_ns`] of the question.
    pub asked_ns: u64,
    /// One of the constants below.
    pub verdict: u32,
    /// Zero.
    pub reserved: u32,
}

impl Answer {
    /// Nothing works on the connection but conntrack itself, which knows that it will not see all segments.
    pub const CLEAR: u32 = 1;
    /// A helper, its expectations, or an adjustment of sequence numbers works on the connection: the kernel must see
    /// every packet.
    pub const HELPED: u32 = 2;
}

assert_no_padding!(Request<Ip4>, u64, [FlowKey<Ip4>; 2]);
assert_no_padding!(Request<Ip6>, u64, [FlowKey<Ip6>; 2]);

#[cfg(feature = "aya")]
// SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
unsafe impl aya::Pod for Answer {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Port;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = Request {
            asked_ns: 7,
            key: FlowKey {
                source: Ip4::from_bytes([172, 17, 0, 2]),
                source_port: Port::new(4000),
                protocol: 6,
                ..FlowKey::default()
            },
            reverse: FlowKey::default(),
        };
        // SAFETY: no padding, asserted above.
        let bytes =
            unsafe { core::slice::from_raw_parts((&raw const request).cast::<u8>(), size_of::<Request<Ip4>>()) };
        assert_eq!(Request::read(bytes), Some(request));
        assert_eq!(Request::<Ip4>::read(&bytes[1..]), None);
        assert_eq!(Request::<Ip6>::read(bytes), None);
    }
}
