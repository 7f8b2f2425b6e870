//! Answers of the container runtime's resolver: puts the members of an alias in their turn's order, or its virtual address
//! in their place.
//!
//! The program sits on the egress of the loopback interface inside a container's network namespace, where answers of
//! Docker's resolver already come from its address and port 53 (the namespace's NAT comes before). The message is
//! copied to a buffer of this CPU; [`message`] reads it there, [`order`] changes it there, and only then is anything
//! written to the packet. Whatever is not exactly the answer for a known alias stays as it is.
//!
//! The steps that loop over bytes or records are run out of line ([`Steps`]): the verifier looks at each once.

use netfast_common::{
    alias::{Alias, MEMBERS, MESSAGE, MemberKey, Verdict, digest},
    net::Ip4,
    resolver::{ADDRESS, DOMAIN},
};

use crate::{
    ctx::{NEXT, Skb, atomic},
    packet::{Packet, TCP, UDP, V4, parse, rewrite},
    state::{dns::Scratch, maps},
};

mod global;
pub mod message;
pub mod order;

use message::DONE;

/// Bytes of a message's length before it, over TCP (RFC 1035, 4.2.2).
const LENGTH_PREFIX: u32 = 2;

/// This CPU's buffer. Copied around instead of a reference, because steps out of line come to it by another way.
#[derive(Clone, Copy)]
pub struct Buffer(*mut Scratch);

impl Buffer {
    /// Of its place.
    ///
    /// # Safety
    ///
    /// The place must be valid while this is used, and nothing else may touch it meanwhile.
    #[inline(always)]
    pub const unsafe fn new(place: *mut Scratch) -> Self {
        Self(place)
    }

    /// Reads or writes it. No step may be run in `body`.
    #[inline(always)]
    pub fn with<T>(self, body: impl FnOnce(&mut Scratch) -> T) -> T {
        // SAFETY: promised by whoever made this; the reference ends before another is made.
        body(unsafe { &mut *self.0 })
    }
}

/// What is done out of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`message::question`].
    Question,
    /// [`message::record`], of this index.
    Record(u32),
    /// [`order::place`], of the address with this index.
    Place(u32),
    /// [`order::give_single`].
    Single,
    /// [`order::shorten`].
    Shorten,
    /// [`message::sum`].
    Sum,
}

/// What is run out of line, on this CPU's buffer.
pub trait Steps: Skb {
    /// Runs a step.
    fn dns_step(&self, step: Step, buffer: Buffer) -> u32;
}

/// Runs a step; [`DONE`], the number of a [`Verdict`], or for [`Step::Sum`] the sum.
#[inline(always)]
pub fn run(step: Step, scratch: &mut Scratch) -> u32 {
    match step {
        Step::Question => message::question(scratch),
        Step::Record(index) => message::record(scratch, index),
        Step::Place(index) => order::place(scratch, index),
        Step::Single => order::give_single(scratch),
        Step::Shorten => order::shorten(scratch),
        Step::Sum => message::sum(scratch),
    }
}

/// An answer passes here on its way to a program in the container.
#[inline(always)]
pub fn answer<S: Steps>(skb: &S) -> i32 {
    // All that programs in the container say to each other by its loopback interface passes here too.
    if !parse::is_from::<S>(skb, ADDRESS) {
        return NEXT;
    }
    if let Some(verdict) = examine(skb)
        && let Some(count) = maps::ANSWERS.get_ptr_mut(verdict.number())
    {
        // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
        unsafe { *count += 1 };
    }
    NEXT
}

/// Where a message is.
struct Place {
    packet: Packet<Ip4>,
    offset: u32,
    length: u32,
}

/// What becomes of a packet of the resolver; `None` if there is no message in it.
#[inline(always)]
fn examine<S: Steps>(skb: &S) -> Option<Verdict> {
    let place = match find(skb) {
        Ok(place) => place?,
        Err(verdict) => return Some(verdict),
    };
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
    let buffer = unsafe { Buffer::new(maps::SCRATCH.get_ptr_mut(0)?) };
    Some(match prepare(skb, &place, buffer) {
        Ok(change) => apply(skb, &place, buffer, &change),
        Err(verdict) => verdict,
    })
}

