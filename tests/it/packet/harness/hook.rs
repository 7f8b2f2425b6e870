//! The entry points.

use netfast_common::abi::program;

/// An entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// tcx ingress of an endpoint's veth.
    EndpointIn,
    /// tcx egress of an endpoint's veth.
    EndpointOut,
    /// tcx ingress of a bridge device.
    BridgeIn,
    /// tcx egress of a bridge device.
    BridgeOut,
    /// tcx ingress of an uplink.
    UplinkIn,
    /// tcx egress of an uplink.
    UplinkOut,
    /// tcx ingress of an endpoint's veth, packets to virtual addresses.
    VipIn,
    /// tcx egress of an endpoint's veth, packets from their members.
    VipOut,
    /// tcx egress of a tunnel's device.
    TunnelOut,
    /// tcx egress of an uplink, outer headers.
    TunnelUp,
    /// tcx ingress of an uplink, outer headers.
    TunnelIn,
    /// tcx ingress of a tunnel's device.
    TunnelTaken,
    /// tcx egress of a parent of macvlan networks.
    Macvlan,
    /// tcx egress of the loopback interface in a container's namespace.
    Resolver,
    /// XDP at an uplink. Its verdicts are told as those of tc.
    UplinkXdp,
}

impl Hook {
    /// Those of tc.
    pub const ALL: [Self; 14] = [
        Self::EndpointIn,
        Self::EndpointOut,
        Self::BridgeIn,
        Self::BridgeOut,
        Self::UplinkIn,
        Self::UplinkOut,
        Self::VipIn,
        Self::VipOut,
        Self::TunnelOut,
        Self::TunnelUp,
        Self::TunnelIn,
        Self::TunnelTaken,
        Self::Macvlan,
        Self::Resolver,
    ];

    /// Its program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::EndpointIn => program::ENDPOINT_INGRESS,
            Self::EndpointOut => program::ENDPOINT_EGRESS,
            Self::BridgeIn => program::BRIDGE_INGRESS,
            Self::BridgeOut => program::BRIDGE_EGRESS,
            Self::UplinkIn => program::UPLINK_INGRESS,
            Self::UplinkOut => program::UPLINK_EGRESS,
            Self::VipIn => program::VIP_INGRESS,
            Self::VipOut => program::VIP_EGRESS,
            Self::TunnelOut => program::TUNNEL_EGRESS,
            Self::TunnelUp => program::TUNNEL_UPLINK,
            Self::TunnelIn => program::TUNNEL_INGRESS,
            Self::TunnelTaken => program::TUNNEL_TAKEN,
            Self::Macvlan => program::MACVLAN,
            Self::Resolver => program::RESOLVER,
            Self::UplinkXdp => program::UPLINK_XDP,
        }
    }
}
