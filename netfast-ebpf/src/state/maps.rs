//! Every map, and nothing else. Sizes of the flow tables are set by the daemon at load.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
};
use netfast_common::{
    abi,
    alias::{self, Alias, AliasKey, MemberKey},
    control::Control,
    device::{Device, DeviceKey, Traffic},
    direct::{self, Pace, Port, PortKey},
    flow::{Flow, FlowKey},
    macvlan::{self, AddressKey, AddressOwner, Station, StationKey},
    net::{AnyIp, Ip4, Ip6},
    reason::{self, Count},
    resolver::{self, Ports},
    trace::{self, Filter, Tally},
    tunnel::{self, Decap, Encap, End, Tunnel},
    vet::Answer,
    vip::{self, Backend, BackendStats, Conn, ConnKey, Member, Service, SlotKey, Syn},
    xdp,
};

use super::{
    asked::{self, Asked},
    candidate::Candidates,
    dns::Scratch,
    lb::Work,
    six::Work6,
};
use crate::ctx::{
    Part,
    kernel::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf},
};

/// The daemon's switches. Mappable, so that a tracer can write its lease alone: with an update of the whole entry it
/// would undo what the daemon writes at the same moment.
#[map(name = "netfast_control")]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The interfaces that netfast is attached to.
#[map(name = "netfast_devices")]
pub static DEVICES: HashMap<DeviceKey, Device> = HashMap::with_max_entries(abi::MAX_DEVICES, 0);

/// Generation of each slot: a flow learned under another one is stale.
#[map(name = "netfast_gens")]
pub static GENERATIONS: Array<u32> = Array::with_max_entries(abi::MAX_DEVICES, 0);

/// Packets and bytes by slot.
#[map(name = "netfast_traffic")]
pub static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(abi::MAX_DEVICES, 0);

/// Packets and bytes by reason.
#[map(name = "netfast_reasons")]
pub static REASONS: PerCpuArray<Count> = PerCpuArray::with_max_entries(reason::SLOTS, 0);

/// IPv4 flows in use.
#[map(name = "netfast_flows4")]
pub static FLOWS4: LruHashMap<FlowKey<Ip4>, Flow<Ip4>> = LruHashMap::with_max_entries(abi::DEFAULT_FLOWS, 0);

/// IPv4 flows that wait for their reverse.
#[map(name = "netfast_unrepl4")]
pub static UNREPLIED4: LruHashMap<FlowKey<Ip4>, Flow<Ip4>> = LruHashMap::with_max_entries(abi::DEFAULT_UNREPLIED, 0);

/// IPv4 flows that wait to be vetted by the daemon.
#[map(name = "netfast_vet4")]
pub static VET4: RingBuf = RingBuf::with_byte_size(abi::VET_BYTES, 0);

/// What it found.
#[map(name = "netfast_vetted4")]
pub static VETTED4: LruHashMap<FlowKey<Ip4>, Answer> = LruHashMap::with_max_entries(abi::VETTED, 0);

/// IPv6 flows in use.
#[map(name = "netfast_flows6")]
pub static FLOWS6: LruHashMap<FlowKey<Ip6>, Flow<Ip6>> = LruHashMap::with_max_entries(abi::DEFAULT_FLOWS6, 0);

/// IPv6 flows that wait for their reverse.
#[map(name = "netfast_unrepl6")]
pub static UNREPLIED6: LruHashMap<FlowKey<Ip6>, Flow<Ip6>> = LruHashMap::with_max_entries(abi::DEFAULT_UNREPLIED6, 0);

/// IPv6 flows that wait to be vetted by the daemon.
#[map(name = "netfast_vet6")]
pub static VET6: RingBuf = RingBuf::with_byte_size(abi::VET_BYTES, 0);

/// What it found.
#[map(name = "netfast_vetted6")]
pub static VETTED6: LruHashMap<FlowKey<Ip6>, Answer> = LruHashMap::with_max_entries(abi::VETTED6, 0);

