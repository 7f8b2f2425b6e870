//! A namespace with real interfaces, the object loaded with maps of its own, and one packet at a time through one of
//! its programs by `BPF_PROG_TEST_RUN`.

use std::{borrow::Cow, collections::BTreeMap, env, fs, time::Duration};

use super::interfaces;
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::SchedClassifier,
};
use netfast::apply::OBJECT;
use netfast_common::{
    abi::{ADDRESS_VARIABLE, NETNS_VARIABLE, map},
    alias::MemberKey,
    control::Control,
    device::{Device, DeviceKey, NetnsNumber, Traffic},
    direct::{Pace, Port, PortKey},
    flow::{Flow, FlowKey},
    macvlan::{AddressKey, AddressOwner, Station, StationKey},
    net::{AnyIp, Ip4, Ip6},
    reason::{Count, SLOTS},
    resolver::Ports,
    trace::{Filter, Tally},
    tunnel::{Decap, Encap, End, Tunnel},
    vet::Answer,
    vip::{Backend, BackendStats, Conn, ConnKey, Member, Service, SlotKey},
};
use netfast_ebpf::state::candidate::Candidates;
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
    scene::Dev,
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

mod context;
mod hook;
mod ports;
mod reset;
mod xdp;

pub use context::Context;
pub use hook::Hook;
pub use xdp::Xdp;

/// The epoch before a row changes it.
pub const EPOCH: u32 = 7;
/// Slots that the maps of a test have: those of the devices, and some that must stay untouched.
const DEVICE_SLOTS: u32 = 16;
/// Flows that the tables of a test hold.
const TABLE: u32 = 1024;

/// What a program did to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What it returned.
    pub verdict: i32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// `skb->mark` afterwards.
    pub mark: u32,
    /// `skb->priority` afterwards.
    pub priority: u32,
}

/// A flow table.
pub type Table = HashMap<MapData, FlowKey<Ip4>, Flow<Ip4>>;
/// What a CPU remembers of packets.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct OfCpu(pub Candidates);

// SAFETY: made of integers, without padding.
unsafe impl aya::Pod for OfCpu {}

/// The namespace, the programs and the maps.
pub struct Lab {
    /// The namespace that the programs believe to be in.
    pub netns: NetnsNumber,
    /// Rows are played in IPv6.
    pub six: bool,
    ebpf: Ebpf,
    indexes: BTreeMap<Dev, u32>,
    /// The daemon's switches.
    pub control: Array<MapData, Control>,
    /// What the programs know of the interfaces.
    pub devices: HashMap<MapData, DeviceKey, Device>,
    /// Generations by slot.
    pub generations: Array<MapData, u32>,
    /// Traffic by slot.
    pub traffic: PerCpuArray<MapData, Traffic>,
    /// Counts by reason.
    pub reasons: PerCpuArray<MapData, Count>,
    /// Flows in use.
    pub flows: Table,
    /// Flows that wait for their reverse.
    pub unreplied: Table,
    /// The same of IPv6.
    pub tables6: [HashMap<MapData, FlowKey<Ip6>, Flow<Ip6>>; 2],
    /// What the daemon found of its flows.
    pub vetted6: HashMap<MapData, FlowKey<Ip6>, Answer>,
    /// The candidates of each CPU.
    pub candidates: PerCpuArray<MapData, OfCpu>,
    /// Packets of flows that are not known yet.
    seen: Array<MapData, u32>,
    /// Whether anything may have been counted there.
    has_seen: bool,
    /// Ports between which packets are forwarded directly.
    ports: HashMap<MapData, PortKey, Port>,
    /// Whether there are any.
    has_ports: bool,
    /// When they last were.
    pub paces: Array<MapData, Pace>,
    /// Flows that wait to be vetted.
    pub vet: RingBuf<MapData>,
    /// What the daemon found of them.
    pub vetted: HashMap<MapData, FlowKey<Ip4>, Answer>,
    /// What a tracer wants to see.
    pub filter: Array<MapData, Filter>,
    /// What became of it.
    pub tally: PerCpuArray<MapData, Tally>,
    /// What a tracer is shown.
    pub traced: RingBuf<MapData>,
    /// Whose turn it is.
    pub turns: HashMap<MapData, u64, u64>,
    /// Services by virtual address.
    pub vips: HashMap<MapData, AnyIp, Service>,
    /// Their members in turn.
    pub vip_slots: HashMap<MapData, SlotKey, Backend>,
    /// Their members.
    pub vip_members: HashMap<MapData, MemberKey, Member>,
    /// What they were given.
    pub vip_stats: HashMap<MapData, MemberKey, BackendStats>,
    /// Connections that saw an answer, and those that did not or are closed.
    pub vip_connections: [HashMap<MapData, ConnKey, Conn>; 2],
    /// Counts by verdict.
    pub vip_verdicts: PerCpuArray<MapData, u64>,
    /// Tunnels whose outer headers are repeated.
    pub tunnels: HashMap<MapData, DeviceKey, Tunnel>,
    /// Outer headers.
    pub encaps: HashMap<MapData, FlowKey<Ip4>, Encap>,
    /// Devices of tunnels by what comes in for them.
    pub ends: HashMap<MapData, End, u32>,
    /// Outer headers that may be taken off.
    pub decaps: HashMap<MapData, FlowKey<Ip4>, Decap>,
    /// Who is behind parents of macvlan networks.
    pub macvlans: HashMap<MapData, StationKey, Station>,
    /// Whose addresses are asked for there.
    pub macvlan_addresses: HashMap<MapData, AddressKey, AddressOwner>,
    /// Where resolvers listen.
    pub resolvers: HashMap<MapData, u64, Ports>,
    /// What XDP depends on.
    pub xdp: Xdp,
}

