//! Links (`RTM_GETLINK`, `linux/if_link.h`).

use std::collections::BTreeMap;

use super::AF_UNSPEC;
use crate::observe::socket::{Asker, DUMP, NetlinkError, REQUEST};
use crate::observe::wire::{Attr, Attrs, Message, Request, u16_at, u32_at};
use crate::world::{BridgeInfo, BridgePort, Link, LinkKind, Offload, OperState, Peer, PortState, Xdp};

pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

/// `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_LOWER_UP: u32 = 1 << 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_GSO_MAX_SEGS: u16 = 40;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_XDP: u16 = 43;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_GRO_MAX_SIZE: u16 = 58;
const IFLA_TSO_MAX_SIZE: u16 = 59;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// Lists all links of the socket's namespace.
pub fn list(asker: &mut Asker) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    asker.dump("links", &dump_request(), |links: &mut BTreeMap<_, _>, message| {
        if message.kind == RTM_NEWLINK {
            let link = parse(message).ok_or(NetlinkError::Malformed {
                what: "a link",
                missing: "index or name",
            })?;
            links.insert(link.ifindex, link);
        }
        Ok(())
    })
}

fn dump_request() -> Request {
    let mut header = [0; IFINFOMSG];
    header[0] = AF_UNSPEC;
    Request::new(RTM_GETLINK, DUMP, &header).attr(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes())
}

/// What may be attached to a link without a word from the kernel: XDP programs by a BPF link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quiet {
    /// The XDP programs on it.
    pub xdp: Xdp,
    /// The other end of a veth: its namespace's identifier here, and its index there.
    pub peer: Option<(i32, u32)>,
    /// Whether tcx programs on it concern anybody.
    pub is_ethernet: bool,
}

/// Lists the links with what changes quietly, to be compared with the next time: without names, and so without a piece
/// of memory for each.
pub fn list_quiet(asker: &mut Asker) -> Result<BTreeMap<u32, Quiet>, NetlinkError> {
    asker.dump("links", &dump_request(), |links: &mut BTreeMap<_, _>, message| {
        if message.kind == RTM_NEWLINK
            && let Some((ifindex, quiet)) = parse_quiet(message)
        {
            links.insert(ifindex, quiet);
        }
        Ok(())
    })
}

fn parse_quiet(message: Message<'_>) -> Option<(u32, Quiet)> {
    let is_loopback = u32_at(message.payload, 8)? & IFF_LOOPBACK != 0;
    let mut quiet = Quiet {
        is_ethernet: u16_at(message.payload, 2)? == ARPHRD_ETHER && !is_loopback,
        ..Quiet::default()
    };
    let (mut lower, mut peer_netns) = (None, None);
    for attr in Attrs::after(message.payload, IFINFOMSG) {
        match attr.kind {
            IFLA_LINK => lower = attr.u32().filter(|index| *index != 0),
            IFLA_LINK_NETNSID => peer_netns = attr.i32(),
            IFLA_XDP => quiet.xdp = xdp(attr.nested()),
            _ => {}
        }
    }
    quiet.peer = peer_netns.zip(lower);
    Some((ifindex(message)?, quiet))
}

/// The other end of a veth: the index of the end here, the identifier of the other end's namespace, and its index there.
pub type End = (u32, i32, u32);

/// Asks about the other ends of veths, each in its own namespace. One is missing if there is nothing to be learned: its
/// namespace has no identifier (-1), it is gone, or this process may not ask there.
pub fn peers(asker: &mut Asker, ends: &[End]) -> Result<BTreeMap<u32, Peer>, NetlinkError> {
    let requests: Vec<Request> = ends
        .iter()
        .map(|(_, netns, ifindex)| peer_request(*netns, *ifindex))
        .collect();
    let answers = asker.ask_all(&requests, parse_peer)?;
    let found = ends.iter().zip(answers);
    Ok(found.filter_map(|((here, ..), peer)| Some((*here, peer?))).collect())
}

