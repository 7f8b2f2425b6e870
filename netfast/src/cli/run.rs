//! `netfast run`.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{self, Path, PathBuf},
};

use anyhow::Context as _;
use tracing::{Instrument as _, Span, error_span};

use crate::{
    apply::{ApplyError, pins::PinsError},
    cli::{CliError, ConfigArgs, Exit, Fail as _, Global, RunArgs, RuntimeArg, config, lacking},
    config::{RawConfig, Runtime},
    daemon::{
        self, DaemonError, Settings, alone::AloneError, instance::InstanceError, lock::LockError, parent::Parent,
    },
    observe::ObserveError,
};

/// Runs the command.
pub fn run(args: &RunArgs, global: &Global) -> Result<(), CliError> {
    let (given, parent) = if args.sandbox {
        let (given, parent) = Parent::listen().context("no configuration comes by standard input")?;
        (Some(given), Some(parent))
    } else {
        (None, None)
    };
    let network = given.as_ref().and_then(|given| given.sandbox.as_ref());
    let span = network.map_or_else(Span::none, |inside| error_span!("overlay", network = inside.network));
    let settings = Settings {
        file: args.config.config.clone(),
        typed: typed(&args.config),
        // As the pins and the state name them, from wherever they are read.
        pin_dir: absolute(&global.dirs.pin_dir)?,
        run_dir: absolute(&global.dirs.run_dir)?,
        state_dir: args.state_dir.as_deref().map(first).map(absolute).transpose()?,
        wait: args.wait,
        without: lacking::pretended(),
        given,
    };
    // One thread: everything is in the namespace that the command was started in, and the daemon mostly waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime
        .block_on(daemon::run(settings, parent).instrument(span))
        .map_err(Into::into)
}

/// The first directory of a list, as systemd writes it where a unit has several (`STATE_DIRECTORY`, systemd.exec(5)).
fn first(list: &Path) -> &Path {
    let mut parts = list.as_os_str().as_bytes().split(|byte| *byte == b':');
    Path::new(OsStr::from_bytes(parts.next().unwrap_or_default()))
}

/// A directory as it is called from everywhere.
pub fn absolute(dir: &Path) -> Result<PathBuf, CliError> {
    path::absolute(dir).or_exit(Exit::Usage)
}

/// What was typed, as the configuration's keys.
pub fn typed(args: &ConfigArgs) -> RawConfig {
    RawConfig {
        runtime: args.runtime.map(|runtime| match runtime {
            RuntimeArg::Docker => Runtime::Docker,
            RuntimeArg::None => Runtime::None,
        }),
        docker_host: args.docker_host.clone(),
        uplinks: (!args.uplinks.is_empty()).then(|| args.uplinks.clone()),
        ..RawConfig::default()
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        let (exit, remedy) = verdict(&error);
        let said = Self::new(exit, error);
        match remedy {
            Some(remedy) => said.remedy(remedy),
            None => said,
        }
    }
}

/// The exit code of an error, and what to do about it.
fn verdict(error: &DaemonError) -> (Exit, Option<String>) {
    match error {
        DaemonError::Config(_) => (Exit::BadConfig, Some(config::REMEDY.into())),
        DaemonError::Probe(error) if error.is_about_privileges() => (Exit::Privileges, Some(error.remedy())),
        DaemonError::Probe(error) => (Exit::Unsupported, Some(error.remedy())),
        DaemonError::Lock(LockError::Held { .. }) | DaemonError::Instance(InstanceError::PinsInUse { .. }) => (
            Exit::AlreadyRunning,
            Some("Stop it first, or give this one its own --run-dir and --pin-dir.".into()),
        ),
        DaemonError::Alone(AloneError::Other { .. }) => (
            Exit::AlreadyRunning,
            Some(
                "Stop it first, with `netfast detach` and its directories if what it has attached is to go; in another network \
                 namespace there may be another netfast."
                    .into(),
            ),
        ),
        DaemonError::Observe(ObserveError::Docker(_)) => (
            Exit::RuntimeUnavailable,
            Some(
                "Start Docker, name its API with --docker-host, wait for it with --wait, or follow no runtime with --runtime none (every veth on \
                 a bridge is then taken for a container)."
                    .into(),
            ),
        ),
        DaemonError::UnknownUplinks { typed, .. } => (
            if *typed { Exit::Usage } else { Exit::BadConfig },
            Some("`ip link` lists the interfaces; without --uplink, netfast finds those that lead off the host.".into()),
        ),
        DaemonError::PoolInUse { key, .. } => (
            Exit::BadConfig,
            Some(format!("Name a range with {key} that nothing on this host uses.")),
        ),
        DaemonError::Apply(ApplyError::Program { .. } | ApplyError::Load { .. } | ApplyError::Btf(_)) => {
            (Exit::Unsupported, Some("`netfast check` says what this kernel lacks.".into()))
        }
        DaemonError::Apply(ApplyError::NoObject) => (
            Exit::Failed,
            Some("Run `cargo xtask setup`, then build it without that variable.".into()),
        ),
        DaemonError::Apply(ApplyError::Pins(PinsError::OtherNamespace(_))) => (
            Exit::Failed,
            Some("Give this one its own --pin-dir and --run-dir.".into()),
        ),
        DaemonError::PinsOutOfSight(_) => (
            Exit::Failed,
            Some("Start it again, as a service manager does by itself.".into()),
        ),
        DaemonError::Lock(LockError::Io { .. })
        | DaemonError::Alone(AloneError::Io(_))
        | DaemonError::Instance(_)
        | DaemonError::Observe(_)
        | DaemonError::Apply(_)
        | DaemonError::State(_)
        | DaemonError::Signals(_)
        | DaemonError::NoObservers => (Exit::Failed, None),
    }
}
