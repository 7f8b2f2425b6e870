//! Shows packets to `netfast trace`, if it runs: a comparison on the packet's path, everything else out of line.

use netfast_common::{
    control::Control,
    reason::Reason,
    trace::{Filter, Traced, step},
};

use crate::{
    ctx::{Ctx, kernel},
    packet::{TCP, UDP},
    state::maps,
};

/// `BPF_RB_NO_WAKEUP`: the reader looks by itself, waking it for every packet would cost more than the rest.
const NO_WAKEUP: u64 = 1;
/// `ETH_P_IP`, in wire order.
const IPV4: u16 = 0x0800_u16.to_be();
/// Where TTL, protocol, checksum, addresses and ports are: 16 bytes from here, if the IPv4 header has no options.
const TUPLE: u32 = 22;
/// `ETH_P_IPV6`, in wire order.
const IPV6: u16 = 0x86dd_u16.to_be();
/// Where the protocol of an IPv6 packet is, and its ports, if it has no extension headers.
const NEXT_HEADER: u32 = 20;
const PORTS6: u32 = 54;

/// The steps that are run out of line: the verifier looks at each once, and not on each path that leads there.
pub trait Show: Ctx {
    /// Runs [`show`].
    fn show(&self, reason: u32, out_ifindex: u32);
    /// Runs [`is_wanted`].
    fn is_wanted(&self, reason: u32, out_ifindex: u32) -> bool;
}

/// A packet is about to take the fast path; it is still as it came in.
#[inline(always)]
pub fn fast<S: Show>(skb: &S, control: &Control, now: u64, out_ifindex: u32) {
    if control.traced_until > step(now) {
        skb.show(netfast_common::reason::FAST, out_ifindex);
    }
}

/// A packet takes the slow path. Whether the lease still holds is asked out of line: every branch here multiplies the
/// paths that the verifier walks by the many ways that lead here.
#[inline(always)]
pub fn slow<S: Show>(skb: &S, reason: Reason) {
    if let Some(control) = maps::CONTROL.get(0)
        && control.traced_until != 0
    {
        skb.show(reason.number(), 0);
    }
}

/// Shows a packet, if somebody looks, it is wanted and there is room.
#[inline(always)]
pub fn show<S: Show>(skb: &S, reason: u32, out_ifindex: u32) {
    let Some(control) = maps::CONTROL.get(0) else {
        return;
    };
    if control.traced_until <= step(kernel::coarse_ns()) {
        return;
    }
    if !skb.is_wanted(reason, out_ifindex) {
        return;
    }
    let (Some(filter), Some(tally)) = (maps::FILTER.get(0), maps::TALLY.get_ptr_mut(0)) else {
        return;
    };
    // SAFETY: this CPU's element; hooks run with softirqs off, so nothing else touches it meanwhile.
    let tally = unsafe { &mut *tally };
    tally.wanted += 1;
    if filter.sample > 1 && !kernel::random().is_multiple_of(filter.sample) {
        return;
    }
    let time_ns = kernel::ns();
    let now = step(time_ns);
    if tally.step != now {
        tally.step = now;
        tally.in_step = 0;
    }
    if tally.in_step >= filter.limit {
        tally.limited += 1;
        return;
    }
    tally.in_step += 1;
    let Some(mut place) = maps::TRACED.reserve::<Traced>(0) else {
        tally.lost += 1;
        return;
    };
    let traced = place.as_mut_ptr();
    let length = skb.length();
    // SAFETY: the place is ours until it is submitted. Field by field: what the packet does not fill stays as it is,
    // and the reader looks at `captured` bytes only.
    unsafe {
        (*traced).time_ns = time_ns;
        (*traced).ifindex = skb.ifindex();
        (*traced).out_ifindex = out_ifindex;
        (*traced).reason = reason;
        (*traced).length = length;
        (*traced).gso_size = skb.gso_size();
        (*traced).captured = skb.capture(length, &mut (*traced).bytes);
    }
    tally.shown += 1;
    place.submit(NO_WAKEUP);
}

/// Whether the filter wants a packet.
#[inline(always)]
pub fn is_wanted<S: Ctx>(skb: &S, reason: u32, out_ifindex: u32) -> bool {
    let Some(filter) = maps::FILTER.get(0) else {
        return false;
    };
    is_of_interest(filter, reason, skb.ifindex(), out_ifindex) && has_tuple(skb, filter)
}

/// By what needs no look into the packet.
#[inline(always)]
fn is_of_interest(filter: &Filter, reason: u32, ifindex: u32, out_ifindex: u32) -> bool {
    let path = if reason == netfast_common::reason::FAST {
        Filter::FAST
    } else {
        Filter::SLOW
    };
    if filter.paths != 0 && filter.paths & path == 0 {
        return false;
    }
    if filter.reason != 0 && filter.reason != reason {
        return false;
    }
    if filter.devices[0] == 0 {
        return true;
    }
    for device in filter.devices {
        if device == 0 {
            return false;
        }
        if device == ifindex || device == out_ifindex {
            return true;
        }
    }
    false
}

