//! The contract between one build of the daemon and the BPF objects that it finds pinned.
//!
//! The number is part of the pin path, so a new ABI never reads an old pin.

/// Raised with every change of a map's key, value, meaning or type, or of a program's name.
/// `cargo xtask lint` compares the shared files with the hash recorded for this number.
pub const ABI_VERSION: u32 = 2;

/// Names of the maps, at most 15 bytes, which is where the kernel cuts them (`BPF_OBJ_NAME_LEN`).
/// The prefix is how netfast knows its own.
pub mod map {
    /// [`Control`](crate::control::Control), one entry.
    pub const CONTROL: &str = "netfast_control";
    /// ifindex to [`Device`](crate::device::Device).
    pub const DEVICES: &str = "netfast_devices";
    /// Slot of a device to its generation, `u32`.
    pub const GENERATIONS: &str = "netfast_gens";
    /// Slot of a device to [`Traffic`](crate::device::Traffic), per CPU.
    pub const TRAFFIC: &str = "netfast_traffic";
    /// Reason number to [`Count`](crate::reason::Count), per CPU.
    pub const REASONS: &str = "netfast_reasons";
    /// IPv4 flows in use: [`FlowKey`](crate::flow::FlowKey) to [`Flow`](crate::flow::Flow).
    pub const FLOWS4: &str = "netfast_flows4";
    /// IPv4 flows whose reverse has not been learned yet.
    pub const FRESH4: &str = "netfast_fresh4";
    /// Ring buffer of [`vet::Request`](crate::vet::Request): IPv4 flows that wait to be vetted.
    pub const VET4: &str = "netfast_vet4";
    /// [`FlowKey`](crate::flow::FlowKey) to [`vet::Answer`](crate::vet::Answer).
    pub const VETTED4: &str = "netfast_vetted4";
    /// Bytes of a packet that each CPU sums up.
    pub const SUMMED: &str = "netfast_summed";
    /// Packets of flows that are not known yet, `u32`.
    pub const SEEN: &str = "netfast_seen";
    /// The IPv4 candidate of each CPU.
    pub const CANDIDATE4: &str = "netfast_cand4";
    /// [`Filter`](crate::trace::Filter), one entry: what `netfast trace` wants to see.
    pub const FILTER: &str = "netfast_filter";
    /// [`Tally`](crate::trace::Tally), one entry, per CPU.
    pub const TALLY: &str = "netfast_tally";
    /// Ring buffer of [`Traced`](crate::trace::Traced).
    pub const TRACED: &str = "netfast_traced";
    /// [`AliasKey`](crate::alias::AliasKey) to [`Alias`](crate::alias::Alias).
    pub const ALIASES: &str = "netfast_aliases";
    /// [`Alias::id`](crate::alias::Alias::id) to the number of answers so far, `u64`: whose turn it is.
    pub const TURNS: &str = "netfast_turns";
    /// [`MemberKey`](crate::alias::MemberKey) to the number of answers that named it first, `u64`.
    pub const GIVEN: &str = "netfast_given";
    /// [`Verdict`](crate::alias::Verdict)'s number to the number of answers, `u64`, per CPU.
    pub const ANSWERS: &str = "netfast_answers";
    /// The DNS message that each CPU is at.
    pub const SCRATCH: &str = "netfast_scratch";
    /// Virtual address, [`Ip4`](crate::net::Ip4), to [`Service`](crate::vip::Service).
    pub const VIPS: &str = "netfast_vips";
    /// [`SlotKey`](crate::vip::SlotKey) to [`Backend`](crate::vip::Backend).
    pub const VIP_SLOTS: &str = "netfast_vipslot";
    /// [`MemberKey`](crate::alias::MemberKey) to [`Member`](crate::vip::Member).
    pub const VIP_MEMBERS: &str = "netfast_vipmemb";
    /// [`MemberKey`](crate::alias::MemberKey) to [`Given`](crate::vip::Given).
    pub const VIP_GIVEN: &str = "netfast_vipgave";
    /// Connections that saw an answer: [`ConnKey`](crate::vip::ConnKey) to [`Conn`](crate::vip::Conn).
    pub const VIP_CONNECTIONS: &str = "netfast_vipconn";
    /// Connections that did not, or are closed: the same.
    pub const VIP_WAITING: &str = "netfast_vipwait";
    /// SYNs of such connections: [`ConnKey`](crate::vip::ConnKey) to [`Syn`](crate::vip::Syn).
    pub const VIP_SYNS: &str = "netfast_vipsyn";
    /// [`vip::Verdict`](crate::vip::Verdict)'s number to the number of packets, `u64`, per CPU.
    pub const VIP_VERDICTS: &str = "netfast_vipdone";
    /// What each CPU works on there.
    pub const VIP_WORK: &str = "netfast_vipwork";
}

/// Names of the programs, at most 15 bytes.
pub mod program {
    /// tcx ingress of an endpoint's host-side veth.
    pub const ENDPOINT_INGRESS: &str = "netfast_ep_in";
    /// tcx egress of an endpoint's host-side veth.
    pub const ENDPOINT_EGRESS: &str = "netfast_ep_out";
    /// tcx ingress of a bridge device that has endpoints.
    pub const BRIDGE_INGRESS: &str = "netfast_br_in";
    /// tcx egress of a bridge device that has endpoints.
    pub const BRIDGE_EGRESS: &str = "netfast_br_out";
    /// tcx ingress of an uplink.
    pub const UPLINK_INGRESS: &str = "netfast_up_in";
    /// tcx egress of an uplink.
    pub const UPLINK_EGRESS: &str = "netfast_up_out";
    /// fentry of the kernel's `nf_queue`: a packet handed to user space is nobody's candidate any more.
    pub const QUEUED: &str = "netfast_queued";
    /// tcx egress of the loopback interface in a container's network namespace: answers of Docker's resolver.
    pub const ANSWER: &str = "netfast_answer";
    /// tcx ingress of an endpoint's host-side veth, behind [`ENDPOINT_INGRESS`]: packets to virtual addresses.
    pub const VIP_INGRESS: &str = "netfast_vip_in";
    /// tcx egress of an endpoint's host-side veth, before [`ENDPOINT_EGRESS`]: packets from their members.
    pub const VIP_EGRESS: &str = "netfast_vip_out";
}

/// Flows in use at once, by default. A flow is one direction of a conversation.
pub const DEFAULT_FLOWS: u32 = 256 * 1024;
/// Flows that wait for their reverse, by default. Small on purpose: what floods here evicts only its like.
pub const DEFAULT_FRESH: u32 = 16 * 1024;
/// Bytes of the ring buffer of flows that wait to be vetted; a power of two. What does not fit is asked again.
pub const VET_BYTES: u32 = 256 * 1024;
/// Answers to them that were not looked at yet.
pub const VETTED: u32 = 16 * 1024;
/// Counters of packets of flows that are not known yet; a power of two.
pub const SEEN: u32 = 64 * 1024;
/// Packets of each direction that the kernel carries before netfast learns a TCP connection, by default: an HTTP request
/// on a connection of its own has no more.
pub const DEFAULT_LEARN_AFTER: u8 = 3;
/// Endpoints, bridge devices and uplinks together. A Linux bridge has at most 1023 ports (`BR_MAX_PORTS`).
pub const MAX_DEVICES: u32 = 16 * 1024;
/// Time a flow may be used before one packet must ask the kernel again, in nanoseconds.
pub const DEFAULT_REVALIDATE_NS: u64 = 1_000_000_000;
