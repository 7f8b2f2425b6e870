//! Whether a packet's TCP, UDP or ICMP checksum is right, for those that the kernel would look at.
//!
//! conntrack checks it before routing (`nf_checksum`, unless `nf_conntrack_checksum` is 0), calls a packet with a wrong
//! one INVALID, and leaves it untranslated; so such a packet must not be carried past it. Most packets cost a comparison
//! only: a checksum that is left to the device (`CHECKSUM_PARTIAL`, all that a local socket sends) is the sum of the
//! pseudo header, and what the device or GRO has verified is marked so. Only the rest is summed up, and all of ICMP, whose
//! checksum nobody leaves to a device.

use netfast_common::{csum, net::Address as _, tunnel::GROWTH};

use crate::{
    ctx::{Ctx, PART, Skb, inner::Inner, kernel},
    packet::{ETHERNET, Family, Packet, TCP, UDP, echo::ICMP},
    state::maps,
};

/// The longest packet that is summed up, in parts: the largest MTU.
const PARTS: u32 = 128;
/// Where [`examine`] is told the protocol, above the field.
const PROTOCOL: u32 = 16;
/// Where it is told how many checksums stand before this one, above the protocol.
const BEFORE: u32 = 24;

/// The steps that are run out of line: the verifier looks at each once, and not on each path that leads there.
pub trait Sums: Ctx {
    /// Runs [`examine`].
    fn has_sound_checksum(&self, field: u32, pseudo: u32, offset: u32, length: u32) -> bool;
    /// Runs [`sum_parts`].
    fn sum_parts(&self, offset: u32, parts: u32) -> u32;
    /// Runs [`sum_rest`].
    fn sum_rest(&self, offset: u32, length: u32) -> u32;
}

/// Whether the checksum is right, none, or somebody else's business.
#[inline(always)]
pub fn is_sound<F: Family, S: Sums>(skb: &S, packet: &Packet<F::Address>) -> bool {
    let network = &packet.network;
    let length = if network.protocol == UDP {
        u32::from(packet.udp_length())
    } else {
        network.payload
    };
    // A packet that is no GSO packet is shorter than 64 KiB.
    #[expect(clippy::cast_possible_truncation, reason = "see above")]
    let wire_length = (length as u16).to_be();
    let pseudo = csum::sum(&network.source.words())
        + csum::sum(&network.destination.words())
        + u64::from(u16::from(network.protocol).to_be())
        + u64::from(wire_length);
    let field = u32::from(packet.checksum) | u32::from(network.protocol) << PROTOCOL;
    let offset = ETHERNET + (network.length - network.payload);
    skb.has_sound_checksum(field, csum::fold32(pseudo), offset, length)
}

/// Whether a checksum is right, by its field and above it the protocol's number and that of the checksums before it, the sum over the pseudo header, and where and how
/// long in bytes what it is over is.
#[inline(always)]
pub fn examine<S: Sums>(skb: &S, field: u32, pseudo: u32, offset: u32, length: u32) -> bool {
    // Segments were either put together by GRO, which verified them, or are still to be made. Without a checksum (RFC 768)
    // there is nothing to be wrong.
    let is_none = field & 0x00ff_ffff == u32::from(UDP) << PROTOCOL;
    if skb.gso_size() != 0 || is_none {
        return true;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the field is 16 bits, and the protocol 8"
    )]
    let (checksum, protocol) = (field as u16, (field >> PROTOCOL) as u8);
    let is_left = (protocol == TCP || protocol == UDP) && is_same(checksum, csum::fold16(pseudo));
    if is_left && !S::LEAVES_CHECKSUMS {
        // Somebody left it to a device, of which only a `struct sk_buff` would tell.
        return false;
    }
    if is_left || skb.verified() > field >> BEFORE {
        return true;
    }
    // That of IPv4 is over the message alone (RFC 792).
    let pseudo = if protocol == ICMP { 0 } else { pseudo };
    let parts = length / PART;
    let whole = if parts == 0 { 0 } else { skb.sum_parts(offset, parts) };
    let rest = length % PART;
    let rest = if rest == 0 {
        0
    } else {
        skb.sum_rest(offset + length - rest, rest)
    };
    csum::fold16(csum::fold32(u64::from(pseudo) + u64::from(whole) + u64::from(rest))) == 0xffff
}

/// Of the frame inside a tunnel's packet: behind one more checksum, and so many bytes further on.
impl<S: Sums + Skb> Sums for Inner<'_, S> {
    #[inline(always)]
    fn has_sound_checksum(&self, field: u32, pseudo: u32, offset: u32, length: u32) -> bool {
        let field = field | 1 << BEFORE;
        self.outer().has_sound_checksum(field, pseudo, offset + GROWTH, length)
    }
    #[inline(always)]
    fn sum_parts(&self, offset: u32, parts: u32) -> u32 {
        self.outer().sum_parts(offset + GROWTH, parts)
    }
    #[inline(always)]
    fn sum_rest(&self, offset: u32, length: u32) -> u32 {
        self.outer().sum_rest(offset + GROWTH, length)
    }
}

/// Whether two sums are the same: one's complement has two zeros.
#[inline(always)]
const fn is_same(a: u16, b: u16) -> bool {
    a == b || (a.wrapping_add(1) <= 1 && b.wrapping_add(1) <= 1)
}

