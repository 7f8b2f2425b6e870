//! What was last found in containers' namespaces. They are entered again where there is a reason: a host has hundreds, and
//! a container's start concerns one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ContainerNetns;
use crate::host::{Container, ContainerId, Host, Link, LinkKind};
use crate::observe::netlink::{link, near::Links};

/// What was found, and when that was true.
#[derive(Debug, Default)]
pub struct Known {
    /// The version of what the runtime was last known to say.
    pub version: Option<u64>,
    /// When all were looked at.
    taken: Option<Instant>,
    /// By process.
    found: BTreeMap<u32, ContainerNetns>,
    /// The links of the served namespace, as they were then.
    links: BTreeMap<u32, Kind>,
}

/// What a link may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A veth, and the identifier of the other namespace that it leads into.
    Veth(Option<i32>),
    /// What may be moved into a container, and then is nowhere here.
    Other,
}

impl Kind {
    fn of(link: &Link) -> Self {
        if let LinkKind::Veth { peer_netns, .. } = link.kind {
            Self::Veth(peer_netns)
        } else {
            Self::Other
        }
    }
}

/// Behind which links something may have changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Touched {
    ends: BTreeSet<u32>,
    /// And in namespaces that no link led into.
    others: bool,
    /// And anywhere.
    all: bool,
}

impl Known {
    /// The processes into whose namespaces it is to be looked: of containers that are new or have `changed`, of those that the
    /// links lead into that were read anew, and of all if any link may have changed or it is long ago.
    pub fn wanted(
        &mut self,
        host: &Host,
        links: &Links,
        changed: &BTreeSet<ContainerId>,
        ttl: Duration,
    ) -> BTreeSet<u32> {
        let containers = || host.containers.values().filter(|container| container.pid != 0);
        let pids: BTreeSet<u32> = containers().map(|container| container.pid).collect();
        self.found.retain(|pid, _| pids.contains(pid));
        let is_fresh = self.taken.is_some_and(|taken| taken.elapsed() < ttl);
        let some = match links {
            Links::Of(some) if is_fresh => some,
            Links::Of(_) | Links::All => {
                self.taken = Some(Instant::now());
                let all = host.served().links.values();
                self.links = all.map(|link| (link.ifindex, Kind::of(link))).collect();
                return pids;
            }
        };
        let touched = self.touched(host, some);
        let named = containers().filter(|container| {
            // One that could not be looked into is looked at each time.
            let Some(found) = self.found.get(&container.pid) else {
                return true;
            };
            let mut ends = found.interfaces.iter().filter_map(|one| one.host_ifindex).peekable();
            touched.all
                || changed.contains(&container.id)
                || (touched.others && ends.peek().is_none())
                || ends.any(|end| touched.ends.contains(&end))
        });
        named.map(|container| container.pid).collect()
    }

    /// The links here behind which something may have changed: those, and all that lead into the same namespaces.
    fn touched(&mut self, host: &Host, some: &BTreeSet<u32>) -> Touched {
        let mut touched = Touched {
            ends: some.clone(),
            ..Touched::default()
        };
        let mut netns = BTreeSet::new();
        for ifindex in some {
            let before = self.links.remove(ifindex);
            if let Some(Kind::Veth(Some(before))) = before {
                netns.insert(before);
            }
            let Some(link) = host.served().links.get(ifindex) else {
                // It may have been moved into a container. Of a veth that is, the other end tells.
                touched.all |= before == Some(Kind::Other);
                continue;
            };
            let now = Kind::of(link);
            if let Kind::Veth(Some(inside)) = now {
                netns.insert(inside);
                // The first that leads there: into a container that is new, or that had none.
                // An identifier that is none may be of any.
                let is_first = before != Some(now) && !self.links.values().any(|other| *other == now);
                touched.others |= inside < 0 || is_first;
            }
            self.links.insert(*ifindex, now);
        }
        for (ifindex, kind) in &self.links {
            if let Kind::Veth(Some(inside)) = kind
                && netns.contains(inside)
            {
                touched.ends.insert(*ifindex);
            }
        }
        touched
    }

    /// Notes what was found in the namespaces of processes.
    pub fn note(&mut self, found: BTreeMap<u32, ContainerNetns>, wanted: &BTreeSet<u32>) {
        for pid in wanted {
            self.found.remove(pid);
        }
        self.found.extend(found);
    }

    /// Tells of each container what was found.
    pub fn put_into(&self, containers: &mut BTreeMap<ContainerId, Container>) {
        for container in containers.values_mut() {
            if let Some(namespace) = self.found.get(&container.pid) {
                container.netns = Some(namespace.id);
                container.interfaces.clone_from(&namespace.interfaces);
            }
        }
    }
}

/// The containers that are new or not as they were, but for what their own namespaces tell.
pub fn differing(
    before: &BTreeMap<ContainerId, Container>,
    now: &BTreeMap<ContainerId, Container>,
) -> BTreeSet<ContainerId> {
    let is_same = |one: &Container| {
        before.get(&one.id).is_some_and(|before| {
            let told = Container {
                netns: one.netns,
                interfaces: one.interfaces.clone(),
                ..before.clone()
            };
            told == *one
        })
    };
    let differing = now.values().filter(|one| !is_same(one));
    differing.map(|one| one.id.clone()).collect()
}

/// The ends here of these containers' veths.
pub fn ends(host: &Host, containers: &BTreeSet<ContainerId>) -> Vec<link::End> {
    let containers = containers.iter().filter_map(|id| host.containers.get(id));
    let interfaces = containers.flat_map(|container| &container.interfaces);
    let links = interfaces.filter_map(|interface| host.served().links.get(&interface.host_ifindex?));
    links.filter_map(link::end).collect()
}

#[cfg(test)]
mod tests;