/// What each CPU works on for an IPv6 packet.
#[map(name = "netfast_work6")]
pub static WORK6: PerCpuArray<Work6> = PerCpuArray::with_max_entries(1, 0);

/// Part of a packet that each CPU sums up.
#[map(name = "netfast_summed")]
pub static SUMMED: PerCpuArray<Part> = PerCpuArray::with_max_entries(1, 0);

/// Packets of each flow that is not known yet, see the module `warmup`.
#[map(name = "netfast_warmup")]
pub static WARMUP: Array<u32> = Array::with_max_entries(abi::WARMUP, 0);

/// Ports between which packets are forwarded directly: two entries each. Few hosts have as many as there is room for.
#[map(name = "netfast_ports")]
pub static PORTS: HashMap<PortKey, Port> = HashMap::with_max_entries(2 * abi::MAX_DEVICES, BPF_F_NO_PREALLOC);

/// When they last did.
#[map(name = "netfast_paces")]
pub static PACES: Array<Pace> = Array::with_max_entries(direct::PAIRS, 0);

/// The VXLAN devices whose packets may get an outer header that is known.
#[map(name = "netfast_tunnels")]
pub static TUNNELS: HashMap<DeviceKey, Tunnel> = HashMap::with_max_entries(tunnel::TUNNELS, BPF_F_NO_PREALLOC);

/// Those headers.
#[map(name = "netfast_encap4")]
pub static ENCAP4: LruHashMap<FlowKey<Ip4>, Encap> = LruHashMap::with_max_entries(tunnel::ENCAPSULATED, 0);

/// The VXLAN devices that packets are for, by what these have when they come in.
#[map(name = "netfast_ends")]
pub static ENDS: HashMap<End, u32> = HashMap::with_max_entries(tunnel::TUNNELS, BPF_F_NO_PREALLOC);

/// Outer headers that may be taken off.
#[map(name = "netfast_decap4")]
pub static DECAP4: LruHashMap<FlowKey<Ip4>, Decap> = LruHashMap::with_max_entries(tunnel::ENCAPSULATED, 0);

/// The packets that each CPU let the kernel take them off from, by place.
#[map(name = "netfast_asked")]
pub static ASKED: PerCpuArray<Asked> = PerCpuArray::with_max_entries(asked::PLACES + 1, 0);

/// Room for the one that each CPU is learning: it would fill a third of the stack.
#[map(name = "netfast_encwork")]
pub static ENCAP_WORK: PerCpuArray<Encap> = PerCpuArray::with_max_entries(1, 0);

/// The same of one that may be taken off.
#[map(name = "netfast_decwork")]
pub static DECAP_WORK: PerCpuArray<Decap> = PerCpuArray::with_max_entries(1, 0);

/// The packets that each CPU let go the slow path last.
#[map(name = "netfast_cand")]
pub static CANDIDATES: PerCpuArray<Candidates> = PerCpuArray::with_max_entries(1, 0);

/// What a tracer wants to see.
#[map(name = "netfast_filter")]
pub static FILTER: Array<Filter> = Array::with_max_entries(1, 0);

/// What became of it.
#[map(name = "netfast_tally")]
pub static TALLY: PerCpuArray<Tally> = PerCpuArray::with_max_entries(1, 0);

/// Packets for a tracer.
#[map(name = "netfast_traced")]
pub static TRACED: RingBuf = RingBuf::with_byte_size(trace::RING_BYTES, 0);

/// Aliases by name and set of addresses. Few hosts have many, so places are not made beforehand.
#[map(name = "netfast_aliases")]
pub static ALIASES: HashMap<AliasKey, Alias> = HashMap::with_max_entries(alias::ENTRIES, BPF_F_NO_PREALLOC);

/// Whose turn it is, by alias. A map of its own, so that it goes on when members come and go.
#[map(name = "netfast_cursors")]
pub static CURSORS: HashMap<u64, u64> = HashMap::with_max_entries(alias::ENTRIES, BPF_F_NO_PREALLOC);

