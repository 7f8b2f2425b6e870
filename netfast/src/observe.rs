//! Observing: what the kernel and the container runtime say, as plain data, and hints that it changed.
//!
//! It only reads, never writes, and never interprets. An [`Observer`] sends [`Change`] hints; who gets one waits a
//! moment for more of them and then reads anew what they name ([`Observer::refresh`]), or everything
//! ([`Observer::snapshot`]). A hint says that something changed since the last reading, never what: so a lost or a
//! superfluous one does no harm that the next full snapshot does not mend.
//!
//! Everything is about the network namespace in which [`Observer::start`] is called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::host::{Container, ContainerId, Host, Link, LinkKind, Namespace, Peer, Ruleset, Sysctls};

mod change;
pub(crate) mod docker;
pub(crate) mod ebtables;
mod foreign;
pub mod inside;
pub(crate) mod legacy;
pub mod localhost;
pub mod netlink;
mod netns;
mod nfqueue;
pub(crate) mod nftables;
mod poll;
pub mod rules;
pub mod sandbox;
pub mod sysctl;
pub mod xdp;

use change::Hints;

pub use crate::sys::netlink::NetlinkError;
pub use change::Change;
pub use docker::DockerError;
pub use netns::veths;

/// What to observe, and how often to look where nothing is announced.
#[derive(Clone, Debug)]
pub struct ObserverConfig {
    /// The container runtime's address, `unix:///PATH`, `tcp://HOST:PORT` or `http://HOST:PORT`;
    /// `None` for none.
    pub docker_host: Option<String>,
    /// How often iptables-legacy, NFQUEUE listeners, sysctls and what is attached to links are polled.
    pub poll_interval: Duration,
    /// How often the runtime is asked for everything, and containers' namespaces are looked into, even without an
    /// event.
    pub resync_interval: Duration,
}

impl Default for ObserverConfig {
    fn default() -> Self {
        Self {
            docker_host: None,
            // Direct forwarding must end within a second of whatever is found so.
            poll_interval: Duration::from_millis(800),
            resync_interval: Duration::from_secs(30),
        }
    }
}

/// Why the host cannot be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The container runtime.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// A reading thread ended by panic, or the tokio runtime is shutting down.
    #[error("a reading task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Watches and reads. Its tasks end when it is dropped.
pub struct Observer {
    runtime: Option<docker::Runtime>,
    inside: Mutex<Inside>,
    inside_ttl: Duration,
    /// The BPF links that have been looked at.
    links: Mutex<foreign::Links>,
    tasks: JoinSet<()>,
}

impl Observer {
    /// Connects to the runtime, opens the notification sockets and begins to watch. Hints come from now on, so that a
    /// snapshot taken afterwards misses nothing. Must be called within a tokio runtime with I/O and time, whose
    /// threads are all in the namespace to observe.
    pub async fn start(config: ObserverConfig) -> Result<(Self, mpsc::Receiver<Change>), ObserveError> {
        let hints = Hints::default();
        let mut tasks = JoinSet::new();
        let (sender, receiver) = mpsc::channel(change::QUEUE);
        tasks.spawn(hints.clone().forward(sender));
        let kernel = netlink::watch::open()?;
        let neighbours = netlink::watch::open_neighbours()?;
        let rules = nftables::open()?;
        let ipsec = netlink::xfrm::open();
        let memory = netlink::watch::Memory::read;
        let news = hints.news_of_links();
        let (known, stamp) = spawn_blocking(move || ((memory(), memory()), poll::Stamp::read(news))).await?;
        let (known, known_neighbours) = (known.0?, known.1?);
        let runtime = match config.docker_host {
            Some(host) => {
                let (runtime, session) = docker::Runtime::connect(&host).await?;
                tasks.spawn(runtime.clone().run(session, config.resync_interval, hints.clone()));
                Some(runtime)
            }
            None => None,
        };
        tasks.spawn(nftables::run(rules, hints.clone()));
        if let Some(ipsec) = ipsec {
            tasks.spawn(netlink::xfrm::run(ipsec, hints.clone()));
        }
        tasks.spawn(poll::run(stamp, config.poll_interval, hints.clone()));
        tasks.spawn(netlink::watch::run_neighbours(
            neighbours,
            known_neighbours,
            hints.clone(),
        ));
        tasks.spawn(netlink::watch::run(kernel, known, hints));
        let observer = Self {
            runtime,
            inside: Mutex::default(),
            inside_ttl: config.resync_interval,
            links: Mutex::default(),
            tasks,
        };
        Ok((observer, receiver))
    }

