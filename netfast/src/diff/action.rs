//! Actions: what can be done to the host, as data, each with its undo.

use std::{collections::BTreeSet, fmt};

use netfast_common::{
    abi::Program,
    control::{Control, Pace},
    device::{Device, DeviceKey},
    tunnel::Tunnel,
};

use crate::{
    config::VipPool,
    diff::{Attachment, Target, XdpStep},
    host::{Proxy, ResolverRules},
    plan::{
        AliasTable, Cause, Client, DirectPort, EpochInputs, Identity, Loopback, MacvlanTable, SegmentEnd, VipTable, Way,
    },
};

/// One step. Each is idempotent: doing it twice is doing it once.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Makes every learned flow a miss.
    NewEpoch {
        /// What the flows that are learned from now on were judged under.
        inputs: Box<EpochInputs>,
        /// What changed; empty at the start of a daemon, which cannot know.
        causes: BTreeSet<Cause>,
    },
    /// Remembers inputs that differ in nothing that a learned flow depends on.
    NoteInputs(Box<EpochInputs>),
    /// Sets the switches of the control map.
    SetSwitches {
        /// What they were.
        from: u32,
        /// What they shall be.
        to: u32,
        /// When flows are learned and ask again.
        pace: Pace,
    },
    /// Writes the entry of a device that had none; its slot gets a new generation and empty counters.
    AddDevice {
        /// The device.
        key: DeviceKey,
        /// The entry.
        device: Device,
        /// What else its flows depend on.
        identity: Identity,
    },
    /// Writes another entry for a device; its slot gets a new generation.
    ChangeDevice {
        /// The device.
        key: DeviceKey,
        /// The entry that it had.
        from: Device,
        /// The entry that it gets, with the same slot.
        to: Device,
        /// What else its flows depend on.
        identity: Identity,
    },
    /// Remembers what a device's flows depend on, found at the start of a daemon.
    NoteIdentity {
        /// The device.
        key: DeviceKey,
        /// What its flows depend on.
        identity: Identity,
    },
    /// Removes the entry of a device; its slot gets a new generation.
    RemoveDevice {
        /// The device.
        key: DeviceKey,
        /// The entry that it had.
        device: Device,
    },
    /// Attaches a program.
    Attach {
        /// Which, and where.
        attachment: Attachment,
        /// The interface's name, as last seen, or the container whose namespace it is in.
        to: String,
    },
    /// Detaches a program, or forgets it when the device or the namespace is gone.
    Detach(Attachment),
    /// Lets packets be forwarded directly from and to a port, or no longer, under the present generation of its slot.
    SetPort {
        /// The device.
        key: DeviceKey,
        /// What was said of it.
        from: Option<DirectPort>,
        /// What shall be.
        to: Option<DirectPort>,
    },
    /// Lets outer headers of a tunnel be repeated, or no longer.
    SetTunnel {
        /// Its device.
        key: DeviceKey,
        /// What was said of it.
        from: Option<Tunnel>,
        /// What shall be.
        to: Option<Tunnel>,
    },
    /// Makes the alias maps say this.
    SetAliases {
        /// What they said.
        from: Box<AliasTable>,
        /// What they shall say.
        to: Box<AliasTable>,
    },
    /// Makes the maps of virtual addresses say this.
    SetVips {
        /// What they said.
        from: Box<VipTable>,
        /// What they shall say.
        to: Box<VipTable>,
    },
    /// Makes, changes or takes away a client's way to virtual addresses.
    SetWay {
        /// Where.
        client: Client,
        /// The container whose it is.
        container: String,
        /// What there was.
        from: Option<Way>,
        /// What shall be.
        to: Option<Way>,
    },
    /// Makes the host say that there is no way to a pool's addresses.
    AddPool(VipPool),
    /// Makes it say so no longer.
    RemovePool(VipPool),
    /// Has the program do what Docker's rules for its resolver do in a container, and takes these out.
    TakeOut {
        /// Where.
        loopback: Loopback,
        /// The container.
        container: String,
        /// The rules.
        rules: Box<ResolverRules>,
    },
    /// Puts them back, unless Docker's are there again.
    PutBack {
        /// Where.
        loopback: Loopback,
        /// The rules.
        rules: Box<ResolverRules>,
        /// Why.
        why: String,
    },
    /// Makes the maps of macvlan networks say this.
    SetMacvlans {
        /// What they said.
        from: Box<MacvlanTable>,
        /// What they shall say.
        to: Box<MacvlanTable>,
    },
    /// Leads connections of the host's programs past these listeners of docker-proxy, and no others.
    SetLocalhost {
        /// Which they were.
        from: Box<BTreeSet<Proxy>>,
        /// Which they shall be.
        to: Box<BTreeSet<Proxy>>,
    },
    /// Lets an interface take bigger segments, or the usual ones again.
    SetSegments {
        /// Which.
        end: SegmentEnd,
        /// Its name, or the container whose it is.
        name: String,
        /// Whether they may be bigger.
        bigger: bool,
    },
    /// Lets a container's interface take frames from uplinks, or no longer.
    Xdp(XdpStep),
}

