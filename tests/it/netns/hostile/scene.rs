//! The topology of these tests, the attacker, and what goes on meanwhile.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use netfast::apply::{flows::FlowTables, read::Tables};
use netfast_common::{
    abi::DEFAULT_UNREPLIED,
    device::DeviceKey,
    flow::{Flow, FlowKey},
};
use netfast_tests::{cmd, netns::NsHandle, packet::Mac, site::LAN_IP, topo};

use super::super::lab::{Echo, Lab, TIMEOUT, ask, at, udp, until_answered, warm};
use crate::differential::station::{Tap, mac_of};

/// The attacker's, its neighbours', and another network's places in the topology.
pub const EVIL: (usize, usize) = (0, 0);
pub const VICTIM: (usize, usize) = (0, 1);
pub const NEIGHBOUR: (usize, usize) = (0, 2);
pub const ELSEWHERE: (usize, usize) = (1, 0);
/// Frames that an attack must have got out, for it to count as one.
pub const FLOOD: u64 = 20_000;
/// Frames that the attacker's own IP stack may send besides (ARP).
pub const OWN: u64 = 100;
/// Questions that are asked meanwhile on each conversation.
pub const QUESTIONS: u64 = 60;
/// Of the packets that enter from a container under attack. Others' rules, routes and neighbours do not change, so what
/// is missing to 1 is little.
pub const SHARE: f64 = 0.9;

/// A container that sends frames as fast as it can, until dropped.
pub struct Attack {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    pub fn start(ns: &NsHandle, frame: impl Fn(u64) -> Vec<u8> + Send + 'static) -> Self {
        let tap = Tap::open(ns, "eth0").expect("a raw socket");
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    // A full queue and a frame that the kernel refuses are no reason to give up.
                    if tap.send(&frame(number)).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    number += 1;
                }
            })
        };
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A conversation that goes on while others misbehave.
pub struct Talk {
    pub name: &'static str,
    pub who: (usize, usize),
    pub socket: UdpSocket,
    _echo: Echo,
}

/// The topology, with conversations on the fast path.
pub struct Scene {
    pub lab: Lab,
    pub talks: Vec<Talk>,
    flows: BTreeMap<String, u64>,
    pub evil_mac: Mac,
}

impl Scene {
    pub fn new() -> Self {
        let topology = topo::Options {
            bridges: vec![3, 1],
            ..topo::Options::default()
        };
        // Without the questions to the kernel that are due anyway, all that is slow is the attacker's doing.
        let lab = Lab::with(&topology, Some("revalidate_ms = 10000\n"));
        let talk = |name, who: (usize, usize), to: (&NsHandle, Ipv4Addr), port: u16| {
            let echo = Echo::start(to.0, port);
            let socket = udp(&lab.topo.container(who.0, who.1).ns, 41_000 + port, at(to.1, port));
            until_answered(&socket, "the first answer");
            Talk {
                name,
                who,
                socket,
                _echo: echo,
            }
        };
        let neighbour = lab.topo.container(NEIGHBOUR.0, NEIGHBOUR.1);
        let talks = vec![
            talk("on the attacker's bridge", VICTIM, (&neighbour.ns, neighbour.ip), 7010),
            talk("from there to the outside", NEIGHBOUR, (lab.topo.lan(), LAN_IP), 7011),
            talk("from another bridge", ELSEWHERE, (lab.topo.lan(), LAN_IP), 7012),
        ];
        let evil_mac = mac_of(&lab.topo.container(EVIL.0, EVIL.1).ns, "eth0").expect("its address");
        let mut scene = Self {
            lab,
            talks,
            flows: BTreeMap::new(),
            evil_mac,
        };
        scene.warm();
        scene
    }

    /// Brings all conversations onto the fast path, and notes their flows.
    pub fn warm(&mut self) {
        for talk in &self.talks {
            warm(&self.lab, &talk.socket);
        }
        self.flows = self.replied();
        assert!(self.flows.len() >= 6, "{:?}", self.flows);
    }

    pub fn ip(&self, (bridge, index): (usize, usize)) -> Ipv4Addr {
        self.lab.topo.container(bridge, index).ip
    }

    pub fn mac(&self, (bridge, index): (usize, usize)) -> Mac {
        mac_of(&self.lab.topo.container(bridge, index).ns, "eth0").expect("its address")
    }

    pub fn index(&self, (bridge, index): (usize, usize)) -> u32 {
        let veth = &self.lab.topo.container(bridge, index).veth;
        let line = self
            .lab
            .topo
            .host()
            .sh(&format!("ip -o link show {veth}"))
            .expect("a veth");
        line.split(':')
            .next()
            .and_then(|number| number.parse().ok())
            .expect("its index")
    }

    /// Flows in use, with when each was learned first: one that was evicted and learned again has another time.
    pub fn replied(&self) -> BTreeMap<String, u64> {
        let tables = FlowTables::open(self.lab.netfast.pin_dir()).expect("the maps are pinned");
        let mut found = BTreeMap::new();
        let each = |key: &FlowKey<IpAddr>, flow: &Flow<IpAddr>, usable: bool| {
            if usable {
                found.insert(format!("{key:?}"), flow.created_ns);
            }
        };
        tables.for_each(each).expect("the flows");
        found
    }

