//! Ways to virtual addresses: in each client's network namespace a route with its next hop, so that they are reached on
//! internal networks and from containers on several networks, too; and on the host a route that refuses what no program
//! has translated. It says "prohibited", since a UDP socket is told of that, and not of "unreachable"
//! (`icmp_err_convert`, `net/ipv4/icmp.c`).

use std::{fs::File, io, net::Ipv4Addr, os::unix::fs::MetadataExt as _, thread};

use nix::sched::{CloneFlags, setns};

use crate::{
    apply::AttachError,
    config::VipPool,
    observe::{
        NetlinkError, netlink,
        socket::{Asker, REQUEST},
        wire::Request,
    },
    plan::{Client, Way, next_hop},
    world::{Mac, OUR_PROTOCOL, Route, RouteType},
};

// Numbers of linux/rtnetlink.h, linux/neighbour.h and linux/netlink.h.
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNSPEC: u8 = 0;
const RTN_UNICAST: u8 = 1;
const RTN_PROHIBIT: u8 = 8;
/// Of a route to be removed: any.
const RT_SCOPE_NOWHERE: u8 = 255;
const RTNH_F_ONLINK: u32 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Prefix length of a block.
const BLOCK: u8 = 24;

/// Why a way cannot be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// The namespace or the interface is gone, or cannot be entered.
    #[error(transparent)]
    Enter(#[from] AttachError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Somebody else has a route to the same addresses.
    #[error("there is a route to {0}/{1} already, and it is not netfast's")]
    Taken(Ipv4Addr, u8),
}

/// Makes, changes or takes away a client's way, in its namespace. What is there already as it should be is no error.
pub fn set(client: Client, from: Option<&Way>, to: Option<&Way>) -> Result<(), WayError> {
    inside(client, || {
        let mut asker = Asker::route()?;
        let wanted = |block: &Ipv4Addr| to.is_some_and(|to| to.blocks.contains(block));
        for block in from
            .into_iter()
            .flat_map(|from| &from.blocks)
            .filter(|block| !wanted(block))
        {
            take_away(&mut asker, client.ifindex, *block)?;
        }
        let Some(to) = to else {
            return Ok(());
        };
        for block in &to.blocks {
            // The neighbour first: without it the next hop would be asked for by ARP.
            tell(
                &mut asker,
                "a neighbour",
                &neighbour(client.ifindex, *block, Some(to.mac)),
            )?;
            make(&mut asker, *block, BLOCK, &|kind| route(client.ifindex, *block, kind))?;
        }
        Ok(())
    })
}

/// Takes all ways away; what is gone already is no error.
pub fn remove(client: Client, way: &Way) -> Result<(), WayError> {
    match set(client, Some(way), None) {
        Err(WayError::Enter(AttachError::Gone)) => Ok(()),
        done => done,
    }
}

/// Says on the host, the calling thread's namespace, that there is no way to a pool's addresses, or no longer.
pub fn set_pool(from: Option<VipPool>, to: Option<VipPool>) -> Result<(), WayError> {
    let mut asker = Asker::route()?;
    if let Some(from) = from.filter(|from| Some(*from) != to) {
        gone(tell(&mut asker, "a route", &prohibited(from, RTM_DELROUTE)))?;
    }
    match to {
        Some(pool) => make(&mut asker, pool.network(), pool.prefix(), &|kind| {
            prohibited(pool, kind)
        }),
        None => Ok(()),
    }
}

/// The pools of which the host says so, in the calling thread's namespace.
pub fn pools() -> Result<Vec<VipPool>, NetlinkError> {
    let routes = netlink::routing()?.routes;
    let ours = |route: &&Route| route.protocol == OUR_PROTOCOL && route.kind == RouteType::Prohibit;
    Ok(routes
        .iter()
        .filter(ours)
        .filter_map(|route| route.dst.to_string().parse().ok())
        .collect())
}

