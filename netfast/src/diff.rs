//! The difference between what is desired and what is realized, as an ordered list of actions. Pure.
//!
//! The order is what keeps the host right while the list is being worked through:
//!
//! 1. What must not be used any more stops first: a new epoch, switches that go off, ports between which packets are no
//!    longer forwarded directly.
//! 2. Devices that go away: their entry, then a new generation of their slot (their flows die), then their programs.
//! 3. Devices that come or change: the entry and a new generation, then the programs.
//!    So do tunnels whose outer headers are repeated: first the programs at uplinks, then the one at the tunnel, then what is
//!    said of it.
//! 4. Switches that go on, and ports: each holds for the generation that its device then has.
//! 5. What containers are told by name; no flow depends on it. A virtual address is told only when there is a way to it
//!    and it stands for somebody, and goes only when it is told no more.
//! 6. What the host and its containers on macvlan networks know of each other, and how big segments are, of which no flow knows.
//! 7. Who takes frames from XDP at uplinks, and then the programs there; these go among the first.
//! 8. Docker's rules for its resolver inside containers: they come back before the program goes that does the same, and go
//!    after it has come.
//! 8. The host's programs are led past docker-proxy last: all of it must be there by then, and existing connections do not
//!    depend on it.
//!
//! Who is given for a virtual address changes before all that takes time, since a member that has ended must not be given.
//!
//! Only the slot of the device concerned gets a new generation, so containers that come and go do not disturb the
//! flows of others.

use std::collections::BTreeSet;

pub use netfast_common::abi::Hook;
use netfast_common::{
    abi::{MAX_DEVICES, Program},
    device::DeviceKey,
};

mod action;
mod attachment;
mod localhost;
mod macvlan;
mod realized;
mod resolver;
mod tunnels;
mod vips;
mod xdp;

pub use action::Action;
pub use attachment::{Attachment, Target};
pub use realized::{Realized, RealizedDevice, RealizedPort};
pub use xdp::XdpStep;

use crate::plan::{Desired, DeviceSpec};

/// What to do, in this order, to get from `realized` to `desired`.
pub fn diff(desired: &Desired, realized: &Realized) -> Vec<Action> {
    let mut actions = Vec::new();
    epoch(desired, realized, &mut actions);
    vips::first(desired, realized, &mut actions);
    let (now, wanted) = (realized.control, desired.control(realized.control.epoch));
    let kept = now.switches & wanted.switches;
    // Going off, or another pace: first. Going on: last.
    if (kept, wanted.pace()) != (now.switches, now.pace()) {
        actions.push(Action::SetSwitches {
            from: now.switches,
            to: kept,
            pace: wanted.pace(),
        });
    }
    ports_that_go(desired, realized, &mut actions);
    tunnels::go(desired, realized, &mut actions);
    xdp::go(desired, realized, &mut actions);
    let gone = removals(desired, realized, &mut actions);
    additions(desired, realized, &gone, &mut actions);
    tunnels::come(desired, realized, &mut actions);
    if wanted.switches != kept {
        actions.push(Action::SetSwitches {
            from: kept,
            to: wanted.switches,
            pace: wanted.pace(),
        });
    }
    aliases(desired, realized, &mut actions);
    ports_that_come(desired, realized, &mut actions);
    macvlan::macvlan(desired, realized, &mut actions);
    resolver::resolvers(desired, realized, &mut actions);
    localhost::localhost(desired, realized, &mut actions);
    segments(desired, realized, &mut actions);
    xdp::come(desired, realized, &mut actions);
    actions
}

/// Ports between which packets must not be forwarded directly any more, or not as they are.
fn ports_that_go(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let gone = realized
        .ports
        .iter()
        .filter(|(key, found)| desired.direct.get(key) != Some(&found.port));
    actions.extend(gone.map(|(key, found)| Action::SetPort {
        key: *key,
        from: Some(found.port),
        to: None,
    }));
}

/// Those that are not there, or do not hold any more after these actions.
fn ports_that_come(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let mut after = realized.ports.clone();
    let mut note = |key, is_gone| match (after.get_mut(&key), is_gone) {
        (Some(found), false) => found.is_ended = true,
        (Some(_), true) => drop(after.remove(&key)),
        (None, _) => {}
    };
    for action in &*actions {
        match action {
            Action::AddDevice { key, .. } | Action::ChangeDevice { key, .. } | Action::RemoveDevice { key, .. } => {
                note(*key, false);
            }
            Action::SetPort { key, .. } => note(*key, true),
            Action::Detach(attachment) => {
                if let Some(key) = attachment.endpoint_of_vips() {
                    note(key, false);
                }
            }
            Action::NewEpoch { .. }
            | Action::NoteInputs(_)
            | Action::SetSwitches { .. }
            | Action::NoteIdentity { .. }
            | Action::Attach { .. }
            | Action::SetTunnel { .. }
            | Action::SetAliases { .. }
            | Action::SetVips { .. }
            | Action::SetWay { .. }
            | Action::AddPool(_)
            | Action::RemovePool(_)
            | Action::TakeOut { .. }
            | Action::PutBack { .. }
            | Action::SetMacvlans { .. }
            | Action::SetLocalhost { .. }
            | Action::Xdp(_)
            | Action::SetSegments { .. } => {}
        }
    }
    let come = desired.direct.iter().filter_map(|(key, port)| {
        let found = after.get(key);
        found.is_none_or(|found| found.is_ended).then_some(Action::SetPort {
            key: *key,
            from: found.map(|found| found.port),
            to: Some(*port),
        })
    });
    let come: Vec<Action> = come.collect();
    actions.extend(come);
}

