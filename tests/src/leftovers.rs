//! What a laboratory leaves on the machine, and its removal.
//!
//! Everything that outlives a process carries the process's tag in its name: network namespaces
//! (`/run/netns/TAG-…`), state directories (`/tmp/TAG/…`), pins in bpffs (`/sys/fs/bpf/TAG-…`). The tag holds pid and
//! start time, so a pid that was given out again is not mistaken for the owner. Drop removes all of it in the usual
//! case; here is what removes it after a crash, or on Ctrl-C.

use std::{
    collections::HashSet,
    fs, io, iter,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{cmd, netns::NETNS_DIR};

/// First word of every tag.
const PREFIX: &str = "nf";

/// What the names of the laboratory's daemons begin with; a name has 15 bytes.
const DAEMONS: [&str; 5] = ["dockerd", "containerd", "podman", "conmon", "netfast"];

/// Where bpffs is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// This process's tag: `nf-PID-STARTTIME`.
pub fn tag() -> &'static str {
    static TAG: OnceLock<String> = OnceLock::new();
    TAG.get_or_init(|| {
        let pid = process::id();
        format!("{PREFIX}-{pid}-{}", start_time(pid).unwrap_or_default())
    })
}

/// This process's state directory, made if missing. It lies in /tmp whatever TMPDIR says: paths of unix sockets below
/// it must stay under 108 bytes.
pub fn state_dir() -> anyhow::Result<PathBuf> {
    let dir = Path::new("/tmp").join(tag());
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Removes what processes that no longer run have left.
pub fn sweep_dead() {
    let mut tags = HashSet::new();
    for base in [NETNS_DIR, "/tmp", BPFFS] {
        tags.extend(names_in(base).iter().filter_map(|name| tag_in(name)));
    }
    for tag in tags {
        if !is_alive(&tag) {
            eprintln!("lab: removing what {tag} left behind");
            sweep(&tag);
        }
    }
}

/// Removes all that this process has made: for a signal handler's thread, when destructors will not run.
pub fn sweep_own() {
    // Traffic in a container's namespace is below neither a daemon nor a namespace with a name.
    let end_children = || end_processes(|pid| parent_of(pid) == Some(process::id()));
    end_children();
    sweep(tag());
    // What another thread has started meanwhile.
    end_children();
}

fn sweep(tag: &str) {
    let dir = Path::new("/tmp").join(tag);
    let inside = format!("{}/", dir.display());
    end_processes(|pid| {
        is_daemon(pid)
            && fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&inside))
    });
    for name in names_in(NETNS_DIR)
        .iter()
        .filter(|name| tag_in(name).as_deref() == Some(tag))
    {
        remove_netns(name);
    }
    for name in names_in(BPFFS)
        .iter()
        .filter(|name| tag_in(name).as_deref() == Some(tag))
    {
        let _gone = fs::remove_dir_all(Path::new(BPFFS).join(name));
    }
    remove_cgroups(tag);
    remove_dir(&dir);
}

/// Whether the process is one of the programs that a laboratory starts with its state directory in their arguments.
/// To be asked besides the directory: somebody may be reading a log there.
pub fn is_daemon(pid: u32) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    DAEMONS.iter().any(|daemon| comm.starts_with(daemon))
}

/// Ends every process in the named network namespace and deletes it.
pub fn remove_netns(name: &str) {
    let path = Path::new(NETNS_DIR).join(name);
    if let Ok(meta) = fs::metadata(&path) {
        let inode = meta.ino();
        end_processes(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns.ino() == inode));
    }
    if let Err(error) = cmd::run(Command::new("ip").args(["netns", "del", name])) {
        eprintln!("lab: {error:#}");
    }
}

/// Unmounts what is mounted below `dir` and deletes it; and the state directory too, if it was the last one in it.
pub fn remove_dir(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|m| Path::new(m).starts_with(dir))
        .collect();
    // The deepest first.
    below.sort_unstable_by(|a, b| b.cmp(a));
    for mount in below {
        let _gone = umount2(mount, MntFlags::MNT_DETACH);
    }
    if let Err(error) = fs::remove_dir_all(dir)
        && dir.exists()
    {
        eprintln!("lab: cannot remove {}: {error}", dir.display());
    }
    // Fails while there is something else in it.
    let _kept = fs::remove_dir(Path::new("/tmp").join(tag()));
}

