//! A real Docker host in a network namespace, with an outside client.
//!
//! dockerd and its containerd run in network, mount and UTS namespaces that a holder process keeps, with all their
//! state below this process's state directory. So hosts do not see each other, or the machine's own Docker if it has
//! one, and nothing of them touches the machine's interfaces. Containers are reached by the namespaces of their
//! processes (`/proc/PID/ns/net`); the paths that the engine itself tells lie in its private mounts.
//!
//! The engine is the machine's own, or that of another Debian release ([`release`]), podman included: then the holder has
//! the release as its root.

mod engine;
mod holder;
mod image;
pub mod release;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{sys::signal::Signal, unistd::geteuid};
use serde::Deserialize;

use crate::{
    cmd, leftovers,
    netns::{NetNs, NsHandle},
    site::Site,
};
pub use image::IMAGE;
pub use release::{Kind, Release};

/// Which iptables the engine finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Iptables {
    /// What the distribution has made the default.
    #[default]
    Default,
    /// iptables over `nf_tables`.
    Nft,
    /// The old kernel interface.
    Legacy,
}

/// How the host is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The engine's `--userland-proxy`.
    pub userland_proxy: bool,
    /// Which iptables.
    pub iptables: Iptables,
    /// FORWARD policy DROP, as the engine sets it on real hosts (where it is who switches forwarding on).
    pub forward_drop: bool,
    /// More options for dockerd.
    pub dockerd_flags: Vec<String>,
    /// Whose engine.
    pub release: Release,
    /// `bridge-nf-call-iptables` before the engine starts; `None`: as it is on a fresh host with this engine.
    pub bridge_netfilter: Option<bool>,
}

impl Default for Options {
    /// What a freshly installed engine does: the one that [`release::VARIABLE`] names.
    fn default() -> Self {
        Self {
            userland_proxy: true,
            iptables: Iptables::Default,
            forward_drop: true,
            dockerd_flags: Vec::new(),
            release: Release::of_environment(),
            bridge_netfilter: None,
        }
    }
}

/// The host; removed with all its containers when dropped.
#[derive(Debug)]
pub struct DockerHost {
    engine: engine::Engine,
    site: Site,
    dir: PathBuf,
}

/// What `docker inspect` tells of a container's interface on one network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attachment {
    /// IPv4 address.
    #[serde(rename = "IPAddress")]
    pub ip: Ipv4Addr,
    /// IPv6 address; empty where it has none.
    #[serde(rename = "GlobalIPv6Address", default)]
    pub ip6: String,
    /// The network's gateway; empty where it has none.
    pub gateway: String,
    /// MAC address.
    pub mac_address: String,
}

impl DockerHost {
    /// Why this machine cannot have one; `Ok` if all that is needed seems to be there.
    pub fn available() -> Result<(), String> {
        if !geteuid().is_root() {
            return Err("a Docker host needs root".to_owned());
        }
        Release::of_environment().available()?;
        if !Path::new("/sys/fs/cgroup").is_dir() {
            return Err("a Docker host needs control groups, and /sys/fs/cgroup is missing".to_owned());
        }
        Ok(())
    }

