//! What is ours in bpffs: the layout of the pins, made and recognised here and nowhere else.
//!
//! ```text
//! <pin-dir>/v<ABI>/netns               symlink: the network namespace that the links are of, as device:inode
//! <pin-dir>/v<ABI>/run                 symlink: the run directory of the instance
//! <pin-dir>/v<ABI>/maps/netfast_…      one pin per map
//! <pin-dir>/v<ABI>/links/<ifindex>-in  tcx link of the ingress hook of that interface
//! <pin-dir>/v<ABI>/links/<ifindex>-out tcx link of the egress hook
//! <pin-dir>/v<ABI>/links/queued        fentry link that watches nf_queue
//! <pin-dir>/v<ABI>/links/vip-<ifindex>-in  tcx link of the program that translates virtual addresses, likewise -out
//! <pin-dir>/v<ABI>/links/lo-<inode>-<pid> tcx link of the loopback interface in a container's network namespace
//! ```
//!
//! Whatever else lies there is somebody else's and stays: failing to recognise our own leaks a pin, mistaking
//! another's for ours detaches their program. bpffs refuses names with dots (`bpf_lookup`, kernel/bpf/inode.c).

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use netfast_common::abi::{ABI_VERSION, PREFIX};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::{diff::Hook, plan::Loopback};

/// The pin of the fentry link.
const QUEUED: &str = "queued";
/// What the pin of a loopback interface's link begins with.
const LOOPBACK: &str = "lo-";
/// What the pins of links of virtual addresses begin with.
const VIP: &str = "vip-";
/// The mark of the namespace.
const NETNS: &str = "netns";
/// The mark of the instance.
const RUN: &str = "run";

/// What a file under `links` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkPin {
    /// A tcx link of an interface.
    Device(u32, Hook),
    /// The fentry link.
    Queued,
    /// The tcx link of a container's loopback interface.
    Loopback(Loopback),
    /// A tcx link of an endpoint, for virtual addresses.
    Vip(u32, Hook),
}

impl LinkPin {
    fn name(self) -> String {
        match self {
            Self::Device(ifindex, hook) => format!("{ifindex}-{}", hook.name()),
            Self::Queued => QUEUED.into(),
            Self::Loopback(Loopback { netns, pid }) => format!("{LOOPBACK}{netns}-{pid}"),
            Self::Vip(ifindex, hook) => format!("{VIP}{ifindex}-{}", hook.name()),
        }
    }

    fn parse(name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        if name == QUEUED {
            return Some(Self::Queued);
        }
        // Only what we would write ourselves: "007-in" is not ours.
        let ours = |pin: Self| (pin.name() == name).then_some(pin);
        if let Some((netns, pid)) = name.strip_prefix(LOOPBACK).and_then(|rest| rest.split_once('-')) {
            return ours(Self::Loopback(Loopback {
                netns: netns.parse().ok()?,
                pid: pid.parse().ok()?,
            }));
        }
        let device = |name: &str| {
            let (ifindex, hook) = name.split_once('-')?;
            let hook = Hook::BOTH.into_iter().find(|known| known.name() == hook)?;
            Some((ifindex.parse().ok()?, hook))
        };
        ours(match name.strip_prefix(VIP) {
            Some(rest) => device(rest).map(|(ifindex, hook)| Self::Vip(ifindex, hook))?,
            None => device(name).map(|(ifindex, hook)| Self::Device(ifindex, hook))?,
        })
    }
}

