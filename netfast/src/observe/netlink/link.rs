//! Links (`RTM_GETLINK`, `linux/if_link.h`).

use std::collections::BTreeMap;

use libc::{
    IFLA_ADDRESS, IFLA_EXT_MASK, IFLA_GSO_MAX_SEGS, IFLA_GSO_MAX_SIZE, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU,
    IFLA_NUM_TX_QUEUES, IFLA_OPERSTATE, IFLA_QDISC, IFLA_TARGET_NETNSID, IFLA_XDP, RTM_GETLINK,
};

use super::AF_UNSPEC;
use crate::bytes::{u16_at, u32_at};
use crate::host::{BridgeInfo, BridgePort, Link, LinkKind, Mac, Offload, OperState, Peer, PortState, VxlanInfo, Xdp};
use crate::sys::netlink::message::{after, append, walk};
use crate::sys::netlink::{Attr, Attrs, DUMP, Malformed, Message, NLM_F_REQUEST, NetlinkError, NetlinkSocket, Request};

pub use libc::{RTM_DELLINK, RTM_NEWLINK};

/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

/// `linux/if_arp.h`.
const ARPHRD_ETHER: u16 = 1;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 1 << 3;
const IFF_LOWER_UP: u32 = 1 << 16;

const IFLA_GRO_MAX_SIZE: u16 = 58;
const IFLA_TSO_MAX_SIZE: u16 = 59;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;

const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;

/// Lists all links of the socket's namespace.
pub fn list(socket: &mut NetlinkSocket) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    socket.dump("links", &dump_request(), |links: &mut BTreeMap<_, _>, message| {
        if message.kind == RTM_NEWLINK {
            let link = parse(message)?;
            links.insert(link.ifindex, link);
        }
        Ok(())
    })
}

/// Asks about one link; `None`: there is none.
pub fn ask(socket: &mut NetlinkSocket, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
    gone_is_none(socket.ask("a link", &request(ifindex), parse))
}

/// The same, with the kind of the queueing discipline at its root.
pub fn ask_with_root(socket: &mut NetlinkSocket, ifindex: u32) -> Result<Option<(Link, String)>, NetlinkError> {
    gone_is_none(socket.ask("a link", &request(ifindex), |message| {
        let root = Attrs::after(message.payload, IFINFOMSG)?.find(IFLA_QDISC);
        Ok((parse(message)?, root.map(Attr::text).unwrap_or_default()))
    }))
}

/// The same of what changes quietly.
pub fn ask_quiet(socket: &mut NetlinkSocket, ifindex: u32) -> Result<Option<Quiet>, NetlinkError> {
    let answer = socket.ask("a link", &request(ifindex), parse_quiet);
    gone_is_none(answer.map(|(_, quiet)| quiet))
}

fn request(ifindex: u32) -> Request {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let request = Request::new(RTM_GETLINK, NLM_F_REQUEST, &header);
    request.attr(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes())
}