    /// Waits for the end of one of the tasks that watch: by a panic, for they have no other.
    pub async fn ended(&mut self) {
        self.tasks.join_next().await;
    }

    /// Reads everything anew; the runtime is not asked but its last known state taken.
    pub async fn snapshot(&self) -> Result<Host, ObserveError> {
        let mut host = Host::default();
        self.read(&mut host, Parts::ALL).await?;
        Ok(host)
    }

    /// Reads anew what the hints name, and leaves the rest of `host` as it is. On an error nothing is changed.
    pub async fn refresh(&self, host: &mut Host, changes: &BTreeSet<Change>) -> Result<(), ObserveError> {
        self.read(host, Parts::of(changes)).await
    }

    async fn read(&self, host: &mut Host, parts: Parts) -> Result<(), ObserveError> {
        // Replaced whole, so a panic elsewhere leaves no half of it.
        let known = self.links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kernel = spawn_blocking(move || Kernel::read(parts, &known)).await??;
        if let Some((_, links)) = &kernel.ruleset {
            self.links
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone_from(links);
        }
        if let Some(runtime) = &self.runtime {
            let docker::Cache {
                runtime,
                networks,
                mut containers,
            } = runtime.cache();
            self.look_inside(&mut containers, &kernel.near.links).await?;
            host.runtime = runtime;
            host.networks = networks;
            host.containers = containers;
        }
        kernel.put_into(host.served_mut());
        resolve_bridges(host);
        Ok(())
    }

    /// Adds what the containers' own namespaces tell. They are entered only if a link or a container changed since the
    /// last time, or that is long ago.
    async fn look_inside(
        &self,
        containers: &mut BTreeMap<ContainerId, Container>,
        links: &BTreeMap<u32, Link>,
    ) -> Result<(), ObserveError> {
        let pids: BTreeSet<u32> = containers
            .values()
            .map(|container| container.pid)
            .filter(|pid| *pid != 0)
            .collect();
        let known = self.with_inside(|inside| inside.get(&pids, links, self.inside_ttl));
        let found = if let Some(found) = known {
            found
        } else {
            let (found, pids) = spawn_blocking(move || (netns::look(&pids), pids)).await?;
            let (links, taken) = (links.clone(), Some(Instant::now()));
            self.with_inside(|inside| {
                *inside = Inside {
                    pids,
                    links,
                    taken,
                    found: found.clone(),
                }
            });
            found
        };
        for container in containers.values_mut() {
            if let Some(namespace) = found.get(&container.pid) {
                container.netns = Some(namespace.id);
                container.interfaces.clone_from(&namespace.interfaces);
            }
        }
        Ok(())
    }

