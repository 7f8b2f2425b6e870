//! The table of programs: what each is for, on which kind of hook, and whether the daemon can do without it.

use crate::device::Kind;

/// One of an interface's two hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Where packets come in from the device.
    Ingress,
    /// Where packets go out to the device.
    Egress,
}

impl Hook {
    /// Both, ingress first: a candidate that nobody recognises is harmless.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `in` or `out`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "in",
            Self::Egress => "out",
        }
    }
}

/// A kind of hook, which is what the kernel calls the type of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// tcx of an interface (Linux 6.6), or clsact where that does not exist.
    Tcx(Hook),
    /// The entry of this kernel function (Linux 5.5, with BTF).
    Fentry(&'static str),
    /// This tracepoint of the kernel or of one of its modules, with its arguments as they are (Linux 4.17): it is there while its
    /// module is loaded.
    RawTracepoint(&'static str),
    /// A system call of the sockets of a cgroup, by the name that the kernel has for it in sections of objects (Linux 5.8 for
    /// all of them).
    SockAddr(&'static str),
    /// XDP in an interface's driver, by a link (Linux 5.9).
    Xdp,
}

/// Makes the programs, a constant of each name, and the list of all of them.
macro_rules! programs {
    ($(
        $program:ident, $constant:ident = $name:literal, $hook:expr, {
            of: $of:literal,
            does: $does:literal,
            without: $without:expr,
        }
    )+) => {
        /// A program of the BPF object.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Program {
            $(
                #[doc = concat!($does, ": ", $of, ".")]
                $program,
            )+
        }

        $(
            #[doc = concat!("Name of [`Program::", stringify!($program), "`].")]
            pub const $constant: &str = $name;
        )+

        impl Program {
            /// Every program.
            pub const ALL: &[Self] = &[$(Self::$program),+];

            /// Its name, at most 15 bytes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$program => $constant),+ }
            }

            /// What it is attached to.
            pub const fn hook(self) -> HookKind {
                match self { $(Self::$program => $hook),+ }
            }

            /// What it is attached to, in words.
            pub const fn of(self) -> &'static str {
                match self { $(Self::$program => $of),+ }
            }

            /// What it does, in words.
            pub const fn does(self) -> &'static str {
                match self { $(Self::$program => $does),+ }
            }

            /// What is lost where the kernel does not take it; `None`: netfast does not run without it.
            pub const fn without(self) -> Option<&'static str> {
                match self { $(Self::$program => $without),+ }
            }
        }
    };
}

/// What is lost without the programs for tunnels.
const NO_TUNNELS: Option<&str> =
    Some("packets that leave through a VXLAN device get their outer header from the kernel");
/// What is lost without those for what comes in through tunnels.
const NO_WAY_IN: Option<&str> =
    Some("the kernel takes the outer headers off packets that come in through a VXLAN device");
/// What is lost without the programs for virtual addresses.
const NO_VIPS: Option<&str> =
    Some("aliases get no virtual addresses: clients get the members' addresses in round robin");
/// What is lost without the programs for published ports at loopback addresses.
const NO_LOCALHOST: Option<&str> =
    Some("the host's connections to published ports at loopback addresses go through docker-proxy");

/// What is lost without the program for XDP.
const NO_XDP: Option<&str> = Some("datagrams that come in by uplinks take the fast path in tc, not in XDP");

