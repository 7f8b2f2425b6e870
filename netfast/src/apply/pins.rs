//! What is ours in bpffs: the layout of the pins, made and recognised here and nowhere else.
//!
//! ```text
//! <pin-dir>/v<ABI>/netns               symlink: the network namespace that the links are of, as device:inode
//! <pin-dir>/v<ABI>/run                 symlink: the run directory of the instance
//! <pin-dir>/v<ABI>/maps/netfast_…      one pin per map that the table of maps says is pinned
//! <pin-dir>/v<ABI>/links/…             one pin per attachment, by the name of its program and the place:
//!     <program>-<netns>-<ifindex>      tcx link of an interface; the number of its namespace is 0 for the one served
//!     <program>-<inode>-<pid>          tcx link of the loopback interface in a container's network namespace
//!     <program>                        fentry link of a function of the kernel, link of the root cgroup
//! ```
//!
//! Builds before ABI 2 named the pins of links otherwise: what those left is recognised to be removed.
//!
//! Whatever else lies there is somebody else's and stays: failing to recognise our own leaks a pin, mistaking
//! another's for ours detaches their program. bpffs refuses names with dots (`bpf_lookup`, kernel/bpf/inode.c).

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use netfast_common::{
    abi::{ABI_VERSION, Hook, HookKind, PREFIX, Program},
    device::{DeviceKey, NetnsNumber},
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::{
    diff::{Attachment, Target},
    plan::Loopback,
};

/// The mark of the namespace.
const NETNS: &str = "netns";
/// The mark of the instance.
const RUN: &str = "run";

/// The name of an attachment's pin.
fn name_of(attachment: &Attachment) -> String {
    let program = attachment.program.name();
    match attachment.at {
        Target::Interface { device, .. } => format!("{program}-{}-{}", device.netns.0, device.ifindex),
        Target::Loopback(Loopback { netns, pid }) => format!("{program}-{netns}-{pid}"),
        Target::Function(_) | Target::Tracepoint(_) | Target::Cgroup => program.into(),
    }
}

/// The attachment whose pin has this name.
fn attachment_of(name: &OsStr) -> Option<Attachment> {
    let name = name.to_str()?;
    let mut parts = name.split('-');
    let program = parts.next()?;
    let program = *Program::ALL.iter().find(|known| known.name() == program)?;
    let numbers = (parts.next(), parts.next());
    let at = match (program, program.hook(), numbers) {
        (Program::Answer | Program::Resolver, _, (Some(netns), Some(pid))) => Target::Loopback(Loopback {
            netns: netns.parse().ok()?,
            pid: pid.parse().ok()?,
        }),
        (_, HookKind::Tcx(hook), (Some(netns), Some(ifindex))) => Target::Interface {
            device: DeviceKey::new(NetnsNumber(netns.parse().ok()?), ifindex.parse().ok()?),
            hook,
        },
        (_, HookKind::Xdp, (Some(netns), Some(ifindex))) => Target::Interface {
            device: DeviceKey::new(NetnsNumber(netns.parse().ok()?), ifindex.parse().ok()?),
            hook: Hook::Ingress,
        },
        (_, HookKind::Fentry(function), (None, None)) => Target::Function(function),
        (_, HookKind::RawTracepoint(name), (None, None)) => Target::Tracepoint(name),
        (_, HookKind::SockAddr(_), (None, None)) => Target::Cgroup,
        _ => return None,
    };
    let found = Attachment { at, program };
    // Only what we would write ourselves: "netfast_up_in-0-007" is not ours.
    (name_of(&found) == name).then_some(found)
}

/// Whether a build before ABI 2 named the pin of a link like this: `queued`, `<ifindex>-in`, `<ifindex>-out`, the same
/// behind `vip-`, `lo-<inode>-<pid>`.
fn is_older_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let is_number = |text: &str| text.parse::<u64>().is_ok_and(|number| number.to_string() == text);
    let rest = name.strip_prefix("vip-").unwrap_or(name);
    match (name.strip_prefix("lo-"), rest.split_once('-')) {
        (Some(loopback), _) => loopback
            .split_once('-')
            .is_some_and(|(netns, pid)| is_number(netns) && is_number(pid)),
        (None, Some((ifindex, hook))) => is_number(ifindex) && Hook::BOTH.iter().any(|known| known.name() == hook),
        (None, None) => name == "queued",
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

    /// Where the link of an attachment is pinned.
    pub fn link(&self, attachment: &Attachment) -> PathBuf {
        self.links_dir().join(name_of(attachment))
    }

    /// The attachments whose links are pinned.
    pub fn attachments(&self) -> io::Result<BTreeSet<Attachment>> {
        let names = names_in(&self.links_dir())?;
        Ok(names.iter().filter_map(|name| attachment_of(name)).collect())
    }

    /// The pins of links, also those that older builds have named.
    pub fn links(&self) -> io::Result<Vec<PathBuf>> {
        let directory = self.links_dir();
        let mut names = names_in(&directory)?;
        names.retain(|name| attachment_of(name).is_some() || is_older_name(name));
        Ok(names.into_iter().map(|name| directory.join(name)).collect())
    }

    fn links_dir(&self) -> PathBuf {
        self.root.join("links")
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
    use netfast_common::device::Kind;

    use super::*;

    #[test]
    fn pins_of_links_are_recognised_and_no_others() {
        let other = DeviceKey::new(NetnsNumber(3), 12);
        for (attachment, name) in [
            (
                Attachment::of_device(DeviceKey::served(12), Kind::Endpoint, Hook::Ingress),
                "netfast_ep_in-0-12",
            ),
            (
                Attachment::of_device(other, Kind::Uplink, Hook::Egress),
                "netfast_up_out-3-12",
            ),
            (Attachment::of_vips(other, Hook::Ingress), "netfast_vip_in-3-12"),
            (Attachment::QUEUE_WATCH, "netfast_queued"),
            (Attachment::OVS_WATCH, "netfast_ovs"),
            (Attachment::of_localhost(Program::Connect4), "netfast_conn4"),
            (Attachment::of_xdp(DeviceKey::served(3)), "netfast_up_xdp-0-3"),
            (
                Attachment::of_answers(Loopback {
                    netns: 4_026_532_000,
                    pid: 17,
                }),
                "netfast_answer-4026532000-17",
            ),
        ] {
            assert_eq!(name_of(&attachment), name);
            assert_eq!(attachment_of(OsStr::new(name)), Some(attachment));
        }
        for foreign in [
            "netfast_ep_in-0-012",
            "netfast_ep_in-0-+1",
            "netfast_ep_in-70000-1",
            "netfast_ep_in-1",
            "netfast_ep_in",
            "netfast_ep_in-0-1-2",
            "netfast_queued-0-1",
            "netfast_answer-1",
            "netfast_other-0-1",
            "cilium-in",
            "12-in",
            "",
        ] {
            assert_eq!(attachment_of(OsStr::new(foreign)), None, "{foreign}");
        }
    }

    #[test]
    fn names_of_older_builds_are_recognised_and_no_others() {
        for name in ["12-in", "1-out", "vip-12-in", "vip-3-out", "queued", "lo-4026532000-17"] {
            assert!(is_older_name(OsStr::new(name)), "{name}");
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
            "vip-queued",
            "",
        ] {
            assert!(!is_older_name(OsStr::new(foreign)), "{foreign}");
        }
    }

    #[test]
    fn foreign_files_stay() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pins = Pins::new(dir.path());
        for file in [
            "maps/netfast_flows4",
            "maps/foreign",
            "links/netfast_ep_in-0-7",
            "links/7-out",
            "links/other",
        ] {
            let path = pins.root().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, []).expect("a file");
        }
        let endpoint = Attachment::of_device(DeviceKey::served(7), Kind::Endpoint, Hook::Ingress);
        assert_eq!(pins.attachments().expect("readable"), BTreeSet::from([endpoint]));
        let mut links = pins.links().expect("readable");
        links.sort();
        let older = pins.root().join("links/7-out");
        assert_eq!(links, [older, pins.link(&endpoint)]);
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