impl Lab {
    /// Runs `body` with a laboratory, on a thread of its own that stays on one CPU in a namespace of its own.
    pub fn run(body: impl FnOnce(&mut Self) + Send) {
        Self::run_as(NetnsNumber::SERVED, body);
    }

    /// The same, with programs that take their namespace for the one of this number.
    pub fn run_as(netns: NetnsNumber, body: impl FnOnce(&mut Self) + Send) {
        if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
            return;
        }
        let ns = NetNs::new("packet").expect("a network namespace");
        interfaces::make(&ns);
        ns.run(|| {
            stay_on_one_cpu();
            let mut lab = Self::load(netns);
            body(&mut lab);
        })
        .expect("inside the namespace");
    }

    fn load(netns: NetnsNumber) -> Self {
        let object = object();
        assert!(!object.is_empty(), "netfast was built without its BPF programs");
        let mut loader = EbpfLoader::new();
        loader.override_global(NETNS_VARIABLE, &netns.0, true);
        loader.override_global(ADDRESS_VARIABLE, &0_u8, true);
        for name in [map::GENERATIONS, map::TRAFFIC, map::DEVICES] {
            loader.map_max_entries(name, DEVICE_SLOTS);
        }
        for name in [
            map::FLOWS4,
            map::UNREPLIED4,
            map::FLOWS6,
            map::UNREPLIED6,
            map::VIP_CONNECTIONS,
            map::VIP_WAITING,
            map::VIP_SYNS,
            map::ENCAP4,
            map::DECAP4,
        ] {
            loader.map_max_entries(name, TABLE);
        }
        let mut ebpf = loader.load(&object).expect("the object loads");
        for hook in Hook::ALL.into_iter().filter(|hook| hook.is_here()) {
            classifier(&mut ebpf, hook).load().expect("the program loads");
        }
        let indexes = Dev::ALL.map(|dev| (dev, if_nametoindex(dev.name()).expect("it was made")));
        Self {
            netns,
            six: false,
            indexes: indexes.into(),
            control: take(&mut ebpf, map::CONTROL),
            devices: take(&mut ebpf, map::DEVICES),
            generations: take(&mut ebpf, map::GENERATIONS),
            traffic: take(&mut ebpf, map::TRAFFIC),
            reasons: take(&mut ebpf, map::REASONS),
            flows: take(&mut ebpf, map::FLOWS4),
            unreplied: take(&mut ebpf, map::UNREPLIED4),
            tables6: [map::FLOWS6, map::UNREPLIED6].map(|name| take(&mut ebpf, name)),
            vetted6: take(&mut ebpf, map::VETTED6),
            candidates: take(&mut ebpf, map::CANDIDATES),
            seen: take(&mut ebpf, map::WARMUP),
            has_seen: false,
            ports: take(&mut ebpf, map::PORTS),
            has_ports: false,
            paces: take(&mut ebpf, map::PACES),
            vet: take(&mut ebpf, map::VET4),
            vetted: take(&mut ebpf, map::VETTED4),
            filter: take(&mut ebpf, map::FILTER),
            tally: take(&mut ebpf, map::TALLY),
            traced: take(&mut ebpf, map::TRACED),
            turns: take(&mut ebpf, map::CURSORS),
            vips: take(&mut ebpf, map::VIPS),
            vip_slots: take(&mut ebpf, map::VIP_SLOTS),
            vip_members: take(&mut ebpf, map::VIP_MEMBERS),
            vip_stats: take(&mut ebpf, map::VIP_STATS),
            vip_connections: [map::VIP_CONNECTIONS, map::VIP_WAITING].map(|name| take(&mut ebpf, name)),
            vip_verdicts: take(&mut ebpf, map::VIP_VERDICTS),
            tunnels: take(&mut ebpf, map::TUNNELS),
            encaps: take(&mut ebpf, map::ENCAP4),
            ends: take(&mut ebpf, map::ENDS),
            decaps: take(&mut ebpf, map::DECAP4),
            macvlans: take(&mut ebpf, map::MACVLANS),
            macvlan_addresses: take(&mut ebpf, map::MACVLAN_ADDRESSES),
            resolvers: take(&mut ebpf, map::RESOLVERS),
            xdp: Xdp::load(&mut ebpf),
            ebpf,
        }
    }

    /// The interface's number.
    pub fn ifindex(&self, dev: Dev) -> u32 {
        self.indexes[&dev]
    }

    /// Sets the daemon's switches.
    pub fn set_control(&mut self, control: Control) {
        if control.learn_after != 0 {
            self.has_seen = true;
        }
        self.control.set(0, control, 0).expect("control");
    }

    /// Changes the candidates of every CPU.
    pub fn edit_candidates(&mut self, edit: impl Fn(&mut Candidates)) {
        let mut values: Vec<_> = self.candidates.get(&0, 0).expect("a candidate").to_vec();
        for of_cpu in &mut *values {
            edit(&mut of_cpu.0);
        }
        let values = PerCpuValues::try_from(values).expect("one for each CPU");
        self.candidates.set(0, values, 0).expect("a candidate");
    }

    /// Traffic of every slot, summed over the CPUs.
    pub fn traffic_of_slots(&self) -> Vec<Traffic> {
        (0..DEVICE_SLOTS)
            .map(|slot| {
                let values = self.traffic.get(&slot, 0).expect("traffic");
                values.iter().fold(Traffic::default(), |sum, part| Traffic {
                    in_fast_packets: sum.in_fast_packets + part.in_fast_packets,
                    in_fast_bytes: sum.in_fast_bytes + part.in_fast_bytes,
                    in_slow_packets: sum.in_slow_packets + part.in_slow_packets,
                    in_slow_bytes: sum.in_slow_bytes + part.in_slow_bytes,
                    out_fast_packets: sum.out_fast_packets + part.out_fast_packets,
                    out_fast_bytes: sum.out_fast_bytes + part.out_fast_bytes,
                    in_spoofed_packets: sum.in_spoofed_packets + part.in_spoofed_packets,
                    in_malformed_packets: sum.in_malformed_packets + part.in_malformed_packets,
                })
            })
            .collect()
    }

    /// Counts of every reason, summed over the CPUs.
    pub fn counts(&self) -> Vec<Count> {
        (0..SLOTS)
            .map(|number| {
                let values = self.reasons.get(&number, 0).expect("a count");
                values.iter().fold(Count::default(), |sum, part| Count {
                    packets: sum.packets + part.packets,
                    bytes: sum.bytes + part.bytes,
                })
            })
            .collect()
    }

    /// Runs a packet through a program, again and again, each time as the last has left it; how long that took on average.
    pub fn repeat(&mut self, hook: Hook, context: Context, packet: &[u8], repeat: u32) -> Duration {
        let context_in = context.bytes();
        let result = classifier(&mut self.ebpf, hook).test_run(TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&context_in),
            repeat,
            ..TestRunOptions::default()
        });
        result.expect("the kernel runs it").duration
    }

    /// Runs a packet through a program.
    pub fn test_run(&mut self, hook: Hook, context: Context, packet: &[u8]) -> Outcome {
        if hook == Hook::UplinkXdp {
            return xdp::test_run(&mut self.ebpf, context, packet);
        }
        let mut out = vec![0; packet.len() + 256];
        let context_in = context.bytes();
        let mut context_out = [0; Context::BYTES];
        let result = classifier(&mut self.ebpf, hook)
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut out),
                ctx_in: Some(&context_in),
                ctx_out: Some(&mut context_out),
                ..TestRunOptions::default()
            })
            .expect("the kernel runs it");
        out.truncate(result.data_size_out as usize);
        let word = |place: usize| u32::from_ne_bytes(context_out[place..place + 4].try_into().expect("four bytes"));
        Outcome {
            verdict: result.return_value.cast_signed(),
            packet: out,
            mark: word(Context::MARK),
            priority: word(Context::PRIORITY),
        }
    }
}

