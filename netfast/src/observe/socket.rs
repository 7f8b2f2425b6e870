//! Netlink sockets: dumps, single questions, and notifications.
//!
//! A socket belongs to the network namespace that the thread was in which made it, for ever.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::wire::{Message, Messages, Request};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
pub const DUMP: u16 = 0x301;
/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x1;

/// Longer than any datagram of a dump (the kernel makes at most 32 KiB) and than nearly any notification.
const BUFFER: usize = 64 * 1024;
/// What the kernel may queue for a watcher before it drops notifications, in bytes.
const WATCH_QUEUE: usize = 4 * 1024 * 1024;
/// How often a dump that was disturbed is taken anew.
const DUMP_TRIES: usize = 10;
/// How many questions are asked at once: their answers must fit the socket's queue.
const BATCH: usize = 32;
/// How long the kernel may take to answer, in seconds. It answers at once or not at all.
const ANSWER_TIMEOUT: i64 = 10;

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
    #[error("the kernel refused to list {what}: {source}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The errno it gave.
        source: io::Error,
    },
    /// The tables changed during every one of several dumps.
    #[error("{what} changed while being listed, {DUMP_TRIES} times in a row")]
    Interrupted {
        /// What was asked for.
        what: &'static str,
    },
    /// An answer without what every answer of its kind has.
    #[error("the kernel's answer about {what} cannot be read: {missing} is missing or too short")]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// What is wrong.
        missing: &'static str,
    },
    /// Notifications were lost.
    #[error("netlink notifications were lost")]
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
}

fn io_error(what: &'static str) -> impl FnOnce(Errno) -> NetlinkError {
    move |errno| NetlinkError::Io {
        what,
        source: errno.into(),
    }
}

/// By number: nix does not know all protocols.
fn open(protocol: i32, flags: i32, groups: u32) -> Result<OwnedFd, NetlinkError> {
    // SAFETY: no pointer is given.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags, protocol) };
    let fd = Errno::result(fd).map_err(io_error("socket"))?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(io_error("bind"))?;
    Ok(fd)
}

/// A socket to ask questions with; the calling thread waits for the answer.
pub struct Asker {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Asker {
    /// A socket for rtnetlink.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::new(libc::NETLINK_ROUTE)
    }

    /// A socket for nfnetlink.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::new(libc::NETLINK_NETFILTER)
    }

    fn new(protocol: i32) -> Result<Self, NetlinkError> {
        let fd = open(protocol, 0, 0)?;
        let timeout = TimeVal::seconds(ANSWER_TIMEOUT);
        setsockopt(&fd, sockopt::ReceiveTimeout, &timeout).map_err(io_error("timeout"))?;
        Ok(Self {
            fd,
            seq: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Lists everything that `request` asks for. `parse` is called for each message; what it collected is thrown away
    /// and begun anew when the kernel says that the table changed under the dump.
    pub fn dump<T: Default>(
        &mut self,
        what: &'static str,
        request: &Request,
        mut parse: impl FnMut(&mut T, Message<'_>) -> Result<(), NetlinkError>,
    ) -> Result<T, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            let mut collected = T::default();
            let mut torn = false;
            let mut failed = None;
            self.send(request)?;
            // The answer is read to its end in any case, so that the next question does not meet its rest.
            while self.receive(what, |message| {
                torn |= message.flags & NLM_F_DUMP_INTR != 0;
                if failed.is_none() && !torn {
                    failed = parse(&mut collected, message).err();
                }
            })? {}
            match failed {
                Some(error) => return Err(error),
                None if torn => {}
                None => return Ok(collected),
            }
        }
        Err(NetlinkError::Interrupted { what })
    }

    /// Asks for one thing. `parse` is called for the answer.
    pub fn ask<T>(
        &mut self,
        what: &'static str,
        request: &Request,
        parse: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<T, NetlinkError> {
        self.send(request)?;
        let mut answer = None;
        self.receive(what, |message| answer = parse(message))?;
        answer.ok_or(NetlinkError::Malformed {
            what,
            missing: "the answer",
        })
    }

    /// Asks for one thing each, many at a time. `parse` is called for each answer; `None` where the kernel refused.
    pub fn ask_all<T: Clone>(
        &mut self,
        requests: &[Request],
        parse: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<Option<T>>, NetlinkError> {
        let mut answers = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            let first = self.seq.wrapping_add(1);
            let bytes: Vec<u8> = batch
                .iter()
                .zip(0..)
                .flat_map(|(request, at)| request.finish(first.wrapping_add(at)))
                .collect();
            self.seq = first.wrapping_add(u32::try_from(batch.len()).unwrap_or_default());
            send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(io_error("send"))?;
            let mut found = vec![None; batch.len()];
            let mut waiting = batch.len();
            while waiting > 0 {
                let len = receive(self.fd.as_fd(), &mut self.buffer)?;
                for message in Messages(&self.buffer[..len]) {
                    if let Some(answer) = found.get_mut(message.seq.wrapping_sub(first) as usize) {
                        waiting = waiting.saturating_sub(1);
                        *answer = if message.kind == NLMSG_ERROR {
                            None
                        } else {
                            parse(message)
                        };
                    }
                }
            }
            answers.extend(found);
        }
        Ok(answers)
    }

    fn send(&mut self, request: &Request) -> Result<(), NetlinkError> {
        self.seq = self.seq.wrapping_add(1);
        send(self.fd.as_raw_fd(), &request.finish(self.seq), MsgFlags::empty()).map_err(io_error("send"))?;
        Ok(())
    }

    /// Reads one datagram; false when it ended the answer.
    fn receive(&mut self, what: &'static str, mut each: impl FnMut(Message<'_>)) -> Result<bool, NetlinkError> {
        let len = receive(self.fd.as_fd(), &mut self.buffer)?;
        let mut more = true;
        for message in Messages(&self.buffer[..len]).filter(|message| message.seq == self.seq) {
            match message.kind {
                NLMSG_DONE => {
                    more = false;
                    check_error(what, message)?;
                    // The flag may come with the last message only.
                    if message.flags & NLM_F_DUMP_INTR != 0 {
                        each(message);
                    }
                }
                NLMSG_ERROR => {
                    check_error(what, message)?;
                    more = false;
                }
                _ => each(message),
            }
        }
        Ok(more)
    }
}

/// `NLMSG_DONE` and `NLMSG_ERROR` both begin with a negative errno, or 0.
fn check_error(what: &'static str, message: Message<'_>) -> Result<(), NetlinkError> {
    let code = super::wire::u32_at(message.payload, 0).map_or(0, u32::cast_signed);
    if code < 0 {
        return Err(NetlinkError::Refused {
            what,
            source: io::Error::from_raw_os_error(-code),
        });
    }
    Ok(())
}

fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, NetlinkError> {
    loop {
        // With MSG_TRUNC the answer is the datagram's true length.
        match recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(len) if len <= buffer.len() => return Ok(len),
            Ok(_) | Err(Errno::ENOBUFS) => return Err(NetlinkError::Overflow),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(io_error("receive")(errno)),
        }
    }
}

