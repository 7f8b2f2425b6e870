//! The tracer's side of `netfast trace`: it tells the programs what to show, and reads it.
//!
//! The programs show packets as long as the tracer renews its lease in the control map. It writes that one field
//! through a mapping: an update of the whole entry could undo what the daemon writes at the same moment.

use std::{
    fs::{File, OpenOptions},
    io,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering},
};

use aya::maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use netfast_common::{
    abi::map,
    control::Control,
    trace::{Filter, Tally, Traced, step},
};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};
use zerocopy::FromBytes as _;

use crate::apply::{
    pinned::{self, ReadError},
    pins::Pins,
};

/// The file in the run directory that only one tracer can lock.
const LOCK: &str = "trace.lock";
/// The lease, in steps of its clock, each about a second.
const LEASE: u32 = 3;

/// Packets are shown as long as this lives and is renewed.
pub struct Tracer {
    lease: Lease,
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
            lease: Lease::open(&pins)?,
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
        self.lease.until().store(step(now_ns()) + LEASE, Ordering::Relaxed);
    }

    /// From here on nothing is shown any more.
    pub fn end(&self) {
        self.lease.until().store(0, Ordering::Relaxed);
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

/// The control map's only entry, mapped.
struct Lease {
    page: NonNull<libc::c_void>,
    length: usize,
}

impl Lease {
    fn open(pins: &Pins) -> Result<Self, TraceError> {
        let failed = |source| TraceError::Map { source };
        let data = MapData::from_pin(pins.map(map::CONTROL)).map_err(|source| TraceError::Filter(Box::new(source)))?;
        let length = sysconf(SysconfVar::PAGE_SIZE)
            .map_err(|errno| failed(errno.into()))?
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(4096);
        // SAFETY: a new mapping of a whole page, which the kernel backs by the map's memory (array_map_mmap,
        // kernel/bpf/arraymap.c); it outlives the descriptor.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        let page = NonNull::new(page).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        Ok(Self { page, length })
    }

    fn until(&self) -> &AtomicU32 {
        const { assert!(offset_of!(Control, traced_until) % align_of::<AtomicU32>() == 0) }
        // SAFETY: within the mapped entry, aligned, and as long mapped as `self` lives. The kernel's programs only read
        // it, and the daemon's updates copy whole words.
        unsafe { AtomicU32::from_ptr(self.page.as_ptr().byte_add(offset_of!(Control, traced_until)).cast()) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody holds a reference into it any more.
        unsafe { libc::munmap(self.page.as_ptr(), self.length) };
    }
}

/// The clock that the programs compare with.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
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
    #[error("cannot map the map {}", map::CONTROL)]
    Map {
        /// Why.
        source: io::Error,
    },
}
