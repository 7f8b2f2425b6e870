//! Makes connections to virtual addresses survive the end of netfast: the client's own conntrack goes on translating.
//!
//! A connection has an entry in the client's namespace (Docker's resolver has NAT rules there, so its hooks are in place),
//! one that translates nothing: what the container sends is translated on the host's side of its veth. For each live
//! connection that entry is replaced by one with destination NAT to the member. From then on packets leave the container as
//! the host has seen them all the time, and the host's conntrack has nothing to learn.

use std::{collections::BTreeMap, io, net::Ipv4Addr};

use aya::maps::{HashMap, MapData};
use netfast_common::{
    abi::map,
    net::AnyIp,
    vip::{Conn, ConnKey, Direction, ICMP_IDLE_NS, UDP_IDLE_NS},
};
use tracing::warn;

use crate::{
    apply::{
        conntrack::{Tuple, liberal, request},
        pinned,
        pins::Pins,
        routes::{self, WayError},
    },
    bpf,
    observe::{self, NetlinkError},
    plan::{Client, Way},
    sys::netlink::{
        Emitable as _, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NetlinkSocket, Request,
        nf::{ConntrackAttribute, ConntrackMessage, DefaultNla, NetfilterProtoFamily, Status, Tuple as TuplePart},
    },
};

// Numbers of linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h and nf_conntrack_tcp.h.
const CTA_NAT_DST: u16 = 13;
const CTA_NAT_V4_MINIP: u16 = 1;
const CTA_NAT_V4_MAXIP: u16 = 2;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// Seconds after which an idle TCP connection is forgotten (`nf_conntrack_tcp_timeout_established`).
const TCP_TIMEOUT: u32 = 432_000;
/// Seconds after which an idle UDP conversation is forgotten (`nf_conntrack_udp_timeout_stream`).
const UDP_TIMEOUT: u32 = 120;
/// The same of ICMP echo (`nf_conntrack_icmp_timeout`).
const ICMP_TIMEOUT: u32 = 30;
/// How often an entry that came back between its removal and the new one is removed again.
const TRIES: usize = 20;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

/// What became of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// They go on.
    pub connections: usize,
    /// They end: of IPv6, of containers with themselves, or their namespace could not be changed.
    pub lost: usize,
}

/// The tables of connections.
type Tables = Vec<HashMap<MapData, ConnKey, Conn>>;

/// A connection that is to go on, and what the programs know it by, the member's direction first: while that is known, answers
/// still come from the virtual address, and the new entry does not expect them from there.
#[derive(Clone, Copy, Debug)]
struct Live {
    connection: Connection,
    keys: [ConnKey; 2],
}

/// A connection of a client to a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Connection {
    client: Ipv4Addr,
    client_port: u16,
    vip: Ipv4Addr,
    port: u16,
    member: Ipv4Addr,
    protocol: u8,
}

/// Hands live connections over. `now`: `CLOCK_MONOTONIC` in nanoseconds.
pub fn hand_off(pins: &Pins, clients: &[(Client, Way)], now: u64) -> io::Result<HandedOver> {
    let mut done = HandedOver::default();
    let mut by_veth: BTreeMap<u32, Vec<Live>> = BTreeMap::new();
    let mut tables = Tables::new();
    for name in [map::VIP_CONNECTIONS, map::VIP_WAITING] {
        if !pins.map(name).exists() {
            continue;
        }
        let entries: HashMap<MapData, ConnKey, Conn> = pinned::open(pins, name).map_err(io::Error::other)?;
        bpf::for_each(&entries, |key, conn| {
            if is_live(key, conn, now) {
                match connection(key, conn) {
                    Some(connection) => {
                        let keys = [from_member(key, conn), *key];
                        let live = Live { connection, keys };
                        by_veth.entry(key.ifindex).or_default().push(live);
                    }
                    None => done.lost += 1,
                }
            }
        })?;
        tables.push(entries);
    }
    let places = observe::veths(
        clients
            .iter()
            .map(|(client, _)| (client.pid, client.netns, client.ifindex)),
    );
    for (veth, connections) in by_veth {
        let place = places.get(&veth).and_then(|pid| {
            let mut clients = clients.iter().map(|(client, _)| *client);
            clients.find(|client| client.pid == *pid)
        });
        let handed = match place {
            Some(client) => routes::inside(client, || replace_all(&connections, &mut tables)),
            // The client is gone, and its connections with it.
            None => continue,
        };
        match handed {
            Ok(handed) => {
                done.connections += handed;
                done.lost += connections.len() - handed;
            }
            Err(error) => {
                warn!("{:#}", anyhow::Error::new(error));
                done.lost += connections.len();
            }
        }
    }
    Ok(done)
}