impl Action {
    /// The action that takes this one back; `None` where there is nothing to take back.
    pub fn undo(&self) -> Option<Self> {
        match self {
            // A flow too few in the table is one slow packet; and what was removed was unwanted before: its device or
            // its container is gone.
            Self::NewEpoch { .. }
            | Self::NoteInputs(_)
            | Self::NoteIdentity { .. }
            | Self::RemoveDevice { .. }
            | Self::PutBack { .. }
            | Self::Detach(_) => None,
            Self::TakeOut { loopback, rules, .. } => Some(Self::PutBack {
                loopback: *loopback,
                rules: rules.clone(),
                why: "the daemon does not start".into(),
            }),
            Self::SetSwitches { from, to, pace } => Some(Self::SetSwitches {
                from: *to,
                to: *from,
                pace: *pace,
            }),
            Self::AddDevice { key, device, .. } => Some(Self::RemoveDevice {
                key: *key,
                device: *device,
            }),
            Self::ChangeDevice {
                key,
                from,
                to,
                identity,
            } => Some(Self::ChangeDevice {
                key: *key,
                from: *to,
                to: *from,
                identity: identity.clone(),
            }),
            Self::Attach { attachment, .. } => Some(Self::Detach(*attachment)),
            Self::SetPort { key, from, to } => Some(Self::SetPort {
                key: *key,
                from: *to,
                to: *from,
            }),
            Self::SetTunnel { key, from, to } => Some(Self::SetTunnel {
                key: *key,
                from: *to,
                to: *from,
            }),
            Self::SetAliases { from, to } => Some(Self::SetAliases {
                from: to.clone(),
                to: from.clone(),
            }),
            Self::SetVips { from, to } => Some(Self::SetVips {
                from: to.clone(),
                to: from.clone(),
            }),
            Self::SetWay {
                client,
                container,
                from,
                to,
            } => Some(Self::SetWay {
                client: *client,
                container: container.clone(),
                from: to.clone(),
                to: from.clone(),
            }),
            Self::AddPool(pool) => Some(Self::RemovePool(*pool)),
            Self::RemovePool(pool) => Some(Self::AddPool(*pool)),
            Self::SetMacvlans { from, to } => Some(Self::SetMacvlans {
                from: to.clone(),
                to: from.clone(),
            }),
            Self::SetLocalhost { from, to } => Some(Self::SetLocalhost {
                from: to.clone(),
                to: from.clone(),
            }),
            Self::SetSegments { end, name, bigger } => Some(Self::SetSegments {
                end: *end,
                name: name.clone(),
                bigger: !bigger,
            }),
            Self::Xdp(step) => Some(Self::Xdp(step.undo())),
        }
    }

    /// What an operator wants to read of it when it is done; the rest follows from the containers' coming and going.
    pub fn news(&self) -> Option<String> {
        if let Self::PutBack { why, .. } = self {
            return Some(format!("{self}: {why}"));
        }
        let Self::SetSwitches { to, pace, .. } = self else {
            return None;
        };
        if to & Control::USE == 0 {
            return Some("fast path off until all is attached".into());
        }
        let learning = match (to & Control::LEARN, pace.learn_after) {
            (0, _) => "learning off".into(),
            (_, 0) => "learning at once".into(),
            (_, packets) => format!("learning after {packets} packets of each direction"),
        };
        let revalidate = pace.revalidate_ns / 1_000_000;
        Some(format!(
            "fast path on, {learning}, each flow asks the kernel every {revalidate} ms"
        ))
    }

