//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624), on values in wire order.
//!
//! One's complement addition commutes with a swap of bytes, so nothing here converts.

/// Sums words; carries are kept in the upper half.
#[inline(always)]
pub const fn sum(words: &[u32]) -> u64 {
    let mut total = 0;
    let mut i = 0;
    while i < words.len() {
        total += words[i] as u64;
        i += 1;
    }
    total
}

/// Folds a 64-bit sum into 32 bits, keeping its one's complement value.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two folds leave no more than 32 bits")]
pub const fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// Folds a 32-bit sum into 16 bits, keeping its one's complement value.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "two folds leave no more than 16 bits")]
pub const fn fold16(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The difference that turns a sum over `old` into a sum over `new`: what `bpf_l4_csum_replace` takes as `to` with a
/// size of 0 (the kernel's `csum_diff`), and [`apply`] here.
#[inline(always)]
pub const fn difference(old: u64, new: u64) -> u32 {
    fold32(fold32(new) as u64 + !fold32(old) as u64)
}

/// A checksum field after the data under it changed by `difference` (RFC 1624, equation 3).
#[inline(always)]
pub const fn apply(checksum: u16, difference: u32) -> u16 {
    !fold16(fold32(!checksum as u64 + difference as u64))
}

/// The difference that one step down of an IPv4 TTL makes: the word of TTL and protocol loses 0x0100 in wire order.
pub const TTL_STEP: u32 = (!0x0100u16).to_be() as u32;

/// The difference that one step down of an IPv6 hop limit makes: the word of next header and hop limit loses 0x0001 in wire
/// order.
pub const HOP_STEP: u32 = (!0x0001u16).to_be() as u32;

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The checksum of bytes, counted as RFC 1071 tells it: big-endian halves, the carry added back one at a time.
    fn checksum(bytes: &[u8]) -> u16 {
        let mut total = 0_u32;
        for pair in bytes.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            if total > 0xffff {
                total -= 0xffff;
            }
        }
        !u16::try_from(total).expect("the carry was added back")
    }

    /// A checksum field in wire order.
    fn wire(checksum: u16) -> u16 {
        checksum.to_be()
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")))
            .collect()
    }

    proptest! {
        /// RFC 1624's promise, over any number of words: the field that was corrected verifies as one counted anew.
        /// They are the same but for the two zeros of one's complement, and a header that has a bit set has only one.
        #[test]
        fn a_correction_is_a_recomputation(
            rest in prop::collection::vec(any::<u8>(), 2..64),
            old in any::<[u8; 12]>(),
            new in any::<[u8; 12]>(),
        ) {
            let whole = |part: &[u8; 12]| [&part[..], &rest[..]].concat();
            prop_assume!(rest.iter().any(|byte| *byte != 0));
            let corrected = apply(wire(checksum(&whole(&old))), difference(sum(&words(&old)), sum(&words(&new))));
            prop_assert_eq!(corrected, wire(checksum(&whole(&new))));
        }

        /// The way of the programs: halves are summed without being moved to their place in a word.
        #[test]
        fn ports_are_summed_as_halves(old in any::<[u16; 2]>(), new in any::<[u16; 2]>(), rest in 1_u8..) {
            let whole = |ports: [u16; 2]| {
                let [a, b] = ports.map(u16::to_ne_bytes);
                [a[0], a[1], b[0], b[1], rest]
            };
            let total = |ports: [u16; 2]| u64::from(ports[0]) + u64::from(ports[1]);
            let corrected = apply(wire(checksum(&whole(old))), difference(total(old), total(new)));
            prop_assert_eq!(corrected, wire(checksum(&whole(new))));
        }

        /// Two corrections one after the other are one by the sum of their differences.
        #[test]
        fn differences_add_up(field in any::<u16>(), one in any::<u32>(), other in any::<u32>()) {
            let together = fold32(u64::from(one) + u64::from(other));
            let (stepwise, at_once) = (apply(apply(field, one), other), apply(field, together));
            // Either zero verifies.
            prop_assert!(stepwise == at_once || (stepwise ^ at_once == 0xffff && [0, 0xffff].contains(&stepwise)));
        }

        /// No change, no difference in what verifies.
        #[test]
        fn nothing_changed(total in any::<u64>(), field in 0_u16..0xffff) {
            prop_assert_eq!(apply(field, difference(total, total)), field);
        }

        /// A fold keeps the value modulo 2^16 - 1, and turns nothing but zero into zero.
        #[test]
        fn folds_keep_the_value(total in any::<u64>()) {
            let folded = fold16(fold32(total));
            prop_assert_eq!(u64::from(folded) % 0xffff, total % 0xffff);
            prop_assert_eq!(folded == 0, total == 0);
        }

        #[test]
        fn a_step_of_the_ttl(header in any::<[u8; 20]>(), ttl in 1_u8..) {
            let mut old = header;
            old[8] = ttl;
            let mut new = old;
            new[8] -= 1;
            prop_assume!(new.iter().any(|byte| *byte != 0));
            prop_assert_eq!(apply(wire(checksum(&old)), TTL_STEP), wire(checksum(&new)));
        }
    }
}