/// A program that goes first, since two on one interface would count twice; then the maps, then programs that come.
fn aliases(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let wanted = &desired.aliases;
    let gone = realized.attachments.iter().filter(|found| {
        let answers = found.loopback().filter(|_| found.program == Program::Answer);
        answers.is_some_and(|loopback| !wanted.loopbacks.contains_key(&loopback))
    });
    actions.extend(gone.map(|found| Action::Detach(*found)));
    vips::come(desired, realized, actions);
    if wanted.table != realized.aliases {
        actions.push(Action::SetAliases {
            from: Box::new(realized.aliases.clone()),
            to: Box::new(wanted.table.clone()),
        });
    }
    for (loopback, container) in &wanted.loopbacks {
        attach(Attachment::of_answers(*loopback), container, realized, actions);
    }
    vips::go(desired, realized, actions);
}

/// Who sends stops before those who carry it, and begins after them.
fn segments(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let unwanted = realized.segments.iter().rev();
    let unwanted = unwanted.filter(|end| !desired.segments.contains_key(end));
    actions.extend(unwanted.map(|end| Action::SetSegments {
        end: *end,
        name: end.to_string(),
        bigger: false,
    }));
    let come = desired
        .segments
        .iter()
        .filter(|(end, _)| !realized.segments.contains(end));
    actions.extend(come.map(|(end, name)| Action::SetSegments {
        end: *end,
        name: name.clone(),
        bigger: true,
    }));
}

/// Attaches a program, unless it is.
fn attach(attachment: Attachment, to: &str, realized: &Realized, actions: &mut Vec<Action>) {
    if !realized.attachments.contains(&attachment) {
        actions.push(Action::Attach {
            attachment,
            to: to.into(),
        });
    }
}

fn epoch(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    match &realized.inputs {
        None => actions.push(Action::NewEpoch {
            inputs: Box::new(desired.inputs.clone()),
            causes: BTreeSet::new(),
        }),
        Some(inputs) => {
            let causes = inputs.causes(&desired.inputs);
            if !causes.is_empty() {
                actions.push(Action::NewEpoch {
                    inputs: Box::new(desired.inputs.clone()),
                    causes,
                });
            } else if *inputs != desired.inputs {
                // Neighbours that were met: nothing was learned through them yet.
                actions.push(Action::NoteInputs(Box::new(desired.inputs.clone())));
            }
        }
    }
}

/// Takes away devices that are not desired, or desired as another kind; returns their slots' owners.
fn removals(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) -> BTreeSet<DeviceKey> {
    let wanted_kind = |key| desired.devices.get(&key).map(|spec| spec.kind);
    let mut gone = BTreeSet::new();
    for (&key, found) in &realized.devices {
        if wanted_kind(key).is_none() || wanted_kind(key) != found.device.kind() {
            gone.insert(key);
            actions.push(Action::RemoveDevice {
                key,
                device: found.device,
            });
        }
    }
    for found in &realized.attachments {
        let of_device = found.device_of_kind();
        if of_device.is_some_and(|(device, kind)| wanted_kind(device) != Some(kind)) {
            actions.push(Action::Detach(*found));
        }
    }
    gone
}

fn additions(desired: &Desired, realized: &Realized, gone: &BTreeSet<DeviceKey>, actions: &mut Vec<Action>) {
    let kept = |key: &DeviceKey| realized.devices.get(key).filter(|_| !gone.contains(key));
    let taken: BTreeSet<u16> = desired
        .devices
        .keys()
        .filter_map(|key| kept(key).map(|found| found.device.slot))
        .collect();
    let mut free = free_slots(&taken);
    let outdated = realized
        .inputs
        .as_ref()
        .map(|inputs| inputs.outdated(&desired.inputs))
        .unwrap_or_default();
    for (&key, spec) in &desired.devices {
        match kept(&key) {
            Some(found) => change(key, spec, found, outdated.contains(&key), actions),
            // The plan asks for no more devices than there are slots.
            None => match free.next() {
                Some(slot) => actions.push(Action::AddDevice {
                    key,
                    device: spec.device(slot),
                    identity: spec.identity.clone(),
                }),
                None => continue,
            },
        }
        for hook in Hook::BOTH {
            let attachment = Attachment::of_device(key, spec.kind, hook);
            attach(attachment, &spec.name, realized, actions);
        }
    }
}

fn change(key: DeviceKey, spec: &DeviceSpec, found: &RealizedDevice, outdated: bool, actions: &mut Vec<Action>) {
    let to = spec.device(found.device.slot);
    // What a daemon before us knew of it is not known, but then the epoch is new anyway.
    let same = found
        .identity
        .as_ref()
        .is_none_or(|identity| *identity == spec.identity);
    if to != found.device || !same || outdated {
        actions.push(Action::ChangeDevice {
            key,
            from: found.device,
            to,
            identity: spec.identity.clone(),
        });
    } else if found.identity.is_none() {
        actions.push(Action::NoteIdentity {
            key,
            identity: spec.identity.clone(),
        });
    }
}

/// Slots that nobody has, lowest first.
fn free_slots(taken: &BTreeSet<u16>) -> impl Iterator<Item = u16> + '_ {
    (0..u16::try_from(MAX_DEVICES).unwrap_or(u16::MAX)).filter(|slot| !taken.contains(slot))
}

#[cfg(test)]
mod tests;
