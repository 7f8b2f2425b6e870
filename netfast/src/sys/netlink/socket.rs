//! Sockets to ask the kernel questions with: dumps, single questions, many at once.
//!
//! A socket belongs to the network namespace of the thread that made it, for ever.

use std::io;
use std::mem;

use netlink_packet_core::NLMSG_ERROR;
use netlink_sys::{Socket, SocketAddr, protocols};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::answer::{self, Progress};
use super::message::number;
use super::{DUMP_TRIES, Malformed, Message, Messages, NetlinkError, Request};

/// Longer than any datagram of a dump (the kernel makes at most 32 KiB) and than nearly any notification.
pub const BUFFER: usize = 64 * 1024;
/// How many questions are asked at once: their answers must fit the socket's queue.
const BATCH: usize = 32;
/// How long the kernel may take to answer, in seconds. It answers at once or not at all.
pub const ANSWER_TIMEOUT: i64 = 10;

/// What carries datagrams to the kernel and back.
pub trait Transport {
    /// Begins anew, without what may still come of an earlier answer.
    fn reopen(&mut self) -> Result<(), NetlinkError>;
    /// Sends one datagram.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Receives one, in place of what is in the buffer; returns its true length.
    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize>;
}

/// A socket of the kernel.
pub struct Kernel {
    protocol: isize,
    socket: Socket,
}

impl Kernel {
    fn new(protocol: isize) -> Result<Self, NetlinkError> {
        let socket = open(protocol, 0)?;
        let set = |what, done: io::Result<()>| done.map_err(NetlinkError::io(what));
        // Only the kernel's messages are let in (netlink_getsockbyportid, net/netlink/af_netlink.c).
        set("connect", socket.connect(&SocketAddr::new(0, 0)))?;
        let timeout = TimeVal::seconds(ANSWER_TIMEOUT);
        set(
            "timeout",
            setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(Into::into),
        )?;
        // A refusal comes with words (Linux 4.12) and without the request (4.2), and unknown or misplaced fields of a
        // request are refused and not passed over (4.20; then routes come without cached exceptions, too). All works
        // without.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        if protocol == protocols::NETLINK_ROUTE {
            let _ = socket.set_netlink_get_strict_chk(true);
        }
        Ok(Self { protocol, socket })
    }
}

impl Transport for Kernel {
    fn reopen(&mut self) -> Result<(), NetlinkError> {
        *self = Self::new(self.protocol)?;
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes, 0).map(drop)
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        receive_now(&self.socket, buffer)
    }
}

/// A socket in multicast groups, given as a mask with bit `group - 1`.
pub fn open(protocol: isize, groups: u32) -> Result<Socket, NetlinkError> {
    let mut socket = Socket::new(protocol).map_err(NetlinkError::io("socket"))?;
    socket
        .bind(&SocketAddr::new(0, groups))
        .map_err(NetlinkError::io("bind"))?;
    Ok(socket)
}

/// Receives a datagram in place of what is in the buffer; returns its true length.
pub fn receive_now(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.clear();
    socket.recv(buffer, libc::MSG_TRUNC)
}

/// What a datagram's receipt means: one that was cut lacks messages as one that was dropped.
pub fn received(length: io::Result<usize>, buffer: &[u8]) -> Result<(), NetlinkError> {
    match length {
        Ok(length) if length <= buffer.len() => Ok(()),
        Ok(_) => Err(NetlinkError::Overflow),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Err(NetlinkError::Overflow),
        Err(error) => Err(NetlinkError::io("receive")(error)),
    }
}

/// A group of generic netlink that is listened to.
pub struct GenericGroup {
    socket: Socket,
    buffer: Vec<u8>,
}

impl GenericGroup {
    /// Listens from now on, in the namespace of the calling thread.
    pub fn join(group: u32) -> Result<Self, NetlinkError> {
        let socket = open(protocols::NETLINK_GENERIC, 0)?;
        socket.add_membership(group).map_err(NetlinkError::io("membership"))?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Waits for a message. That some were lost is one, too.
    pub fn wait(&mut self) -> Result<(), NetlinkError> {
        let length = receive_now(&self.socket, &mut self.buffer);
        match received(length, &self.buffer) {
            Err(NetlinkError::Overflow) => Ok(()),
            done => done,
        }
    }
}

/// A socket to ask questions with; the calling thread waits for the answer.
pub struct NetlinkSocket<T = Kernel> {
    transport: T,
    /// An answer was not read to its end: the rest of it may still come, and until it has come the kernel refuses
    /// another dump (`EBUSY`).
    is_stale: bool,
    seq: u32,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl NetlinkSocket {
    /// A socket for rtnetlink.
    pub fn route() -> Result<Self, NetlinkError> {
        Ok(Self::over(Kernel::new(protocols::NETLINK_ROUTE)?))
    }

    /// A socket for generic netlink.
    pub fn generic() -> Result<Self, NetlinkError> {
        Ok(Self::over(Kernel::new(protocols::NETLINK_GENERIC)?))
    }

    /// A socket for nfnetlink.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Ok(Self::over(Kernel::new(protocols::NETLINK_NETFILTER)?))
    }
}

impl<T: Transport> NetlinkSocket<T> {
    pub(super) fn over(transport: T) -> Self {
        Self {
            transport,
            is_stale: false,
            seq: 0,
            incoming: Vec::with_capacity(BUFFER),
            outgoing: Vec::new(),
        }
    }

