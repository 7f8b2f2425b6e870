//! The engine's processes: the holder of its namespaces, dockerd, and what dockerd starts.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Iptables, Options};
use crate::{cmd, leftovers, netns::NetNs, programs, site::LAN_IP};

/// How long dockerd may take until it answers.
const START_LIMIT: Duration = Duration::from_mins(1);

/// What the holder does, with the state directory as `$1`: mounts in its private mount namespace, then sleep.
///
/// /sys is mounted anew so that it shows this network namespace's devices; a fresh sysfs has no cgroups and no bpffs, so
/// these are carried over. /run/containerd gets a tmpfs: dockerd would otherwise use the machine's own containerd if it
/// has one, and leave sockets there.
const HOLDER: &str = r#"
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

/// A dockerd and its namespaces.
#[derive(Debug)]
pub(super) struct Engine {
    dir: PathBuf,
    options: Options,
    holder: Child,
    dockerd: Option<Child>,
}

impl Engine {
    /// Makes the namespaces and starts dockerd with its state below `dir`.
    pub fn start(dir: &Path, host: &NetNs, options: Options) -> Result<Self> {
        for name in ["data", "exec", "client"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        // Not /etc/docker/daemon.json, which is about another engine.
        fs::write(dir.join("daemon.json"), "{}")?;
        let holder = hold(dir, host)?;
        let mut engine = Self {
            dir: dir.to_owned(),
            options,
            holder,
            dockerd: None,
        };
        if let Err(error) = engine.launch() {
            engine.kill();
            return Err(error);
        }
        Ok(engine)
    }

    /// The API's address.
    pub fn url(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// Starts dockerd and waits until it answers.
    pub fn launch(&mut self) -> Result<()> {
        anyhow::ensure!(self.dockerd.is_none(), "dockerd already runs");
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.holder.id().to_string(),
                "--mount",
                "--uts",
                "--net",
                "--",
                "dockerd",
            ])
            .args([
                "--config-file",
                &at("daemon.json"),
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
            ])
            .args([
                "--pidfile",
                &at("docker.pid"),
                "--host",
                &self.url(),
                "--dns",
                &LAN_IP.to_string(),
            ])
            // Control groups under our own name, by our own hand: they can be found and removed.
            .args([
                "--exec-opt",
                "native.cgroupdriver=cgroupfs",
                "--cgroup-parent",
                &format!("/{}", self.cgroup()),
            ])
            .arg(format!("--userland-proxy={}", self.options.userland_proxy))
            .args(&self.options.dockerd_flags)
            .env("PATH", self.path()?)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        self.dockerd = Some(command.spawn().context("cannot start dockerd by nsenter")?);
        self.wait_until_it_answers()
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let url = self.url();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let mut ping = Command::new("docker");
            ping.args(["-H", &url, "version", "--format", "{{.Server.Version}}"]);
            ping.env("DOCKER_CONFIG", self.dir.join("client"))
                .env_remove("DOCKER_CONTEXT");
            if self.dir.join("docker.sock").exists() && cmd::run(&mut ping).is_ok() {
                return Ok(());
            }
            let ended = self
                .dockerd
                .as_mut()
                .and_then(|dockerd| dockerd.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.dockerd = None;
                bail!(
                    "dockerd ended ({}) instead of starting:\n{}",
                    cmd::how_it_ended(status),
                    self.log_tail(15)
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "dockerd does not answer after {} s:\n{}",
                    START_LIMIT.as_secs(),
                    self.log_tail(15)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends `signal` to dockerd and waits up to `limit` for its end.
    pub fn stop(&mut self, signal: Signal, limit: Duration) -> Result<()> {
        let Some(mut dockerd) = self.dockerd.take() else {
            return Ok(());
        };
        let pid = Pid::from_raw(i32::try_from(dockerd.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to dockerd"))?;
        if cmd::wait_until(&mut dockerd, Instant::now() + limit)?.is_none() {
            self.dockerd = Some(dockerd);
            bail!(
                "dockerd did not end within {} s of {signal}:\n{}",
                limit.as_secs(),
                self.log_tail(15)
            );
        }
        // Left by a killed one, it would look like a socket that answers.
        let _gone = fs::remove_file(self.dir.join("docker.sock"));
        let _gone = fs::remove_file(self.dir.join("docker.pid"));
        self.forget_dead_containerd();
        Ok(())
    }

    /// A killed dockerd takes its containerd along, without removing the pid file; while nobody has reaped that process
    /// the next dockerd believes that it runs, and waits for it in vain.
    fn forget_dead_containerd(&self) {
        let file = self.dir.join("exec/containerd/containerd.pid");
        let Some(pid) = fs::read_to_string(&file).ok().and_then(|pid| pid.trim().parse().ok()) else {
            return;
        };
        let ended = cmd::poll("containerd's end", Duration::from_secs(2), || {
            (!leftovers::is_running(pid)).then_some(())
        });
        if ended.is_ok() {
            let _gone = fs::remove_file(file);
        }
    }

    /// Ends everything at once, containers included, and removes the state.
    pub fn kill(&mut self) {
        let inside = format!("{}/", self.dir.display());
        let holder = self.holder.id();
        leftovers::end_processes(|pid| {
            pid == holder
                || leftovers::is_daemon(pid)
                    && fs::read(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&inside))
        });
        let _status = self.holder.wait();
        if let Some(mut dockerd) = self.dockerd.take() {
            let _status = dockerd.wait();
        }
        leftovers::remove_cgroups(&self.cgroup());
        leftovers::remove_dir(&self.dir);
    }

    /// The last lines of dockerd's log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("dockerd.log")
    }

    /// Name of the control group above those of its containers.
    fn cgroup(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("{}-{name}", leftovers::tag())
    }

    /// PATH with the wanted iptables first.
    fn path(&self) -> Result<String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let flavour = match self.options.iptables {
            Iptables::Default => return Ok(format!("{path}:/usr/sbin:/sbin")),
            Iptables::Nft => "nft",
            Iptables::Legacy => "legacy",
        };
        let bin = self.dir.join(flavour);
        fs::create_dir_all(&bin)?;
        for family in ["iptables", "ip6tables"] {
            for what in ["", "-save", "-restore"] {
                let real = format!("{family}-{flavour}{what}");
                let real = programs::find(&real).with_context(|| format!("`{real}` is not in PATH"))?;
                let link = bin.join(format!("{family}{what}"));
                if !link.exists() {
                    symlink(real, link)?;
                }
            }
        }
        Ok(format!("{}:{path}:/usr/sbin:/sbin", bin.display()))
    }
}

fn hold(dir: &Path, host: &NetNs) -> Result<Child> {
    let log = dir.join("holder.log");
    let held = dir.join("held");
    let mut holder = host
        .command("unshare")
        .args([
            "--mount",
            "--uts",
            "--propagation",
            "private",
            "--",
            "sh",
            "-c",
            HOLDER,
            "holder",
        ])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .process_group(0)
        .spawn()
        .context("cannot start unshare")?;
    let ready = cmd::poll("the engine's namespaces", Duration::from_secs(10), || {
        let ended = holder.try_wait().ok().flatten().is_some();
        (ended || held.exists()).then_some(())
    });
    if ready.is_err() || !held.exists() {
        let _gone = holder.kill();
        let _status = holder.wait();
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!("cannot make the mounts for a Docker host: {}", said.trim());
    }
    Ok(holder)
}
