//! Which BPF file system the pins are in, and whether everybody else still sees that one.
//!
//! A service has a view of the mounts of its own. When the host's bpffs is unmounted and mounted anew, the old one lives
//! on in that view, with the pins and what is attached by them, and the new one appears beneath it: only there would
//! other commands look.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::Path};

use nix::sys::stat::makedev;

/// The mounts of this process.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Where pins are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file system, by its device number.
    device: u64,
    /// Whether another bpffs is mounted at the same place.
    is_stacked: bool,
}

impl Place {
    /// Looks at the directory with the pins; `None` if it cannot be looked at.
    pub fn of(pins: &Path) -> Option<Self> {
        let device = fs::metadata(pins).ok()?.dev();
        let mounts = fs::read_to_string(MOUNTS).ok()?;
        Some(Self {
            device,
            is_stacked: is_stacked(&mounts, pins, device),
        })
    }

    /// Whether another bpffs has been mounted since `self` that we do not see the pins through.
    pub fn is_covered(self, now: Self) -> bool {
        now.device == self.device && now.is_stacked && !self.is_stacked
    }
}

/// Whether at a place above `pins` both the bpffs with this device number and another one are mounted.
fn is_stacked(mounts: &str, pins: &Path, device: u64) -> bool {
    // proc_pid_mountinfo(5): ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS TAGS... - TYPE SOURCE OPTIONS
    let above: BTreeSet<(&str, u64)> = mounts
        .lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut words = mount.split(' ').skip(2);
            let (major, minor) = words.next()?.split_once(':')?;
            let place = words.nth(1)?;
            let is_ours = kind.starts_with("bpf ") && pins.starts_with(place);
            is_ours.then_some((place, makedev(major.parse().ok()?, minor.parse().ok()?)))
        })
        .collect();
    above.iter().any(|&(place, found)| {
        found == device
            && above
                .iter()
                .any(|&(other, another)| other == place && another != device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_bpffs_beneath_ours_is_found() {
        let pins = Path::new("/sys/fs/bpf/netfast/v1");
        let ours = makedev(0, 92);
        // The unit's view, seen under systemd 252.
        let before = "236 234 0:92 / /sys/fs/bpf ro,nosuid shared:35 - bpf bpf rw,mode=700\n\
                      293 236 0:92 /netfast /sys/fs/bpf/netfast rw,nosuid shared:36 - bpf bpf rw,mode=700\n\
                      234 230 0:22 / /sys rw shared:7 - sysfs sysfs rw\n";
        assert!(!is_stacked(before, pins, ours));
        let after = format!("{before}298 234 0:102 / /sys/fs/bpf rw shared:43 master:24 - bpf bpf rw,mode=700\n");
        assert!(is_stacked(&after, pins, ours));
        // Elsewhere it is nobody's business.
        let elsewhere = format!("{before}298 234 0:102 / /mnt rw - bpf bpf rw\n");
        assert!(!is_stacked(&elsewhere, pins, ours));
    }

    #[test]
    fn covered_is_what_was_not_so_at_first() {
        let place = |device, is_stacked| Place { device, is_stacked };
        assert!(place(1, false).is_covered(place(1, true)));
        assert!(!place(1, true).is_covered(place(1, true)));
        assert!(!place(1, false).is_covered(place(1, false)));
        assert!(!place(1, false).is_covered(place(2, true)), "that one we see");
    }
}