    /// Lists everything that `request` asks for. `parse` is called for each message; what it collected is thrown away
    /// and begun anew when the kernel says that the table changed under the dump.
    pub fn dump<C: Default>(
        &mut self,
        what: &'static str,
        request: &Request,
        mut parse: impl FnMut(&mut C, Message<'_>) -> Result<(), Malformed>,
    ) -> Result<C, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            let mut collected = C::default();
            let (mut is_torn, mut parsed) = (false, Ok(()));
            self.send(request)?;
            // The answer is read to its end in any case, so that the next question does not meet its rest.
            loop {
                let progress = self.read(what, |message| {
                    if !is_torn && parsed.is_ok() {
                        parsed = parse(&mut collected, message);
                    }
                })?;
                is_torn |= progress.is_torn;
                if progress.is_over {
                    break;
                }
            }
            if !is_torn {
                parsed.map_err(NetlinkError::malformed(what))?;
                return Ok(collected);
            }
        }
        Err(NetlinkError::Interrupted { what })
    }

    /// Asks for one thing. `parse` is called for the answer.
    pub fn ask<A>(
        &mut self,
        what: &'static str,
        request: &Request,
        parse: impl Fn(Message<'_>) -> Result<A, Malformed>,
    ) -> Result<A, NetlinkError> {
        self.send(request)?;
        let (mut answer, mut is_over) = (None, false);
        while answer.is_none() && !is_over {
            is_over = self
                .read(what, |message| {
                    answer.get_or_insert_with(|| parse(message));
                })?
                .is_over;
        }
        let answer = answer.unwrap_or_else(|| Err(Malformed::missing("the answer")));
        answer.map_err(NetlinkError::malformed(what))
    }

    /// Has something done. The request must ask for an acknowledgement (`NLM_F_ACK`).
    pub fn tell(&mut self, what: &'static str, request: &Request) -> Result<(), NetlinkError> {
        self.send(request)?;
        while !self.read(what, |_| ())?.is_over {}
        Ok(())
    }

    /// Has several things done in one datagram: all of them, or none, where the subsystem promises that (`nf_tables`). One of
    /// them must ask for an acknowledgement (`NLM_F_ACK`), and is the last to be done.
    pub fn tell_all(&mut self, what: &'static str, requests: &[Request]) -> Result<(), NetlinkError> {
        self.seq = self.seq.wrapping_add(1);
        self.outgoing.clear();
        for request in requests {
            request.write(self.seq, &mut self.outgoing);
        }
        self.flush()?;
        while !self.read(what, |_| ())?.is_over {}
        Ok(())
    }

    /// Asks about each of several things, many at a time. `encode` appends the request ([`append`]), `parse` is called for
    /// the answer, unless the kernel refuses to give one.
    ///
    /// [`append`]: super::message::append
    pub fn ask_each<I>(
        &mut self,
        what: &'static str,
        things: &[I],
        encode: impl Fn(&I, &mut Vec<u8>),
        mut parse: impl FnMut(&I, Message<'_>) -> Result<(), Malformed>,
    ) -> Result<(), NetlinkError> {
        for batch in things.chunks(BATCH) {
            self.outgoing.clear();
            let first = self.seq.wrapping_add(1);
            for thing in batch {
                let start = self.outgoing.len();
                encode(thing, &mut self.outgoing);
                self.seq = self.seq.wrapping_add(1);
                number(&mut self.outgoing[start..], self.seq);
            }
            self.flush()?;
            let (mut waits, mut waiting) = ([true; BATCH], batch.len());
            let mut parsed = Ok(());
            while waiting > 0 {
                self.receive()?;
                for message in Messages(&self.incoming) {
                    let message = message.map_err(|source| {
                        self.is_stale = true;
                        NetlinkError::Malformed { what, source }
                    })?;
                    let at = message.seq.wrapping_sub(first) as usize;
                    let Some((thing, true)) = batch.get(at).map(|thing| (thing, mem::take(&mut waits[at]))) else {
                        continue;
                    };
                    waiting -= 1;
                    if message.kind != NLMSG_ERROR && parsed.is_ok() {
                        parsed = parse(thing, message);
                    }
                }
            }
            parsed.map_err(NetlinkError::malformed(what))?;
        }
        Ok(())
    }

    fn send(&mut self, request: &Request) -> Result<(), NetlinkError> {
        self.seq = self.seq.wrapping_add(1);
        self.outgoing.clear();
        request.write(self.seq, &mut self.outgoing);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), NetlinkError> {
        if mem::take(&mut self.is_stale) {
            self.transport.reopen()?;
        }
        self.transport.send(&self.outgoing).map_err(NetlinkError::io("send"))
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        loop {
            match self.transport.receive(&mut self.incoming) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                length => {
                    let received = received(length, &self.incoming);
                    self.is_stale |= received.is_err();
                    return received;
                }
            }
        }
    }

    /// Reads one datagram of the answer to the last question.
    fn read(&mut self, what: &'static str, each: impl FnMut(Message<'_>)) -> Result<Progress, NetlinkError> {
        self.receive()?;
        let progress = answer::read(what, self.seq, &self.incoming, each);
        // A refusal ends the answer; all else that is wrong leaves its rest.
        self.is_stale |= progress.as_ref().is_err_and(|error| error.refused().is_none());
        progress
    }
}

#[cfg(test)]
mod tests;