    fn with_inside<T>(&self, f: impl FnOnce(&mut Inside) -> T) -> T {
        // It is replaced whole, so a panic elsewhere leaves no half of it.
        f(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was last found in the containers' namespaces, and when that was true.
#[derive(Default)]
struct Inside {
    pids: BTreeSet<u32>,
    links: BTreeMap<u32, Link>,
    taken: Option<Instant>,
    found: BTreeMap<u32, netns::ContainerNetns>,
}

impl Inside {
    /// What was found, if there is no reason to look again. A namespace that could not be looked into is one.
    fn get(
        &self,
        pids: &BTreeSet<u32>,
        links: &BTreeMap<u32, Link>,
        ttl: Duration,
    ) -> Option<BTreeMap<u32, netns::ContainerNetns>> {
        let fresh = self.taken.is_some_and(|taken| taken.elapsed() < ttl);
        let same = self.pids == *pids && self.links == *links && self.found.len() == pids.len();
        (fresh && same).then(|| self.found.clone())
    }
}

/// The parts that are read only when there is a reason, since they can be large: a full routing table, thousands of
/// rules. All else is a fraction of a millisecond and read every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    peers: bool,
    routes: bool,
    ruleset: bool,
}

impl Parts {
    const ALL: Self = Self {
        peers: true,
        routes: true,
        ruleset: true,
    };

    fn of(changes: &BTreeSet<Change>) -> Self {
        let any = |wanted: &[Change]| wanted.iter().any(|change| changes.contains(change));
        let device = changes.iter().any(|change| matches!(change, Change::Device { .. }));
        Self {
            // One that is new may be a veth, and a runtime sets the other end's address after that.
            peers: device || any(&[Change::Links, Change::Containers, Change::Overflow]),
            // Links take routes with them when they go down, without a word about each IPv4 route.
            routes: device
                || any(&[
                    Change::Routes,
                    Change::PolicyRules,
                    Change::Addresses,
                    Change::Links,
                    Change::Overflow,
                ]),
            ruleset: any(&[Change::Ruleset, Change::Queues, Change::Overflow]),
        }
    }
}

/// What is read of the kernel at once.
struct Kernel {
    near: netlink::Snapshot,
    peers: Option<BTreeMap<u32, Peer>>,
    routing: Option<netlink::Routing>,
    ruleset: Option<(Ruleset, foreign::Links)>,
    sysctls: Sysctls,
}

impl Kernel {
    fn read(parts: Parts, known: &foreign::Links) -> Result<Self, NetlinkError> {
        // Rules that cannot be read, as by a user without privileges, are a fact about the host and not a failure.
        let unreadable = |error: rules::RulesError| Ruleset {
            unreadable: Some(error.to_string()),
            ..Ruleset::default()
        };
        let near = netlink::snapshot()?;
        Ok(Self {
            peers: parts.peers.then(|| netlink::peers(&near.links)).transpose()?,
            near,
            routing: parts.routes.then(netlink::routing).transpose()?,
            ruleset: parts
                .ruleset
                .then(|| (rules::read().unwrap_or_else(unreadable), known.renewed())),
            sysctls: sysctl::read(),
        })
    }

    fn put_into(self, netns: &mut Namespace) {
        let netlink::Snapshot {
            links,
            addresses,
            neighbours,
            fdb,
            qdiscs,
            tc_filters,
        } = self.near;
        netns.links = links;
        netns.addresses = addresses;
        netns.neighbours = neighbours;
        netns.fdb = fdb;
        netns.qdiscs = qdiscs;
        netns.tc_filters = tc_filters;
        netns.sysctls = self.sysctls;
        if let Some(peers) = self.peers {
            netns.peers = peers;
        }
        if let Some(routing) = self.routing {
            netns.routes = routing.routes;
            netns.policy_rules = routing.policy_rules;
        }
        if let Some((ruleset, links)) = self.ruleset {
            netns.ruleset = ruleset;
            netns.netfilter_programs = links.on_netfilter;
        }
    }
}

/// A bridge network whose bridge does not have the name that Docker would give it, or whose runtime tells none, as podman,
/// has the bridge with its gateway's address.
fn resolve_bridges(host: &mut Host) {
    let is_bridge = |link: &&Link| matches!(link.kind, LinkKind::Bridge(_));
    let mut resolved = BTreeMap::new();
    let names: BTreeSet<&String> = host.served().links.values().map(|link| &link.name).collect();
    for (id, network) in &host.networks {
        let is_there = |name: &String| names.contains(name);
        if network.driver != "bridge" || network.bridge_name.as_ref().is_some_and(is_there) {
            continue;
        }
        let gateways = network.ipam.iter().filter_map(|pool| pool.gateway);
        let owners = gateways.flat_map(|gateway| host.served().addresses.iter().filter(move |a| a.net.addr == gateway));
        let found = owners
            .filter_map(|address| host.served().links.get(&address.ifindex))
            .find(is_bridge);
        resolved.extend(found.map(|link| (id.clone(), link.name.clone())));
    }
    for (id, name) in resolved {
        if let Some(network) = host.networks.get_mut(&id) {
            network.bridge_name = Some(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_parts_are_read_only_when_a_hint_asks() {
        let of = |changes: &[Change]| Parts::of(&changes.iter().copied().collect());
        assert_eq!(of(&[Change::Overflow]), Parts::ALL);
        assert_eq!(
            of(&[Change::Containers, Change::FdbMoved { port: 3 }]),
            Parts {
                peers: true,
                routes: false,
                ruleset: false
            }
        );
        for change in [Change::Links, Change::Device { device: 3 }] {
            assert_eq!(
                of(&[change]),
                Parts {
                    peers: true,
                    routes: true,
                    ruleset: false
                }
            );
        }
        assert_eq!(
            of(&[Change::Queues]),
            Parts {
                peers: false,
                routes: false,
                ruleset: true
            }
        );
    }

    /// Hints of the others go on coming, so their channel does not tell.
    #[tokio::test]
    async fn the_end_of_one_watcher_is_noticed() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        let mut observer = Observer {
            runtime: None,
            inside: Mutex::default(),
            inside_ttl: Duration::ZERO,
            links: Mutex::default(),
            tasks,
        };
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, observer.ended()).await.is_err(), "all go on");
        observer.tasks.spawn(async { panic!("a bug in a watcher") });
        let noticed = tokio::time::timeout(Duration::from_secs(10), observer.ended());
        noticed.await.expect("a panic in one of them");
    }
}
