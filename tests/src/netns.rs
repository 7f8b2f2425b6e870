//! Network namespaces: making, entering, ending.
//!
//! Programs are started in a namespace by `setns` between fork and exec, and not by `ip netns exec`, which would remount
//! /sys and so take the cgroups (and bpffs) away from them.

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    os::{
        fd::AsFd as _,
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    panic,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use crate::{cmd, leftovers};

/// Where named network namespaces are bound.
pub const NETNS_DIR: &str = "/run/netns";

/// An open network namespace: anybody's, by its path. Does not own it.
#[derive(Debug, Clone)]
pub struct NsHandle {
    path: PathBuf,
    file: Arc<File>,
}

impl NsHandle {
    /// Opens the namespace at `path` (`/run/netns/NAME`, `/proc/PID/ns/net`).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file =
            File::open(&path).with_context(|| format!("cannot open the network namespace {}", path.display()))?;
        Ok(Self {
            path,
            file: Arc::new(file),
        })
    }

    /// The namespace of process `pid`.
    pub fn of_pid(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Inode number of the namespace: equal for two handles of one namespace.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// A command that will run in this network namespace, and in the caller's other namespaces.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: the closure runs in the child between fork and exec and makes one system call on a descriptor that
        // is open; it takes no lock and does not allocate, so nothing it needs can be held by another thread.
        unsafe {
            command.pre_exec(move || setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        command
    }

    /// Runs a shell line in this network namespace; see [`cmd::run`].
    pub fn sh(&self, line: &str) -> Result<String> {
        cmd::run(self.command("sh").args(["-c", line])).with_context(|| format!("in {}", self.path.display()))
    }

    /// Starts a program with its arguments in this network namespace, beside the caller.
    pub fn spawn(&self, command_line: &[&str]) -> Result<cmd::Background> {
        let (program, args) = command_line.split_first().context("an empty command line")?;
        cmd::Background::start(self.command(program).args(args))
    }

    /// Runs `body` on a thread of its own in this network namespace, and hands on its panic.
    ///
    /// Sockets that `body` makes stay in the namespace, also after they were returned from it. `/sys` stays that of
    /// the caller; `/proc/sys/net` follows the namespace.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", self.path.display()))?;
                Ok(body())
            });
            thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Reads a sysctl of this namespace, by its path below `/proc/sys`, `net/ipv4/ip_forward` for instance.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = format!("/proc/sys/{name}");
        let value = self
            .run(|| fs::read_to_string(&path))?
            .with_context(|| format!("cannot read {path}"))?;
        Ok(value.trim().to_owned())
    }

    /// Writes a sysctl of this namespace.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{name}");
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("cannot write {value} to {path}"))
    }
}

/// A network namespace of our own: named, with `lo` up, deleted with everything in it when dropped.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    handle: NsHandle,
}

impl NetNs {
    /// Makes a namespace whose name ends in `label` and begins in this process's own prefix.
    ///
    /// The first one made by a process also removes what dead processes left behind.
    pub fn new(label: &str) -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(leftovers::sweep_dead);

        let name = format!("{}-{}-{label}", leftovers::tag(), NEXT.fetch_add(1, Ordering::Relaxed));
        cmd::run(Command::new("ip").args(["netns", "add", &name]))
            .context("cannot make a network namespace (this needs root and iproute2)")?;
        let handle = NsHandle::open(Path::new(NETNS_DIR).join(&name))?;
        let this = Self { name, handle };
        cmd::run(Command::new("ip").args(["-n", &this.name, "link", "set", "lo", "up"]))?;
        Ok(this)
    }

    /// The name that `ip netns` and `ip -n` know it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The handle, for those who outlive the borrow.
    pub fn handle(&self) -> NsHandle {
        self.handle.clone()
    }

    /// `ip -n THIS args…`
    pub fn ip(&self, args: &str) -> Result<String> {
        cmd::run(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(args.split_whitespace()),
        )
    }
}

impl Deref for NetNs {
    type Target = NsHandle;

    fn deref(&self) -> &NsHandle {
        &self.handle
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        leftovers::remove_netns(&self.name);
    }
}

/// Joins two namespaces by a veth pair; each end is a name and the namespace that it lies in.
pub fn veth_pair(a: (&NetNs, &str), b: (&NetNs, &str)) -> Result<()> {
    cmd::run(Command::new("ip").args([
        "link",
        "add",
        a.1,
        "netns",
        a.0.name(),
        "type",
        "veth",
        "peer",
        "name",
        b.1,
        "netns",
        b.0.name(),
    ]))?;
    Ok(())
}
