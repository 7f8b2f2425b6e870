//! `netfast status`: is it there, what does it do, how well.

use std::collections::BTreeMap;

use netfast_common::reason::{self, Count, Reason};
use serde::Serialize;

use crate::{
    abilities::{Abilities, Part, Record, Update},
    plan::ResolverReport,
    report::{path::PathState, tunnels::Tunnel, xdp::Xdp},
    state::LocalState,
};

mod gather;
mod text;
mod verdict;

pub use gather::{Ports, Tables};
pub use verdict::{NoSuchName, Verdict};

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Whether all is well, in one line.
    pub verdict: Verdict,
    /// The daemon, and what it left in the kernel.
    pub daemon: Daemon,
    /// The container runtime.
    pub runtime: Runtime,
    /// Both paths, of all interfaces.
    pub totals: Totals,
    /// Why packets took the slow path, most frequent first; only those that occurred.
    pub reasons: Vec<ReasonCount>,
    /// What became of the packets that were candidates for learning, most frequent first; only what occurred.
    pub learning: Vec<ReasonCount>,
    /// What this host lets netfast do, and what changed about it.
    pub host: HostAbilities,
    /// Networks and their endpoints.
    pub networks: Vec<Network>,
    /// Interfaces that lead off the host, and bridge devices.
    pub devices: Vec<Device>,
    /// VXLAN devices that packets of containers leave by.
    pub tunnels: Vec<Tunnel>,
    /// Published ports at loopback addresses.
    pub localhost: LocalState,
    /// XDP at uplinks.
    pub xdp: Xdp,
    /// Containers in which Docker's rules for its resolver should be replaced.
    pub resolvers: Vec<ResolverReport>,
}

/// The daemon, and what it left in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "one answer to one question each")]
pub struct Daemon {
    /// Whether it runs.
    pub running: bool,
    /// Its process, or that of the last one.
    pub pid: Option<u32>,
    /// Its version, or that of the last one.
    pub version: String,
    /// For how long it has been running.
    pub uptime_ms: Option<u64>,
    /// Whether programs and tables are in the kernel.
    pub attached: bool,
    /// Whether all that the daemon wants is done.
    pub in_sync: bool,
    /// `tcx` or `clsact`.
    pub attached_by: String,
    /// Whether flows may be used.
    pub using: bool,
    /// Whether flows may be learned.
    pub learning: bool,
    /// What this kernel does not do, with what is lost by it and what can be done about it.
    pub lacks: Vec<String>,
    /// Why no flows are learned, if that is so.
    pub learning_off: Option<String>,
    /// Changed whenever the kernel's verdicts may have changed.
    pub epoch: u32,
    /// Time after which each flow asks the kernel again.
    pub revalidate_ms: u64,
    /// Where the pins are.
    pub pin_dir: String,
}

/// What this host lets netfast do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostAbilities {
    /// The kernel, the engine and netfast itself, by version, at the daemon's last look.
    pub versions: BTreeMap<Part, String>,
    /// What is possible, and what is not.
    pub abilities: Abilities,
    /// What changed about it between two looks, the newest last.
    pub updates: Vec<Update>,
    /// Those of them that are shown to everybody: of the last 30 days.
    #[serde(skip)]
    pub recent: Vec<Update>,
}

impl HostAbilities {
    fn gather(record: &Record, now_ms: u64) -> Self {
        let last = record.last.clone().unwrap_or_default();
        let recent = record.updates.iter().filter(|update| update.is_recent(now_ms));
        Self {
            versions: last.versions,
            abilities: last.abilities,
            updates: record.updates.clone(),
            recent: recent.cloned().collect(),
        }
    }
}

/// The container runtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Runtime {
    /// `none`, `connected` or `disconnected`.
    pub state: String,
    /// Name and version.
    pub engine: Option<String>,
    /// Why it is disconnected.
    pub error: Option<String>,
}

/// Both paths, of all interfaces. Each packet is counted once, where it enters.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Flows in the table, those that wait for their reverse included.
    pub flows: u64,
    /// Places in the table.
    pub flow_capacity: u64,
    /// Kernel memory of the tables.
    pub table_bytes: u64,
    /// Packets on the fast path.
    pub fast_packets: u64,
    /// Packets on the slow path.
    pub slow_packets: u64,
    /// Bytes on the fast path.
    pub fast_bytes: u64,
    /// Bytes on the slow path.
    pub slow_bytes: u64,
    /// Packets that left through a tunnel with a repeated outer header, whichever path they came by to the tunnel.
    pub tunnel_packets: u64,
    /// Bytes of them as they left, network layer and up.
    pub tunnel_bytes: u64,
    /// Packets that came in through a tunnel with an outer header that was taken off at the uplink.
    pub tunnel_in_packets: u64,
}

