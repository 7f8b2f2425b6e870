//! The Debian package in a clean Debian: install, upgrade, removal, purge, under its systemd; the other ways to install it.
//! `cargo xtask test package` makes the packages and the root file system, and names them in the environment.

mod container;
mod empty;
mod life;
mod opt_ins;
mod rpm;
mod scrape;

use std::{collections::BTreeSet, env, path::PathBuf, time::Duration};

use netfast_tests::{
    cmd,
    netfast_proc::Totals,
    require::{Need, needs},
    systemd::{Base, Machine},
    topo,
};
use serde_json::Value;

use crate::left::left_on;

const UNIT: &str = "netfast.service";
const CONFIG: &str = "/etc/netfast/netfast.toml";
const OWN_CONFIG: &str = "# The administrator's.\nruntime = \"none\"\n";
/// Files besides the program, the unit and the configuration.
const INSTALLED: [&str; 19] = [
    "/usr/share/man/man5/netfast.toml.5.gz",
    "/usr/share/man/man8/netfast.8.gz",
    "/usr/share/man/man8/netfast-run.8.gz",
    "/usr/share/man/man8/netfast-config-check.8.gz",
    "/usr/share/bash-completion/completions/netfast",
    "/usr/share/zsh/vendor-completions/_netfast",
    "/usr/share/fish/vendor_completions.d/netfast.fish",
    "/usr/share/netfast/prometheus/netfast.rules.yml",
    "/usr/share/netfast/grafana/netfast.json",
    "/usr/share/netfast/grafana/provisioning-dashboards.yml",
    "/usr/share/netfast/grafana/provisioning-datasource.yml",
    "/usr/share/doc/netfast/docs/monitoring.md",
    "/usr/share/doc/netfast/copyright",
    "/usr/share/doc/netfast/changelog.gz",
    "/usr/share/doc/netfast/NOTICES.gz",
    "/usr/share/doc/netfast/docs/aliases.md",
    "/usr/share/doc/netfast/docs/at-3-am.md",
    "/usr/share/doc/netfast/examples/override.conf",
    "/usr/share/netfast/prometheus/scrape.yml",
];
const TIMEOUT: Duration = Duration::from_mins(1);

fn named(variable: &str) -> PathBuf {
    let path =
        env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run it by `cargo xtask test package`"));
    PathBuf::from(path)
}

/// All files of the root file system that a package could leave.
fn files(machine: &Machine) -> BTreeSet<String> {
    let found = machine.run(&["find", "/", "-xdev"]).expect("find");
    let volatile = ["/var/log", "/var/lib/dpkg", "/var/cache", "/var/lib/systemd", "/old"];
    let lasting = found
        .lines()
        .filter(|file| !volatile.iter().any(|dir| file.starts_with(dir)));
    lasting.map(str::to_owned).collect()
}

/// Installs it, or over what is there. dpkg asks nothing: a question would be a failure, for there is nobody to answer.
fn install(machine: &Machine, package: &str) {
    install_with(machine, package, &[]);
}

fn install_with(machine: &Machine, package: &str, options: &[&str]) {
    machine
        .run(&[&["dpkg", "--force-unsafe-io"], options, &["--install", package]].concat())
        .expect("dpkg installs it");
}

fn property(machine: &Machine, name: &str) -> String {
    machine.property(UNIT, name).expect("a property")
}

fn must_be_fast(machine: &Machine, when: &str) {
    let fast = || {
        let json = machine.run(&["netfast", "status", "--json"]).ok()?;
        let status: Value = serde_json::from_str(&json).ok()?;
        let totals: Totals = serde_json::from_value(status["totals"].clone()).ok()?;
        Some(totals.fast_packets)
    };
    let before = fast().expect("status");
    cmd::poll(when, TIMEOUT, || (fast()? > before + 100).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
}

/// For distributions without packages of ours: unpacked anywhere, it runs.
#[test]
fn the_tarball_runs_where_nothing_was_installed() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = topo::Topo::new(&topo::Options::default()).expect("a topology");
    let found = left_on(topo.host());
    let machine = Machine::boot(topo.host(), Base::Root(&named("NETFAST_DEBIAN_ROOT"))).expect("a Debian");
    machine
        .copy(&named("NETFAST_TARBALL"), "/tmp/netfast.tar.gz")
        .expect("copied");
    machine
        .run(&[
            "sh",
            "-c",
            "mkdir /opt/netfast && tar -xzf /tmp/netfast.tar.gz -C /opt/netfast --strip-components=1",
        ])
        .expect("unpacked");
    let program = "/opt/netfast/usr/bin/netfast";
    let version = machine.run(&[program, "--version"]).expect("it runs");
    assert_eq!(version, format!("netfast {}", env!("CARGO_PKG_VERSION")));
    let config = "/opt/netfast/etc/netfast/netfast.toml";
    machine
        .run(&[program, "config", "check", config])
        .expect("the shipped file is right");
    for license in ["LICENSE-MIT", "LICENSE-APACHE"] {
        assert!(machine.path(&format!("/opt/netfast/{license}")).is_file());
    }
    machine
        .run(&["systemd-run", "--unit=by-hand", program, "run", "--runtime", "none"])
        .expect("started");
    cmd::poll("it is in sync", TIMEOUT, || {
        let status = machine.run(&[program, "status", "--json"]).ok()?;
        let status: Value = serde_json::from_str(&status).ok()?;
        (status["daemon"]["in_sync"] == true).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
    machine.run(&[program, "detach"]).expect("detach");
    assert_eq!(left_on(topo.host()), found);
}
