//! XDP at uplinks: the programs, attached, and the ends that take frames.

use std::{collections::BTreeSet, io, path::Path};

use aya::{
    maps::{MapError, xdp::XdpMapError},
    programs::{
        ProgramError, Xdp,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode},
    },
    sys::SyscallError,
};
use netfast_common::{
    abi::{PREFIX, map},
    xdp::{CHANGES, LEASE_NS, SEEN, UNTIL},
};
use nix::net::if_::if_indextoname;
use tracing::warn;

use crate::{
    apply::{
        ApplyError, AttachError, Datapath,
        attach::{self, Place},
        lease, map_error,
        pins::Pins,
    },
    config::{Config, XdpMode as Wish},
    diff::{Attachment, XdpStep},
    host::{Host, LinkKind},
    observe::{netlink, xdp},
    plan::{XdpEnd, XdpFacts},
    probe,
    sys::ethtool,
};

mod watch;

pub(super) use watch::{State, Watch};

/// Asks drivers and namespaces what the plan must know, if somebody wants XDP. What cannot be asked is as if it could do nothing.
pub fn look(host: &Host, config: &Config, facts: &mut XdpFacts) {
    if config.xdp == Wish::Off || facts.off.is_some() {
        facts.refused.clear();
        return;
    }
    let links = &host.served().links;
    facts.refused.retain(|ifindex, _| links.contains_key(ifindex));
    match xdp::features().and_then(|features| Ok((features, xdp::namespaces()?))) {
        Ok((features, namespaces)) => {
            facts.features = features;
            let places = namespaces.into_iter();
            facts.namespaces = places.map(|(nsid, place)| (nsid, (place.netns, place.path))).collect();
        }
        Err(error) => {
            warn!("no XDP: {error}");
            facts.features.clear();
        }
    }
    let cards = links.values().filter(|link| matches!(link.kind, LinkKind::Physical));
    let untagging = cards.filter(|link| ethtool::takes_tags_off(&link.name).unwrap_or(true));
    facts.untagging = untagging.map(|link| link.ifindex).collect();
    let programs = links.values().filter_map(|link| link.xdp.native);
    let is_ours = |id: &u32| probe::program_name(*id).is_some_and(|name| name.starts_with(PREFIX));
    facts.own = programs.filter(is_ours).collect();
}

impl Datapath {
    /// An interface has changed: if frames are sent to it, none are until it has been looked at.
    pub(super) fn suspend_xdp(&mut self, ifindex: u32) -> Result<(), ApplyError> {
        let is_end = self.realized.xdp_ends.iter().any(|end| end.veth == ifindex);
        if !is_end {
            return Ok(());
        }
        self.xdp_state
            .count()
            .map_err(|source| map_error(map::XDP_STATE, source))
    }

    /// Says that the daemon lives, and has looked.
    fn renew_xdp(&mut self) -> Result<(), ApplyError> {
        if self.realized.xdp_ends.is_empty() {
            return Ok(());
        }
        if self.xdp_watch.is_none() {
            self.xdp_watch = Watch::start(&self.xdp_state)
                .inspect_err(|error| warn!("no XDP: {error}"))
                .ok();
            // What happened before it listened is looked for once more.
            return self
                .xdp_state
                .count()
                .map_err(|source| map_error(map::XDP_STATE, source));
        }
        if self.xdp_watch.as_ref().is_none_or(Watch::has_ended) {
            return Ok(());
        }
        let until = lease::now_ns() + LEASE_NS;
        let done = self.xdp_state.set(UNTIL, until);
        done.map_err(|source| map_error(map::XDP_STATE, source))
    }

    /// The interfaces that take frames by netfast's doing, as an earlier daemon wrote down.
    pub fn remember_xdp(&mut self, ends: impl IntoIterator<Item = XdpEnd>) {
        self.realized.xdp_gro = ends.into_iter().collect();
    }

    /// The interfaces that take frames by netfast's doing.
    pub fn xdp_gro(&self) -> &BTreeSet<XdpEnd> {
        &self.realized.xdp_gro
    }

