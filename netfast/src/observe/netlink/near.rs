//! What rtnetlink knows of a few links, asked about alone: a host has hundreds, and a container's start concerns two.

use std::collections::{BTreeMap, BTreeSet};

use super::{Snapshot, address, link, neighbour, tc};
use crate::host::{Address, FdbEntry, Link, Namespace, Neighbour, NeighbourKey, Peer, Qdisc, TcFilter};
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
    qdiscs: Vec<Qdisc>,
    tc_filters: Vec<TcFilter>,
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
        for ifindex in few {
            let of = match OfLink::read(&mut socket, *ifindex) {
                Ok(Asked::Found(of)) => Some(*of),
                Ok(Asked::Gone) => None,
                Ok(Asked::More) => return super::snapshot().map(Self::All),
                // It has gone while it was looked at.
                Err(error) if error.refused() == Some(libc::ENODEV) => None,
                Err(error) => return Err(error),
            };
            found.insert(*ifindex, of);
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
                    netns.qdiscs.remove(&ifindex);
                    netns.tc_filters.remove(&ifindex);
                    if let Some(of) = of {
                        of.put_into(netns, ifindex);
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
        let Some(link) = link::ask(socket, ifindex)? else {
            return Ok(Asked::Gone);
        };
        let Some(qdiscs) = tc::qdiscs_of(socket, ifindex)? else {
            return Ok(Asked::More);
        };
        let qdiscs = BTreeMap::from([(ifindex, qdiscs)]);
        let mut tc_filters = tc::filters(socket, &qdiscs)?;
        Ok(Asked::Found(Box::new(Self {
            link,
            addresses: address::list(socket, Some(ifindex))?,
            neighbours: neighbour::list(socket, Some(ifindex))?,
            fdb: neighbour::list_fdb(socket, Some(ifindex))?,
            tc_filters: tc_filters.remove(&ifindex).unwrap_or_default(),
            qdiscs: qdiscs.into_values().next().unwrap_or_default(),
        })))
    }

    fn put_into(self, netns: &mut Namespace, ifindex: u32) {
        netns.links.insert(ifindex, self.link);
        netns.addresses.extend(self.addresses);
        netns.neighbours.extend(self.neighbours);
        netns.fdb.extend(self.fdb);
        if !self.qdiscs.is_empty() {
            netns.qdiscs.insert(ifindex, self.qdiscs);
        }
        if !self.tc_filters.is_empty() {
            netns.tc_filters.insert(ifindex, self.tc_filters);
        }
    }
}
