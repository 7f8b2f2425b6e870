//! What monitoring systems read: `/metrics` and `/healthz`, by HTTP.
//!
//! It reads the pinned tables when asked, as `netfast status` does, and on a thread of its own: the daemon is not kept
//! from its work. It only reads, and nobody has to be there: without a place to listen the daemon goes on and tries
//! again.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};

pub mod http;
pub mod metrics;

use crate::{
    apply::{flows::FlowTables, pinned::ReadError, read::Tables},
    health::{Health, Vitals},
    report::{aliases::Aliases, status::Status},
    snapshot::{self, SnapshotError},
    state::{State, StateError},
};

/// Where the answers come from.
#[derive(Debug)]
pub struct Source {
    pin_dir: PathBuf,
    run_dir: PathBuf,
    health: Health,
    /// One look at a time: many scrapers at once must not multiply the work.
    turn: Mutex<()>,
}

impl Source {
    /// The instance with these directories.
    pub fn new(pin_dir: &Path, run_dir: &Path, health: Health) -> Arc<Self> {
        Arc::new(Self {
            pin_dir: pin_dir.into(),
            run_dir: run_dir.into(),
            health,
            turn: Mutex::new(()),
        })
    }

    /// What the daemon says of itself.
    pub fn vitals(&self) -> Vitals {
        self.health.vitals()
    }

    /// Reads state and tables.
    async fn status(self: &Arc<Self>) -> Result<(Status, Aliases), ExporterError> {
        let _turn = self.turn.lock().await;
        let source = Arc::clone(self);
        let look = tokio::task::spawn_blocking(move || source.look());
        look.await.map_err(|_| ExporterError::Interrupted)?
    }

    fn look(&self) -> Result<(Status, Aliases), ExporterError> {
        let state = State::read_whole(&self.run_dir)?;
        let tables = Tables::open(&self.pin_dir)?;
        let flows = FlowTables::open(&self.pin_dir)?;
        let aliases = snapshot::aliases(state.as_ref(), &tables, &flows)?;
        let sandboxes = snapshot::sandboxes(&self.pin_dir);
        let status = snapshot::status(state.as_ref(), true, &tables, &flows, &sandboxes)?;
        Ok((status, aliases))
    }
}

/// The server, as long as this lives.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts to listen.
    pub async fn start(address: SocketAddr, source: Arc<Source>) -> Result<Self, ExporterError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ExporterError::Listen { address, source })?;
        Ok(Self {
            address,
            task: tokio::spawn(http::serve(listener, source)),
        })
    }

    /// Where it was told to listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The address is taken, or not the host's.
    #[error("cannot serve metrics on {address} (key `metrics` of the configuration)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The daemon's state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The tables cannot be opened.
    #[error(transparent)]
    Tables(#[from] ReadError),
    /// The tables cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The daemon ends.
    #[error("interrupted: the daemon ends")]
    Interrupted,
}
