//! Virtual addresses: what comes in which order, and what goes.

use crate::{
    diff::{Action, Attachment, Hook, Realized, attach},
    plan::{Desired, VipTable},
};

/// Who is given. What is to go is still answered, with what it was: clients are told of it until the aliases have
/// changed.
pub(super) fn first(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    set(&realized.vips, both(desired, realized), actions);
}

/// Ways to them, before anybody is told of them.
pub(super) fn come(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let wanted = &desired.aliases.vips;
    for pool in wanted.pools.difference(&realized.pools) {
        actions.push(Action::AddPool(*pool));
    }
    for (&device, name) in &wanted.endpoints {
        for hook in Hook::BOTH {
            let attachment = Attachment::of_vips(device, hook);
            attach(attachment, name, realized, actions);
        }
    }
    for (client, (way, container)) in &wanted.clients {
        let from = realized.ways.get(client);
        if from != Some(way) {
            actions.push(Action::SetWay {
                client: *client,
                container: container.clone(),
                from: from.cloned(),
                to: Some(way.clone()),
            });
        }
    }
}

/// What nobody is told of any more.
pub(super) fn go(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let wanted = &desired.aliases.vips;
    set(&both(desired, realized), wanted.table.clone(), actions);
    for (client, way) in &realized.ways {
        if !wanted.clients.contains_key(client) {
            actions.push(Action::SetWay {
                client: *client,
                container: format!("process {}", client.pid),
                from: Some(way.clone()),
                to: None,
            });
        }
    }
    for found in &realized.attachments {
        let endpoint = found.endpoint_of_vips();
        if endpoint.is_some_and(|endpoint| !wanted.endpoints.contains_key(&endpoint)) {
            actions.push(Action::Detach(*found));
        }
    }
    for pool in realized.pools.difference(&wanted.pools) {
        actions.push(Action::RemovePool(*pool));
    }
}

fn set(from: &VipTable, to: VipTable, actions: &mut Vec<Action>) {
    if *from != to {
        actions.push(Action::SetVips {
            from: Box::new(from.clone()),
            to: Box::new(to),
        });
    }
}

/// What is wanted, with the services that are to go, and their members.
fn both(desired: &Desired, realized: &Realized) -> VipTable {
    let mut both = desired.aliases.vips.table.clone();
    for (vip, service) in &realized.vips.services {
        if both.services.contains_key(vip) {
            continue;
        }
        both.services.insert(*vip, service.clone());
        let members = realized.vips.members.iter().filter(|(key, _)| key.alias == service.id);
        for (key, eligible) in members {
            both.members.entry(*key).or_insert(*eligible);
        }
    }
    both
}
