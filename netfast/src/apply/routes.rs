//! Ways to virtual addresses: in each client's network namespace a route with its next hop, so that they are reached on
//! internal networks and from containers on several networks, too; and on the host a route that refuses what no program
//! has translated. It says "prohibited", since a UDP socket is told of that, and not of "unreachable"
//! (`icmp_err_convert`, `net/ipv4/icmp.c`; `icmpv6_err_convert`, `net/ipv6/icmp.c`).

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    apply::{AttachError, attach::in_namespace},
    config::{VipPool, block_prefix},
    host::{OUR_PROTOCOL, Route, RouteType},
    observe::{NetlinkError, netlink},
    plan::{Client, Way, next_hop},
    sys::netlink::write::{IpRoute, Writer, write},
};

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
    Taken(IpAddr, u8),
}

/// Makes, changes or takes away a client's way, in its namespace. What is there already as it should be is no error.
pub fn set(client: Client, from: Option<&Way>, to: Option<&Way>) -> Result<(), WayError> {
    inside(client, || {
        let wanted = |block: &IpAddr| to.is_some_and(|to| to.blocks.contains(block));
        let old = from.into_iter().flat_map(|from| &from.blocks);
        write(|writer| {
            for block in old.filter(|block| !wanted(block)) {
                gone(writer.remove_route(&route(client.ifindex, *block)))?;
                gone(writer.remove_neighbour(client.ifindex, next_hop(*block)))?;
            }
            let Some(to) = to else {
                return Ok(());
            };
            for block in &to.blocks {
                // The neighbour first: without it the next hop would be asked for, by ARP or neighbour discovery.
                writer.set_neighbour(client.ifindex, next_hop(*block), to.mac.0)?;
                match make(writer, &route(client.ifindex, *block)) {
                    Err(WayError::Netlink(error)) if block.is_ipv6() && error.refused() == Some(libc::EACCES) => {
                        // IPv6 is switched off in there, and who has none has no use for the address.
                    }
                    done => done?,
                }
            }
            Ok(())
        })
    })
}

/// Takes all ways away; what is gone already is no error.
pub fn remove(client: Client, way: &Way) -> Result<(), WayError> {
    match set(client, Some(way), None) {
        Err(WayError::Enter(AttachError::Gone)) => Ok(()),
        done => done,
    }
}

/// Says on the host, the calling thread's namespace, that there is no way to a pool's addresses.
pub fn add_pool(pool: VipPool) -> Result<(), WayError> {
    write(|writer| make(writer, &prohibited(pool)))
}

/// Says so no longer.
pub fn remove_pool(pool: VipPool) -> Result<(), WayError> {
    write(|writer| Ok(gone(writer.remove_route(&prohibited(pool)))?))
}

/// The pools of which the host says so, in the calling thread's namespace.
pub fn pools() -> Result<BTreeSet<VipPool>, NetlinkError> {
    let routes = netlink::routing()?.routes;
    let ours = |route: &&Route| route.protocol == OUR_PROTOCOL && route.kind == RouteType::Prohibit;
    Ok(routes
        .iter()
        .filter(ours)
        .filter_map(|route| route.dst.to_string().parse().ok())
        .collect())
}

/// Does something in a client's namespace.
pub(super) fn inside<T: Send>(client: Client, act: impl FnOnce() -> Result<T, WayError> + Send) -> Result<T, WayError> {
    match in_namespace(client.pid, client.netns, act) {
        // The interface went away.
        Err(WayError::Netlink(error)) if error.refused() == Some(libc::ENODEV) => Err(AttachError::Gone.into()),
        done => done,
    }
}

/// Makes a route. One of ours that is in the way is replaced, and nobody else's.
fn make(writer: &Writer, route: &IpRoute) -> Result<(), WayError> {
    for _ in 0..2 {
        match writer.add_route(route) {
            Err(error) if error.refused() == Some(libc::EEXIST) => gone(writer.remove_route(route))?,
            done => return Ok(done?),
        }
    }
    let (dst, prefix) = route.destination;
    Err(WayError::Taken(dst, prefix))
}

/// What is to be removed may be gone.
fn gone(done: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match done {
        Err(error) if matches!(error.refused(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
        done => done,
    }
}

fn route(ifindex: u32, block: IpAddr) -> IpRoute {
    IpRoute {
        destination: (block, block_prefix(block)),
        protocol: OUR_PROTOCOL,
        via: Some((next_hop(block), ifindex)),
    }
}

fn prohibited(pool: VipPool) -> IpRoute {
    IpRoute {
        destination: (pool.network(), pool.prefix()),
        protocol: OUR_PROTOCOL,
        via: None,
    }
}
