//! Leaves the host as it was found. Needs no daemon: what to undo is in the pins and in the state file.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde::Serialize;
use tracing::warn;

use crate::{
    apply::{
        self, AttachError, Remains, handoff,
        pins::Pins,
        quiet,
        resolver::{self, ResolverError},
        routes::{self, WayError},
        segments, xdp,
    },
    daemon::{
        history,
        instance::{self, InstanceError},
        lock::{self, Lock, LockError},
        older::{self, OlderError},
        sandboxes::remove as remove_sandbox,
    },
    observe::NetlinkError,
    snapshot,
    state::{State, StateError, sandboxes},
};

/// How long a daemon may take to end after a signal.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How long a process that ends may hold its lock.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Detached {
    /// The daemon that was asked to stop, by its process.
    pub stopped: Option<u32>,
    /// Whether it did not do so and was killed.
    pub killed: bool,
    /// Links that were removed.
    pub links: usize,
    /// Directories of pins that were removed.
    pub pin_directories: usize,
    /// Interfaces that a clsact qdisc was removed from.
    pub clsact: Vec<String>,
    /// Sysctls that were restored, with their values.
    pub sysctls: Vec<(String, u32)>,
    /// Connections that conntrack was told to go on with.
    pub connections: usize,
    /// Interfaces that take the usual segments again.
    pub segments: usize,
    /// Interfaces of containers whose GRO is off again.
    pub gro: usize,
    /// Containers whose ways to virtual addresses were removed.
    pub ways: usize,
    /// Containers in which Docker's rules for its resolver are back.
    pub resolvers: usize,
    /// Connections to virtual addresses that the clients' own conntrack goes on with.
    pub handed_over: usize,
    /// Connections to virtual addresses that end.
    pub ended: usize,
}

