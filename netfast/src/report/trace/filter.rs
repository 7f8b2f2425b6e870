//! The filter of `netfast trace`: an expression in tcpdump's words (`pcap-filter(7)`), with netfast's own beside them.
//!
//! The programs compare one address, one port, one protocol, one path, one reason and some interfaces, all of which a
//! packet has to fulfil. What of an expression they can compare they are told, so that little is copied; the rest is
//! judged here, from the first bytes of each packet. Of IPv6 packets the programs know protocol and ports, where there are no
//! extension headers; by IPv6 addresses it is chosen here.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use netfast_common::{
    net::{Ip4, Port},
    reason::{FAST, Reason},
    trace::{DEVICES, Filter, Traced},
};

use super::bytes;
use crate::host::IpNet;

/// IANA protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// What is known of a container by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Its addresses; empty if none is known.
    pub addresses: Vec<IpAddr>,
    /// The interfaces that it is behind.
    pub devices: BTreeSet<u32>,
}

/// Which packets are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What the programs are told: no less than what is wanted.
    pub kernel: Filter,
    /// What remains to be judged of those that they show.
    rest: Option<Expression>,
}

impl Selection {
    /// Understands the words of a filter; none want every packet. `container` knows containers by their names.
    pub fn parse(words: &[String], container: impl Fn(&str) -> Option<Named>) -> Result<Self, FilterError> {
        let tokens = tokens(words);
        let mut parser = Parser {
            tokens: &tokens,
            container: &container,
            last: None,
        };
        if tokens.is_empty() {
            return Ok(Self::default());
        }
        let expression = parser.expression()?;
        if let Some(word) = parser.tokens.first() {
            return Err(FilterError::Unknown((*word).to_owned()));
        }
        let mut kernel = Filter::default();
        let is_exact = expression.tell(&mut kernel)?;
        Ok(Self {
            kernel,
            rest: (!is_exact).then_some(expression),
        })
    }

    /// Whether a packet that the programs have shown is wanted.
    pub fn wants(&self, traced: &Traced) -> bool {
        let Some(rest) = &self.rest else { return true };
        rest.wants(&Seen::of(traced))
    }
}

/// Words, and brackets and `!` where they stand next to one.
fn tokens(words: &[String]) -> Vec<&str> {
    let mut tokens = Vec::new();
    for mut word in words.iter().flat_map(|word| word.split_whitespace()) {
        while let Some(at) = word.find(['(', ')', '!']) {
            tokens.extend((at > 0).then(|| &word[..at]));
            tokens.push(&word[at..=at]);
            word = &word[at + 1..];
        }
        tokens.extend((!word.is_empty()).then_some(word));
    }
    tokens
}

/// Which end of a packet is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
    Either,
}

impl End {
    fn is(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Source => source,
            Self::Destination => destination,
            Self::Either => source || destination,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Fast(bool),
    Protocol(u8),
    Reason(u32),
    Host(End, Vec<IpAddr>),
    Net(End, IpNet),
    Port(End, NonZeroU16),
    /// Enters, or leaves, by one of these.
    Devices(End, BTreeSet<u32>),
}

/// What of a packet can be asked.
struct Seen {
    is_fast: bool,
    reason: u32,
    devices: (u32, u32),
    protocol: Option<u8>,
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
}

impl Seen {
    fn of(traced: &Traced) -> Self {
        let packet = LaxSlicedPacket::from_ethernet(bytes(traced)).ok();
        let (protocol, addresses) = match packet.as_ref().and_then(|packet| packet.net.as_ref()) {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let ip = ip.header();
                let addresses = (ip.source_addr().into(), ip.destination_addr().into());
                (Some(ip.protocol().0), Some(addresses))
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let addresses = (ip.header().source_addr().into(), ip.header().destination_addr().into());
                (Some(ip.header().next_header().0), Some(addresses))
            }
            Some(LaxNetSlice::Arp(_)) | None => (None, None),
        };
        let transport = packet.as_ref().and_then(|packet| packet.transport.as_ref());
        // Behind extension headers neither the programs look for ports nor is it done here.
        let ports = match transport.filter(|_| matches!(protocol, Some(TCP | UDP))) {
            Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
            Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
            Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => None,
        };
        Self {
            is_fast: traced.reason == FAST,
            reason: traced.reason,
            devices: (traced.ifindex, traced.out_ifindex),
            protocol,
            addresses,
            ports,
        }
    }
}

