//! A topology with observers, in which a script runs once: with netfast off, or on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::Result;
use netfast::apply::{flows::FlowTables, read::Tables};
use netfast_common::{
    flow::Flow,
    reason::{FAST, Reason},
};
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::{NetNs, NsHandle},
    seeds::{family::Family, names},
    site::LAN_IP,
    topo::Topo,
};
use nix::sys::signal::Signal;

use super::{
    describe::{Frame, MacNames},
    fence::Fence,
    station::{Station, mac_of},
    wire::Packet,
};

/// For what happens at once on an idle machine.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The title of what conntrack knows.
pub const CONNTRACK: &str = "conntrack";

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel alone: the oracle.
    Off,
    /// The kernel and netfast.
    On,
}

/// What a step did, as lines to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub title: String,
    pub lines: Vec<String>,
}

/// Packets by reason number; 0 is the fast path.
pub type Counts = Vec<u64>;

/// What each station got, by its name.
pub type Got = BTreeMap<String, Vec<Frame>>;

/// The topology, the observers, and what they have seen.
#[derive(Debug)]
pub struct World {
    mode: Mode,
    steps: Vec<Step>,
    /// What the last step was counted as.
    last: Counts,
    names: MacNames,
    /// Identifications of all packets so far.
    ids: BTreeSet<u16>,
    stations: Vec<Station>,
    // In the order of dropping: the daemon before its namespace.
    netfast: Option<NetfastProc>,
    pub topo: Topo,
    more: Vec<NetNs>,
    fence: Fence,
}

impl World {
    /// Around a topology, with a station at each of its containers (`c00`: bridge, container) and at the outside
    /// client (`lan`).
    pub fn new(topo: Topo, mode: Mode) -> Result<Self> {
        let mut world = Self {
            mode,
            steps: Vec::new(),
            last: Vec::new(),
            names: MacNames::new(),
            ids: BTreeSet::new(),
            stations: Vec::new(),
            netfast: None,
            topo,
            more: Vec::new(),
            fence: Fence::new()?,
        };
        let host = world.topo.host().handle();
        let uplink = mac_of(&host, "eth0")?;
        let mut stations = vec![Station::open("lan", world.topo.lan(), LAN_IP, uplink)?];
        world.names.insert(uplink, "host".to_owned());
        for (number, bridge) in world.topo.bridges.iter().enumerate() {
            let gateway = mac_of(&host, &bridge.name)?;
            world.names.insert(gateway, bridge.name.clone());
            for (index, container) in bridge.containers.iter().enumerate() {
                let name = format!("c{number}{index}");
                stations.push(Station::open(&name, &container.ns, container.ip, gateway)?);
            }
        }
        for station in stations {
            world.add_station(station);
        }
        Ok(world)
    }

    /// One more observer.
    pub fn add_station(&mut self, station: Station) {
        self.names.insert(station.mac, station.name.clone());
        self.stations.push(station);
    }

    /// What a random MAC address is called in notes.
    pub fn name_mac(&mut self, mac: [u8; 6], name: &str) {
        self.names.insert(mac, name.to_owned());
    }

    /// A namespace that lives as long as the topology.
    pub fn keep(&mut self, ns: NetNs) {
        self.more.push(ns);
    }

    /// Starts netfast, if this is the run with it. Before, the host has talked to everybody, as on a real host.
    pub fn start(&mut self, config: Option<String>) -> Result<()> {
        self.meet()?;
        self.sh("conntrack -F 2>&1");
        if self.mode == Mode::On {
            let mut config = config.unwrap_or_default();
            if !config.contains("learn_after") {
                // To learn at once is the harder thing to get right.
                config.push_str("learn_after = 0\n");
            }
            let options = Options {
                config: Some(config),
                ..Options::no_runtime()
            };
            self.netfast = Some(NetfastProc::start(self.topo.host(), options)?);
        }
        Ok(())
    }

    /// The host says something to everybody, so that it knows their MAC addresses.
    pub fn meet(&self) -> Result<()> {
        let socket = self.host().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        for station in &self.stations {
            cmd::poll("a neighbour of the host", TIMEOUT, || {
                socket.send_to(b"who are you", (station.ip, 9)).ok()?;
                let known = self.sh(&format!("ip neigh show {}", station.ip));
                known.contains("lladdr").then_some(())
            })?;
        }
        for station in &self.stations {
            while station.tap().receive().is_some() {}
        }
        Ok(())
    }

