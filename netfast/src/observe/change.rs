//! Hints that something changed, and how they get to whoever waits for them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;

use crate::host::Mac;

/// How many hints may wait in the queue: one of each kind.
pub const QUEUE: usize = 16;
/// Hints that may wait before neighbours are no longer named.
const MAX_NAMED: usize = 1024;

/// A hint that something changed since it was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// A link came, went or changed in something that [`Link`](crate::host::Link) tells.
    Links {
        /// Its index.
        device: u32,
    },
    /// A link that was there changed in something that packets through it depend on: what it is to its bridge, an XDP
    /// program on it or on the other end of its cable, ...
    Device {
        /// Its index.
        device: u32,
    },
    /// Programs may have been attached to a link's tcx hooks, or detached.
    Programs {
        /// Its index.
        device: u32,
    },
    /// An address came or went (IPv6 link-local ones do not count).
    Addresses,
    /// A neighbour that could be used has another link-layer address, failed or is gone. State flips do not count.
    Neighbours {
        /// The index of the interface that it is behind.
        device: u32,
        /// The link-layer address that it had; `None` if too many neighbours changed at once to name them.
        mac: Option<Mac>,
    },
    /// An entry came to a forwarding table.
    FdbAdded {
        /// The index of the port that it leads to, or of the device whose own table it is in.
        port: u32,
    },
    /// A MAC address moved from one port of a bridge to another, its entry aged out, or is of another sort.
    FdbMoved {
        /// The index of the port that it was behind.
        port: u32,
    },
    /// A route changed (cached exceptions and IPv6 link-local ones do not count).
    Routes,
    /// A policy routing rule changed.
    PolicyRules,
    /// An `IPsec` policy or association changed.
    Ipsec,
    /// A queueing discipline or a classic filter changed.
    Tc,
    /// A kernel switch changed that the kernel's verdicts depend on.
    Sysctls,
    /// Another kernel switch changed, see [`Sysctls::of_verdicts`](crate::host::Sysctls::of_verdicts). netfast itself
    /// sets one of them.
    Tuning,
    /// nftables or iptables-legacy rules changed.
    Ruleset,
    /// A program began or ceased to listen on an NFQUEUE queue.
    Queues,
    /// The runtime's networks or containers changed.
    Containers,
    /// The runtime came or went.
    Runtime,
    /// Notifications were lost: anything may have changed.
    Overflow,
}

impl Change {
    /// Whether somebody may judge packets within a bridge who did not before, on grounds that no device of netfast's has for
    /// itself: those hints outdate the devices that they are about, and with them what is said of these as ports.
    pub const fn ends_direct_forwarding(self) -> bool {
        match self {
            Self::Tc | Self::Sysctls | Self::Ruleset | Self::Overflow => true,
            Self::Links { .. }
            | Self::Device { .. }
            | Self::Programs { .. }
            | Self::Addresses
            | Self::Neighbours { .. }
            | Self::FdbAdded { .. }
            | Self::FdbMoved { .. }
            | Self::Routes
            | Self::PolicyRules
            | Self::Ipsec
            | Self::Tuning
            | Self::Queues
            | Self::Containers
            | Self::Runtime => false,
        }
    }

    /// Whether the kernel may decide otherwise about a flow than it did before, on grounds that no endpoint has for
    /// itself. What changes with a link or a container concerns the endpoints that the plan finds changed.
    pub fn outdates_all_flows(self) -> bool {
        match self {
            Self::Addresses
            | Self::Routes
            | Self::PolicyRules
            | Self::Ipsec
            | Self::Tc
            | Self::Sysctls
            | Self::Ruleset
            | Self::Queues
            | Self::Overflow => true,
            // Whoever is in a container can make its bridge's neighbours and FDB entries change, thousands of times a
            // second: that must not concern anybody else's flows.
            Self::Neighbours { .. }
            | Self::FdbMoved { .. }
            | Self::Links { .. }
            // So must a container's own end of its cable.
            | Self::Device { .. }
            | Self::Programs { .. }
            | Self::FdbAdded { .. }
            | Self::Tuning
            | Self::Containers
            | Self::Runtime => false,
        }
    }
}

/// Where the watchers leave their hints. A hint that already waits is not left twice, and who leaves one never waits:
/// so a burst of thousands of notifications is a handful of hints, and a slow reader does not make the kernel's queues
/// overflow.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    board: Arc<Board>,
}

#[derive(Debug, Default)]
struct Board {
    pending: Mutex<BTreeSet<Change>>,
    news: Notify,
    links: Mutex<NewsOfLinks>,
}

/// Links that hints have told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewsOfLinks {
    /// These.
    Some(BTreeSet<u32>),
    /// Any.
    All,
}

impl Default for NewsOfLinks {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Hints {
    /// The links that hints have told of since this was asked last. There is one who asks.
    pub fn take_news_of_links(&self) -> NewsOfLinks {
        std::mem::take(&mut *self.links())
    }

    fn links(&self) -> MutexGuard<'_, NewsOfLinks> {
        // It is whole whatever a panic elsewhere left undone.
        self.board.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a hint.
    pub fn send(&self, change: Change) {
        match (change, &mut *self.links()) {
            (Change::Overflow, links) => *links = NewsOfLinks::All,
            (Change::Links { device } | Change::Device { device }, NewsOfLinks::Some(links)) => {
                links.insert(device);
            }
            _ => {}
        }
        self.with_pending(|pending| {
            let is_crowded = pending.len() > MAX_NAMED;
            pending.insert(
                if let (Change::Neighbours { device, .. }, true) = (change, is_crowded) {
                    Change::Neighbours { device, mac: None }
                } else {
                    change
                },
            )
        });
        self.board.news.notify_one();
    }

    /// Passes the hints on, until nobody listens any more.
    pub async fn forward(self, queue: Sender<Change>) {
        loop {
            self.board.news.notified().await;
            for change in self.with_pending(std::mem::take) {
                if queue.send(change).await.is_err() {
                    return;
                }
            }
        }
    }

    fn with_pending<T>(&self, f: impl FnOnce(&mut BTreeSet<Change>) -> T) -> T {
        // A set of hints is good whatever a panic elsewhere left of it.
        f(&mut self.board.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_burst_is_a_handful_of_hints() {
        let hints = Hints::default();
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let forwarder = tokio::spawn(hints.clone().forward(sender));
        for _ in 0..1000 {
            hints.send(Change::Routes);
            hints.send(Change::Ruleset);
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        while let Ok(change) = receiver.try_recv() {
            seen.push(change);
            tokio::task::yield_now().await;
        }
        assert!(seen.contains(&Change::Routes) && seen.contains(&Change::Ruleset));
        assert!(seen.len() <= 2 * QUEUE, "{}", seen.len());
        hints.send(Change::Links { device: 7 });
        assert_eq!(receiver.recv().await, Some(Change::Links { device: 7 }), "none is lost");
        for number in 0..10 * u32::try_from(MAX_NAMED).expect("small") {
            let [a, b, c, d] = number.to_be_bytes();
            let mac = Some(Mac([2, 0, a, b, c, d]));
            hints.send(Change::Neighbours { device: 7, mac });
        }
        let waiting = hints.with_pending(|pending| pending.clone());
        assert!(waiting.len() <= MAX_NAMED + 2, "{}", waiting.len());
        assert!(waiting.contains(&Change::Neighbours { device: 7, mac: None }));
        drop(receiver);
        hints.send(Change::Links { device: 7 });
        forwarder.await.expect("it ends when nobody listens");
    }
}
