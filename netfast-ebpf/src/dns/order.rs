//! Whose turn it is, and the message that says so. All in the buffer: the packet is not touched.

use netfast_common::alias::{MEMBERS, MESSAGE, RecordType, Verdict, address};

use super::message::DONE;
use crate::state::dns::Scratch;

/// Bytes behind the answers (an OPT record of RFC 6891, usually) that can be moved when records are left out.
const MAX_MOVED: u32 = 64;
/// Offset of the number of answers in the header.
const ANSWERS: u32 = 6;

/// What all records are placed by. If no member is well, all are given: the resolver's word is better than none.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "less than 64")]
pub fn begin(scratch: &mut Scratch, turn: u64, may_shorten: bool) {
    let all = if scratch.records >= MEMBERS {
        u64::MAX
    } else {
        (1 << scratch.records) - 1
    };
    let eligible = scratch.alias.eligible & all;
    scratch.eligible = if eligible == 0 { all } else { eligible };
    let count = scratch.eligible.count_ones();
    scratch.eligible_count = count;
    scratch.turn = if count == 0 {
        0
    } else {
        (turn % u64::from(count)) as u32
    };
    scratch.ttl = scratch.alias.ttl;
    let behind = scratch.length.wrapping_sub(scratch.cursor);
    scratch.shorten = (may_shorten && count < scratch.records && behind <= MAX_MOVED).into();
}

/// What the virtual address is written by; `false` if it cannot be written. It takes the first record's place, and the others
/// are left out; where they cannot be, it takes the place of each. An answer of the other family has no records.
#[inline(always)]
pub fn begin_virtual(scratch: &mut Scratch, may_shorten: bool) -> bool {
    let is_a = scratch.key.record_type == RecordType::A as u32;
    let has_address = is_a == scratch.alias.vip.is_v4();
    scratch.given = address(&scratch.alias.vip);
    begin_single(scratch, has_address.into(), may_shorten);
    scratch.shorten != 0 || has_address
}

/// What the address that was put first is written by where it is to be the only one.
#[inline(always)]
pub fn begin_one(scratch: &mut Scratch, may_shorten: bool) {
    begin_single(scratch, 1, may_shorten);
}

#[inline(always)]
fn begin_single(scratch: &mut Scratch, count: u32, may_shorten: bool) {
    let behind = scratch.length.wrapping_sub(scratch.cursor);
    let shorten = may_shorten && behind <= MAX_MOVED;
    scratch.ttl = scratch.alias.ttl;
    scratch.shorten = shorten.into();
    scratch.eligible_count = count;
    scratch.written = if shorten { count } else { scratch.records };
}

/// Writes the address that is to be the only one.
#[inline(always)]
pub fn give_single(scratch: &mut Scratch) -> u32 {
    let given = scratch.given;
    let mut position = 0;
    while position < MEMBERS {
        if position >= scratch.written {
            break;
        }
        write(scratch, position, given);
        position += 1;
    }
    DONE
}

/// Writes the address with this index where it belongs: members in ascending order of their addresses, rotated, and
/// those that may not be given after them or not at all.
#[inline(always)]
pub fn place(scratch: &mut Scratch, index: u32) -> u32 {
    let address = scratch.addresses[(index & (MEMBERS - 1)) as usize];
    let mut rank = 0;
    let mut other = 0;
    while other < MEMBERS {
        if other >= scratch.records {
            break;
        }
        let their = scratch.addresses[(other & (MEMBERS - 1)) as usize];
        if their[0] < address[0] || their[0] == address[0] && their[1] < address[1] {
            rank += 1;
        } else if their == address && other != index {
            // No set at all.
            return Verdict::OtherSet.number();
        }
        other += 1;
    }
    let bit = 1_u64 << (scratch.forget(rank) & 63);
    let position = if scratch.eligible & bit != 0 {
        let before = (scratch.eligible & (bit - 1)).count_ones();
        if before >= scratch.turn {
            before - scratch.turn
        } else {
            before + scratch.eligible_count - scratch.turn
        }
    } else if scratch.shorten != 0 {
        return DONE;
    } else {
        scratch.eligible_count + (!scratch.eligible & (bit - 1)).count_ones()
    };
    if position == 0 {
        scratch.given = address;
    }
    write(scratch, position, address);
    DONE
}

/// Writes a record's address and its time to live.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half of an IPv4 address's number is all of it"
)]
fn write(scratch: &mut Scratch, position: u32, address: [u64; 2]) {
    let end = scratch.first + (position + 1) * scratch.stride;
    let data = end - scratch.data_length;
    // Before the data: two bytes of its length, and four of the time to live.
    let ttl = scratch.ttl.to_be_bytes();
    copy(scratch, data.wrapping_sub(6), ttl);
    if scratch.data_length == 4 {
        copy(scratch, data, (address[0] as u32).to_be_bytes());
    } else {
        copy(scratch, data, address[0].to_be_bytes());
        copy(scratch, data + 8, address[1].to_be_bytes());
    }
}

#[inline(always)]
fn copy<const N: usize>(scratch: &mut Scratch, mut to: u32, bytes: [u8; N]) {
    for byte in bytes {
        scratch.set(to, byte);
        to += 1;
    }
}

/// Leaves out the records of members that may not be given: what stands behind the answers moves up.
#[inline(always)]
pub fn shorten(scratch: &mut Scratch) -> u32 {
    if scratch.shorten == 0 {
        return DONE;
    }
    let kept = scratch.eligible_count;
    let from = scratch.cursor;
    let to = scratch.first + kept * scratch.stride;
    let behind = scratch.length - from;
    let mut index = 0;
    while index < MAX_MOVED {
        if index >= behind {
            break;
        }
        let byte = scratch.message[((from + index) & (MESSAGE - 1)) as usize];
        scratch.set(to + index, byte);
        index += 1;
    }
    // At most 64.
    scratch.set(ANSWERS, 0);
    scratch.set(ANSWERS + 1, kept.to_le_bytes()[0]);
    scratch.length = to + behind;
    DONE
}