/// By addresses, ports and protocol.
#[inline(always)]
fn has_tuple<S: Ctx>(skb: &S, filter: &Filter) -> bool {
    let (address, port) = (filter.address.wire(), filter.port.wire());
    if address == 0 && port == 0 && filter.protocol == 0 {
        return true;
    }
    let mut bytes = [0; 16];
    if skb.ethertype() == IPV6 {
        // IPv6 addresses are compared by who reads.
        if address != 0 || !skb.load::<1>(NEXT_HEADER, &mut bytes) {
            return false;
        }
        let protocol = bytes[0];
        if filter.protocol != 0 && filter.protocol != protocol {
            return false;
        }
        return port == 0 || has_ports(protocol) && skb.load::<4>(PORTS6, &mut bytes) && is_one_of(port, &bytes, 0);
    }
    if skb.ethertype() != IPV4 || !skb.load::<16>(TUPLE, &mut bytes) {
        return false;
    }
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (filter.protocol == 0 || filter.protocol == bytes[1])
        && (address == 0 || address == word(4) || address == word(8))
        && (port == 0 || has_ports(bytes[1]) && is_one_of(port, &bytes, 12))
}

/// Whether a protocol has ports, as far as netfast knows it.
#[inline(always)]
const fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

/// Whether a port is one of the two that are there.
#[inline(always)]
fn is_one_of(port: u16, bytes: &[u8; 16], at: usize) -> bool {
    let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    port == half(at) || port == half(at + 2)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use netfast_common::net::{Ip4, Port};

    use super::*;
    use crate::ctx::fake::FakeSkb;

    #[test]
    fn filters_by_device_and_reason() {
        let wanted = |edit: fn(&mut Filter), reason, ifindex, out| {
            let mut filter = Filter::default();
            edit(&mut filter);
            is_of_interest(&filter, reason, ifindex, out)
        };
        assert!(wanted(|_| (), 0, 3, 4) && wanted(|_| (), 18, 3, 0));
        assert!(wanted(|f| f.paths = Filter::FAST, 0, 3, 4) && !wanted(|f| f.paths = Filter::FAST, 18, 3, 0));
        assert!(!wanted(|f| f.paths = Filter::SLOW, 0, 3, 4) && wanted(|f| f.paths = Filter::SLOW, 18, 3, 0));
        assert!(wanted(|f| f.reason = 18, 18, 3, 0) && !wanted(|f| f.reason = 18, 19, 3, 0));
        let two = |f: &mut Filter| f.devices[..2].copy_from_slice(&[7, 9]);
        assert!(wanted(two, 0, 7, 1) && wanted(two, 0, 1, 9) && !wanted(two, 0, 1, 2) && !wanted(two, 18, 1, 0));
    }

    #[test]
    fn filters_by_tuple() {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(4000, 53)
            .write(&mut bytes, b"x")
            .expect("a packet");
        let skb = FakeSkb::new(&bytes);
        let has = |edit: fn(&mut Filter)| {
            let mut filter = Filter::default();
            edit(&mut filter);
            has_tuple(&skb, &filter)
        };
        assert!(has(|_| ()));
        assert!(
            has(|f| f.address = Ip4::from_bytes([10, 0, 0, 1])) && has(|f| f.address = Ip4::from_bytes([10, 0, 0, 2]))
        );
        assert!(!has(|f| f.address = Ip4::from_bytes([10, 0, 0, 3])));
        assert!(
            has(|f| f.port = Port::new(4000)) && has(|f| f.port = Port::new(53)) && !has(|f| f.port = Port::new(54))
        );
        assert!(has(|f| f.protocol = 17) && !has(|f| f.protocol = 6));
        // IPv6, whose addresses the programs do not compare.
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6([0xfd; 16], [0xfc; 16], 64)
            .udp(4000, 53)
            .write(&mut bytes, b"x")
            .expect("a packet");
        let skb = FakeSkb::new(&bytes);
        let has = |edit: fn(&mut Filter)| {
            let mut filter = Filter::default();
            edit(&mut filter);
            has_tuple(&skb, &filter)
        };
        assert!(has(|f| f.port = Port::new(4000)) && has(|f| f.port = Port::new(53)));
        assert!(!has(|f| f.port = Port::new(54)) && !has(|f| f.address = Ip4::from_bytes([10, 0, 0, 1])));
        assert!(has(|f| f.protocol = 17) && !has(|f| f.protocol = 6));
        // What ICMP has in the place of ports is none.
        for is_six in [false, true] {
            let mut bytes = Vec::new();
            let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
            let done = if is_six {
                let builder = builder.ipv6([0xfd; 16], [0xfc; 16], 64);
                builder.icmpv6_echo_request(7, 1).write(&mut bytes, b"x")
            } else {
                let builder = builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
                builder.icmpv4_echo_request(7, 1).write(&mut bytes, b"x")
            };
            done.expect("a packet");
            let transport = if is_six { 54 } else { 34 };
            let port = u16::from_be_bytes([bytes[transport], bytes[transport + 1]]);
            let protocol = if is_six { 58 } else { 1 };
            let has = |protocol, port| {
                let filter = Filter {
                    protocol,
                    port: Port::new(port),
                    ..Filter::default()
                };
                has_tuple(&FakeSkb::new(&bytes), &filter)
            };
            assert!(has(protocol, 0) && !has(17, 0) && !has(0, port));
        }
        // Neither of both, and too short to have ports.
        let arp = FakeSkb::new(&[[0xff; 12].as_slice(), &[8, 6], &[0; 28]].concat());
        let filter = Filter {
            protocol: 17,
            ..Filter::default()
        };
        assert!(!has_tuple(&arp, &filter));
    }
}
