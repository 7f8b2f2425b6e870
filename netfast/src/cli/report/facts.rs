//! Facts about kernel and machine, each read by itself; one that is not there is said to be so.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read as _},
    path::Path,
};

use flate2::read::GzDecoder;
use nix::sys::utsname::uname;

use super::Names;
use crate::report::redact::Kind;

/// Options of the kernel's configuration that netfast, or what it works beside, depends on.
const OPTIONS: [&str; 24] = [
    "CONFIG_BPF_JIT_ALWAYS_ON",
    "CONFIG_BPF_SYSCALL",
    "CONFIG_BPF_UNPRIV_DEFAULT_OFF",
    "CONFIG_BRIDGE",
    "CONFIG_BRIDGE_NETFILTER",
    "CONFIG_BRIDGE_VLAN_FILTERING",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_DEBUG_INFO_BTF_MODULES",
    "CONFIG_FUNCTION_TRACER",
    "CONFIG_IP_NF_IPTABLES_LEGACY",
    "CONFIG_MACVLAN",
    "CONFIG_NETFILTER_BPF_LINK",
    "CONFIG_NETFILTER_XTABLES_LEGACY",
    "CONFIG_NET_CLS_ACT",
    "CONFIG_NET_CLS_BPF",
    "CONFIG_NET_SCH_INGRESS",
    "CONFIG_NET_XGRESS",
    "CONFIG_NF_CONNTRACK",
    "CONFIG_NF_FLOW_TABLE",
    "CONFIG_NF_TABLES",
    "CONFIG_PREEMPT_RT",
    "CONFIG_SECURITY_LOCKDOWN_LSM",
    "CONFIG_VETH",
    "CONFIG_VXLAN",
];

/// Switches of the kernel that matter, with dots.
const SYSCTLS: [&str; 18] = [
    "kernel.unprivileged_bpf_disabled",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-filter-vlan-tagged",
    "net.core.bpf_jit_enable",
    "net.core.bpf_jit_harden",
    "net.core.netdev_max_backlog",
    "net.core.rps_default_mask",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.netfilter.nf_conntrack_acct",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
];

/// Names that the host itself has.
pub(super) fn host_names() -> Names {
    let mut names = Names::new();
    let here = uname()
        .ok()
        .and_then(|name| name.nodename().to_str().map(str::to_owned));
    let written = fs::read_to_string("/etc/hostname").ok();
    for name in here.into_iter().chain(written) {
        let name = name.trim().to_owned();
        if let Some((first, _)) = name.split_once('.') {
            names.push((Kind::Host, first.to_owned()));
        }
        names.push((Kind::Host, name));
    }
    names
}

/// The text.
pub(super) fn kernel() -> String {
    let mut text = String::new();
    let mut say = |what: &str, found: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{what:48} {}", found.trim());
    };
    let release = uname().ok().and_then(|name| name.release().to_str().map(str::to_owned));
    match &release {
        Some(release) => {
            // Its number is a fact, what follows may name its maker.
            let end = release
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(release.len());
            say("release", &release[..end]);
            say("rest of the release", &release[end..]);
        }
        None => say("release", "unknown"),
    }
    say("processor", std::env::consts::ARCH);
    let count = std::thread::available_parallelism().map_or_else(|error| error.to_string(), |count| count.to_string());
    say("processors in use", &count);
    let memory = line_of("/proc/meminfo", "MemTotal:").unwrap_or_else(|why| why);
    say("memory", &memory);
    for key in ["ID=", "VERSION_ID="] {
        let found = line_of("/etc/os-release", key).unwrap_or_else(|why| why);
        say(
            &format!("system {}", key.trim_end_matches('=').to_lowercase()),
            found.trim_matches('"'),
        );
    }
    for (what, path) in [
        ("lockdown", "/sys/kernel/security/lockdown"),
        ("security modules", "/sys/kernel/security/lsm"),
        (
            "RPS of the first queue of eth0",
            "/sys/class/net/eth0/queues/rx-0/rps_cpus",
        ),
    ] {
        say(what, &read(path));
    }
    let btf = fs::metadata("/sys/kernel/btf/vmlinux")
        .map_or_else(|error| error.to_string(), |file| format!("{} bytes", file.len()));
    say("BTF", &btf);
    for name in SYSCTLS {
        say(name, &read(&format!("/proc/sys/{}", name.replace('.', "/"))));
    }
    match configuration(release.as_deref().unwrap_or_default()) {
        Ok(config) => {
            for option in OPTIONS {
                say(option, setting(&config, option));
            }
        }
        Err(why) => say("configuration of the kernel", &why),
    }
    text
}

fn read(path: &str) -> String {
    match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "not there".into(),
        Err(error) => error.to_string(),
    }
}

/// What stands behind a key at the beginning of a line.
fn line_of(path: &str, key: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let found = text.lines().find_map(|line| line.strip_prefix(key));
    found
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| "not there".into())
}

/// The kernel's configuration: its own, or that of the distribution.
fn configuration(release: &str) -> Result<String, String> {
    let mut text = String::new();
    let own = fs::File::open("/proc/config.gz").and_then(|file| GzDecoder::new(file).read_to_string(&mut text));
    if own.is_ok() {
        return Ok(text);
    }
    let places = [
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
    ];
    let found = places
        .iter()
        .find_map(|place| fs::read_to_string(Path::new(place)).ok());
    found.ok_or_else(|| "neither /proc/config.gz nor a file in /boot or /lib/modules".into())
}

/// An option's value.
fn setting<'a>(config: &'a str, option: &str) -> &'a str {
    let set = |line: &'a str| line.strip_prefix(option)?.strip_prefix('=');
    config.lines().find_map(set).unwrap_or("not set")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::redact::Redactor;

    #[test]
    fn options_are_found_whole() {
        let config = "CONFIG_BRIDGE_NETFILTER=m\nCONFIG_BRIDGE=y\n# CONFIG_VXLAN is not set\n";
        assert_eq!(setting(config, "CONFIG_BRIDGE"), "y");
        assert_eq!(setting(config, "CONFIG_BRIDGE_NETFILTER"), "m");
        assert_eq!(setting(config, "CONFIG_VXLAN"), "not set");
    }

    /// What is asked for is readable in what is handed on.
    #[test]
    fn facts_survive_redaction() {
        let redacted = Redactor::default().redact(&kernel());
        for name in SYSCTLS {
            assert!(redacted.contains(name), "{name} is not in:\n{redacted}");
        }
        assert!(
            redacted
                .lines()
                .any(|line| line.starts_with("release ") && line.ends_with(|c: char| c.is_ascii_digit()))
        );
    }
}
