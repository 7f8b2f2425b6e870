//! conntrack's entries, asked about and told by ctnetlink.
//!
//! Conntrack does not see most segments of a connection that is on the fast path, so its idea of the window is old, and
//! it never catches up (`tcp_in_window` of the TCP tracker): without help it calls the FIN INVALID, leaves it without
//! NAT, and the connection hangs at its close. So each connection that is used gets a mark by itself
//! (`IP_CT_TCP_FLAG_BE_LIBERAL`), which stays with it when netfast goes, and ends with it. The sysctl
//! `nf_conntrack_tcp_be_liberal` would do the same to all connections of the host, also to those that netfast has
//! nothing to do with, and so change what `--ctstate INVALID` means to the host's rules.

use std::net::IpAddr;

use netfast_common::flow::FlowKey;

use crate::sys::netlink::{
    Attrs, DUMP, Malformed, Message, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NetlinkError, NetlinkSocket, Request,
    nf::{
        ConntrackAttribute, ConntrackMessage, DefaultNla, IPTuple, NetfilterHeader, NetfilterMessage,
        NetfilterProtoFamily, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status, TCPFlags, Tuple as TuplePart,
    },
};

// Numbers of linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h and nf_conntrack_tcp.h.
/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_NEW`.
const CT_NEW: u16 = 1 << 8;
/// `struct nfgenmsg`.
const NFGENMSG: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_HELP: u16 = 5;
const CTA_SEQ_ADJ_ORIG: u16 = 15;
const CTA_SEQ_ADJ_REPLY: u16 = 16;
const CTA_ZONE: u16 = 18;
const CTA_SYNPROXY: u16 = 24;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;
/// IANA protocol numbers.
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`.
const BE_LIBERAL: u8 = 8;
/// `IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED`, see [`quiet`](super::quiet).
const UNACKNOWLEDGED: u8 = 0x10;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;

/// A TCP connection, as conntrack names it.
struct Connection {
    family: NetfilterProtoFamily,
    tuple: ConntrackAttribute,
    zone: Option<ConntrackAttribute>,
}

/// One direction of a conversation as conntrack keys it, before or after translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Who sends, with the port; a request of ICMP echo with its identifier, a reply with 0.
    pub source: (IpAddr, u16),
    /// Who receives, with the port; of the same family. A reply of ICMP echo with its identifier, a request with 0.
    pub destination: (IpAddr, u16),
    /// IANA protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// A flow's, as its packets come in.
    pub fn of(key: &FlowKey<IpAddr>) -> Self {
        Self {
            source: (key.source, key.source_port.number()),
            destination: (key.destination, key.destination_port.number()),
            protocol: key.protocol,
        }
    }

    /// Its family.
    pub(super) const fn family(&self) -> NetfilterProtoFamily {
        match self.source.0 {
            IpAddr::V4(_) => NetfilterProtoFamily::IPv4,
            IpAddr::V6(_) => NetfilterProtoFamily::IPv6,
        }
    }

    /// What is in a `CTA_TUPLE_*`.
    pub(super) fn parts(&self) -> Vec<TuplePart> {
        vec![
            TuplePart::Ip(vec![
                IPTuple::SourceAddress(self.source.0),
                IPTuple::DestinationAddress(self.destination.0),
            ]),
            TuplePart::Proto(match self.protocol {
                ICMP => self.echo([CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE], [8, 0]),
                ICMP6 => self.echo(
                    [CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE],
                    [128, 129],
                ),
                _ => vec![
                    ProtoTuple::Protocol(self.protocol.into()),
                    ProtoTuple::SourcePort(self.source.1),
                    ProtoTuple::DestinationPort(self.destination.1),
                ],
            }),
        ]
    }

    /// Of ICMP echo, in attributes of these kinds: identifier, type, which is one of those of request and reply, and code.
    fn echo(&self, [id, kind, code]: [u16; 3], [request, reply]: [u8; 2]) -> Vec<ProtoTuple> {
        let other = |attribute, bytes: &[u8]| ProtoTuple::Other(DefaultNla::new(attribute, bytes.to_vec()));
        let (number, is) = match self.source.1 {
            0 => (self.destination.1, reply),
            number => (number, request),
        };
        vec![
            ProtoTuple::Protocol(self.protocol.into()),
            other(id, &number.to_be_bytes()),
            other(kind, &[is]),
            other(code, &[0]),
        ]
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

/// A request about connections of a family.
pub(super) fn request(family: NetfilterProtoFamily, message: ConntrackMessage, flags: u16) -> Request {
    let header = NetfilterHeader::new(family, 0, 0);
    Request::of(&NetfilterMessage::new(header, message), NLM_F_REQUEST | flags)
}

/// Asks for the entry of which this is one direction.
pub fn entry(socket: &mut NetlinkSocket, tuple: &Tuple) -> Result<Entry, NetlinkError> {
    Ok(ask(socket, tuple, read)?.unwrap_or(Entry::None))
}

/// What an entry says of which this is one direction; `None` if conntrack has none.
fn ask<T>(
    socket: &mut NetlinkSocket,
    tuple: &Tuple,
    read: impl Fn(Message<'_>) -> Result<T, Malformed>,
) -> Result<Option<T>, NetlinkError> {
    let name = ConntrackAttribute::CtaTupleOrig(tuple.parts());
    let request = request(tuple.family(), ConntrackMessage::Get(vec![name]), 0);
    match socket.ask("a connection", &request, read) {
        Err(error) if error.refused() == Some(libc::ENOENT) => Ok(None),
        found => found.map(Some),
    }
}

fn read(message: Message<'_>) -> Result<Entry, Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let ConntrackAttribute::CtaStatus(status) = attrs.need(CTA_STATUS, "the status")?.decode()? else {
        return Err(Malformed::missing("the status"));
    };
    // Sequence numbers are adjusted, or a rule gave it a helper.
    let is_helped = status.intersects(Status::SeqAdjust | Status::Helper)
        || [CTA_HELP, CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY, CTA_SYNPROXY]
            .into_iter()
            .any(|kind| attrs.find(kind).is_some());
    Ok(if is_helped { Entry::Helped } else { Entry::Plain })
}

/// How long conntrack keeps a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// If nothing passes any more, in seconds.
    pub seconds: u32,
    /// It is neither being opened nor being closed.
    pub is_established: bool,
}

