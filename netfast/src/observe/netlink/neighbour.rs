//! Neighbours and forwarding entries: the same message (`RTM_GETNEIGH`, linux/neighbour.h), two tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use libc::{NDA_DST, NDA_LLADDR, NDA_VLAN};

use crate::host::{FdbEntry, FdbState, Mac, Neighbour, NeighbourKey, NeighbourState};
use crate::sys::netlink::rt::{
    self, AddressFamily, NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage,
};
use crate::sys::netlink::{
    Attrs, DUMP, Emitable as _, Malformed, Message, NetlinkError, NetlinkSocket, Request, message::ip,
};

pub use libc::{RTM_DELNEIGH, RTM_NEWNEIGH};

/// linux/neighbour.h; the crate libc has both for glibc only.
const NDA_IFINDEX: u16 = 8;
/// See [`NDA_IFINDEX`].
const NDA_MASTER: u16 = 9;

/// Forwarding entries of one port that are remembered. A container has one address; a port that has more than this is
/// another bridge, or somebody's game.
pub const MAX_STATIONS: usize = 64;

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

/// Lists the neighbour tables, or what they have of one link.
pub fn list(socket: &mut NetlinkSocket, of: Option<u32>) -> Result<BTreeMap<NeighbourKey, Neighbour>, NetlinkError> {
    let mut request = request(AddressFamily::Unspec, None);
    if let Some(ifindex) = of {
        request = request.attr(NDA_IFINDEX, &ifindex.to_ne_bytes());
    }
    socket.dump("neighbours", &request, |neighbours: &mut BTreeMap<_, _>, message| {
        match parse(message)? {
            // A kernel that does not know of filters has listed all.
            Some(Entry::Neighbour(key, neighbour)) if of.is_none_or(|ifindex| ifindex == key.ifindex) => {
                neighbours.insert(key, neighbour);
            }
            _ => {}
        }
        Ok(())
    })
}

/// Lists the forwarding entries of all bridges and vxlan devices.
/// Of each port as many as are remembered, see [`watch`](super::watch), and all that says where a VXLAN device sends frames to
/// stations that it does not know. Or those of one port alone, of a bridge itself, or of a VXLAN device.
pub fn list_fdb(socket: &mut NetlinkSocket, of: Option<u32>) -> Result<BTreeSet<FdbEntry>, NetlinkError> {
    type Listed = (BTreeSet<FdbEntry>, HashMap<u32, usize>);
    let (fdb, _) = socket.dump(
        "forwarding entries",
        &request(AddressFamily::Bridge, of),
        |(fdb, crowds): &mut Listed, message| {
            if let Some(Entry::Fdb(entry)) = parse(message)? {
                if of.is_some_and(|ifindex| ifindex != entry.ifindex) {
                    return Ok(());
                }
                let crowd = crowds.entry(entry.ifindex).or_default();
                if (*crowd < MAX_STATIONS || entry.is_of_unknown()) && fdb.insert(entry) {
                    *crowd += 1;
                }
            }
            Ok(())
        },
    )?;
    Ok(fdb)
}

fn request(family: AddressFamily, port: Option<u32>) -> Request {
    // Exactly an ndmsg and no more: an older kernel takes a longer header for a filter by link.
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = port.unwrap_or_default();
    Request::of(&rt::RouteNetlinkMessage::GetNeighbour(message), DUMP)
}

/// What is needed of a message's attributes.
#[derive(Default)]
struct Found {
    ip: Option<IpAddr>,
    mac: Option<Mac>,
    vlan: Option<u16>,
    bridge: Option<u32>,
}

impl Found {
    fn read(attrs: Attrs<'_>, family: AddressFamily) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let needed = [NDA_DST, NDA_LLADDR, NDA_VLAN, NDA_MASTER];
        for attr in attrs.iter().filter(|attr| needed.contains(&attr.kind)) {
            #[expect(clippy::wildcard_enum_match_arm, reason = "these are all that is asked for")]
            match attr.decode_with(family)? {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => found.ip = Some(ip.into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => found.ip = Some(ip.into()),
                // The remote end of a vxlan device, which may be of either family.
                NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => found.ip = Some(ip(&bytes)?),
                // Addresses of other lengths are of links without Ethernet.
                NeighbourAttribute::LinkLayerAddress(bytes) => found.mac = bytes.try_into().ok().map(Mac),
                NeighbourAttribute::Vlan(vlan) => found.vlan = Some(vlan),
                NeighbourAttribute::Controller(bridge) => found.bridge = Some(bridge),
                other => return Err(Malformed::unexpected(&other)),
            }
        }
        Ok(found)
    }
}

/// Reads a neighbour message; `None` for proxy entries and for other families.
pub fn parse(message: Message<'_>) -> Result<Option<Entry>, Malformed> {
    if !matches!(message.kind, RTM_NEWNEIGH | RTM_DELNEIGH) {
        return Ok(None);
    }
    let header = NeighbourHeader::parse(message.payload)?;
    let attrs = Attrs::after(message.payload, header.buffer_len())?;
    let is_fdb = header.family == AddressFamily::Bridge;
    if !is_fdb && !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return Ok(None);
    }
    let found = Found::read(attrs, header.family)?;
    if is_fdb {
        return fdb_entry(&header, &found).map(Some);
    }
    let key = NeighbourKey {
        ifindex: header.ifindex,
        ip: found.ip.ok_or_else(|| Malformed::missing("the address"))?,
    };
    let neighbour = Neighbour {
        mac: found.mac,
        state: nud(header.state),
    };
    Ok((!header.flags.contains(NeighbourFlags::Proxy)).then_some(Entry::Neighbour(key, neighbour)))
}

fn fdb_entry(header: &NeighbourHeader, found: &Found) -> Result<Entry, Malformed> {
    let state = u16::from(header.state);
    Ok(Entry::Fdb(FdbEntry {
        bridge: found.bridge.filter(|_| !header.flags.contains(NeighbourFlags::Own)),
        ifindex: header.ifindex,
        mac: found.mac.ok_or_else(|| Malformed::missing("the Ethernet address"))?,
        vlan: found.vlan,
        remote: found.ip,
        state: match state {
            _ if state & NUD_PERMANENT != 0 => FdbState::Local,
            _ if state & NUD_NOARP != 0 || header.flags.contains(NeighbourFlags::ExtLearned) => FdbState::Static,
            _ => FdbState::Learned,
        },
    }))
}

fn nud(state: rt::NeighbourState) -> NeighbourState {
    // The states are bits, of which one is set.
    match u16::from(state) {
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
