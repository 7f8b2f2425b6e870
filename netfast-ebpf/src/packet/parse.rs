//! Bytes to headers. Reads only; every bounds check of direct packet access is here.

use netfast_common::{
    device::Device,
    net::{Ip4, MacPair, Port},
    reason::Reason,
};

use crate::{
    ctx::Ctx,
    packet::{
        ETHERNET, Frame, Network, Packet, TCP, UDP, echo,
        ends::{Translated, address_length},
        family::Family,
        halves,
        ipv4::{DESTINATION, SOURCE, V4},
        ipv6::V6,
    },
};

/// Bytes of a TCP header without options.
const TCP_HEADER: u32 = 20;
/// Bytes of a UDP header.
const UDP_HEADER: u32 = 8;

/// Reads a packet up to its transport header. The order of the checks is the order in which they can be understood:
/// nothing of a header is believed before the one under it is sound.
#[inline(always)]
pub fn parse<F: Family, S: Ctx>(skb: &S) -> Result<Packet<F::Address>, Reason> {
    transport::<F, S, true>(skb)
}

/// The same of TCP and UDP alone.
#[inline(always)]
pub fn parse_with_ports<F: Family, S: Ctx>(skb: &S) -> Result<Packet<F::Address>, Reason> {
    transport::<F, S, false>(skb)
}

#[inline(always)]
fn transport<F: Family, S: Ctx, const ECHO: bool>(skb: &S) -> Result<Packet<F::Address>, Reason> {
    let (frame, macs, network) = link::<F, S>(skb, TCP_HEADER)?;
    let (transport, header, checksum) = match network.protocol {
        TCP => {
            let words: [u32; 3] = frame.at(F::TRANSPORT + 4)?;
            // The rest of the fixed header (checksum, urgent pointer) must be there too.
            let [checksum, _]: [u16; 2] = frame.at(F::TRANSPORT + 16)?;
            let header = u32::from(words[2].to_ne_bytes()[0] >> 4) * 4;
            if header < TCP_HEADER || header > network.payload {
                return Err(Reason::Malformed);
            }
            (words, header, checksum)
        }
        UDP => {
            let words: [u32; 1] = frame.at(F::TRANSPORT + 4)?;
            let field = words[0].to_ne_bytes();
            let length = u32::from(u16::from_be_bytes([field[0], field[1]]));
            if length < UDP_HEADER || length > network.payload {
                return Err(Reason::Malformed);
            }
            (
                ([u32::from(u16::from_ne_bytes([field[0], field[1]])), 0, 0]),
                UDP_HEADER,
                u16::from_ne_bytes([field[2], field[3]]),
            )
        }
        protocol => {
            // There are no segments of ICMP.
            let is_echo = ECHO && protocol == F::ICMP && skb.gso_size() == 0;
            let message = if is_echo {
                echo::plain_echo::<F>(&frame, network.payload)
            } else {
                None
            };
            let Some(echo::Echo {
                ports,
                transport,
                checksum,
            }) = message
            else {
                return Err(F::other(&frame, protocol));
            };
            return Ok(Packet {
                macs,
                source_port: ports.0,
                destination_port: ports.1,
                transport,
                checksum,
                payload_offset: F::TRANSPORT + echo::HEADER,
                payload: network.payload - echo::HEADER,
                network,
            });
        }
    };
    let ports: [u16; 2] = frame.at(F::TRANSPORT)?;
    Ok(Packet {
        macs,
        source_port: Port::from_wire(ports[0]),
        destination_port: Port::from_wire(ports[1]),
        transport,
        checksum,
        payload_offset: F::TRANSPORT + header,
        payload: network.payload - header,
        network,
    })
}

