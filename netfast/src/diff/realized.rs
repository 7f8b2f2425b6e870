//! What netfast has done to the host, as data.

use std::collections::{BTreeMap, BTreeSet};

use netfast_common::{
    control::Control,
    device::{Device, DeviceKey},
    tunnel::Tunnel,
};

use crate::{
    config::VipPool,
    diff::{Action, Attachment, XdpStep},
    host::{Proxy, ResolverRules},
    plan::{
        AliasTable, Client, DirectPort, EpochInputs, Identity, Loopback, MacvlanTable, SegmentEnd, VipTable, Way,
        XdpEnd,
    },
};

/// The state of what is netfast's on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Realized {
    /// The control map.
    pub control: Control,
    /// What the epoch stands for; `None` when another daemon set it.
    pub inputs: Option<EpochInputs>,
    /// The devices map.
    pub devices: BTreeMap<DeviceKey, RealizedDevice>,
    /// The programs that are attached.
    pub attachments: BTreeSet<Attachment>,
    /// Ports between which packets are forwarded directly.
    pub ports: BTreeMap<DeviceKey, RealizedPort>,
    /// Tunnels whose outer headers are repeated.
    pub tunnels: BTreeMap<DeviceKey, Tunnel>,
    /// The alias maps.
    pub aliases: AliasTable,
    /// The maps of virtual addresses.
    pub vips: VipTable,
    /// The clients' ways to them.
    pub ways: BTreeMap<Client, Way>,
    /// Of which addresses the host says that there is no way there.
    pub pools: BTreeSet<VipPool>,
    /// The maps of macvlan networks.
    pub macvlans: MacvlanTable,
    /// The listeners of docker-proxy past which connections are led; none that an earlier daemon knew of count.
    pub led: BTreeSet<Proxy>,
    /// Docker's rules for its resolver that were taken out of containers.
    pub resolvers: BTreeMap<Loopback, ResolverRules>,
    /// Interfaces that take bigger segments.
    pub segments: BTreeSet<SegmentEnd>,
    /// Interfaces of containers that frames are sent to.
    pub xdp_ends: BTreeSet<XdpEnd>,
    /// Interfaces of containers that take frames by netfast's doing.
    pub xdp_gro: BTreeSet<XdpEnd>,
}

/// An entry of the devices map.
#[derive(Clone, Debug, PartialEq)]
pub struct RealizedDevice {
    /// The entry.
    pub device: Device,
    /// What else its flows depend on; `None` when another daemon wrote the entry.
    pub identity: Option<Identity>,
}

/// An entry of the map of ports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RealizedPort {
    /// The entry.
    pub port: DirectPort,
    /// Its device has had another generation since, so it does not hold any more.
    pub is_ended: bool,
}

impl Realized {
    /// A device has another generation: what was said of its port does not hold any more.
    pub fn end_port(&mut self, key: DeviceKey) {
        if let Some(found) = self.ports.get_mut(&key) {
            found.is_ended = true;
        }
    }

    /// Notes an action that was done. The executor and the tests' model share it, so they cannot drift apart.
    pub fn note(&mut self, action: &Action) {
        match action {
            Action::NewEpoch { inputs, .. } => {
                self.control.epoch = self.control.epoch.wrapping_add(1);
                self.inputs = Some(inputs.as_ref().clone());
            }
            Action::NoteInputs(inputs) => self.inputs = Some(inputs.as_ref().clone()),
            Action::SetSwitches { to, pace, .. } => self.control = self.control.with(*to, *pace),
            Action::AddDevice { key, device, identity }
            | Action::ChangeDevice {
                key,
                to: device,
                identity,
                ..
            } => {
                let entry = RealizedDevice {
                    device: *device,
                    identity: Some(identity.clone()),
                };
                self.devices.insert(*key, entry);
                self.end_port(*key);
            }
            Action::NoteIdentity { key, identity } => {
                if let Some(found) = self.devices.get_mut(key) {
                    found.identity = Some(identity.clone());
                }
            }
            Action::RemoveDevice { key, .. } => {
                self.devices.remove(key);
                self.end_port(*key);
            }
            Action::Attach { attachment, .. } => {
                self.attachments.insert(*attachment);
            }
            Action::Detach(attachment) => {
                self.attachments.remove(attachment);
                if let Some(endpoint) = attachment.endpoint_of_vips() {
                    self.end_port(endpoint);
                }
            }
            Action::SetPort { key, to, .. } => match to {
                Some(port) => {
                    let entry = RealizedPort {
                        port: *port,
                        is_ended: false,
                    };
                    self.ports.insert(*key, entry);
                }
                None => {
                    self.ports.remove(key);
                }
            },
            Action::SetTunnel { key, to, .. } => {
                match to {
                    Some(tunnel) => self.tunnels.insert(*key, *tunnel),
                    None => self.tunnels.remove(key),
                };
            }
            Action::SetAliases { to, .. } => self.aliases = to.as_ref().clone(),
            Action::SetVips { to, .. } => self.vips = to.as_ref().clone(),
            Action::SetWay { client, to, .. } => {
                match to {
                    Some(way) => self.ways.insert(*client, way.clone()),
                    None => self.ways.remove(client),
                };
            }
            Action::AddPool(pool) => {
                self.pools.insert(*pool);
            }
            Action::RemovePool(pool) => {
                self.pools.remove(pool);
            }
            Action::TakeOut { loopback, rules, .. } => {
                self.resolvers.insert(*loopback, rules.as_ref().clone());
            }
            Action::PutBack { loopback, .. } => {
                self.resolvers.remove(loopback);
            }
            Action::SetMacvlans { to, .. } => self.macvlans = to.as_ref().clone(),
            Action::SetLocalhost { to, .. } => self.led.clone_from(to),
            Action::Xdp(step) => {
                let (set, end, on) = match step {
                    XdpStep::Gro { end, on, .. } => (&mut self.xdp_gro, end, *on),
                    XdpStep::End { end, on, .. } => (&mut self.xdp_ends, end, *on),
                };
                if on {
                    set.insert(end.clone());
                } else {
                    set.remove(end);
                }
            }
            Action::SetSegments { end, bigger, .. } => {
                if *bigger {
                    self.segments.insert(*end);
                } else {
                    self.segments.remove(end);
                }
            }
        }
    }
}