impl Detached {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Refuses what is of another instance; the state, if there is one.
fn whose(pin_dir: &Path, run_dir: &Path) -> Result<Option<State>, DetachError> {
    let pins = Pins::new(pin_dir);
    let foreign = pins.of_other_namespace().map_err(|source| DetachError::Pins {
        path: pins.root().into(),
        source,
    })?;
    if foreign {
        return Err(DetachError::OtherNamespace(pins.root().into()));
    }
    let state = read_state(run_dir);
    instance::check(pin_dir, run_dir, state.as_ref())?;
    Ok(state)
}

fn read_state(run_dir: &Path) -> Option<State> {
    State::read(run_dir).unwrap_or_else(|error| {
        // The pins tell enough to detach; sysctls then stay as they are.
        warn!("{:#}", anyhow::Error::new(error));
        None
    })
}

/// What [`detach`] would do, as far as it can be told before; changes nothing.
pub fn preview(pin_dir: &Path, run_dir: &Path) -> Result<Detached, DetachError> {
    let state = whose(pin_dir, run_dir)?.filter(State::is_of_this_boot);
    let failed = |source| DetachError::Pins {
        path: pin_dir.into(),
        source,
    };
    let mut found = apply::find(pin_dir).map_err(failed)?;
    for (_, pins) in sandboxes::directories(pin_dir) {
        found = found + apply::find_elsewhere(&pins).map_err(failed)?;
    }
    let mut would = Detached {
        stopped: lock::holder(run_dir),
        links: found.links,
        pin_directories: found.directories,
        ..Detached::default()
    };
    if let Some(state) = state {
        let interfaces = state.clsact.into_iter();
        // Those that went away have taken their qdisc along.
        would.clsact = interfaces
            .filter(|(device, _)| snapshot::interface_name(device.ifindex).is_some())
            .map(|(_, name)| name)
            .collect();
        let sysctls = state.sysctls.into_iter();
        would.sysctls = sysctls
            .filter_map(|saved| Some((saved.name, saved.found.parse().ok()?)))
            .collect();
        would.segments = state.segments.len();
        would.gro = state.xdp_gro.len();
        would.ways = state.vips.ways.len();
        would.resolvers = state.resolver_rules.len();
    }
    Ok(would)
}

/// Removes everything that is netfast's. Doing it again does nothing.
pub fn detach(pin_dir: &Path, run_dir: &Path) -> Result<Detached, DetachError> {
    whose(pin_dir, run_dir)?;
    let mut done = Detached::default();
    stop_daemon(run_dir, &mut done)?;
    // Nobody starts one meanwhile. Without a run directory there never was one.
    let lock = run_dir.exists().then(|| take_lock(run_dir)).transpose()?;
    // The daemon may have written until it ended.
    let state = read_state(run_dir);
    let record = state.as_ref().and_then(|state| state.record_file.clone());
    let state = state.filter(State::is_of_this_boot);

    // Docker's own rules first: what is resolved by the program must not stop being resolved, and connections that conntrack is
    // given in a container need its hooks there.
    for (loopback, rules) in state.iter().flat_map(|state| &state.resolver_rules) {
        let back = resolver::put_back(*loopback, rules).map_err(|source| DetachError::Resolver {
            pid: loopback.pid,
            source,
        })?;
        done.resolvers += usize::from(back);
    }
    // Flows stop being used, then programs go, then what made them safe.
    if let Some(state) = &state {
        remove_filters(state)?;
        hand_off(pin_dir, state, &mut done)?;
    }
    settle(pin_dir);
    let failed = |source| DetachError::Pins {
        path: pin_dir.into(),
        source,
    };
    let overlays = remove_overlays(pin_dir, run_dir)?;
    let Remains { links, directories } = apply::remove(pin_dir).map_err(failed)? + overlays;
    done.links += links;
    done.pin_directories = directories;
    remove_ways(state.as_ref(), &mut done)?;
    restore_segments(state.as_ref(), &mut done)?;
    restore_gro(state.as_ref(), &mut done)?;
    if let Some(state) = &state {
        done.clsact = remove_clsact(state)?;
        let restored = older::restore(&state.sysctls)?;
        (done.connections, done.sysctls) = (restored.connections, restored.sysctls);
    }
    if lock.is_some() {
        if let Some(record) = record
            && let Err(error) = history::remove(&record)
        {
            warn!("cannot remove {}: {error}", record.display());
        }
        State::remove(run_dir)?;
        // The lock's name goes while it is held; what somebody else put there stays, and so does the directory then.
        let _ = fs::remove_file(run_dir.join(lock::FILE));
        let _ = fs::remove_dir(run_dir);
    }
    Ok(done)
}

/// Removes what is in the namespaces of overlay networks. Nobody has to go there.
fn remove_overlays(pin_dir: &Path, run_dir: &Path) -> Result<Remains, DetachError> {
    let mut removed = Remains::default();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for base in [pin_dir, run_dir] {
        names.extend(sandboxes::directories(base).into_iter().map(|(name, _)| name));
    }
    for name in names {
        // Those of a daemon that was killed end by themselves, or did not notice.
        stop_daemon(&sandboxes::directory(run_dir, &name), &mut Detached::default())?;
        let done = remove_sandbox(pin_dir, run_dir, &name);
        removed = removed
            + done.map_err(|source| DetachError::Pins {
                path: sandboxes::directory(pin_dir, &name),
                source,
            })?;
    }
    sandboxes::remove_if_empty(pin_dir);
    sandboxes::remove_if_empty(run_dir);
    Ok(removed)
}

/// Asks a running daemon to stop, and waits for it. One that hangs is killed, which it must survive at any moment.
fn stop_daemon(run_dir: &Path, done: &mut Detached) -> Result<(), DetachError> {
    let Some(pid) = lock::holder(run_dir) else {
        return Ok(());
    };
    done.stopped = Some(pid);
    if !ends(run_dir, pid, Signal::SIGTERM)? {
        warn!("the daemon (process {pid}) does not end within {STOP_LIMIT:?} and is killed");
        done.killed = true;
        if !ends(run_dir, pid, Signal::SIGKILL)? {
            return Err(DetachError::StillRunning { pid });
        }
    }
    Ok(())
}

/// Takes the lock. The process of a daemon that ends cannot be looked into a moment before it has let go of its files.
fn take_lock(run_dir: &Path) -> Result<Lock, LockError> {
    let end = Instant::now() + RELEASE_LIMIT;
    loop {
        match Lock::take(run_dir) {
            Err(LockError::Held { pid: None, .. }) if Instant::now() < end => sleep(Duration::from_millis(20)),
            done => return done,
        }
    }
}

/// Sends a signal; tells whether the daemon ends by it in time.
fn ends(run_dir: &Path, pid: u32, signal: Signal) -> Result<bool, DetachError> {
    let process = Pid::from_raw(i32::try_from(pid).map_err(|_| DetachError::StillRunning { pid })?);
    match kill(process, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => {
            return Err(DetachError::CannotStop {
                pid,
                source: errno.into(),
            });
        }
    }
    let end = Instant::now() + STOP_LIMIT;
    while lock::holder(run_dir) == Some(pid) {
        if Instant::now() > end {
            return Ok(false);
        }
        sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// From now on the kernel sees all of each connection, but what it has missed may keep it from seeing that data was acknowledged.
fn settle(pin_dir: &Path) {
    let pins = Pins::new(pin_dir);
    if !pins.exist() {
        return;
    }
    let settled = apply::switch_flows_off(pin_dir)
        .map_err(anyhow::Error::new)
        .and_then(|()| quiet::settle_all(&pins).map_err(anyhow::Error::new));
    if let Err(error) = settled {
        warn!("{}: {error:#}", quiet::LOST);
    }
}

/// Nobody is told of virtual addresses any more; then those who talk to one go on without netfast.
fn hand_off(pin_dir: &Path, state: &State, done: &mut Detached) -> Result<(), DetachError> {
    if state.vips.ways.is_empty() {
        return Ok(());
    }
    let failed = |source| DetachError::Pins {
        path: pin_dir.into(),
        source,
    };
    done.links += apply::answers(pin_dir).map_err(failed)?;
    // A flow would go on translating.
    apply::switch_flows_off(pin_dir).map_err(failed)?;
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let handed = handoff::hand_off(&Pins::new(pin_dir), &state.vips.ways, now).map_err(failed)?;
    (done.handed_over, done.ended) = (handed.connections, handed.lost);
    Ok(())
}

/// The clients' ways to virtual addresses, and the host's word that there is none.
fn remove_ways(state: Option<&State>, done: &mut Detached) -> Result<(), DetachError> {
    for (client, way) in state.into_iter().flat_map(|state| &state.vips.ways) {
        routes::remove(*client, way).map_err(|source| DetachError::Way {
            pid: client.pid,
            source,
        })?;
        done.ways += 1;
    }
    for pool in routes::pools().map_err(|source| DetachError::Pool(source.into()))? {
        routes::remove_pool(pool).map_err(DetachError::Pool)?;
    }
    Ok(())
}

/// Who sends stops before those who carry it.
fn restore_segments(state: Option<&State>, done: &mut Detached) -> Result<(), DetachError> {
    let ends: BTreeSet<_> = state.into_iter().flat_map(|state| &state.segments).collect();
    for end in ends.into_iter().rev() {
        segments::restore(*end).map_err(|source| DetachError::Segments {
            end: end.to_string(),
            source,
        })?;
        done.segments += 1;
    }
    Ok(())
}

/// What was switched on in containers to take frames.
fn restore_gro(state: Option<&State>, done: &mut Detached) -> Result<(), DetachError> {
    for end in state.into_iter().flat_map(|state| &state.xdp_gro) {
        xdp::restore(end).map_err(|source| DetachError::Gro { veth: end.veth, source })?;
        done.gro += 1;
    }
    Ok(())
}

fn remove_filters(state: &State) -> Result<(), DetachError> {
    if state.attached_by != apply::Mode::Clsact.name() {
        return Ok(());
    }
    for (key, device) in &state.devices {
        apply::clsact::remove_filters(key.ifindex, &device.name).map_err(|source| DetachError::Filters {
            name: device.name.clone(),
            source,
        })?;
    }
    Ok(())
}

fn remove_clsact(state: &State) -> Result<Vec<String>, DetachError> {
    let mut removed = Vec::new();
    for (key, name) in &state.clsact {
        let gone = apply::clsact::remove(key.ifindex, name).map_err(|source| DetachError::Clsact {
            name: name.clone(),
            source,
        })?;
        if gone {
            removed.push(name.clone());
        }
    }
    Ok(removed)
}

/// Why the host cannot be left as it was found. Doing it again goes on where this ended.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// Another instance's.
    #[error("the pins in {} are of an instance in another network namespace", .0.display())]
    OtherNamespace(PathBuf),
    /// The directories are of different instances.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The daemon goes on.
    #[error("the daemon (process {pid}) does not end")]
    StillRunning {
        /// Its process.
        pid: u32,
    },
    /// The daemon is somebody else's.
    #[error("cannot ask the daemon (process {pid}) to stop")]
    CannotStop {
        /// Its process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// A daemon was started meanwhile, or the run directory cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A pin cannot be removed.
    #[error("cannot remove pins in {}", path.display())]
    Pins {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A classic filter cannot be removed.
    #[error("cannot remove the filters on {name}")]
    Filters {
        /// The interface.
        name: String,
        /// Why.
        source: AttachError,
    },
    /// A qdisc cannot be removed.
    #[error("cannot remove clsact from {name}")]
    Clsact {
        /// The interface.
        name: String,
        /// Why.
        source: NetlinkError,
    },
    /// A way to virtual addresses cannot be removed.
    #[error("cannot remove the way to virtual addresses in the network namespace of process {pid}")]
    Way {
        /// A process of the container.
        pid: u32,
        /// Why.
        source: WayError,
    },
    /// Docker's rules for its resolver cannot be put back; nothing was removed.
    #[error("cannot put Docker's rules for its resolver back into the network namespace of process {pid}")]
    Resolver {
        /// A process of the container.
        pid: u32,
        /// Why.
        source: ResolverError,
    },
    /// GRO of a container's interface cannot be switched off again.
    #[error("cannot switch GRO off again in the container behind device {veth}")]
    Gro {
        /// Index of its veth on the host.
        veth: u32,
        /// Why.
        source: xdp::XdpError,
    },
    /// An interface does not take the usual segments again.
    #[error("cannot let {end} take the usual segments again")]
    Segments {
        /// Which.
        end: String,
        /// Why.
        source: WayError,
    },
    /// The host's route for virtual addresses cannot be removed.
    #[error("cannot remove the route for virtual addresses")]
    Pool(#[source] WayError),
    /// What an older version has changed cannot be restored.
    #[error(transparent)]
    Older(#[from] OlderError),
    /// The state cannot be removed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl DetachError {
    /// Whether privileges are missing.
    pub fn is_permission(&self) -> bool {
        let denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::CannotStop { source, .. }
            | Self::Pins { source, .. }
            | Self::Older(OlderError::Sysctl { source, .. })
            | Self::Lock(LockError::Io { source, .. })
            | Self::State(StateError::Io { source, .. }) => denied(source),
            Self::OtherNamespace(_)
            | Self::Instance(_)
            | Self::StillRunning { .. }
            | Self::Lock(LockError::Held { .. })
            | Self::Filters { .. }
            | Self::Clsact { .. }
            | Self::Way { .. }
            | Self::Resolver { .. }
            | Self::Segments { .. }
            | Self::Gro { .. }
            | Self::Pool(_)
            | Self::Older(OlderError::Connections(_))
            | Self::State(StateError::Malformed { .. }) => false,
        }
    }
}
