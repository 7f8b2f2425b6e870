//! What the daemon tells everybody else: one JSON file in the run directory, replaced as a whole.
//!
//! It is how `status` and `networks` know what the daemon knows, and how `detach` and the next daemon know what was
//! changed on the host. The counters are not in it: those are read from the pinned maps.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use netfast_common::device::DeviceKey;
use serde::{Deserialize, Serialize};

use crate::{
    abilities::Record,
    config::Config,
    host::ResolverRules,
    plan::{
        AliasReport, Client, LocalReport, Loopback, NotUplink, ResolverReport, SegmentEnd, TunnelReport, VipMemory,
        Way, XdpEnd, XdpReport,
        report::{NetworkReport, Slow},
    },
};

mod keyed;
pub mod sandboxes;

/// The name of the file in the run directory.
const FILE: &str = "state.json";

/// The daemon's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The daemon's version.
    pub version: String,
    /// The ABI of its pins.
    pub abi: u32,
    /// Its process.
    pub pid: u32,
    /// The boot of the machine that it was started in: what was changed on the host does not outlive it.
    pub boot: String,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it was in sync with the host last, in milliseconds since 1970.
    pub synced_ms: Option<u64>,
    /// Whether all that is wanted is done.
    pub in_sync: bool,
    /// Where the pins are.
    pub pin_dir: PathBuf,
    /// The configuration in force.
    pub config: Config,
    /// How programs are attached: `tcx`, or `clsact` before Linux 6.6.
    pub attached_by: String,
    /// Why packets handed to user space (NFQUEUE) cannot be told apart, if they cannot: then nothing is learned while
    /// a program listens on a queue.
    pub queue_watch_error: Option<String>,
    /// What else this kernel does not do, with what is lost by it and what can be done about it: a line each.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// What this host lets netfast do, and what has changed about it since earlier looks.
    #[serde(default)]
    pub record: Record,
    /// Where that is kept for the next daemon, if it is.
    #[serde(default)]
    pub record_file: Option<PathBuf>,
    /// Whether flows may be learned, and if not, why.
    pub learning_off: Option<String>,
    /// The container runtime.
    pub runtime: RuntimeReport,
    /// Networks and their endpoints, by name.
    pub networks: Vec<NetworkReport>,
    /// Devices that netfast is attached to, or wants to be.
    #[serde(with = "keyed")]
    pub devices: BTreeMap<DeviceKey, DeviceReport>,
    /// VXLAN devices that packets of containers leave by.
    #[serde(default)]
    pub tunnels: Vec<TunnelReport>,
    /// Interfaces with routes that are no uplinks.
    #[serde(default)]
    pub not_uplinks: Vec<NotUplink>,
    /// Sysctls that a version before 0.2 has changed, and that are still to be restored.
    #[serde(default)]
    pub sysctls: Vec<SavedSysctl>,
    /// Interfaces that netfast added a clsact qdisc to, with the name.
    #[serde(with = "keyed")]
    pub clsact: BTreeMap<DeviceKey, String>,
    /// Kernel memory of the flow tables, in bytes.
    pub table_bytes: u64,
    /// Names that several containers of a network share, by network and name.
    #[serde(default)]
    pub aliases: Vec<AliasReport>,
    /// Virtual addresses.
    #[serde(default)]
    pub vips: VipState,
    /// Published ports at loopback addresses.
    #[serde(default)]
    pub localhost: LocalState,
    /// Containers in which Docker's rules for its resolver should be replaced.
    #[serde(default)]
    pub resolvers: Vec<ResolverReport>,
    /// The rules that were taken out, those included that are just being taken out.
    #[serde(default)]
    pub resolver_rules: Vec<(Loopback, ResolverRules)>,
    /// Interfaces that take bigger segments, those included that are just being told to.
    #[serde(default)]
    pub segments: Vec<SegmentEnd>,
    /// Interfaces of containers whose GRO is on by netfast's doing, those included that are just being told to.
    #[serde(default)]
    pub xdp_gro: Vec<XdpEnd>,
    /// What became of uplinks' XDP.
    #[serde(default)]
    pub xdp: Vec<XdpReport>,
    /// Interfaces of containers that frames are sent to.
    #[serde(default)]
    pub xdp_ends: usize,
}

/// What was done for virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipState {
    /// Who has which.
    pub given: VipMemory,
    /// The clients' ways to them, those included that are just being made.
    pub ways: Vec<(Client, Way)>,
    /// What of the host the pool overlaps, if it does.
    pub conflict: Option<String>,
}

/// What becomes of connections of the host's own programs to published ports at loopback addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocalState {
    /// Each port.
    pub ports: Vec<LocalReport>,
    /// Why nobody is led past docker-proxy, if nobody is.
    pub off: Option<String>,
    /// Control groups with programs of others, and the name of one: connections of what runs there go through docker-proxy.
    pub watched: BTreeMap<PathBuf, String>,
    /// What became of programs that asked, by [`Outcome`](netfast_common::localhost::Outcome); in reports only.
    #[serde(skip_deserializing)]
    pub outcomes: BTreeMap<String, u64>,
}

/// What is known of the container runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeReport {
    /// `none`, `connected` or `disconnected`.
    pub state: String,
    /// Name and version, when connected.
    pub engine: Option<String>,
    /// Why not, when disconnected.
    pub error: Option<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its name.
    pub name: String,
    /// `endpoint`, `bridge` or `uplink`.
    pub kind: String,
    /// Its index into the traffic map.
    pub slot: Option<u16>,
    /// Whether both programs are attached.
    pub attached: bool,
    /// What went wrong, if something did; it is tried again.
    pub error: Option<Slow>,
}

/// A sysctl that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSysctl {
    /// Its name, with dots.
    pub name: String,
    /// What it was.
    pub found: String,
    /// What it was set to.
    pub set: String,
}

impl State {
    /// Reads the file; `None` if there is none.
    pub fn read(run_dir: &Path) -> Result<Option<Self>, StateError> {
        let path = run_dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| StateError::Malformed { path, source })
    }

    /// Whether it is of this boot of the machine.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot == boot()
    }

    /// Replaces the file as a whole: a reader sees the old one or the new one.
    pub fn write(&self, run_dir: &Path) -> Result<(), StateError> {
        let path = run_dir.join(FILE);
        let text = serde_json::to_vec(self).map_err(|source| StateError::Malformed {
            path: path.clone(),
            source,
        })?;
        replace(&path, &text).map_err(|source| StateError::Io { path, source })
    }

    /// Removes the file; none is fine.
    pub fn remove(run_dir: &Path) -> Result<(), StateError> {
        let path = run_dir.join(FILE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

/// Replaces a file as a whole: a reader sees the old one or the new one, also after a crash of the machine (on tmpfs that costs
/// nothing).
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = fs::File::create(&part)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

/// Which boot of the machine this is.
pub fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// Milliseconds since 1970.
pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another version wrote it, or somebody else did.
    #[error("{} is not a state of this version of netfast", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}
