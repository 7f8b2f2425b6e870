//! The Debian package in a clean Debian: install, upgrade, removal, purge, under its systemd. `cargo xtask test package`
//! makes the packages and the root file system, and names them in the environment.

mod scrape;

use std::{collections::BTreeSet, env, fs, path::PathBuf, time::Duration};

use netfast_tests::{
    cmd,
    netfast_proc::Totals,
    programs as tools,
    require::{Need, needs},
    site::LAN_IP,
    systemd::{Base, Machine},
    topo,
    traffic::rr,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::left::left_on;

const UNIT: &str = "netfast.service";
const CONFIG: &str = "/etc/netfast/netfast.toml";
const OWN_CONFIG: &str = "# The administrator's.\nruntime = \"none\"\n";
/// Files besides the program, the unit and the configuration.
const INSTALLED: [&str; 16] = [
    "/usr/share/man/man5/netfast.toml.5.gz",
    "/usr/share/man/man8/netfast.8.gz",
    "/usr/share/man/man8/netfast-run.8.gz",
    "/usr/share/man/man8/netfast-config-check.8.gz",
    "/usr/share/bash-completion/completions/netfast",
    "/usr/share/zsh/vendor-completions/_netfast",
    "/usr/share/fish/vendor_completions.d/netfast.fish",
    "/usr/share/netfast/prometheus/netfast.rules.yml",
    "/usr/share/netfast/grafana/netfast.json",
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

fn install(machine: &Machine, package: &str) {
    machine
        .run(&["dpkg", "--force-unsafe-io", "--install", package])
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

#[test]
fn installs_upgrades_under_load_and_leaves_nothing() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = topo::Topo::new(&topo::Options::default()).expect("a topology");
    let host = topo.host();
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    one.ns
        .sh(&format!("busybox ping -c1 -W2 {}", two.ip))
        .expect("they reach each other");
    let found = left_on(host);
    let root = named("NETFAST_DEBIAN_ROOT");
    let machine = Machine::boot(host, Base::Root(&root)).expect("a Debian under systemd");
    machine.copy(&named("NETFAST_DEB_OLD"), "/tmp/old.deb").expect("copied");
    machine.copy(&named("NETFAST_DEB_NEW"), "/tmp/new.deb").expect("copied");
    let before = files(&machine);

    // Install: all is there, nothing runs.
    install(&machine, "/tmp/old.deb");
    assert_eq!(property(&machine, "ActiveState"), "inactive");
    assert_eq!(property(&machine, "UnitFileState"), "disabled");
    assert_eq!(left_on(host), found);
    machine
        .run(&["netfast", "config", "check", CONFIG])
        .expect("the shipped file is right");
    for file in INSTALLED {
        assert!(machine.path(file).is_file(), "{file} is not there");
    }
    let unchanged = machine.run(&["dpkg", "--verify", "netfast"]).expect("dpkg has sums");
    assert_eq!(unchanged, "");
    machine.write(CONFIG, OWN_CONFIG).expect("a configuration");
    machine.run(&["systemctl", "enable", "--now", UNIT]).expect("it starts");

    let tool = tools::traffic().expect("the traffic tool").display().to_string();
    let server = topo.lan().spawn(&[&tool, "rr-server", "7000"]).expect("a server");
    std::thread::sleep(Duration::from_millis(300));
    let to = format!("{LAN_IP}:7000");
    let client = one.ns.spawn(&[&tool, "rr", &to, "--seconds", "600"]).expect("a client");
    must_be_fast(&machine, "the conversation is fast");

    // Upgrade: the new daemon runs, with the administrator's file, on the same links.
    let (pid, attached) = (property(&machine, "MainPID"), left_on(host));
    install(&machine, "/tmp/new.deb");
    assert_eq!(property(&machine, "ActiveState"), "active", "{}", machine.journal());
    assert_ne!(property(&machine, "MainPID"), pid);
    assert_eq!(fs::read_to_string(machine.path(CONFIG)).expect("a file"), OWN_CONFIG);
    let version = machine
        .run(&["dpkg-query", "--show", "--showformat", "${Version}", "netfast"])
        .expect("installed");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert_eq!(left_on(host), attached);
    must_be_fast(&machine, "after the upgrade");

    // And to a build with another ABI, whose maps and links are others: the old ones go when the new are at work.
    machine
        .copy(&named("NETFAST_DEB_NEXT"), "/tmp/next.deb")
        .expect("copied");
    let pins = |version: &str| machine.path(&format!("/sys/fs/bpf/netfast/v{version}")).exists();
    let this = netfast_common::abi::ABI_VERSION.to_string();
    assert!(pins(&this) && !pins("9999"));
    install(&machine, "/tmp/next.deb");
    assert_eq!(property(&machine, "ActiveState"), "active", "{}", machine.journal());
    must_be_fast(&machine, "after the upgrade to another ABI");
    assert_eq!(left_on(host), attached);
    assert!(!pins(&this) && pins("9999"));

    // Removal: the host as it was, the configuration stays.
    machine.run(&["dpkg", "--remove", "netfast"]).expect("dpkg removes it");
    assert_eq!(left_on(host), found, "{}", machine.journal());
    assert!(machine.path(CONFIG).is_file() && !machine.path("/usr/bin/netfast").exists());
    assert!(!machine.path("/sys/fs/bpf/netfast").exists(), "pins are left");
    client.signal(Signal::SIGTERM).expect("it runs");
    let done = client.wait(TIMEOUT).expect("it ends");
    let report: rr::Report = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
    assert_eq!(report.errors, 0, "{report:?}");
    server.stop().expect("the server ends");

    // Purge: nothing at all is left. Installed anew, it is as on the first day.
    machine.run(&["dpkg", "--purge", "netfast"]).expect("dpkg purges it");
    let after = files(&machine);
    let left: Vec<&String> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(
        before.is_subset(&after),
        "{:?}",
        before.difference(&after).collect::<Vec<_>>()
    );
    assert!(!machine.path("/run/netfast").exists());
    install(&machine, "/tmp/new.deb");
    assert!(
        fs::read_to_string(machine.path(CONFIG))
            .expect("a file")
            .contains("#runtime = \"docker\"")
    );
    machine
        .run(&["dpkg", "--purge", "netfast"])
        .expect("never run, it goes as well");
    assert_eq!(files(&machine), after);
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