fn peer_request(netns: i32, ifindex: u32) -> Request {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    Request::new(RTM_GETLINK, REQUEST, &header)
        .attr(IFLA_TARGET_NETNSID, &netns.to_ne_bytes())
        .attr(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes())
}

fn parse_peer(message: Message<'_>) -> Option<Peer> {
    let mut peer = Peer::default();
    for attr in Attrs::after(message.payload, IFINFOMSG) {
        match attr.kind {
            IFLA_ADDRESS => peer.mac = attr.mac(),
            IFLA_MTU => peer.mtu = attr.u32()?,
            IFLA_XDP => peer.xdp = xdp(attr.nested()),
            _ => {}
        }
    }
    Some(peer)
}

/// The other end of a link, if it is a veth that ends in another namespace.
pub fn end(link: &Link) -> Option<End> {
    if let LinkKind::Veth {
        peer_ifindex: Some(ifindex),
        peer_netns: Some(netns),
    } = link.kind
    {
        Some((link.ifindex, netns, ifindex))
    } else {
        None
    }
}

/// The address family of a link message: `AF_BRIDGE` for one about a bridge's port.
pub fn family(message: Message<'_>) -> Option<u8> {
    message.payload.first().copied()
}

/// The interface index of a link message.
pub fn ifindex(message: Message<'_>) -> Option<u32> {
    u32_at(message.payload, 4)
}

/// Reads a link message of family `AF_UNSPEC`. `None` if it has no index or no name.
pub fn parse(message: Message<'_>) -> Option<Link> {
    let flags = u32_at(message.payload, 8)?;
    let mut link = Link {
        ifindex: ifindex(message)?,
        name: String::new(),
        kind: LinkKind::Physical,
        arp_type: u16_at(message.payload, 2)?,
        mac: None,
        mtu: 0,
        master: None,
        lower: None,
        up: flags & IFF_UP != 0,
        lower_up: flags & IFF_LOWER_UP != 0,
        operstate: OperState::Unknown,
        port: None,
        offload: Offload::default(),
        tx_queues: 1,
        xdp: Xdp::default(),
    };
    let (mut info, mut peer_netns) = (None, None);
    for attr in Attrs::after(message.payload, IFINFOMSG) {
        match attr.kind {
            IFLA_ADDRESS => link.mac = attr.mac(),
            IFLA_IFNAME => link.name = attr.text(),
            IFLA_MTU => link.mtu = attr.u32()?,
            IFLA_LINK => link.lower = attr.u32().filter(|index| *index != 0),
            IFLA_MASTER => link.master = attr.u32().filter(|index| *index != 0),
            IFLA_OPERSTATE => link.operstate = operstate(attr.u8()?),
            IFLA_LINKINFO => info = Some(attr.nested()),
            IFLA_NUM_TX_QUEUES => link.tx_queues = attr.u32()?,
            IFLA_LINK_NETNSID => peer_netns = attr.i32(),
            IFLA_GSO_MAX_SEGS => link.offload.gso_max_segs = attr.u32(),
            IFLA_GSO_MAX_SIZE => link.offload.gso_max_size = attr.u32(),
            IFLA_GRO_MAX_SIZE => link.offload.gro_max_size = attr.u32(),
            IFLA_TSO_MAX_SIZE => link.offload.tso_max_size = attr.u32(),
            IFLA_GSO_IPV4_MAX_SIZE => link.offload.gso_ipv4_max_size = attr.u32(),
            IFLA_GRO_IPV4_MAX_SIZE => link.offload.gro_ipv4_max_size = attr.u32(),
            IFLA_XDP => link.xdp = xdp(attr.nested()),
            _ => {}
        }
    }
    link.kind = if flags & IFF_LOOPBACK != 0 {
        LinkKind::Loopback
    } else {
        kind(info, link.lower, peer_netns)
    };
    if matches!(link.kind, LinkKind::Veth { .. }) {
        link.lower = None;
    }
    link.port = info.and_then(port);
    (!link.name.is_empty() && link.ifindex != 0).then_some(link)
}

