//! The leases in the control entry, each written alone through a mapping of the map: an update of the whole entry could
//! undo what another process writes at the same moment.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64},
};

use aya::maps::{Array, IterableMap as _, MapData};
use netfast_common::{abi::map, control::Control};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};

/// The control map's only entry, mapped.
pub(super) struct Leases {
    page: NonNull<libc::c_void>,
    length: usize,
}

impl Leases {
    /// Maps it; the map may be closed afterwards.
    pub(super) fn of(control: &Array<MapData, Control>) -> Result<Self, LeaseError> {
        let length = sysconf(SysconfVar::PAGE_SIZE)
            .map_err(|errno| LeaseError(errno.into()))?
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
                control.map().fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(LeaseError(io::Error::last_os_error()));
        }
        let page = NonNull::new(page).ok_or_else(|| LeaseError(io::ErrorKind::InvalidData.into()))?;
        Ok(Self { page, length })
    }

    /// [`Control::traced_until`], a tracer's.
    pub(super) fn traced_until(&self) -> &AtomicU32 {
        const { assert!(offset_of!(Control, traced_until) % align_of::<AtomicU32>() == 0) }
        // SAFETY: within the mapped entry, aligned, and as long mapped as `self` lives. The kernel's programs only read
        // it, and the daemon's updates copy whole words.
        unsafe { AtomicU32::from_ptr(self.page.as_ptr().byte_add(offset_of!(Control, traced_until)).cast()) }
    }

    /// [`Control::direct_until_ns`], the daemon's.
    pub(super) fn direct_until_ns(&self) -> &AtomicU64 {
        const { assert!(offset_of!(Control, direct_until_ns) % align_of::<AtomicU64>() == 0) }
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.page.as_ptr().byte_add(offset_of!(Control, direct_until_ns)).cast()) }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody holds a reference into it any more.
        unsafe { libc::munmap(self.page.as_ptr(), self.length) };
    }
}

/// The clock that the programs compare with, in nanoseconds.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The switches cannot be mapped.
#[derive(Debug, thiserror::Error)]
#[error("cannot map the map {}", map::CONTROL)]
pub struct LeaseError(#[source] io::Error);
