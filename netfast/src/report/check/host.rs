//! The host's switches and the container runtime.

use super::{Area, Level, Line};
use crate::host::{RuntimeState, Sysctls};

/// Seconds. A flow asks the kernel once a second; an entry that lives hardly longer might be gone by then.
const SHORTEST: u32 = 5;

/// Judges the kernel's switches, and says what would be counted where.
pub fn host(sysctls: &Sysctls, allow_accounting: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |level, subject: &str, detail: &str| lines.push(Line::new(Area::Host, level, subject, detail));
    match sysctls.ip_forward {
        Some(true) => line(Level::Ok, "ip_forward", "on: the host routes for containers"),
        _ => line(
            Level::Note,
            "ip_forward",
            "off: containers reach nothing but their own network, with or without netfast",
        ),
    }
    match sysctls.bridge_nf_call_iptables {
        Some(true) => line(
            Level::Ok,
            "bridge-nf-call-iptables",
            "on: iptables judges packets within a bridge, too",
        ),
        Some(false) => line(
            Level::Ok,
            "bridge-nf-call-iptables",
            "off: iptables judges routed packets only",
        ),
        None => line(
            Level::Ok,
            "bridge-nf-call-iptables",
            "br_netfilter is not loaded: iptables judges routed packets only",
        ),
    }
    match sysctls.conntrack_tcp_be_liberal {
        Some(true) => line(
            Level::Note,
            "nf_conntrack_tcp_be_liberal",
            "on: conntrack calls no segment outside of a connection's window INVALID; netfast needs it no longer",
        ),
        Some(false) => line(
            Level::Ok,
            "nf_conntrack_tcp_be_liberal",
            "off: netfast tells conntrack of each connection that it carries, and of no other",
        ),
        None => line(Level::Ok, "nf_conntrack", "not loaded: nothing tracks connections yet"),
    }
    if sysctls.conntrack_acct == Some(true) {
        line(
            Level::Note,
            "nf_conntrack_acct",
            if allow_accounting {
                "on: conntrack counts about one packet per second of a flow on the fast path (allow_accounting)"
            } else {
                "on: all networks stay on the slow path, so that conntrack counts every packet"
            },
        );
    }
    line(
        Level::Note,
        "counters",
        "those of bridges, of the host's side of veths (to the container) and of packet-filter rules count about one \
         packet per second of a flow on the fast path; those inside containers (docker stats) and netfast's metrics \
         count all",
    );
    for (name, seconds, what) in [
        (
            "nf_conntrack_udp_timeout",
            sysctls.conntrack_udp_timeout,
            "UDP conversations",
        ),
        (
            "nf_conntrack_udp_timeout_stream",
            sysctls.conntrack_udp_timeout_stream,
            "UDP conversations",
        ),
        ("nf_conntrack_icmp_timeout", sysctls.conntrack_icmp_timeout, "pings"),
        (
            "nf_conntrack_icmpv6_timeout",
            sysctls.conntrack_icmpv6_timeout,
            "pings of IPv6",
        ),
    ] {
        if let Some(seconds @ 0..SHORTEST) = seconds {
            lines.push(
                Line::new(
                    Area::Host,
                    Level::Note,
                    name,
                    format!(
                        "{seconds} s: {what} are soon forgotten, and flows on the fast path ask the kernel every \
                         third of that"
                    ),
                )
                .remedy(format!("sysctl -w net.netfilter.{name}=30")),
            );
        }
    }
    lines
}

/// Says whether the runtime answers.
pub fn runtime(state: &RuntimeState) -> Line {
    match state {
        RuntimeState::None => Line::new(
            Area::Runtime,
            Level::Ok,
            "none",
            "every bridge port with a veth is taken for a container",
        ),
        RuntimeState::Connected { engine, version, api } => Line::new(
            Area::Runtime,
            Level::Ok,
            engine.clone(),
            format!("version {version}, API {api}"),
        ),
        RuntimeState::Disconnected { error, .. } => no_runtime(error),
    }
}

/// The runtime that is to be followed does not answer.
pub fn no_runtime(error: &str) -> Line {
    Line::new(Area::Runtime, Level::Fail, "Docker", error)
        .remedy("Start Docker, name its API with --docker-host, or do without: --runtime none.")
}
