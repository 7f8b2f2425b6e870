//! Capabilities of this process, and what each is for.

use std::fs;

use super::{ProbeError, Tried};

/// What [`try_all`] calls the ability to enter other namespaces.
pub(super) const ENTER: &str = "CAP_SYS_ADMIN and CAP_SYS_PTRACE";

// Numbers of linux/capability.h.
const NET_ADMIN: u32 = 12;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

const WITHOUT_ENTER: &str = "containers' interfaces are matched by what Docker tells alone, and other software's BPF \
    programs are not seen";

/// Looks at the effective set.
pub(super) fn try_all() -> Vec<Tried> {
    let effective = effective(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default());
    // CAP_SYS_ADMIN stands for the two newer ones (linux/capability.h, `bpf_capable`, `perfmon_capable`).
    let has = |bit: u32| effective & (1u64 << bit) != 0;
    let one = |name, held, purpose, without| Tried {
        what: name,
        without,
        outcome: if held {
            Ok(format!("to {purpose}"))
        } else {
            Err(ProbeError::Capability { name, purpose })
        },
    };
    vec![
        one("CAP_BPF", has(BPF) || has(SYS_ADMIN), "load BPF programs", None),
        one(
            "CAP_NET_ADMIN",
            has(NET_ADMIN),
            "attach to interfaces and read the packet filter",
            None,
        ),
        one(
            "CAP_PERFMON",
            has(PERFMON) || has(SYS_ADMIN),
            "let programs use kernel pointers and trace nf_queue",
            None,
        ),
        one(
            ENTER,
            has(SYS_ADMIN) && has(SYS_PTRACE),
            "look into containers' network namespaces",
            Some(WITHOUT_ENTER),
        ),
    ]
}

/// The effective set as /proc/PID/status tells it (`proc_pid_status(5)`); empty if it does not.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n";
        assert_eq!(effective(status), 0x1ff_feff_ffff);
        assert_eq!(effective("Name:\tx\n"), 0);
    }
}
