//! The traffic generator: what the verbs of `netfast-traffic` do, and the reports that they print as one JSON line.
//!
//! Every verb that serves runs until SIGTERM or SIGINT and then reports; every verb that sends runs for its time and
//! can be ended early in the same way. Servers say `listening` on standard error when they can be used.

pub mod cli;
pub mod crr;
pub mod flood;
pub mod hash;
pub mod hold;
pub mod latency;
pub mod paced;
pub mod rr;
pub mod stop;
pub mod tcp;
pub mod udp;
pub mod udp_send;
pub mod udp_sink;

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};
use serde::{Deserialize, Serialize};

/// CPU time that the process itself has used, in seconds. What the kernel does for its packets in softirq on other
/// tasks' time is not in it: see /proc/stat for that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuTime {
    /// In user mode.
    pub user_s: f64,
    /// In system calls.
    pub system_s: f64,
}

impl CpuTime {
    /// Of this process until now.
    pub fn now() -> Self {
        let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6;
        getrusage(UsageWho::RUSAGE_SELF).map_or_else(
            |_| Self::default(),
            |usage| Self {
                user_s: seconds(usage.user_time()),
                system_s: seconds(usage.system_time()),
            },
        )
    }
}
