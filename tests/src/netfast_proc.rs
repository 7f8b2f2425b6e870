//! The netfast binary under test: `netfast run` in a host's namespace, with directories of its own.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        signal::{Signal, kill},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::Pid,
};
use serde::Deserialize;

use crate::{
    cmd::{self, Finished},
    leftovers::{self, BPFFS},
    netns::{NetNs, NsHandle},
    programs,
};

/// How long `netfast run` may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Its own bpffs, below its run directory.
const OWN_BPFFS: &str = "bpffs";
/// How long it may take to end after a signal.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Where netfast learns of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// From the Docker engine at this address (`unix:///…`).
    Docker(String),
    /// From rtnetlink alone.
    None,
}

/// What `netfast run` is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--runtime`, and `--docker-host`.
    pub runtime: Runtime,
    /// Text of the configuration file; without one, no `--config` is given.
    pub config: Option<String>,
    /// More arguments for `run`.
    pub args: Vec<String>,
    /// Whether its pins are in a bpffs of its own, which can be mounted anew without anybody else noticing.
    pub own_bpffs: bool,
}

impl Options {
    /// For a host with the engine at `docker_host`.
    pub fn docker(docker_host: String) -> Self {
        Self {
            runtime: Runtime::Docker(docker_host),
            config: None,
            args: Vec::new(),
            own_bpffs: false,
        }
    }

    /// For a host without an engine.
    pub fn no_runtime() -> Self {
        Self {
            runtime: Runtime::None,
            config: None,
            args: Vec::new(),
            own_bpffs: false,
        }
    }
}

/// The totals of `netfast status --json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Totals {
    /// Packets that netfast forwarded.
    pub fast_packets: u64,
    /// Packets that it left to the kernel.
    pub slow_packets: u64,
}

impl Totals {
    /// What was added since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            fast_packets: self.fast_packets.saturating_sub(before.fast_packets),
            slow_packets: self.slow_packets.saturating_sub(before.slow_packets),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            fast_packets: self.fast_packets + other.fast_packets,
            slow_packets: self.slow_packets + other.slow_packets,
        }
    }

    /// The fast path's part of all packets, 0 to 1; `None` if there were none.
    pub fn fast_share(self) -> Option<f64> {
        let all = self.fast_packets + self.slow_packets;
        (all > 0).then(|| self.fast_packets as f64 / all as f64)
    }
}

#[derive(Deserialize)]
struct Status {
    totals: Totals,
}

/// A netfast with directories of its own. Dropped, it is ended, detached, and its directories are removed.
#[derive(Debug)]
pub struct NetfastProc {
    program: PathBuf,
    ns: NsHandle,
    options: Options,
    pin_dir: PathBuf,
    run_dir: PathBuf,
    child: Option<Child>,
}

impl NetfastProc {
    /// Starts `netfast run` in `host` and waits until it is ready. An error tells what netfast said.
    pub fn start(host: &NetNs, options: Options) -> Result<Self> {
        let mut netfast = Self::prepare(host, options)?;
        netfast.launch()?;
        Ok(netfast)
    }

    /// Makes the directories and does not start anything: for tests of other verbs, and of failing starts.
    pub fn prepare(host: &NetNs, options: Options) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        ensure_bpffs()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let run_dir = leftovers::state_dir()?.join(format!("netfast{number}"));
        fs::create_dir_all(&run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
        if let Some(config) = &options.config {
            fs::write(run_dir.join("netfast.toml"), config)?;
        }
        let pin_dir = if options.own_bpffs {
            let bpffs = run_dir.join(OWN_BPFFS);
            fs::create_dir_all(&bpffs)?;
            mount_bpffs(&bpffs)?;
            bpffs.join("netfast")
        } else {
            Path::new(BPFFS).join(format!("{}-netfast{number}", leftovers::tag()))
        };
        Ok(Self {
            program: programs::netfast()?,
            ns: host.handle(),
            options,
            pin_dir,
            run_dir,
            child: None,
        })
    }

    /// Mounts its own bpffs anew, as `umount` and `mount` do: all pins in it are gone.
    pub fn remount_bpffs(&self) -> Result<()> {
        anyhow::ensure!(self.options.own_bpffs, "its pins are in everybody's bpffs");
        let bpffs = self.run_dir.join(OWN_BPFFS);
        umount2(&bpffs, MntFlags::empty()).with_context(|| format!("cannot unmount {}", bpffs.display()))?;
        mount_bpffs(&bpffs)
    }

    /// Starts `netfast run`, with the directories of the last time, and waits until it is ready.
    pub fn launch(&mut self) -> Result<()> {
        anyhow::ensure!(self.child.is_none(), "netfast already runs");
        let mut log = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(self.log_path())?;
        let start = log.seek(std::io::SeekFrom::End(0))?;
        let mut command = self.command(&["run"]);
        match &self.options.runtime {
            Runtime::Docker(url) => command.args(["--runtime", "docker", "--docker-host", url]),
            Runtime::None => command.args(["--runtime", "none"]),
        };
        if self.options.config.is_some() {
            command.arg("--config").arg(self.run_dir.join("netfast.toml"));
        }
        command.args(&self.options.args);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let line = cmd::line_of(&command);
        self.child = Some(command.spawn().with_context(|| format!("cannot start `{line}`"))?);
        self.wait_until_ready(&line, start)
    }

