//! What may happen to a host.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use netfast_tests::{cmd, listing::listing, netfast_proc::NetfastProc};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    bed::{Bed, Builds, LIMIT},
    trouble,
};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Event {
    /// Nothing.
    Nothing,
    /// The daemon is stopped and started.
    Restart,
    /// It is killed and started.
    Kill,
    /// It aborts, as on a panic, and is started.
    Abort,
    /// Another file with the same build takes over.
    Upgrade,
    /// A build with another ABI takes over.
    UpgradeAbi,
    /// dockerd is stopped and started.
    DockerdRestart,
    /// dockerd is killed and started.
    DockerdKill,
    /// More happens in the kernel than the daemon can listen to.
    Overflow,
    /// There are more connections than places in the flow table.
    FullTable,
    /// A map cannot be written.
    MapWrite,
    /// An endpoint cannot be attached to.
    Unattachable,
    /// The file system with the pins is mounted anew.
    BpffsRemount,
    /// netfast is taken away.
    Detach,
    /// Killed and started, many times.
    Kills,
    /// Upgraded to another ABI and back, many times.
    Upgrades,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Nothing,
        Self::Restart,
        Self::Kill,
        Self::Abort,
        Self::Upgrade,
        Self::UpgradeAbi,
        Self::DockerdRestart,
        Self::DockerdKill,
        Self::Overflow,
        Self::FullTable,
        Self::MapWrite,
        Self::Unattachable,
        Self::BpffsRemount,
        Self::Detach,
        Self::Kills,
        Self::Upgrades,
    ];

    /// What the table calls it.
    pub fn title(self, times: usize) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::Restart => "daemon stopped and started".into(),
            Self::Kill => "kill -9 and start".into(),
            Self::Abort => "panic (SIGABRT) and start".into(),
            Self::Upgrade => "upgrade, same ABI".into(),
            Self::UpgradeAbi => "upgrade, another ABI".into(),
            Self::DockerdRestart => "dockerd restart (live-restore)".into(),
            Self::DockerdKill => "dockerd kill -9 and start".into(),
            Self::Overflow => "netlink overflow".into(),
            Self::FullTable => "full flow table (1024)".into(),
            Self::MapWrite => "a map write that fails".into(),
            Self::Unattachable => "an endpoint that cannot be attached".into(),
            Self::BpffsRemount => "bpffs unmounted and mounted".into(),
            Self::Detach => "netfast detach".into(),
            Self::Kills => format!("kill -9 and start, {times} times"),
            Self::Upgrades => format!("upgrade to another ABI or back, {times} times"),
        }
    }

    /// Whether a build with another ABI is needed for it.
    pub fn needs_next_abi(self) -> bool {
        matches!(self, Self::UpgradeAbi | Self::Upgrades)
    }

    /// Whether the pins must be in a bpffs of their own for it.
    pub fn needs_own_bpffs(self) -> bool {
        self == Self::BpffsRemount
    }

    /// Lets it happen; returns how long that took.
    pub fn happen(self, bed: &mut Bed, builds: &Builds, times: usize, traffic: &Path) -> Result<Duration> {
        let start = Instant::now();
        let other = || builds.next_abi.as_deref().context("no build with another ABI");
        match self {
            Self::Nothing => {}
            Self::Restart => bed.restart(Signal::SIGTERM)?,
            Self::Kill => bed.restart(Signal::SIGKILL)?,
            Self::Abort => bed.restart(Signal::SIGABRT)?,
            Self::Upgrade => bed.upgrade(&builds.same[1])?,
            Self::UpgradeAbi => bed.upgrade(other()?)?,
            Self::DockerdRestart | Self::DockerdKill => {
                let signal = if self == Self::DockerdKill {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                };
                bed.host.stop_dockerd(signal)?;
                await_runtime(&bed.netfast, "disconnected")?;
                bed.host.start_dockerd()?;
                await_runtime(&bed.netfast, "connected")?;
            }
            Self::Overflow => trouble::overflow(bed)?,
            Self::FullTable => trouble::full_table(bed, traffic)?,
            Self::MapWrite => trouble::map_write(bed)?,
            Self::Unattachable => trouble::unattachable(bed)?,
            Self::BpffsRemount => trouble::bpffs_remount(bed)?,
            Self::Detach => {
                bed.netfast.detach()?;
                as_found(bed)?;
            }
            Self::Kills => {
                for _ in 0..times {
                    bed.restart(Signal::SIGKILL)?;
                }
            }
            Self::Upgrades => {
                for round in 0..times {
                    bed.upgrade(if round % 2 == 0 { other()? } else { &builds.same[0] })?;
                }
            }
        }
        Ok(start.elapsed())
    }
}

fn await_runtime(netfast: &NetfastProc, state: &str) -> Result<()> {
    cmd::poll("the daemon notices", LIMIT, || {
        let status: Value = netfast.status().ok()?;
        (status["runtime"]["state"] == state).then_some(())
    })
}

/// Fails unless the host is as it was before netfast.
fn as_found(bed: &Bed) -> Result<()> {
    let mut differences = Vec::new();
    // The kernel frees programs and maps a moment after their last user has gone.
    let same = cmd::poll("the host is as found", LIMIT, || {
        let now = listing(bed.host.host()).ok()?;
        let gone = bed.found.iter().filter(|line| !now.contains(line));
        let new = now.iter().filter(|line| !bed.found.contains(line));
        differences = gone
            .map(|line| format!("- {line}"))
            .chain(new.map(|line| format!("+ {line}")))
            .collect();
        differences.is_empty().then_some(())
    });
    same.with_context(|| differences.join("\n"))?;
    println!(
        "{} lines of links (sizes of segments among them), qdiscs, hooks, sysctls, pins, programs and maps are as before",
        bed.found.len()
    );
    Ok(())
}