    /// Flows that wait for their reverse, those that are used meanwhile among them, and flows in use that enter by the
    /// attacker's interface.
    pub fn of_the_attacker(&self) -> (usize, usize) {
        let index = self.index(EVIL);
        let own = IpAddr::V4(self.ip(EVIL));
        let tables = FlowTables::open(self.lab.netfast.pin_dir()).expect("the maps are pinned");
        let (mut unreplied, mut used) = (0, 0);
        let each = |key: &FlowKey<IpAddr>, flow: &Flow<IpAddr>, usable: bool| {
            let usable = usable && flow.flags & Flow::<IpAddr>::ONE_WAY == 0;
            unreplied += usize::from(!usable);
            if key.ifindex == index {
                used += usize::from(usable);
                assert_eq!(key.source, own, "a flow that the attacker cannot have: {key:?}");
            }
        };
        tables.for_each(each).expect("the flows");
        (unreplied, used)
    }

    /// Packets in from a container: fast, slow, spoofed, malformed.
    pub fn traffic(&self, who: (usize, usize)) -> [u64; 4] {
        let tables = Tables::open(self.lab.netfast.pin_dir()).expect("the maps are pinned");
        let device = tables
            .devices()
            .expect("the devices")
            .remove(&DeviceKey::served(self.index(who)));
        // Without a container runtime a port with several addresses is no endpoint.
        let Some(slot) = device.map(|device| device.slot) else {
            return [0; 4];
        };
        let traffic = tables.traffic(slot).expect("its traffic");
        [
            traffic.in_fast_packets,
            traffic.in_slow_packets,
            traffic.in_spoofed_packets,
            traffic.in_malformed_packets,
        ]
    }

    /// Memory of the daemon, in KiB.
    pub fn memory(&self) -> u64 {
        let pid = self.lab.netfast.pid().expect("it runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Attacks, while those conversations that `untouched` picks go on: they stay on the fast path. Returns what was
    /// counted for the attacker: packets, spoofed, malformed.
    pub fn attack(
        &self,
        what: &str,
        untouched: impl Fn(&Talk) -> bool,
        frame: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> [u64; 3] {
        let (before, memory) = (self.traffic(EVIL), self.memory());
        let attack = Attack::start(&self.lab.topo.container(EVIL.0, EVIL.1).ns, frame);
        self.goes_on(what, &untouched);
        cmd::poll("the flood", TIMEOUT * 3, || (attack.sent() > FLOOD).then_some(())).expect("an attack");
        let grown = self.memory().saturating_sub(memory);
        assert!(grown < 64 * 1024, "{what}: the daemon took {grown} KiB more");
        drop(attack);
        let after = self.traffic(EVIL);
        let counted = [after[0] + after[1], after[2], after[3]];
        let before = [before[0] + before[1], before[2], before[3]];
        std::array::from_fn(|which| counted[which].saturating_sub(before[which]))
    }

    /// Asks on conversations; they stay on the fast path.
    pub fn goes_on(&self, what: &str, which: impl Fn(&Talk) -> bool) {
        for talk in self.talks.iter().filter(|talk| which(talk)) {
            let before = self.fast_questions(talk);
            let (mut asked, begin) = (0, Instant::now());
            // Some are lost, as they are without netfast: the attacker fills the kernel's queues.
            while asked < QUESTIONS && begin.elapsed() < TIMEOUT / 5 {
                ask(&talk.socket);
                asked += 1;
            }
            let fast = self.fast_questions(talk) - before;
            assert!(
                fast as f64 >= SHARE * asked as f64,
                "{what}, {}: {fast} of {asked} questions took the fast path; {}",
                talk.name,
                self.lab.told()
            );
        }
    }

    /// Packets of a conversation's first direction that took the fast path.
    pub fn fast_questions(&self, talk: &Talk) -> u64 {
        let from = talk.socket.local_addr().expect("bound").port();
        let index = self.index(talk.who);
        let tables = FlowTables::open(self.lab.netfast.pin_dir()).expect("the maps are pinned");
        let mut packets = 0;
        let each = |key: &FlowKey<IpAddr>, flow: &Flow<IpAddr>, usable: bool| {
            if usable && key.ifindex == index && key.source_port.number() == from {
                packets = flow.packets;
            }
        };
        tables.for_each(each).expect("the flows");
        packets
    }

    /// All flows that were in use are, and no other is.
    pub fn is_intact(&self, what: &str) {
        let now = self.replied();
        for (key, created) in &self.flows {
            assert_eq!(now.get(key), Some(created), "{what}: evicted or replaced: {key}");
        }
        let (unreplied, used) = self.of_the_attacker();
        assert_eq!(used, 0, "{what}: the attacker uses a flow");
        assert!(
            unreplied <= DEFAULT_UNREPLIED as usize,
            "{what}: {unreplied} flows wait"
        );
    }
}
