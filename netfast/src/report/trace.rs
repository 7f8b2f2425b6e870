//! `netfast trace`: packets in one line each, and the words that choose them ([`filter`]). Pure.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use netfast_common::{
    reason::{FAST, Reason},
    trace::{Tally, Traced},
};
use serde::Serialize;

use crate::report::{flows::DeviceName, units::count};

pub mod filter;

/// A packet, for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PacketReport {
    /// Since 1970, in nanoseconds.
    pub time_ns: u64,
    /// `fast` or `slow`.
    pub path: &'static str,
    /// Why it is slow.
    pub reason: Option<&'static str>,
    /// Where it entered.
    pub enters: Place,
    /// Where it leaves, if it is fast.
    pub leaves: Option<Place>,
    /// `tcp`, `udp`, `icmp`, `icmp6`, `arp`, or a number.
    pub protocol: String,
    /// Source address, and port if the protocol has them.
    pub source: Option<String>,
    /// Destination, likewise.
    pub destination: Option<String>,
    /// TCP's flags, as tcpdump writes them.
    pub tcp_flags: Option<String>,
    /// What a message of ICMP echo is known by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<Echo>,
    /// Its length in bytes, Ethernet header included.
    pub length: u32,
    /// Payload bytes of each segment, if the kernel has merged several.
    pub gso_size: Option<u32>,
}

/// A message of ICMP echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Echo {
    /// `request` or `reply`.
    pub kind: &'static str,
    /// Identifier.
    pub id: u16,
    /// Sequence number.
    pub sequence: u16,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub device: String,
    /// The container behind it.
    pub container: Option<String>,
}

impl Place {
    /// An interface by what is known of it.
    pub fn new(ifindex: u32, known: Option<DeviceName>) -> Self {
        let known = known.unwrap_or_else(|| DeviceName {
            device: format!("#{ifindex}"),
            container: None,
        });
        Self {
            ifindex,
            device: known.device,
            container: known.container,
        }
    }

    fn name(&self) -> &str {
        self.container.as_deref().unwrap_or(&self.device)
    }
}

/// The bytes that were captured.
pub fn bytes(traced: &Traced) -> &[u8] {
    let captured = (traced.captured as usize).min(traced.bytes.len());
    &traced.bytes[..captured]
}

impl PacketReport {
    /// Reads a packet. `epoch_ns` is when the programs' clock was zero, since 1970.
    pub fn new(traced: &Traced, epoch_ns: u64, names: impl Fn(u32) -> Option<DeviceName>) -> Self {
        let place = |ifindex| Place::new(ifindex, names(ifindex));
        let is_fast = traced.reason == FAST;
        let reason = Reason::ALL.iter().find(|reason| reason.number() == traced.reason);
        let headers = Headers::read(bytes(traced));
        Self {
            time_ns: epoch_ns.wrapping_add(traced.time_ns),
            path: if is_fast { "fast" } else { "slow" },
            reason: (!is_fast).then(|| reason.map_or("unknown", |reason| reason.name())),
            enters: place(traced.ifindex),
            leaves: is_fast.then(|| place(traced.out_ifindex)),
            protocol: headers.protocol,
            source: headers.source,
            destination: headers.destination,
            tcp_flags: headers.tcp_flags,
            echo: headers.echo,
            length: traced.length,
            gso_size: (traced.gso_size != 0).then_some(traced.gso_size),
        }
    }

    /// What became of it, in a few words.
    pub fn verdict(&self) -> String {
        match (&self.reason, &self.leaves) {
            (None, Some(leaves)) => format!("fast: {} > {}", self.enters.name(), leaves.name()),
            (reason, _) => format!("slow: {} {}", self.enters.name(), reason.unwrap_or_default()),
        }
    }
}

impl fmt::Display for PacketReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_day = self.time_ns / 1000 % 86_400_000_000;
        let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
        write!(
            f,
            "{:02}:{:02}:{:02}.{micros:06} {:<34} {}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            self.verdict(),
            self.protocol
        )?;
        if let (Some(source), Some(destination)) = (&self.source, &self.destination) {
            write!(f, " {source} > {destination}")?;
        }
        if let Some(flags) = &self.tcp_flags {
            write!(f, " [{flags}]")?;
        }
        if let Some(Echo { kind, id, sequence }) = &self.echo {
            write!(f, " echo {kind} id {id} seq {sequence}")?;
        }
        write!(f, " {} bytes", self.length)?;
        if let Some(size) = self.gso_size {
            write!(f, " in segments of {size}")?;
        }
        Ok(())
    }
}