    /// Starts one: namespaces, engine, image. Takes a few seconds; an error tells the end of dockerd's log.
    pub fn start(options: Options) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let site = Site::new()?;
        // With forwarding already on, the engine leaves the policy alone.
        site.host
            .set_sysctl("net/ipv4/ip_forward", if options.forward_drop { "0" } else { "1" })?;
        // Where the kernel has br_netfilter built in, a new namespace begins with it switched on.
        let judged = match options.bridge_netfilter {
            Some(judged) => judged,
            None => options.release.loads_bridge_netfilter()?,
        };
        let judged = if judged { "1" } else { "0" };
        for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            let name = format!("net/bridge/{name}");
            if site.host.sysctl(&name).is_ok() {
                site.host.set_sysctl(&name, judged)?;
            }
        }
        let dir = leftovers::state_dir()?.join(format!("docker{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let engine = engine::Engine::start(&dir, &site.host, options)?;
        let host = Self { engine, site, dir };
        image::import(&host, &host.dir.join("image"))?;
        Ok(host)
    }

    /// The host's network namespace.
    pub fn host(&self) -> &NetNs {
        &self.site.host
    }

    /// The outside client's network namespace.
    pub fn lan(&self) -> &NetNs {
        &self.site.lan
    }

    /// The engine's API, as `--docker-host` takes it: `unix:///…`.
    pub fn docker_host(&self) -> String {
        self.engine.url()
    }

    /// `docker args…`; see [`cmd::run`].
    pub fn docker(&self, args: &[&str]) -> Result<String> {
        cmd::run(self.docker_command().args(args))
    }

    /// The docker client, set to this engine.
    pub fn docker_command(&self) -> Command {
        self.engine.client()
    }

    /// Whose engine it is.
    pub fn release(&self) -> &Release {
        self.engine.release()
    }

    /// How it is set up, in a few words.
    pub fn setting(&self) -> String {
        let judged = self.site.host.sysctl("net/bridge/bridge-nf-call-iptables");
        let judged = if judged.is_ok_and(|value| value == "1") {
            "on"
        } else {
            "off"
        };
        let proxy = match (self.release().kind(), self.engine.has_userland_proxy()) {
            (Kind::Podman, _) => "",
            (Kind::Docker, true) => "docker-proxy, ",
            (Kind::Docker, false) => "no docker-proxy, ",
        };
        format!("{proxy}br_netfilter {judged}")
    }

    /// `podman args…`, on a host whose engine it is; see [`cmd::run`].
    pub fn podman(&self, args: &[&str]) -> Result<String> {
        cmd::run(self.engine.podman().args(args))
    }

    /// Starts container `name` from the laboratory's [`IMAGE`] on `network` (`bridge` is docker0), with `extra` options
    /// for `docker run`. An empty `command` sleeps.
    pub fn run_container(&self, name: &str, network: &str, extra: &[&str], command: &[&str]) -> Result<()> {
        let mut run = self.docker_command();
        // The first process of a container is deaf to SIGTERM unless it asks for it: do not wait for it.
        run.args([
            "run",
            "--detach",
            "--stop-timeout",
            "1",
            "--name",
            name,
            "--network",
            network,
        ]);
        run.args(extra).arg(IMAGE).args(if command.is_empty() {
            &["sleep", "1000000"]
        } else {
            command
        });
        cmd::run(&mut run).map(drop)
    }

    /// Stops and removes a container.
    pub fn remove_container(&self, name: &str) -> Result<()> {
        self.docker(&["rm", "--force", name]).map(drop)
    }

    /// Creates a bridge network, with `extra` options for `docker network create`.
    pub fn create_network(&self, name: &str, extra: &[&str]) -> Result<()> {
        self.docker(&[&["network", "create"], extra, &[name]].concat())
            .map(drop)
    }

    /// Runs a shell line inside a container (all its namespaces, the image's programs).
    pub fn exec(&self, container: &str, line: &str) -> Result<String> {
        self.docker(&["exec", container, "sh", "-c", line])
    }

    /// Process id of the container's first process.
    pub fn container_pid(&self, container: &str) -> Result<u32> {
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", container])?;
        pid.parse()
            .ok()
            .filter(|pid| *pid > 0)
            .with_context(|| format!("container {container} is not running"))
    }

    /// The container's network namespace.
    pub fn container_netns(&self, container: &str) -> Result<NsHandle> {
        NsHandle::of_pid(self.container_pid(container)?)
    }

    /// The namespace that the engine has made for an overlay network; it lives while it is open.
    pub fn sandbox(&self, network: &str) -> Result<NsHandle> {
        let id = self.docker(&["network", "inspect", "--format", "{{.Id}}", network])?;
        self.engine.sandbox(id.trim())
    }

    /// Runs a shell line with the machine's programs in the container's network namespace only.
    pub fn in_container_netns(&self, container: &str, line: &str) -> Result<String> {
        self.container_netns(container)?.sh(line)
    }

    /// Runs a shell line in the host's network namespace.
    pub fn in_host(&self, line: &str) -> Result<String> {
        self.site.host.sh(line)
    }

    /// Runs a shell line in the outside client's network namespace.
    pub fn in_lan(&self, line: &str) -> Result<String> {
        self.site.lan.sh(line)
    }

    /// The container's interface on `network`.
    pub fn attachment(&self, container: &str, network: &str) -> Result<Attachment> {
        let name = self.name_within(network);
        let format = format!("{{{{json (index .NetworkSettings.Networks {name:?})}}}}");
        let json = self.docker(&["inspect", "--format", &format, container])?;
        serde_json::from_str(&json).with_context(|| format!("container {container} on network {network}: {json}"))
    }

    /// What a container's own listing calls a network: podman lists its default one as `bridge`, and there by another name.
    fn name_within<'a>(&self, network: &'a str) -> &'a str {
        match (self.release().kind(), network) {
            (Kind::Podman, "bridge") => "podman",
            _ => network,
        }
    }

    /// The container's address on `network`.
    pub fn container_ip(&self, container: &str, network: &str) -> Result<Ipv4Addr> {
        Ok(self.attachment(container, network)?.ip)
    }

    /// The host-side veth of the container's interface `inside` (`eth0`), by name.
    pub fn container_veth(&self, container: &str, inside: &str) -> Result<String> {
        let index = self.in_container_netns(container, &format!("ip -o link show dev {inside}"))?;
        // "7: eth0@if8: <…": 8 is the other end's index in the host.
        let peer = index
            .split_once("@if")
            .and_then(|(_, rest)| rest.split_once(':'))
            .map(|(index, _)| index);
        let peer = peer
            .with_context(|| format!("{container}: {inside} is not a veth: {index}"))?
            .to_owned();
        let links = self.site.host.ip("-o link show")?;
        let name = links.lines().find_map(|line| {
            let (number, rest) = line.split_once(": ")?;
            (number == peer).then(|| rest.split(['@', ':']).next().unwrap_or_default().to_owned())
        });
        name.with_context(|| format!("{container}: the host has no link {peer} for {inside}"))
    }

    /// The bridge device of a network.
    pub fn bridge_device(&self, network: &str) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Network {
            id: String,
            options: BTreeMap<String, String>,
        }
        if self.release().kind() == Kind::Podman {
            let name = self.name_within(network);
            return self.podman(&["network", "inspect", "--format", "{{.NetworkInterface}}", name]);
        }
        let json = self.docker(&["network", "inspect", "--format", "{{json .}}", network])?;
        let Network { id, mut options } = serde_json::from_str(&json).with_context(|| format!("network {json}"))?;
        let named = options.remove("com.docker.network.bridge.name");
        Ok(named.unwrap_or_else(|| format!("br-{}", id.chars().take(12).collect::<String>())))
    }

    /// Ends dockerd by `signal` and waits until it is gone. Containers live on if the signal is SIGKILL, or with
    /// `--live-restore`.
    pub fn stop_dockerd(&mut self, signal: Signal) -> Result<()> {
        self.engine.stop(signal, Duration::from_secs(30))
    }

    /// Starts dockerd again after [`Self::stop_dockerd`], with the same state.
    pub fn start_dockerd(&mut self) -> Result<()> {
        self.engine.launch()
    }

    /// The end of dockerd's log.
    pub fn dockerd_log(&self) -> String {
        self.engine.log_tail(40)
    }
}

impl Drop for DockerHost {
    fn drop(&mut self) {
        self.engine.kill();
        // The namespaces, with whatever still runs in them, go when the site is dropped.
    }
}
