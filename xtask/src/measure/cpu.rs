//! The machine's CPUs: how busy they are, and keeping them from halting.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use netfast_tests::cmd::Background;
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::{Pid, SysconfVar, sysconf},
};
use serde::{Deserialize, Serialize};

/// What CPUs do that have nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// They poll for work, as with `idle=poll` on the kernel's command line. To wake a halted virtual CPU takes some
    /// 30 us, several times what a packet's way through the host takes; it differs from one machine to another, and the
    /// sooner a path delivers, the oftener its receiver sleeps, so the machine's price for that would be taken for the
    /// path's.
    Poll,
    /// They halt, as the machine has it.
    Halt,
}

impl Idle {
    /// Sees to it until the answer is dropped.
    pub fn keep(self) -> Result<Awake> {
        match self {
            Self::Poll => Awake::keep(),
            Self::Halt => Ok(Awake::Not),
        }
    }
}

/// The CPU time that the machine spends on anything from when it is started.
///
/// By exclusion, as what is left of the time that passed when idle time is taken off: the kernel accounts for busy time
/// by what it finds at each tick, and traffic that a timer paces keeps in step with ticks (the same 6 Gb/s were seen as
/// 0.17 and as 1.5 CPU ns per byte).
pub struct Meter {
    awake: Awake,
    since: Instant,
    idle_before: Duration,
}

impl Meter {
    /// From now on, with CPUs that idle so.
    pub fn start(idle: Idle) -> Result<Self> {
        let awake = idle.keep()?;
        Ok(Self {
            idle_before: awake.idle()?,
            since: Instant::now(),
            awake,
        })
    }

    /// CPU seconds since it was started, of all CPUs.
    pub fn busy_seconds(&self) -> Result<f64> {
        let idle = self.awake.idle()?.saturating_sub(self.idle_before);
        let all = self.since.elapsed().as_secs_f64() * self.awake.cpus()? as f64;
        Ok((all - idle.as_secs_f64()).max(0.0))
    }
}

/// What CPUs had nothing to do or were not given by the machine's host, since boot. Unlike busy times these are measured,
/// not sampled, where ticks stop on idle CPUs (`get_idle_time`, fs/proc/stat.c).
fn idle_since_boot() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks = idle_ticks(&stat).context("/proc/stat has no line `cpu`")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

fn idle_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // proc(5): user nice system idle iowait irq softirq steal …
    let [_, _, _, idle, iowait, _, _, steal, ..] = fields[..] else {
        return None;
    };
    Some(idle + iowait + steal)
}

/// Keeps every CPU from halting until it is dropped.
pub enum Awake {
    /// By asking the kernel for a latency of nothing: its idle loop then polls, and what wakes a CPU need not interrupt it
    /// (`Documentation/power/pm_qos_interface.rst`).
    Polling(#[expect(dead_code, reason = "to be closed")] File),
    /// By processes that spin in `SCHED_IDLE`, where the kernel has no say in how CPUs idle or cannot be asked: whatever
    /// else wants the CPU has it at once (sched(7)), but by an interrupt.
    Spinning(Vec<Background>),
    /// It does not.
    Not,
}

impl Awake {
    fn keep() -> Result<Self> {
        if let Some(asked) = no_latency() {
            return Ok(Self::Polling(asked));
        }
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let spin = |cpu: usize| {
            let cpu = cpu.to_string();
            let line = [
                "--cpu-list",
                &cpu,
                "chrt",
                "--idle",
                "0",
                "sh",
                "-c",
                "while :; do :; done",
            ];
            Background::start(Command::new("taskset").args(line))
        };
        Ok(Self::Spinning((0..cpus).map(spin).collect::<Result<_>>()?))
    }

    /// What CPUs had nothing to do, since some moment that stays the same.
    fn idle(&self) -> Result<Duration> {
        match self {
            Self::Spinning(processes) => spun(processes),
            Self::Polling(_) | Self::Not => idle_since_boot(),
        }
    }

    /// Of how many CPUs that is told.
    fn cpus(&self) -> Result<i64> {
        match self {
            Self::Spinning(processes) => Ok(i64::try_from(processes.len())?),
            Self::Polling(_) | Self::Not => sysconf(SysconfVar::_NPROCESSORS_ONLN)?.context("no number of CPUs"),
        }
    }
}

/// Asks the kernel that CPUs need no time to wake up, for as long as the file is open.
fn no_latency() -> Option<File> {
    let driver = fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver").ok()?;
    if matches!(driver.trim(), "" | "none") {
        return None;
    }
    let mut file = OpenOptions::new().write(true).open("/dev/cpu_dma_latency").ok()?;
    file.write_all(&0_i32.to_ne_bytes()).ok()?;
    Some(file)
}

/// The CPU time that was left to processes that spin.
fn spun(processes: &[Background]) -> Result<Duration> {
    processes
        .iter()
        .map(|process| {
            let clock = clock_getcpuclockid(Pid::from_raw(process.pid().cast_signed()))?;
            Ok(Duration::from(clock_gettime(clock)?))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_iowait_and_steal_are_not_busy() {
        assert_eq!(
            idle_ticks("cpu  1000 1000 1000 1 2 1000 1000 4 1000 1000\ncpu0 1 1 1 1 1 1 1 1 1 1\n"),
            Some(7)
        );
        assert_eq!(idle_ticks("cpu0 1 1 1 1 1 1 1 1 1 1\n"), None);
    }
}