/// Whether a connection goes on, by the entry of the direction to the virtual address.
fn is_live(key: &ConnKey, conn: &Conn, now: u64) -> bool {
    let idle = match key.protocol {
        UDP => UDP_IDLE_NS,
        TCP => u64::MAX,
        _ => ICMP_IDLE_NS,
    };
    key.direction == Direction::ToVip as u8
        && conn.tag == key.tag()
        && conn.tag_end == conn.tag
        && !conn.is_closed()
        && conn.from_member & Conn::SEEN != 0
        && now.saturating_sub(conn.used_ns) < idle
}

/// A connection, unless it is one of a container with itself: translated inside, that would take another way back; or one of
/// IPv6: nobody has NAT rules of IPv6 in a container's namespace, so there are no hooks that would translate it.
fn connection(key: &ConnKey, conn: &Conn) -> Option<Connection> {
    let ip = |ip: AnyIp| ip.is_v4().then(|| Ipv4Addr::from(ip.to_v4().bytes()));
    if conn.hairpin != 0 {
        return None;
    }
    Some(Connection {
        client: ip(key.client)?,
        client_port: key.client_port.number(),
        vip: ip(key.remote)?,
        port: key.remote_port.number(),
        member: ip(conn.backend.address)?,
        protocol: key.protocol,
    })
}

/// What the programs know the member's direction of a connection by.
fn from_member(key: &ConnKey, conn: &Conn) -> ConnKey {
    ConnKey {
        remote: conn.backend.address,
        direction: Direction::FromMember as u8,
        ..*key
    }
}

/// Replaces the entries of connections in the calling thread's namespace, and has the programs forget each at once; returns how
/// many.
fn replace_all(connections: &[Live], tables: &mut Tables) -> Result<usize, WayError> {
    let mut socket = NetlinkSocket::netfilter()?;
    let mut handed = 0;
    for Live { connection, keys } in connections {
        match replace(&mut socket, connection) {
            Ok(()) => {
                handed += 1;
                for key in keys {
                    // It is in one of them at most.
                    for table in &mut *tables {
                        let _not_there = table.remove(key);
                    }
                }
            }
            Err(error) => warn!(
                "a connection from {} to {}:{} ends: {:#}",
                connection.client,
                connection.vip,
                connection.port,
                anyhow::Error::new(error)
            ),
        }
    }
    Ok(handed)
}

fn replace(socket: &mut NetlinkSocket, connection: &Connection) -> Result<(), NetlinkError> {
    let mut tell = |request: &Request| socket.tell("a connection", request);
    for _ in 0..TRIES {
        match tell(&delete(connection)) {
            Err(error) if error.refused() == Some(libc::ENOENT) => {}
            done => done?,
        }
        match tell(&create(connection)) {
            // A packet was quicker.
            Err(error) if error.refused() == Some(libc::EEXIST) => {}
            done => return done,
        }
    }
    tell(&create(connection))
}

fn delete(connection: &Connection) -> Request {
    let tuple = ConntrackAttribute::CtaTupleOrig(tuple(connection, false));
    request(
        NetfilterProtoFamily::IPv4,
        ConntrackMessage::Delete(vec![tuple]),
        NLM_F_ACK,
    )
}