/// A socket that receives notifications.
pub struct Watcher {
    fd: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Watcher {
    /// A socket in the multicast groups of rtnetlink that `groups` names, as a mask with bit `group - 1`.
    pub fn route(groups: u32) -> Result<Self, NetlinkError> {
        Self::new(libc::NETLINK_ROUTE, groups)
    }

    /// The same for nfnetlink.
    pub fn netfilter(groups: u32) -> Result<Self, NetlinkError> {
        Self::new(libc::NETLINK_NETFILTER, groups)
    }

    /// The same for `IPsec`.
    pub fn xfrm(groups: u32) -> Result<Self, NetlinkError> {
        Self::new(libc::NETLINK_XFRM, groups)
    }

    /// Joins a group that has no bit in the mask; false if the kernel does not know it.
    pub fn join(&self, group: u32) -> bool {
        let size = libc::socklen_t::try_from(size_of_val(&group)).unwrap_or_default();
        // SAFETY: pointer and size are those of `group`, which outlives the call.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                libc::NETLINK_ADD_MEMBERSHIP,
                ptr::from_ref(&group).cast(),
                size,
            )
        };
        done == 0
    }

    /// Must be called within a tokio runtime.
    fn new(protocol: i32, groups: u32) -> Result<Self, NetlinkError> {
        let fd = open(protocol, libc::SOCK_NONBLOCK, groups)?;
        // SO_RCVBUFFORCE needs CAP_NET_ADMIN, as the daemon does; without it the default queue must do, and an
        // overflow is a resync.
        if setsockopt(&fd, sockopt::RcvBufForce, &WATCH_QUEUE).is_err() {
            tracing::debug!("SO_RCVBUFFORCE refused; the default receive queue is kept");
        }
        // SAFETY: an OwnedFd is open as long as it lives, and gives the same descriptor all the time; the AsyncFd owns it.
        let fd =
            unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| NetlinkError::Io {
                what: "registration",
                source: error.into(),
            })?;
        Ok(Self {
            fd,
            buffer: vec![0; BUFFER],
        })
    }

    /// Waits for a datagram and hands its messages to `each`. [`NetlinkError::Overflow`] means that some were lost;
    /// the socket goes on.
    pub async fn receive(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<(), NetlinkError> {
        loop {
            let mut ready = self
                .fd
                .readable()
                .await
                .map_err(|source| NetlinkError::Io { what: "wait", source })?;
            match receive(ready.get_inner().as_fd(), &mut self.buffer) {
                Ok(len) => {
                    Messages(&self.buffer[..len]).for_each(&mut each);
                    return Ok(());
                }
                Err(NetlinkError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                }
                Err(error) => return Err(error),
            }
        }
    }
}
