//! The connections, each once for either direction.
//!
//! Those that saw an answer are in a table of their own, so that a flood of new ones evicts only its like; and so that
//! closed ones do not evict those that live, they go back to the others.

use core::ptr;

use netfast_common::vip::{Conn, ConnKey, Direction, ICMP_IDLE_NS, UDP_IDLE_NS};

use crate::{
    packet::{Packet, TCP, UDP, ends::Translated, icmp::Quoted},
    state::{self, lb::Work, maps},
};

/// See [`Conn::hairpin`]: of the entry by which the client opens, and of the one by which it answers itself.
pub const OPENS: u8 = 1;
/// As above.
pub const ANSWERS: u8 = 2;

/// Sets the key to that of a packet of a client to some address.
#[inline(always)]
pub fn key_to<F: Translated>(key: &mut ConnKey, packet: &Packet<F::Address>, ifindex: u32, direction: Direction) {
    key.client = F::any(packet.network.source);
    key.remote = F::any(packet.network.destination);
    key.client_port = packet.source_port;
    key.remote_port = packet.destination_port;
    key.ifindex = ifindex;
    key.protocol = packet.network.protocol;
    key.direction = direction as u8;
    key.netns = state::netns();
}

/// Sets the key to that of a packet from some address to a client.
#[inline(always)]
pub fn key_from<F: Translated>(key: &mut ConnKey, packet: &Packet<F::Address>, ifindex: u32) {
    key.client = F::any(packet.network.destination);
    key.remote = F::any(packet.network.source);
    key.client_port = packet.destination_port;
    key.remote_port = packet.source_port;
    key.ifindex = ifindex;
    key.protocol = packet.network.protocol;
    key.direction = Direction::FromMember as u8;
    key.netns = state::netns();
}

/// Sets the key to that of the direction that an ICMP error is about: the client got the quoted packet from the virtual
/// address, or the member got it from the client.
#[inline(always)]
pub fn key_about<F: Translated>(key: &mut ConnKey, quoted: &Quoted<F::Address>, ifindex: u32, direction: Direction) {
    let is_clients = direction as u8 == Direction::FromMember as u8;
    if is_clients {
        key.client = F::any(quoted.source);
        key.remote = F::any(quoted.destination);
        key.client_port = quoted.source_port;
        key.remote_port = quoted.destination_port;
    } else {
        key.client = F::any(quoted.destination);
        key.remote = F::any(quoted.source);
        key.client_port = quoted.destination_port;
        key.remote_port = quoted.source_port;
    }
    key.ifindex = ifindex;
    key.protocol = quoted.protocol;
    key.direction = direction as u8;
    key.netns = state::netns();
}

/// Sets the key of the other direction.
#[inline(always)]
fn set_other(work: &mut Work) {
    let Work { key, other, conn, .. } = work;
    *other = *key;
    if conn.hairpin != 0 {
        other.client_port = key.remote_port;
        other.remote_port = key.client_port;
    } else if key.direction == Direction::ToVip as u8 {
        other.remote = conn.backend.address;
        other.direction = Direction::FromMember as u8;
    } else {
        other.remote = conn.vip;
        other.direction = Direction::ToVip as u8;
    }
}

/// Where something is known of a direction.
#[derive(Clone, Copy)]
pub struct Place {
    conn: *mut Conn,
    /// No answer has been seen, or it is closed.
    is_waiting: bool,
}

#[inline(always)]
fn place(key: &ConnKey) -> Option<Place> {
    if let Some(conn) = maps::VIP_CONNECTIONS.get_ptr_mut(key) {
        return Some(Place {
            conn,
            is_waiting: false,
        });
    }
    maps::VIP_WAITING
        .get_ptr_mut(key)
        .map(|conn| Place { conn, is_waiting: true })
}

/// Copies what is known of a direction, if it was of this key before and after.
#[inline(always)]
fn copy(place: Place, key: &ConnKey, to: &mut Conn) -> bool {
    let tag = key.tag();
    // SAFETY: the element lives as long as the program runs; it is made of integers, so a torn read is only a wrong number.
    // The kernel copies a new value in from its first field to its last; so the last one is read first, and the first one
    // last, and volatile, so that it is so.
    unsafe {
        if (&raw const (*place.conn).tag_end).read_volatile() != tag {
            return false;
        }
        ptr::copy_nonoverlapping(place.conn, to, 1);
        (&raw const (*place.conn).tag).read_volatile() == tag
    }
}

/// Looks the packet's direction up.
#[inline(always)]
pub fn find(work: &mut Work) -> Option<Place> {
    let place = place(&work.key)?;
    if !copy(place, &work.key, &mut work.conn) {
        return None;
    }
    set_other(work);
    Some(place)
}

/// Whether what is known of a direction is of this connection: a client may have talked to the same member by another virtual
/// address and the same ports before.
#[inline(always)]
fn is_same(place: Place, conn: &Conn) -> bool {
    // SAFETY: as in `copy`; a wrong number at worst makes a connection open anew.
    unsafe { (*place.conn).vip == conn.vip && (*place.conn).backend.address == conn.backend.address }
}