fn kind(info: Option<Attrs<'_>>, link: Option<u32>, peer_netns: Option<i32>) -> LinkKind {
    let Some(info) = info else { return LinkKind::Physical };
    let data = info.find(IFLA_INFO_DATA);
    let number = |attr: Option<Attr<'_>>| attr.and_then(Attr::u32).unwrap_or(0);
    // IFLA_VLAN_ID and IFLA_VXLAN_ID both have the number 1.
    let id = data.and_then(|data| data.nested().find(1));
    match info.find(IFLA_INFO_KIND).map(Attr::text).as_deref() {
        None | Some("") => LinkKind::Physical,
        Some("veth") => LinkKind::Veth {
            peer_ifindex: link,
            peer_netns,
        },
        Some("bridge") => LinkKind::Bridge(data.map(|data| bridge(data.nested())).unwrap_or_default()),
        Some("vlan") => LinkKind::Vlan {
            id: id.and_then(Attr::u16).unwrap_or(0),
        },
        Some("bond" | "team") => LinkKind::Bond,
        Some("vxlan") => LinkKind::Vxlan { vni: number(id) },
        Some("macvlan" | "macvtap") => LinkKind::Macvlan,
        Some("ipvlan" | "ipvtap") => LinkKind::Ipvlan,
        Some("dummy") => LinkKind::Dummy,
        Some("tun") => LinkKind::Tun,
        Some("wireguard") => LinkKind::Wireguard,
        Some(other) => LinkKind::Other(other.into()),
    }
}

fn bridge(attrs: Attrs<'_>) -> BridgeInfo {
    let mut info = BridgeInfo::default();
    for attr in attrs {
        match attr.kind {
            4 => info.ageing_time = attr.u32().unwrap_or(0),
            5 => info.stp = attr.u32().is_some_and(|state| state != 0),
            7 => info.vlan_filtering = attr.flag(),
            36 => info.nf_call_iptables = attr.flag(),
            37 => info.nf_call_ip6tables = attr.flag(),
            38 => info.nf_call_arptables = attr.flag(),
            _ => {}
        }
    }
    info
}

fn port(info: Attrs<'_>) -> Option<BridgePort> {
    if info.find(IFLA_INFO_SLAVE_KIND)?.text() != "bridge" {
        return None;
    }
    let mut port = BridgePort {
        state: PortState::Disabled,
        hairpin: false,
        isolated: false,
        learning: true,
        unicast_flood: true,
        vlan_tunnel: false,
        locked: false,
        neigh_suppress: false,
    };
    for attr in info.find(IFLA_INFO_SLAVE_DATA)?.nested() {
        // IFLA_BRPORT_*
        match attr.kind {
            1 => port.state = port_state(attr.u8()?),
            4 => port.hairpin = attr.flag(),
            8 => port.learning = attr.flag(),
            9 => port.unicast_flood = attr.flag(),
            29 => port.vlan_tunnel = attr.flag(),
            32 => port.neigh_suppress = attr.flag(),
            33 => port.isolated = attr.flag(),
            39 => port.locked = attr.flag(),
            _ => {}
        }
    }
    Some(port)
}

fn port_state(state: u8) -> PortState {
    match state {
        0 => PortState::Disabled,
        1 => PortState::Listening,
        2 => PortState::Learning,
        3 => PortState::Forwarding,
        4 => PortState::Blocking,
        other => PortState::Other(other),
    }
}

fn operstate(state: u8) -> OperState {
    match state {
        1 => OperState::NotPresent,
        2 => OperState::Down,
        3 => OperState::LowerLayerDown,
        4 => OperState::Testing,
        5 => OperState::Dormant,
        6 => OperState::Up,
        _ => OperState::Unknown,
    }
}

fn xdp(attrs: Attrs<'_>) -> Xdp {
    let mut xdp = Xdp::default();
    for attr in attrs {
        // IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID
        match attr.kind {
            5 => xdp.native = attr.u32(),
            6 => xdp.generic = attr.u32(),
            7 => xdp.offloaded = attr.u32(),
            _ => {}
        }
    }
    xdp
}
