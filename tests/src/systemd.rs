//! A machine under a real systemd: its own mounts, processes, control group and host name, in the network namespace of
//! a host of the laboratory.
//!
//! systemd is the machine's own, or that of an unpacked Debian; what is written goes to memory and away with it.
//! `/proc/sys` is read-only but for the network's part, which belongs to the namespace, and neither the clock nor modules
//! can be touched, so nothing of the real machine changes.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    cmd::{self, Finished},
    leftovers,
    netns::NetNs,
};

/// Where systemd is, on every distribution with a merged /usr.
pub const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// How long systemd may take until its basic units are up.
const BOOT_LIMIT: Duration = Duration::from_mins(1);
/// How long a command inside may take: starts and stops of units wait for them.
const TIME_LIMIT: Duration = Duration::from_mins(2);

/// What the machine's files are, below what is written to them.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// The real machine's /usr, with an /etc of its own that has next to nothing in it.
    OwnUsr,
    /// A root file system in a directory.
    Root(&'a Path),
}

/// Puts itself into the control group `$1`, then runs the rest of the line in namespaces of its own.
const ENTER: &str = r#"
echo 0 >"$1/cgroup.procs"
shift
exec unshare --mount --pid --fork --uts --ipc --cgroup --kill-child --propagation private -- "$@"
"#;

/// Makes the mounts and becomes systemd. `$1`: a directory; `$2`: the root file system, or nothing.
///
/// /sys is read-only as in every container: units for hardware then do nothing. Units that would set something of the
/// real machine are masked, as are those that wait for what is not there.
const BOOT: &str = r#"
set -e
dir=$1 lower=$2 root=$1/root
# Of the shell itself, as the real machine counts.
read -r pid rest </proc/self/stat
mkdir -p "$root" "$dir/layers"
mount -t tmpfs -o mode=755 tmpfs "$dir/layers"
mkdir "$dir/layers/upper" "$dir/layers/work"
layers=upperdir=$dir/layers/upper,workdir=$dir/layers/work
if [ -n "$lower" ]; then
    mount -t overlay -o "lowerdir=$lower,$layers" overlay "$root"
else
    mount -t tmpfs -o mode=755 tmpfs "$root"
    cd "$root"
    mkdir -p usr etc/systemd/system var root home
    mount -t overlay -o "lowerdir=/usr,$layers" overlay usr
    for name in bin sbin lib lib32 lib64 libx32; do
        [ ! -L "/$name" ] || ln -s "usr/$name" "$name"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
    echo 'root:x:0:' >etc/group
    ln -s ../usr/lib/os-release etc/os-release
    cp /etc/ld.so.cache etc/
fi
cd "$root"
echo 6e6574666173740000000000006c6162 >etc/machine-id
rm -f etc/resolv.conf
mkdir -p proc sys dev run tmp old etc/systemd/system
ln -sf /usr/lib/systemd/system/basic.target etc/systemd/system/default.target
for unit in systemd-sysctl systemd-modules-load systemd-random-seed systemd-binfmt systemd-remount-fs systemd-hwdb-update \
    systemd-timesyncd systemd-udevd systemd-udev-trigger systemd-firstboot systemd-repart systemd-update-utmp \
    systemd-update-done systemd-logind systemd-networkd systemd-resolved getty@ console-getty kmod-static-nodes \
    systemd-tmpfiles-setup-dev; do
    ln -sf /dev/null "etc/systemd/system/$unit.service"
done
for unit in systemd-journald-audit.socket systemd-udevd-control.socket systemd-udevd-kernel.socket dev-hugepages.mount \
    dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=700 bpf sys/fs/bpf
mount -o remount,bind,ro sys
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,mode=620,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for node in 'null 3' 'zero 5' 'full 7' 'random 8' 'urandom 9'; do
    mknod -m 666 "dev/${node% *}" c 1 "${node#* }"
done
mknod -m 666 dev/tty c 5 0
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

hostname nf-machine
echo "$pid" >"$dir/pid.part"
mv "$dir/pid.part" "$dir/pid"
pivot_root . old
umount -l /old
exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio \
    env -i container=netfast-lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /usr/lib/systemd/systemd --system --show-status=no
"#;

/// The machine; gone with all its processes when dropped.
#[derive(Debug)]
pub struct Machine {
    dir: PathBuf,
    cgroup: String,
    unshare: Child,
    /// systemd's process, as the real machine counts.
    pid: u32,
}

