//! Takes everything that is netfast's from the host, from nothing but the pins: no daemon, no loaded program.

use std::{io, ops::Add, path::Path};

use aya::maps::Array;
use netfast_common::{
    abi::{Program, map},
    control::Control,
};
use tracing::{info, warn};

use crate::apply::{
    pinned,
    pins::{Pins, remove_file},
};

/// What was found and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Links that were unpinned.
    pub links: usize,
    /// Pin directories that were removed.
    pub directories: usize,
}

impl Remains {
    /// What there is of one ABI.
    fn of(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            links: pins.links()?.len(),
            directories: 1,
        })
    }
}

impl Add for Remains {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            links: self.links + other.links,
            directories: self.directories + other.directories,
        }
    }
}

/// Removes the pins of all ABIs in this pin directory; the programs are detached by that. Flows stop being used
/// first. Goes on after an error and returns the first.
pub fn remove(pin_dir: &Path) -> io::Result<Remains> {
    let own = remove_own(pin_dir);
    let others = other_abis(pin_dir)?;
    own.map(|own| own + others)
}

/// The same for pins of whichever network namespace: of one that may be gone, or that nobody is in.
pub fn remove_elsewhere(pin_dir: &Path) -> io::Result<Remains> {
    let own = remove_own(pin_dir);
    let mut others = Remains::default();
    for pins in Pins::of_other_abis(pin_dir)? {
        others = others + remove_other(&pins)?;
    }
    own.map(|own| own + others)
}

/// What [`remove_elsewhere`] would remove.
pub fn find_elsewhere(pin_dir: &Path) -> io::Result<Remains> {
    let all = all(pin_dir)?;
    all.iter()
        .try_fold(Remains::default(), |found, pins| Ok(found + Remains::of(pins)?))
}

/// What [`remove`] would remove.
pub fn find(pin_dir: &Path) -> io::Result<Remains> {
    let mut found = Remains::default();
    for pins in all(pin_dir)? {
        if !pins.of_other_namespace()? {
            found = found + Remains::of(&pins)?;
        }
    }
    Ok(found)
}

/// The pins of all ABIs, ours first.
fn all(pin_dir: &Path) -> io::Result<Vec<Pins>> {
    let ours = Pins::new(pin_dir);
    let ours = ours.exist().then_some(ours);
    Ok(ours.into_iter().chain(Pins::of_other_abis(pin_dir)?).collect())
}

/// Removes what builds with this ABI have pinned, and nothing of others.
pub fn remove_own(pin_dir: &Path) -> io::Result<Remains> {
    let ours = Pins::new(pin_dir);
    if !ours.exist() {
        return Ok(Remains::default());
    }
    // It only makes the order clean: without their links the programs see no packet.
    if let Err(error) = switch_off(&ours) {
        warn!("cannot switch the fast path off before it is removed: {error}");
    }
    let remains = Remains {
        links: ours.links().map_or(0, |links| links.len()),
        directories: 1,
    };
    links(&ours).and(ours.remove_maps()).map(|()| remains)
}

/// Takes the programs at resolvers' answers away, so that nobody is told of a virtual address any more; returns how many
/// links that were.
pub fn answers(pin_dir: &Path) -> io::Result<usize> {
    let pins = Pins::new(pin_dir);
    let mut first = Ok(());
    let mut links = 0;
    for found in pins.attachments()? {
        if found.program == Program::Answer {
            first = first.and(remove_file(&pins.link(&found)));
            links += 1;
        }
    }
    first.map(|()| links)
}

/// Removes what builds with another ABI left.
pub fn other_abis(pin_dir: &Path) -> io::Result<Remains> {
    let mut remains = Remains::default();
    for pins in Pins::of_other_abis(pin_dir)? {
        if pins.of_other_namespace()? {
            continue;
        }
        info!("removing what another version left in {}", pins.root().display());
        remains = remains + remove_other(&pins)?;
    }
    Ok(remains)
}

fn remove_other(pins: &Pins) -> io::Result<Remains> {
    let remains = Remains::of(pins)?;
    links(pins)?;
    pins.remove_maps()?;
    Ok(remains)
}

/// Unpins every link.
pub(super) fn links(pins: &Pins) -> io::Result<()> {
    let mut first = Ok(());
    for link in pins.links()? {
        first = first.and(remove_file(&link));
    }
    first
}

/// Lets no flow be used or learned any more, of what builds with this ABI have pinned.
pub fn switch_flows_off(pin_dir: &Path) -> io::Result<()> {
    switch_off(&Pins::new(pin_dir))
}

/// Lets no flow be used or learned any more.
fn switch_off(pins: &Pins) -> io::Result<()> {
    let mut control: Array<_, Control> = match pinned::open(pins, map::CONTROL) {
        Ok(control) => control,
        // Without the map no program has it either, or it was never whole.
        Err(_) if !pins.map(map::CONTROL).exists() => return Ok(()),
        Err(error) => return Err(io::Error::other(error)),
    };
    let found = control.get(&0, 0).map_err(io::Error::other)?;
    let off = Control { switches: 0, ..found };
    control.set(0, off, 0).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use netfast_common::{
        abi::Hook,
        device::{DeviceKey, Kind},
    };

    use super::*;
    use crate::{diff::Attachment, plan::Loopback};

    /// A dry run counts once; the removal goes in two steps when there are virtual addresses.
    #[test]
    fn what_is_found_is_as_much_as_what_is_removed_in_steps() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pins = Pins::new(dir.path());
        let endpoint = DeviceKey::served(7);
        let loopback = Loopback {
            netns: 4_026_532_000,
            pid: 17,
        };
        let attachments = BTreeSet::from([
            Attachment::of_device(endpoint, Kind::Endpoint, Hook::Ingress),
            Attachment::of_device(endpoint, Kind::Endpoint, Hook::Egress),
            Attachment::of_answers(loopback),
        ]);
        for attachment in &attachments {
            let path = pins.link(attachment);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, []).expect("a pin");
        }
        let found = find(dir.path()).expect("readable");
        assert_eq!((found.links, found.directories), (3, 1));
        let first = answers(dir.path()).expect("removable");
        let then = remove(dir.path()).expect("removable");
        assert_eq!((first, then.links, then.directories), (1, 2, 1));
        assert_eq!(find(dir.path()).expect("readable"), Remains::default());
    }

    /// As in the namespace of an overlay network, which nobody enters for it, or which is gone.
    #[test]
    fn pins_of_another_namespace_go_when_they_are_meant() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (ours, other) = (Pins::new(dir.path()), dir.path().join("v0"));
        for (root, link) in [(ours.root(), "netfast_ep_in-0-7"), (other.as_path(), "7-out")] {
            for name in ["maps/netfast_flows4", &format!("links/{link}")] {
                let path = root.join(name);
                fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
                fs::write(path, []).expect("a pin");
            }
            std::os::unix::fs::symlink("1:2", root.join("netns")).expect("a mark");
        }
        let both = Remains {
            links: 2,
            directories: 2,
        };
        assert_eq!(find(dir.path()).expect("readable"), Remains::default());
        assert_eq!(find_elsewhere(dir.path()).expect("readable"), both);
        assert_eq!(remove_elsewhere(dir.path()).expect("removable"), both);
        assert!(!ours.exist() && !other.exists());
    }
}