/// A reason with its count.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReasonCount {
    /// Its number, which never changes its meaning.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// One line of explanation.
    pub text: &'static str,
    /// Packets; GSO packets count as one.
    pub packets: u64,
    /// Bytes, network layer and up.
    pub bytes: u64,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// The name of its bridge device.
    pub bridge: Option<String>,
    /// Which path its packets take, and why.
    #[serde(flatten)]
    pub path: PathState,
    /// Which path the packets between its containers and the host take, and why.
    pub host: PathState,
    /// Whether packets between its containers are forwarded directly, or what keeps them from it; `None`: it has no bridge, or
    /// no daemon runs, without which none are.
    pub direct: Option<PathState>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Endpoint {
    /// The container's name.
    pub container: String,
    /// The host's side of its veth.
    pub veth: Option<String>,
    /// Which path its packets take, and why.
    #[serde(flatten)]
    pub path: PathState,
    /// Its packets; `None` if netfast is not attached to it.
    pub traffic: Option<Traffic>,
    /// Packets of its interface in the container, by whatever path; `None` if it cannot be asked.
    pub interface: Option<Interface>,
}

/// What the kernel counts inside a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Packets sent; GSO packets count as one.
    pub sent_packets: u64,
    /// Bytes of them, with the Ethernet header.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes of them, with the Ethernet header.
    pub received_bytes: u64,
}

/// Packets of one interface, seen from the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Came in from it and took the fast path.
    pub in_fast_packets: u64,
    /// Bytes of them.
    pub in_fast_bytes: u64,
    /// Came in from it and took the slow path.
    pub in_slow_packets: u64,
    /// Bytes of them.
    pub in_slow_bytes: u64,
    /// Went out to it on the fast path.
    pub out_fast_packets: u64,
    /// Bytes of them.
    pub out_fast_bytes: u64,
    /// Came in from it, from a MAC, IPv4 or ARP address that is not the endpoint's; all on the slow path.
    pub in_spoofed_packets: u64,
    /// Came in from it with broken headers; all on the slow path.
    pub in_malformed_packets: u64,
}

impl From<netfast_common::device::Traffic> for Traffic {
    fn from(of: netfast_common::device::Traffic) -> Self {
        Self {
            in_fast_packets: of.in_fast_packets,
            in_fast_bytes: of.in_fast_bytes,
            in_slow_packets: of.in_slow_packets,
            in_slow_bytes: of.in_slow_bytes,
            out_fast_packets: of.out_fast_packets,
            out_fast_bytes: of.out_fast_bytes,
            in_spoofed_packets: of.in_spoofed_packets,
            in_malformed_packets: of.in_malformed_packets,
        }
    }
}

/// A bridge device or an uplink.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// `bridge` or `uplink`.
    pub kind: String,
    /// Whether programs are attached to it.
    pub attached: bool,
    /// Why not.
    pub error: Option<String>,
    /// Which path its packets take, and why: of a bridge device, the host's own; of an uplink, those of containers.
    #[serde(flatten)]
    pub path: PathState,
    /// Its packets; `None` if netfast is not attached to it. Of a bridge device, those of the host itself.
    pub traffic: Option<Traffic>,
}

impl Status {
    /// Fills totals, reasons and learning from the reasons map, summed over the CPUs and indexed by number.
    pub fn count(&mut self, counts: &[Count]) {
        let at = |index: u32| counts.get(index as usize).copied().unwrap_or_default();
        let fast = at(reason::FAST);
        self.totals.fast_packets = fast.packets;
        self.totals.fast_bytes = fast.bytes;
        let repeated = at(Reason::Encapsulated.number());
        self.totals.tunnel_packets = repeated.packets;
        self.totals.tunnel_bytes = repeated.bytes;
        self.totals.tunnel_in_packets = at(Reason::Decapsulated.number()).packets;
        for reason in Reason::ALL.iter().filter(|reason| !reason.is_of_header()) {
            let Count { packets, bytes } = at(reason.number());
            if packets == 0 {
                continue;
            }
            let count = ReasonCount {
                number: reason.number(),
                name: reason.name(),
                text: reason.text(),
                packets,
                bytes,
            };
            if reason.is_slow() {
                self.totals.slow_packets += packets;
                self.totals.slow_bytes += bytes;
                self.reasons.push(count);
            } else {
                self.learning.push(count);
            }
        }
        // The sort is stable: what is equally frequent stays in the order of its number.
        self.reasons.sort_by_key(|count| std::cmp::Reverse(count.packets));
        self.learning.sort_by_key(|count| std::cmp::Reverse(count.packets));
    }
}

#[cfg(test)]
pub(crate) mod tests;