/// Whether a conversation without an end of its own has had a pause after which its next packet begins another one.
#[inline(always)]
pub fn is_over(work: &Work, now: u64) -> bool {
    let longest = longest_pause(work.key.protocol);
    longest != 0
        && now.wrapping_sub(work.conn.used_ns) > longest
        && place(&work.other).is_none_or(|other| {
            // SAFETY: as in `copy`.
            now.wrapping_sub(unsafe { (*other.conn).used_ns }) > longest
        })
}

/// In nanoseconds; 0: it ends by what is said in it.
#[inline(always)]
const fn longest_pause(protocol: u8) -> u64 {
    match protocol {
        TCP => 0,
        UDP => UDP_IDLE_NS,
        _ => ICMP_IDLE_NS,
    }
}

/// Whether a direction is in use by a connection that is neither closed nor over.
#[inline(always)]
pub fn is_live(key: &ConnKey, now: u64) -> bool {
    let Some(place) = place(key) else {
        return false;
    };
    // SAFETY: as in `copy`; a wrong number at worst passes over a member's turn.
    let conn = unsafe { &*place.conn };
    let longest = longest_pause(key.protocol);
    !conn.is_closed() && (longest == 0 || now.wrapping_sub(conn.used_ns) <= longest)
}

/// Notes a packet, with what it says of the connection's state.
#[inline(always)]
pub fn note(work: &mut Work, here: Place, flags: u8, now: u64) {
    let is_from_client = match work.conn.hairpin {
        0 => work.key.direction == Direction::ToVip as u8,
        side => side == OPENS,
    };
    let conn = &mut work.conn;
    conn.used_ns = now;
    let known = if is_from_client {
        conn.from_client
    } else {
        conn.from_member
    };
    if is_from_client {
        conn.from_client |= flags;
    } else {
        conn.from_member |= flags;
    }
    // SAFETY: as in `copy`; another connection that got the place meanwhile has at worst a wrong time.
    unsafe { (*here.conn).used_ns = now };
    let other_place = place(&work.other);
    if other_place.is_some_and(|other| !is_same(other, conn)) {
        // The other direction is of the next connection by now.
        set_state(here, conn);
        return;
    }
    if known & flags == flags && other_place.is_some() {
        return;
    }
    let belongs_waiting = conn.is_closed() || conn.from_member == 0;
    if belongs_waiting == here.is_waiting {
        set_state(here, conn);
        match other_place {
            Some(other_place) => set_state(other_place, conn),
            None => {
                put_other(work, belongs_waiting);
            }
        }
        return;
    }
    // Into the other table: first there, then no more here, so that there is no moment without it.
    if put(&work.key, &work.conn, belongs_waiting) && put_other(work, belongs_waiting) {
        take(&work.key, here.is_waiting);
        take(&work.other, here.is_waiting);
    }
}

#[inline(always)]
fn set_state(place: Place, conn: &Conn) {
    // SAFETY: as in `copy`; another connection that got the place meanwhile at worst opens anew.
    unsafe {
        (*place.conn).from_client = conn.from_client;
        (*place.conn).from_member = conn.from_member;
    }
}

/// Remembers a new connection to the chosen member in both directions.
#[inline(always)]
pub fn open(work: &mut Work, now: u64) -> bool {
    let tag = work.key.tag();
    let is_hairpin = work.backend.address == work.key.client;
    let conn = &mut work.conn;
    conn.tag = tag;
    conn.from_client = Conn::SEEN;
    conn.from_member = 0;
    conn.hairpin = if is_hairpin { OPENS } else { 0 };
    conn.reserved = 0;
    conn.service = work.service.id;
    conn.used_ns = now;
    conn.vip = work.key.remote;
    conn.backend = work.backend;
    conn.reserved_end = 0;
    conn.tag_end = tag;
    set_other(work);
    put_other(work, true) && put(&work.key, &work.conn, true)
}

/// Forgets a connection in both directions.
#[inline(always)]
pub fn forget(work: &Work) {
    forget_one(&work.key);
    if place(&work.other).is_some_and(|other| is_same(other, &work.conn)) {
        forget_one(&work.other);
    }
}

/// Forgets one direction.
#[inline(always)]
pub fn forget_one(key: &ConnKey) {
    take(key, false);
    take(key, true);
}

/// Stores what is known of the packet's direction for the other one.
#[inline(always)]
fn put_other(work: &mut Work, is_waiting: bool) -> bool {
    // A container that talks to itself between the same ports has one direction.
    if work.other == work.key {
        return true;
    }
    let tag = work.other.tag();
    work.other_conn = work.conn;
    let conn = &mut work.other_conn;
    conn.tag = tag;
    conn.tag_end = tag;
    if conn.hairpin != 0 {
        conn.hairpin ^= OPENS ^ ANSWERS;
    }
    put(&work.other, &work.other_conn, is_waiting)
}

#[inline(always)]
fn put(key: &ConnKey, conn: &Conn, is_waiting: bool) -> bool {
    if is_waiting {
        maps::VIP_WAITING.insert(key, conn, 0).is_ok()
    } else {
        maps::VIP_CONNECTIONS.insert(key, conn, 0).is_ok()
    }
}

#[inline(always)]
fn take(key: &ConnKey, is_waiting: bool) {
    if is_waiting {
        let _ = maps::VIP_WAITING.remove(key);
    } else {
        let _ = maps::VIP_CONNECTIONS.remove(key);
    }
}
