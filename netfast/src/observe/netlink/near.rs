//! What rtnetlink knows of a few links, asked about alone: a host has hundreds, and a container's start concerns two.

use std::collections::{BTreeMap, BTreeSet};

use super::{Snapshot, address, link, neighbour, tc};
use crate::host::{Address, FdbEntry, Link, Namespace, Neighbour, NeighbourKey, Peer, Qdisc};
use crate::sys::netlink::{NetlinkError, NetlinkSocket};

/// For more than so many links the tables are listed whole.
pub const MAX_LINKS: usize = 64;

/// What is read of links and of what belongs to them.
#[derive(Debug)]
pub enum Near {
    /// Everything.
    All(Snapshot),
    /// Of these links. `None`: it is gone.
    Of(BTreeMap<u32, Option<OfLink>>),
}

/// What belongs to a link.
#[derive(Debug)]
pub struct OfLink {
    link: Link,
    addresses: BTreeSet<Address>,
    neighbours: BTreeMap<NeighbourKey, Neighbour>,
    fdb: BTreeSet<FdbEntry>,
    /// The discipline at its root, if it has one.
    root: Option<Qdisc>,
}

/// Which links are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Links {
    /// All.
    All,
    /// These.
    Of(BTreeSet<u32>),
}

impl Near {
    /// Reads what there is, in the namespace of the calling thread; of some links alone if that is possible. It blocks, for
    /// some 50 microseconds each.
    ///
    /// A link that changes while it is looked at is announced, and so looked at again.
    pub fn read(links: &Links) -> Result<Self, NetlinkError> {
        let few = match links {
            Links::Of(few) if few.len() <= MAX_LINKS => few,
            Links::Of(_) | Links::All => return super::snapshot().map(Self::All),
        };
        let mut found = BTreeMap::new();
        if few.is_empty() {
            return Ok(Self::Of(found));
        }
        let mut socket = NetlinkSocket::route()?;
        let mut next: Vec<u32> = few.iter().copied().collect();
        while let Some(ifindex) = next.pop() {
            let of = match OfLink::read(&mut socket, ifindex) {
                Ok(Asked::Found(of)) => Some(*of),
                Ok(Asked::Gone) => None,
                Ok(Asked::More) => return super::snapshot().map(Self::All),
                // It has gone while it was looked at.
                Err(error) if error.refused() == Some(libc::ENODEV) => None,
                Err(error) => return Err(error),
            };
            // One that has come from another namespace changes what is said of its other end.
            let other = of.as_ref().and_then(|of| of.link.other_end_here());
            found.insert(ifindex, of);
            next.extend(other.filter(|other| !found.contains_key(other)));
        }
        Ok(Self::Of(found))
    }

    /// The ends of veths among them whose other ends are in other namespaces.
    pub fn ends(&self) -> Vec<link::End> {
        match self {
            Self::All(all) => all.links.values().filter_map(link::end).collect(),
            Self::Of(some) => some.values().flatten().filter_map(|of| link::end(&of.link)).collect(),
        }
    }

    /// Puts it in place of what was known before, with the other ends of veths.
    pub fn put_into(self, netns: &mut Namespace, peers: BTreeMap<u32, Peer>) {
        match self {
            Self::All(all) => {
                netns.peers = peers;
                netns.links = all.links;
                netns.addresses = all.addresses;
                netns.neighbours = all.neighbours;
                netns.fdb = all.fdb;
                netns.qdiscs = all.qdiscs;
                netns.tc_filters = all.tc_filters;
            }
            Self::Of(some) => {
                if some.is_empty() {
                    return;
                }
                netns.addresses.retain(|address| !some.contains_key(&address.ifindex));
                netns.neighbours.retain(|key, _| !some.contains_key(&key.ifindex));
                netns.fdb.retain(|entry| !some.contains_key(&entry.ifindex));
                for (ifindex, of) in some {
                    netns.links.remove(&ifindex);
                    netns.peers.remove(&ifindex);
                    if let Some(of) = of {
                        of.put_into(netns, ifindex);
                    } else {
                        netns.qdiscs.remove(&ifindex);
                        netns.tc_filters.remove(&ifindex);
                    }
                }
                netns.peers.extend(peers);
            }
        }
    }
}

/// What came of the questions about a link.
enum Asked {
    Found(Box<OfLink>),
    Gone,
    /// There is more to it than can be asked about alone.
    More,
}

impl OfLink {
    fn read(socket: &mut NetlinkSocket, ifindex: u32) -> Result<Asked, NetlinkError> {
        let Some((link, root)) = link::ask_with_root(socket, ifindex)? else {
            return Ok(Asked::Gone);
        };
        // A question for a discipline (`RTM_GETQDISC` without `NLM_F_DUMP`) would be announced to everybody who listens
        // (`qdisc_get_notify`, net/sched/sch_api.c).
        let root = match root.as_str() {
            // What a link has before it was up, which is not listed either.
            "noop" => None,
            "noqueue" => Some(Qdisc {
                kind: root,
                handle: 0,
                parent: tc::ROOT,
            }),
            // It may have any number inside.
            _ => return Ok(Asked::More),
        };
        Ok(Asked::Found(Box::new(Self {
            link,
            addresses: address::list(socket, Some(ifindex))?,
            neighbours: neighbour::list(socket, Some(ifindex))?,
            fdb: neighbour::list_fdb(socket, Some(ifindex))?,
            root,
        })))
    }

    fn put_into(self, netns: &mut Namespace, ifindex: u32) {
        netns.links.insert(ifindex, self.link);
        netns.addresses.extend(self.addresses);
        netns.neighbours.extend(self.neighbours);
        netns.fdb.extend(self.fdb);
        // What somebody puts on a link or takes away is announced, and then everything is read. What it has by itself is not.
        let mut qdiscs = netns.qdiscs.remove(&ifindex).unwrap_or_default();
        qdiscs.retain(|qdisc| ["ingress", "clsact"].contains(&qdisc.kind.as_str()));
        qdiscs.splice(0..0, self.root);
        if !qdiscs.is_empty() {
            netns.qdiscs.insert(ifindex, qdiscs);
        }
    }
}
