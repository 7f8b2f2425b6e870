//! XDP at uplinks: what the daemon says to the program of the ends that take frames.
//!
//! Each has a number of its own in one map. A thread of the daemon counts what could have changed an end; the daemon looks at the ends
//! and then writes the count that it had read before it looked. While the two differ, nothing is sent by XDP.

/// Index of the count.
pub const CHANGES: u32 = 0;
/// Index of what the daemon has looked at.
pub const SEEN: u32 = 1;
/// Index of the time until which that holds, `CLOCK_MONOTONIC` coarse, nanoseconds: [`LEASE_NS`] from when the daemon last said that
/// it lives.
pub const UNTIL: u32 = 2;
/// Numbers in the map.
pub const STATES: u32 = 3;

/// How long the daemon's word holds, in nanoseconds.
pub const LEASE_NS: u64 = 700_000_000;
