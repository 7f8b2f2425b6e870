//! What software may leave on a host, line by line: taken before and after, it must be the same.

use std::process::Command;

use anyhow::Result;

use crate::{cmd, leftovers, netns::NetNs};

/// Sysctls that count or are drawn by chance.
const VOLATILE: [&str; 2] = ["nf_conntrack_count", "tcp_fastopen_key"];

/// Links with all their attributes (sizes of segments among them), queueing disciplines, filters, programs on hooks and
/// sysctls of the host's namespace; this process's pins; and of the whole machine all BPF programs, links and maps with
/// netfast's names.
pub fn listing(host: &NetNs) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut add = |subject: &str, text: &str| {
        let new = text.lines().filter(|line| !line.trim().is_empty());
        lines.extend(new.map(|line| format!("{subject}: {}", line.trim())));
    };
    for line in host.ip("-d -o link show")?.lines() {
        add("link", &without_timers(line));
    }
    add("qdisc", &host.sh("tc qdisc show")?);
    add("hook", &host.sh("bpftool net show")?);
    let sysctls = host.sh(
        "grep -rs . /proc/sys/net/netfilter /proc/sys/net/bridge /proc/sys/net/ipv4 /proc/sys/net/ipv6 /proc/sys/net/core \
         || true",
    )?;
    for line in sysctls.lines() {
        if !VOLATILE.iter().any(|name| line.contains(name)) {
            add("sysctl", line);
        }
    }
    let tag = leftovers::tag();
    add(
        "pin",
        &cmd::sh(&format!(
            "find {} /tmp/{tag} -path '*{tag}*' -fstype bpf",
            leftovers::BPFFS
        ))?,
    );
    for kind in ["prog", "link", "map"] {
        let shown = cmd::run(Command::new("bpftool").args([kind, "show"]))?;
        let ours = shown.lines().filter(|line| line.contains("netfast_"));
        for line in ours {
            add(kind, line);
        }
    }
    Ok(lines)
}

/// A bridge's running timers are of no interest: `gc_timer 12.34`.
fn without_timers(line: &str) -> String {
    let mut is_time = false;
    let words = line.split_whitespace().filter(|word| {
        let skip = is_time;
        is_time = word.ends_with("_timer");
        !skip
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_left_out_and_nothing_else() {
        assert_eq!(
            without_timers("3: br: mtu 1500 gc_timer 12.34 vlan 0 hello_timer 0.00 gso_max_size 65536"),
            "3: br: mtu 1500 gc_timer vlan 0 hello_timer gso_max_size 65536"
        );
    }
}
