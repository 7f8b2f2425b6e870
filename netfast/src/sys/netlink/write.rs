//! Changes, by `rtnetlink`'s handles.
//!
//! They are asynchronous and the executor is not, which also works in other network namespaces on threads of their own:
//! so each set of changes has a thread with a runtime, in the namespace of the thread that asks.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::AsyncSocket as _;
use rtnetlink::{Error, Handle, RouteMessageBuilder};
use tokio::runtime::{Builder, Runtime};

use super::message::HEADER;
use super::socket::ANSWER_TIMEOUT;
use super::{NetlinkError, answer};

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpRoute {
    /// Where it leads, and the length of the prefix.
    pub destination: (IpAddr, u8),
    /// Who has made it (`rtm_protocol`).
    pub protocol: u8,
    /// The next hop, of the same family, which is on the link whatever its addresses are, and the interface; `None` for a route
    /// that prohibits.
    pub via: Option<(IpAddr, u32)>,
}

impl IpRoute {
    fn message(&self, change: impl FnOnce(&mut RouteMessage)) -> Result<RouteMessage, NetlinkError> {
        let (destination, prefix) = self.destination;
        let odd = |source| NetlinkError::io("a route")(io::Error::other(source));
        let builder = RouteMessageBuilder::<IpAddr>::new().protocol(RouteProtocol::from(self.protocol));
        let builder = builder.destination_prefix(destination, prefix).map_err(odd)?;
        let builder = match self.via {
            Some((next_hop, ifindex)) => builder
                .onlink()
                .gateway(next_hop)
                .map_err(odd)?
                .output_interface(ifindex),
            None => builder.kind(RouteType::Prohibit),
        };
        let mut message = builder.build();
        change(&mut message);
        Ok(message)
    }

    /// Only a route with that protocol is removed (`fib_table_delete`, `net/ipv4/fib_trie.c`; `ip6_route_del`,
    /// `net/ipv6/route.c`), of any scope and kind.
    fn removal(&self) -> Result<RouteMessage, NetlinkError> {
        self.message(|message| {
            message.header.scope = RouteScope::NoWhere;
            message.header.kind = RouteType::Unspec;
        })
    }
}

/// What can be changed in one network namespace.
pub struct Writer {
    runtime: Runtime,
    handle: Handle,
}

/// Makes changes in the network namespace of the calling thread, which waits.
pub fn write<T: Send, E: From<NetlinkError> + Send>(
    change: impl FnOnce(&Writer) -> Result<T, E> + Send,
) -> Result<T, E> {
    let on_thread = || change(&Writer::new()?);
    thread::scope(|scope| match scope.spawn(on_thread).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl Writer {
    fn new() -> Result<Self, NetlinkError> {
        let failed = NetlinkError::io("rtnetlink");
        let opened = || {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let handle = {
                let _inside = runtime.enter();
                let (mut connection, handle, _) = rtnetlink::new_connection()?;
                // Without it a connection that broke would look like an acknowledgement.
                connection.set_forward_ack(true);
                let socket = connection.socket_mut().socket_mut();
                let _ = socket.set_ext_ack(true);
                let _ = socket.set_cap_ack(true);
                runtime.spawn(connection);
                handle
            };
            Ok(Self { runtime, handle })
        };
        opened().map_err(failed)
    }

    /// Adds a route. One to the same addresses is an error (`EEXIST`).
    pub fn add_route(&self, route: &IpRoute) -> Result<(), NetlinkError> {
        let request = self.handle.route().add(route.message(|_| ())?);
        self.wait("a route", request.execute())
    }

    /// Removes a route. That there is none is an error (`ESRCH`).
    pub fn remove_route(&self, route: &IpRoute) -> Result<(), NetlinkError> {
        let request = self.handle.route().del(route.removal()?);
        self.wait("a route", request.execute())
    }

    /// Makes or changes a neighbour that needs no resolution.
    pub fn set_neighbour(&self, ifindex: u32, ip: IpAddr, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(ifindex, ip).link_layer_address(&mac);
        self.wait("a neighbour", request.replace().execute())
    }

    /// Removes a neighbour. That there is none is an error (`ENOENT`).
    pub fn remove_neighbour(&self, ifindex: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = match ip {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = ifindex;
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::Destination(ip.into()));
        self.wait("a neighbour", self.handle.neighbours().del(message).execute())
    }

    /// Sets how big the segments of TCP over IPv4 are that an interface takes, bytes (`IFLA_GSO_IPV4_MAX_SIZE`, Linux 6.3).
    pub fn set_gso_ipv4_max_size(&self, ifindex: u32, size: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        message.attributes.push(LinkAttribute::GsoIpv4MaxSize(size));
        self.wait("the size of segments", self.handle.link().set(message).execute())
    }

    /// Adds the clsact discipline to an interface. That there is one, or an `ingress`, is an error (`EEXIST`).
    pub fn add_clsact(&self, ifindex: u32) -> Result<(), NetlinkError> {
        // `rtnetlink`'s request for a new discipline knows no name but "ingress".
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex)));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut handle = self.handle.clone();
        self.wait("a clsact qdisc", async move {
            let mut answer = handle.request(request)?;
            match futures_util::StreamExt::next(&mut answer)
                .await
                .map(|answer| answer.payload)
            {
                Some(NetlinkPayload::Error(error)) => Err(Error::NetlinkError(error)),
                _ => Ok(()),
            }
        })
    }

    /// Removes it, with its filters.
    pub fn remove_clsact(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let mut request = self.handle.qdisc().del(0);
        *request.message_mut() = clsact(ifindex);
        self.wait("a clsact qdisc", request.execute())
    }

    fn wait(&self, what: &'static str, request: impl Future<Output = Result<(), Error>>) -> Result<(), NetlinkError> {
        let timeout = Duration::from_secs(ANSWER_TIMEOUT.unsigned_abs());
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(timeout, request).await });
        acknowledged(what, answer.map_err(|_| io::ErrorKind::TimedOut.into()))
    }
}

fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        minor: 0,
        ..TcHandle::CLSACT
    };
    message.attributes.push(TcAttribute::Kind("clsact".into()));
    message
}

/// What a request's result means, with acknowledgements handed on: they come as errors without a code.
fn acknowledged(what: &'static str, answer: io::Result<Result<(), Error>>) -> Result<(), NetlinkError> {
    match answer.map_err(NetlinkError::io(what))? {
        Err(Error::NetlinkError(ErrorMessage { code: None, .. })) => Ok(()),
        Err(Error::NetlinkError(error)) => Err(NetlinkError::Refused {
            what,
            source: error.to_io(),
            // The header of the request, and the kernel's words.
            words: error.header.get(HEADER..).and_then(answer::words),
        }),
        Err(error) => Err(NetlinkError::io(what)(io::Error::other(error))),
        Ok(()) => Err(NetlinkError::io(what)(io::Error::other("no answer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_no_acknowledgement() {
        let error = acknowledged("a route", Ok(Ok(()))).expect_err("the connection broke");
        assert!(matches!(error, NetlinkError::Io { .. }), "{error}");
        let error = acknowledged("a route", Err(io::ErrorKind::TimedOut.into())).expect_err("none in time");
        assert!(matches!(error, NetlinkError::Io { .. }), "{error}");
        acknowledged("a route", Ok(Err(Error::NetlinkError(ErrorMessage::default())))).expect("an acknowledgement");
    }

    #[test]
    fn a_refusal_keeps_its_errno_and_the_kernel_s_words() {
        // Where there is no such interface, and without privileges.
        let route = IpRoute {
            destination: (IpAddr::from([198, 19, 0, 0]), 24),
            protocol: 110,
            via: Some((IpAddr::from([198, 19, 0, 1]), 0x7fff_fff0)),
        };
        let error = write(|writer| writer.add_route(&route)).expect_err("no such interface");
        let NetlinkError::Refused { source, words, .. } = error else {
            panic!("no refusal: {error}");
        };
        // Who may not change anything is refused before the request is looked at.
        let errno = source.raw_os_error();
        assert!(matches!(errno, Some(libc::ENODEV | libc::EPERM)), "{source}");
        assert_eq!(words.is_some(), errno == Some(libc::ENODEV), "{words:?}");
    }
}
