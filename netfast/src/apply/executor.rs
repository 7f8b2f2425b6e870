//! Does the actions of a diff, one after the other: all that is done to maps and hooks happens here.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use aya::{
    maps::{MapError, PerCpuValues},
    programs::{FEntry, RawTracePoint},
};
use netfast_common::{
    abi::{Program, map},
    control::Control,
    device::{Device, DeviceKey, Kind, Traffic},
};
use tracing::{debug, info};

use crate::{
    apply::{
        ApplyError, AttachError, Datapath, Mode,
        attach::{self, Place},
        clsact, map_error, object,
        resolver::ResolverError,
        routes::{self, WayError},
        segments,
    },
    diff::{Action, Attachment, RealizedDevice, Target},
    host::Mac,
};

/// What became of a list of actions.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was done, in order.
    pub done: Vec<Action>,
    /// What failed.
    pub failures: Vec<Failure>,
    /// The time was up before everything was done.
    pub unfinished: bool,
}

/// An action that failed.
#[derive(Debug)]
pub struct Failure {
    /// The action.
    pub action: Action,
    /// Why.
    pub error: ApplyError,
}

impl Failure {
    /// Whether it only came too late: the interface is gone, which is being announced.
    pub fn is_late(&self) -> bool {
        matches!(
            self.error,
            ApplyError::Attach {
                source: AttachError::Gone,
                ..
            } | ApplyError::Way {
                source: WayError::Enter(AttachError::Gone),
                ..
            } | ApplyError::Resolver {
                source: ResolverError::Enter(AttachError::Gone),
                ..
            } | ApplyError::Segments(WayError::Enter(AttachError::Gone))
        )
    }

