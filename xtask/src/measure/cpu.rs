//! The machine's CPUs: how busy they are, and keeping them from halting.

use std::{fs, process::Command, thread};

use anyhow::{Context as _, Result};
use netfast_tests::cmd::Background;
use nix::unistd::{SysconfVar, sysconf};

/// CPU seconds that the machine has been busy since boot: user, nice, system, irq, softirq. Of the whole machine, since
/// what packets cost in softirq shows in no process's own account.
pub fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let ticks = busy_ticks(&stat).context("/proc/stat has no line `cpu`")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(ticks as f64 / per_second as f64)
}

fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // proc(5): user nice system idle iowait irq softirq steal …
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + irq + softirq)
}

/// Keeps every CPU from halting, as `idle=poll` on the kernel's command line would: to wake a halted virtual CPU takes
/// some 30 us, several times what a packet's way through the host takes, and it differs from one machine to another.
/// The spinning processes are in `SCHED_IDLE`: whatever else wants the CPU has it at once (sched(7)).
pub struct KeptAwake {
    _spinning: Vec<Background>,
}

impl KeptAwake {
    /// Until it is dropped.
    pub fn start() -> Result<Self> {
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
        Ok(Self {
            _spinning: (0..cpus).map(spin).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_iowait_and_steal_are_not_busy() {
        assert_eq!(
            busy_ticks("cpu  1 2 4 1000 1000 8 16 1000 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"),
            Some(31)
        );
        assert_eq!(busy_ticks("cpu0 1 1 1 1 1 1 1 1 1 1\n"), None);
    }
}