    /// How many interfaces frames are sent to.
    pub fn xdp_ends(&self) -> usize {
        self.realized.xdp_ends.len()
    }

    /// Asks drivers and namespaces what the plan must know, if somebody wants XDP.
    pub fn look_at_xdp(&mut self, host: &Host, config: &Config) {
        look(host, config, &mut self.facts.xdp);
    }

    pub(super) fn step_xdp(&mut self, step: &XdpStep) -> Result<(), ApplyError> {
        match step {
            XdpStep::Gro { end, on: true, .. } => set_gro(end, true).map_err(ApplyError::Xdp),
            XdpStep::Gro { end, on: false, .. } => restore(end).map_err(ApplyError::Xdp),
            XdpStep::End { end, on: true, .. } => {
                if let Err(error) = is_sound(end) {
                    if error.is_for_good() {
                        self.facts.xdp.refused.insert(end.veth, error.to_string());
                    }
                    return Err(ApplyError::Xdp(error));
                }
                let done = self.xdp_ends.insert(end.veth, end.veth, None, 0);
                done.map_err(|error| map_error(map::XDP_ENDS, plain(error)))
            }
            XdpStep::End { end, on: false, .. } => self.forget_xdp_end(end.veth),
        }
    }

    fn forget_xdp_end(&mut self, veth: u32) -> Result<(), ApplyError> {
        match self.xdp_ends.remove(veth) {
            // The kernel takes those away that are gone.
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(source) => Err(map_error(map::XDP_ENDS, source)),
        }
    }

    /// Looks at the ends again, if something could have changed them since; only then frames are sent again. Whether there is
    /// one that takes none any more: then there is something to plan.
    pub fn confirm_xdp(&mut self) -> bool {
        match self.look_at_ends() {
            Ok(changed) => changed,
            Err(error) => {
                warn!("{:#}; no XDP until that can be done", anyhow::Error::new(error));
                false
            }
        }
    }

    fn look_at_ends(&mut self) -> Result<bool, ApplyError> {
        let failed = |source| map_error(map::XDP_STATE, source);
        let (changes, seen) = (
            self.xdp_state.get(CHANGES).map_err(failed)?,
            self.xdp_state.get(SEEN).map_err(failed)?,
        );
        if changes == seen {
            self.renew_xdp()?;
            return Ok(false);
        }
        let mut lost = Vec::new();
        for end in &self.realized.xdp_ends {
            if let Err(error) = is_sound(end) {
                lost.push((end.clone(), error));
            }
        }
        let is_any = !lost.is_empty();
        for (end, error) in lost {
            self.forget_xdp_end(end.veth)?;
            self.realized.xdp_ends.remove(&end);
            // Somebody else has switched it off: it is not ours to switch on again, nor to restore.
            if error.is_for_good() {
                self.realized.xdp_gro.remove(&end);
                self.facts.xdp.refused.insert(end.veth, error.to_string());
            }
        }
        self.xdp_state.set(SEEN, changes).map_err(failed)?;
        self.renew_xdp()?;
        Ok(is_any)
    }

    /// Attaches the program to an uplink's driver.
    pub(super) fn attach_xdp(&mut self, attachment: &Attachment, place: Place<'_>) -> Result<(), ApplyError> {
        let program: &mut Xdp = super::object::get(&mut self.ebpf, attachment.program)?;
        attach_to(program, &self.pins, attachment, place).map_err(|source| {
            let words = anyhow::Error::new(source)
                .chain()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": ");
            self.facts
                .xdp
                .refused
                .insert(place.ifindex, format!("its driver does not take the program: {words}"));
            ApplyError::Attach {
                at: attachment.at,
                source: AttachError::Refused(words),
            }
        })
    }
}

/// By a link, in the driver or not at all, and in nobody's place.
fn attach_to(program: &mut Xdp, pins: &Pins, attachment: &Attachment, place: Place<'_>) -> Result<(), AttachError> {
    place.check()?;
    let id = program.attach_to_if_index(place.ifindex, XdpMode::Driver)?;
    // Dropped before it is pinned, it detaches.
    let link = FdLink::try_from(program.take_link(id)?)?;
    attach::pin(link, pins.link(attachment))
}

