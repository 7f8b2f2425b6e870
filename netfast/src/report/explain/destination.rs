//! Where to: what was typed.

use std::{fmt, net::IpAddr};

use serde::Serialize;

use super::{
    addresses,
    alias::{self, AliasName},
    is_named,
};
use crate::plan::{AliasReport, report::NetworkReport};

/// A destination that was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// As it was typed.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
    /// The port, if one was given.
    pub port: Option<u16>,
    /// The transport, if one was given.
    pub transport: Option<Transport>,
    /// The alias that it is, if it is one.
    pub alias: Option<AliasName>,
}

/// A transport that can be fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// IANA's number.
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        // Of a container, the address that it was asked by is news.
        if !self.name.contains(&self.ip.to_string()) {
            write!(f, " ({})", self.ip)?;
        }
        Ok(())
    }
}

/// A destination that is neither an address, nor a container with one, nor an alias.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address, nor a container with one, nor a name that several containers share")]
pub struct NoDestination(String);

impl Destination {
    /// Understands `DEST[:PORT[/tcp|/udp]]`; of a container, the address on a network that it shares with `from`, or any. A virtual
    /// address is its alias.
    pub fn parse(
        text: &str,
        from: &str,
        networks: &[NetworkReport],
        aliases: &[AliasReport],
    ) -> Result<Self, NoDestination> {
        let (place, transport) = match text.rsplit_once('/') {
            Some((place, "tcp")) => (place, Some(Transport::Tcp)),
            Some((place, "udp")) => (place, Some(Transport::Udp)),
            _ => (text, None),
        };
        let (host, port) = split(place);
        let (alias, ip) = match host.parse() {
            Ok(ip) => (alias::with_address(ip, from, networks, aliases), ip),
            Err(_) => match alias::find(host, from, networks, aliases) {
                Some((alias, ip)) => (Some(alias), ip),
                None => (
                    None,
                    address_of(host, from, networks).ok_or_else(|| NoDestination(text.into()))?,
                ),
            },
        };
        Ok(Self {
            name: text.into(),
            ip,
            port,
            transport,
            alias,
        })
    }

    /// Whether an address with a port is it, by a protocol of IANA's number.
    pub fn is(&self, address: IpAddr, port: u16, protocol: u8) -> bool {
        self.ip == address
            && self.port.is_none_or(|wanted| wanted == port)
            && self.transport.is_none_or(|wanted| wanted.number() == protocol)
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]:PORT`, `IPV6`.
fn split(text: &str) -> (&str, Option<u16>) {
    if let Some((host, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (text, None),
        },
        None => (text, None),
    }
}

fn address_of(name: &str, from: &str, networks: &[NetworkReport]) -> Option<IpAddr> {
    let of = |network: &NetworkReport, name: &str| {
        let endpoint = network.endpoints.iter().find(|endpoint| is_named(endpoint, name))?;
        // IPv4 first: only that can be fast.
        let mut all: Vec<_> = addresses(endpoint).collect();
        all.sort_by_key(IpAddr::is_ipv6);
        all.first().copied()
    };
    let shared = networks
        .iter()
        .filter(|network| network.endpoints.iter().any(|endpoint| is_named(endpoint, from)));
    shared
        .filter_map(|network| of(network, name))
        .chain(networks.iter().filter_map(|network| of(network, name)))
        .next()
}
