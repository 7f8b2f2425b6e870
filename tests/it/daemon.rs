//! The daemon on real hosts in namespaces: what it attaches, what it leaves, what it refuses.

mod docker;
mod foreign;
mod leave;
mod life;
mod notify;
mod pins;
mod quiet;
mod refusals;
mod survive;
mod systemd;
mod trouble;
mod updates;
mod upgrade;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use netfast::probe::{Hook, attached};
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::NetNs,
    topo::{self, Topo},
};
use serde_json::Value;

/// What marks of netfast a host's namespace can bear.
#[derive(Debug, PartialEq, Eq)]
pub struct Marks {
    /// Programs on tcx.
    programs: BTreeSet<String>,
    /// Queueing disciplines, as `tc qdisc` lists them.
    qdiscs: BTreeSet<String>,
    /// `nf_conntrack_tcp_be_liberal`.
    be_liberal: String,
}

impl Marks {
    /// Those that there are now.
    pub fn of(host: &NetNs) -> Self {
        let lines = |text: String| text.lines().map(|line| line.trim().to_owned()).collect();
        Self {
            programs: programs(host).into_iter().collect(),
            qdiscs: lines(host.sh("tc qdisc show").expect("tc")),
            be_liberal: host
                .sysctl("net/netfilter/nf_conntrack_tcp_be_liberal")
                .expect("conntrack"),
        }
    }
}

/// tcx programs of a host's interfaces: `DEVICE HOOK PROGRAM`.
fn programs(host: &NetNs) -> Vec<String> {
    let links = host.ip("-o link show").expect("links");
    let devices = links.lines().filter_map(|line| line.split([':', '@']).nth(1));
    let mut found = Vec::new();
    for device in devices.map(str::trim) {
        let attached = host
            .run(|| attached(device))
            .expect("in the namespace")
            .expect("a list");
        found.extend(attached.iter().map(|program| {
            let hook = match program.hook {
                Hook::Ingress => "in",
                Hook::Egress => "out",
            };
            format!("{device} {hook} {}", program.name)
        }));
    }
    found.sort();
    found
}

/// Names below a directory, whole paths.
fn names_below(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(names_below(&path));
        }
        found.insert(path.display().to_string());
    }
    found
}

/// A host with containers that the bridge has heard from.
fn heard(options: &topo::Options) -> Topo {
    let topo = Topo::new(options).expect("a topology");
    for bridge in &topo.bridges {
        for container in &bridge.containers {
            let ping = format!("busybox ping -c1 -W2 {}", bridge.gateway);
            container.ns.sh(&ping).expect("the gateway answers");
        }
    }
    topo
}

fn start(host: &NetNs) -> NetfastProc {
    NetfastProc::start(host, Options::no_runtime()).expect("netfast starts")
}

/// What the daemon says of itself.
fn state(netfast: &NetfastProc) -> Value {
    let text = fs::read_to_string(netfast.run_dir().join("state.json")).expect("a state");
    serde_json::from_str(&text).expect("JSON")
}

/// Waits until the state has what is asked for, at most `limit`.
fn wait_for(netfast: &NetfastProc, what: &str, limit: Duration, is_so: impl Fn(&Value) -> bool) -> Value {
    let found = cmd::poll(what, limit, || {
        let text = fs::read_to_string(netfast.run_dir().join("state.json")).ok()?;
        serde_json::from_str(&text).ok().filter(|state| is_so(state))
    });
    found.unwrap_or_else(|error| {
        let state = fs::read_to_string(netfast.run_dir().join("state.json")).unwrap_or_default();
        panic!("{error:#}; the state is {state}\n{}", netfast.log())
    })
}

/// The endpoints on the fast path, by the container's name.
fn fast_endpoints(state: &Value) -> BTreeSet<String> {
    let networks = state["networks"].as_array().cloned().unwrap_or_default();
    networks
        .iter()
        .flat_map(|network| network["endpoints"].as_array().cloned().unwrap_or_default())
        .filter(|endpoint| endpoint["path"] == "fast")
        .filter(|endpoint| state["devices"][endpoint["ifindex"].to_string()]["attached"] == true)
        .map(|endpoint| endpoint["container"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
