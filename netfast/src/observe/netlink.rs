//! What rtnetlink knows of the namespace that netfast runs in: full listings, and notifications of what changed.
//!
//! Message and attribute numbers are those of linux/rtnetlink.h, `linux/if_link.h`, `linux/if_addr.h`, linux/neighbour.h
//! and `linux/fib_rules.h`. Links are read here and nowhere else: /sys/class/net shows the namespace of whoever mounted
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::host::{
    Address, FdbEntry, Link, Neighbour, NeighbourKey, Offload, Peer, PolicyRules, Qdisc, Route, TcFilter,
};
use crate::sys::netlink::{NetlinkError, NetlinkSocket};

pub(crate) mod address;
pub mod counters;
pub(crate) mod link;
pub mod near;
pub(crate) mod neighbour;
pub(crate) mod netconf;
pub(crate) mod route;
pub(crate) mod tc;
pub(crate) mod watch;
pub(crate) mod xfrm;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;

/// What rtnetlink lists of links and of what belongs to one, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Links by interface index.
    pub links: BTreeMap<u32, Link>,
    /// Addresses of the links.
    pub addresses: BTreeSet<Address>,
    /// Neighbour tables.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// Forwarding entries.
    pub fdb: BTreeSet<FdbEntry>,
    /// Queueing disciplines by interface index.
    pub qdiscs: BTreeMap<u32, Vec<Qdisc>>,
    /// Classic filters by interface index.
    pub tc_filters: BTreeMap<u32, Vec<TcFilter>>,
}

/// What rtnetlink lists of routing. It is apart since a host may have a million routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routing {
    /// Routes.
    pub routes: BTreeSet<Route>,
    /// Policy routing rules.
    pub policy_rules: PolicyRules,
}

/// Lists links and what belongs to them anew, in the namespace of the calling thread. It blocks, for about a
/// millisecond on a usual host.
///
/// Each table is consistent in itself (a dump that the kernel marks as torn is repeated); between two tables something
/// may have happened, which then comes as a notification.
pub fn snapshot() -> Result<Snapshot, NetlinkError> {
    let mut socket = NetlinkSocket::route()?;
    let links = link::list(&mut socket)?;
    let qdiscs = tc::qdiscs(&mut socket)?;
    Ok(Snapshot {
        links,
        addresses: address::list(&mut socket, None)?,
        neighbours: neighbour::list(&mut socket, None)?,
        fdb: neighbour::list_fdb(&mut socket, None)?,
        tc_filters: tc::filters(&mut socket, &qdiscs)?,
        qdiscs,
    })
}

/// Asks about the other ends of veths anew, likewise: a question each, a few microseconds.
pub fn peers(ends: &[link::End]) -> Result<BTreeMap<u32, Peer>, NetlinkError> {
    if ends.is_empty() {
        return Ok(BTreeMap::new());
    }
    link::peers(&mut NetlinkSocket::route()?, ends)
}

/// Asks how big the segments are that an interface of the calling thread's namespace takes; `None`: there is no such interface.
pub fn offload(ifindex: u32) -> Result<Option<Offload>, NetlinkError> {
    Ok(interface(ifindex)?.map(|link| link.offload))
}

/// Asks about an interface of the calling thread's namespace; `None`: there is no such interface.
pub fn interface(ifindex: u32) -> Result<Option<Link>, NetlinkError> {
    link::ask(&mut NetlinkSocket::route()?, ifindex)
}

/// Lists the neighbour tables anew, likewise.
pub fn neighbours() -> Result<BTreeMap<NeighbourKey, Neighbour>, NetlinkError> {
    neighbour::list(&mut NetlinkSocket::route()?, None)
}

/// Lists forwarding entries anew, likewise.
pub fn fdb() -> Result<BTreeSet<FdbEntry>, NetlinkError> {
    neighbour::list_fdb(&mut NetlinkSocket::route()?, None)
}

/// Lists routes and policy routing rules anew, likewise.
pub fn routing() -> Result<Routing, NetlinkError> {
    let mut socket = NetlinkSocket::route()?;
    Ok(Routing {
        routes: route::list(&mut socket)?,
        policy_rules: route::list_rules(&mut socket)?,
    })
}

/// Asks where the kernel would send a packet with these addresses (of one family) that comes in by an interface, in the
/// calling thread's namespace. Rules that look at marks are asked about a packet without one.
pub fn route(iif: u32, source: IpAddr, destination: IpAddr) -> Result<Route, NetlinkError> {
    route::ask(&mut NetlinkSocket::route()?, iif, source, destination)
}

#[cfg(test)]
mod tests;
