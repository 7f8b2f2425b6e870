//! What a process costs.

use std::fs;

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// CPU time that a process has had, milliseconds (proc(5): `utime` and `stime` of `stat`, in clock ticks).
pub fn cpu_ms(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the daemon is gone")?;
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    ticks_of(&stat)
        .map(|sum| sum as f64 * 1e3 / ticks as f64)
        .with_context(|| format!("/proc/{pid}/stat is not as expected: {stat}"))
}

/// `utime` and `stime`, fields 14 and 15; the second one, the name in brackets, may have blanks in it.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// proc(5): `VmRSS` of `status`, kB.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the daemon is gone")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(kib.context("no VmRSS")? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_shifts_no_field() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 5 0 100 1000 200";
        assert_eq!(ticks_of(stat), Some(42));
        assert_eq!(ticks_of("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let pid = std::process::id();
        assert!(resident_mib(pid).expect("read") > 0.5);
        assert!(cpu_ms(pid).expect("read") >= 0.0);
    }
}