    /// Whether it is about names, about macvlan or about segments, on which no flow depends.
    pub const fn is_about_aliases(&self) -> bool {
        match self {
            Self::SetAliases { .. }
            | Self::SetVips { .. }
            | Self::SetWay { .. }
            | Self::AddPool(_)
            | Self::RemovePool(_)
            | Self::TakeOut { .. }
            | Self::PutBack { .. }
            | Self::SetMacvlans { .. }
            | Self::SetLocalhost { .. }
            | Self::Xdp(_)
            | Self::SetSegments { .. } => true,
            Self::Attach { attachment, .. } | Self::Detach(attachment) => {
                matches!(attachment.at, Target::Loopback(_) | Target::Cgroup) || attachment.program.is_for_xdp()
            }
            Self::NewEpoch { .. }
            | Self::NoteInputs(_)
            | Self::SetSwitches { .. }
            | Self::AddDevice { .. }
            | Self::ChangeDevice { .. }
            | Self::NoteIdentity { .. }
            | Self::SetPort { .. }
            | Self::SetTunnel { .. }
            | Self::RemoveDevice { .. } => false,
        }
    }

    /// The container's network namespace in which it is about the resolver, if it is about that.
    pub fn inside(&self) -> Option<Loopback> {
        if let Self::TakeOut { loopback, .. } | Self::PutBack { loopback, .. } = self {
            return Some(*loopback);
        }
        let Self::Attach { attachment, .. } = self else {
            return None;
        };
        attachment
            .loopback()
            .filter(|_| attachment.program == Program::Resolver)
    }

    /// The device that it is about, if it is about one.
    pub const fn device(&self) -> Option<DeviceKey> {
        match self {
            Self::AddDevice { key, .. }
            | Self::ChangeDevice { key, .. }
            | Self::NoteIdentity { key, .. }
            | Self::SetPort { key, .. }
            | Self::SetTunnel { key, .. }
            | Self::RemoveDevice { key, .. } => Some(*key),
            // An uplink without XDP is an uplink nevertheless.
            Self::Attach { attachment, .. } | Self::Detach(attachment) if attachment.program.is_for_xdp() => None,
            Self::Attach { attachment, .. } | Self::Detach(attachment) => attachment.at.device(),
            Self::NewEpoch { .. }
            | Self::NoteInputs(_)
            | Self::SetSwitches { .. }
            | Self::SetVips { .. }
            | Self::SetWay { .. }
            | Self::AddPool(_)
            | Self::RemovePool(_)
            | Self::TakeOut { .. }
            | Self::PutBack { .. }
            | Self::SetMacvlans { .. }
            | Self::SetLocalhost { .. }
            | Self::Xdp(_)
            | Self::SetSegments { .. }
            | Self::SetAliases { .. } => None,
        }
    }
}

