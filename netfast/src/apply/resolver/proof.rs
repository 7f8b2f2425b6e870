//! Questions that show that names are resolved through the program.
//!
//! While Docker's rules are there they would answer any question, so the first is asked around them: conntrack is told of two
//! conversations that begin at this end of the question's, one with port 53 and one with the port that the resolver listens on.
//! What belongs to a conversation that conntrack knows is not looked up in NAT rules (`nf_nat_inet_fn`,
//! `net/netfilter/nf_nat_core.c`), neither the question nor the answer. So if an answer comes from port 53, the program has
//! translated both.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use netfast_common::resolver::{ADDRESS, DOMAIN};

use crate::{
    apply::conntrack::{Tuple, request},
    apply::resolver::loopback_socket,
    observe::NetlinkError,
    sys::netlink::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NetlinkSocket,
        nf::{ConntrackAttribute, ConntrackMessage, NetfilterProtoFamily, Status},
    },
};

/// How long the resolver may take: it answers for a container's name from a table.
const PATIENCE: Duration = Duration::from_secs(1);
/// Seconds until conntrack forgets the conversations if they are not removed.
const TIMEOUT: u32 = 5;
/// IANA protocol number.
const UDP: u8 = 17;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// conntrack cannot be told.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// There is no answer, or it cannot be asked.
    #[error("no answer by {how}")]
    NoAnswer {
        /// UDP or TCP.
        how: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Shows that the program translates datagrams, with Docker's rules still there, in the calling thread's namespace. `name` is one
/// that the resolver knows.
pub fn of_datagrams(udp: u16, name: &str) -> Result<(), ProofError> {
    let failed = |source| ProofError::NoAnswer { how: "UDP", source };
    let socket = loopback_socket().map_err(failed)?;
    let port = socket.local_addr().map_err(failed)?.port();
    let mut conntrack = NetlinkSocket::netfilter()?;
    let conversations = [DOMAIN.number(), udp].map(|to| Tuple {
        source: (Ipv4Addr::LOCALHOST.into(), port),
        destination: (resolver(), to),
        protocol: UDP,
    });
    let mut made = Ok(());
    for conversation in &conversations {
        made = made.and_then(|()| begin(&mut conntrack, conversation));
    }
    let asked = made
        .map_err(ProofError::from)
        .and_then(|()| ask_by_datagram(&socket, name).map_err(failed));
    for conversation in &conversations {
        let name = ConntrackAttribute::CtaTupleOrig(conversation.parts());
        let end = request(
            NetfilterProtoFamily::IPv4,
            ConntrackMessage::Delete(vec![name]),
            NLM_F_ACK,
        );
        // It ends by itself otherwise.
        let _ = conntrack.tell("a conversation with the resolver", &end);
    }
    asked
}

/// Shows that names are resolved both ways, with the rules gone.
pub fn without_rules(name: &str) -> Result<(), ProofError> {
    let by_datagram = || ask_by_datagram(&loopback_socket()?, name);
    by_datagram().map_err(|source| ProofError::NoAnswer { how: "UDP", source })?;
    ask_by_connection(name).map_err(|source| ProofError::NoAnswer { how: "TCP", source })
}

fn resolver() -> IpAddr {
    Ipv4Addr::from(ADDRESS.bytes()).into()
}

fn port_53() -> SocketAddr {
    (resolver(), DOMAIN.number()).into()
}

/// Has conntrack know a conversation of which it believes to have seen both directions.
fn begin(socket: &mut NetlinkSocket, conversation: &Tuple) -> Result<(), NetlinkError> {
    let back = Tuple {
        source: conversation.destination,
        destination: conversation.source,
        ..*conversation
    };
    let attributes = vec![
        ConntrackAttribute::CtaTupleOrig(conversation.parts()),
        ConntrackAttribute::CtaTupleReply(back.parts()),
        ConntrackAttribute::CtaStatus(Status::SeenReply | Status::Confirmed),
        ConntrackAttribute::CtaTimeout(TIMEOUT),
    ];
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let new = request(NetfilterProtoFamily::IPv4, ConntrackMessage::New(attributes), flags);
    socket.tell("a conversation with the resolver", &new)
}

/// A question for an IPv4 address (RFC 1035), by this number.
fn question(name: &str, id: u16) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend(label);
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// A number that the last question did not have.
fn id() -> u16 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let bytes = now.unwrap_or_default().subsec_nanos().to_be_bytes();
    u16::from_be_bytes([bytes[2], bytes[3]])
}

fn is_answer(bytes: &[u8], id: u16) -> bool {
    bytes.len() >= 12 && bytes[..2] == id.to_be_bytes() && bytes[2] & 0x80 != 0
}

fn ask_by_datagram(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let id = id();
    socket.send_to(&question(name, id), port_53())?;
    let end = Instant::now() + PATIENCE;
    let mut bytes = [0; 1024];
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(rest))?;
        let (length, from) = socket.recv_from(&mut bytes)?;
        if from == port_53() && is_answer(&bytes[..length], id) {
            return Ok(());
        }
    }
}

fn ask_by_connection(name: &str) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&port_53(), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let id = id();
    let question = question(name, id);
    let length = u16::try_from(question.len()).unwrap_or_default().to_be_bytes();
    connection.write_all(&[&length[..], &question].concat())?;
    let mut bytes = [0; 14];
    connection.read_exact(&mut bytes)?;
    if is_answer(&bytes[2..], id) {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}