/// Asks how long a TCP connection is kept of which this is one direction; `None` if conntrack has none.
pub fn lasting(socket: &mut NetlinkSocket, tuple: &Tuple) -> Result<Option<Lasting>, NetlinkError> {
    ask(socket, tuple, read_lasting)
}

fn read_lasting(message: Message<'_>) -> Result<Lasting, Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    // What was handed to hardware or to the kernel's flow table has none.
    let ConntrackAttribute::CtaTimeout(seconds) = attrs.need(CTA_TIMEOUT, "the time")?.decode()? else {
        return Err(Malformed::missing("the time"));
    };
    let tcp = attrs.inside(CTA_PROTOINFO)?.inside(CTA_PROTOINFO_TCP)?;
    let state = tcp.need(CTA_PROTOINFO_TCP_STATE, "the state")?.u8()?;
    Ok(Lasting {
        seconds,
        is_established: state == ESTABLISHED,
    })
}

/// Lets conntrack keep a TCP connection for so many seconds, with all that was sent acknowledged; `false` if it has ended.
pub fn extend(socket: &mut NetlinkSocket, tuple: &Tuple, seconds: u32) -> Result<bool, NetlinkError> {
    let name = ConntrackAttribute::CtaTupleOrig(tuple.parts());
    let attributes = vec![name, ConntrackAttribute::CtaTimeout(seconds), liberal(None)];
    let request = request(tuple.family(), ConntrackMessage::New(attributes), NLM_F_ACK);
    tell(socket, &request)
}

/// Lets conntrack go on with a TCP connection whose segments it will not all see; `false` if it has ended.
pub fn be_liberal(socket: &mut NetlinkSocket, tuple: &Tuple) -> Result<bool, NetlinkError> {
    let connection = Connection {
        family: tuple.family(),
        tuple: ConntrackAttribute::CtaTupleOrig(tuple.parts()),
        zone: None,
    };
    tell(socket, &mark(&connection))
}

/// Marks every IPv4 TCP connection of the calling thread's namespace; returns how many there were.
pub fn mark_liberal() -> Result<usize, NetlinkError> {
    let mut socket = NetlinkSocket::netfilter()?;
    // Only IPv4 was ever fast where this is asked for.
    let list = request(NetfilterProtoFamily::IPv4, ConntrackMessage::Get(Vec::new()), DUMP);
    let connections = socket.dump("connections", &list, |found: &mut Vec<Connection>, message| {
        if message.kind == CT_NEW {
            found.extend(connection(message)?);
        }
        Ok(())
    })?;
    for connection in &connections {
        tell(&mut socket, &mark(connection))?;
    }
    Ok(connections.len())
}

