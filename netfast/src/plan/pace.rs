//! When flows ask the kernel, and whether any may be learned.

use crate::{config::Config, host::Namespace, plan::Facts};

/// How long a flow may be used before the kernel is asked: what was configured, but often enough that conntrack does not
/// forget the conversation between two questions. It counts in seconds (`proc_dointvec_jiffies`), and one of 1 s is over within
/// a question that came late.
pub(super) fn revalidate_ns(netns: &Namespace, config: &Config) -> u64 {
    let sysctls = &netns.sysctls;
    let timeouts = [
        sysctls.conntrack_udp_timeout,
        sysctls.conntrack_udp_timeout_stream,
        sysctls.conntrack_icmp_timeout,
        sysctls.conntrack_icmpv6_timeout,
    ];
    let shortest = timeouts.into_iter().flatten().filter(|seconds| *seconds > 0).min();
    let often = shortest.map_or(u64::MAX, |seconds| u64::from(seconds) * 1_000_000_000 / 3);
    (config.revalidate_ms * 1_000_000).min(often)
}

/// A packet that waits in a queue comes out on any CPU at any time, so its candidate could be taken for another
/// packet's, unless the queueing itself is seen.
pub(super) fn learning_off(netns: &Namespace, facts: &Facts) -> Option<String> {
    let queues = &netns.ruleset.nfqueue_bound;
    if facts.queue_watch || queues.is_empty() {
        return None;
    }
    let queues: Vec<String> = queues.iter().map(ToString::to_string).collect();
    Some(format!(
        "a program listens on NFQUEUE {}, and this kernel does not let netfast see which packets it gets",
        queues.join(", ")
    ))
}