/// Does something in a namespace, on a thread that ends there.
pub(super) fn inside<T: Send>(client: Client, act: impl FnOnce() -> Result<T, WayError> + Send) -> Result<T, WayError> {
    let enter_and_act = || {
        let namespace = File::open(format!("/proc/{}/ns/net", client.pid)).map_err(|_| AttachError::Gone)?;
        if namespace.metadata().map_err(|_| AttachError::Gone)?.ino() != client.netns {
            return Err(AttachError::Gone.into());
        }
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| AttachError::Enter(errno.into()))?;
        match act() {
            // The interface went away.
            Err(WayError::Netlink(error)) if error.refused() == Some(libc::ENODEV) => Err(AttachError::Gone.into()),
            done => done,
        }
    };
    thread::scope(|scope| scope.spawn(enter_and_act).join()).unwrap_or_else(|_| {
        let error = io::Error::other("the thread that went there has panicked");
        Err(AttachError::Enter(error).into())
    })
}

/// Makes a route. One of ours that is in the way is replaced, and nobody else's.
fn make(asker: &mut Asker, dst: Ipv4Addr, prefix: u8, request: &dyn Fn(u16) -> Request) -> Result<(), WayError> {
    for _ in 0..2 {
        match tell(asker, "a route", &request(RTM_NEWROUTE)) {
            Err(error) if error.refused() == Some(libc::EEXIST) => {
                gone(tell(asker, "a route", &request(RTM_DELROUTE)))?;
            }
            done => return Ok(done?),
        }
    }
    Err(WayError::Taken(dst, prefix))
}

fn take_away(asker: &mut Asker, ifindex: u32, block: Ipv4Addr) -> Result<(), WayError> {
    gone(tell(asker, "a route", &route(ifindex, block, RTM_DELROUTE)))?;
    gone(tell(asker, "a neighbour", &neighbour(ifindex, block, None)))?;
    Ok(())
}

fn tell(asker: &mut Asker, what: &'static str, request: &Request) -> Result<(), NetlinkError> {
    // The answer is an acknowledgement: a list of nothing.
    asker.dump::<()>(what, request, |(), _| Ok(()))
}

/// What is to be removed may be gone.
fn gone(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(error) if matches!(error.refused(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
        done => done,
    }
}

/// Only a route with our protocol number is removed (`fib_table_delete`, `net/ipv4/fib_trie.c`).
fn header(kind: u16, prefix: u8, route_type: u8, flags: u32) -> Request {
    let (ask, scope, route_type) = if kind == RTM_NEWROUTE {
        (REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 0, route_type)
    } else {
        (REQUEST | NLM_F_ACK, RT_SCOPE_NOWHERE, RTN_UNSPEC)
    };
    // `struct rtmsg`.
    let mut bytes = vec![AF_INET, prefix, 0, 0, RT_TABLE_MAIN, OUR_PROTOCOL, scope, route_type];
    bytes.extend(flags.to_ne_bytes());
    Request::new(kind, ask, &bytes)
}

fn route(ifindex: u32, block: Ipv4Addr, kind: u16) -> Request {
    header(kind, BLOCK, RTN_UNICAST, RTNH_F_ONLINK)
        .attr(RTA_DST, &block.octets())
        .attr(RTA_GATEWAY, &next_hop(block).octets())
        .attr(RTA_OIF, &ifindex.to_ne_bytes())
}

fn prohibited(pool: VipPool, kind: u16) -> Request {
    header(kind, pool.prefix(), RTN_PROHIBIT, 0).attr(RTA_DST, &pool.network().octets())
}

/// A neighbour that needs no resolution, or its removal.
fn neighbour(ifindex: u32, block: Ipv4Addr, mac: Option<Mac>) -> Request {
    // `struct ndmsg`: family, padding, ifindex, state, flags, type.
    let mut bytes = vec![AF_INET, 0, 0, 0];
    bytes.extend(ifindex.to_ne_bytes());
    bytes.extend(NUD_PERMANENT.to_ne_bytes());
    bytes.extend([0, 0]);
    let (kind, flags) = match mac {
        Some(_) => (RTM_NEWNEIGH, REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE),
        None => (RTM_DELNEIGH, REQUEST | NLM_F_ACK),
    };
    let request = Request::new(kind, flags, &bytes).attr(NDA_DST, &next_hop(block).octets());
    match mac {
        Some(mac) => request.attr(NDA_LLADDR, &mac.0),
        None => request,
    }
}