programs! {
    EndpointIngress, ENDPOINT_INGRESS = "netfast_ep_in", HookKind::Tcx(Hook::Ingress), {
        of: "an endpoint's host-side veth",
        does: "entry",
        without: None,
    }
    EndpointEgress, ENDPOINT_EGRESS = "netfast_ep_out", HookKind::Tcx(Hook::Egress), {
        of: "an endpoint's host-side veth",
        does: "exit",
        without: None,
    }
    BridgeIngress, BRIDGE_INGRESS = "netfast_br_in", HookKind::Tcx(Hook::Ingress), {
        of: "a bridge device with endpoints",
        does: "the bridge hands a packet to the host: exit, if the host keeps it",
        without: None,
    }
    BridgeEgress, BRIDGE_EGRESS = "netfast_br_out", HookKind::Tcx(Hook::Egress), {
        of: "a bridge device with endpoints",
        does: "entry of the host's own packets; forwarded ones pass",
        without: None,
    }
    UplinkIngress, UPLINK_INGRESS = "netfast_up_in", HookKind::Tcx(Hook::Ingress), {
        of: "an uplink",
        does: "entry",
        without: None,
    }
    UplinkEgress, UPLINK_EGRESS = "netfast_up_out", HookKind::Tcx(Hook::Egress), {
        of: "an uplink",
        does: "exit",
        without: None,
    }
    Answer, ANSWER = "netfast_answer", HookKind::Tcx(Hook::Egress), {
        of: "`lo` inside a container's network namespace",
        does: "rotates the addresses of an alias's members",
        without: Some("Docker's resolver answers for aliases as it does without netfast, and aliases get no virtual addresses"),
    }
    Resolver, RESOLVER = "netfast_resolve", HookKind::Tcx(Hook::Egress), {
        of: "`lo` inside a container's network namespace, before `netfast_answer`",
        does: "translates between port 53 of Docker's resolver and the ports that it listens on",
        without: Some("Docker's NAT rules for its resolver stay in the containers' network namespaces"),
    }
    VipIngress, VIP_INGRESS = "netfast_vip_in", HookKind::Tcx(Hook::Ingress), {
        of: "an endpoint's host-side veth, behind `netfast_ep_in`",
        does: "translates a virtual address to a member's address",
        without: NO_VIPS,
    }
    VipEgress, VIP_EGRESS = "netfast_vip_out", HookKind::Tcx(Hook::Egress), {
        of: "an endpoint's host-side veth, before `netfast_ep_out`",
        does: "translates a member's address to the virtual address",
        without: NO_VIPS,
    }
    TunnelEgress, TUNNEL_EGRESS = "netfast_tun_out", HookKind::Tcx(Hook::Egress), {
        of: "a VXLAN device, behind `netfast_up_out`",
        does: "puts the outer header before packets whose outer header is known, and sends them to the uplink; entry of the others",
        without: NO_TUNNELS,
    }
    TunnelUplink, TUNNEL_UPLINK = "netfast_tun_up", HookKind::Tcx(Hook::Egress), {
        of: "an uplink, before `netfast_up_out`",
        does: "learns outer headers: exit",
        without: NO_TUNNELS,
    }
    TunnelIngress, TUNNEL_INGRESS = "netfast_tun_in", HookKind::Tcx(Hook::Ingress), {
        of: "an uplink, before `netfast_up_in`",
        does: "takes the outer header off packets whose outer header is known, and sends them on by their flow",
        without: NO_WAY_IN,
    }
    TunnelTaken, TUNNEL_TAKEN = "netfast_tun_got", HookKind::Tcx(Hook::Ingress), {
        of: "a VXLAN device, before `netfast_up_in`",
        does: "learns which outer headers the kernel has taken off",
        without: NO_WAY_IN,
    }
    Macvlan, MACVLAN = "netfast_macvlan", HookKind::Tcx(Hook::Egress), {
        of: "the parent of a macvlan network with `netfast.macvlan-host`, behind `netfast_up_out`",
        does: "hands frames between the host and the network's containers to the parent's ingress",
        without: Some("the host and its containers on macvlan networks do not reach each other"),
    }
    Queued, QUEUED = "netfast_queued", HookKind::Fentry("nf_queue"), {
        of: "the kernel's `nf_queue`",
        does: "deletes the candidate: a packet queued to user space leaves in another run of the kernel",
        without: Some("a rule that sends packets to NFQUEUE keeps flows from being learned"),
    }
    OvsAction, OVS_ACTION = "netfast_ovs", HookKind::RawTracepoint("ovs_do_execute_action"), {
        of: "each action that a datapath of Open vSwitch executes, while the host has a datapath",
        does: "deletes the candidate, unless all that is done with the packet is to change its headers and to send it to one port",
        without: Some("containers at ports of Open vSwitch keep the kernel's path"),
    }
    Connect4, CONNECT4 = "netfast_conn4", HookKind::SockAddr("connect4"), {
        of: "the root cgroup",
        does: "leads connections to published ports at 127.0.0.0/8 to the container",
        without: NO_LOCALHOST,
    }
    Connect6, CONNECT6 = "netfast_conn6", HookKind::SockAddr("connect6"), {
        of: "the root cgroup",
        does: "the same for IPv6's sockets",
        without: NO_LOCALHOST,
    }
    Send4, SEND4 = "netfast_send4", HookKind::SockAddr("sendmsg4"), {
        of: "the root cgroup",
        does: "leads datagrams of unconnected sockets there",
        without: NO_LOCALHOST,
    }
    Send6, SEND6 = "netfast_send6", HookKind::SockAddr("sendmsg6"), {
        of: "the root cgroup",
        does: "the same for IPv6",
        without: NO_LOCALHOST,
    }
    Receive4, RECEIVE4 = "netfast_recv4", HookKind::SockAddr("recvmsg4"), {
        of: "the root cgroup",
        does: "says of a datagram from there that it is from whom was asked",
        without: NO_LOCALHOST,
    }
    Receive6, RECEIVE6 = "netfast_recv6", HookKind::SockAddr("recvmsg6"), {
        of: "the root cgroup",
        does: "the same for IPv6's sockets",
        without: NO_LOCALHOST,
    }
    Peer4, PEER4 = "netfast_peer4", HookKind::SockAddr("getpeername4"), {
        of: "the root cgroup",
        does: "says of such a connection that it is to whom was asked",
        without: NO_LOCALHOST,
    }
    Peer6, PEER6 = "netfast_peer6", HookKind::SockAddr("getpeername6"), {
        of: "the root cgroup",
        does: "the same for IPv6's sockets",
        without: NO_LOCALHOST,
    }
    Own4, OWN4 = "netfast_own4", HookKind::SockAddr("getsockname4"), {
        of: "the root cgroup",
        does: "says of such a connection that it is from a loopback address",
        without: NO_LOCALHOST,
    }
    Own6, OWN6 = "netfast_own6", HookKind::SockAddr("getsockname6"), {
        of: "the root cgroup",
        does: "the same for IPv6's sockets",
        without: NO_LOCALHOST,
    }
    UplinkXdp, UPLINK_XDP = "netfast_up_xdp", HookKind::Xdp, {
        of: "an uplink's driver, before all else (`xdp`)",
        does: "sends datagrams of known flows straight to the container",
        without: NO_XDP,
    }
}

