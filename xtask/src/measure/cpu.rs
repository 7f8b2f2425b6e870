//! The machine's CPUs: how busy they are, and keeping them from halting.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use netfast_tests::cmd::Background;
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::{Pid, SysconfVar, sysconf},
};

/// What CPUs do that have nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Idle {
    /// They poll for work, as with `idle=poll` on the kernel's command line. To wake a halted virtual CPU takes some
    /// 30 us, several times what a packet's way through the host takes; it differs from one machine to another, and the
    /// sooner a path delivers, the oftener its receiver sleeps, so the machine's price for that would be taken for the
    /// path's.
    Poll,
    /// They halt, as the machine has it.
    Halt,
}

/// The CPU time that the machine spends on anything from when it is started.
///
/// By exclusion, as what is left of the time that passed when idle time is taken off: the kernel accounts for busy time
/// by what it finds at each tick, and traffic that a timer paces keeps in step with ticks (the same 6 Gb/s were seen as
/// 0.12 and as 1.5 CPU ns per byte).
pub struct Meter {
    cpus: usize,
    since: Instant,
    idle: Duration,
    awake: Option<Awake>,
}

impl Meter {
    /// From now on.
    pub fn start(idle: Idle) -> Result<Self> {
        let awake = match idle {
            Idle::Poll => Some(Awake::keep()?),
            Idle::Halt => None,
        };
        let mut meter = Self {
            cpus: thread::available_parallelism().map_or(1, usize::from),
            since: Instant::now(),
            idle: Duration::ZERO,
            awake,
        };
        meter.idle = meter.idle()?;
        meter.since = Instant::now();
        Ok(meter)
    }

    /// CPU seconds since it was started, of all CPUs.
    pub fn busy_seconds(&self) -> Result<f64> {
        let idle = self.idle()?.saturating_sub(self.idle);
        let all = self.since.elapsed().as_secs_f64() * self.cpus as f64;
        Ok((all - idle.as_secs_f64()).max(0.0))
    }

    fn idle(&self) -> Result<Duration> {
        match &self.awake {
            Some(Awake::Spinning(processes)) => spun(processes),
            Some(Awake::Polling(_)) | None => idle(),
        }
    }
}

/// What CPUs had nothing to do or were not given by the machine's host, since boot. Unlike busy times these are measured,
/// not sampled, where ticks stop on idle CPUs (`get_idle_time`, fs/proc/stat.c).
fn idle() -> Result<Duration> {
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
enum Awake {
    /// By asking the kernel for a latency of nothing: its idle loop then polls, and what wakes a CPU need not interrupt it
    /// (`Documentation/power/pm_qos_interface.rst`).
    Polling(#[expect(dead_code, reason = "to be closed")] File),
    /// By processes that spin in `SCHED_IDLE`, where the kernel has no say in how CPUs idle or cannot be asked: whatever
    /// else wants the CPU has it at once (sched(7)), but by an interrupt.
    Spinning(Vec<Background>),
}

impl Awake {
    fn keep() -> Result<Self> {
        let driver = fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver").unwrap_or_default();
        let asked = OpenOptions::new()
            .write(true)
            .open("/dev/cpu_dma_latency")
            .and_then(|mut file| file.write_all(&0_i32.to_ne_bytes()).map(|()| file));
        if let (false, Ok(file)) = (matches!(driver.trim(), "" | "none"), asked) {
            return Ok(Self::Polling(file));
        }
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let spin = |cpu: usize| {
            let line = format!("exec taskset --cpu-list {cpu} chrt --idle 0 sh -c 'while :; do :; done'");
            Background::start(Command::new("sh").args(["-c", &line]))
        };
        Ok(Self::Spinning((0..cpus).map(spin).collect::<Result<_>>()?))
    }
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
