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
    /// ICMP, of the destination's family.
    Icmp,
}

impl Transport {
    /// Whether a protocol is that, by IANA's number.
    const fn is(self, protocol: u8) -> bool {
        match self {
            Self::Tcp => protocol == 6,
            Self::Udp => protocol == 17,
            Self::Icmp => is_icmp(protocol),
        }
    }
}

/// Whether a protocol has identifiers in the place of ports.
const fn is_icmp(protocol: u8) -> bool {
    protocol == 1 || protocol == 58
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

/// A destination that cannot be asked about.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDestination {
    /// Neither an address, nor a container, nor an alias.
    #[error("{0:?} is neither an address, nor a container, nor a name that several containers share")]
    Unknown(String),
    /// A container without a runtime that would tell its address, of which the host has not heard yet.
    #[error(
        "the address of {0:?} is not known: no container runtime tells it, and the host has not talked to it lately"
    )]
    Unheard(String),
    /// What stands behind the colon.
    #[error("{text:?}: {port:?} is no port: 1 to 65535")]
    Port {
        /// All of it.
        text: String,
        /// The part.
        port: String,
    },
    /// A port of what has none.
    #[error("{0:?}: ICMP has no ports")]
    Portless(String),
    /// What stands behind the slash.
    #[error("{text:?}: {transport:?} is no transport: tcp, udp or icmp")]
    Transport {
        /// All of it.
        text: String,
        /// The part.
        transport: String,
    },
}

impl NoDestination {
    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Unknown(_) => {
                "Give an address, or a container that `netfast networks NAME` lists; names are not looked up."
            }
            Self::Unheard(_) => "Give its address instead, or ping it from the host first.",
            Self::Port { .. } | Self::Portless(_) | Self::Transport { .. } => {
                "DEST is written ADDRESS, CONTAINER or ALIAS, with :PORT and /tcp or /udp, or with /icmp, if need be; \
                 IPv6 with a port as [ADDRESS]:PORT."
            }
        }
    }
}

impl Destination {
    /// Understands `DEST[:PORT[/tcp|/udp]]` and `DEST/icmp`; of a container, the address on a network that it shares with
    /// `from`, or any. A virtual address is its alias.
    pub fn parse(
        text: &str,
        from: &str,
        networks: &[NetworkReport],
        aliases: &[AliasReport],
    ) -> Result<Self, NoDestination> {
        let (place, transport) = match text.rsplit_once('/') {
            Some((place, "tcp")) => (place, Some(Transport::Tcp)),
            Some((place, "udp")) => (place, Some(Transport::Udp)),
            Some((place, "icmp")) => (place, Some(Transport::Icmp)),
            Some((_, other)) => {
                return Err(NoDestination::Transport {
                    text: text.into(),
                    transport: other.into(),
                });
            }
            None => (text, None),
        };
        let (host, port) = split(place).map_err(|port| NoDestination::Port {
            text: text.into(),
            port: port.into(),
        })?;
        if port.is_some() && transport == Some(Transport::Icmp) {
            return Err(NoDestination::Portless(text.into()));
        }
        let (alias, ip) = match host.parse() {
            Ok(ip) => (alias::with_address(ip, from, networks, aliases), ip),
            Err(_) => match alias::find(host, from, networks, aliases) {
                Some((alias, ip)) => (Some(alias), ip),
                None => (
                    None,
                    address_of(host, from, networks).ok_or_else(|| {
                        let mut endpoints = networks.iter().flat_map(|network| &network.endpoints);
                        if endpoints.any(|endpoint| is_named(endpoint, host)) {
                            NoDestination::Unheard(host.into())
                        } else {
                            NoDestination::Unknown(text.into())
                        }
                    })?,
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
            && self.port.is_none_or(|wanted| wanted == port && !is_icmp(protocol))
            && self.transport.is_none_or(|wanted| wanted.is(protocol))
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`, `IPV6`; or what is no port.
fn split(text: &str) -> Result<(&str, Option<u16>), &str> {
    let (host, port) = if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        match rest.strip_prefix(':') {
            Some(port) => (host, port),
            None if rest.is_empty() => return Ok((host, None)),
            None => return Err(rest),
        }
    } else if text.parse::<IpAddr>().is_ok() {
        return Ok((text, None));
    } else {
        match text.rsplit_once(':') {
            Some(parts) => parts,
            None => return Ok((text, None)),
        }
    };
    match port.parse() {
        Ok(port @ 1..) => Ok((host, Some(port))),
        _ => Err(port),
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