/// Reads Ethernet and network header, and makes as many bytes behind them directly readable, as far as there are.
#[inline(always)]
pub(super) fn link<F: Family, S: Ctx>(skb: &S, behind: u32) -> Result<(Frame, MacPair, Network<F::Address>), Reason> {
    if skb.ethertype() != F::ETHERTYPE {
        return Err(Reason::NotIp);
    }
    if skb.has_vlan() {
        return Err(Reason::Vlan);
    }
    let length = skb.length();
    if length < F::TRANSPORT {
        return Err(Reason::Malformed);
    }
    let all = F::TRANSPORT + behind;
    let mut frame = Frame::new(skb.data(), skb.data_end());
    if frame.start + all as usize > frame.end {
        let wanted = if length < all { length } else { all };
        if frame.start + (wanted as usize) > frame.end && !skb.pull(wanted) {
            return Err(Reason::Malformed);
        }
        frame = Frame::new(skb.data(), skb.data_end());
    }
    let macs = MacPair::from_wire(frame.at(0)?);
    if frame.at::<u16>(ETHERNET - 2)? != F::ETHERTYPE {
        return Err(Reason::NotIp);
    }
    let network = F::parse(&frame, length, skb.gso_size() != 0)?;
    Ok((frame, macs, network))
}

/// The Ethernet addresses of an IP packet, whatever is in it; `None`: it is another, or they cannot be read directly.
#[inline(always)]
pub fn macs_of_ip<S: Ctx>(skb: &S) -> Option<MacPair> {
    let ethertype = skb.ethertype();
    if ethertype != V4::ETHERTYPE && ethertype != V6::ETHERTYPE {
        return None;
    }
    let frame = Frame::new(skb.data(), skb.data_end());
    frame.at(0).ok().map(MacPair::from_wire)
}

/// The address that a packet of this family goes to and its protocol, whatever else is about it.
#[inline(always)]
pub fn glance<F: Translated, S: Ctx>(skb: &S) -> Option<(F::Address, u8)> {
    let mut frame = Frame::new(skb.data(), skb.data_end());
    if frame.start + F::TRANSPORT as usize > frame.end {
        if !skb.pull(F::TRANSPORT) {
            return None;
        }
        frame = Frame::new(skb.data(), skb.data_end());
    }
    let destination = F::address_at(&frame, F::SOURCE + address_length::<F>()).ok()?;
    let protocol = frame.at(F::PROTOCOL).ok()?;
    Some((destination, protocol))
}

/// Whether an IPv4 packet comes from this address, as far as can be read directly.
#[inline(always)]
pub fn is_from<S: Ctx>(skb: &S, address: Ip4) -> bool {
    has(skb, SOURCE, address)
}

/// Whether an IPv4 packet goes to this address, as far as can be read directly.
#[inline(always)]
pub fn is_to<S: Ctx>(skb: &S, address: Ip4) -> bool {
    has(skb, DESTINATION, address)
}

#[inline(always)]
fn has<S: Ctx>(skb: &S, place: u32, address: Ip4) -> bool {
    let frame = Frame::new(skb.data(), skb.data_end());
    skb.ethertype() == V4::ETHERTYPE
        && frame
            .at(place)
            .is_ok_and(|found: [u16; 2]| found == halves(address.wire()))
}

/// Whether an endpoint sends a frame from an address that is not its own. Asked only of what takes the slow path, for
/// the counters; it looks no further than what can be read directly.
#[inline(always)]
pub fn is_from_another<F: Family, S: Ctx>(skb: &S, device: &Device) -> bool {
    let frame = Frame::new(skb.data(), skb.data_end());
    let Ok(macs) = frame.at(0).map(MacPair::from_wire) else {
        return false;
    };
    macs.source() != device.mac || F::is_from_another(&frame, skb.ethertype(), device)
}

#[cfg(not(target_arch = "bpf"))]
impl crate::ctx::fake::FakeSkb {
    /// What the programs make of it.
    pub fn parsed(&self) -> Result<Packet<Ip4>, Reason> {
        parse::<V4, _>(self)
    }
}

#[cfg(test)]
mod tests;
