//! The laboratory of demo and bench: a container host with two endpoints on each kind of path.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path as File,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use netfast_tests::{
    cmd,
    docker_host::{self, DockerHost, Release},
    netfast_proc::{self, NetfastProc},
    netns::{NetNs, NsHandle},
    site::{HOST_IP, HOST_IP6, LAN_IP, LAN_IP6},
    topo::{self, Published, Topo},
};
use serde::{Deserialize, Serialize};

pub use super::path::Path;
use super::{
    direct::{DIRECT_SERVER, DIRECT_SERVER6, direct_pair},
    flannel::Flannel,
    overlay::Overlay,
};

/// Ports of the servers, the same on every path; the published ones are published under the same numbers.
pub const IPERF: u16 = 5201;
/// Port of the UDP sink.
pub const SINK: u16 = 7001;
/// Port of the request/response server.
pub const RR: u16 = 7002;
/// Port of the connect/request/response server.
pub const CRR: u16 = 7003;

/// The first of the ports that are published besides.
const FIRST_PUBLISHED: u16 = 20_000;

/// Where a measurement's two programs run, and how the client reaches the server.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The client's network namespace.
    pub client: NsHandle,
    /// The server's network namespace; several if a client may be given any of them.
    pub servers: Vec<NsHandle>,
    /// The address that the client uses.
    pub address: IpAddr,
}

/// Which version of IP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6, on networks that have both.
    Ipv6,
}

/// What the laboratory is to be like.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Setting {
    /// Without Docker, even where the machine can have it.
    pub no_docker: bool,
    /// Whose engine.
    pub release: Release,
    /// What clients and servers speak.
    pub family: Family,
    /// Ports of another container that are published besides: each is a rule or two that packets walk past.
    pub published_ports: u16,
    /// Networks without containers besides: each is rules of isolation that packets walk past.
    pub networks: u16,
    /// Containers besides, on the user-defined network.
    pub containers: u16,
    /// There is a macvlan network: a parent looks at whatever comes in by it, which is the uplink of the other paths.
    pub macvlan: bool,
    /// There is an overlay network, and a second host on it.
    pub overlay: bool,
    /// There are two hosts with flannel's devices.
    pub flannel: bool,
    /// netfast's configuration, if it is not to be the default.
    pub config: Option<String>,
}

impl Default for Setting {
    /// As a host is freshly installed.
    fn default() -> Self {
        Self {
            no_docker: false,
            release: Release::of_environment(),
            family: Family::Ipv4,
            published_ports: 0,
            networks: 0,
            containers: 0,
            macvlan: false,
            overlay: false,
            flannel: false,
            config: None,
        }
    }
}

impl Setting {
    /// Whether plain namespaces cannot play it.
    fn needs_docker(&self) -> bool {
        let more = [self.published_ports, self.networks, self.containers];
        self.family == Family::Ipv6 || self.macvlan || self.overlay || more.iter().any(|more| *more > 0)
    }
}

/// A container host: a real one where the machine can have it.
#[derive(Debug)]
enum Host {
    Docker(Box<DockerHost>),
    Plain(Box<Topo>),
}

/// The host, and a direct veth pair beside it: the limit of what any path can reach.
#[derive(Debug)]
pub struct Lab {
    host: Host,
    direct: (NetNs, NetNs),
    overlay: Option<Overlay>,
    flannel: Option<Flannel>,
    setting: Setting,
}