/// Sums up so many parts of the packet from `offset` on; 0 if there are not so many.
#[inline(always)]
pub fn sum_parts<S: Ctx>(skb: &S, offset: u32, parts: u32) -> u32 {
    let Some(buffer) = maps::SUMMED.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
    let buffer = unsafe { &mut *buffer };
    let mut total = 0;
    let mut part = 0;
    while part < PARTS && part < parts {
        if !skb.load_some(offset.wrapping_add(part * PART), PART, buffer) {
            return 0;
        }
        total += u64::from(kernel::sum(buffer));
        part += 1;
    }
    csum::fold32(total)
}

/// Sums up `length` bytes of the packet from `offset` on, less than a part; 0 if there are not so many.
#[inline(always)]
pub fn sum_rest<S: Ctx>(skb: &S, offset: u32, length: u32) -> u32 {
    let Some(buffer) = maps::SUMMED.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as above.
    let buffer = unsafe { &mut *buffer };
    // What is behind the end counts as zeros.
    *buffer = [0; PART as usize];
    if !skb.load_some(offset, length, buffer) {
        return 0;
    }
    kernel::sum(buffer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ctx::fake::{FakeSkb, plain, reset},
        packet::V4,
    };

    fn is_sound_in(frame: &[u8]) -> bool {
        let skb = FakeSkb::new(frame);
        let packet = skb.parsed().expect("a packet");
        is_sound::<V4, _>(&skb, &packet)
    }

    /// Offset of the checksum of a frame's transport.
    fn place(frame: &[u8]) -> usize {
        34 + if frame[23] == UDP { 6 } else { 16 }
    }

    proptest! {
        #[test]
        fn a_right_checksum_is_right_and_any_other_is_wrong(packet in plain(), flip in 1..=u16::MAX, at in any::<u16>()) {
            reset();
            let frame = packet.frame();
            prop_assert!(is_sound_in(&frame));
            let place = place(&frame);
            let right = u16::from_ne_bytes([frame[place], frame[place + 1]]);
            let mut wrong = frame.clone();
            let field = right ^ flip;
            wrong[place..place + 2].copy_from_slice(&field.to_ne_bytes());
            // None at all, the other zero, and what a checksum that is left to the device looks like.
            let is_none = field == 0 && frame[23] == UDP;
            let partial = partial_of(&wrong);
            prop_assume!(!is_none && !is_same(field, right) && !is_same(field, partial));
            prop_assert!(!is_sound_in(&wrong));
            // A wrong byte of the payload, too.
            let payload = frame.len() - packet.payload.len();
            if payload < frame.len() {
                let mut wrong = frame.clone();
                let at = payload + usize::from(at) % packet.payload.len();
                wrong[at] ^= 1;
                prop_assume!(!is_same(right, partial));
                prop_assert!(!is_sound_in(&wrong));
            }
        }

        #[test]
        fn one_that_is_left_to_the_device_is_right(packet in plain()) {
            reset();
            let mut frame = packet.frame();
            let (place, partial) = (place(&frame), partial_of(&frame));
            frame[place..place + 2].copy_from_slice(&partial.to_ne_bytes());
            prop_assert!(is_sound_in(&frame));
        }
    }

    /// RFC 1071, over the pseudo header, in halves.
    fn partial_of(frame: &[u8]) -> u16 {
        let length = u16::try_from(frame.len() - 34).expect("short");
        let header = [&frame[26..34], &[0, frame[23]][..], &length.to_be_bytes()[..]].concat();
        let total: u32 = header
            .chunks(2)
            .map(|two| u32::from(u16::from_ne_bytes([two[0], two[1]])))
            .sum();
        csum::fold16(total)
    }

    /// Nobody leaves it to a device, so that no value of the field says so.
    #[test]
    fn that_of_echo_is_summed_up() {
        for length in [0, 1, 64, 1400] {
            reset();
            let builder = || etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
            let payload = vec![0x5a; length];
            let mut four = Vec::new();
            let ip = builder().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            let done = ip.icmpv4_echo_request(7, 1).write(&mut four, &payload);
            done.expect("a packet");
            let mut six = Vec::new();
            let ip = builder().ipv6([0xfd; 16], [0xfc; 16], 64);
            let done = ip.icmpv6_echo_reply(7, 1).write(&mut six, &payload);
            done.expect("a packet");
            let is_sound_six = |frame: &[u8]| {
                let skb = FakeSkb::new(frame);
                let packet = crate::packet::parse::<crate::packet::V6, _>(&skb).expect("echo");
                is_sound::<crate::packet::V6, _>(&skb, &packet)
            };
            assert!(is_sound_in(&four) && is_sound_six(&six), "{length}");
            for (frame, place, is) in [
                (&four, 36, &is_sound_in as &dyn Fn(&[u8]) -> bool),
                (&six, 56, &is_sound_six),
            ] {
                let right = u16::from_ne_bytes([frame[place], frame[place + 1]]);
                for field in 0..=u16::MAX {
                    let mut wrong = frame.clone();
                    wrong[place..place + 2].copy_from_slice(&field.to_ne_bytes());
                    if field % 251 == 0 || field == u16::MAX {
                        assert_eq!(is(&wrong), is_same(field, right), "{length} {field:#06x}");
                    }
                }
            }
        }
    }

    #[test]
    fn long_packets_are_summed_to_their_end() {
        for length in [511, 512, 513, 1400, 9000, 65_000] {
            reset();
            let mut packet = crate::ctx::fake::Plain::udp(vec![0x5a; length]);
            assert!(is_sound_in(&packet.frame()), "{length}");
            packet.tcp = Some((1, 2, 3));
            let mut frame = packet.frame();
            assert!(is_sound_in(&frame), "{length}");
            *frame.last_mut().expect("payload") ^= 0x10;
            assert!(!is_sound_in(&frame), "{length}");
        }
    }
}
