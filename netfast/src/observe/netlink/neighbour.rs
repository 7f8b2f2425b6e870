//! Neighbours and forwarding entries: the same message (`RTM_GETNEIGH`, linux/neighbour.h), two tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::watch::MOST_STATIONS;
use super::{AF_BRIDGE, AF_UNSPEC};
use crate::observe::socket::{Asker, DUMP, NetlinkError};
use crate::observe::wire::{Attr, Attrs, Message, Request, u16_at, u32_at};
use crate::world::{FdbEntry, FdbState, Neighbour, NeighbourKey, NeighbourState};

pub const RTM_NEWNEIGH: u16 = 28;
pub const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
/// `struct ndmsg`.
const NDMSG: usize = 12;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;

const NTF_SELF: u8 = 0x02;
const NTF_PROXY: u8 = 0x08;
const NTF_EXT_LEARNED: u8 = 0x10;

const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

/// What a neighbour message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A neighbour of IPv4 or IPv6.
    Neighbour(NeighbourKey, Neighbour),
    /// A forwarding entry.
    Fdb(FdbEntry),
}

/// Lists the neighbour tables.
pub fn list(asker: &mut Asker) -> Result<BTreeMap<NeighbourKey, Neighbour>, NetlinkError> {
    asker.dump(
        "neighbours",
        &request(AF_UNSPEC),
        |neighbours: &mut BTreeMap<_, _>, message| {
            if let Some(Entry::Neighbour(key, neighbour)) = parse(message) {
                neighbours.insert(key, neighbour);
            }
            Ok(())
        },
    )
}

/// Lists the forwarding entries of all bridges and vxlan devices.
/// Of each port as many as are remembered, see [`watch`](super::watch).
pub fn list_fdb(asker: &mut Asker) -> Result<BTreeSet<FdbEntry>, NetlinkError> {
    type Listed = (BTreeSet<FdbEntry>, HashMap<u32, usize>);
    let (fdb, _) = asker.dump(
        "forwarding entries",
        &request(AF_BRIDGE),
        |(fdb, crowds): &mut Listed, message| {
            if let Some(Entry::Fdb(entry)) = parse(message) {
                let crowd = crowds.entry(entry.ifindex).or_default();
                if *crowd < MOST_STATIONS && fdb.insert(entry) {
                    *crowd += 1;
                }
            }
            Ok(())
        },
    )?;
    Ok(fdb)
}

fn request(family: u8) -> Request {
    // Exactly an ndmsg and no more: an older kernel takes a longer header for a filter by link.
    let mut header = [0; NDMSG];
    header[0] = family;
    Request::new(RTM_GETNEIGH, DUMP, &header)
}

/// Reads a neighbour message; `None` for proxy entries and for what has no address that is understood.
pub fn parse(message: Message<'_>) -> Option<Entry> {
    if !matches!(message.kind, RTM_NEWNEIGH | RTM_DELNEIGH) {
        return None;
    }
    let family = *message.payload.first()?;
    let ifindex = u32_at(message.payload, 4)?;
    let state = u16_at(message.payload, 8)?;
    let flags = *message.payload.get(10)?;
    let attrs = Attrs::after(message.payload, NDMSG);
    let mac = attrs.find(NDA_LLADDR).and_then(Attr::mac);
    let ip = attrs.find(NDA_DST).and_then(Attr::ip);
    if family != AF_BRIDGE {
        let key = NeighbourKey { ifindex, ip: ip? };
        return (flags & NTF_PROXY == 0).then_some(Entry::Neighbour(key, Neighbour { mac, state: nud(state) }));
    }
    Some(Entry::Fdb(FdbEntry {
        bridge: attrs
            .find(NDA_MASTER)
            .and_then(Attr::u32)
            .filter(|_| flags & NTF_SELF == 0),
        ifindex,
        mac: mac?,
        vlan: attrs.find(NDA_VLAN).and_then(Attr::u16),
        remote: ip,
        state: match state {
            _ if state & NUD_PERMANENT != 0 => FdbState::Local,
            _ if state & NUD_NOARP != 0 || flags & NTF_EXT_LEARNED != 0 => FdbState::Static,
            _ => FdbState::Learned,
        },
    }))
}

fn nud(state: u16) -> NeighbourState {
    // The states are bits, of which one is set.
    match state {
        0x01 => NeighbourState::Incomplete,
        0x02 => NeighbourState::Reachable,
        0x04 => NeighbourState::Stale,
        0x08 => NeighbourState::Delay,
        0x10 => NeighbourState::Probe,
        0x20 => NeighbourState::Failed,
        NUD_NOARP => NeighbourState::NoArp,
        NUD_PERMANENT => NeighbourState::Permanent,
        _ => NeighbourState::None,
    }
}