impl Lab {
    /// Builds it, without Docker if so wanted or if the machine cannot have it; `say` is told what is going on.
    pub fn new(setting: Setting, say: impl Fn(&str)) -> Result<Self> {
        let available = if setting.no_docker {
            Err("no Docker is wanted".to_owned())
        } else {
            DockerHost::available()
        };
        let host = match available {
            Ok(()) => {
                say("starting a Docker host with an outside client, in network namespaces");
                Host::Docker(Box::new(docker_host(&setting)?))
            }
            Err(why) if setting.needs_docker() => {
                bail!("{why}; without an engine there are IPv4, bridges and the ports of the measurements only")
            }
            Err(why) => {
                say(&format!("{why}; plain network namespaces play the containers"));
                Host::Plain(Box::new(plain_host()?))
            }
        };
        let overlay = match &host {
            Host::Docker(host) if setting.overlay => {
                ensure!(setting.family == Family::Ipv4, "the overlay network is one of IPv4");
                say("starting another Docker host, in a swarm with the first");
                Some(Overlay::new(host, docker_options(&setting))?)
            }
            Host::Docker(_) | Host::Plain(_) => None,
        };
        let flannel = setting.flannel.then(Flannel::new).transpose()?;
        Ok(Self {
            host,
            direct: direct_pair()?,
            overlay,
            flannel,
            setting,
        })
    }

    /// What it is like, for people: engine, userland proxy and `br_netfilter`.
    pub fn describe(&self) -> Result<String> {
        Ok(match &self.host {
            Host::Docker(host) => format!("{}, {}", host.release().name()?, host.setting()),
            Host::Plain(_) => "no engine, plain network namespaces".to_owned(),
        })
    }

    /// The engine, if a real one runs in it.
    pub fn docker(&self) -> Option<&DockerHost> {
        match &self.host {
            Host::Docker(host) => Some(host),
            Host::Plain(_) => None,
        }
    }

    /// Whether a real Docker engine runs in it.
    pub fn has_docker(&self) -> bool {
        matches!(self.host, Host::Docker(_))
    }

    /// netfast as it is to be started for a path.
    pub fn prepare(&self, path: Path) -> Result<NetfastProc> {
        match &self.flannel {
            Some(flannel) if path == Path::Flannel => flannel.prepare(0),
            _ => NetfastProc::prepare(self.host_ns(), self.netfast_options()),
        }
    }

    /// The namespace that netfast is to run in.
    pub fn host_ns(&self) -> &NetNs {
        match &self.host {
            Host::Docker(host) => host.host(),
            Host::Plain(topo) => topo.host(),
        }
    }

    /// How netfast is to be started in it.
    pub fn netfast_options(&self) -> netfast_proc::Options {
        let options = match &self.host {
            Host::Docker(host) => netfast_proc::Options::docker(host.docker_host()),
            Host::Plain(_) => netfast_proc::Options::no_runtime(),
        };
        netfast_proc::Options {
            config: self.setting.config.clone(),
            ..options
        }
    }

    /// The ends of a path.
    pub fn ends(&self, path: Path) -> Result<Ends> {
        match &self.host {
            _ if path == Path::Flannel => Ok(self.flannel()?.ends()),
            Host::Docker(host) if path == Path::Overlay => self.overlay()?.ends(host),
            Host::Docker(host) => docker_ends(host, path, self.setting.family),
            Host::Plain(topo) => plain_ends(topo, path),
        }
    }

    /// Starts netfast on the other host of a path that has one, and waits until it and the one here have found the path.
    pub fn start_far(&self, path: Path, here: &NetfastProc, program: Option<&File>) -> Result<Option<NetfastProc>> {
        match &self.host {
            _ if path == Path::Flannel => self.flannel()?.start(program).map(Some),
            Host::Docker(host) if path == Path::Overlay => self.overlay()?.start(host, here, program).map(Some),
            Host::Docker(_) | Host::Plain(_) => Ok(None),
        }
    }

    fn flannel(&self) -> Result<&Flannel> {
        self.flannel.as_ref().context("there is no flannel")
    }

    fn overlay(&self) -> Result<&Overlay> {
        self.overlay.as_ref().context("there is no overlay network")
    }