impl Program {
    /// The one for a hook of a kind of device.
    pub const fn of_device(kind: Kind, hook: Hook) -> Self {
        match (kind, hook) {
            (Kind::Endpoint, Hook::Ingress) => Self::EndpointIngress,
            (Kind::Endpoint, Hook::Egress) => Self::EndpointEgress,
            (Kind::Bridge, Hook::Ingress) => Self::BridgeIngress,
            (Kind::Bridge, Hook::Egress) => Self::BridgeEgress,
            (Kind::Uplink, Hook::Ingress) => Self::UplinkIngress,
            (Kind::Uplink, Hook::Egress) => Self::UplinkEgress,
        }
    }

    /// The kind of device that it is for; `None`: it is not one of those that carry flows.
    pub const fn device_kind(self) -> Option<Kind> {
        match self {
            Self::EndpointIngress | Self::EndpointEgress => Some(Kind::Endpoint),
            Self::BridgeIngress | Self::BridgeEgress => Some(Kind::Bridge),
            Self::UplinkIngress | Self::UplinkEgress => Some(Kind::Uplink),
            Self::Answer
            | Self::Resolver
            | Self::VipIngress
            | Self::VipEgress
            | Self::TunnelEgress
            | Self::TunnelUplink
            | Self::TunnelIngress
            | Self::TunnelTaken
            | Self::Macvlan
            | Self::Queued
            | Self::OvsAction
            | Self::Connect4
            | Self::Connect6
            | Self::Send4
            | Self::Send6
            | Self::Receive4
            | Self::Receive6
            | Self::Peer4
            | Self::Peer6
            | Self::Own4
            | Self::Own6
            | Self::UplinkXdp => None,
        }
    }

    /// Those for published ports at loopback addresses, in the order in which they are attached: nobody is led anywhere before
    /// all can be said that must be said of it.
    pub fn of_localhost() -> impl DoubleEndedIterator<Item = Self> {
        let all = Self::ALL.iter().copied().rev();
        all.filter(|program| matches!(program.hook(), HookKind::SockAddr(_)))
    }

    /// Whether there is no place for it without tcx: classic filters are made on devices that carry flows only, and must be
    /// removable by whoever finds them.
    pub const fn needs_tcx(self) -> bool {
        (matches!(self.hook(), HookKind::Tcx(_)) && self.device_kind().is_none()) || self.is_for_xdp()
    }

    /// Whether it is the one of XDP at uplinks, which needs what is there where tcx is: drivers that say what they can do with frames.
    pub const fn is_for_xdp(self) -> bool {
        matches!(self, Self::UplinkXdp)
    }

    /// The one for virtual addresses on a hook of an endpoint.
    pub const fn of_vips(hook: Hook) -> Self {
        match hook {
            Hook::Ingress => Self::VipIngress,
            Hook::Egress => Self::VipEgress,
        }
    }
}