    /// Whether netfast forwards.
    pub fn is_on(&self) -> bool {
        self.mode == Mode::On
    }

    /// The daemon; `None` with netfast off.
    pub fn netfast(&mut self) -> Option<&mut NetfastProc> {
        self.netfast.as_mut()
    }

    /// Kills the daemon; what it has attached stays.
    pub fn kill_daemon(&mut self) {
        if let Some(netfast) = self.netfast() {
            netfast.stop(Signal::SIGKILL).expect("the daemon dies");
        }
    }

    /// The host's namespace.
    pub fn host(&self) -> NsHandle {
        self.topo.host().handle()
    }

    /// A shell line in the host.
    pub fn sh(&self, line: &str) -> String {
        self.topo.host().sh(line).expect("a line that works")
    }

    /// `iptables ARGS…` in the host.
    pub fn iptables(&self, args: &str) {
        self.topo.iptables(args).expect("rules that the kernel takes");
    }

    /// The station of that name.
    pub fn station(&self, name: &str) -> &Station {
        let found = self.stations.iter().find(|station| station.name == name);
        found.unwrap_or_else(|| panic!("no station {name}"))
    }

    /// The address of a station.
    pub fn ip(&self, name: &str) -> Ipv4Addr {
        self.station(name).ip
    }

    /// Packets so far, by reason; empty with netfast off.
    pub fn counts(&self) -> Counts {
        let Some(netfast) = &self.netfast else {
            return Vec::new();
        };
        let tables = Tables::open(netfast.pin_dir()).expect("the maps are pinned");
        let counts = tables.reasons().expect("the counts");
        counts.iter().map(|count| count.packets).collect()
    }

    /// Packets so far that found their flow outdated by the daemon: all flows, or those of an endpoint (which is first
    /// depends on what the kernel tells it first). `None` with netfast off.
    pub fn outdated(&self) -> Option<u64> {
        let counts = self.counts();
        let of = |reason: Reason| counts.get(reason.number() as usize);
        Some(of(Reason::StaleEpoch)? + of(Reason::StaleGeneration)?)
    }

    /// It was the daemon that heard of what happened since `outdated` was `before`, and not because it was time to ask
    /// again.
    pub fn assert_outdated(&self, before: Option<u64>) {
        let has_noticed = !self.is_on() || self.outdated() > before;
        assert!(has_noticed, "the daemon did not outdate the flows");
    }

    /// Flows that may be used, now.
    pub fn flows(&self) -> usize {
        self.count_usable(|_| true)
    }

    /// Flows in use of conversations that were answered.
    pub fn conversations(&self) -> usize {
        self.count_usable(|flow| flow.flags & Flow::<IpAddr>::ONE_WAY == 0)
    }

    fn count_usable(&self, counts: impl Fn(&Flow<IpAddr>) -> bool) -> usize {
        let mut number = 0;
        if let Some(netfast) = &self.netfast {
            let tables = FlowTables::open(netfast.pin_dir()).expect("the maps are pinned");
            let count = |_: &_, flow: &Flow<IpAddr>, usable| number += usize::from(usable && counts(flow));
            tables.for_each(count).expect("the flows");
        }
        number
    }

    /// Sends packets, each from its station, and gives what everybody got. Nothing is noted.
    pub fn exchange(&mut self, packets: &[(&str, Packet)]) -> Got {
        self.try_exchange(packets).0
    }

