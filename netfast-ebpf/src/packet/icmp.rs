//! ICMP (RFC 792), as virtual addresses need it: any echo, and errors that quote a packet.

use netfast_common::{
    net::{Ip4, Port},
    reason::Reason,
};

use super::{
    ETHERNET, Family as _, Frame, Packet, TCP, UDP,
    echo::{ECHO, ECHO_REPLY, HEADER, ICMP, ICMP_CHECKSUM, IDENTIFIER, echo_ports},
    ipv4::V4,
    parse::link,
};
use crate::ctx::Skb;

/// Types: destination unreachable, time exceeded, parameter problem.
const ERRORS: [u8; 3] = [3, 11, 12];

/// Offset of the checksum of an ICMP header from the start of the frame.
pub const CHECKSUM: u32 = V4::TRANSPORT + ICMP_CHECKSUM;
/// Offset of the packet that an error quotes.
pub const QUOTED: u32 = V4::TRANSPORT + HEADER;
/// Offset of its transport header.
const QUOTED_TRANSPORT: u32 = QUOTED + V4::TRANSPORT - ETHERNET;
/// Bytes of it that are looked at: a TCP header up to its checksum.
const MAX_QUOTED: u32 = 18;

/// The packet that an error is about.
#[derive(Clone, Copy, Debug)]
pub struct Quoted {
    /// Checksum of the ICMP message, in wire order.
    pub message_checksum: u16,
    /// Source address.
    pub source: Ip4,
    /// Destination address.
    pub destination: Ip4,
    /// Source port; of ICMP as [`echo`] has it.
    pub source_port: Port,
    /// Destination port, likewise.
    pub destination_port: Port,
    /// IANA protocol number.
    pub protocol: u8,
    /// IPv4 header checksum, in wire order.
    pub checksum: u16,
    /// The transport's checksum, in wire order, and where it is, from the start of the frame; 0: it was not quoted, or there
    /// is none over the addresses.
    pub transport_checksum: (u16, u32),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A question or an answer of echo.
    Echo,
    /// An error that quotes a packet.
    Error,
    /// Neither.
    Other,
}

/// What a message is, as far as its first byte tells; the packet's protocol is ICMP.
#[inline(always)]
pub fn kind<S: Skb>(skb: &S) -> Kind {
    let mut frame = Frame::new(skb.data(), skb.data_end());
    if frame.start + V4::TRANSPORT as usize + 1 > frame.end {
        if !skb.pull(V4::TRANSPORT + 1) {
            return Kind::Other;
        }
        frame = Frame::new(skb.data(), skb.data_end());
    }
    match frame.at::<u8>(V4::TRANSPORT) {
        Ok(ECHO | ECHO_REPLY) => Kind::Echo,
        Ok(kind) if kind == ERRORS[0] || kind == ERRORS[1] || kind == ERRORS[2] => Kind::Error,
        _ => Kind::Other,
    }
}

/// Reads a message of echo, and whether it is a question; its ports are [`echo_ports`].
#[inline(always)]
pub fn echo<S: Skb>(skb: &S) -> Result<(Packet<Ip4>, bool), Reason> {
    let (frame, mut packet, kind) = header(skb)?;
    if kind != ECHO && kind != ECHO_REPLY {
        return Err(Reason::OtherProtocol);
    }
    (packet.source_port, packet.destination_port) = echo_ports(kind == ECHO, frame.at(V4::TRANSPORT + IDENTIFIER)?);
    Ok((packet, kind == ECHO))
}

/// Reads an error, and of the packet that it quotes what is looked at.
#[inline(always)]
pub fn error<S: Skb>(skb: &S) -> Result<(Packet<Ip4>, Quoted), Reason> {
    let (frame, packet, kind) = header(skb)?;
    if kind == ECHO || kind == ECHO_REPLY {
        return Err(Reason::OtherProtocol);
    }
    let quoted = quoted(&frame, packet.payload)?;
    Ok((packet, quoted))
}

/// Reads headers up to that of ICMP, and the type of the message.
#[inline(always)]
fn header<S: Skb>(skb: &S) -> Result<(Frame, Packet<Ip4>, u8), Reason> {
    let (frame, macs, network) = link::<V4, S>(skb, HEADER + 20 + MAX_QUOTED)?;
    if network.protocol != ICMP {
        return Err(Reason::OtherProtocol);
    }
    if network.payload < HEADER {
        return Err(Reason::Malformed);
    }
    let kind: u8 = frame.at(V4::TRANSPORT)?;
    let packet = Packet {
        macs,
        source_port: Port::default(),
        destination_port: Port::default(),
        transport: [0; 3],
        checksum: 0,
        payload_offset: QUOTED,
        payload: network.payload - HEADER,
        network,
    };
    Ok((frame, packet, kind))
}

/// Reads the quoted packet: no options, not a later fragment.
#[inline(always)]
fn quoted(frame: &Frame, payload: u32) -> Result<Quoted, Reason> {
    /// The fragment offset, in wire order.
    const OFFSET: u32 = u32::from_ne_bytes([0, 0, 0x1f, 0xff]);
    if payload < 20 + 8 {
        return Err(Reason::Malformed);
    }
    let words: [u32; 5] = frame.at(QUOTED)?;
    if words[0].to_ne_bytes()[0] != 0x45 {
        return Err(Reason::IpOptions);
    }
    if words[1] & OFFSET != 0 {
        return Err(Reason::Fragment);
    }
    let third = words[2].to_ne_bytes();
    let protocol = third[1];
    let ports: [u16; 2] = frame.at(QUOTED_TRANSPORT)?;
    let (mut source_port, mut destination_port) = (Port::from_wire(ports[0]), Port::from_wire(ports[1]));
    let mut transport_checksum = (0, 0);
    match protocol {
        TCP => {
            if payload >= 20 + MAX_QUOTED {
                let place = QUOTED_TRANSPORT + 16;
                transport_checksum = (frame.at(place)?, place);
            }
        }
        UDP => {
            let place = QUOTED_TRANSPORT + 6;
            let checksum: u16 = frame.at(place)?;
            // Zero means none (RFC 768).
            if checksum != 0 {
                transport_checksum = (checksum, place);
            }
        }
        ICMP => {
            let kind = ports[0].to_ne_bytes()[0];
            if kind != ECHO && kind != ECHO_REPLY {
                return Err(Reason::OtherProtocol);
            }
            (source_port, destination_port) = echo_ports(kind == ECHO, frame.at(QUOTED_TRANSPORT + IDENTIFIER)?);
        }
        _ => return Err(Reason::OtherProtocol),
    }
    Ok(Quoted {
        message_checksum: frame.at(CHECKSUM)?,
        source: Ip4::from_wire(words[3]),
        destination: Ip4::from_wire(words[4]),
        source_port,
        destination_port,
        protocol,
        checksum: u16::from_ne_bytes([third[2], third[3]]),
        transport_checksum,
    })
}
