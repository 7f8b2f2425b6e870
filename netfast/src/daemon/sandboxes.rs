//! The namespaces of overlay networks, each served by a daemon of its own that this one starts and ends.
//!
//! It is a process, not a thread, since everything in netfast is about the namespace that it runs in: it observes, plans and
//! attaches there as this one does here, with pins and state in directories of its own below this one's, takes over what its
//! predecessor has left, and is lost alone. It ends when its standard input does. A process keeps its namespace alive, so it
//! also ends by itself when the engine has taken the VXLAN device away; here nothing is held open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use crate::{
    apply::{self, Mode},
    config::{Config, Runtime, Sandbox as SandboxConfig},
    daemon::{lock, retry::Backoff},
    host::{Host, Network, NetworkId},
    observe::sandbox::{self, Sandbox},
    plan::{is_off, is_switched_off},
    state::sandboxes::{directories, directory, name, remove_if_empty},
};

/// This program, also after another one has taken its place.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// How long one may take to end before it is killed: what it has attached stays, as at any end.
const END_LIMIT: Duration = Duration::from_secs(5);
/// After so many looks without it a namespace is missing.
const MISSED: u8 = 5;
/// What a service manager tells this process alone.
const OF_SERVICE: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID"];

/// Those that there are.
#[derive(Debug)]
pub(super) struct Sandboxes {
    pin_dir: PathBuf,
    run_dir: PathBuf,
    /// Attaching there needs tcx.
    is_possible: bool,
    /// The engine's process, as last found.
    engine: Option<u32>,
    served: BTreeMap<String, Served>,
    /// Networks whose namespace was not found, and how often in a row.
    missing: BTreeMap<NetworkId, u8>,
    /// When to try again what has failed.
    later: BTreeMap<String, (Backoff, Instant)>,
}

/// One that is served.
#[derive(Debug)]
struct Served {
    network: String,
    process: Child,
    config: Config,
    /// Since when it is to end.
    ending: Option<Instant>,
}

/// One that is to be served.
struct Wanted {
    network: NetworkId,
    sandbox: Sandbox,
    config: Config,
}

impl Sandboxes {
    pub(super) fn new(pin_dir: &Path, run_dir: &Path, mode: Mode) -> Self {
        Self {
            pin_dir: pin_dir.into(),
            run_dir: run_dir.into(),
            is_possible: mode == Mode::Tcx,
            engine: None,
            served: BTreeMap::new(),
            missing: BTreeMap::new(),
            later: BTreeMap::new(),
        }
    }

    /// Starts and ends what must be. Nothing is read where there is no overlay network.
    pub(super) fn keep(&mut self, host: &Host, config: &Config) {
        let wanted = self.wanted(host, config);
        self.reap();
        for (name, served) in &mut self.served {
            match wanted.get(name) {
                Some(wanted) => served.tell(&wanted.config),
                None => served.end(),
            }
        }
        self.later.retain(|name, _| wanted.contains_key(name));
        for (name, wanted) in &wanted {
            let is_due = self.later.get(name).is_none_or(|(_, due)| Instant::now() >= *due);
            if is_due && !self.served.contains_key(name) {
                self.start(name, wanted);
            }
        }
        if config.sandbox.is_none() {
            self.sweep(&wanted.into_keys().collect());
        }
    }

    /// Ends all, as this one does: what is attached stays.
    pub(super) fn stop(&mut self) {
        for served in self.served.values_mut() {
            served.end();
        }
        let end = Instant::now() + END_LIMIT * 2;
        while !self.served.is_empty() && Instant::now() < end {
            self.reap();
            sleep(Duration::from_millis(10));
        }
    }

