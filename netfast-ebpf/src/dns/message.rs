//! Reads a DNS message (RFC 1035) in the buffer: the question, and answers that are nothing but addresses of its name.
//!
//! Every offset is masked to the buffer's size, so none leads out of it; that a record lies within the message is
//! checked apart from that. Names are compressed by pointing to the question, or not at all, as resolvers do it that answer
//! from a table; any other form is left alone.

use core::mem::offset_of;

use netfast_common::{
    alias::{MEMBERS, MESSAGE, NAME, RecordType, Verdict, part},
    csum,
};

use crate::state::dns::Scratch;

/// A step has done what it should.
pub const DONE: u32 = 0;

/// Bytes of the header, where the question's name begins.
const HEADER: u32 = 12;
/// Bytes of type and class behind the question's name.
const TYPE_CLASS: u32 = 4;
/// Bytes of type, class, TTL and length behind a record's name.
const FIXED: u32 = 10;
/// Offsets in the header.
const FLAGS: u32 = 2;
const QUESTIONS: u32 = 4;
const ANSWERS: u32 = 6;
/// In the first byte of the flags: this is a response; the kind of query; it was truncated.
const RESPONSE: u32 = 0x80;
const OPCODE: u32 = 0x78;
const TRUNCATED: u32 = 0x02;
/// In the second byte of the flags.
const CODE: u32 = 0x0f;
/// `IN`.
const INTERNET: u32 = 1;
/// Bytes that are summed at once.
const WORD: u32 = 4;
/// Longest label, and the mark of a pointer.
const LABEL: u32 = 63;
const POINTER: u32 = 0xc0;

/// The letter that names are compared by (RFC 4343).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it is a byte")]
const fn lower(byte: u32) -> u8 {
    (byte as u8).to_ascii_lowercase()
}

/// Reads header and question: an answer to a single question for addresses of class IN.
#[inline(always)]
pub fn question(scratch: &mut Scratch) -> u32 {
    if scratch.length < HEADER {
        return Verdict::NotAnswer.number();
    }
    let flags = scratch.byte(FLAGS);
    if flags & RESPONSE == 0 || flags & OPCODE != 0 || scratch.half(QUESTIONS) != 1 {
        return Verdict::NotAnswer.number();
    }
    if flags & TRUNCATED != 0 {
        return Verdict::Truncated.number();
    }
    if scratch.byte(FLAGS + 1) & CODE != 0 {
        return Verdict::Refused.number();
    }
    let records = scratch.half(ANSWERS);
    if records == 0 {
        return Verdict::Few.number();
    }
    if records > MEMBERS {
        return Verdict::TooMany.number();
    }
    let length = name(scratch);
    scratch.name_length = scratch.forget(length);
    if scratch.name_length == 0 {
        return Verdict::OddName.number();
    }
    let end = HEADER + scratch.name_length;
    if end + TYPE_CLASS > scratch.length {
        return Verdict::OddName.number();
    }
    let record_type = scratch.half(end);
    if scratch.half(end + 2) != INTERNET {
        return Verdict::OtherQuestion.number();
    }
    scratch.data_length = if record_type == RecordType::A as u32 {
        4
    } else if record_type == RecordType::Aaaa as u32 {
        16
    } else {
        return Verdict::OtherQuestion.number();
    };
    scratch.key.record_type = record_type;
    scratch.key.reserved = 0;
    scratch.records = records;
    scratch.first = end + TYPE_CLASS;
    scratch.cursor = end + TYPE_CLASS;
    scratch.stride = 0;
    scratch.digest_sum = 0;
    DONE
}

/// Reads the question's name into the key; returns its length with the final zero, or 0 if it is not one that is looked
/// at.
#[inline(always)]
fn name(scratch: &mut Scratch) -> u32 {
    scratch.key.name = [0; NAME as usize];
    let mut left = 0;
    let mut index = 0;
    while index < NAME {
        let byte = scratch.byte(HEADER + index);
        if left == 0 {
            if byte == 0 {
                return index + 1;
            }
            if byte > LABEL {
                return 0;
            }
            left = byte;
        } else {
            left -= 1;
        }
        // The length of a label is no letter: the first is 65.
        scratch.key.name[index as usize] = lower(byte);
        index += 1;
    }
    0
}

/// Reads the record at the cursor: an address of the question's name.
#[inline(always)]
pub fn record(scratch: &mut Scratch, index: u32) -> u32 {
    let at = scratch.cursor;
    if at >= scratch.length {
        return Verdict::OddRecord.number();
    }
    let name_length = if scratch.half(at) == POINTER << 8 | HEADER {
        2
    } else if is_same_name(scratch, at) {
        scratch.name_length
    } else {
        return Verdict::OddRecord.number();
    };
    let fixed = at + name_length;
    let end = fixed + FIXED + scratch.data_length;
    if end > scratch.length {
        return Verdict::OddRecord.number();
    }
    if scratch.half(fixed) != scratch.key.record_type
        || scratch.half(fixed + 2) != INTERNET
        || scratch.half(fixed + 8) != scratch.data_length
    {
        return Verdict::OddRecord.number();
    }
    let stride = end - at;
    if scratch.stride == 0 {
        scratch.stride = stride;
    } else if scratch.stride != stride {
        return Verdict::OddRecord.number();
    }
    let data = fixed + FIXED;
    let address = if scratch.data_length == 4 {
        [u64::from(scratch.word(data)), 0]
    } else {
        [scratch.long(data), scratch.long(data + 8)]
    };
    scratch.addresses[(index & (MEMBERS - 1)) as usize] = address;
    scratch.digest_sum = scratch.digest_sum.wrapping_add(part(address));
    scratch.cursor = end;
    DONE
}

/// Whether the question's name is written out at an offset, in whatever case.
#[inline(always)]
fn is_same_name(scratch: &Scratch, at: u32) -> bool {
    let length = scratch.name_length;
    let mut index = 0;
    while index < NAME {
        if index >= length {
            break;
        }
        if lower(scratch.byte(at + index)) != lower(scratch.byte(HEADER + index)) {
            return false;
        }
        index += 1;
    }
    true
}

/// The sum over the message for a checksum, in wire order. A last odd byte is the first half of a pair.
#[inline(always)]
#[expect(clippy::cast_ptr_alignment, reason = "the message is aligned, see below")]
pub fn sum(scratch: &mut Scratch) -> u32 {
    let length = scratch.length;
    // What is left of an earlier message in the last word does not count.
    for place in 0..WORD {
        if length + place < MESSAGE {
            scratch.set(length + place, 0);
        }
    }
    let mut sum = 0;
    let mut at = 0;
    while at < MESSAGE {
        if at >= length {
            break;
        }
        // SAFETY: within the message, and aligned as it is.
        sum += u64::from(unsafe { scratch.message.as_ptr().add(at as usize).cast::<u32>().read() });
        at += WORD;
    }
    csum::fold32(sum)
}

const _: () = assert!(offset_of!(Scratch, message).is_multiple_of(WORD as usize) && align_of::<Scratch>() == 8);