    /// Switches receive packet steering on for all interfaces of the host and of these paths' ends, over all CPUs
    /// (Documentation/networking/scaling.rst).
    pub fn steer(&self, paths: &[Path]) -> Result<()> {
        let mut namespaces = vec![self.host_ns().handle(), self.direct.0.handle(), self.direct.1.handle()];
        for path in paths {
            let ends = self.ends(*path)?;
            namespaces.push(ends.client);
            namespaces.extend(ends.servers);
        }
        // /sys shows the interfaces of the namespace that it was mounted in; a container's is read-only.
        let script = format!(
            "mount -t sysfs sysfs /sys; mount -o remount,rw /sys; for queue in /sys/class/net/*/queues/rx-*; do echo {:x} > $queue/rps_cpus; done",
            (1_u128 << thread::available_parallelism()?.get().min(127)) - 1
        );
        for namespace in namespaces {
            cmd::run(namespace.command("unshare").args(["--mount", "sh", "-ec", &script]))?;
        }
        Ok(())
    }

    /// Empties the host's connection tracking: UDP's conversations stay in it for half a minute, and would be no new
    /// ones when the next variant has them.
    pub fn forget_connections(&self) -> Result<()> {
        cmd::run(self.host_ns().command("conntrack").arg("--flush"))?;
        Ok(())
    }

    /// The ends of the direct pair.
    pub fn direct(&self) -> Ends {
        Ends {
            client: self.direct.0.handle(),
            servers: vec![self.direct.1.handle()],
            address: match self.setting.family {
                Family::Ipv4 => DIRECT_SERVER.into(),
                Family::Ipv6 => DIRECT_SERVER6.into(),
            },
        }
    }
}

fn docker_options(setting: &Setting) -> docker_host::Options {
    docker_host::Options {
        release: setting.release.clone(),
        ..docker_host::Options::default()
    }
}

fn docker_host(setting: &Setting) -> Result<DockerHost> {
    let mut options = docker_options(setting);
    let mut network: &[&str] = &[];
    if setting.family == Family::Ipv6 {
        // Rules for IPv6 are an experiment of engines before 27.0 (moby 47747), and the default since.
        let flags = [
            "--experimental",
            "--ipv6",
            "--ip6tables",
            "--fixed-cidr-v6=fd00:40::/64",
        ];
        options.dockerd_flags = flags.map(str::to_owned).to_vec();
        network = &["--ipv6", "--subnet=fd00:41::/64"];
    }
    let host = DockerHost::start(options)?;
    if setting.family == Family::Ipv6 {
        host.host()
            .ip(&format!("-6 route replace default via {LAN_IP6} dev eth0"))?;
    }
    let published: Vec<String> = [IPERF, SINK, RR, CRR]
        .into_iter()
        .flat_map(|port| ["tcp", "udp"].map(|protocol| format!("--publish={port}:{port}/{protocol}")))
        .collect();
    let published: Vec<&str> = published.iter().map(String::as_str).collect();
    host.create_network("user", network)?;
    host.run_container("docker0-server", "bridge", &published, &[])?;
    host.run_container("docker0-client", "bridge", &[], &[])?;
    host.run_container("user-server", "user", &[], &[])?;
    host.run_container("user-client", "user", &[], &[])?;
    if setting.macvlan {
        macvlan(&host)?;
    }
    if let Some(more) = setting.published_ports.checked_sub(1) {
        let ports = format!("{FIRST_PUBLISHED}-{}", FIRST_PUBLISHED.saturating_add(more));
        host.run_container("published", "bridge", &[&format!("--publish={ports}:{ports}/udp")], &[])?;
    }
    for number in 0..setting.networks {
        // Docker's own pools have 31.
        let [high, low] = number.to_be_bytes();
        let subnet = format!("--subnet=10.{}.{low}.0/24", 100 + u16::from(high));
        host.create_network(&format!("more-{number}"), &[&subnet])?;
    }
    for number in 0..setting.containers {
        host.run_container(&format!("more-{number}"), "user", &[], &[])?;
    }
    Ok(host)
}