    /// Ready is said on standard error, by a line with that word.
    fn wait_until_ready(&mut self, line: &str, log_start: u64) -> Result<()> {
        let deadline = Instant::now() + cmd::patient(START_LIMIT);
        loop {
            let said = self.log_from(log_start);
            if said.lines().any(|line| line.contains("ready")) {
                return Ok(());
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.child = None;
                // It may have written since the first look.
                let said = self.log_from(log_start);
                bail!(
                    "`{line}` ended ({}) before it was ready:\n{}",
                    cmd::how_it_ended(status),
                    said.trim()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "`{line}` is not ready after {} s:\n{}",
                    cmd::patient(START_LIMIT).as_secs(),
                    said.trim()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// From the next start on, and for all verbs, another build is used.
    pub fn use_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    /// What it is started with the next time. The configuration file stays as it is.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Process id of the running daemon.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The directory of its pins in bpffs.
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// The directory of its ABI's pins, `v` and a number; the highest, while there are several.
    pub fn abi_dir(&self) -> PathBuf {
        abi_dir(&self.pin_dir)
    }

    /// Its run directory.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// `netfast ARGS… --pin-dir … --run-dir …` in the host's network namespace, not started.
    pub fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.ns.command(&self.program.to_string_lossy());
        command
            .args(args)
            .arg("--pin-dir")
            .arg(&self.pin_dir)
            .arg("--run-dir")
            .arg(&self.run_dir);
        command
    }

    /// Runs a verb to its end and returns its standard output; an error if it fails.
    pub fn verb(&self, args: &[&str]) -> Result<String> {
        cmd::run(&mut self.command(args))
    }

    /// Runs a verb to its end, whatever its exit code.
    pub fn try_verb(&self, args: &[&str]) -> Result<Finished> {
        cmd::finish(&mut self.command(args), cmd::TIME_LIMIT)
    }

    /// `netfast status --json`, as `T`; `serde_json::Value` takes all of it.
    pub fn status<T: for<'a> Deserialize<'a>>(&self) -> Result<T> {
        let json = self.verb(&["status", "--json"])?;
        serde_json::from_str(&json).with_context(|| format!("`netfast status --json` printed {json}"))
    }

    /// Packet counts of `netfast status --json`.
    pub fn totals(&self) -> Result<Totals> {
        Ok(self.status::<Status>()?.totals)
    }

    /// Sends `signal` to the daemon and waits for its end. What it has attached stays.
    pub fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.child.take().context("netfast does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let status = cmd::wait_until(&mut child, Instant::now() + cmd::patient(STOP_LIMIT))?;
        if status.is_none() {
            child.kill()?;
            child.wait()?;
        }
        let late = || {
            format!(
                "netfast did not end within {} s of {signal}:\n{}",
                cmd::patient(STOP_LIMIT).as_secs(),
                self.log()
            )
        };
        status.with_context(late)
    }

    /// `netfast detach`: the host as it was found.
    pub fn detach(&self) -> Result<()> {
        self.verb(&["detach"]).map(drop)
    }

    /// All that the daemon has said, over all its starts.
    pub fn log(&self) -> String {
        self.log_from(0)
    }

    fn log_from(&self, start: u64) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.log_path())?;
            file.seek(std::io::SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.run_dir.join("netfast.log")
    }
}

impl Drop for NetfastProc {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.stop(Signal::SIGTERM)
        {
            eprintln!("lab: {error:#}");
        }
        if self.pin_dir.exists()
            && let Err(error) = self.detach()
        {
            eprintln!("lab: {error:#}");
        }
        // In case that detach is what is broken.
        let _gone = fs::remove_dir_all(&self.pin_dir);
        leftovers::remove_dir(&self.run_dir);
    }
}

/// Mounts bpffs at its usual place if nothing has done so yet, as systemd does at boot.
pub fn ensure_bpffs() -> Result<()> {
    if statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    mount_bpffs(Path::new(BPFFS))
}

fn mount_bpffs(at: &Path) -> Result<()> {
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount bpffs on {}", at.display()))
}

/// The directory of the highest ABI's pins in a pin directory.
pub fn abi_dir(pin_dir: &Path) -> PathBuf {
    let entries = fs::read_dir(pin_dir).into_iter().flatten().flatten();
    let number = |name: &OsStr| name.to_str()?.strip_prefix('v')?.parse::<u32>().ok();
    let found = entries.filter_map(|entry| number(&entry.file_name())).max();
    pin_dir.join(format!("v{}", found.unwrap_or_default()))
}
