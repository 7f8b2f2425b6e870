//! Netlink by the field's crates. Only this module knows them; all others use its types.
//!
//! - `netlink-sys`: the sockets ([`NetlinkSocket`], [`Watcher`]);
//! - `netlink-packet-core`: messages and attributes ([`Messages`], [`Attrs`], [`Request`]), errors and their text;
//! - `netlink-packet-route`: rtnetlink's requests, headers and attributes ([`rt`]);
//! - `netlink-packet-netfilter`: those of conntrack ([`nf`]);
//! - `rtnetlink`: changes of routes, neighbours and queueing disciplines ([`write`]).
//!
//! Two promises are this module's own, since a snapshot that lacks something makes the daemon take it away. A torn dump
//! (`NLM_F_DUMP_INTR`, also on `NLMSG_DONE` only) is repeated: `rtnetlink` does not look at that flag. And a message
//! without what is needed is an error, as is a length that cannot be true: `netlink-proto`, on which `rtnetlink` is
//! built, drops what it cannot decode with a line in the log, and queues notifications without a bound.
//!
//! The packet crates decode a message whole, and one attribute of a shape that they do not expect fails all of it: of a
//! link that may be any of some hundred, many of which differ by driver and kernel version. So attributes are walked here,
//! and only those that are needed are decoded: by `netlink-packet-route`, or by the parsers of `netlink-packet-core` where
//! it has nothing (netconf, expressions of `nf_tables`) or decodes in one piece what is needed in part (links, next hops).

use std::borrow::Cow;
use std::fmt::Debug;
use std::io;

use netlink_packet_core::DecodeError;

pub mod answer;
pub mod message;
pub mod socket;
#[cfg(test)]
pub mod testing;
pub mod watcher;
pub mod write;

pub use message::{Attr, Attrs, Message, Messages, Request};
pub use socket::NetlinkSocket;
pub use watcher::Watcher;

/// rtnetlink's types.
pub mod rt {
    pub use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressMessage, AddressScope};
    #[cfg(test)]
    pub use netlink_packet_route::link::LinkMessage;
    pub use netlink_packet_route::neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
    };
    pub use netlink_packet_route::nsid::{NsidAttribute, NsidHeader, NsidMessage};
    pub use netlink_packet_route::route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteMetric, RouteType,
        RouteVia,
    };
    pub use netlink_packet_route::rule::{RuleHeader, RuleMessage};
    pub use netlink_packet_route::tc::{TcHeader, TcMessage};
    pub use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
}

/// conntrack's types.
pub mod nf {
    pub use netlink_packet_core::DefaultNla;
    pub use netlink_packet_netfilter::conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status, TCPFlags, Tuple,
    };
    pub use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
}

#[cfg(test)]
pub use netlink_packet_core::Parseable;
pub use netlink_packet_core::{Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};

/// The flags of a request for a whole table.
pub const DUMP: u16 = NLM_F_REQUEST | NLM_F_DUMP;

/// How often a dump that was disturbed is taken anew.
const DUMP_TRIES: usize = 10;

/// What can go wrong with netlink.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A system call failed.
    #[error("netlink {what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refused a request about {what}: {source}{}", in_words(.words.as_deref()))]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The errno it gave.
        source: io::Error,
        /// What it said besides (`NETLINK_EXT_ACK`).
        words: Option<String>,
    },
    /// The tables changed during every one of several dumps.
    #[error("{what} changed while being listed, {DUMP_TRIES} times in a row")]
    Interrupted {
        /// What was asked for.
        what: &'static str,
    },
    /// A message without what every message of its kind has, or with a length that cannot be true.
    #[error("the kernel's message about {what} cannot be read: {source}")]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// What is wrong.
        source: Malformed,
    },
    /// Messages were lost, or cut short: there were more than the socket can hold.
    #[error("netlink messages were lost")]
    Overflow,
}

impl NetlinkError {
    /// The errno of the kernel's refusal, if that is what it is.
    pub fn refused(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Io { .. } | Self::Interrupted { .. } | Self::Malformed { .. } | Self::Overflow => None,
        }
    }

    fn malformed(what: &'static str) -> impl FnOnce(Malformed) -> Self {
        move |source| Self::Malformed { what, source }
    }

    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

fn in_words(words: Option<&str>) -> String {
    words.map(|words| format!(" ({words})")).unwrap_or_default()
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    /// Something that every message of its kind has is not there.
    pub fn missing(what: &str) -> Self {
        Self(format!("{what} is missing").into())
    }

    /// Something is there that such a message never has.
    pub fn unexpected(what: &impl Debug) -> Self {
        Self(format!("it has {what:?}").into())
    }

    /// Something is there and makes no sense.
    pub const fn wrong(what: &'static str) -> Self {
        Self(Cow::Borrowed(what))
    }
}

impl From<DecodeError> for Malformed {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string().into())
    }
}
