//! The table of maps: their names, and which of them are pinned.

/// A map of the BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its name.
    pub name: &'static str,
    /// What is in it: the documentation of its constant.
    pub what: &'static str,
    /// Whether it is kept when the daemon ends.
    pub keeping: Keeping,
}

/// What becomes of a map when the daemon that made it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It is pinned: the next daemon takes it over, and reports read it.
    Pinned,
    /// Each load of the object gets a new one: what is in it is worth nothing to the next daemon, and nobody else reads
    /// it.
    Unpinned,
}

/// Makes a constant of each name, and the list of all of them.
macro_rules! maps {
    ($($(#[doc = $what:literal])+ $constant:ident = $name:literal, $keeping:ident;)+) => {
        $(
            $(#[doc = $what])+
            pub const $constant: &str = $name;
        )+

        /// Every map.
        pub const ALL: &[Map] = &[$(Map {
            name: $constant,
            what: concat!($($what),+),
            keeping: Keeping::$keeping,
        }),+];
    };
}

maps! {
    /// [`Control`](crate::control::Control), one entry.
    CONTROL = "netfast_control", Pinned;
    /// [`DeviceKey`](crate::device::DeviceKey) to [`Device`](crate::device::Device).
    DEVICES = "netfast_devices", Pinned;
    /// Slot of a device to its generation, `u32`.
    GENERATIONS = "netfast_gens", Pinned;
    /// Slot of a device to [`Traffic`](crate::device::Traffic), per CPU.
    TRAFFIC = "netfast_traffic", Pinned;
    /// Reason number to [`Count`](crate::reason::Count), per CPU.
    REASONS = "netfast_reasons", Pinned;
    /// IPv4 flows in use: [`FlowKey`](crate::flow::FlowKey) to [`Flow`](crate::flow::Flow).
    FLOWS4 = "netfast_flows4", Pinned;
    /// IPv4 flows whose reverse has not been learned yet: the same.
    UNREPLIED4 = "netfast_unrepl4", Pinned;
    /// Ring buffer of [`vet::Request`](crate::vet::Request): IPv4 flows that wait to be vetted.
    VET4 = "netfast_vet4", Pinned;
    /// [`FlowKey`](crate::flow::FlowKey) to [`vet::Answer`](crate::vet::Answer).
    VETTED4 = "netfast_vetted4", Pinned;
    /// IPv6 flows in use, as of IPv4.
    FLOWS6 = "netfast_flows6", Pinned;
    /// IPv6 flows whose reverse has not been learned yet.
    UNREPLIED6 = "netfast_unrepl6", Pinned;
    /// Ring buffer of IPv6 flows that wait to be vetted.
    VET6 = "netfast_vet6", Pinned;
    /// Answers about them.
    VETTED6 = "netfast_vetted6", Pinned;
    /// Scratch space of each CPU for an IPv6 packet: keys and headers are too long for the stack.
    WORK6 = "netfast_work6", Unpinned;
    /// Buffer of each CPU for computing a packet's checksum.
    SUMMED = "netfast_summed", Pinned;
    /// Packets of flows that are not known yet, `u32`. A lost count is a few more packets that the kernel carries.
    WARMUP = "netfast_warmup", Unpinned;
    /// [`PortKey`](crate::direct::PortKey) to [`Port`](crate::direct::Port): those between which packets are forwarded directly.
    PORTS = "netfast_ports", Unpinned;
    /// [`Pace`](crate::direct::Pace) of each pair of them.
    PACES = "netfast_paces", Unpinned;
    /// [`DeviceKey`](crate::device::DeviceKey) of a VXLAN device to [`Tunnel`](crate::tunnel::Tunnel).
    TUNNELS = "netfast_tunnels", Pinned;
    /// Outer headers of IPv4 packets that leave through tunnels: [`FlowKey`](crate::flow::FlowKey) to
    /// [`Encap`](crate::tunnel::Encap).
    ENCAP4 = "netfast_encap4", Pinned;
    /// [`End`](crate::tunnel::End) to the index of the VXLAN device that packets with it are for, `u32`.
    ENDS = "netfast_ends", Pinned;
    /// Outer headers of IPv4 packets that come in through tunnels: [`FlowKey`](crate::flow::FlowKey) to
    /// [`Decap`](crate::tunnel::Decap).
    DECAP4 = "netfast_decap4", Pinned;
    /// The packets that each CPU let the kernel take outer headers off last, by their conversations.
    ASKED = "netfast_asked", Unpinned;
    /// The outer header that each CPU is learning.
    ENCAP_WORK = "netfast_encwork", Unpinned;
    /// The same of one that is taken off.
    DECAP_WORK = "netfast_decwork", Unpinned;
    /// The candidates of each CPU, of either family.
    CANDIDATES = "netfast_cand", Pinned;
    /// [`Filter`](crate::trace::Filter), one entry: what `netfast trace` wants to see.
    FILTER = "netfast_filter", Pinned;
    /// [`Tally`](crate::trace::Tally), one entry, per CPU.
    TALLY = "netfast_tally", Pinned;
    /// Ring buffer of [`Traced`](crate::trace::Traced).
    TRACED = "netfast_traced", Pinned;
    /// [`AliasKey`](crate::alias::AliasKey) to [`Alias`](crate::alias::Alias).
    ALIASES = "netfast_aliases", Pinned;
    /// [`Alias::id`](crate::alias::Alias::id) to the number of answers so far, `u64`: whose turn it is.
    CURSORS = "netfast_cursors", Pinned;
    /// [`MemberKey`](crate::alias::MemberKey) to the number of answers that named it first, `u64`.
    FIRST_NAMED = "netfast_firsts", Pinned;
    /// [`Verdict`](crate::alias::Verdict)'s number to the number of answers, `u64`, per CPU.
    ANSWERS = "netfast_answers", Pinned;
    /// The DNS message that each CPU is processing.
    SCRATCH = "netfast_scratch", Pinned;
    /// Virtual address, [`AnyIp`](crate::net::AnyIp), to [`Service`](crate::vip::Service).
    VIPS = "netfast_vips", Pinned;
    /// [`SlotKey`](crate::vip::SlotKey) to [`Backend`](crate::vip::Backend).
    VIP_SLOTS = "netfast_vipslot", Pinned;
    /// [`MemberKey`](crate::alias::MemberKey) to [`Member`](crate::vip::Member).
    VIP_MEMBERS = "netfast_vipmemb", Pinned;
    /// [`MemberKey`](crate::alias::MemberKey) to [`BackendStats`](crate::vip::BackendStats).
    VIP_STATS = "netfast_vipstat", Pinned;
    /// Connections to virtual addresses that saw an answer: [`ConnKey`](crate::vip::ConnKey) to
    /// [`Conn`](crate::vip::Conn).
    VIP_CONNECTIONS = "netfast_vipconn", Pinned;
    /// Connections to virtual addresses that did not, or are closed: the same.
    VIP_WAITING = "netfast_vipwait", Pinned;
    /// SYNs of such connections: [`ConnKey`](crate::vip::ConnKey) to [`Syn`](crate::vip::Syn).
    VIP_SYNS = "netfast_vipsyn", Pinned;
    /// [`vip::Verdict`](crate::vip::Verdict)'s number to the number of packets, `u64`, per CPU.
    VIP_VERDICTS = "netfast_vipdone", Pinned;
    /// Scratch space of each CPU for virtual addresses.
    VIP_WORK = "netfast_vipwork", Pinned;
    /// [`StationKey`](crate::macvlan::StationKey) to [`Station`](crate::macvlan::Station): who is behind a parent of macvlan networks.
    MACVLANS = "netfast_mvmacs", Pinned;
    /// [`AddressKey`](crate::macvlan::AddressKey) to [`AddressOwner`](crate::macvlan::AddressOwner).
    MACVLAN_ADDRESSES = "netfast_mvaddrs", Pinned;
    /// Index of a host-side veth whose other end takes frames from XDP, to the same.
    XDP_ENDS = "netfast_xdpends", Unpinned;
    /// The numbers of [`xdp`](crate::xdp), `u64`.
    XDP_STATE = "netfast_xdpseen", Unpinned;
    /// [`Count`](crate::reason::Count), one entry, per CPU: packets that went by XDP; the fast path's count has them, too.
    XDP_DONE = "netfast_xdpdone", Pinned;
    /// Cookie of a container's network namespace, `u64`, to [`Ports`](crate::resolver::Ports): where its resolver listens.
    RESOLVERS = "netfast_resolvr", Pinned;
    /// [`Switch`](crate::localhost::Switch), one entry: whether anybody is led past docker-proxy.
    LOCALHOST = "netfast_local", Pinned;
    /// [`Published`](crate::localhost::Published) of each socket that docker-proxy listens on.
    PUBLISHED = "netfast_locpub", Pinned;
    /// [`Asked`](crate::localhost::Asked) of each socket that was led past docker-proxy.
    LED_SOCKETS = "netfast_locsock", Pinned;
    /// Number of a cgroup, `u64`, to 1, `u64`: no programs of others judge what its sockets send and get.
    CGROUPS = "netfast_loccgrp", Pinned;
    /// [`localhost::Outcome`](crate::localhost::Outcome)'s number to how often it was so, `u64`, per CPU.
    OUTCOMES = "netfast_locdone", Pinned;
}

/// The maps that are pinned.
pub fn pinned() -> impl Iterator<Item = &'static str> {
    let is_pinned = |map: &&Map| map.keeping == Keeping::Pinned;
    ALL.iter().filter(is_pinned).map(|map| map.name)
}