impl Expression {
    fn wants(&self, seen: &Seen) -> bool {
        let by_address = |end: End, is: &dyn Fn(IpAddr) -> bool| {
            seen.addresses
                .is_some_and(|(source, destination)| end.is(is(source), is(destination)))
        };
        match self {
            Self::Not(what) => !what.wants(seen),
            Self::And(one, other) => one.wants(seen) && other.wants(seen),
            Self::Or(one, other) => one.wants(seen) || other.wants(seen),
            Self::Fast(is_fast) => seen.is_fast == *is_fast,
            Self::Protocol(protocol) => seen.protocol == Some(*protocol),
            Self::Reason(reason) => seen.reason == *reason,
            Self::Host(end, hosts) => by_address(*end, &|ip| hosts.contains(&ip)),
            Self::Net(end, net) => by_address(*end, &|ip| net.contains(ip)),
            Self::Port(end, port) => seen
                .ports
                .is_some_and(|(source, destination)| end.is(source == port.get(), destination == port.get())),
            Self::Devices(end, devices) => end.is(devices.contains(&seen.devices.0), devices.contains(&seen.devices.1)),
        }
    }

    /// Tells the programs what every wanted packet fulfils; whether that is all there is to fulfil.
    fn tell(&self, filter: &mut Filter) -> Result<bool, FilterError> {
        Ok(match self {
            // What one of two must fulfil, or what must not be, they do not know.
            Self::Not(_) | Self::Or(..) | Self::Net(..) => false,
            Self::And(one, other) => {
                let one = one.tell(filter)?;
                other.tell(filter)? && one
            }
            Self::Fast(is_fast) => {
                let path = if *is_fast { Filter::FAST } else { Filter::SLOW };
                set(&mut filter.paths, path, "fast and slow")?
            }
            Self::Protocol(protocol) => set(&mut filter.protocol, *protocol, "several protocols")?,
            Self::Reason(reason) => set(&mut filter.reason, *reason, "several reasons")?,
            Self::Host(end, hosts) => match hosts.as_slice() {
                [IpAddr::V4(ip)] => {
                    let is_told = told(&mut filter.address, Ip4::from_bytes(ip.octets()));
                    is_told && *end == End::Either
                }
                _ => false,
            },
            Self::Port(end, port) => {
                let is_told = told(&mut filter.port, Port::new(port.get()));
                is_told && *end == End::Either
            }
            Self::Devices(end, devices) => {
                let is_told = filter.devices[0] == 0 && devices.len() <= DEVICES;
                if is_told {
                    for (place, device) in filter.devices.iter_mut().zip(devices) {
                        *place = *device;
                    }
                }
                is_told && *end == End::Either
            }
        })
    }
}

/// Sets what a packet has one of; setting two different ones is an error.
fn set<T: PartialEq + Copy + Default>(field: &mut T, value: T, what: &'static str) -> Result<bool, FilterError> {
    if *field != T::default() && *field != value {
        return Err(FilterError::Never(what));
    }
    *field = value;
    Ok(true)
}

/// Sets what a packet has two of, once.
fn told<T: PartialEq + Default>(field: &mut T, value: T) -> bool {
    let is_free = *field == T::default();
    if is_free {
        *field = value;
    }
    is_free
}