/// The message in a packet: `Ok(None)` if it carries none (TCP's bare acknowledgements).
#[inline(always)]
fn find<S: Skb>(skb: &S) -> Result<Option<Place>, Verdict> {
    let Ok(packet) = parse::parse_with_ports::<V4, S>(skb) else {
        return Err(Verdict::NotMessage);
    };
    if packet.source_port != DOMAIN || packet.network.is_padded {
        return Err(Verdict::NotMessage);
    }
    let (mut offset, mut length) = (packet.payload_offset, packet.payload);
    if packet.network.protocol == TCP {
        if length == 0 {
            return Ok(None);
        }
        // One whole message, so that a part of one is never taken for another.
        let mut prefix = [0; 16];
        if length <= LENGTH_PREFIX || !skb.load::<2>(offset, &mut prefix) {
            return Err(Verdict::TooLong);
        }
        offset += LENGTH_PREFIX;
        length -= LENGTH_PREFIX;
        if length != u32::from(u16::from_be_bytes([prefix[0], prefix[1]])) {
            return Err(Verdict::TooLong);
        }
    } else if u32::from(packet.udp_length()) != packet.network.payload {
        // Bytes follow that are not of the datagram.
        return Err(Verdict::NotMessage);
    }
    if length == 0 || length >= MESSAGE {
        return Err(Verdict::TooLong);
    }
    Ok(Some(Place { packet, offset, length }))
}

/// How a packet is to be changed; the new message is in the buffer.
struct Change {
    is_virtual: bool,
    old_sum: u32,
    new_sum: u32,
    new_length: u32,
}

/// Reads the message, finds its alias, and makes the new message in the buffer.
#[inline(always)]
fn prepare<S: Steps>(skb: &S, place: &Place, buffer: Buffer) -> Result<Change, Verdict> {
    if !buffer.with(|scratch| skb.load_some(place.offset, place.length, &mut scratch.message)) {
        return Err(Verdict::NotMessage);
    }
    buffer.with(|scratch| scratch.length = place.length);
    read(skb, buffer)?;
    // A single record is nothing to choose from; it is looked at for the sake of virtual addresses.
    let is_single = buffer.with(|scratch| scratch.records) == 1;
    match buffer.with(alias) {
        Ok(()) if !is_single || buffer.with(|scratch| !scratch.alias.vip.is_none()) => {}
        Err(verdict) if !is_single => return Err(verdict),
        _ => return Err(Verdict::Few),
    }
    let may_shorten = place.packet.network.protocol == UDP;
    let old_sum = skb.dns_step(Step::Sum, buffer);
    let is_virtual = replace(skb, buffer, may_shorten)?;
    if !is_virtual {
        let turn = turn(buffer.with(|scratch| scratch.alias.id)).ok_or(Verdict::NotAlias)?;
        rotate(skb, buffer, turn, may_shorten)?;
    }
    let new_sum = skb.dns_step(Step::Sum, buffer);
    Ok(Change {
        is_virtual,
        old_sum,
        new_sum,
        new_length: buffer.with(|scratch| scratch.length),
    })
}

/// Finds the alias whose members are the addresses that were read.
#[inline(always)]
fn alias(scratch: &mut Scratch) -> Result<(), Verdict> {
    // SAFETY: the element is copied at once; what the daemon may put in its place meanwhile is an alias as well.
    if let Some(alias) = unsafe { maps::ALIASES.get(scratch.key) } {
        scratch.alias = *alias;
        return Ok(());
    }
    scratch.key.digest = 0;
    // SAFETY: nothing of it is read.
    let known = unsafe { maps::ALIASES.get(scratch.key) }.is_some();
    Err(if known { Verdict::OtherSet } else { Verdict::NotAlias })
}

