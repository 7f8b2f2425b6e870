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
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};

use crate::host::{FdbEntry, Host, Link, LinkKind, Namespace, Neighbour, NeighbourKey, Peer, Ruleset, Sysctls};

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
mod parts;
mod poll;
pub mod rules;
pub mod sandbox;
pub mod sysctl;
pub mod xdp;

use change::Hints;
use netlink::near::{Links, Near};
use netns::known::{self, Known};
use parts::Parts;

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
    inside: Mutex<Known>,
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
        let news = hints.take_news_of_links();
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

    /// Reads anew what the hints name, and leaves the rest of `host` as it is. After an error everything is to be read, as
    /// after [`Change::Overflow`].
    pub async fn refresh(&self, host: &mut Host, changes: &BTreeSet<Change>) -> Result<(), ObserveError> {
        let parts = Parts::of(changes, host.served());
        self.read(host, parts).await
    }

    async fn read(&self, host: &mut Host, parts: Parts) -> Result<(), ObserveError> {
        // Replaced whole, so a panic elsewhere leaves no half of it.
        let known = self.links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_kernel = parts.clone();
        // Who comes is no news, and without a runtime it is all that tells what addresses containers have.
        let all_neighbours = self.runtime.is_none();
        let kernel = spawn_blocking(move || Kernel::read(&of_kernel, all_neighbours, &known)).await??;
        if let Some((_, links)) = &kernel.ruleset {
            self.links
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone_from(links);
        }
        kernel.put_into(host.served_mut());
        if self.runtime.is_some() {
            self.read_containers(host, &parts).await?;
        }
        resolve_bridges(host);
        Ok(())
    }

    /// Takes over what is known of the runtime, and adds what the containers' own namespaces tell, as far as either may have
    /// changed.
    async fn read_containers(&self, host: &mut Host, parts: &Parts) -> Result<(), ObserveError> {
        let Some(runtime) = &self.runtime else { return Ok(()) };
        let seen = match parts.links {
            Links::All => None,
            Links::Of(_) => self.with_known(|known| known.version),
        };
        let (mut changed, mut is_news) = (BTreeSet::new(), false);
        if let Some((version, cache)) = runtime.newer(seen) {
            changed = known::differing(&host.containers, &cache.containers);
            host.runtime = cache.runtime;
            host.networks = cache.networks;
            host.containers = cache.containers;
            self.with_known(|known| known.version = Some(version));
            is_news = true;
        }
        let wanted = self.with_known(|known| known.wanted(host, &parts.links, &changed, self.inside_ttl));
        let looked = match wanted {
            wanted if wanted.is_empty() => None,
            wanted => Some(spawn_blocking(move || (netns::look(&wanted), wanted)).await?),
        };
        if let Some((found, wanted)) = looked {
            self.with_known(|known| known.note(found, &wanted));
            is_news = true;
        }
        if is_news {
            self.with_known(|known| known.put_into(&mut host.containers));
        }
        // A runtime sets the other end's address after the link is there.
        let ends = known::ends(host, &changed);
        if !ends.is_empty() {
            let peers = spawn_blocking(move || netlink::peers(&ends)).await??;
            host.served_mut().peers.extend(peers);
        }
        Ok(())
    }

    fn with_known<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        // A panic elsewhere leaves nothing in it that is not looked at again.
        f(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is read of the kernel at once.
struct Kernel {
    near: Near,
    fdb: Option<BTreeSet<FdbEntry>>,
    neighbours: Option<BTreeMap<NeighbourKey, Neighbour>>,
    peers: BTreeMap<u32, Peer>,
    routing: Option<netlink::Routing>,
    ruleset: Option<(Ruleset, foreign::Links)>,
    sysctls: Sysctls,
}

impl Kernel {
    fn read(parts: &Parts, all_neighbours: bool, known: &foreign::Links) -> Result<Self, NetlinkError> {
        // Rules that cannot be read, as by a user without privileges, are a fact about the host and not a failure.
        let unreadable = |error: rules::RulesError| Ruleset {
            unreadable: Some(error.to_string()),
            ..Ruleset::default()
        };
        let near = Near::read(&parts.links)?;
        Ok(Self {
            peers: netlink::peers(&near.ends())?,
            // Where links are all read anew, these are.
            fdb: (parts.fdb && matches!(near, Near::Of(_)))
                .then(netlink::fdb)
                .transpose()?,
            neighbours: (all_neighbours && matches!(near, Near::Of(_)))
                .then(netlink::neighbours)
                .transpose()?,
            near,
            routing: parts.routes.then(netlink::routing).transpose()?,
            ruleset: parts
                .ruleset
                .then(|| (rules::read().unwrap_or_else(unreadable), known.renewed())),
            sysctls: sysctl::read(),
        })
    }

    fn put_into(self, netns: &mut Namespace) {
        self.near.put_into(netns, self.peers);
        if let Some(fdb) = self.fdb {
            netns.fdb = fdb;
        }
        if let Some(neighbours) = self.neighbours {
            netns.neighbours = neighbours;
        }
        netns.sysctls = self.sysctls;
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
