//! rtnetlink notifications, boiled down to hints that something changed that matters.
//!
//! Most notifications say nothing new: a neighbour goes from reachable to stale and back all the time, a link is
//! announced a dozen times while a container starts, a router advertisement renews an address. A hint costs the whole
//! host's flows one trip down the slow path, so each notification is held against a memory of what was known:
//!
//! - links, addresses: a hint if what netfast reads of them differs from before. A veth that is announced without news
//!   may have got an XDP program on its other end, which changes its features: that end is asked about;
//! - neighbours: a hint if one that could be used has another link-layer address, failed or is gone. A new one is no
//!   hint: no flow can have been learned over it. Those of multicast addresses, which come with each link, do not count;
//! - forwarding entries: [`Change::FdbMoved`] if a station moved to another port, was forgotten or has become the
//!   bridge's own, [`Change::FdbAdded`] if it came;
//!   Of each port only so many are remembered: a container can invent any number;
//! - routes: a hint, unless it is a cached exception (path MTU) or about IPv6 link-local or multicast destinations,
//!   which each new veth brings and over which nothing is forwarded;
//! - forwarding switches (netconf): a hint if one of a known link has another value;
//! - VLANs of a bridge or a port of it, next-hop objects, policy rules, traffic control: always a hint.
//!
//! Neighbours and forwarding entries have a socket of their own: what a container does to them may make it overflow, and
//! then only they are read anew.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use super::neighbour::{self, MAX_STATIONS, RTM_DELNEIGH};
use super::netconf::{self, RTM_DELNETCONF, RTM_NEWNETCONF};
use super::{AF_BRIDGE, Snapshot, address, link, route, tc};
use crate::host::{Address, FdbEntry, FdbState, Link, Mac, NeighbourKey, Peer};
use crate::observe::change::{Change, Hints};
use crate::sys::netlink::{Malformed, Message, NetlinkError, NetlinkSocket, Watcher};

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;

/// The multicast groups, `RTNLGRP_*` of linux/rtnetlink.h.
const GROUPS: [u32; 11] = [
    1,  // LINK
    4,  // TC
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    8,  // IPV4_RULE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    19, // IPV6_RULE
    24, // IPV4_NETCONF
    25, // IPV6_NETCONF
    32, // NEXTHOP
];
/// VLANs of bridges, which have no bit in the mask (`RTNLGRP_BRVLAN`; Linux 5.6).
const BRVLAN: u32 = 33;

/// The group of neighbours, which the FDB's entries come with too.
const NEIGH: u32 = 3;
/// After notifications about neighbours were lost, it takes at least this long until they are read anew, and as many
/// times as long as reading took.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_FACTOR: u32 = 4;

/// Opens the socket. Notifications are kept from now on: open it before the first snapshot, so that nothing that
/// happens between the two is missed.
pub fn open() -> Result<Watcher, NetlinkError> {
    let watcher = Watcher::route(GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1)))?;
    if !watcher.join(BRVLAN) {
        tracing::debug!("this kernel does not announce VLANs of bridges apart from their ports");
    }
    Ok(watcher)
}

/// Opens the socket for neighbours and forwarding entries.
pub fn open_neighbours() -> Result<Watcher, NetlinkError> {
    Watcher::route(1 << (NEIGH - 1))
}

/// Leaves a hint for each change of neighbours and forwarding entries that matters, for ever.
pub async fn run_neighbours(mut watcher: Watcher, mut memory: Memory, hints: Hints) {
    loop {
        let received = watcher.receive(|message| {
            memory.note(message)?.into_iter().for_each(|change| hints.send(change));
            Ok(())
        });
        let Err(error) = received.await else { continue };
        tracing::debug!(%error, "notifications about neighbours: they are read anew");
        let begin = Instant::now();
        let now = Memory::read().unwrap_or_default();
        memory.changes(&now).for_each(|change| hints.send(change));
        memory = now;
        tokio::time::sleep(PAUSE.max(begin.elapsed() * PAUSE_FACTOR)).await;
    }
}

