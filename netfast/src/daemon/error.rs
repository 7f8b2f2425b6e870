//! Why the daemon cannot start, or ends.

use std::path::PathBuf;

use crate::{
    apply::ApplyError,
    config::ConfigError,
    daemon::{alone::AloneError, instance::InstanceError, lock::LockError},
    observe::ObserveError,
    probe::ProbeError,
    state::StateError,
};

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The host lacks something.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// Another daemon runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another daemon works on the same interfaces.
    #[error(transparent)]
    Alone(#[from] AloneError),
    /// The directories are of different instances.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Kernel or runtime cannot be observed.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Uplinks that were named do not exist.
    #[error("there is no interface {} in this network namespace", names.join(", "))]
    UnknownUplinks {
        /// Their names.
        names: Vec<String>,
        /// Whether they were typed on the command line.
        typed: bool,
    },
    /// The pool of virtual addresses that was named is in use.
    #[error("{conflict}")]
    PoolInUse {
        /// What of the host it overlaps.
        conflict: String,
        /// The key of the configuration that names it.
        key: &'static str,
    },
    /// The programs cannot be loaded, or may not be used.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The state cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Signals cannot be handled.
    #[error("cannot handle signals")]
    Signals(#[source] std::io::Error),
    /// Only this process sees its pins.
    #[error("the BPF file system of {} was mounted anew, and this process still sees the old one", .0.display())]
    PinsOutOfSight(PathBuf),
    /// Nobody watches any more.
    #[error("the tasks that watch kernel and runtime have ended")]
    NoObservers,
}
