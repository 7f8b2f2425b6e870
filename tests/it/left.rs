//! What netfast may leave on a host.

use std::collections::BTreeMap;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use netfast_tests::netns::NetNs;

/// What netfast may leave on a host.
#[derive(Debug, PartialEq)]
pub struct Left {
    /// Names of the programs on tcx, by interface and direction.
    pub programs: BTreeMap<String, Vec<String>>,
    /// Links with all their attributes, sizes of segments among them.
    pub links: Vec<String>,
    /// Queueing disciplines.
    pub qdiscs: String,
    /// Sysctls of the network, but for what counts or is drawn by chance.
    pub sysctls: Vec<String>,
}

/// Looks at all of it.
pub fn left_on(host: &NetNs) -> Left {
    let links = host.ip("-o link show").expect("links");
    let names = links.lines().filter_map(|line| {
        let name = line.split(": ").nth(1)?;
        Some(name.split('@').next().unwrap_or(name).to_owned())
    });
    let mut programs = BTreeMap::new();
    for name in names {
        for (direction, attach_type) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
            let query = || SchedClassifier::query_tcx(&name, attach_type);
            let (_, found) = host.run(query).expect("entered").expect("a query of tcx");
            if !found.is_empty() {
                let name_of = |program: &ProgramInfo| program.name_as_str().unwrap_or_default().to_owned();
                let names = found.iter().map(name_of).collect();
                programs.insert(format!("{name} {direction}"), names);
            }
        }
    }
    let read = "grep -rs . /proc/sys/net/netfilter /proc/sys/net/bridge /proc/sys/net/ipv4 || true";
    let counts = ["nf_conntrack_count", "tcp_fastopen_key"];
    let sysctls = host.sh(read).expect("sysctls");
    Left {
        programs,
        links: without_timers(&host.ip("-d -o link show").expect("links")),
        qdiscs: host.sh("tc qdisc show").expect("qdiscs"),
        sysctls: sysctls
            .lines()
            .filter(|line| !counts.iter().any(|name| line.contains(name)))
            .map(str::to_owned)
            .collect(),
    }
}

/// A bridge's running timers are of no interest: `gc_timer 12.34`.
fn without_timers(links: &str) -> Vec<String> {
    let mut is_time = false;
    let line = |line: &str| {
        let words = line.split_whitespace().filter(|word| {
            let skip = is_time;
            is_time = word.ends_with("_timer");
            !skip
        });
        words.collect::<Vec<_>>().join(" ")
    };
    links.lines().map(line).collect()
}
