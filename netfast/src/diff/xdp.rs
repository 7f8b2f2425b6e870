//! XDP at uplinks: who takes frames, and the programs.

use std::{collections::BTreeSet, fmt};

use crate::{
    diff::{Action, Attachment, Realized, attach},
    plan::{Desired, XdpEnd},
};

/// A step of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XdpStep {
    /// Lets a container's interface take frames (GRO), or makes it as it was.
    Gro {
        /// The interface.
        end: XdpEnd,
        /// Its name on the host.
        name: String,
        /// Whether it shall.
        on: bool,
    },
    /// Lets frames be sent to it, or no longer.
    End {
        /// The interface.
        end: XdpEnd,
        /// Its name on the host.
        name: String,
        /// Whether they may.
        on: bool,
    },
}

impl XdpStep {
    /// The step that takes this one back.
    #[must_use]
    pub fn undo(&self) -> Self {
        match self.clone() {
            Self::Gro { end, name, on } => Self::Gro { end, name, on: !on },
            Self::End { end, name, on } => Self::End { end, name, on: !on },
        }
    }
}

impl fmt::Display for XdpStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gro { name, on: true, .. } => write!(f, "let the container behind {name} take frames"),
            Self::Gro { name, on: false, .. } => write!(f, "no longer let the container behind {name} take frames"),
            Self::End { name, on: true, .. } => write!(f, "send frames to {name}"),
            Self::End { name, on: false, .. } => write!(f, "no longer send frames to {name}"),
        }
    }
}

/// What is not wanted any more: programs first, then the ends, and what was done to them last.
pub fn go(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    let wanted: BTreeSet<Attachment> = attachments(desired).map(|(attachment, _)| attachment).collect();
    let found = realized.attachments.iter().filter(|found| found.program.is_for_xdp());
    let unwanted = found.filter(|found| !wanted.contains(found));
    actions.extend(unwanted.map(|found| Action::Detach(*found)));
    let ends = &desired.xdp.ends;
    let gone = |all: &BTreeSet<XdpEnd>, is_down: bool| {
        let stays = |end: &XdpEnd| ends.get(end).is_some_and(|wish| wish.up || !is_down);
        let gone = all.iter().filter(|end| !stays(end)).cloned();
        gone.collect::<Vec<_>>()
    };
    let off = |end: &XdpEnd| (end.clone(), format!("device {}", end.veth));
    actions.extend(gone(&realized.xdp_ends, true).iter().map(off).map(|(end, name)| {
        let on = false;
        Action::Xdp(XdpStep::End { end, name, on })
    }));
    actions.extend(gone(&realized.xdp_gro, false).iter().map(off).map(|(end, name)| {
        let on = false;
        Action::Xdp(XdpStep::Gro { end, name, on })
    }));
}

/// What is wanted: the ends, then the programs.
pub fn come(desired: &Desired, realized: &Realized, actions: &mut Vec<Action>) {
    for (end, wish) in desired.xdp.ends.iter().filter(|(_, wish)| wish.up) {
        let step = |make: fn(XdpEnd, String) -> XdpStep| Action::Xdp(make(end.clone(), wish.name.clone()));
        if wish.gro && !realized.xdp_gro.contains(end) {
            actions.push(step(|end, name| XdpStep::Gro { end, name, on: true }));
        }
        if !realized.xdp_ends.contains(end) {
            actions.push(step(|end, name| XdpStep::End { end, name, on: true }));
        }
    }
    for (attachment, name) in attachments(desired) {
        attach(attachment, name, realized, actions);
    }
}

/// The programs, each with the name of its interface.
fn attachments(desired: &Desired) -> impl Iterator<Item = (Attachment, &str)> {
    let uplinks = desired.xdp.uplinks.iter();
    uplinks.map(|(key, name)| (Attachment::of_xdp(*key), name.as_str()))
}