    fn wanted(&mut self, host: &Host, config: &Config) -> BTreeMap<String, Wanted> {
        if !self.is_possible || config.runtime != Runtime::Docker {
            return BTreeMap::new();
        }
        let networks = host.networks.values().filter(|network| {
            let is_here = || host.members(&network.id).next().is_some();
            network.driver == "overlay" && !is_switched_off(network, config) && is_here()
        });
        let networks: BTreeMap<&NetworkId, &Network> = networks.map(|network| (&network.id, network)).collect();
        if networks.is_empty() {
            return BTreeMap::new();
        }
        let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}/mountinfo")).exists();
        self.engine = self
            .engine
            .filter(is_there)
            .or_else(|| sandbox::engine(&config.docker_host));
        let found = sandbox::find(networks.keys().copied(), self.engine);
        tell_missing(&mut self.missing, &networks, |network| found.contains_key(network));
        let wanted = found.into_iter().map(|(network, sandbox)| {
            let inside = SandboxConfig {
                network: networks[&network].name.clone(),
                off: switched_off(host, &network),
            };
            let name = name(&network, sandbox.netns);
            let config = config.in_sandbox(inside);
            (
                name,
                Wanted {
                    network,
                    sandbox,
                    config,
                },
            )
        });
        wanted.collect()
    }

    fn start(&mut self, name: &str, wanted: &Wanted) {
        let pins = directory(&self.pin_dir, name);
        let run = directory(&self.run_dir, name);
        // Of a daemon that was killed, and has not noticed yet.
        if lock::holder(&run).is_some() {
            return;
        }
        match spawn(&wanted.sandbox, &pins, &run) {
            Ok(Some(process)) => {
                let mut served = Served {
                    network: wanted
                        .config
                        .sandbox
                        .as_ref()
                        .map(|inside| inside.network.clone())
                        .unwrap_or_default(),
                    process,
                    config: Config::default(),
                    ending: None,
                };
                served.tell(&wanted.config);
                info!(
                    "the overlay network {} is served in its network namespace by process {}",
                    served.network,
                    served.process.id()
                );
                self.served.insert(name.into(), served);
            }
            // The engine is still making it, or is taking it away.
            Ok(None) => {}
            Err(error) => {
                let wait = self.put_off(name);
                let network = &wanted.network;
                warn!("cannot serve the namespace of the overlay network {network}: {error}; trying again in {wait:?}");
            }
        }
    }

    fn put_off(&mut self, name: &str) -> Duration {
        let (backoff, due) = self
            .later
            .entry(name.into())
            .or_insert_with(|| (Backoff::default(), Instant::now()));
        let wait = backoff.failed();
        *due = Instant::now() + wait;
        wait
    }

    /// Takes leave of those that have ended, and ends those that do not.
    fn reap(&mut self) {
        let mut failed = Vec::new();
        self.served.retain(|name, served| {
            let Ok(Some(status)) = served.process.try_wait() else {
                if served.ending.is_some_and(|since| since.elapsed() > END_LIMIT) {
                    let _ = served.process.kill();
                }
                return true;
            };
            if served.ending.is_none() && !status.success() {
                failed.push((name.clone(), served.network.clone(), status));
            }
            false
        });
        for (name, network, status) in failed {
            let wait = self.put_off(&name);
            warn!("who served the overlay network {network} has ended ({status}); trying again in {wait:?}");
        }
    }

    /// Removes what is left of namespaces that are no longer served.
    fn sweep(&self, wanted: &BTreeSet<String>) {
        let is_left = |name: &String| !wanted.contains(name) && !self.served.contains_key(name);
        let mut names: BTreeSet<String> = directories(&self.pin_dir).into_iter().map(|(name, _)| name).collect();
        names.extend(directories(&self.run_dir).into_iter().map(|(name, _)| name));
        if names.is_empty() {
            return;
        }
        for name in names.into_iter().filter(is_left) {
            if lock::holder(&directory(&self.run_dir, &name)).is_some() {
                continue;
            }
            if let Err(error) = remove(&self.pin_dir, &self.run_dir, &name) {
                warn!("cannot remove what is left of an overlay network ({name}): {error}");
            }
        }
        remove_if_empty(&self.pin_dir);
        remove_if_empty(&self.run_dir);
    }
}

impl Served {
    /// Tells it the configuration, if that is another one.
    fn tell(&mut self, config: &Config) {
        if self.config == *config {
            return;
        }
        let Some(input) = &mut self.process.stdin else { return };
        let told = serde_json::to_vec(config)
            .map_err(io::Error::other)
            .and_then(|mut line| {
                line.push(b'\n');
                input.write_all(&line)
            });
        // One that does not read has ended, which is found out soon.
        if told.is_ok() {
            self.config = config.clone();
        }
    }

    fn end(&mut self) {
        if self.ending.is_none() {
            self.process.stdin = None;
            self.ending = Some(Instant::now());
        }
    }
}

/// Says once of each network whose containers run here that its namespace is not found. One that is just being made or taken away
/// is not there for a moment.
fn tell_missing(
    missing: &mut BTreeMap<NetworkId, u8>,
    networks: &BTreeMap<&NetworkId, &Network>,
    is_found: impl Fn(&NetworkId) -> bool,
) {
    missing.retain(|network, _| networks.contains_key(network) && !is_found(network));
    for (id, network) in networks.iter().filter(|(id, _)| !is_found(id)) {
        let times = missing.entry((*id).clone()).or_default();
        *times = times.saturating_add(1);
        if *times == MISSED {
            let name = &network.name;
            warn!(
                "the network namespace of the overlay network {name} is not among the engine's mounts: it stays slow"
            );
        }
    }
}

/// Containers on a network that are switched off, by their MAC addresses.
fn switched_off(host: &Host, network: &NetworkId) -> BTreeSet<String> {
    let members = host.members(network);
    let off = members.filter(|(container, _)| is_off(&container.labels));
    off.filter_map(|(_, place)| Some(place.mac?.to_string())).collect()
}

/// Starts a daemon in there; `None` if there is no tunnel.
fn spawn(sandbox: &Sandbox, pins: &Path, run: &Path) -> io::Result<Option<Child>> {
    sandbox::inside(sandbox, || {
        if !sandbox::has_tunnel()? {
            return Ok(None);
        }
        let mut command = Command::new(OWN_PROGRAM);
        command
            .arg0("netfast")
            .args(["run", "--sandbox", "--pin-dir"])
            .arg(pins)
            .arg("--run-dir")
            .arg(run)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        for variable in OF_SERVICE {
            command.env_remove(variable);
        }
        // A child of this thread is in the thread's namespace.
        command.spawn().map(Some)
    })
}

/// Removes what netfast has in the namespace with these directories; returns what that was.
pub(super) fn remove(pin_dir: &Path, run_dir: &Path, name: &str) -> io::Result<apply::Remains> {
    let removed = apply::remove_elsewhere(&directory(pin_dir, name))?;
    match fs::remove_dir_all(directory(run_dir, name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(removed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_again_is_no_longer_missing() {
        let (one, two) = (NetworkId("one".into()), NetworkId("two".into()));
        let network = Network::default();
        let networks: BTreeMap<_, _> = [(&one, &network), (&two, &network)].into();
        let mut missing = BTreeMap::new();
        for _ in 0..300 {
            tell_missing(&mut missing, &networks, |network| *network == two);
        }
        assert_eq!(missing, [(one.clone(), u8::MAX)].into());
        tell_missing(&mut missing, &networks, |_| true);
        assert!(missing.is_empty());
    }
}
