//! macvlan: frames between the host and its own containers, at the egress of their network's parent.
//!
//! Such frames go to the parent's ingress: the macvlan driver takes there what is for one of its devices, and the host
//! what is for the parent. Everything between others passes, and leaves by the parent as it did. Questions for an
//! address (ARP, and neighbour solicitations) go to the one that is asked as well, by its own MAC address: neither the other
//! containers nor the host itself see a group frame that they would not have seen.

use aya_ebpf::bindings::BPF_F_INGRESS;
use netfast_common::{
    device::{DeviceKey, NetnsNumber},
    macvlan::{AddressKey, Station, StationKey},
    net::{AnyIp, Ip4, Ip6},
};

use crate::{
    ctx::{NEXT, Skb},
    packet::{ETHERNET, Family as _, V6, ipv4::ARP},
    state::{self, maps},
};

/// What an ARP packet about IPv4 on Ethernet begins with: both types, and both lengths.
const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Where such a packet has the address that it asks for.
const ARP_TARGET: u32 = ETHERNET + 24;
/// Where an IPv6 header has its next header.
const NEXT_HEADER: u32 = ETHERNET + 6;
/// Where it has the source address.
const SOURCE: u32 = ETHERNET + 8;
/// Where `ICMPv6` begins behind it.
const ICMPV6: u32 = ETHERNET + 40;
/// Where a neighbour solicitation has the address that it asks for (RFC 4861, 4.3).
const SOLICITED: u32 = ICMPV6 + 8;
/// `ICMPv6`'s number of a neighbour advertisement: to a group, it says who has an address now (RFC 4861, 7.2.6).
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// `ICMPv6`'s number of a neighbour solicitation.
const NEIGHBOUR_SOLICITATION: u8 = 135;

/// A frame that the parent is given to send.
#[inline(always)]
pub fn at_parent<S: Skb>(skb: &S) -> i32 {
    // Of another LAN, whose parent is a device of its own.
    if skb.has_vlan() {
        return NEXT;
    }
    let mut both = [0; 16];
    if !skb.load::<12>(0, &mut both) {
        return NEXT;
    }
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = both;
    let parent = DeviceKey::new(NetnsNumber(state::netns()), skb.ifindex());
    let Some(from) = station(parent, [s0, s1, s2, s3, s4, s5]) else {
        return NEXT;
    };
    let to = [d0, d1, d2, d3, d4, d5];
    if d0 & 1 != 0 {
        return ask(skb, parent, from, to);
    }
    match station(parent, to) {
        Some(to) if to.who != from.who => {
            // It means something in the namespace that it comes from only.
            skb.set_mark(0);
            skb.redirect(skb.ifindex(), BPF_F_INGRESS.into())
        }
        _ => NEXT,
    }
}

/// A group frame: if it asks for an address, the one that is asked gets a copy.
#[inline(always)]
fn ask<S: Skb>(skb: &S, parent: DeviceKey, from: Station, to: [u8; 6]) -> i32 {
    let Some(address) = asked(skb) else {
        return NEXT;
    };
    let asked = if from.who == Station::HOST {
        let key = AddressKey { parent, address };
        // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
        match unsafe { maps::MACVLAN_ADDRESSES.get(key) } {
            Some(owner) => owner.mac,
            None => return NEXT,
        }
    } else {
        from.host
    };
    let mark = skb.mark();
    if store(skb, asked) {
        skb.set_mark(0);
        skb.redirect_copy(skb.ifindex(), BPF_F_INGRESS.into());
        skb.set_mark(mark);
    }
    // Also if only a part of it was written.
    store(skb, to);
    NEXT
}

/// The address that a packet asks for, or tells of.
#[inline(always)]
fn asked<S: Skb>(skb: &S) -> Option<AnyIp> {
    let mut part = [0; 16];
    if skb.ethertype() == ARP {
        if !skb.load::<6>(ETHERNET, &mut part) {
            return None;
        }
        if part.first_chunk() != Some(&ARP_OF_IPV4) || !skb.load::<4>(ARP_TARGET, &mut part) {
            return None;
        }
        let [a, b, c, d, ..] = part;
        return Some(AnyIp::v4(Ip4::from_bytes([a, b, c, d])));
    }
    if skb.ethertype() != V6::ETHERTYPE || !skb.load::<1>(NEXT_HEADER, &mut part) || part[0] != V6::ICMP {
        return None;
    }
    if !skb.load::<1>(ICMPV6, &mut part) || !matches!(part[0], NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) {
        return None;
    }
    // Who looks for duplicates of its own address has none to ask from (RFC 4862, 5.4.2). The answer would go to a group.
    if !skb.load::<16>(SOURCE, &mut part) || part == [0; 16] {
        return None;
    }
    skb.load::<16>(SOLICITED, &mut part)
        .then_some(AnyIp::v6(Ip6::from_bytes(part)))
}

/// Who has this MAC address.
#[inline(always)]
fn station(parent: DeviceKey, mac: [u8; 6]) -> Option<Station> {
    // SAFETY: the element lives as long as the program runs; only the daemon writes it, as a whole.
    unsafe { maps::MACVLANS.get(StationKey::new(parent, mac)) }.copied()
}

/// Writes the destination's MAC address.
#[inline(always)]
fn store<S: Skb>(skb: &S, mac: [u8; 6]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([mac[at], mac[at + 1]]);
    skb.store_half(0, half(0)) && skb.store_half(2, half(2)) && skb.store_half(4, half(4))
}

#[cfg(test)]
mod tests;