/// Leaves a hint for each change that matters, for ever.
pub async fn run(mut watcher: Watcher, mut memory: Memory, hints: Hints) {
    // Without it what is announced in silence is found by the poll.
    let mut socket = NetlinkSocket::route().ok();
    loop {
        let received = watcher.receive(|message| {
            let change = memory.note(message)?;
            if let Some(change) = change.or_else(|| memory.note_other_end(message, socket.as_mut()?)) {
                hints.send(change);
            }
            Ok(())
        });
        if let Err(error) = received.await {
            if matches!(error, NetlinkError::Overflow) {
                tracing::debug!("{error}: everything is read anew");
            } else {
                tracing::warn!("{error}: everything is read anew");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // If that fails, everything is news.
            memory = Memory::read().unwrap_or_default();
            hints.send(Change::Overflow);
        }
    }
}

/// Who is behind a port: the bridge (or the device, for its own table), the VLAN and the address.
type Station = (u32, Option<u16>, Mac);

/// What was known before a notification.
#[derive(Debug, Default)]
pub struct Memory {
    links: HashMap<u32, Link>,
    /// The other ends of veths, as far as they have been asked about.
    peers: HashMap<u32, Option<Peer>>,
    /// A hash of the last notification about each bridge port.
    ports: HashMap<u32, u64>,
    addresses: BTreeSet<Address>,
    /// The neighbours that can be used.
    neighbours: HashMap<NeighbourKey, Option<Mac>>,
    /// The port of each station, by bridge (or the device, for its own table), VLAN and address; and whether packets to
    /// it are the bridge's own.
    stations: HashMap<Station, (u32, bool)>,
    /// How many of them each port has.
    crowds: HashMap<u32, usize>,
    /// The forwarding switches of each link.
    switches: HashMap<netconf::Key, netconf::Switches>,
}

impl Memory {
    /// Reads what is known before the first notification. It blocks for about a millisecond.
    pub fn read() -> Result<Self, NetlinkError> {
        let known = super::snapshot()?;
        let mut memory = Self::new(&known, netconf::list(&mut NetlinkSocket::route()?)?);
        let ends: Vec<_> = known.links.values().filter_map(link::end).collect();
        let peers = super::peers(&ends)?;
        memory.peers = peers.into_iter().map(|(device, peer)| (device, Some(peer))).collect();
        Ok(memory)
    }

    fn new(known: &Snapshot, switches: HashMap<netconf::Key, netconf::Switches>) -> Self {
        let usable = known
            .neighbours
            .iter()
            .filter(|(_, neighbour)| neighbour.state.is_valid());
        let mut memory = Self {
            links: known
                .links
                .iter()
                .map(|(ifindex, link)| (*ifindex, link.clone()))
                .collect(),
            peers: HashMap::new(),
            ports: HashMap::new(),
            addresses: known.addresses.clone(),
            neighbours: usable.map(|(key, neighbour)| (*key, neighbour.mac)).collect(),
            stations: HashMap::new(),
            crowds: HashMap::new(),
            switches,
        };
        for entry in &known.fdb {
            memory.note_fdb_entry(entry, false);
        }
        memory
    }

    /// What changed of neighbours and stations until `now`.
    fn changes<'a>(&'a self, now: &'a Self) -> impl Iterator<Item = Change> + 'a {
        let neighbours = self.neighbours.iter().filter_map(|(key, mac)| {
            (now.neighbours.get(key) != Some(mac)).then_some(Change::Neighbours {
                device: key.ifindex,
                mac: *mac,
            })
        });
        let moved = self.stations.iter().filter_map(|(station, place)| {
            let there = now.stations.get(station);
            there
                .is_none_or(|there| there != place)
                .then_some(Change::FdbMoved { port: place.0 })
        });
        let is_new = |(station, place): (&Station, &(u32, bool))| {
            let port = place.0;
            (self.stations.get(station) != Some(place)).then_some(Change::FdbAdded { port })
        };
        let fdb = now.stations.iter().filter_map(is_new);
        neighbours.chain(moved).chain(fdb)
    }

    /// Takes a notification in, and says what it changes.
    pub fn note(&mut self, message: Message<'_>) -> Result<Option<Change>, Malformed> {
        Ok(match message.kind {
            link::RTM_NEWLINK | link::RTM_DELLINK => self.note_link(message)?,
            RTM_NEWVLAN | RTM_DELVLAN => {
                let device = vlan_ifindex(message)?;
                Some(Change::Device { device })
            }
            RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Change::Routes),
            address::RTM_NEWADDR | address::RTM_DELADDR => self.note_address(message)?.then_some(Change::Addresses),
            neighbour::RTM_NEWNEIGH | RTM_DELNEIGH => match neighbour::parse(message)? {
                None => None,
                Some(neighbour::Entry::Neighbour(key, _)) if key.ip.is_multicast() => None,
                Some(neighbour::Entry::Neighbour(key, neighbour)) => {
                    let usable = message.kind != RTM_DELNEIGH && neighbour.state.is_valid();
                    let before = if usable {
                        self.neighbours.insert(key, neighbour.mac)
                    } else {
                        self.neighbours.remove(&key)
                    };
                    let same = usable && before == Some(neighbour.mac);
                    let device = key.ifindex;
                    before.filter(|_| !same).map(|mac| Change::Neighbours { device, mac })
                }
                Some(neighbour::Entry::Fdb(entry)) => self.note_fdb_entry(&entry, message.kind == RTM_DELNEIGH),
            },
            route::RTM_NEWROUTE | route::RTM_DELROUTE => {
                let routes = route::parse(message)?;
                let matters = !route::is_cached(message) && !routes.iter().all(route::is_link_local_v6);
                matters.then_some(Change::Routes)
            }
            route::RTM_NEWRULE | route::RTM_DELRULE => Some(Change::PolicyRules),
            tc::RTM_NEWQDISC | tc::RTM_DELQDISC | tc::RTM_NEWTFILTER | tc::RTM_DELTFILTER => Some(Change::Tc),
            RTM_NEWNETCONF | RTM_DELNETCONF => self.note_switches(message)?.then_some(Change::Sysctls),
            _ => None,
        })
    }

    fn note_link(&mut self, message: Message<'_>) -> Result<Option<Change>, Malformed> {
        let header = link::Header::read(message)?;
        let device = header.ifindex;
        if header.family == AF_BRIDGE {
            // About a bridge or a port of it: other attributes, and it may be all that tells of a change, as of its VLANs.
            let mut hasher = DefaultHasher::new();
            (message.kind, message.payload).hash(&mut hasher);
            let hash = hasher.finish();
            let is_news = self.ports.insert(device, hash) != Some(hash);
            return Ok(is_news.then_some(Change::Device { device }));
        }
        if message.kind == link::RTM_DELLINK {
            self.ports.remove(&device);
            self.peers.remove(&device);
            return Ok(self.links.remove(&device).map(|_| Change::Links { device }));
        }
        let link = link::parse(message)?;
        let Some(before) = self.links.insert(device, link.clone()) else {
            return Ok(Some(Change::Links { device }));
        };
        if before == link {
            return Ok(None);
        }
        // Packets do not depend on these.
        let like_before = Link {
            name: before.name.clone(),
            operstate: before.operstate,
            offload: before.offload,
            tx_queues: before.tx_queues,
            ..link
        };
        Ok(Some(if like_before == before {
            Change::Links { device }
        } else {
            Change::Device { device }
        }))
    }

    /// Looks at the other end of a veth that is announced without news of its own.
    fn note_other_end(&mut self, message: Message<'_>, socket: &mut NetlinkSocket) -> Option<Change> {
        let header = link::Header::read(message).ok()?;
        if message.kind != link::RTM_NEWLINK || header.family == AF_BRIDGE {
            return None;
        }
        let device = header.ifindex;
        let end = link::end(self.links.get(&device)?)?;
        let peer = link::peers(socket, &[end]).ok()?.remove(&device);
        let before = self.peers.insert(device, peer);
        // What was not known may be no news; then the look costs a trip down the slow path.
        (before != Some(peer)).then_some(Change::Device { device })
    }

    fn note_address(&mut self, message: Message<'_>) -> Result<bool, Malformed> {
        let Some(address) = address::parse(message)? else {
            return Ok(false);
        };
        if address::is_link_local_v6(address.net.addr) {
            return Ok(false);
        }
        Ok(if message.kind == address::RTM_NEWADDR {
            self.addresses.insert(address)
        } else {
            self.addresses.remove(&address)
        })
    }

    fn note_switches(&mut self, message: Message<'_>) -> Result<bool, Malformed> {
        let (key, switches) = netconf::parse(message)?;
        if message.kind == RTM_DELNETCONF {
            self.switches.remove(&key);
            return Ok(false);
        }
        let known = self.switches.entry(key).or_default();
        let mut news = false;
        for (kind, value) in switches {
            // A notification may carry only the switch that changed.
            match known.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, known)) => news |= std::mem::replace(known, value) != value,
                None => known.push((kind, value)),
            }
        }
        Ok(news)
    }

    fn note_fdb_entry(&mut self, entry: &FdbEntry, deleted: bool) -> Option<Change> {
        // There may be several of it, and no packet makes one.
        if entry.is_of_unknown() {
            return Some(Change::FdbAdded { port: entry.ifindex });
        }
        let key = station(entry);
        let place = (entry.ifindex, entry.state == FdbState::Local);
        let before = self.stations.get(&key).copied();
        if !deleted && before == Some(place) {
            return None;
        }
        if let Some((port, _)) = before {
            self.stations.remove(&key);
            if let Entry::Occupied(mut crowd) = self.crowds.entry(port) {
                *crowd.get_mut() -= 1;
                // Ports come and go by the thousand, each with a number of its own.
                if *crowd.get() == 0 {
                    crowd.remove();
                }
            }
        }
        let mut came = false;
        if !deleted {
            let crowd = self.crowds.entry(entry.ifindex).or_default();
            came = *crowd < MAX_STATIONS;
            if came {
                *crowd += 1;
                self.stations.insert(key, place);
            }
        }
        match before {
            Some((port, _)) => Some(Change::FdbMoved { port }),
            None => came.then_some(Change::FdbAdded { port: entry.ifindex }),
        }
    }
}

/// The interface of `struct br_vlan_msg`.
fn vlan_ifindex(message: Message<'_>) -> Result<u32, Malformed> {
    crate::bytes::u32_at(message.payload, 4).ok_or_else(|| Malformed::missing("the link"))
}

fn station(entry: &FdbEntry) -> Station {
    (entry.bridge.unwrap_or(entry.ifindex), entry.vlan, entry.mac)
}

#[cfg(test)]
mod tests;