    /// The failure with all its causes.
    pub fn text(&self) -> String {
        let mut text = format!("cannot {}: {}", self.action, self.error);
        let mut cause = std::error::Error::source(&self.error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl Datapath {
    /// Does these actions. One that fails ends what is done for its device, not what is done for others; one that is
    /// about no device keeps flows from being used, if they are not yet.
    ///
    /// Attaching waits for a grace period of RCU each time, under the lock of all network devices (`tcx_entry_sync`),
    /// so many containers at once take seconds: after `budget` what would come anew is left to the next pass.
    pub fn execute(&mut self, actions: Vec<Action>, budget: Option<Duration>) -> Outcome {
        let begin = Instant::now();
        let mut outcome = Outcome::default();
        let mut failed_devices = BTreeSet::new();
        let mut unsafe_to_use = false;
        let mut unreachable = Unreachable::default();
        for action in actions {
            let device = action.device();
            if device.is_some_and(|device| failed_devices.contains(&device))
                || (unsafe_to_use && starts_use(&action))
                || unreachable.forbids(&action)
            {
                continue;
            }
            if comes_anew(&action) && budget.is_some_and(|budget| begin.elapsed() > budget) {
                outcome.unfinished = true;
                break;
            }
            match self.act(&action) {
                Ok(()) => {
                    if let Some(news) = action.news() {
                        info!("{news}");
                    } else {
                        debug!("{action}");
                    }
                    self.realized.note(&action);
                    outcome.done.push(action);
                }
                Err(error) => {
                    unreachable.note(&action);
                    match device {
                        Some(device) => {
                            failed_devices.insert(device);
                        }
                        None => unsafe_to_use |= !action.is_about_aliases(),
                    }
                    outcome.failures.push(Failure { action, error });
                }
            }
        }
        outcome
    }

    /// Takes back what was done, in reverse; goes on after a failure.
    pub fn undo(&mut self, done: &[Action]) -> Outcome {
        self.execute(done.iter().rev().filter_map(Action::undo).collect(), None)
    }

    /// Makes every learned flow a miss, at once, before it is known what changed.
    pub fn new_epoch(&mut self) -> Result<(), ApplyError> {
        let epoch = self.realized.control.epoch.wrapping_add(1);
        let control = Control {
            epoch,
            ..self.realized.control
        };
        self.set_control(control)?;
        self.realized.control = control;
        Ok(())
    }

    /// Makes every learned flow that enters or leaves by a device a miss, at once, and ends direct forwarding from and to it.
    /// A device that is not ours has none of either.
    pub fn outdate(&mut self, device: DeviceKey) -> Result<(), ApplyError> {
        match self.slot(device) {
            Some(slot) => {
                self.realized.end_port(device);
                self.new_generation(slot)
            }
            None => Ok(()),
        }
    }

    /// A device changed: makes every flow a miss that enters or leaves by it. Packets between endpoints and the outside
    /// pass their bridge, too.
    pub fn outdate_device(&mut self, device: DeviceKey) -> Result<(), ApplyError> {
        self.suspend_xdp(device.ifindex)?;
        self.outdate(device)?;
        let kind = self.realized.devices.get(&device).and_then(|entry| entry.device.kind());
        match kind {
            Some(Kind::Bridge) => self.outdate_neighbour(device, None),
            Some(Kind::Uplink | Kind::Endpoint) | None => Ok(()),
        }
    }

    /// A neighbour behind a device is not who it was: makes every flow a miss that may have been learned through it.
    /// Behind a bridge those are the flows of the endpoint whose MAC address it had, since nothing is learned that
    /// leaves for another; without that address, those of all its endpoints.
    pub fn outdate_neighbour(&mut self, device: DeviceKey, mac: Option<Mac>) -> Result<(), ApplyError> {
        let devices = &self.realized.devices;
        match devices.get(&device).and_then(|entry| entry.device.kind()) {
            None => return Ok(()),
            Some(Kind::Uplink | Kind::Endpoint) => return self.new_epoch(),
            Some(Kind::Bridge) => {}
        }
        let is_behind = |entry: &RealizedDevice| {
            let master = entry.identity.as_ref().map(|identity| identity.master);
            master.is_none_or(|master| master == Some(device.ifindex))
        };
        let concerned = devices.iter().filter(|(key, entry)| {
            let is_named = mac.is_none_or(|mac| entry.device.mac == mac.0);
            key.netns == device.netns && entry.device.is_endpoint() && is_named && is_behind(entry)
        });
        let concerned: Vec<DeviceKey> = concerned.map(|(key, _)| *key).collect();
        concerned.into_iter().try_for_each(|key| self.outdate(key))
    }

    fn act(&mut self, action: &Action) -> Result<(), ApplyError> {
        match action {
            Action::NewEpoch { .. } => {
                let epoch = self.realized.control.epoch.wrapping_add(1);
                self.set_control(Control {
                    epoch,
                    ..self.realized.control
                })
            }
            Action::SetSwitches { to, pace, .. } => self.set_control(self.realized.control.with(*to, *pace)),
            // Nothing on the host depends on them.
            Action::NoteInputs(_) | Action::NoteIdentity { .. } => Ok(()),
            Action::AddDevice { key, device, .. } => {
                self.clear_traffic(device.slot)?;
                self.set_device(*key, *device)
            }
            Action::ChangeDevice { key, to, .. } => self.set_device(*key, *to),
            Action::RemoveDevice { key, device } => {
                match self.devices.remove(key) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(source) => return Err(map_error(map::DEVICES, source)),
                }
                self.new_generation(device.slot)
            }
            Action::Attach { attachment, to } => self.attach(*attachment, to),
            Action::Detach(attachment) => self.detach(*attachment),
            Action::SetPort { key, from, to } => self.set_port(*key, *from, *to),
            Action::SetTunnel { key, from, to } => self.set_tunnel(*key, *from, *to),
            Action::SetAliases { from, to } => self.aliases.change(from, to),
            Action::SetVips { from, to } => {
                self.aliases
                    .begin_cursors(to.services.values().map(|service| service.id))?;
                self.vips.change(from, to)
            }
            Action::SetWay { client, from, to, .. } => {
                let done = match (from, to) {
                    (Some(from), None) => routes::remove(*client, from),
                    _ => routes::set(*client, from.as_ref(), to.as_ref()),
                };
                done.map_err(|source| ApplyError::Way {
                    pid: client.pid,
                    source,
                })
            }
            Action::AddPool(pool) => routes::add_pool(*pool).map_err(ApplyError::Pool),
            Action::RemovePool(pool) => routes::remove_pool(*pool).map_err(ApplyError::Pool),
            Action::SetMacvlans { from, to } => self.macvlan.change(from, to),
            Action::SetLocalhost { from, to } => self.localhost.change(from, to),
            Action::TakeOut {
                loopback,
                container,
                rules,
            } => self.take_out(*loopback, container, rules),
            Action::PutBack { loopback, rules, .. } => self.put_back(*loopback, rules),
            Action::Xdp(step) => self.step_xdp(step),
            Action::SetSegments { end, bigger: true, .. } => segments::set(*end, true).map_err(ApplyError::Segments),
            Action::SetSegments { end, .. } => segments::restore(*end).map_err(ApplyError::Segments),
        }
    }

    fn set_control(&mut self, control: Control) -> Result<(), ApplyError> {
        // Leases are written by themselves. A tracer may renew its own just now: then it does so again in half a second.
        let found = self
            .control
            .get(&0, 0)
            .map_err(|source| map_error(map::CONTROL, source))?;
        let control = Control {
            traced_until: found.traced_until,
            direct_until_ns: found.direct_until_ns,
            ..control
        };
        self.control
            .set(0, control, 0)
            .map_err(|source| map_error(map::CONTROL, source))
    }

    /// First the entry, then the generation: what is learned in between dies with it.
    fn set_device(&mut self, key: DeviceKey, device: Device) -> Result<(), ApplyError> {
        self.devices
            .insert(key, device, 0)
            .map_err(|source| map_error(map::DEVICES, source))?;
        self.new_generation(device.slot)
    }

    pub(super) fn new_generation(&mut self, slot: u16) -> Result<(), ApplyError> {
        let slot = u32::from(slot);
        let failed = |source| map_error(map::GENERATIONS, source);
        let generation: u32 = self.generations.get(&slot, 0).map_err(failed)?;
        self.generations
            .set(slot, generation.wrapping_add(1), 0)
            .map_err(failed)
    }

    /// A slot's counters are its device's.
    fn clear_traffic(&mut self, slot: u16) -> Result<(), ApplyError> {
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| ApplyError::Io {
            path: path.into(),
            source,
        })?;
        let zeros = PerCpuValues::try_from(vec![Traffic::default(); cpus]).map_err(|source| ApplyError::Io {
            path: map::TRAFFIC.into(),
            source,
        })?;
        self.traffic
            .set(slot.into(), zeros, 0)
            .map_err(|source| map_error(map::TRAFFIC, source))
    }

    /// Attaches a program; `to` is the name of the interface, as last seen, if it is one.
    pub(super) fn attach(&mut self, attachment: Attachment, to: &str) -> Result<(), ApplyError> {
        let Attachment { at, program } = attachment;
        let failed = |source| ApplyError::Attach { at, source };
        match at {
            Target::Interface { device, hook } if program == Program::UplinkXdp => {
                let ifindex = device.ifindex;
                let place = Place {
                    ifindex,
                    name: to,
                    hook,
                };
                self.attach_xdp(&attachment, place)
            }
            Target::Interface { device, hook } => {
                let program = object::get(&mut self.ebpf, program)?;
                let place = Place {
                    ifindex: device.ifindex,
                    name: to,
                    hook,
                };
                if self.mode == Mode::Clsact && clsact::add(device.ifindex).map_err(failed)? {
                    self.added_clsact.insert(device, to.into());
                }
                attach::attach(program, &self.pins, self.mode, &attachment, place).map_err(failed)
            }
            Target::Loopback(loopback) => {
                let program = object::get(&mut self.ebpf, program)?;
                attach::attach_inside(program, &self.pins, &attachment, loopback).map_err(failed)
            }
            Target::Cgroup => self.attach_to_cgroup(&attachment),
            Target::Function(_) => {
                let watch: &mut FEntry = object::get(&mut self.ebpf, program)?;
                let link = watch.attach().and_then(|id| watch.take_link(id));
                let link = link.map_err(|source| object::program_error(program, source))?;
                attach::pin(link.into(), self.pins.link(&attachment)).map_err(failed)
            }
            Target::Tracepoint(name) => {
                let watch: &mut RawTracePoint = object::get(&mut self.ebpf, program)?;
                let link = watch.attach(name).and_then(|id| watch.take_link(id));
                let link = link.map_err(|source| object::program_error(program, source))?;
                attach::pin(link.into(), self.pins.link(&attachment)).map_err(failed)
            }
        }
    }

    /// Detaches a program.
    fn detach(&mut self, attachment: Attachment) -> Result<(), ApplyError> {
        let Attachment { at, program } = attachment;
        let failed = |source| ApplyError::Attach { at, source };
        match (self.mode, at) {
            (Mode::Clsact, Target::Interface { device, hook }) => {
                // Gone with its interface, if that has no name any more.
                let Ok(name) = nix::net::if_::if_indextoname(device.ifindex) else {
                    return Ok(());
                };
                let name = name.to_string_lossy();
                let place = Place {
                    ifindex: device.ifindex,
                    name: &name,
                    hook,
                };
                attach::detach_filter(place, program.name()).map_err(failed)?;
            }
            _ => attach::detach(&self.pins, &attachment).map_err(failed)?,
        }
        // What was learned with its translation must not be used any more.
        let endpoint = attachment.endpoint_of_vips();
        let slot = endpoint.and_then(|device| self.slot(device));
        slot.map_or(Ok(()), |slot| self.new_generation(slot))
    }
}

/// Virtual addresses that do not work since an action failed: nobody must be told of them.
#[derive(Debug, Default)]
struct Unreachable {
    all: bool,
    netns: BTreeSet<u64>,
    /// Where the program must stay that does what Docker's rules did, since these could not be put back; and where it is not.
    resolvers: BTreeSet<u64>,
}

impl Unreachable {
    fn note(&mut self, failed: &Action) {
        if let Action::SetVips { .. } | Action::AddPool(_) | Action::RemovePool(_) = failed {
            self.all = true;
        } else if let Action::SetWay { client, .. } = failed {
            self.netns.insert(client.netns);
        } else if let Action::PutBack { loopback, .. } = failed {
            self.resolvers.insert(loopback.netns);
        } else if let Action::Attach { attachment, .. } = failed
            && let (Some(loopback), Program::Resolver) = (attachment.loopback(), attachment.program)
        {
            self.resolvers.insert(loopback.netns);
        }
    }

    fn forbids(&self, action: &Action) -> bool {
        if let Action::Detach(attachment) = action
            && let (Some(loopback), Program::Resolver) = (attachment.loopback(), attachment.program)
        {
            return self.resolvers.contains(&loopback.netns);
        }
        if let Action::TakeOut { loopback, .. } = action {
            return self.resolvers.contains(&loopback.netns);
        }
        if let Action::Attach { attachment, .. } = action
            && attachment.program == Program::Answer
            && let Some(loopback) = attachment.loopback()
        {
            return self.netns.contains(&loopback.netns);
        }
        self.all && matches!(action, Action::SetAliases { .. })
    }
}

/// Whether an action adds something that nothing else waits for.
fn comes_anew(action: &Action) -> bool {
    matches!(action, Action::AddDevice { .. } | Action::Attach { .. })
}

/// Whether an action lets flows be used or learned that were not.
fn starts_use(action: &Action) -> bool {
    matches!(action, Action::SetSwitches { from, to, .. } if to & !from != 0)
}
