//! conntrack's entries, asked about and told by ctnetlink.
//!
//! Conntrack does not see most segments of a connection that is on the fast path, so its idea of the window is old, and
//! it never catches up (`tcp_in_window` of the TCP tracker): without help it calls the FIN INVALID, leaves it without
//! NAT, and the connection hangs at its close. So each connection that is used gets a mark by itself
//! (`IP_CT_TCP_FLAG_BE_LIBERAL`), which stays with it when netfast goes, and ends with it. The sysctl
//! `nf_conntrack_tcp_be_liberal` would do the same to all connections of the host, also to those that netfast has
//! nothing to do with, and so change what `--ctstate INVALID` means to the host's rules.

use std::{io, net::Ipv4Addr};

use crate::observe::{
    NetlinkError,
    socket::{Asker, DUMP, REQUEST},
    wire::{Attr, Attrs, Message, Request},
};

// Numbers of linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h and nf_conntrack_tcp.h.
const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
pub(super) const CT_NEW: u16 = NFNL_SUBSYS_CTNETLINK;
const CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLA_F_NESTED: u16 = 1 << 15;
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_PROTOINFO: u16 = 4;
const CTA_HELP: u16 = 5;
const CTA_SEQ_ADJ_ORIG: u16 = 15;
const CTA_SEQ_ADJ_REPLY: u16 = 16;
const CTA_ZONE: u16 = 18;
const CTA_SYNPROXY: u16 = 24;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// `IPS_SEQ_ADJUST | IPS_HELPER` (`nf_conntrack_common.h`): sequence numbers are adjusted, a rule gave it a
/// helper.
const HELPED: u32 = 1 << 6 | 1 << 13;
pub(super) const CTA_PROTOINFO_TCP: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
pub(super) const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
pub(super) const BE_LIBERAL: u8 = 8;
/// `struct nfgenmsg`: family (`AF_INET`), version, resource. Only IPv4 flows are on the fast path.
pub(super) const IPV4: [u8; 4] = [2, 0, 0, 0];

/// A TCP connection, as conntrack names it.
struct Connection {
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// One direction of a conversation as conntrack keys it, before or after translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Who sends, with the port.
    pub source: (Ipv4Addr, u16),
    /// Who receives, with the port.
    pub destination: (Ipv4Addr, u16),
    /// IANA protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// The nested attributes of a `CTA_TUPLE_*`.
    pub(super) fn attributes(&self) -> Vec<u8> {
        let ip = [
            attr(CTA_IP_V4_SRC, &self.source.0.octets()),
            attr(CTA_IP_V4_DST, &self.destination.0.octets()),
        ];
        let proto = [
            attr(CTA_PROTO_NUM, &[self.protocol]),
            attr(CTA_PROTO_SRC_PORT, &self.source.1.to_be_bytes()),
            attr(CTA_PROTO_DST_PORT, &self.destination.1.to_be_bytes()),
        ];
        [
            attr(CTA_TUPLE_IP | NLA_F_NESTED, &ip.concat()),
            attr(CTA_TUPLE_PROTO | NLA_F_NESTED, &proto.concat()),
        ]
        .concat()
    }
}

/// What conntrack says of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It has none: nothing tracks it.
    None,
    /// A helper, its expectations, or an adjustment of sequence numbers works on it.
    Helped,
    /// It is tracked, and nothing more.
    Plain,
}

/// Asks for the entry of which this is one direction.
pub fn entry(asker: &mut Asker, tuple: &Tuple) -> Result<Entry, NetlinkError> {
    let request = Request::new(CT_GET, REQUEST, &IPV4).attr(CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple.attributes());
    match asker.ask("a connection", &request, |message| Some(read(message))) {
        Err(error) if error.refused() == Some(libc::ENOENT) => Ok(Entry::None),
        found => found,
    }
}

/// An entry without a status, which every one has, is not understood: then it counts as one that must be left alone.
pub(crate) fn read(message: Message<'_>) -> Entry {
    let attrs = Attrs::after(message.payload, IPV4.len());
    let status = attrs.find(CTA_STATUS).and_then(Attr::be32);
    let has = |kind| attrs.find(kind).is_some();
    let is_helped = status.is_none_or(|status| status & HELPED != 0)
        || [CTA_HELP, CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY, CTA_SYNPROXY]
            .into_iter()
            .any(has);
    if is_helped { Entry::Helped } else { Entry::Plain }
}