/// What a line shows of the headers.
#[derive(Default)]
struct Headers {
    protocol: String,
    source: Option<String>,
    destination: Option<String>,
    tcp_flags: Option<String>,
    echo: Option<Echo>,
}

impl Headers {
    fn read(bytes: &[u8]) -> Self {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else {
            return Self {
                protocol: "cut short".into(),
                ..Self::default()
            };
        };
        let addresses: Option<(IpAddr, IpAddr)> = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                Some((ip.header().source_addr().into(), ip.header().destination_addr().into()))
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                Some((ip.header().source_addr().into(), ip.header().destination_addr().into()))
            }
            Some(LaxNetSlice::Arp(_)) | None => None,
        };
        let ports = match &packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Some(("tcp", tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some(("udp", udp.source_port(), udp.destination_port())),
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => None,
        };
        let protocol = match (&packet.transport, &packet.net, ports) {
            (_, _, Some((name, ..))) => name.to_owned(),
            (Some(TransportSlice::Icmpv4(_)), ..) => "icmp".into(),
            (Some(TransportSlice::Icmpv6(_)), ..) => "icmp6".into(),
            (_, Some(LaxNetSlice::Ipv4(ip)), _) => format!("ip protocol {}", ip.header().protocol().0),
            (_, Some(LaxNetSlice::Ipv6(ip)), _) => format!("ipv6 next header {}", ip.header().next_header().0),
            (_, Some(LaxNetSlice::Arp(_)), _) => "arp".into(),
            (_, None, _) => match bytes.get(12..14) {
                Some(kind) => format!("ethertype 0x{:02x}{:02x}", kind[0], kind[1]),
                None => "cut short".into(),
            },
        };
        let end = |ip: IpAddr, port: Option<u16>| match port {
            Some(port) => SocketAddr::new(ip, port).to_string(),
            None => ip.to_string(),
        };
        Self {
            echo: packet.transport.as_ref().and_then(echo),
            protocol,
            source: addresses.map(|(source, _)| end(source, ports.map(|(_, port, _)| port))),
            destination: addresses.map(|(_, destination)| end(destination, ports.map(|(_, _, port)| port))),
            tcp_flags: match &packet.transport {
                Some(TransportSlice::Tcp(tcp)) => Some(
                    [
                        (tcp.syn(), 'S'),
                        (tcp.fin(), 'F'),
                        (tcp.rst(), 'R'),
                        (tcp.psh(), 'P'),
                        (tcp.urg(), 'U'),
                        (tcp.ack(), '.'),
                    ]
                    .into_iter()
                    .filter_map(|(is_set, letter)| is_set.then_some(letter))
                    .collect(),
                ),
                Some(
                    TransportSlice::Udp(_)
                    | TransportSlice::Icmpv4(_)
                    | TransportSlice::Icmpv6(_)
                    | TransportSlice::Igmp(_),
                )
                | None => None,
            },
        }
    }
}

fn echo(transport: &TransportSlice<'_>) -> Option<Echo> {
    // RFC 792 and RFC 4443: the types of requests and replies.
    let ([request, reply], number, [a, b, c, d]) = match transport {
        TransportSlice::Icmpv4(icmp) => ([8, 0], icmp.type_u8(), icmp.bytes5to8()),
        TransportSlice::Icmpv6(icmp) => ([128, 129], icmp.type_u8(), icmp.bytes5to8()),
        TransportSlice::Tcp(_) | TransportSlice::Udp(_) | TransportSlice::Igmp(_) => return None,
    };
    let is_request = number == request;
    (is_request || number == reply).then_some(Echo {
        kind: if is_request { "request" } else { "reply" },
        id: u16::from_be_bytes([a, b]),
        sequence: u16::from_be_bytes([c, d]),
    })
}

/// What became of the packets, in words: `shown` is what was printed or captured, the rest is the programs' word.
pub fn summary(shown: u64, tally: &Tally, sample: u32) -> String {
    let Tally {
        wanted, limited, lost, ..
    } = *tally;
    let noun = if shown == 1 { "packet" } else { "packets" };
    let mut text = format!("{} {noun} shown", count(shown));
    if sample > 1 {
        let _ = write!(text, " (one in {sample} of {}, by chance)", count(wanted));
    }
    if limited > 0 {
        let _ = write!(text, "; {} left out by --limit", count(limited));
    }
    if lost > 0 {
        let _ = write!(text, "; {} LOST, the reader was too slow", count(lost));
    }
    text
}

#[cfg(test)]
mod tests;