/// Kills the processes that `is_ours` tells, and their descendants, and waits until they are gone.
///
/// SIGKILL at once: the first process of a container is deaf to SIGTERM, and nothing here has anything to save.
/// The caller itself and its own ancestors are never among them.
pub fn end_processes(is_ours: impl Fn(u32) -> bool) {
    let mut spared = HashSet::from([process::id(), 1]);
    let mut up = process::id();
    while let Some(parent) = parent_of(up).filter(|parent| *parent > 1) {
        spared.insert(parent);
        up = parent;
    }
    // What is killed last may have started something meanwhile.
    for _ in 0..5 {
        let pids = find_processes(&spared, &is_ours);
        if pids.is_empty() {
            return;
        }
        for pid in &pids {
            // It may have ended by itself meanwhile.
            let _gone = kill(
                Pid::from_raw(i32::try_from(*pid).expect("a pid fits i32")),
                Signal::SIGKILL,
            );
        }
        let patience = Instant::now() + Duration::from_secs(2);
        while Instant::now() < patience && pids.iter().any(|pid| is_running(*pid)) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn find_processes(spared: &HashSet<u32>, is_ours: impl Fn(u32) -> bool) -> HashSet<u32> {
    let all: Vec<u32> = names_in("/proc")
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|pid| !spared.contains(pid) && is_running(*pid))
        .collect();
    let mut found: HashSet<u32> = all.iter().copied().filter(|pid| is_ours(*pid)).collect();
    // Containers are children of their shim and carry no mark of their own.
    loop {
        let parent_found = |pid: &u32| parent_of(*pid).is_some_and(|parent| found.contains(&parent));
        let more: Vec<u32> = all
            .iter()
            .copied()
            .filter(|pid| !found.contains(pid) && parent_found(pid))
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Removes the (empty) control groups `NAME` and `NAME-…` at the top of every hierarchy in /sys/fs/cgroup.
pub fn remove_cgroups(name: &str) {
    // Version 2 alone: the root is the hierarchy; version 1, or both together: one directory per hierarchy.
    let root = Path::new("/sys/fs/cgroup");
    let below = names_in(root).into_iter().map(|hierarchy| root.join(hierarchy));
    for hierarchy in iter::once(root.to_owned()).chain(below) {
        for group in names_in(&hierarchy) {
            if group
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            {
                remove_cgroup(&hierarchy.join(group));
            }
        }
    }
}

/// Depth first; the files in a control group need no removal and allow none.
pub fn remove_cgroup(group: &Path) {
    for child in names_in(group) {
        if group.join(&child).is_dir() {
            remove_cgroup(&group.join(child));
        }
    }
    // A process that was killed stays in its group until it has been reaped.
    let patience = Instant::now() + Duration::from_secs(2);
    while let Err(error) = fs::remove_dir(group)
        && group.exists()
    {
        if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() > patience {
            eprintln!("lab: cannot remove the control group {}: {error}", group.display());
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs and is not a zombie, which only its parent can remove.
pub fn is_running(pid: u32) -> bool {
    stat_fields(pid)
        .and_then(|fields| fields.into_iter().next())
        .is_some_and(|state| state != "Z")
}

fn parent_of(pid: u32) -> Option<u32> {
    stat_fields(pid)?.get(1)?.parse().ok()
}

fn start_time(pid: u32) -> Option<String> {
    stat_fields(pid)?.into_iter().nth(19)
}

/// The fields of /proc/PID/stat from the third (state) on: the second, the name, may hold blanks and brackets.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The tag that `name` begins with.
fn tag_in(name: &str) -> Option<String> {
    let mut words = name.split('-');
    let (prefix, pid, start) = (words.next()?, words.next()?, words.next()?);
    let numbers = [pid, start]
        .iter()
        .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()));
    (prefix == PREFIX && numbers).then(|| format!("{prefix}-{pid}-{start}"))
}

fn is_alive(tag: &str) -> bool {
    let mut words = tag.split('-').skip(1);
    let pid = words.next().and_then(|pid| pid.parse().ok());
    pid.and_then(start_time).as_deref() == words.next()
}

fn names_in(dir: impl AsRef<Path>) -> Vec<String> {
    fs::read_dir(dir)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_again_in_the_names_made_from_it() {
        assert_eq!(tag_in(&format!("{}-3-lan", tag())).as_deref(), Some(tag()));
        assert_eq!(tag_in(tag()).as_deref(), Some(tag()));
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in ["nf-lan", "nf-host1", "netfast", "nf-12-x-y", "nf--1-2", ""] {
            assert_eq!(tag_in(name), None, "{name}");
        }
    }

    #[test]
    fn this_process_is_alive_and_one_of_another_time_is_not() {
        assert!(is_alive(tag()));
        assert!(!is_alive(&format!("nf-{}-1", process::id())));
    }
}
