//! Docker's resolver: between port 53 of its address and the ports that it listens on, at the egress of the loopback interface
//! inside a container's network namespace.
//!
//! Docker's NAT rules do the same, and switch conntrack on for every packet of the container. With them nothing that comes here
//! has one of these ports on the wrong side, so there is nothing to do; without them what is asked and what is answered pass
//! here before any socket sees them, and before [`dns`](crate::dns) does.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use netfast_common::{
    csum,
    net::{Ip4, Port},
    resolver::{ADDRESS, DOMAIN, Ports},
};

use crate::{
    ctx::{NEXT, Skb},
    packet::{
        Family as _, Packet, TCP, UDP, V4, icmp, parse,
        rewrite::{TCP_CHECKSUM, UDP_CHECKSUM},
    },
    state::maps,
};

/// Offset of the source port in TCP's and UDP's headers, and of the destination port.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
/// Bytes of a TCP header without options, and of a UDP header.
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;

/// A packet on its way from one socket in the container to another.
#[inline(always)]
pub fn at_loopback<S: Skb>(skb: &S) -> i32 {
    // All that programs in the container say to each other by its loopback interface passes here too.
    if parse::is_to::<S>(skb, ADDRESS) || parse::is_from::<S>(skb, ADDRESS) {
        // SAFETY: the element is copied at once; only the daemon writes it.
        if let Some(ports) = unsafe { maps::RESOLVERS.get(skb.netns_cookie()) }.copied() {
            translate(skb, ports);
        }
    }
    NEXT
}

#[inline(always)]
fn translate<S: Skb>(skb: &S, ports: Ports) {
    let Ok(packet) = parse::parse_with_ports::<V4, S>(skb) else {
        correct_error(skb, ports);
        return;
    };
    let listens = if packet.network.protocol == TCP {
        ports.tcp
    } else {
        ports.udp
    };
    if packet.network.destination == ADDRESS && packet.destination_port == DOMAIN {
        write(skb, &packet, DESTINATION_PORT, DOMAIN, listens);
    } else if packet.network.source == ADDRESS && packet.source_port == listens {
        write(skb, &packet, SOURCE_PORT, listens, DOMAIN);
    }
}

/// Writes another port.
#[inline(always)]
fn write<S: Skb>(skb: &S, packet: &Packet<Ip4>, place: u32, old: Port, new: Port) {
    let (header, checksum, flags) = if packet.network.protocol == TCP {
        (TCP_HEADER, TCP_CHECKSUM, 0)
    } else {
        (UDP_HEADER, UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0))
    };
    // All of it linear and ours alone: from here on no helper needs memory, so none fails half-way.
    if skb.pull(V4::TRANSPORT + header) {
        skb.store_half(V4::TRANSPORT + place, new.wire());
        skb.correct_checksum(V4::TRANSPORT + checksum, difference(old, new), flags);
    }
}

/// An error about a datagram to a resolver that is gone: whoever asked is told of the port that was asked.
#[inline(always)]
fn correct_error<S: Skb>(skb: &S, ports: Ports) {
    let Ok((frame, packet)) = icmp::error::<V4, S>(skb) else {
        return;
    };
    let Ok(quoted) = icmp::quoted::<V4>(&frame, packet.payload) else {
        return;
    };
    if quoted.protocol != UDP || quoted.destination != ADDRESS || quoted.destination_port != ports.udp {
        return;
    }
    let place = icmp::quoted_at::<V4>() + icmp::quoted_length::<V4>() + DESTINATION_PORT;
    if skb.pull(place + 2) {
        skb.store_half(place, DOMAIN.wire());
        skb.correct_checksum(icmp::checksum::<V4>(), difference(ports.udp, DOMAIN), 0);
    }
}

/// What a change of a port is to a checksum.
#[inline(always)]
fn difference(old: Port, new: Port) -> u32 {
    csum::difference(old.wire().into(), new.wire().into())
}

#[cfg(test)]
mod tests;