/// The BPF object: netfast's own, or one that was broken on purpose (`cargo xtask mutate`).
pub fn object() -> Cow<'static, [u8]> {
    match env::var_os("NETFAST_BPF_OBJECT") {
        Some(path) => fs::read(&path).expect("the object that the environment names").into(),
        None => OBJECT.into(),
    }
}

/// The clock of the programs, in nanoseconds.
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    Duration::from(time).as_nanos().try_into().expect("five centuries")
}

fn classifier(ebpf: &mut Ebpf, hook: Hook) -> &mut SchedClassifier {
    let program = ebpf.program_mut(hook.program()).expect("it is in the object");
    program.try_into().expect("it is a classifier")
}

fn take<M>(ebpf: &mut Ebpf, name: &str) -> M
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).expect("it is in the object");
    M::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Empties a table.
pub fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>) {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>().expect("keys");
    for key in keys {
        map.remove(&key).expect("it is there");
    }
}

/// A candidate is per CPU: both halves of a row must run on the same one.
fn stay_on_one_cpu() {
    let mut set = CpuSet::new();
    let cpu = sched_getcpu().expect("a CPU");
    set.set(cpu).expect("a CPU");
    sched_setaffinity(Pid::from_raw(0), &set).expect("pinning a thread to a CPU");
}
