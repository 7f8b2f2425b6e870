//! The tracer's side of `netfast trace`: it tells the programs what to show, and reads it.
//!
//! The programs show packets as long as the tracer renews its [lease](super::lease) in the control map.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use aya::maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use netfast_common::{
    abi::map,
    trace::{Filter, Tally, Traced, step},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use zerocopy::FromBytes as _;

use crate::apply::{
    lease::{LeaseError, Leases, now_ns},
    pinned::{self, ReadError},
    pins::Pins,
};

/// The file in the run directory that only one tracer can lock.
const LOCK: &str = "trace.lock";
/// The lease, in steps of its clock, each about a second.
const LEASE: u32 = 3;

/// Packets are shown as long as this lives and is renewed.
pub struct Tracer {
    lease: Leases,
    ring: RingBuf<MapData>,
    tally: PerCpuArray<MapData, Tally>,
    _lock: Flock<File>,
}

impl Tracer {
    /// Begins to show what the filter wants.
    pub fn start(pin_dir: &Path, run_dir: &Path, filter: Filter) -> Result<Self, TraceError> {
        let lock = lock(run_dir)?;
        let pins = Pins::new(pin_dir);
        if !pins.exist() {
            return Err(ReadError::NothingPinned(pins.root().display().to_string()).into());
        }
        let mut filters: Array<MapData, Filter> = pinned::open(&pins, map::FILTER)?;
        filters
            .set(0, filter, 0)
            .map_err(|source| TraceError::Filter(Box::new(source)))?;
        let mut tracer = Self {
            lease: Leases::of(&pinned::open(&pins, map::CONTROL)?)?,
            ring: pinned::open(&pins, map::TRACED)?,
            tally: pinned::open(&pins, map::TALLY)?,
            _lock: lock,
        };
        // What an earlier tracer left unread.
        while tracer.take().is_some() {}
        // Nobody counts before there is a lease.
        tracer.clear()?;
        tracer.renew();
        Ok(tracer)
    }

    /// To be called twice a second: after some three seconds without, nothing is shown any more.
    pub fn renew(&self) {
        self.lease
            .traced_until()
            .store(step(now_ns()) + LEASE, Ordering::Relaxed);
    }

    /// From here on nothing is shown any more.
    pub fn end(&self) {
        self.lease.traced_until().store(0, Ordering::Relaxed);
    }

    /// The next packet, if one is there.
    pub fn take(&mut self) -> Option<Traced> {
        let item = self.ring.next()?;
        Traced::read_from_bytes(&item).ok()
    }

    /// What became of the packets that the filter wanted, since the start, on all CPUs.
    pub fn tally(&self) -> Result<Tally, TraceError> {
        let parts = self
            .tally
            .get(&0, 0)
            .map_err(|source| TraceError::Tally(Box::new(source)))?;
        Ok(parts.iter().fold(Tally::default(), |sum, part| Tally {
            wanted: sum.wanted.wrapping_add(part.wanted),
            shown: sum.shown.wrapping_add(part.shown),
            limited: sum.limited.wrapping_add(part.limited),
            lost: sum.lost.wrapping_add(part.lost),
            ..sum
        }))
    }

    fn clear(&mut self) -> Result<(), TraceError> {
        let failed = |source| TraceError::Tally(Box::new(source));
        let parts = self.tally.get(&0, 0).map_err(failed)?.len();
        let zeros =
            PerCpuValues::try_from(vec![Tally::default(); parts]).map_err(|source| TraceError::Map { source })?;
        self.tally.set(0, zeros, 0).map_err(failed)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(run_dir: &Path) -> Result<Flock<File>, TraceError> {
    let path = run_dir.join(LOCK);
    let failed = |source| TraceError::Lock {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == Errno::EWOULDBLOCK {
            TraceError::Busy
        } else {
            failed(errno.into())
        }
    })
}

/// Why nothing can be traced.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Another tracer runs.
    #[error("another `netfast trace` of this instance runs")]
    Busy,
    /// The lock cannot be taken.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A map cannot be opened.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The filter cannot be written.
    #[error("cannot tell the programs what to show")]
    Filter(#[source] Box<MapError>),
    /// The tally cannot be read.
    #[error("cannot read what became of the packets")]
    Tally(#[source] Box<MapError>),
    /// The switches cannot be mapped.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The tally cannot be cleared.
    #[error("cannot clear the map {}", map::TALLY)]
    Map {
        /// Why.
        source: io::Error,
    },
}