/// Two containers on the uplink's LAN, of both families.
fn macvlan(host: &DockerHost) -> Result<()> {
    let network = [
        "--driver=macvlan",
        "--ipv6",
        "--subnet=198.18.0.0/24",
        "--ip-range=198.18.0.64/28",
        "--subnet=fd00:198:18::/64",
        "--ip-range=fd00:198:18::4:0/112",
        "--opt=parent=eth0",
    ];
    host.create_network("lan", &network)?;
    host.run_container("lan-server", "lan", &[], &[])?;
    host.run_container("lan-client", "lan", &[], &[])
}

fn docker_ends(host: &DockerHost, path: Path, family: Family) -> Result<Ends> {
    let server = || host.container_netns("docker0-server");
    let ip_of = |container, network| -> Result<IpAddr> {
        let attachment = host.attachment(container, network)?;
        Ok(match family {
            Family::Ipv4 => attachment.ip.into(),
            Family::Ipv6 => attachment.ip6.parse::<Ipv6Addr>()?.into(),
        })
    };
    let server_ip = || ip_of("docker0-server", "bridge");
    let (host_ip, lan_ip): (IpAddr, IpAddr) = match family {
        Family::Ipv4 => (HOST_IP.into(), LAN_IP.into()),
        Family::Ipv6 => (HOST_IP6.into(), LAN_IP6.into()),
    };
    Ok(match path {
        Path::Docker0 => Ends {
            client: host.container_netns("docker0-client")?,
            servers: vec![server()?],
            address: server_ip()?,
        },
        Path::User => Ends {
            client: host.container_netns("user-client")?,
            servers: vec![host.container_netns("user-server")?],
            address: ip_of("user-server", "user")?,
        },
        Path::Published => Ends {
            client: host.lan().handle(),
            servers: vec![server()?],
            address: host_ip,
        },
        Path::Masquerade => Ends {
            client: host.container_netns("docker0-client")?,
            servers: vec![host.lan().handle()],
            address: lan_ip,
        },
        Path::Host => Ends {
            client: host.host().handle(),
            servers: vec![server()?],
            address: server_ip()?,
        },
        Path::Localhost => Ends {
            client: host.host().handle(),
            servers: vec![server()?],
            address: match family {
                Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
                Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
            },
        },
        Path::Macvlan => Ends {
            client: host.container_netns("lan-client")?,
            servers: vec![host.container_netns("lan-server")?],
            address: ip_of("lan-server", "lan")?,
        },
        Path::Overlay | Path::Flannel => bail!("its server is on another host"),
    })
}

fn plain_host() -> Result<Topo> {
    let published = [IPERF, SINK, RR, CRR].map(|port| Published {
        host_port: port,
        container: (0, 0),
        port,
    });
    Topo::new(&topo::Options {
        bridges: vec![2, 2],
        published: published.to_vec(),
        ..topo::Options::default()
    })
}

fn plain_ends(topo: &Topo, path: Path) -> Result<Ends> {
    let container = |bridge, index| topo.container(bridge, index).ns.handle();
    let ip = |bridge, index| topo.container(bridge, index).ip.into();
    Ok(match path {
        Path::Docker0 => Ends {
            client: container(0, 1),
            servers: vec![container(0, 0)],
            address: ip(0, 0),
        },
        Path::User => Ends {
            client: container(1, 1),
            servers: vec![container(1, 0)],
            address: ip(1, 0),
        },
        Path::Published => Ends {
            client: topo.lan().handle(),
            servers: vec![container(0, 0)],
            address: HOST_IP.into(),
        },
        Path::Masquerade => Ends {
            client: container(0, 1),
            servers: vec![topo.lan().handle()],
            address: LAN_IP.into(),
        },
        Path::Host => Ends {
            client: topo.host().handle(),
            servers: vec![container(0, 0)],
            address: ip(0, 0),
        },
        Path::Localhost | Path::Macvlan | Path::Overlay | Path::Flannel => {
            bail!("without an engine there is no such network")
        }
    })
}