/// Answers that named a member first.
#[map(name = "netfast_firsts")]
pub static FIRST_NAMED: HashMap<MemberKey, u64> = HashMap::with_max_entries(alias::COUNTED, BPF_F_NO_PREALLOC);

/// The resolver's answers by what became of them.
#[map(name = "netfast_answers")]
pub static ANSWERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(alias::VERDICTS, 0);

/// The DNS message that each CPU is at.
#[map(name = "netfast_scratch")]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Services by virtual address.
#[map(name = "netfast_vips")]
pub static VIPS: HashMap<AnyIp, Service> = HashMap::with_max_entries(vip::SERVICES, BPF_F_NO_PREALLOC);

/// The members of each service in the order in which they are given.
#[map(name = "netfast_vipslot")]
pub static VIP_SLOTS: HashMap<SlotKey, Backend> = HashMap::with_max_entries(vip::SLOTS, BPF_F_NO_PREALLOC);

/// The members of each service, and whether they are well.
#[map(name = "netfast_vipmemb")]
pub static VIP_MEMBERS: HashMap<MemberKey, Member> = HashMap::with_max_entries(vip::MEMBERS, BPF_F_NO_PREALLOC);

/// What each of them was given.
#[map(name = "netfast_vipstat")]
pub static VIP_STATS: HashMap<MemberKey, BackendStats> = HashMap::with_max_entries(vip::MEMBERS, BPF_F_NO_PREALLOC);

/// Connections to virtual addresses that saw an answer.
#[map(name = "netfast_vipconn")]
pub static VIP_CONNECTIONS: LruHashMap<ConnKey, Conn> = LruHashMap::with_max_entries(vip::DEFAULT_CONNECTIONS, 0);

/// Those that did not, or are closed.
#[map(name = "netfast_vipwait")]
pub static VIP_WAITING: LruHashMap<ConnKey, Conn> = LruHashMap::with_max_entries(vip::DEFAULT_WAITING, 0);

/// The SYNs that opened them.
#[map(name = "netfast_vipsyn")]
pub static VIP_SYNS: LruHashMap<ConnKey, Syn> = LruHashMap::with_max_entries(vip::DEFAULT_WAITING, 0);

/// Packets to and from virtual addresses by what became of them.
#[map(name = "netfast_vipdone")]
pub static VIP_VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(vip::VERDICTS, 0);

/// What each CPU works on there.
#[map(name = "netfast_vipwork")]
pub static VIP_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Who is behind the parents of macvlan networks.
#[map(name = "netfast_mvmacs")]
pub static MACVLANS: HashMap<StationKey, Station> = HashMap::with_max_entries(macvlan::STATIONS, BPF_F_NO_PREALLOC);

/// Whose addresses ARP and neighbour discovery ask for there.
#[map(name = "netfast_mvaddrs")]
pub static MACVLAN_ADDRESSES: HashMap<AddressKey, AddressOwner> =
    HashMap::with_max_entries(macvlan::ADDRESSES, BPF_F_NO_PREALLOC);

/// The host-side veths whose other ends take frames, by their index.
#[map(name = "netfast_xdpends")]
pub static XDP_ENDS: DevMapHash = DevMapHash::with_max_entries(abi::MAX_DEVICES, 0);

/// What the ends may have changed in, and what of that the daemon has looked at.
#[map(name = "netfast_xdpseen")]
pub static XDP_STATE: Array<u64> = Array::with_max_entries(xdp::STATES, 0);

/// Packets that were sent to them.
#[map(name = "netfast_xdpdone")]
pub static XDP_DONE: PerCpuArray<Count> = PerCpuArray::with_max_entries(1, 0);

/// Where the resolvers of containers' network namespaces listen, by the namespaces' cookies.
#[map(name = "netfast_resolvr")]
pub static RESOLVERS: HashMap<u64, Ports> = HashMap::with_max_entries(resolver::NAMESPACES, BPF_F_NO_PREALLOC);
