//! Links and what is attached to them.

use serde::Serialize;

use super::Mac;

/// A network device, as `RTM_NEWLINK` tells it (`linux/if_link.h`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The interface index in the observed namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What sort of device it is, with what only that sort has.
    pub kind: LinkKind,
    /// The link-layer type (`ARPHRD_*`, `linux/if_arp.h`); 1 is Ethernet, 65534 is none (tun, wireguard).
    pub arp_type: u16,
    /// The link-layer address, when it is an Ethernet one.
    pub mac: Option<Mac>,
    /// The MTU in bytes, without the link-layer header.
    pub mtu: u32,
    /// The device that this one is a port or slave of.
    pub master: Option<u32>,
    /// The link that `IFLA_LINK` names: a vlan's or macvlan's lower device. For a veth see [`LinkKind::Veth`].
    pub lower: Option<u32>,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Whether it has carrier (`IFF_LOWER_UP`).
    pub lower_up: bool,
    /// RFC 2863 state.
    pub operstate: OperState,
    /// What it is to its bridge, when it is a bridge's port.
    pub port: Option<BridgePort>,
    /// Segment sizes in bytes.
    pub offload: Offload,
    /// How many transmit queues it has.
    pub tx_queues: u32,
    /// The XDP programs on it.
    pub xdp: Xdp,
}

impl Link {
    /// One that is up, for tests.
    #[cfg(test)]
    pub fn sample(ifindex: u32, name: &str, kind: LinkKind) -> Self {
        Self {
            ifindex,
            name: name.into(),
            kind,
            arp_type: 1,
            mac: None,
            mtu: 1500,
            master: None,
            lower: None,
            up: true,
            lower_up: true,
            operstate: OperState::Up,
            port: None,
            offload: Offload::default(),
            tx_queues: 1,
            xdp: Xdp::default(),
        }
    }

    /// Whether frames on it begin with an Ethernet header.
    pub fn is_ethernet(&self) -> bool {
        const ARPHRD_ETHER: u16 = 1;
        self.arp_type == ARPHRD_ETHER
    }

    /// The other end of a veth, if it is in the same network namespace.
    pub fn other_end_here(&self) -> Option<u32> {
        if let LinkKind::Veth {
            peer_ifindex,
            peer_netns: None,
        } = self.kind
        {
            peer_ifindex
        } else {
            None
        }
    }

    /// Whether it is a veth whose other end is in another network namespace.
    pub fn peer_in_other_netns(&self) -> bool {
        matches!(
            self.kind,
            LinkKind::Veth {
                peer_netns: Some(_),
                ..
            }
        )
    }
}

/// The sort of a device (`IFLA_INFO_KIND`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// One end of a virtual cable.
    Veth {
        /// The other end's interface index, in the other end's namespace. `None` while the kernel does not tell it.
        peer_ifindex: Option<u32>,
        /// The other end's namespace, by the identifier it has here, or `None` if it is in this namespace. It is -1
        /// when the kernel has no identifier for it.
        peer_netns: Option<i32>,
    },
    /// A bridge.
    Bridge(BridgeInfo),
    /// An 802.1Q or 802.1ad sub-interface.
    Vlan {
        /// The VLAN.
        id: u16,
    },
    /// A bond or team of links.
    Bond,
    /// A VXLAN tunnel.
    Vxlan(VxlanInfo),
    /// A macvlan or macvtap.
    Macvlan,
    /// An ipvlan.
    Ipvlan,
    /// A dummy.
    Dummy,
    /// A tun or tap.
    Tun,
    /// `WireGuard`.
    Wireguard,
    /// A datapath of Open vSwitch, or a port of one that is the host's own.
    Openvswitch,
    /// The loopback device.
    Loopback,
    /// A device that has no kind: hardware, or a virtual machine's.
    Physical,
    /// Any other kind, by the kernel's name.
    Other(String),
}

impl LinkKind {
    /// The kind in a word, as `ip link` has it.
    pub fn name(&self) -> &str {
        match self {
            Self::Veth { .. } => "veth",
            Self::Bridge(_) => "bridge",
            Self::Vlan { .. } => "vlan",
            Self::Bond => "bond",
            Self::Vxlan(_) => "vxlan",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Dummy => "dummy",
            Self::Tun => "tun",
            Self::Wireguard => "wireguard",
            Self::Openvswitch => "openvswitch",
            Self::Loopback => "loopback",
            Self::Physical => "physical",
            Self::Other(name) => name,
        }
    }
}

/// What only a bridge has (`IFLA_BR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one switch of the kernel each")]
pub struct BridgeInfo {
    /// Ports and VLANs restrict forwarding.
    pub vlan_filtering: bool,
    /// The spanning tree protocol runs.
    pub stp: bool,
    /// This bridge calls iptables for IPv4 even when the sysctl does not ask for it.
    pub nf_call_iptables: bool,
    /// The same for IPv6.
    pub nf_call_ip6tables: bool,
    /// How long a learned entry lives without traffic, in hundredths of a second.
    pub ageing_time: u32,
}

impl Default for BridgeInfo {
    /// As the kernel makes one (`br_dev_setup`, `net/bridge/br_device.c`).
    fn default() -> Self {
        Self {
            vlan_filtering: false,
            stp: false,
            nf_call_iptables: false,
            nf_call_ip6tables: false,
            ageing_time: 30_000,
        }
    }
}

