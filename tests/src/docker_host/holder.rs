//! The process that holds an engine's namespaces, and the way into them.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::release::{PATH, Release};
use crate::{cmd, netns::NetNs};

/// What the holder does for the machine's own engine, with the state directory as `$1`: mounts in its private mount
/// namespace, then sleep.
///
/// /sys is mounted anew so that it shows this network namespace's devices; a fresh sysfs has no cgroups and no bpffs, so
/// these are carried over. /run/containerd gets a tmpfs: dockerd would otherwise use the machine's own containerd if it
/// has one, and leave sockets there.
const OWN: &str = r#"
set -e
hostname nf-host
mkdir -p "$1/cgroup" "$1/bpf" /run/containerd
mount --rbind /sys/fs/cgroup "$1/cgroup"
mount --rbind /sys/fs/bpf "$1/bpf"
mount -t sysfs sysfs /sys
mount --move "$1/cgroup" /sys/fs/cgroup
mount --move "$1/bpf" /sys/fs/bpf
grep -q ' /sys/fs/cgroup.* cgroup2\? ' /proc/self/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run/containerd
: >"$1/held"
exec sleep 1000000000
"#;

/// The same for the engine of another release, whose directory is `$2`. It becomes the root, under a layer that takes what
/// the engine writes, so that the next host finds the release as it was made.
///
/// `chroot` would not do: `docker exec` enters a container's mount namespace at its real root, which would be the machine's.
/// The state directory has one path inside and outside, so that clients on either side mean the same files. Of control
/// groups it sees version 2 alone: podman 5 knows no other.
const RELEASE: &str = r#"
set -e
hostname nf-host
mkdir -p "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mkdir -p ".$1"
mount --bind "$1" ".$1"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
pivot_root . mnt
cd /
umount -l /mnt
: >"$1/held"
exec sleep 1000000000
"#;

/// The holder.
#[derive(Debug)]
pub(super) struct Holder {
    process: Child,
    /// Whether the root is that of another release.
    is_release: bool,
}

impl Holder {
    /// Makes mount and UTS namespaces beside the host's network namespace, for an engine with its state below `dir`.
    pub fn start(dir: &Path, host: &NetNs, release: &Release) -> Result<Self> {
        let log = dir.join("holder.log");
        let held = dir.join("held");
        let mut command = host.command("unshare");
        command
            .args([
                "--mount",
                "--uts",
                "--propagation",
                "private",
                "--",
                "sh",
                "-c",
                if release.root().is_some() { RELEASE } else { OWN },
                "holder",
            ])
            .arg(dir)
            .args(release.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .process_group(0);
        let mut process = command.spawn().context("cannot start unshare")?;
        let ready = cmd::poll("the engine's namespaces", Duration::from_secs(10), || {
            let ended = process.try_wait().ok().flatten().is_some();
            (ended || held.exists()).then_some(())
        });
        if ready.is_err() || !held.exists() {
            let _gone = process.kill();
            let _status = process.wait();
            let said = fs::read_to_string(&log).unwrap_or_default();
            bail!("cannot make the mounts for a Docker host: {}", said.trim());
        }
        Ok(Self {
            process,
            is_release: release.root().is_some(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A command that will run `program` in these namespaces.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.pid().to_string();
        command.args(["--target", &pid, "--mount", "--uts", "--net", "--", program]);
        if self.is_release {
            command.env("PATH", PATH);
        }
        command
    }

    /// Waits for its end, after it was killed.
    pub fn wait(&mut self) {
        let _status = self.process.wait();
    }
}