/// Reads question and records; then the key is whole.
#[inline(always)]
pub fn read<S: Steps>(skb: &S, buffer: Buffer) -> Result<(), Verdict> {
    done(skb.dns_step(Step::Question, buffer))?;
    let records = buffer.with(|scratch| scratch.records);
    let mut index = 0;
    while index < MEMBERS {
        if index >= records {
            break;
        }
        done(skb.dns_step(Step::Record(index), buffer))?;
        index += 1;
    }
    buffer.with(|scratch| scratch.key.digest = digest(scratch.digest_sum));
    Ok(())
}

/// Puts the members in their turn's order, in the buffer, or names the one alone whose turn it is.
#[inline(always)]
pub fn rotate<S: Steps>(skb: &S, buffer: Buffer, turn: u64, may_shorten: bool) -> Result<(), Verdict> {
    let records = buffer.with(|scratch| scratch.records);
    if buffer.with(|scratch| scratch.alias.members) != records {
        return Err(Verdict::OtherSet);
    }
    buffer.with(|scratch| order::begin(scratch, turn, may_shorten));
    let mut index = 0;
    while index < MEMBERS {
        if index >= records {
            break;
        }
        done(skb.dns_step(Step::Place(index), buffer))?;
        index += 1;
    }
    if buffer.with(is_one) {
        buffer.with(|scratch| order::begin_one(scratch, may_shorten));
        done(skb.dns_step(Step::Single, buffer))?;
    }
    done(skb.dns_step(Step::Shorten, buffer))
}

/// Puts the alias's virtual address in its members' place, in the buffer; `false` if it has none, or the answer has no place
/// for it.
#[inline(always)]
pub fn replace<S: Steps>(skb: &S, buffer: Buffer, may_shorten: bool) -> Result<bool, Verdict> {
    if buffer.with(|scratch| scratch.alias.vip.is_none()) {
        return Ok(false);
    }
    if buffer.with(|scratch| scratch.alias.members != scratch.records) {
        return Err(Verdict::OtherSet);
    }
    if !buffer.with(|scratch| order::begin_virtual(scratch, may_shorten)) {
        return Ok(false);
    }
    done(skb.dns_step(Step::Single, buffer))?;
    done(skb.dns_step(Step::Shorten, buffer))?;
    Ok(true)
}

/// Whether only the member is named whose turn it is.
#[inline(always)]
fn is_one(scratch: &mut Scratch) -> bool {
    scratch.alias.flags & Alias::ONE != 0
}

#[inline(always)]
fn done(status: u32) -> Result<(), Verdict> {
    if status == DONE {
        Ok(())
    } else {
        Err(Verdict::of(status).unwrap_or(Verdict::OddRecord))
    }
}

/// Whose turn it is: each answer to any client of the network takes the next.
#[inline(always)]
fn turn(id: u64) -> Option<u64> {
    let turn = maps::CURSORS.get_ptr_mut(id)?;
    // SAFETY: it lives as long as the program runs; the daemon makes it and removes it, and does not change it.
    Some(unsafe { atomic::increment(turn) })
}

/// Writes the new message to the packet.
#[inline(always)]
fn apply<S: Skb>(skb: &S, place: &Place, buffer: Buffer, change: &Change) -> Verdict {
    let message = rewrite::Message {
        offset: place.offset,
        old_length: place.length,
        new_length: change.new_length,
        old_sum: change.old_sum,
        new_sum: change.new_sum,
    };
    if !buffer.with(|scratch| rewrite::message(skb, &place.packet, &message, &scratch.message)) {
        return Verdict::Unwritable;
    }
    if change.is_virtual {
        return Verdict::Virtual;
    }
    let member = MemberKey {
        alias: buffer.with(|scratch| scratch.alias.id),
        address: buffer.with(|scratch| scratch.given),
    };
    if let Some(given) = maps::FIRST_NAMED.get_ptr_mut(member) {
        // SAFETY: as in `turn`.
        unsafe { atomic::increment(given) };
    }
    if buffer.with(is_one) {
        Verdict::One
    } else if change.new_length < place.length {
        Verdict::Shortened
    } else {
        Verdict::Rotated
    }
}

#[cfg(test)]
mod tests;