    fn try_exchange(&mut self, packets: &[(&str, Packet)]) -> (Got, Vec<io::Result<()>>) {
        let before = self.counts();
        self.ids.extend(packets.iter().map(|(_, packet)| packet.id));
        let frames: Vec<_> = packets
            .iter()
            .map(|(name, packet)| {
                let station = self.station(name);
                (station.tap(), station.frame(packet, self.next_hop(station, packet)))
            })
            .collect();
        let sent = self.fence.send(&frames).expect("frames are sent");
        let mut got = Got::new();
        for station in &self.stations {
            let mut frames = Vec::new();
            while let Some(frame) = station.tap().receive() {
                if frame.is_scripted() {
                    frames.push(frame);
                }
            }
            got.insert(station.name.clone(), frames);
        }
        let after = self.counts();
        self.last = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before)
            .collect();
        (got, sent)
    }

    /// Neighbours on one bridge talk directly.
    fn next_hop(&self, station: &Station, packet: &Packet) -> Option<[u8; 6]> {
        let to = packet.destination.ip();
        let direct = self
            .stations
            .iter()
            .find(|other| other.ip == to && names::is_one_network(to, station.ip.into()));
        direct.map(|other| other.mac)
    }

    /// Sends packets and notes what everybody got.
    pub fn step(&mut self, title: &str, packets: &[(&str, Packet)]) -> Got {
        let (got, sent) = self.try_exchange(packets);
        let mut lines: Vec<String> = sent
            .into_iter()
            .enumerate()
            .filter_map(|(number, sent)| Some(format!("packet {number} cannot be sent: {}", sent.err()?)))
            .collect();
        lines.extend(self.lines(&got));
        self.note(title, lines);
        got
    }

    /// What stations got, as lines.
    pub fn lines(&self, got: &Got) -> Vec<String> {
        let lines = got.iter().flat_map(|(name, frames)| {
            let lines = frames.iter().filter_map(|frame| frame.describe(&self.names, &self.ids));
            lines.map(move |line| format!("{name}: {line}"))
        });
        lines.collect()
    }

    /// Notes lines to compare.
    pub fn note(&mut self, title: &str, lines: Vec<String>) {
        self.steps.push(Step {
            title: title.to_owned(),
            lines,
        });
    }

    /// With netfast on: the last packets were counted under this reason, or were not even looked at so closely because
    /// the flow was outdated at that very moment.
    pub fn was(&self, reason: Reason) {
        if self.is_on() {
            let allowed = [reason, Reason::StaleEpoch, Reason::StaleGeneration];
            let counted = allowed.iter().any(|reason| self.last[reason.number() as usize] > 0);
            assert!(counted, "not counted as {}, but as {}", reason.name(), self.told());
        }
    }

    /// Whether the last packet, a single one, took the fast path.
    pub fn was_fast(&self) -> bool {
        self.is_on() && self.last[FAST as usize] > 0
    }

    /// The counts of the last packets, in words.
    pub fn told(&self) -> String {
        let reasons = Reason::ALL.iter().map(|reason| (reason.number(), reason.name()));
        let all = [(FAST, "fast")].into_iter().chain(reasons);
        let counted = all.filter_map(|(number, name)| match self.last.get(number as usize) {
            None | Some(0) => None,
            Some(count) => Some(format!("{count} {name}")),
        });
        counted.collect::<Vec<_>>().join(", ")
    }

    /// Notes what conntrack knows: connections and their states, without what counts down.
    pub fn note_conntrack(&mut self) {
        let lines = conntrack(&self.host(), &[Family::V4]);
        self.note(CONNTRACK, lines);
    }

    /// What was noted.
    pub fn into_steps(mut self) -> Vec<Step> {
        mem::take(&mut self.steps)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("netfast {:?}, until it went wrong:", self.mode);
            for step in &self.steps {
                eprintln!("     {}", step.title);
                for line in &step.lines {
                    eprintln!("       {line}");
                }
            }
            if let Some(netfast) = &self.netfast {
                eprintln!("what the daemon said:\n{}", netfast.log());
            }
        }
    }
}

/// The connections of these families that conntrack knows in a namespace, sorted, without what counts down.
pub fn conntrack(host: &NsHandle, families: &[Family]) -> Vec<String> {
    let list = |family: &Family| format!("conntrack -L -f {} 2>/dev/null", family.name());
    let all: Vec<String> = families.iter().map(list).collect();
    let listed = host.sh(&all.join(" && ")).expect("conntrack lists");
    let mut lines: Vec<String> = listed
        .lines()
        // IGMP, which the host's bridges speak when they please.
        .filter(|line| !line.starts_with("unknown  2 "))
        .map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            // Protocol name, its number, timeout.
            words.remove(2);
            // conntrack calls a UDP conversation assured when it has lasted for two seconds.
            let is_udp = words[0] == "udp";
            words.retain(|word| {
                !(word.starts_with("use=") || word.starts_with("id=") || is_udp && *word == "[ASSURED]")
            });
            words.join(" ")
        })
        .collect();
    lines.sort();
    lines
}
