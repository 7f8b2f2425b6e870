//! Checksums of IPv4 frames without options.

use crate::packet::{TCP, UDP, echo::ICMP};

/// One's complement sum of bytes, folded.
pub fn sum(parts: &[&[u8]]) -> u32 {
    let mut total = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

/// Where the transport's checksum is, from the start of the frame.
pub fn checksum_at(frame: &[u8]) -> usize {
    match frame[23] {
        TCP => 50,
        UDP => 40,
        _ => 36,
    }
}

/// The sum over the pseudo header; ICMP has none.
pub fn pseudo(frame: &[u8]) -> u32 {
    if frame[23] == ICMP {
        return 0;
    }
    let length = u16::try_from(frame.len() - 34).expect("short");
    sum(&[&frame[26..34], &[0, frame[23]], &length.to_be_bytes()])
}

/// The checksum is left to the device: the field has the pseudo header's sum.
pub fn leave_to_device(frame: &mut [u8]) {
    let place = checksum_at(frame);
    let field = u16::try_from(pseudo(frame)).expect("folded");
    frame[place..place + 2].copy_from_slice(&field.to_be_bytes());
}

pub fn has_right_checksums(frame: &[u8], partial: bool) -> bool {
    let place = checksum_at(frame);
    let field = [frame[place], frame[place + 1]];
    let is_right = if partial && frame[23] != ICMP {
        u32::from(u16::from_be_bytes(field)) % 0xffff == pseudo(frame) % 0xffff
    } else {
        let pseudo = u16::try_from(pseudo(frame)).expect("folded").to_be_bytes();
        let is_none = frame[23] == UDP && field == [0; 2];
        is_none || sum(&[&pseudo, &frame[34..]]) == 0xffff
    };
    sum(&[&frame[14..34]]) == 0xffff && is_right
}

/// The frame with MAC addresses, addresses and checksums of another one.
pub fn with_ends_of(frame: &[u8], other: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let place = checksum_at(&frame);
    for part in [0..12, 24..34, place..place + 2] {
        frame[part.clone()].copy_from_slice(&other[part]);
    }
    frame
}
