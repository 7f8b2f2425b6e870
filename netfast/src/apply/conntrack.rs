//! Makes living connections survive the end of the fast path.
//!
//! Conntrack has not seen most segments of a connection that was on the fast path, so its idea of the window is old,
//! and it never catches up: a segment beyond that window is let through under `nf_conntrack_tcp_be_liberal`, but moves
//! nothing (`tcp_in_window` of the TCP tracker). With the sysctl back at 0, all segments of such a connection would be INVALID and left without NAT. So each connection gets the mark by itself first
//! (`IP_CT_TCP_FLAG_BE_LIBERAL`); it ends with the connection.

use std::io;

use crate::observe::{
    NetlinkError,
    socket::{Asker, DUMP, REQUEST},
    wire::{Attrs, Message, Request},
};

// Numbers of linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h and nf_conntrack_tcp.h.
const NFNL_SUBSYS_CTNETLINK: u16 = 1 << 8;
pub(super) const CT_NEW: u16 = NFNL_SUBSYS_CTNETLINK;
const CT_GET: u16 = NFNL_SUBSYS_CTNETLINK | 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLA_F_NESTED: u16 = 1 << 15;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_PROTOINFO: u16 = 4;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
pub(super) const BE_LIBERAL: u8 = 8;
/// `struct nfgenmsg`: family (`AF_INET`), version, resource. Only IPv4 flows are on the fast path.
pub(super) const IPV4: [u8; 4] = [2, 0, 0, 0];

/// A TCP connection, as conntrack names it.
struct Connection {
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Marks every IPv4 TCP connection of the calling thread's namespace; returns how many there were.
pub fn mark_liberal() -> Result<usize, NetlinkError> {
    let mut asker = Asker::netfilter()?;
    let what = "connections";
    let list = Request::new(CT_GET, DUMP, &IPV4);
    let connections: Vec<Connection> = asker.dump(what, &list, |found: &mut Vec<Connection>, message| {
        found.extend(connection(message));
        Ok(())
    })?;
    for connection in &connections {
        // The answer to this is an acknowledgement: a list of nothing.
        match asker.dump::<()>(what, &mark(connection), |(), _| Ok(())) {
            // It ended meanwhile.
            Err(NetlinkError::Refused { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(connections.len())
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
