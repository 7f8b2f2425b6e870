//! Aliases: names that several endpoints of a network share, as the program at the resolver's answers knows them.
//!
//! An answer is recognised by its question's name and by the *set* of its addresses: only an answer whose set is the
//! whole set of one alias's members is touched. Sets are compared by a [`digest`]; nothing that the program writes comes
//! from a map, it only puts the answer's own addresses in another order, or the alias's virtual address in their place.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::AnyIp;

/// Bytes of a name that a key holds, as on the wire without the root's zero: a label of 63, a network's name, and a bit.
pub const NAME: u32 = 96;
/// Members that an alias can have: one bit each in [`Alias::eligible`].
pub const MEMBERS: u32 = 64;
/// Bytes of the longest DNS message that is looked at; a power of two.
pub const MESSAGE: u32 = 2048;
/// Entries of the alias map: up to two spellings of each name in each of two families, and one marker for each spelling.
pub const ENTRIES: u32 = 16 * 1024;
/// Members of all aliases together, each counted in both families.
pub const COUNTED: u32 = 64 * 1024;

/// Which addresses are asked for: the question's type (RFC 1035, RFC 3596).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum RecordType {
    /// IPv4.
    A = 1,
    /// IPv6.
    Aaaa = 28,
}

impl RecordType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::Aaaa];
}

/// What an answer is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AliasKey {
    /// [`digest`] of the addresses; 0 in the entry that says that the name is known at all.
    pub digest: u64,
    /// A [`RecordType`]'s number.
    pub record_type: u32,
    /// Zero.
    pub reserved: u32,
    /// The name in lower case, as on the wire: each label behind its length; zeros follow.
    pub name: [u8; NAME as usize],
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Alias {
    /// Key of its turn, and part of its members' keys: the same for all spellings.
    pub id: u64,
    /// One bit for each member that may be given, in ascending order of the addresses.
    pub eligible: u64,
    /// How many members there are.
    pub members: u32,
    /// Time in seconds that a client may keep the answer.
    pub ttl: u32,
    /// The virtual address that is given instead of the members (mode `vip`); none: the members are given in turn. An answer
    /// of the other family then has no records.
    pub vip: AnyIp,
    /// The `flag` constants below.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

impl Alias {
    /// An answer names only the member whose turn it is.
    pub const ONE: u32 = 1;
}

/// Key of the count of answers that named a member first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemberKey {
    /// [`Alias::id`].
    pub alias: u64,
    /// The address as two numbers, see [`address4`] and [`address6`].
    pub address: [u64; 2],
}

/// An IPv4 address in the form in which addresses are compared.
#[inline(always)]
pub const fn address4(bytes: [u8; 4]) -> [u64; 2] {
    [u32::from_be_bytes(bytes) as u64, 0]
}

/// An IPv6 address in the form in which addresses are compared.
pub const fn address6(bytes: [u8; 16]) -> [u64; 2] {
    let b = bytes;
    [
        u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
    ]
}

/// An address of either family in that form.
#[inline(always)]
pub const fn address(of: &AnyIp) -> [u64; 2] {
    if of.is_v4() {
        return address4(of.to_v4().bytes());
    }
    let [a, b, c, d] = of.words();
    [
        (u32::from_be(a) as u64) << 32 | u32::from_be(b) as u64,
        (u32::from_be(c) as u64) << 32 | u32::from_be(d) as u64,
    ]
}

/// What one address adds to the [`digest`] of a set.
#[inline(always)]
pub const fn part(address: [u64; 2]) -> u64 {
    mix(mix(address[0] ^ 0x9e37_79b9_7f4a_7c15) ^ address[1])
}

/// Digest of a set from the sum of its [`part`]s; never 0.
#[inline(always)]
pub const fn digest(sum: u64) -> u64 {
    if sum == 0 { 1 } else { sum }
}

/// The finalizer of splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Entries of the map of verdicts.
pub const VERDICTS: u32 = 32;

crate::verdicts! {
    /// What became of an answer of the resolver, counted. Numbers are never used again for something else.
    Verdict
    1 Rotated "rotated" "an alias's members were put in their turn's order";
    2 Shortened "shortened" "the same, and members that are not well were left out";
    3 NotAnswer "not-answer" "a query, an opcode other than QUERY, or no single question";
    4 Refused "refused" "an answer that says that there is no such name, or an error";
    5 Truncated "truncated" "a truncated answer: the client asks again by TCP";
    6 Few "few" "fewer than two records: nothing to choose";
    7 TooMany "too-many" "more records than an alias can have members";
    8 TooLong "too-long" "a longer message than is looked at, or a part of one (TCP)";
    9 OtherQuestion "other-question" "neither A nor AAAA of class IN";
    10 OddName "odd-name" "a name that is cut short, too long or compressed in the question";
    11 OddRecord "odd-record" "a record of another name, type, class or length, or cut short";
    12 NotAlias "not-alias" "no alias has this name";
    13 OtherSet "other-set" "the addresses are not those of the alias's members";
    14 Unwritable "unwritable" "the kernel refused to make the packet writable";
    15 NotMessage "not-message" "from the resolver's address, but not a DNS message over UDP or TCP";
    16 Virtual "virtual" "an alias's members were replaced by its virtual address";
    17 One "one" "of an alias's members only the one was named whose turn it is";
}

#[cfg(feature = "aya")]
mod pod {
    // SAFETY: `IntoBytes` and `FromBytes` are derived, so there is no padding and every bit pattern is valid.
    unsafe impl aya::Pod for super::AliasKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Alias {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::MemberKey {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Ip4, Ip6};

    #[test]
    fn verdicts_fit_the_map_and_rise() {
        crate::verdicts::assert_fit_and_rise!(Verdict, 0, VERDICTS);
    }

    #[test]
    fn addresses_keep_their_order() {
        assert!(
            address4([10, 0, 0, 2]) < address4([10, 0, 1, 1]) && address4([9, 255, 0, 0]) < address4([10, 0, 0, 0])
        );
        let last = |byte: u8| {
            let mut bytes = [0xfd; 16];
            bytes[15] = byte;
            address6(bytes)
        };
        assert!(last(1) < last(0x80) && last(0xff)[0] == 0xfdfd_fdfd_fdfd_fdfd);
        let (four, six) = ([10, 0, 0, 2], [0xfd, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(address(&AnyIp::v4(Ip4::from_bytes(four))), address4(four));
        assert_eq!(address(&AnyIp::v6(Ip6::from_bytes(six))), address6(six));
    }

    #[test]
    fn other_sets_have_other_digests() {
        let set = |bytes: &[[u8; 4]]| {
            digest(
                bytes
                    .iter()
                    .fold(0, |sum: u64, ip| sum.wrapping_add(part(address4(*ip)))),
            )
        };
        let (a, b, c, d) = ([10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 4], [10, 0, 0, 5]);
        assert_eq!(set(&[a, b]), set(&[b, a]));
        // The sums of the plain numbers are the same.
        assert_ne!(set(&[a, d]), set(&[b, c]));
        assert_ne!(set(&[a, b]), set(&[a, b, c]));
        assert_eq!(digest(0), 1);
    }
}