/// Puts a new program into the pinned link of an uplink. `false`: the interface is gone, and so is the pin now.
pub(super) fn adopt(program: &mut Xdp, pins: &Pins, attachment: &Attachment) -> Result<bool, AttachError> {
    let link = FdLink::from(PinnedLink::from_pin(pins.link(attachment))?);
    match program.attach_to_link(XdpLink::try_from(link)?) {
        Ok(id) => {
            drop(program.take_link(id)?);
            Ok(true)
        }
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(libc::ENOLINK) =>
        {
            attach::detach(pins, attachment)?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn plain(error: XdpMapError) -> MapError {
    match error {
        XdpMapError::MapError(error) => error,
        XdpMapError::ChainedProgramNotSupported => MapError::ProgramNotLoaded,
    }
}

/// Whether frames that are sent to a container's interface arrive there: it is up and has NAPI. A veth has NAPI for as long as GRO
/// is on at the end that receives (`veth_set_features`, `veth_open`, drivers/net/veth.c), and tells the other end
/// that frames can be sent to it; but not when GRO is switched while it is down. So both is asked.
fn is_sound(end: &XdpEnd) -> Result<(), XdpError> {
    let link = netlink::interface(end.veth).map_err(|_| XdpError::Gone)?;
    if !link.is_some_and(|link| link.up && link.lower_up) {
        return Err(XdpError::Down);
    }
    if !inside(end, |name| Ok(ethtool::has_gro(name)?))? {
        return Err(XdpError::NoGro);
    }
    let features = xdp::features().map_err(|_| XdpError::Gone)?;
    let takes = features.get(&end.veth).is_some_and(|has| has & xdp::TAKES_FRAMES != 0);
    takes.then_some(()).ok_or(XdpError::NoNapi)
}

/// Switches GRO of a container's interface.
fn set_gro(end: &XdpEnd, on: bool) -> Result<(), XdpError> {
    inside(end, |name| Ok(ethtool::set_gro(name, on)?))
}

/// Switches it off again; what is gone is not on.
pub fn restore(end: &XdpEnd) -> Result<(), XdpError> {
    match set_gro(end, false) {
        Err(XdpError::Gone) => Ok(()),
        done => done,
    }
}

/// Does something in the namespace of a container's interface, which it is told the name of.
fn inside<T: Send>(end: &XdpEnd, act: impl FnOnce(&str) -> Result<T, XdpError> + Send) -> Result<T, XdpError> {
    attach::in_namespace_at(Path::new(&end.path), end.netns, || {
        let name = if_indextoname(end.ifindex).map_err(|_| XdpError::Gone)?;
        act(&name.to_string_lossy())
    })
}

/// Why an interface takes no frames.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// It, or its namespace.
    #[error("the container's interface is gone")]
    Gone,
    /// One of its ends.
    #[error("the container's interface is down")]
    Down,
    /// Somebody has switched it off.
    #[error("GRO was switched off in the container")]
    NoGro,
    /// The kernel says so.
    #[error("the container's interface takes no frames")]
    NoNapi,
    /// The namespace cannot be entered.
    #[error(transparent)]
    Enter(AttachError),
    /// The interface refuses.
    #[error("GRO in the container")]
    Ethtool(#[source] io::Error),
}

impl XdpError {
    /// Whether it stays so until somebody else changes it.
    const fn is_for_good(&self) -> bool {
        matches!(self, Self::NoGro | Self::NoNapi)
    }
}

impl From<io::Error> for XdpError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENODEV) => Self::Gone,
            _ => Self::Ethtool(error),
        }
    }
}

impl From<AttachError> for XdpError {
    fn from(error: AttachError) -> Self {
        if matches!(error, AttachError::Gone) {
            Self::Gone
        } else {
            Self::Enter(error)
        }
    }
}