/// Lets conntrack go on with a TCP connection whose segments it will not all see; `false` if it has ended.
pub fn be_liberal(asker: &mut Asker, tuple: &Tuple) -> Result<bool, NetlinkError> {
    let connection = Connection {
        tuple: tuple.attributes(),
        zone: None,
    };
    tell(asker, &connection)
}

/// Marks every IPv4 TCP connection of the calling thread's namespace; returns how many there were.
pub fn mark_liberal() -> Result<usize, NetlinkError> {
    let mut asker = Asker::netfilter()?;
    let list = Request::new(CT_GET, DUMP, &IPV4);
    let connections: Vec<Connection> = asker.dump("connections", &list, |found: &mut Vec<Connection>, message| {
        found.extend(connection(message));
        Ok(())
    })?;
    for connection in &connections {
        tell(&mut asker, connection)?;
    }
    Ok(connections.len())
}

fn tell(asker: &mut Asker, connection: &Connection) -> Result<bool, NetlinkError> {
    // The answer to this is an acknowledgement: a list of nothing.
    match asker.dump::<()>("connections", &mark(connection), |(), _| Ok(())) {
        // It ended meanwhile.
        Err(NetlinkError::Refused { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        done => done.map(|()| true),
    }
}

/// The question that marks the connection of a message.
#[cfg(feature = "fuzz")]
pub(crate) fn answer(message: Message<'_>) -> Option<Request> {
    connection(message).as_ref().map(mark)
}

/// A message of the list, if it is about TCP.
fn connection(message: Message<'_>) -> Option<Connection> {
    let attrs = Attrs::after(message.payload, IPV4.len());
    let tuple = attrs.find(CTA_TUPLE_ORIG)?;
    let protocol = tuple.nested().find(CTA_TUPLE_PROTO)?.nested().find(CTA_PROTO_NUM)?;
    (i32::from(protocol.u8()?) == libc::IPPROTO_TCP).then(|| Connection {
        tuple: tuple.payload.to_vec(),
        zone: attrs.find(CTA_ZONE).map(|zone| zone.payload.to_vec()),
    })
}

fn mark(connection: &Connection) -> Request {
    // `struct nf_ct_tcp_flags`: flags, mask.
    let flags = [BE_LIBERAL, BE_LIBERAL];
    let tcp = attr(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &flags)
        .into_iter()
        .chain(attr(CTA_PROTOINFO_TCP_FLAGS_REPLY, &flags));
    let info = attr(CTA_PROTOINFO_TCP | NLA_F_NESTED, &tcp.collect::<Vec<u8>>());
    let request = Request::new(CT_NEW, REQUEST | NLM_F_ACK, &IPV4)
        .attr(CTA_TUPLE_ORIG | NLA_F_NESTED, &connection.tuple)
        .attr(CTA_PROTOINFO | NLA_F_NESTED, &info);
    match &connection.zone {
        Some(zone) => request.attr(CTA_ZONE, zone),
        None => request,
    }
}

/// An attribute, padded, to be nested.
pub(super) fn attr(kind: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len() + 4).expect("these attributes are short");
    let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::wire::Messages;

    /// An entry as ctnetlink tells it, with these attributes.
    fn read_entry(attributes: &[(u16, &[u8])]) -> Entry {
        let request = attributes
            .iter()
            .fold(Request::new(CT_NEW, 0, &IPV4), |request, (kind, payload)| {
                request.attr(*kind, payload)
            });
        let bytes = request.finish(1);
        read(Messages(&bytes).next().expect("a message"))
    }

    #[test]
    fn whatever_works_on_a_connection_is_seen() {
        // IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED
        let plain = 0xe_u32;
        let status = |more: u32| (plain | more).to_be_bytes();
        assert_eq!(read_entry(&[(CTA_STATUS, &status(0))]), Entry::Plain);
        // IPS_EXPECTED: a data connection, whose payload nobody reads.
        assert_eq!(read_entry(&[(CTA_STATUS, &status(1))]), Entry::Plain);
        for more in [1 << 6, 1 << 13] {
            assert_eq!(read_entry(&[(CTA_STATUS, &status(more))]), Entry::Helped, "{more:#x}");
        }
        for kind in [CTA_HELP, CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY, CTA_SYNPROXY] {
            let helped = read_entry(&[(CTA_STATUS, &status(0)), (kind | NLA_F_NESTED, &[0; 8])]);
            assert_eq!(helped, Entry::Helped, "{kind}");
        }
        assert_eq!(read_entry(&[]), Entry::Helped, "cut short");
    }
}
