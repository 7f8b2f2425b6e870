//! The DNS message that a CPU works on: it would not fit the stack.

use netfast_common::alias::{Alias, AliasKey, MEMBERS, MESSAGE};

/// The message that a CPU is at, and what has been read of it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Scratch {
    /// What the alias is looked up by.
    pub key: AliasKey,
    /// The alias that was found.
    pub alias: Alias,
    /// Sum of the digest's parts.
    pub digest_sum: u64,
    /// Members that may be given, one bit each in ascending order of the addresses.
    pub eligible: u64,
    /// How many they are: of the records those that are kept, where others are left out.
    pub eligible_count: u32,
    /// Which of them comes first.
    pub turn: u32,
    /// Time to live that the records get, in seconds.
    pub ttl: u32,
    /// Whether records are left out: those of members that may not be given, or all that one address replaces.
    pub shorten: u32,
    /// Bytes of the message.
    pub length: u32,
    /// Bytes of the question's name, its final zero included.
    pub name_length: u32,
    /// Records of the answer.
    pub records: u32,
    /// Bytes of a record's data: of an address.
    pub data_length: u32,
    /// Offset of the first record.
    pub first: u32,
    /// Bytes of each record.
    pub stride: u32,
    /// Offset of the next record.
    pub cursor: u32,
    /// See [`Scratch::forget`].
    pub(crate) forgotten: u32,
    /// Records that are written.
    pub written: u32,
    /// Zero.
    pub(crate) reserved: u32,
    /// The address that was put first, or that all records get.
    pub given: [u64; 2],
    /// Addresses in the order of the answer.
    pub addresses: [[u64; 2]; MEMBERS as usize],
    /// The message.
    pub message: [u8; MESSAGE as usize],
}

impl Scratch {
    /// Byte of the message.
    #[inline(always)]
    pub fn byte(&self, offset: u32) -> u32 {
        u32::from(self.message[(offset & (MESSAGE - 1)) as usize])
    }

    /// The same number, of which the verifier knows nothing. What a loop ends with it knows exactly, so that each end would
    /// be a path of its own through all that follows.
    #[inline(always)]
    pub fn forget(&mut self, number: u32) -> u32 {
        // SAFETY: a field of ours.
        unsafe {
            (&raw mut self.forgotten).write_volatile(number);
            (&raw const self.forgotten).read_volatile()
        }
    }

    /// Sets a byte of the message.
    #[inline(always)]
    pub fn set(&mut self, offset: u32, byte: u8) {
        self.message[(offset & (MESSAGE - 1)) as usize] = byte;
    }

    /// Two bytes, as a number.
    #[inline(always)]
    pub fn half(&self, offset: u32) -> u32 {
        self.byte(offset) << 8 | self.byte(offset + 1)
    }

    /// Eight bytes.
    #[inline(always)]
    pub fn long(&self, offset: u32) -> u64 {
        let (upper, lower) = (self.word(offset), self.word(offset + 4));
        u64::from(upper) << 32 | u64::from(lower)
    }

    /// Four bytes.
    #[inline(always)]
    pub fn word(&self, offset: u32) -> u32 {
        self.half(offset) << 16 | self.half(offset + 2)
    }
}