fn create(connection: &Connection) -> Request {
    let is_tcp = connection.protocol == TCP;
    let timeout = match connection.protocol {
        TCP => TCP_TIMEOUT,
        ICMP => ICMP_TIMEOUT,
        _ => UDP_TIMEOUT,
    };
    let mut attributes = vec![
        ConntrackAttribute::CtaTupleOrig(tuple(connection, false)),
        ConntrackAttribute::CtaTupleReply(tuple(connection, true)),
        ConntrackAttribute::CtaStatus(Status::SeenReply | Status::Assured | Status::Confirmed),
        ConntrackAttribute::CtaTimeout(timeout),
        to_member(connection.member),
    ];
    if is_tcp {
        // It has not seen the windows, see `conntrack`.
        attributes.push(liberal(Some(ESTABLISHED)));
    }
    request(
        NetfilterProtoFamily::IPv4,
        ConntrackMessage::New(attributes),
        NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `CTA_NAT_DST`, which the packet crate does not know.
fn to_member(member: Ipv4Addr) -> ConntrackAttribute {
    let range = [CTA_NAT_V4_MINIP, CTA_NAT_V4_MAXIP].map(|kind| DefaultNla::new(kind, member.octets().to_vec()));
    let mut bytes = vec![0; range.as_slice().buffer_len()];
    range.as_slice().emit(&mut bytes);
    ConntrackAttribute::Other(DefaultNla::new(CTA_NAT_DST | NLA_F_NESTED, bytes))
}

/// The connection as the client sees it; `back`: what comes back, before anything is translated.
fn tuple(connection: &Connection, back: bool) -> Vec<TuplePart> {
    let (from, to) = (
        (connection.client, connection.client_port),
        (connection.vip, connection.port),
    );
    let (source, destination) = if back { (to, from) } else { (from, to) };
    let protocol = connection.protocol;
    let ip = |(ip, port): (Ipv4Addr, u16)| (ip.into(), port);
    Tuple {
        source: ip(source),
        destination: ip(destination),
        protocol,
    }
    .parts()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use netfast_common::{net::Port, vip::Backend};

    use super::*;

    fn entry() -> (ConnKey, Conn) {
        let key = ConnKey {
            client: IpAddr::from([172, 18, 0, 2]).into(),
            remote: IpAddr::from([198, 19, 7, 2]).into(),
            client_port: Port::new(40000),
            remote_port: Port::new(80),
            ifindex: 7,
            protocol: TCP,
            direction: Direction::ToVip as u8,
            netns: 0,
        };
        let conn = Conn {
            tag: key.tag(),
            tag_end: key.tag(),
            from_client: Conn::SEEN,
            from_member: Conn::SEEN,
            backend: Backend {
                address: IpAddr::from([172, 18, 0, 8]).into(),
                ..Backend::default()
            },
            ..Conn::default()
        };
        (key, conn)
    }

    #[test]
    fn only_what_lives_is_handed_over() {
        let (key, conn) = entry();
        assert!(is_live(&key, &conn, u64::MAX - 1), "TCP has no end by itself");
        let dead = [
            (ConnKey { direction: 1, ..key }, conn),
            (key, Conn { tag_end: 0, ..conn }),
            (key, Conn { from_member: 0, ..conn }),
            (
                key,
                Conn {
                    from_client: Conn::RST,
                    ..conn
                },
            ),
        ];
        for (key, conn) in dead {
            assert!(!is_live(&key, &conn, 0), "{key:?} {conn:?}");
        }
        let udp = ConnKey { protocol: UDP, ..key };
        let tag = udp.tag();
        let conn = Conn {
            tag,
            tag_end: tag,
            ..conn
        };
        assert!(is_live(&udp, &conn, UDP_IDLE_NS - 1) && !is_live(&udp, &conn, UDP_IDLE_NS));
        let echo = ConnKey {
            protocol: ICMP,
            remote_port: Port::new(0),
            ..key
        };
        let tag = echo.tag();
        let conn = Conn {
            tag,
            tag_end: tag,
            ..conn
        };
        assert!(is_live(&echo, &conn, ICMP_IDLE_NS - 1) && !is_live(&echo, &conn, ICMP_IDLE_NS));
    }

    #[test]
    fn a_container_s_connection_with_itself_is_not() {
        let (key, conn) = entry();
        let connection = connection(&key, &conn).expect("another's");
        assert_eq!((connection.client_port, connection.member.octets()[3]), (40000, 8));
        assert_eq!(self::connection(&key, &Conn { hairpin: 1, ..conn }), None);
    }

    #[test]
    fn a_connection_of_ipv6_is_not() {
        let (key, mut conn) = entry();
        let six = |last: u16| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)).into();
        conn.backend.address = six(8);
        let key = ConnKey {
            client: six(2),
            remote: six(3),
            ..key
        };
        assert_eq!(connection(&key, &conn), None);
    }
}
