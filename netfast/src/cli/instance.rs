//! The instance that a report is about: what its daemon last said, and what is pinned.

use std::{collections::BTreeMap, fs, io};

use nix::time::{ClockId, clock_gettime};

use crate::{
    apply::{flows::FlowTables, pinned::ReadError, pins::Pins, read::Tables},
    cli::{CliError, Dirs, Exit},
    daemon::{self, lock},
    report::flows::DeviceName,
    snapshot::{self, InSandbox},
    state::{State, sandboxes},
};

/// An instance of which at least the programs are attached.
pub struct Instance {
    /// What its daemon last said; `None` if the file is gone.
    pub state: Option<State>,
    /// Whether its daemon runs.
    pub running: bool,
    /// Its tables.
    pub tables: Tables,
    /// Its flow tables.
    pub flows: FlowTables,
    /// Those of who serves overlay networks' namespaces.
    pub sandboxes: Vec<InSandbox>,
}

impl Instance {
    /// Finds it by its directories; fails, with what to do, if nothing of netfast is attached with these.
    pub fn open(dirs: &Dirs) -> Result<Self, CliError> {
        require_pins(dirs)?;
        let state = State::read_whole(&dirs.run_dir).map_err(anyhow::Error::new)?;
        daemon::instance::check(&dirs.pin_dir, &dirs.run_dir, state.as_ref())
            .map_err(|error| CliError::new(Exit::Failed, error).remedy("Name the directories of one instance."))?;
        let tables = Tables::open(&dirs.pin_dir).map_err(|error| unreadable(error, dirs))?;
        let flows = FlowTables::open(&dirs.pin_dir).map_err(|error| unreadable(error, dirs))?;
        let running = lock::holder(&dirs.run_dir).is_some();
        Ok(Self {
            state,
            running,
            tables,
            flows,
            sandboxes: snapshot::sandboxes(&dirs.pin_dir),
        })
    }

    /// The interfaces that are known, with the containers behind them.
    pub fn names(&self) -> BTreeMap<u32, DeviceName> {
        let Some(state) = &self.state else {
            return BTreeMap::new();
        };
        let devices = state.devices.iter();
        let mut names: BTreeMap<_, _> = devices
            .map(|(key, device)| {
                (
                    key.ifindex,
                    DeviceName {
                        device: device.name.clone(),
                        container: None,
                    },
                )
            })
            .collect();
        for endpoint in state.networks.iter().flat_map(|network| &network.endpoints) {
            if let Some(ifindex) = endpoint.ifindex {
                let device = endpoint.veth.clone().unwrap_or_default();
                names.insert(
                    ifindex,
                    DeviceName {
                        device,
                        container: Some(endpoint.container.clone()),
                    },
                );
            }
        }
        names
    }

    /// What the daemon wrote down; fails, with what to do, if it is gone.
    pub fn known_state(&self, dirs: &Dirs) -> Result<&State, CliError> {
        self.state.as_ref().ok_or_else(|| {
            let message = format!(
                "the daemon's state is gone: no state.json in {}",
                dirs.run_dir.display()
            );
            CliError::message(Exit::Failed, message).remedy("A running daemon writes it: `netfast run`.")
        })
    }
}

/// An interface of which the daemon's state says nothing.
pub fn stranger(ifindex: u32) -> Option<DeviceName> {
    Some(DeviceName {
        device: snapshot::interface_name(ifindex)?,
        container: None,
    })
}

/// The directories of who serves an overlay network's namespace, if that is meant.
pub fn resolve(dirs: &Dirs) -> Result<Dirs, CliError> {
    let Some(network) = &dirs.overlay else {
        return Ok(dirs.clone());
    };
    let state = State::read(&dirs.run_dir).map_err(anyhow::Error::new)?;
    let name = state.and_then(|state| state.sandbox_of(&dirs.run_dir, network));
    let name = name.ok_or_else(|| {
        let message = format!("no overlay network {network:?} is served in a namespace of its own");
        CliError::message(Exit::Failed, message).remedy("`netfast networks` lists the networks, with the reason.")
    })?;
    Ok(Dirs {
        pin_dir: sandboxes::directory(&dirs.pin_dir, &name),
        run_dir: sandboxes::directory(&dirs.run_dir, &name),
        overlay: None,
    })
}

/// Fails, with what to do, if the instance is in another network namespace than this process: whoever asks the kernel here
/// for routes and neighbours would be told of another host.
pub fn must_be_here(dirs: &Dirs) -> Result<(), CliError> {
    let pins = Pins::new(&dirs.pin_dir);
    if !pins.of_other_namespace().map_err(|error| {
        let text = format!("cannot read the pins in {}", dirs.pin_dir.display());
        CliError::new(Exit::Failed, anyhow::Error::new(error).context(text))
    })? {
        return Ok(());
    }
    let message = format!(
        "the pins in {} are of an instance in another network namespace",
        dirs.pin_dir.display()
    );
    let remedy = match lock::holder(&dirs.run_dir) {
        Some(pid) => format!("Run it there: `nsenter --net=/proc/{pid}/ns/net netfast …`."),
        None => "Run it there, or name this one's --pin-dir and --run-dir.".to_owned(),
    };
    Err(CliError::message(Exit::Failed, message).remedy(remedy))
}

/// The clock of the flows' times. The programs read its coarse form, which is never ahead of this one.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(std::time::Duration::from)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

fn require_pins(dirs: &Dirs) -> Result<(), CliError> {
    let pins = Pins::new(&dirs.pin_dir);
    match fs::metadata(pins.root()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let error = anyhow::Error::new(error).context(format!("cannot look into {}", pins.root().display()));
            Err(CliError::new(Exit::Privileges, error).remedy("Run it as root."))
        }
        Err(_) => Err(not_running(dirs)),
    }
}

fn unreadable(error: ReadError, dirs: &Dirs) -> CliError {
    if error.is_permission() {
        return CliError::new(Exit::Privileges, error).remedy("Run it as root.");
    }
    match error {
        ReadError::NothingPinned(_) => not_running(dirs),
        ReadError::Map { .. } => CliError::new(Exit::Failed, error)
            .remedy("If a start or an end was cut short, `netfast detach` removes what it left."),
    }
}

/// Nothing that this build can read is attached: why, and what to do.
fn not_running(dirs: &Dirs) -> CliError {
    let (pins, run) = (dirs.pin_dir.display(), dirs.run_dir.display());
    if let Some(pid) = lock::holder(&dirs.run_dir) {
        let message = format!("netfast (process {pid}) has not attached anything yet (pins: {pins})");
        return CliError::message(Exit::NotRunning, message)
            .remedy("Try again in a moment; if it was started with another --pin-dir, name that one.");
    }
    let others = Pins::of_other_abis(&dirs.pin_dir).unwrap_or_default();
    if let Some(other) = others.first() {
        let message = format!(
            "what is attached is of another version of netfast ({})",
            other.root().display()
        );
        return CliError::message(Exit::Failed, message)
            .remedy("Ask with that version's command, or let this one take over: `netfast run`.");
    }
    let message = format!("netfast is not running and nothing is attached (pins: {pins}, state: {run})");
    CliError::message(Exit::NotRunning, message).remedy(
        "Start it with `netfast run`. If it runs with other directories, name them with --pin-dir and --run-dir.",
    )
}
