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

use super::{
    Iptables, Options,
    holder::Holder,
    release::{self, Kind, Release},
};
use crate::{
    cmd, leftovers,
    netns::{NetNs, NsHandle},
    programs,
    site::LAN_IP,
};

/// How long dockerd may take until it answers; an emulated processor is slow.
const START_LIMIT: Duration = Duration::from_mins(3);

/// A dockerd and its namespaces.
#[derive(Debug)]
pub(super) struct Engine {
    dir: PathBuf,
    options: Options,
    holder: Holder,
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
        let holder = Holder::start(dir, host, &options.release)?;
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

    /// Whose engine it is.
    pub fn release(&self) -> &Release {
        &self.options.release
    }

    /// Whether a process of the engine's serves published ports, too.
    pub fn has_userland_proxy(&self) -> bool {
        self.options.userland_proxy
    }

    /// The docker client that goes with the engine, set to it: an old one knows no API that a new engine speaks.
    pub fn client(&self) -> Command {
        let mut client = match self.options.release.root() {
            Some(_) => self.holder.command("docker"),
            None => Command::new("docker"),
        };
        client
            .env("DOCKER_CONFIG", self.dir.join("client"))
            .args(["-H", &self.url()]);
        for variable in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"] {
            client.env_remove(variable);
        }
        client
    }

    /// The namespace of an overlay network: the newest, by the number in front of the network's identifier.
    pub fn sandbox(&self, id: &str) -> Result<NsHandle> {
        let root = format!("/proc/{}/root", self.holder.pid());
        let all = PathBuf::from(format!("{root}{}", self.dir.join("exec/netns").display()));
        let entries = fs::read_dir(&all).with_context(|| format!("cannot look into {}", all.display()))?;
        let number = |name: &str| {
            let (number, digits) = name.split_once('-')?;
            id.starts_with(digits).then_some(number.parse::<u32>().ok()?)
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let newest = names.filter_map(|name| Some((number(&name)?, name))).max();
        let (_, name) = newest.with_context(|| format!("no namespace of {id} in {}", all.display()))?;
        NsHandle::open(all.join(name))
    }

    /// A command of the engine's own release, in its namespaces.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.holder.command(program);
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command
    }

    /// podman, with its state here.
    pub fn podman(&self) -> Command {
        let mut podman = self.command("podman");
        podman
            .arg("--cgroup-manager=cgroupfs")
            .arg("--root")
            .arg(self.dir.join("data"))
            .arg("--runroot")
            .arg(self.dir.join("exec"));
        podman
    }

    /// Starts the engine and waits until it answers.
    pub fn launch(&mut self) -> Result<()> {
        anyhow::ensure!(self.dockerd.is_none(), "the engine already runs");
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = match self.options.release.kind() {
            Kind::Docker => self.dockerd()?,
            Kind::Podman => {
                // Limits on processes need a control group's controller that nobody may have switched on.
                let conf = format!("[containers]\npids_limit = 0\ndns_servers = [\"{LAN_IP}\"]\n");
                fs::write(self.dir.join("containers.conf"), conf)?;
                let mut podman = self.podman();
                podman.args(["system", "service", "--time", "0", &self.url()]);
                podman
            }
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        self.dockerd = Some(command.spawn().context("cannot start the engine by nsenter")?);
        self.wait_until_it_answers()
    }

    fn dockerd(&self) -> Result<Command> {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut command = self.holder.command("dockerd");
        command
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
            .env("PATH", self.path()?);
        Ok(command)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let mut ping = self.client();
            ping.args(["version", "--format", "{{.Server.Version}}"]);
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
        let holder = self.holder.pid();
        leftovers::end_processes(|pid| {
            pid == holder
                || leftovers::is_daemon(pid)
                    && fs::read(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&inside))
        });
        self.holder.wait();
        if let Some(mut dockerd) = self.dockerd.take() {
            let _status = dockerd.wait();
        }
        leftovers::remove_cgroups(&self.cgroup());
        self.remove_podmans_cgroups();
        leftovers::remove_dir(&self.dir);
    }

    /// podman has all its control groups in one, beside those of a podman of the machine's: only ours are removed.
    fn remove_podmans_cgroups(&self) {
        let containers = fs::read_dir(self.dir.join("data/overlay-containers"));
        let names = containers
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        for id in names.filter_map(|name| name.to_str().map(str::to_owned)) {
            for parent in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
                for name in ["libpod", "libpod-conmon"] {
                    let group = Path::new(parent).join("libpod_parent").join(format!("{name}-{id}"));
                    if group.exists() {
                        leftovers::remove_cgroup(&group);
                    }
                }
            }
        }
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
        let own = std::env::var("PATH").unwrap_or_default();
        let path = self.options.release.root().map_or(own, |_| release::PATH.to_owned());
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
