//! Kernel switches. /proc/sys/net shows the namespace of the thread that reads it.

use std::fs;
use std::path::Path;

use crate::host::Sysctls;

/// Reads the switches of the calling thread's namespace. One that does not exist, as when its module is not loaded,
/// or that cannot be read is `None`.
pub fn read() -> Sysctls {
    Sysctls {
        ip_forward: flag("ipv4/ip_forward"),
        ipv6_forwarding: flag("ipv6/conf/all/forwarding"),
        bridge_nf_call_iptables: flag("bridge/bridge-nf-call-iptables"),
        bridge_nf_call_ip6tables: flag("bridge/bridge-nf-call-ip6tables"),
        conntrack_tcp_be_liberal: flag("netfilter/nf_conntrack_tcp_be_liberal"),
        conntrack_tcp_ignore_invalid_rst: flag("netfilter/nf_conntrack_tcp_ignore_invalid_rst"),
        conntrack_acct: flag("netfilter/nf_conntrack_acct"),
        conntrack_udp_timeout: number("netfilter/nf_conntrack_udp_timeout"),
        conntrack_udp_timeout_stream: number("netfilter/nf_conntrack_udp_timeout_stream"),
        conntrack_icmp_timeout: number("netfilter/nf_conntrack_icmp_timeout"),
        conntrack_icmpv6_timeout: number("netfilter/nf_conntrack_icmpv6_timeout"),
        rp_filter_all: number("ipv4/conf/all/rp_filter"),
        route_localnet_all: flag("ipv4/conf/all/route_localnet"),
        netdev_max_backlog: number("core/netdev_max_backlog"),
    }
}

fn flag(name: &str) -> Option<bool> {
    number(name).map(|value| value != 0)
}

fn number(name: &str) -> Option<u32> {
    fs::read_to_string(Path::new("/proc/sys/net").join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}