fn gone_is_none<T>(answer: Result<T, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.refused() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
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
pub fn list_quiet(socket: &mut NetlinkSocket) -> Result<BTreeMap<u32, Quiet>, NetlinkError> {
    socket.dump("links", &dump_request(), |links: &mut BTreeMap<_, _>, message| {
        if message.kind == RTM_NEWLINK {
            let (ifindex, quiet) = parse_quiet(message)?;
            links.insert(ifindex, quiet);
        }
        Ok(())
    })
}

fn parse_quiet(message: Message<'_>) -> Result<(u32, Quiet), Malformed> {
    let header = Header::read(message)?;
    let mut quiet = Quiet {
        is_ethernet: header.arp_type == ARPHRD_ETHER && header.flags & IFF_LOOPBACK == 0,
        ..Quiet::default()
    };
    let (mut lower, mut peer_netns) = (None, None);
    for attr in walk(after(message.payload, IFINFOMSG)?) {
        let attr = attr?;
        match attr.kind {
            IFLA_LINK => lower = attr.index()?,
            IFLA_LINK_NETNSID => peer_netns = Some(attr.i32()?),
            IFLA_XDP => quiet.xdp = xdp(attr)?,
            _ => {}
        }
    }
    quiet.peer = peer_netns.zip(lower);
    Ok((header.ifindex, quiet))
}

/// The other end of a veth: the index of the end here, the identifier of the other end's namespace, and its index there.
pub type End = (u32, i32, u32);

/// Asks about the other ends of veths, each in its own namespace. One is missing if there is nothing to be learned: its
/// namespace has no identifier (-1), it is gone, or this process may not ask there.
///
/// On a host with hundreds of containers this is most of what an idle daemon does: no memory is taken for a question or
/// an answer.
pub fn peers(socket: &mut NetlinkSocket, ends: &[End]) -> Result<BTreeMap<u32, Peer>, NetlinkError> {
    let mut peers = BTreeMap::new();
    socket.ask_each(
        "the other end of a veth",
        ends,
        append_peer_request,
        |(here, ..), message| {
            peers.insert(*here, parse_peer(message)?);
            Ok(())
        },
    )?;
    Ok(peers)
}

fn append_peer_request((_, netns, ifindex): &End, bytes: &mut Vec<u8>) {
    let mut header = [0; IFINFOMSG];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    let attrs: [(u16, &[u8]); 2] = [
        (IFLA_TARGET_NETNSID, &netns.to_ne_bytes()),
        (IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()),
    ];
    append(bytes, RTM_GETLINK, NLM_F_REQUEST, &header, &attrs);
}

fn parse_peer(message: Message<'_>) -> Result<Peer, Malformed> {
    let mut peer = Peer::default();
    for attr in walk(after(message.payload, IFINFOMSG)?) {
        let attr = attr?;
        match attr.kind {
            IFLA_ADDRESS => peer.mac = attr.mac().map(Mac),
            IFLA_MTU => peer.mtu = attr.u32()?,
            IFLA_XDP => peer.xdp = xdp(attr)?,
            _ => {}
        }
    }
    Ok(peer)
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

/// What is needed of `struct ifinfomsg`.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// The address family: `AF_BRIDGE` for a message about a bridge's port.
    pub family: u8,
    /// The interface index.
    pub ifindex: u32,
    arp_type: u16,
    flags: u32,
}

impl Header {
    /// Reads a link message's header.
    pub fn read(message: Message<'_>) -> Result<Self, Malformed> {
        let bytes = message.payload;
        let read = || {
            Some(Self {
                family: *bytes.first()?,
                arp_type: u16_at(bytes, 2)?,
                ifindex: u32_at(bytes, 4).filter(|index| *index != 0)?,
                flags: u32_at(bytes, 8)?,
            })
        };
        read().ok_or(Malformed::wrong("there is no index"))
    }
}

/// Reads a link message of family `AF_UNSPEC`.
///
/// Not by `LinkMessage` of `netlink-packet-route`: it decodes every attribute, those of a kind of link that netfast has
/// nothing to do with among them, and one that is not as it expects fails the whole link, and so the snapshot. Here an
/// attribute that is not needed may be as it likes.
pub fn parse(message: Message<'_>) -> Result<Link, Malformed> {
    let Header {
        ifindex,
        arp_type,
        flags,
        ..
    } = Header::read(message)?;
    let mut link = Link {
        ifindex,
        name: String::new(),
        kind: LinkKind::Physical,
        arp_type,
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
    let (mut info, mut peer_netns) = (Attrs::default(), None);
    for attr in walk(after(message.payload, IFINFOMSG)?) {
        let attr = attr?;
        match attr.kind {
            IFLA_ADDRESS => link.mac = attr.mac().map(Mac),
            IFLA_IFNAME => link.name = attr.text(),
            IFLA_MTU => link.mtu = attr.u32()?,
            IFLA_LINK => link.lower = attr.index()?,
            IFLA_MASTER => link.master = attr.index()?,
            IFLA_OPERSTATE => link.operstate = operstate(attr.u8()?),
            IFLA_LINKINFO => info = attr.nested()?,
            IFLA_NUM_TX_QUEUES => link.tx_queues = attr.u32()?,
            IFLA_LINK_NETNSID => peer_netns = Some(attr.i32()?),
            IFLA_GSO_MAX_SEGS => link.offload.gso_max_segs = Some(attr.u32()?),
            IFLA_GSO_MAX_SIZE => link.offload.gso_max_size = Some(attr.u32()?),
            IFLA_GRO_MAX_SIZE => link.offload.gro_max_size = Some(attr.u32()?),
            IFLA_TSO_MAX_SIZE => link.offload.tso_max_size = Some(attr.u32()?),
            IFLA_GSO_IPV4_MAX_SIZE => link.offload.gso_ipv4_max_size = Some(attr.u32()?),
            IFLA_GRO_IPV4_MAX_SIZE => link.offload.gro_ipv4_max_size = Some(attr.u32()?),
            IFLA_XDP => link.xdp = xdp(attr)?,
            _ => {}
        }
    }
    link.kind = if flags & IFF_LOOPBACK != 0 {
        LinkKind::Loopback
    } else {
        kind(info, link.lower, peer_netns)?
    };
    if matches!(link.kind, LinkKind::Veth { .. }) {
        link.lower = None;
    }
    link.port = port(info)?;
    if link.name.is_empty() {
        return Err(Malformed::missing("the name"));
    }
    Ok(link)
}

fn kind(info: Attrs<'_>, link: Option<u32>, peer_netns: Option<i32>) -> Result<LinkKind, Malformed> {
    // What another kind has there is its own.
    let data = || info.inside(IFLA_INFO_DATA);
    Ok(match info.find(IFLA_INFO_KIND).map(Attr::text).as_deref() {
        None | Some("") => LinkKind::Physical,
        Some("veth") => LinkKind::Veth {
            peer_ifindex: link,
            peer_netns,
        },
        Some("bridge") => LinkKind::Bridge(bridge(data()?)?),
        Some("vlan") => LinkKind::Vlan {
            // IFLA_VLAN_ID
            id: data()?.find(1).map_or(Ok(0), Attr::u16)?,
        },
        Some("bond" | "team") => LinkKind::Bond,
        Some("vxlan") => LinkKind::Vxlan(vxlan(data()?)?),
        Some("macvlan" | "macvtap") => LinkKind::Macvlan,
        Some("ipvlan" | "ipvtap") => LinkKind::Ipvlan,
        Some("dummy") => LinkKind::Dummy,
        Some("tun") => LinkKind::Tun,
        Some("wireguard") => LinkKind::Wireguard,
        Some("openvswitch") => LinkKind::Openvswitch,
        Some(other) => LinkKind::Other(other.into()),
    })
}

fn bridge(attrs: Attrs<'_>) -> Result<BridgeInfo, Malformed> {
    let mut info = BridgeInfo::default();
    for attr in attrs.iter() {
        // IFLA_BR_*
        match attr.kind {
            4 => info.ageing_time = attr.u32()?,
            5 => info.stp = attr.u32()? != 0,
            7 => info.vlan_filtering = attr.flag()?,
            36 => info.nf_call_iptables = attr.flag()?,
            37 => info.nf_call_ip6tables = attr.flag()?,
            _ => {}
        }
    }
    Ok(info)
}

fn vxlan(attrs: Attrs<'_>) -> Result<VxlanInfo, Malformed> {
    const DF_INHERIT: u8 = 2;
    let mut info = VxlanInfo::default();
    let (mut learning, mut ageing) = (false, 0);
    for attr in attrs.iter() {
        // IFLA_VXLAN_*
        match attr.kind {
            1 => info.vni = attr.u32()?,
            // A number in network order.
            15 => info.port = u16::from_be(attr.u16()?),
            // GROUP6, LOCAL6
            16 | 17 => info.ipv6 = true,
            18 => info.checksum = attr.flag()?,
            7 => learning = attr.flag()?,
            8 => ageing = attr.u32()?,
            // PROXY, RSC
            11 | 12 => info.answers |= attr.flag()?,
            // REMCSUM_TX, REMCSUM_RX
            21 | 22 => info.extended |= attr.flag()?,
            // GBP, REMCSUM_NOPARTIAL, GPE: they are there or not.
            23 | 24 | 27 => info.extended = true,
            // COLLECT_METADATA
            25 => info.external = attr.flag()?,
            28 => info.ttl_inherit = attr.payload.first().is_none_or(|value| *value != 0),
            29 => info.df_inherit = attr.u8()? == DF_INHERIT,
            _ => {}
        }
    }
    info.ageing = learning.then_some(ageing);
    Ok(info)
}

fn port(info: Attrs<'_>) -> Result<Option<BridgePort>, Malformed> {
    if info.find(IFLA_INFO_SLAVE_KIND).map(Attr::text).as_deref() != Some("bridge") {
        return Ok(None);
    }
    let mut port = BridgePort::default();
    let attrs = info
        .need(IFLA_INFO_SLAVE_DATA, "what a bridge says of its port")?
        .nested()?;
    for attr in attrs.iter() {
        // IFLA_BRPORT_*
        match attr.kind {
            1 => port.state = port_state(attr.u8()?),
            4 => port.hairpin = attr.flag()?,
            8 => port.learning = attr.flag()?,
            9 => port.unicast_flood = attr.flag()?,
            29 => port.vlan_tunnel = attr.flag()?,
            32 => port.neigh_suppress = attr.flag()?,
            33 => port.isolated = attr.flag()?,
            39 => port.locked = attr.flag()?,
            _ => {}
        }
    }
    Ok(Some(port))
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

fn xdp(attr: Attr<'_>) -> Result<Xdp, Malformed> {
    let mut xdp = Xdp::default();
    for attr in walk(attr.payload) {
        let attr = attr?;
        // IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID
        match attr.kind {
            5 => xdp.native = Some(attr.u32()?),
            6 => xdp.generic = Some(attr.u32()?),
            7 => xdp.offloaded = Some(attr.u32()?),
            _ => {}
        }
    }
    Ok(xdp)
}
