//! Sockets that receive notifications.

use std::io;

use netlink_sys::{Socket, protocols};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::socket::{BUFFER, open, receive_now, received};
use super::{Malformed, Message, Messages, NetlinkError};

/// What the kernel may queue for a watcher before it drops notifications, in bytes.
const QUEUE: usize = 4 * 1024 * 1024;

/// A socket that receives notifications. Not `netlink-sys`'s own for tokio: it does not tell whether a datagram was cut.
pub struct Watcher {
    fd: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Watcher {
    /// A socket in the multicast groups of rtnetlink that `groups` names, as a mask with bit `group - 1`.
    pub fn route(groups: u32) -> Result<Self, NetlinkError> {
        Self::new(protocols::NETLINK_ROUTE, groups)
    }

    /// The same for nfnetlink.
    pub fn netfilter(groups: u32) -> Result<Self, NetlinkError> {
        Self::new(protocols::NETLINK_NETFILTER, groups)
    }

    /// The same for `IPsec`.
    pub fn xfrm(groups: u32) -> Result<Self, NetlinkError> {
        Self::new(protocols::NETLINK_XFRM, groups)
    }

    /// Joins a group that has no bit in the mask; false if the kernel does not know it.
    pub fn join(&self, group: u32) -> bool {
        self.fd.get_ref().add_membership(group).is_ok()
    }

    /// Must be called within a tokio runtime.
    fn new(protocol: isize, groups: u32) -> Result<Self, NetlinkError> {
        let socket = open(protocol, groups)?;
        socket
            .set_non_blocking(true)
            .map_err(NetlinkError::io("non-blocking"))?;
        // SO_RCVBUFFORCE needs CAP_NET_ADMIN, as the daemon does; without it the default queue must do, and an
        // overflow is a resync.
        if setsockopt(&socket, sockopt::RcvBufForce, &QUEUE).is_err() {
            tracing::debug!("SO_RCVBUFFORCE refused; the default receive queue is kept");
        }
        // SAFETY: a socket is open as long as it lives, and gives the same descriptor all the time; the AsyncFd owns it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self {
            fd: fd.map_err(|error| NetlinkError::io("registration")(error.into()))?,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Waits for a datagram and hands its messages to `each`. An error means that some were lost or not understood; the
    /// socket goes on.
    pub async fn receive(
        &mut self,
        each: impl FnMut(Message<'_>) -> Result<(), Malformed>,
    ) -> Result<(), NetlinkError> {
        loop {
            let mut ready = self.fd.readable().await.map_err(NetlinkError::io("wait"))?;
            match receive_now(ready.get_inner(), &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                length => {
                    received(length, &self.buffer)?;
                    return notify(&self.buffer, each);
                }
            }
        }
    }
}

fn notify(datagram: &[u8], mut each: impl FnMut(Message<'_>) -> Result<(), Malformed>) -> Result<(), NetlinkError> {
    Messages(datagram)
        .try_for_each(|message| each(message?))
        .map_err(NetlinkError::malformed("what changed"))
}
