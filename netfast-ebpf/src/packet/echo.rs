//! ICMP echo of both families (RFC 792, RFC 4443), as far as flows may have it.

use netfast_common::{flow::Flow, net::Port};

use super::{Family, Frame, Packet};

/// IANA protocol number.
pub const ICMP: u8 = 1;
/// Bytes of an ICMP header.
pub const HEADER: u32 = 8;
/// Offset of the checksum in it.
pub const ICMP_CHECKSUM: u32 = 2;
/// Offset of the identifier in it.
pub const IDENTIFIER: u32 = 4;
/// Types of IPv4: a reply, and a request.
pub const ECHO_REPLY: u8 = 0;
/// As above.
pub const ECHO: u8 = 8;

/// What a message of echo has in the place of ports: a request's identifier is its source port, a reply's its destination port,
/// and the other one is zero. So a request's reverse, as that of any flow, is the reply to it, and no message of one kind is of a
/// flow of the other.
#[inline(always)]
pub const fn echo_ports(is_request: bool, identifier: u16) -> (Port, Port) {
    let (identifier, none) = (Port::from_wire(identifier), Port::new(0));
    if is_request {
        (identifier, none)
    } else {
        (none, identifier)
    }
}

/// What a flow knows a message of echo by.
pub struct Echo {
    /// See [`echo_ports`].
    pub ports: (Port, Port),
    /// See [`Packet::transport`].
    pub transport: [u32; 3],
    /// Its checksum, in wire order.
    pub checksum: u16,
}

/// Reads a message of echo that a flow may have; `None`: it is another one, or odd. An identifier of zero would be on both places
/// of [`echo_ports`], and requests of one side would pass for replies to the other's.
#[inline(always)]
pub fn plain_echo<F: Family>(frame: &Frame, payload: u32) -> Option<Echo> {
    if payload < HEADER {
        return None;
    }
    let [head, checksum, identifier, sequence]: [u16; 4] = frame.at(F::TRANSPORT).ok()?;
    let ([kind, code], [upper, lower]) = (head.to_ne_bytes(), sequence.to_ne_bytes());
    if (kind != F::ECHO[0] && kind != F::ECHO[1]) || code != 0 || identifier == 0 {
        return None;
    }
    Some(Echo {
        ports: echo_ports(kind == F::ECHO[0], identifier),
        transport: [u32::from_ne_bytes([kind, code, upper, lower]), 0, 0],
        checksum,
    })
}

/// What is written where a packet's ports are: those of its flow, or of ICMP its first two fields as they were.
#[inline(always)]
pub fn ports_or_head<F: Family>(packet: &Packet<F::Address>, flow: &Flow<F::Address>) -> [u16; 2] {
    if packet.network.protocol == F::ICMP {
        [packet.icmp_type(), packet.checksum]
    } else {
        [flow.source_port.wire(), flow.destination_port.wire()]
    }
}

/// The identifier of a flow of echo, in wire order.
#[inline(always)]
pub const fn identifier<A>(flow: &Flow<A>) -> u16 {
    flow.source_port.wire() | flow.destination_port.wire()
}
