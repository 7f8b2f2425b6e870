//! ICMP of both families (RFC 792, RFC 4443), as virtual addresses need it: any echo, and errors that quote a packet.

use netfast_common::{net::Port, reason::Reason};

use super::{
    ETHERNET, Frame, Packet, TCP, UDP,
    echo::{HEADER, ICMP_CHECKSUM, IDENTIFIER, echo_ports},
    ends::Translated,
    parse::link,
};
use crate::ctx::Skb;

/// Bytes that are looked at of the transport header that an error quotes: a TCP header up to its checksum.
const MAX_QUOTED: u32 = 18;
/// Bytes of it that there must be (RFC 792).
const MIN_QUOTED: u32 = 8;

/// Offset of the checksum of an ICMP header from the start of the frame.
pub const fn checksum<F: Translated>() -> u32 {
    F::TRANSPORT + ICMP_CHECKSUM
}

/// Offset of the packet that an error quotes.
pub const fn quoted_at<F: Translated>() -> u32 {
    F::TRANSPORT + HEADER
}

/// Bytes of the network header that it quotes.
pub const fn quoted_length<F: Translated>() -> u32 {
    F::TRANSPORT - ETHERNET
}

/// The packet that an error is about.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<A> {
    /// Checksum of the ICMP message, in wire order.
    pub message_checksum: u16,
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
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

/// What a type is.
#[inline(always)]
fn kind_of<F: Translated>(kind: u8) -> Kind {
    if kind == F::ECHO[0] || kind == F::ECHO[1] {
        return Kind::Echo;
    }
    let [a, b, c, d] = F::ERRORS;
    if kind == a || kind == b || kind == c || kind == d {
        return Kind::Error;
    }
    Kind::Other
}

/// What a message is, as far as its first byte tells; the packet's protocol is ICMP.
#[inline(always)]
pub fn kind<F: Translated, S: Skb>(skb: &S) -> Kind {
    let mut frame = Frame::new(skb.data(), skb.data_end());
    if frame.start + F::TRANSPORT as usize + 1 > frame.end {
        if !skb.pull(F::TRANSPORT + 1) {
            return Kind::Other;
        }
        frame = Frame::new(skb.data(), skb.data_end());
    }
    frame.at(F::TRANSPORT).map_or(Kind::Other, kind_of::<F>)
}

/// Reads a message of echo, and whether it is a question; its ports are [`echo_ports`].
#[inline(always)]
pub fn echo<F: Translated, S: Skb>(skb: &S) -> Result<(Packet<F::Address>, bool), Reason> {
    let (frame, mut packet, kind) = header::<F, S>(skb)?;
    if kind_of::<F>(kind) != Kind::Echo {
        return Err(Reason::OtherProtocol);
    }
    let is_request = kind == F::ECHO[0];
    (packet.source_port, packet.destination_port) = echo_ports(is_request, frame.at(F::TRANSPORT + IDENTIFIER)?);
    Ok((packet, is_request))
}

/// Reads an error; then the packet that it quotes can be [read](quoted).
#[inline(always)]
pub fn error<F: Translated, S: Skb>(skb: &S) -> Result<(Frame, Packet<F::Address>), Reason> {
    let (frame, packet, kind) = header::<F, S>(skb)?;
    if kind_of::<F>(kind) == Kind::Echo {
        return Err(Reason::OtherProtocol);
    }
    Ok((frame, packet))
}

/// Reads headers up to that of ICMP, and the type of the message.
#[inline(always)]
fn header<F: Translated, S: Skb>(skb: &S) -> Result<(Frame, Packet<F::Address>, u8), Reason> {
    let (frame, macs, network) = link::<F, S>(skb, HEADER + quoted_length::<F>() + MAX_QUOTED)?;
    if network.protocol != F::ICMP {
        return Err(Reason::OtherProtocol);
    }
    if network.payload < HEADER {
        return Err(Reason::Malformed);
    }
    let kind: u8 = frame.at(F::TRANSPORT)?;
    let packet = Packet {
        macs,
        source_port: Port::default(),
        destination_port: Port::default(),
        transport: [0; 3],
        checksum: 0,
        payload_offset: quoted_at::<F>(),
        payload: network.payload - HEADER,
        network,
    };
    Ok((frame, packet, kind))
}

/// Reads of the packet that an error quotes what is looked at.
#[inline(always)]
pub fn quoted<F: Translated>(frame: &Frame, payload: u32) -> Result<Quoted<F::Address>, Reason> {
    if payload < quoted_length::<F>() + MIN_QUOTED {
        return Err(Reason::Malformed);
    }
    let network = F::quoted(frame, quoted_at::<F>())?;
    let transport = quoted_at::<F>() + quoted_length::<F>();
    let ports: [u16; 2] = frame.at(transport)?;
    let (mut source_port, mut destination_port) = (Port::from_wire(ports[0]), Port::from_wire(ports[1]));
    let mut transport_checksum = (0, 0);
    match network.protocol {
        TCP => {
            if payload >= quoted_length::<F>() + MAX_QUOTED {
                let place = transport + 16;
                transport_checksum = (frame.at(place)?, place);
            }
        }
        UDP => {
            let place = transport + 6;
            let checksum: u16 = frame.at(place)?;
            // Zero means none (RFC 768).
            if checksum != 0 {
                transport_checksum = (checksum, place);
            }
        }
        protocol if protocol == F::ICMP => {
            let kind = ports[0].to_ne_bytes()[0];
            if kind_of::<F>(kind) != Kind::Echo {
                return Err(Reason::OtherProtocol);
            }
            if F::ICMP_HAS_ADDRESSES {
                transport_checksum = (ports[1], transport + ICMP_CHECKSUM);
            }
            (source_port, destination_port) = echo_ports(kind == F::ECHO[0], frame.at(transport + IDENTIFIER)?);
        }
        _ => return Err(Reason::OtherProtocol),
    }
    Ok(Quoted {
        message_checksum: frame.at(checksum::<F>())?,
        source: network.source,
        destination: network.destination,
        source_port,
        destination_port,
        protocol: network.protocol,
        checksum: network.checksum,
        transport_checksum,
    })
}
