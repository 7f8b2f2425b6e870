//! macvlan networks: who is behind which parent, and the program there.

use crate::{
    diff::{Action, Attachment, Realized, attach},
    plan::Desired,
};

/// What the program is told; before that, it goes where it is not needed any more, and comes behind it where it is.
pub(super) fn macvlan(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let wanted = &desired.macvlans;
    let unwanted = realized.attachments.iter().filter(|found| {
        let parent = found.macvlan_parent();
        parent.is_some_and(|parent| !wanted.parents.contains_key(&parent))
    });
    actions.extend(unwanted.map(|found| Action::Detach(*found)));
    if wanted.table != realized.macvlans {
        actions.push(Action::SetMacvlans {
            from: Box::new(realized.macvlans.clone()),
            to: Box::new(wanted.table.clone()),
        });
    }
    for (&parent, name) in &wanted.parents {
        attach(Attachment::of_macvlan(parent), name, realized, actions);
    }
}