impl Machine {
    /// Boots it in `host`'s network namespace, and waits until its basic units are up.
    pub fn boot(host: &NetNs, base: Base<'_>) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = leftovers::state_dir()?.join(format!("machine{number}"));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cgroup = format!("{}-machine{number}", leftovers::tag());
        let group = cgroup2()?.join(&cgroup);
        fs::create_dir_all(&group).with_context(|| format!("cannot make the control group {}", group.display()))?;
        let log = dir.join("boot.log");
        let mut command = host.command("sh");
        command
            .args(["-c", ENTER, "enter"])
            .arg(&group)
            .args(["sh", "-c", BOOT, "boot"]);
        command.arg(&dir).arg(match base {
            Base::OwnUsr => OsStr::new(""),
            Base::Root(root) => root.as_os_str(),
        });
        let said = File::create(&log)?;
        let unshare = command
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .process_group(0)
            .spawn()
            .context("cannot start unshare")?;
        let mut machine = Self {
            dir,
            cgroup,
            unshare,
            pid: 0,
        };
        match machine.wait() {
            Ok(()) => Ok(machine),
            Err(error) => Err(error.context(fs::read_to_string(&log).unwrap_or_default())),
        }
    }

    fn wait(&mut self) -> Result<()> {
        let file = self.dir.join("pid");
        let pid = cmd::poll("the machine's mounts", BOOT_LIMIT, || {
            if let Ok(Some(status)) = self.unshare.try_wait() {
                return Some(Err(status));
            }
            let pid = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
            // Until then it is the shell that makes the mounts.
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "systemd").then_some(Ok(pid))
        })?;
        self.pid = match pid {
            Ok(pid) => pid,
            Err(status) => bail!("systemd does not start ({})", cmd::how_it_ended(status)),
        };
        cmd::poll("systemd is up", BOOT_LIMIT, || {
            let done = self.try_run(&["systemctl", "is-system-running"]).ok()?;
            // Degraded: a unit failed that has nothing to do with ours.
            ["running", "degraded"].contains(&done.stdout.trim()).then_some(())
        })
        .with_context(|| self.journal())
    }

    /// A command inside, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string()])
            .args(["--mount", "--pid", "--uts", "--ipc", "--net", "--"])
            .args([
                "env",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL=C",
                "DEBIAN_FRONTEND=noninteractive",
            ])
            .args(args);
        command
    }

    /// Runs a command inside to its end and returns its standard output; an error if it fails.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let done = self.try_run(args)?;
        if !done.status.success() {
            bail!(
                "`{}` failed ({}): {}{}\n{}",
                args.join(" "),
                cmd::how_it_ended(done.status),
                done.stdout,
                done.stderr,
                self.journal()
            );
        }
        Ok(done.stdout.trim_end().to_owned())
    }

    /// Runs a command inside to its end, whatever its exit code.
    pub fn try_run(&self, args: &[&str]) -> Result<Finished> {
        cmd::finish(&mut self.command(args), TIME_LIMIT)
    }

    /// A property of a unit, as `systemctl show` has it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        self.run(&["systemctl", "show", "--property", name, "--value", unit])
    }

    /// Where a file inside is, seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.pid.to_string())
            .join("root")
            .join(inside.trim_start_matches('/'))
    }

    /// Writes a file inside, and the directories above it.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().context("a file")?)?;
        fs::write(&path, text).with_context(|| format!("cannot write {inside} in the machine"))
    }

    /// Copies a file into it, with its mode.
    pub fn copy(&self, from: &Path, inside: &str) -> Result<()> {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().context("a file")?)?;
        fs::copy(from, &path).with_context(|| format!("cannot copy {} to {inside} in the machine", from.display()))?;
        Ok(())
    }

    /// The machine's journal.
    pub fn journal(&self) -> String {
        let done = self.try_run(&["journalctl", "--no-pager", "--output=short-precise"]);
        done.map(|done| done.stdout).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process of its namespace: all others go with it, and unshare ends after it.
        if let Ok(pid) = i32::try_from(self.pid)
            && pid > 0
        {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            let _late = cmd::wait_until(&mut self.unshare, Instant::now() + Duration::from_secs(5));
        }
        let _gone = self.unshare.kill();
        let _status = self.unshare.wait();
        leftovers::remove_cgroups(&self.cgroup);
        leftovers::remove_dir(&self.dir);
    }
}

/// Where the one hierarchy of control groups is mounted.
fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    found.context("no cgroup2 is mounted, which systemd needs: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}