/// The pins of one ABI in one pin directory.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// The pins of this build's ABI.
    pub fn new(pin_dir: &Path) -> Self {
        Self {
            root: pin_dir.join(format!("v{ABI_VERSION}")),
        }
    }

    /// The pins of every other ABI that lie beside them.
    pub fn of_other_abis(pin_dir: &Path) -> io::Result<Vec<Self>> {
        let ours = Self::new(pin_dir);
        let mut found = Vec::new();
        for name in names_in(pin_dir)? {
            let number = name.to_str().and_then(|name| name.strip_prefix('v'));
            if number.is_some_and(|number| number.parse::<u32>().is_ok_and(|n| n.to_string() == number)) {
                let root = pin_dir.join(name);
                if root != ours.root && root.join("maps").is_dir() {
                    found.push(Self { root });
                }
            }
        }
        Ok(found)
    }

    /// Whether there are any.
    pub fn exist(&self) -> bool {
        self.root.is_dir()
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Where a link is pinned.
    pub fn link(&self, pin: LinkPin) -> PathBuf {
        self.root.join("links").join(pin.name())
    }

    /// The links that are pinned and that we recognise.
    pub fn links(&self) -> io::Result<Vec<LinkPin>> {
        let mut pins: Vec<LinkPin> = names_in(&self.root.join("links"))?
            .iter()
            .filter_map(|name| LinkPin::parse(name))
            .collect();
        pins.sort_unstable();
        Ok(pins)
    }

    /// Makes the directories and marks them as this network namespace's.
    pub fn create(&self) -> Result<(), PinsError> {
        let netns = current_netns().map_err(|source| PinsError::io(Path::new(NETNS_OF_THREAD), source))?;
        for directory in [self.root.join("maps"), self.root.join("links")] {
            // Flow tables show who talks to whom: only root may look.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|source| PinsError::io(&directory, source))?;
        }
        let magic = statfs(&self.root).map_err(|errno| PinsError::io(&self.root, errno.into()))?;
        if magic.filesystem_type() != BPF_FS_MAGIC {
            // What was made is empty.
            self.remove_directories();
            return Err(PinsError::NotBpffs(self.root.clone()));
        }
        let mark = self.root.join(NETNS);
        match symlink(&netns, &mark) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.netns() {
                Ok(Some(found)) if found == netns => Ok(()),
                Ok(_) => Err(PinsError::OtherNamespace(self.root.clone())),
                Err(source) => Err(PinsError::io(&mark, source)),
            },
            done => done.map_err(|source| PinsError::io(&mark, source)),
        }
    }

    /// Whether the pins are of another network namespace than this thread's.
    pub fn of_other_namespace(&self) -> io::Result<bool> {
        let netns = current_netns()?;
        Ok(self.netns()?.is_some_and(|found| found != netns))
    }

    fn netns(&self) -> io::Result<Option<String>> {
        let target = self.mark(NETNS)?;
        Ok(target.and_then(|target| target.to_str().map(Into::into)))
    }

    /// The run directory of the instance that the pins are of.
    pub fn run_dir(&self) -> io::Result<Option<PathBuf>> {
        self.mark(RUN)
    }

    /// Marks the pins as those of the instance with this run directory.
    pub fn mark_run_dir(&self, run_dir: &Path) -> io::Result<()> {
        if self.run_dir()?.as_deref() == Some(run_dir) {
            return Ok(());
        }
        remove_file(&self.root.join(RUN))?;
        symlink(run_dir, self.root.join(RUN))
    }

    fn mark(&self, name: &str) -> io::Result<Option<PathBuf>> {
        match fs::read_link(self.root.join(name)) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the maps' pins, the marks and the directories, as far as they are ours; goes on after an error and
    /// returns the first. The links' pins must be gone by then.
    pub fn remove_maps(&self) -> io::Result<()> {
        let maps = self.root.join("maps");
        let mut first = Ok(());
        for name in names_in(&maps)? {
            if name.to_str().is_some_and(|name| name.starts_with(PREFIX)) {
                first = first.and(remove_file(&maps.join(name)));
            }
        }
        for mark in [NETNS, RUN] {
            first = first.and(remove_file(&self.root.join(mark)));
        }
        self.remove_directories();
        first
    }

    /// Removes what is empty, the pin directory itself included; what is not empty holds somebody else's pins.
    fn remove_directories(&self) {
        for directory in [self.root.join("maps"), self.root.join("links"), self.root.clone()] {
            let _ = fs::remove_dir(directory);
        }
        if let Some(pin_dir) = self.root.parent() {
            let _ = fs::remove_dir(pin_dir);
        }
    }
}

/// Removes a file; none is fine.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The names in a directory; none if there is no such directory.
fn names_in(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The calling thread's network namespace.
const NETNS_OF_THREAD: &str = "/proc/thread-self/ns/net";

/// The identity of the calling thread's network namespace.
fn current_netns() -> io::Result<String> {
    let meta = fs::metadata(NETNS_OF_THREAD)?;
    Ok(format!("{}:{}", meta.dev(), meta.ino()))
}

/// Why pins cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The file system refused.
    #[error("cannot use the pin directory: {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pin directory is on some other file system.
    #[error("the pin directory {} is not in a BPF file system", .0.display())]
    NotBpffs(PathBuf),
    /// Another instance's.
    #[error("the pins in {} are of an instance in another network namespace", .0.display())]
    OtherNamespace(PathBuf),
}

impl PinsError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_recognised_and_no_others() {
        for pin in [
            LinkPin::Device(12, Hook::Ingress),
            LinkPin::Device(1, Hook::Egress),
            LinkPin::Vip(12, Hook::Ingress),
            LinkPin::Vip(3, Hook::Egress),
            LinkPin::Queued,
            LinkPin::Loopback(Loopback {
                netns: 4_026_532_000,
                pid: 17,
            }),
        ] {
            assert_eq!(LinkPin::parse(OsStr::new(&pin.name())), Some(pin));
        }
        for foreign in [
            "012-in",
            "+1-in",
            "12-up",
            "12",
            "-in",
            "queued2",
            "cilium-in",
            "lo-1",
            "vip-1",
            "vip-01-in",
            "vip-in",
            "lo-01-2",
            "lo-x-2",
            "",
        ] {
            assert_eq!(LinkPin::parse(OsStr::new(foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn foreign_files_stay() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pins = Pins::new(dir.path());
        for file in ["maps/netfast_flows4", "maps/foreign", "links/7-in", "links/other"] {
            let path = pins.root().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, []).expect("a file");
        }
        assert_eq!(pins.links().expect("readable"), [LinkPin::Device(7, Hook::Ingress)]);
        pins.remove_maps().expect("removable");
        assert!(pins.map("foreign").exists() && !pins.map("netfast_flows4").exists());
        assert!(pins.root().join("links/other").exists());
    }

    #[test]
    fn other_abis_are_recognised() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["v0/maps", "v999/maps", "v01/maps", "vx/maps", "v7"] {
            fs::create_dir_all(dir.path().join(name)).expect("directories");
        }
        let mut found: Vec<PathBuf> = Pins::of_other_abis(dir.path())
            .expect("readable")
            .into_iter()
            .map(|pins| pins.root)
            .collect();
        found.sort();
        assert_eq!(found, [dir.path().join("v0"), dir.path().join("v999")]);
    }
}
