//! Tunnels whose outer headers are repeated: what is said of them, and the programs at their devices and at uplinks.

use std::collections::BTreeSet;

use netfast_common::{device::Kind, tunnel::Tunnel};

use crate::{
    diff::{Action, Attachment, Realized, attach},
    plan::Desired,
};

/// Those that must not be repeated any more, or not as they are, and programs that nobody needs.
pub fn go(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let gone = realized
        .tunnels
        .iter()
        .filter(|(key, found)| desired.tunnels.get(key) != Some(found));
    actions.extend(gone.map(|(key, found)| Action::SetTunnel {
        key: *key,
        from: Some(*found),
        to: None,
    }));
    let wanted: BTreeSet<Attachment> = wanted(desired).map(|(attachment, _)| attachment).collect();
    let found = realized.attachments.iter();
    let unwanted = found.filter(|found| found.device_of_tunnels().is_some() && !wanted.contains(found));
    actions.extend(unwanted.map(|found| Action::Detach(*found)));
}

/// Those that are not said yet, with their programs.
pub fn come(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    for (attachment, name) in wanted(desired) {
        attach(attachment, name, realized, actions);
    }
    let come = desired
        .tunnels
        .iter()
        .filter(|(key, tunnel)| realized.tunnels.get(key) != Some(tunnel));
    actions.extend(come.map(|(key, tunnel)| Action::SetTunnel {
        key: *key,
        from: None,
        to: Some(*tunnel),
    }));
}

/// The programs, each with the name of its interface: none without a tunnel. A tunnel within a tunnel is the kernel's.
fn wanted(desired: &Desired) -> impl Iterator<Item = (Attachment, &str)> {
    let of = |key| Some(desired.devices.get(&key)?.name.as_str());
    let is_tunnel = |name: &str| desired.tunnel_reports.iter().any(|report| report.name == name);
    let uplinks = desired
        .devices
        .iter()
        .filter(move |(_, spec)| !desired.tunnels.is_empty() && spec.kind == Kind::Uplink && !is_tunnel(&spec.name));
    let has_way_in = desired.tunnels.values().any(Tunnel::has_way_in);
    let at_uplinks = uplinks.flat_map(move |(key, spec)| {
        let way_in = has_way_in.then(|| Attachment::of_way_in(*key));
        let all = [Some(Attachment::of_tunnels_uplink(*key)), way_in];
        all.into_iter()
            .flatten()
            .map(|attachment| (attachment, spec.name.as_str()))
    });
    let at_tunnels = desired.tunnels.iter().filter_map(move |(key, tunnel)| {
        let taken = tunnel.has_way_in().then(|| Attachment::of_taken(*key));
        Some(([Some(Attachment::of_tunnel(*key)), taken], of(*key)?))
    });
    at_uplinks.chain(at_tunnels.flat_map(|(all, name)| all.into_iter().flatten().map(move |one| (one, name))))
}
