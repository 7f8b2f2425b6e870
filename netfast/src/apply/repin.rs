//! Pins that were removed behind our back: by hand, or with the whole BPF file system when that is mounted anew. The pin
//! of a link is what keeps its program attached, so the fast path goes with it.

use std::{collections::BTreeSet, path::Path};

use aya::maps::{MapData, MapInfo};
use netfast_common::abi::map;
use tracing::warn;

use crate::{
    apply::{ApplyError, Datapath, Mode, map_error, mount::Place, pins::Pins},
    diff::Attachment,
};

/// The kernel's number of each pinned map: by it a map is found again that has lost its name.
pub(super) fn map_ids(pins: &Pins) -> Result<Vec<(&'static str, u32)>, ApplyError> {
    let id = |name| {
        let info = MapInfo::from_pin(pins.map(name)).map_err(|source| map_error(name, source))?;
        Ok((name, info.id()))
    };
    map::pinned().map(id).collect()
}

impl Datapath {
    /// Whether the maps' pins are there; a cheap look at one of them.
    pub fn has_pins(&self) -> bool {
        self.pins.map(map::CONTROL).exists()
    }

    /// Pins the maps again whose pins are gone, with all that is in them, and forgets the links whose pins are gone,
    /// so that the next diff attaches anew. Does nothing if all is there.
    pub fn repin(&mut self, run_dir: &Path) -> Result<(), ApplyError> {
        let maps: Vec<(&str, u32)> = self
            .map_ids
            .iter()
            .copied()
            .filter(|(name, _)| !self.pins.map(name).exists())
            .collect();
        let links = self.lost_links();
        let watch = self.queue_watch_error.is_none() && self.is_lost(&Attachment::QUEUE_WATCH);
        let ovs_watch = self.watches_ovs && self.is_lost(&Attachment::OVS_WATCH);
        let lost = maps.len() + links.len() + usize::from(watch) + usize::from(ovs_watch);
        if lost == 0 {
            return Ok(());
        }
        warn!(
            "{lost} pins in {} were removed by somebody else: pinning and attaching anew",
            self.pins.root().display()
        );
        // It is attached again before the next plan.
        self.watches_ovs &= !ovs_watch;
        if ovs_watch || links.iter().any(|link| link.at.device().is_some()) {
            // Connections may have ended and begun meanwhile that the programs did not see.
            self.new_epoch()?;
        }
        for link in links {
            self.realized.attachments.remove(&link);
        }
        self.pins.create()?;
        self.pins.mark_run_dir(run_dir).map_err(|source| ApplyError::Io {
            path: self.pins.root().into(),
            source,
        })?;
        for (name, id) in maps {
            let map = MapData::from_id(id).map_err(|source| map_error(name, source))?;
            let path = self.pins.map(name);
            map.pin(&path).map_err(|source| ApplyError::Pin {
                path,
                source: Box::new(source),
            })?;
        }
        if watch {
            self.attach(Attachment::QUEUE_WATCH, "")?;
        }
        self.place = Place::of(self.pins.root());
        Ok(())
    }

    /// Whether the pins are in a BPF file system that only this process sees any more.
    pub fn is_out_of_sight(&self) -> bool {
        let now = Place::of(self.pins.root());
        self.place.zip(now).is_some_and(|(then, now)| then.is_covered(now))
    }

    /// Filters of clsact have no pins.
    fn lost_links(&self) -> BTreeSet<Attachment> {
        if self.mode == Mode::Clsact {
            return BTreeSet::new();
        }
        let attachments = self.realized.attachments.iter();
        attachments.filter(|found| self.is_lost(found)).copied().collect()
    }

    fn is_lost(&self, attachment: &Attachment) -> bool {
        !self.pins.link(attachment).exists()
    }
}