/// What only a VXLAN device has (`IFLA_VXLAN_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one switch of the kernel each")]
pub struct VxlanInfo {
    /// The network identifier.
    pub vni: u32,
    /// The UDP port that it sends to.
    pub port: u16,
    /// Network identifier and ends come with each packet, from whoever sends it (`external`).
    pub external: bool,
    /// Its headers have more than a network identifier: group policy, GPE, remote checksums.
    pub extended: bool,
    /// Outer packets are IPv6.
    pub ipv6: bool,
    /// Outer packets have a UDP checksum.
    pub checksum: bool,
    /// The outer TTL is that of the packet inside.
    pub ttl_inherit: bool,
    /// "Don't fragment" is that of the packet inside.
    pub df_inherit: bool,
    /// Packets are routed, or ARP answered, by the device itself (`rsc`, `proxy`).
    pub answers: bool,
    /// It learns which end a station is behind from what comes in, and forgets that after this time in seconds. `None`: it learns
    /// nothing so.
    pub ageing: Option<u32>,
}

/// The state of a bridge's port (`BR_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// Switched off.
    Disabled,
    /// Listening to the spanning tree.
    Listening,
    /// Learning, not yet forwarding.
    Learning,
    /// In use.
    Forwarding,
    /// Kept out by the spanning tree.
    Blocking,
    /// A number that the kernel did not have when this was written.
    Other(u8),
}

/// What a link is to its bridge (`IFLA_BRPORT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one switch of the kernel each")]
pub struct BridgePort {
    /// Spanning tree state.
    pub state: PortState,
    /// Frames may leave by the port they came in by.
    pub hairpin: bool,
    /// Frames of one isolated port never leave by another.
    pub isolated: bool,
    /// The bridge learns source addresses on it.
    pub learning: bool,
    /// Frames to unknown stations are sent to it.
    pub unicast_flood: bool,
    /// VLANs are mapped to tunnel identifiers.
    pub vlan_tunnel: bool,
    /// Only stations in the FDB may send.
    pub locked: bool,
    /// ARP and ND are answered by the bridge itself.
    pub neigh_suppress: bool,
}

impl Default for BridgePort {
    /// As the kernel adds one (`new_nbp`, `net/bridge/br_if.c`).
    fn default() -> Self {
        Self {
            state: PortState::Disabled,
            hairpin: false,
            isolated: false,
            learning: true,
            unicast_flood: true,
            vlan_tunnel: false,
            locked: false,
            neigh_suppress: false,
        }
    }
}

/// RFC 2863 operational state (`IF_OPER_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OperState {
    /// Not told, as loopback and many virtual devices do.
    #[default]
    Unknown,
    /// Something is missing.
    NotPresent,
    /// No carrier.
    Down,
    /// A lower link is down.
    LowerLayerDown,
    /// Being tested.
    Testing,
    /// Waiting, as for 802.1X.
    Dormant,
    /// In use.
    Up,
}

/// The largest segments a device takes and makes, in bytes; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offload {
    /// `IFLA_GSO_MAX_SIZE`.
    pub gso_max_size: Option<u32>,
    /// `IFLA_GSO_MAX_SEGS`.
    pub gso_max_segs: Option<u32>,
    /// `IFLA_GRO_MAX_SIZE`.
    pub gro_max_size: Option<u32>,
    /// `IFLA_GSO_IPV4_MAX_SIZE`.
    pub gso_ipv4_max_size: Option<u32>,
    /// `IFLA_GRO_IPV4_MAX_SIZE`.
    pub gro_ipv4_max_size: Option<u32>,
    /// `IFLA_TSO_MAX_SIZE`: the device's own bound on `gso_max_size`.
    pub tso_max_size: Option<u32>,
}

/// The XDP programs on a device, by program identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Xdp {
    /// In generic mode.
    pub generic: Option<u32>,
    /// In the driver.
    pub native: Option<u32>,
    /// In the hardware.
    pub offloaded: Option<u32>,
}

impl Xdp {
    /// Whether any program is attached.
    pub fn is_attached(self) -> bool {
        self != Self::default()
    }
}

/// The other end of a veth, in the namespace of its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its MTU in bytes: a packet to it that is longer is dropped between the ends.
    pub mtu: u32,
    /// Its own MAC address.
    pub mac: Option<Mac>,
    /// The XDP programs on it.
    pub xdp: Xdp,
}

/// A queueing discipline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Qdisc {
    /// Its kind: `noqueue`, `fq_codel`, `clsact`, ...
    pub kind: String,
    /// Its handle, major in the upper 16 bits.
    pub handle: u32,
    /// What it hangs from; `0xffff_ffff` is the root, `0xffff_fff1` ingress and clsact.
    pub parent: u32,
}

/// A classic tc filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TcFilter {
    /// What it hangs from: `0xffff_fff2` is ingress, `0xffff_fff3` egress of clsact.
    pub parent: u32,
    /// Its kind: `bpf`, `u32`, `flower`, ...
    pub kind: String,
    /// Its priority; lower runs first.
    pub priority: u16,
    /// Its name, where the kind has one (bpf).
    pub name: Option<String>,
}