/// Tells conntrack something of a connection; `false` if it has ended.
fn tell(socket: &mut NetlinkSocket, request: &Request) -> Result<bool, NetlinkError> {
    match socket.tell("a connection", request) {
        // It ended meanwhile.
        Err(error) if error.refused() == Some(libc::ENOENT) => Ok(false),
        done => done.map(|()| true),
    }
}

/// The question that marks the connection of a message.
#[cfg(feature = "fuzz")]
pub(crate) fn answer(message: Message<'_>) -> Option<Request> {
    connection(message).ok()?.as_ref().map(mark)
}

/// A message of the list, if it is about TCP. What names the connection is given back as it came.
fn connection(message: Message<'_>) -> Result<Option<Connection>, Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let tuple = attrs.need(CTA_TUPLE_ORIG, "the tuple")?;
    let protocol = tuple.nested()?.need(CTA_TUPLE_PROTO, "the protocol")?.nested()?;
    let protocol = protocol.need(CTA_PROTO_NUM, "the protocol")?.u8()?;
    let same = |kind, payload: &[u8]| ConntrackAttribute::Other(DefaultNla::new(kind, payload.to_vec()));
    Ok((i32::from(protocol) == libc::IPPROTO_TCP).then(|| Connection {
        family: NetfilterProtoFamily::IPv4,
        tuple: same(CTA_TUPLE_ORIG | NLA_F_NESTED, tuple.payload),
        zone: attrs.find(CTA_ZONE).map(|zone| same(CTA_ZONE, zone.payload)),
    }))
}

fn mark(connection: &Connection) -> Request {
    let mut attributes = vec![connection.tuple.clone(), liberal(None)];
    attributes.extend(connection.zone.clone());
    request(connection.family, ConntrackMessage::New(attributes), NLM_F_ACK)
}

