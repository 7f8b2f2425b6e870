//! What is attached where.

use std::fmt;

use netfast_common::{
    abi::{Hook, HookKind, Program},
    device::{DeviceKey, Kind},
};

use crate::plan::Loopback;

/// A program at a place. Each has a pin of its own, whose name says both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// Where it is.
    pub at: Target,
    /// Which program it is.
    pub program: Program,
}

/// Where a program can be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A hook of an interface.
    Interface {
        /// The interface.
        device: DeviceKey,
        /// Which of its hooks.
        hook: Hook,
    },
    /// The loopback interface in a container's network namespace. Those come and go with the containers, and no program
    /// needs to know which it runs in, so they have no number.
    Loopback(Loopback),
    /// A function of the kernel.
    Function(&'static str),
    /// A tracepoint of the kernel or of one of its modules.
    Tracepoint(&'static str),
    /// The root cgroup, of which all of the machine's sockets are.
    Cgroup,
}

impl Attachment {
    /// The watch of packets that are handed to user space.
    pub const QUEUE_WATCH: Self = Self::of_function(Program::Queued);

    /// The watch of what datapaths of Open vSwitch do.
    pub const OVS_WATCH: Self = Self::of_function(Program::OvsAction);

    const fn of_function(program: Program) -> Self {
        let at = match program.hook() {
            HookKind::Fentry(function) => Target::Function(function),
            HookKind::RawTracepoint(name) => Target::Tracepoint(name),
            HookKind::Tcx(_) | HookKind::SockAddr(_) | HookKind::Xdp => panic!("it watches no function"),
        };
        Self { at, program }
    }

    /// Whether it watches what the kernel does, apart from interfaces: such a link cannot be given another program.
    pub const fn is_watch(&self) -> bool {
        matches!(self.at, Target::Function(_) | Target::Tracepoint(_))
    }

    /// The program at the driver of an uplink.
    pub const fn of_xdp(device: DeviceKey) -> Self {
        Self {
            at: Target::Interface {
                device,
                hook: Hook::Ingress,
            },
            program: Program::UplinkXdp,
        }
    }

    /// The program for a kind of device at one of its hooks.
    pub const fn of_device(device: DeviceKey, kind: Kind, hook: Hook) -> Self {
        Self {
            at: Target::Interface { device, hook },
            program: Program::of_device(kind, hook),
        }
    }

    /// The program for virtual addresses at a hook of an endpoint.
    pub const fn of_vips(device: DeviceKey, hook: Hook) -> Self {
        Self {
            at: Target::Interface { device, hook },
            program: Program::of_vips(hook),
        }
    }

    /// The program for outer headers at the egress of a tunnel's device.
    pub const fn of_tunnel(device: DeviceKey) -> Self {
        Self {
            at: Target::Interface {
                device,
                hook: Hook::Egress,
            },
            program: Program::TunnelEgress,
        }
    }

    /// The program that learns outer headers at the egress of an uplink.
    pub const fn of_tunnels_uplink(device: DeviceKey) -> Self {
        Self {
            at: Target::Interface {
                device,
                hook: Hook::Egress,
            },
            program: Program::TunnelUplink,
        }
    }

    /// The program that takes outer headers off at the ingress of an uplink.
    pub const fn of_way_in(device: DeviceKey) -> Self {
        Self {
            at: Target::Interface {
                device,
                hook: Hook::Ingress,
            },
            program: Program::TunnelIngress,
        }
    }

    /// The program that learns which were taken off at the ingress of a tunnel's device.
    pub const fn of_taken(device: DeviceKey) -> Self {
        Self {
            at: Target::Interface {
                device,
                hook: Hook::Ingress,
            },
            program: Program::TunnelTaken,
        }
    }

    /// The device that it is on, if it is about tunnels.
    pub const fn device_of_tunnels(&self) -> Option<DeviceKey> {
        match (self.at, self.program) {
            (
                Target::Interface { device, .. },
                Program::TunnelEgress | Program::TunnelUplink | Program::TunnelIngress | Program::TunnelTaken,
            ) => Some(device),
            _ => None,
        }
    }

    /// The program at the egress of a parent of macvlan networks.
    pub const fn of_macvlan(device: DeviceKey) -> Self {
        Self {
            at: Target::Interface {
                device,
                hook: Hook::Egress,
            },
            program: Program::Macvlan,
        }
    }

    /// The parent of macvlan networks that it is on, if it is about them.
    pub const fn macvlan_parent(&self) -> Option<DeviceKey> {
        match (self.at, self.program) {
            (Target::Interface { device, .. }, Program::Macvlan) => Some(device),
            _ => None,
        }
    }

    /// The program at the resolver's answers in a container's network namespace.
    pub const fn of_answers(loopback: Loopback) -> Self {
        Self {
            at: Target::Loopback(loopback),
            program: Program::Answer,
        }
    }

    /// The program in place of the rules for the resolver in a container's network namespace.
    pub const fn of_resolver(loopback: Loopback) -> Self {
        Self {
            at: Target::Loopback(loopback),
            program: Program::Resolver,
        }
    }

    /// One of the programs for published ports at loopback addresses.
    pub const fn of_localhost(program: Program) -> Self {
        Self {
            at: Target::Cgroup,
            program,
        }
    }

    /// The device that it is on, with the kind that its program is for.
    pub const fn device_of_kind(&self) -> Option<(DeviceKey, Kind)> {
        match (self.at, self.program.device_kind()) {
            (Target::Interface { device, .. }, Some(kind)) => Some((device, kind)),
            _ => None,
        }
    }

    /// The endpoint whose virtual addresses it translates.
    pub const fn endpoint_of_vips(&self) -> Option<DeviceKey> {
        match (self.at, self.program) {
            (Target::Interface { device, .. }, Program::VipIngress | Program::VipEgress) => Some(device),
            _ => None,
        }
    }

    /// The container's loopback interface that it is on.
    pub const fn loopback(&self) -> Option<Loopback> {
        match self.at {
            Target::Loopback(loopback) => Some(loopback),
            Target::Interface { .. } | Target::Function(_) | Target::Tracepoint(_) | Target::Cgroup => None,
        }
    }

    /// The one of ours that it must run before, if that is there: all others come last on their hook, behind what others
    /// attached before. The program for virtual addresses is on ingress behind the endpoint's own, which must see packets
    /// as the container sends them, and on egress before it, for it must see them as the container gets them. In another
    /// order it would learn half of the translation. Of those for tunnels the one at an uplink takes its candidate before the
    /// uplink's own finds it to be of another packet, and the one at a tunnel's device leaves its candidate behind the
    /// device's own, which takes what it finds; those of the way in come before the uplink's and the device's own, which send packets
    /// on. Answers of the resolver come from its own port before they come from port 53.
    pub const fn runs_before(&self) -> Option<Self> {
        match (self.at, self.program) {
            (Target::Interface { device, hook }, Program::EndpointIngress) => Some(Self::of_vips(device, hook)),
            (Target::Interface { device, hook }, Program::VipEgress) => {
                Some(Self::of_device(device, Kind::Endpoint, hook))
            }
            (
                Target::Interface { device, hook },
                Program::TunnelUplink | Program::TunnelIngress | Program::TunnelTaken,
            ) => Some(Self::of_device(device, Kind::Uplink, hook)),
            (Target::Interface { device, .. }, Program::UplinkEgress) => Some(Self::of_tunnel(device)),
            (Target::Loopback(loopback), Program::Resolver) => Some(Self::of_answers(loopback)),
            _ => None,
        }
    }
}

impl Target {
    /// The interface, if it is one of a namespace that netfast follows.
    pub const fn device(&self) -> Option<DeviceKey> {
        match *self {
            Self::Interface { device, .. } => Some(device),
            Self::Loopback(_) | Self::Function(_) | Self::Tracepoint(_) | Self::Cgroup => None,
        }
    }
}

/// For errors.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { device, hook } => write!(f, "device {device}, {}", hook.name()),
            Self::Loopback(loopback) => write!(f, "the loopback interface of process {}", loopback.pid),
            Self::Function(name) => write!(f, "the kernel's function {name}"),
            Self::Tracepoint(name) => write!(f, "the kernel's tracepoint {name}"),
            Self::Cgroup => write!(f, "the root cgroup"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_of_an_endpoint_are_in_one_order_whichever_comes_first() {
        let device = DeviceKey::served(7);
        let own = |hook| Attachment::of_device(device, Kind::Endpoint, hook);
        let vips = |hook| Attachment::of_vips(device, hook);
        assert_eq!(own(Hook::Ingress).runs_before(), Some(vips(Hook::Ingress)));
        assert_eq!(vips(Hook::Ingress).runs_before(), None, "last, and so behind it");
        assert_eq!(vips(Hook::Egress).runs_before(), Some(own(Hook::Egress)));
        assert_eq!(own(Hook::Egress).runs_before(), None, "last, and so behind it");
        for hook in Hook::BOTH {
            assert_eq!(Attachment::of_device(device, Kind::Bridge, hook).runs_before(), None);
        }
        let uplink = |hook| Attachment::of_device(device, Kind::Uplink, hook);
        assert_eq!(uplink(Hook::Ingress).runs_before(), None);
        let (tunnel, learns) = (Attachment::of_tunnel(device), Attachment::of_tunnels_uplink(device));
        assert_eq!(uplink(Hook::Egress).runs_before(), Some(tunnel));
        assert_eq!(tunnel.runs_before(), None, "last, and so behind it");
        assert_eq!(learns.runs_before(), Some(uplink(Hook::Egress)));
        for way_in in [Attachment::of_way_in(device), Attachment::of_taken(device)] {
            assert_eq!(way_in.runs_before(), Some(uplink(Hook::Ingress)));
            assert_eq!(way_in.device_of_tunnels(), Some(device));
        }
    }

    #[test]
    fn a_place_is_told_in_words() {
        let device = DeviceKey::served(7);
        let loopback = Loopback { netns: 4, pid: 17 };
        let said = [
            Attachment::of_device(device, Kind::Uplink, Hook::Egress),
            Attachment::of_answers(loopback),
            Attachment::QUEUE_WATCH,
            Attachment::OVS_WATCH,
        ]
        .map(|attachment| attachment.at.to_string());
        assert_eq!(
            said,
            [
                "device 7, out",
                "the loopback interface of process 17",
                "the kernel's function nf_queue",
                "the kernel's tracepoint ovs_do_execute_action"
            ]
        );
    }
}