/// For logs.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewEpoch { causes, .. } if causes.is_empty() => write!(f, "new epoch: start"),
            Self::NewEpoch { causes, .. } => {
                let causes: Vec<&str> = causes.iter().map(|cause| cause.name()).collect();
                write!(f, "new epoch: {} changed", causes.join(", "))
            }
            Self::NoteInputs(_) => write!(f, "note inputs"),
            Self::SetSwitches { to, .. } => match (to & Control::USE != 0, to & Control::LEARN != 0) {
                (false, _) => write!(f, "switch the fast path off"),
                (true, false) => write!(f, "switch the fast path on, without learning"),
                (true, true) => write!(f, "switch the fast path and learning on"),
            },
            Self::AddDevice { key, device, .. } => {
                write!(f, "add device {key} in slot {}", device.slot)
            }
            Self::ChangeDevice { key, to, .. } => write!(f, "change device {key} in slot {}", to.slot),
            Self::NoteIdentity { key, .. } => write!(f, "note identity of device {key}"),
            Self::RemoveDevice { key, device } => {
                write!(f, "remove device {key} from slot {}", device.slot)
            }
            Self::Attach { attachment, to } => {
                write!(f, "attach {}", what(attachment))?;
                match attachment.at {
                    Target::Interface { hook, .. } => write!(f, "to {to} {}", hook.name()),
                    Target::Loopback(_) => write!(f, "to the loopback interface of {to}"),
                    Target::Function(name) => write!(f, "to the kernel's function {name}"),
                    Target::Tracepoint(name) => write!(f, "to the kernel's tracepoint {name}"),
                    Target::Cgroup => write!(f, "{} to {to}", attachment.program.name()),
                }
            }
            Self::Detach(attachment) => {
                write!(f, "detach {}", what(attachment))?;
                match attachment.at {
                    Target::Interface { device, hook } => write!(f, "from device {device} {}", hook.name()),
                    at @ (Target::Loopback(_) | Target::Function(_) | Target::Tracepoint(_)) => write!(f, "from {at}"),
                    at @ Target::Cgroup => write!(f, "{} from {at}", attachment.program.name()),
                }
            }
            Self::SetPort { key, to: Some(_), .. } => write!(f, "forward directly from and to device {key}"),
            Self::SetPort { key, to: None, .. } => write!(f, "end direct forwarding from and to device {key}"),
            Self::SetTunnel { key, to: Some(_), .. } => write!(f, "repeat outer headers of device {key}"),
            Self::SetTunnel { key, to: None, .. } => write!(f, "no longer repeat outer headers of device {key}"),
            Self::SetAliases { to, .. } => write!(f, "set {} entries of aliases", to.entries.len()),
            Self::SetVips { to, .. } => write!(f, "set {} virtual addresses", to.services.len()),
            Self::SetWay { container, to, .. } => match to {
                Some(_) => write!(f, "make the way of {container} to virtual addresses"),
                None => write!(f, "take away the way of {container} to virtual addresses"),
            },
            Self::AddPool(pool) => write!(f, "answer for {pool} that there is no way there"),
            Self::RemovePool(pool) => write!(f, "no longer answer for {pool}"),
            Self::TakeOut { container, .. } => write!(f, "take Docker's rules for its resolver out of {container}"),
            Self::PutBack { loopback, .. } => write!(
                f,
                "put Docker's rules for its resolver back into the network namespace of process {}",
                loopback.pid
            ),
            Self::Xdp(step) => step.fmt(f),
            Self::SetSegments { name, bigger: true, .. } => write!(f, "let {name} take bigger segments"),
            Self::SetSegments { name, .. } => write!(f, "let {name} take the usual segments again"),
            Self::SetLocalhost { to, .. } => write!(f, "lead past {} listeners of docker-proxy", to.len()),
            Self::SetMacvlans { to, .. } => write!(f, "set {} MAC addresses behind parents", to.stations.len()),
        }
    }
}

/// What is attached, where the place does not say it.
const fn what(attachment: &Attachment) -> &'static str {
    if attachment.endpoint_of_vips().is_some() {
        "virtual addresses "
    } else if attachment.device_of_tunnels().is_some() {
        "outer headers "
    } else if attachment.macvlan_parent().is_some() {
        "macvlan "
    } else if attachment.program.is_for_xdp() {
        "XDP "
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_told_in_words() {
        let set = |to, learn_after| Action::SetSwitches {
            from: 0,
            to,
            pace: Pace {
                revalidate_ns: 2_000_000_000,
                learn_after,
            },
        };
        assert_eq!(set(0, 3).news().as_deref(), Some("fast path off until all is attached"));
        assert_eq!(set(0, 3).to_string(), "switch the fast path off");
        let on = Control::USE | Control::LEARN | Control::VET;
        assert_eq!(
            set(on, 3).news().as_deref(),
            Some("fast path on, learning after 3 packets of each direction, each flow asks the kernel every 2000 ms")
        );
        assert_eq!(
            set(on, 0).news().as_deref(),
            Some("fast path on, learning at once, each flow asks the kernel every 2000 ms")
        );
        assert_eq!(
            set(Control::USE, 3).news().as_deref(),
            Some("fast path on, learning off, each flow asks the kernel every 2000 ms")
        );
        assert_eq!(Action::AddPool(VipPool::DEFAULT).news(), None);
    }
}