/// Tells the TCP tracker to look at no window in either direction, and that nothing waits for an acknowledgement, which it may
/// never see ([`quiet`](super::quiet)); and the connection's state, where it is not there already.
pub(super) fn liberal(state: Option<u8>) -> ConntrackAttribute {
    // `struct nf_ct_tcp_flags`: flags, mask.
    let flags = TCPFlags::parse(&[BE_LIBERAL, BE_LIBERAL | UNACKNOWLEDGED]).expect("two bytes");
    let state = state.map(ProtoInfoTCP::State).into_iter();
    let flags = [
        ProtoInfoTCP::OriginalFlags(flags.clone()),
        ProtoInfoTCP::ReplyFlags(flags),
    ];
    ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(state.chain(flags).collect())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Messages;

    /// An entry as ctnetlink tells it, with these attributes.
    fn read_entry(attributes: &[(u16, &[u8])]) -> Result<Entry, Malformed> {
        let request = attributes
            .iter()
            .fold(Request::new(CT_NEW, 0, &[0; NFGENMSG]), |request, (kind, payload)| {
                request.attr(*kind, payload)
            });
        let bytes = request.finish(1);
        read(Messages(&bytes).next().expect("a message")?)
    }

    #[test]
    fn whatever_works_on_a_connection_is_seen() {
        // IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED
        let plain = 0xe_u32;
        let status = |more: u32| (plain | more).to_be_bytes();
        assert_eq!(read_entry(&[(CTA_STATUS, &status(0))]), Ok(Entry::Plain));
        // IPS_EXPECTED: a data connection, whose payload nobody reads.
        assert_eq!(read_entry(&[(CTA_STATUS, &status(1))]), Ok(Entry::Plain));
        for more in [1 << 6, 1 << 13] {
            assert_eq!(
                read_entry(&[(CTA_STATUS, &status(more))]),
                Ok(Entry::Helped),
                "{more:#x}"
            );
        }
        for kind in [CTA_HELP, CTA_SEQ_ADJ_ORIG, CTA_SEQ_ADJ_REPLY, CTA_SYNPROXY] {
            let helped = read_entry(&[(CTA_STATUS, &status(0)), (kind | NLA_F_NESTED, &[0; 8])]);
            assert_eq!(helped, Ok(Entry::Helped), "{kind}");
        }
        assert!(read_entry(&[]).is_err(), "without a status");
        assert!(read_entry(&[(CTA_STATUS, &[0; 3])]).is_err(), "cut short");
    }

    #[test]
    fn echo_is_named_by_identifier_and_type() {
        let named = |source: (&str, u16), destination: (&str, u16), protocol| {
            let end = |(ip, port): (&str, u16)| (ip.parse().expect("an address"), port);
            let tuple = Tuple {
                source: end(source),
                destination: end(destination),
                protocol,
            };
            let name = ConntrackAttribute::CtaTupleOrig(tuple.parts());
            let bytes = request(tuple.family(), ConntrackMessage::Get(vec![name]), 0).finish(1);
            let message = Messages(&bytes).next().expect("a message").expect("whole");
            let attrs = Attrs::after(message.payload, NFGENMSG).expect("whole");
            let proto = attrs
                .inside(CTA_TUPLE_ORIG)
                .and_then(|tuple| tuple.inside(CTA_TUPLE_PROTO))
                .expect("whole");
            let parts = proto.iter().map(|attr| (attr.kind, attr.payload.to_vec()));
            parts.collect::<Vec<_>>()
        };
        let (a, b) = ("10.0.0.1", "10.0.0.2");
        let told = |protocol, first: u16, kind| {
            vec![
                (1, vec![protocol]),
                (first, vec![0x12, 0x34]),
                (first + 1, vec![kind]),
                (first + 2, vec![0]),
            ]
        };
        assert_eq!(named((a, 0x1234), (b, 0), 1), told(1, 4, 8), "a request");
        assert_eq!(named((a, 0), (b, 0x1234), 1), told(1, 4, 0), "a reply");
        let (a, b) = ("fd00::1", "fd00::2");
        assert_eq!(named((a, 0x1234), (b, 0), 58), told(58, 7, 128), "a request");
        assert_eq!(named((a, 0), (b, 0x1234), 58), told(58, 7, 129), "a reply");
    }

    #[test]
    fn a_connection_without_what_is_needed_is_an_error() {
        let ask = |tuple: &[u8]| {
            let bytes = Request::new(CT_NEW, 0, &[2, 0, 0, 0])
                .attr(CTA_TUPLE_ORIG | NLA_F_NESTED, tuple)
                .finish(1);
            connection(Messages(&bytes).next().expect("a message")?).map(|found| found.is_some())
        };
        // CTA_TUPLE_PROTO with CTA_PROTO_NUM in it.
        let proto = |number| [12, 0, 2, 0x80, 5, 0, 1, 0, number, 0, 0, 0];
        assert_eq!((ask(&proto(6)), ask(&proto(17))), (Ok(true), Ok(false)));
        assert!(ask(&[]).is_err(), "no protocol");
        assert!(ask(&[4, 0, 2, 0x80]).is_err(), "no number");
        assert!(ask(&[200, 0, 2, 0x80]).is_err(), "a lie");
        let bytes = Request::new(CT_NEW, 0, &[2, 0, 0, 0]).finish(1);
        let message = Messages(&bytes).next().expect("a message").expect("whole");
        assert!(connection(message).is_err(), "no tuple");
    }

    /// What names a connection is given back as it came, also what no crate knows.
    #[test]
    fn a_connection_is_marked_by_the_name_that_it_has() {
        let tuple = [12, 0, 2, 0x80, 5, 0, 1, 0, 6, 0, 0, 0, 6, 0, 99, 0, 1, 2, 0, 0];
        let bytes = Request::new(CT_NEW, 0, &[2, 0, 0, 0])
            .attr(CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple)
            .attr(CTA_ZONE, &[0, 5])
            .finish(1);
        let message = Messages(&bytes).next().expect("a message").expect("whole");
        let connection = connection(message).expect("readable").expect("of TCP");
        let bytes = mark(&connection).finish(2);
        let marked = Messages(&bytes).next().expect("a message").expect("whole");
        assert_eq!((marked.kind, marked.flags), (CT_NEW, NLM_F_REQUEST | NLM_F_ACK));
        assert_eq!(marked.payload[..NFGENMSG], [2, 0, 0, 0]);
        let attrs = Attrs::after(marked.payload, NFGENMSG).expect("whole");
        assert_eq!(attrs.find(CTA_TUPLE_ORIG).expect("the name").payload, tuple);
        assert_eq!(attrs.find(CTA_ZONE).expect("the zone").payload, [0, 5]);
        // CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL and _REPLY
        let tcp = attrs.inside(4).and_then(|info| info.inside(1)).expect("whole");
        let flags: Vec<_> = tcp.iter().map(|attr| (attr.kind, attr.payload)).collect();
        assert_eq!(flags, [(4, &[8, 0x18][..]), (5, &[8, 0x18])]);
    }
}