/// What the word before a value says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Host,
    Net,
    Port,
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    container: &'a dyn Fn(&str) -> Option<Named>,
    /// What a value without words before it is, as in `port 80 or 443`.
    last: Option<(End, What)>,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn goes_on_with(&mut self, words: &[&str]) -> bool {
        let is_one = self.tokens.first().is_some_and(|word| words.contains(word));
        if is_one {
            self.next();
        }
        is_one
    }

    /// `and` and `or` bind alike and from the left, as tcpdump's do; without a word in between it is `and`.
    fn expression(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.factor()?;
        while self.tokens.first().is_some_and(|word| *word != ")") {
            left = if self.goes_on_with(&["or", "||"]) {
                Expression::Or(Box::new(left), Box::new(self.factor()?))
            } else {
                self.goes_on_with(&["and", "&&"]);
                Expression::And(Box::new(left), Box::new(self.factor()?))
            };
        }
        Ok(left)
    }

    fn factor(&mut self) -> Result<Expression, FilterError> {
        let word = self.next().ok_or(FilterError::Ends)?;
        match word {
            "not" | "!" => Ok(Expression::Not(Box::new(self.factor()?))),
            "(" => {
                let within = self.expression()?;
                match self.next() {
                    Some(")") => Ok(within),
                    _ => Err(FilterError::Open),
                }
            }
            "fast" => Ok(Expression::Fast(true)),
            "slow" => Ok(Expression::Fast(false)),
            "icmp" => Ok(Expression::Protocol(ICMP)),
            "icmp6" => Ok(Expression::Protocol(ICMP6)),
            "tcp" | "udp" => {
                let protocol = Expression::Protocol(if word == "tcp" { 6 } else { 17 });
                // `not tcp port 80` is about TCP's port 80, not about whatever is not TCP.
                match self.tokens {
                    ["port", ..] | ["src" | "dst", "port", ..] => {
                        Ok(Expression::And(Box::new(protocol), Box::new(self.factor()?)))
                    }
                    _ => Ok(protocol),
                }
            }
            "reason" => {
                let text = self.value(word, "a reason")?;
                let mut all = Reason::ALL.iter();
                let reason = all.find(|reason| reason.is_slow() && reason.name() == text);
                let wrong = || FilterError::Wrong(text.into(), "a reason for the slow path");
                Ok(Expression::Reason(reason.ok_or_else(wrong)?.number()))
            }
            "src" => self.end(word, End::Source),
            "dst" => self.end(word, End::Destination),
            "host" | "net" | "port" => self.of(word, End::Either),
            _ => {
                let (end, what) = self.last.unwrap_or((End::Either, What::Host));
                // A word that could be nothing else is a word that is not known.
                self.valued(word, end, what)
                    .map_err(|_| FilterError::Unknown(word.into()))
            }
        }
    }

    /// After `src` or `dst`.
    fn end(&mut self, before: &str, end: End) -> Result<Expression, FilterError> {
        let word = self.value(before, "host, net, port or an address")?;
        match word {
            "host" | "net" | "port" => self.of(word, end),
            _ => self.valued(word, end, What::Host),
        }
    }

    /// After `host`, `net` or `port`.
    fn of(&mut self, word: &str, end: End) -> Result<Expression, FilterError> {
        let what = match word {
            "net" => What::Net,
            "port" => What::Port,
            _ => What::Host,
        };
        let text = self.value(word, what.wanted())?;
        self.valued(text, end, what)
    }

    fn valued(&mut self, text: &str, end: End, what: What) -> Result<Expression, FilterError> {
        let wrong = || FilterError::Wrong(text.into(), what.wanted());
        let one = match what {
            What::Host => {
                let named = match text.parse() {
                    Ok(ip) => Some(Named {
                        addresses: vec![ip],
                        ..Named::default()
                    }),
                    Err(_) => (self.container)(text),
                };
                let Named { addresses, devices } = named.ok_or_else(wrong)?;
                if addresses.is_empty() {
                    Expression::Devices(end, devices)
                } else {
                    Expression::Host(end, addresses)
                }
            }
            What::Net => Expression::Net(end, text.parse().map_err(|()| wrong())?),
            What::Port => Expression::Port(end, text.parse().map_err(|_| wrong())?),
        };
        self.last = Some((end, what));
        Ok(one)
    }

    fn value(&mut self, before: &str, wanted: &'static str) -> Result<&'a str, FilterError> {
        self.next().ok_or_else(|| FilterError::Missing(before.into(), wanted))
    }
}

impl What {
    const fn wanted(self) -> &'static str {
        match self {
            Self::Host => "an address or a container",
            Self::Net => "a network (10.0.0.0/8)",
            Self::Port => "a port from 1 to 65535",
        }
    }
}

/// A filter's words cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A word without meaning here.
    #[error("{0:?} is no word of a filter")]
    Unknown(String),
    /// A word that needs another one after it.
    #[error("{0:?} must be followed by {1}")]
    Missing(String, &'static str),
    /// A word that is not what the one before it needs.
    #[error("{0:?} is not {1}")]
    Wrong(String, &'static str),
    /// No packet can be that.
    #[error("no packet is {0} at once")]
    Never(&'static str),
    /// A word that something must follow is the last.
    #[error("the filter ends where something must follow")]
    Ends,
    /// A bracket is open.
    #[error("a bracket is not closed")]
    Open,
}
