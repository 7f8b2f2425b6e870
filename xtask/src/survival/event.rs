//! What may happen to a host.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use netfast_tests::{cmd, netfast_proc::NetfastProc};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::bed::{Bed, Builds, ECHO};

const LIMIT: Duration = Duration::from_mins(1);
/// Routes that come and go while the daemon cannot listen: several times what its socket holds.
const ROUTES: usize = 20_000;
/// A table so small that the load itself nearly fills it.
const SMALL_TABLE: &str = "flows = 1024\n";
/// Connections that want a place in it too.
const MANY: &str = "1500";

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
    /// netfast is taken away.
    Detach,
    /// Killed and started, many times.
    Kills,
    /// Upgraded to another ABI and back, many times.
    Upgrades,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 13] = [
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
            Self::Detach => "netfast detach".into(),
            Self::Kills => format!("kill -9 and start, {times} times"),
            Self::Upgrades => format!("upgrade to another ABI or back, {times} times"),
        }
    }

    /// Whether a build with another ABI is needed for it.
    pub fn needs_next_abi(self) -> bool {
        matches!(self, Self::UpgradeAbi | Self::Upgrades)
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
            Self::Overflow => overflow(bed)?,
            Self::FullTable => full_table(bed, traffic)?,
            Self::Detach => bed.netfast.detach()?,
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

/// Stops the daemon's listening, lets more happen than its sockets hold, and lets it go on.
fn overflow(bed: &Bed) -> Result<()> {
    let pid = bed.netfast.pid().context("netfast does not run")?;
    let process = Pid::from_raw(i32::try_from(pid)?);
    let before = dropped(bed)?;
    kill(process, Signal::SIGSTOP)?;
    let file = bed.netfast.run_dir().join("routes");
    let mut batch = fs::File::create(&file)?;
    for word in ["add", "del"] {
        for number in 0..ROUTES {
            let (high, low) = (number / 256, number % 256);
            writeln!(batch, "route {word} blackhole 10.{high}.{low}.0/24")?;
        }
    }
    let done = bed.host.in_host(&format!("ip -batch {}", file.display()));
    kill(process, Signal::SIGCONT)?;
    done?;
    let lost = dropped(bed)? - before;
    ensure!(lost > 0, "no notification was lost: this was no overflow");
    cmd::poll("the daemon is in step again", LIMIT, || {
        let text = fs::read_to_string(bed.netfast.run_dir().join("state.json")).ok()?;
        let state: Value = serde_json::from_str(&text).ok()?;
        (state["in_sync"] == true).then_some(())
    })
}

/// Notifications that the kernel could not deliver, to whichever socket of the host's namespace.
fn dropped(bed: &Bed) -> Result<u64> {
    let table = bed
        .host
        .host()
        .run(|| fs::read_to_string("/proc/thread-self/net/netlink"))??;
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    let drops = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(drops.sum())
}

/// Gives the daemon a table that is too small, and more connections than fit.
fn full_table(bed: &mut Bed, traffic: &Path) -> Result<()> {
    fs::write(bed.netfast.run_dir().join("netfast.toml"), SMALL_TABLE)?;
    bed.restart(Signal::SIGTERM)?;
    let to = format!("{}:{ECHO}", bed.host.container_ip("server", "user")?);
    let traffic = traffic.display().to_string();
    let hold = [traffic.as_str(), "hold", &to, "--connections", MANY, "--seconds", "5"];
    let more = bed.host.container_netns("client")?.spawn(&hold)?.wait(LIMIT)?;
    let report: netfast_tests::traffic::hold::Report =
        serde_json::from_str(&more.stdout).with_context(|| format!("{more:?}"))?;
    ensure!(
        report.dead == 0,
        "{} of the connections that filled the table were lost",
        report.dead
    );
    Ok(())
}
