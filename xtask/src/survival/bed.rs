//! The host: an engine that its containers outlive, a server and a client on one network, and netfast.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use netfast_tests::{
    cmd,
    docker_host::{self, DockerHost},
    listing::listing,
    netfast_proc::{NetfastProc, Options},
    netns::NsHandle,
    programs,
    site::{HOST_IP, LAN_IP},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{event::Event, kinds, next_abi};
use crate::workspace::target_dir;

/// What must happen happens within this.
pub const LIMIT: Duration = Duration::from_mins(1);
/// iperf3's port on the bridge and outside.
pub const IPERF: u16 = 5201;
/// iperf3's published port: one server has one client at a time.
pub const IPERF_PUBLISHED: u16 = 5202;
/// The echo server's port.
pub const ECHO: u16 = 7002;

/// Who asks whom.
pub struct Ends {
    /// What the path is called.
    pub name: &'static str,
    /// The client's namespace.
    pub client: NsHandle,
    /// Where the client reaches the server.
    pub address: Ipv4Addr,
    /// iperf3's port there.
    pub iperf: u16,
}

/// The host and its netfast, which ends first.
pub struct Bed {
    /// netfast.
    pub netfast: NetfastProc,
    /// The host.
    pub host: DockerHost,
    /// What was on the host before netfast.
    pub found: Vec<String>,
    /// Other kinds of networks are there, too.
    pub kinds: bool,
}

impl Bed {
    /// Starts all of it, with a bpffs of netfast's own if that is to be mounted anew, and with other kinds of networks if wanted.
    pub fn new(config: &str, own_bpffs: bool, kinds: bool) -> Result<Self> {
        let host = DockerHost::start(docker_host::Options {
            dockerd_flags: vec!["--live-restore".to_owned()],
            ..docker_host::Options::default()
        })?;
        host.create_network("user", &[])?;
        let published: Vec<String> = [IPERF_PUBLISHED, ECHO]
            .into_iter()
            .flat_map(|port| ["tcp", "udp"].map(|protocol| format!("--publish={port}:{port}/{protocol}")))
            .collect();
        let published: Vec<&str> = published.iter().map(String::as_str).collect();
        host.run_container("server", "user", &published, &[])?;
        host.run_container("client", "user", &[], &[])?;
        let mut config = config.to_owned();
        if kinds {
            config = format!("tunnels = true\n{config}");
            kinds::make(&host)?;
        }
        let options = Options {
            // There to be changed.
            config: Some(config),
            own_bpffs,
            ..Options::docker(host.docker_host())
        };
        let found = listing(host.host())?;
        let netfast = NetfastProc::start(host.host(), options)?;
        Ok(Self {
            netfast,
            host,
            found,
            kinds,
        })
    }

    /// What the daemon says of itself.
    pub fn state(&self) -> Result<Value> {
        let text = fs::read_to_string(self.netfast.run_dir().join("state.json"))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until the daemon says that it is in sync.
    pub fn await_in_sync(&self) -> Result<()> {
        cmd::poll("the daemon is in sync", LIMIT, || {
            (self.state().ok()?["in_sync"] == true).then_some(())
        })
    }

    /// The three paths, and those of other kinds of networks, but for what this event is to end: without netfast a host does not reach the
    /// containers of its macvlan networks.
    pub fn paths(&self, event: Event) -> Result<Vec<Ends>> {
        let client = || self.host.container_netns("client");
        let mut paths = vec![
            Ends {
                name: "bridge",
                client: client()?,
                address: self.host.container_ip("server", "user")?,
                iperf: IPERF,
            },
            Ends {
                name: "published",
                client: self.host.lan().handle(),
                address: HOST_IP,
                iperf: IPERF_PUBLISHED,
            },
            Ends {
                name: "masquerade",
                client: client()?,
                address: LAN_IP,
                iperf: IPERF,
            },
        ];
        if self.kinds {
            let others = kinds::paths(&self.host)?.into_iter();
            paths.extend(others.filter(|path| event != Event::Detach || path.name != kinds::MACVLAN));
        }
        Ok(paths)
    }

    /// Ends the daemon by a signal and starts it again.
    pub fn restart(&mut self, signal: Signal) -> Result<()> {
        self.netfast.stop(signal)?;
        self.netfast.launch()
    }

    /// Replaces the running daemon by another build.
    pub fn upgrade(&mut self, program: &Path) -> Result<()> {
        self.netfast.stop(Signal::SIGTERM)?;
        self.netfast.use_program(program);
        self.netfast.launch()
    }
}

/// netfast more than once.
pub struct Builds {
    /// Two files with the same build.
    pub same: [PathBuf; 2],
    /// A build with another ABI.
    pub next_abi: Option<PathBuf>,
}

impl Builds {
    /// Copies of the build that is tested.
    pub fn new(next_abi: Option<PathBuf>) -> Result<Self> {
        let dir = target_dir()?.join("survival");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let program = programs::netfast()?;
        next_abi::check(&program, env!("CARGO_PKG_VERSION"))?;
        let same = ["netfast-a", "netfast-b"].map(|name| dir.join(name));
        for copy in &same {
            fs::copy(&program, copy).with_context(|| format!("cannot write {}", copy.display()))?;
        }
        Ok(Self { same, next_abi })
    }
}
