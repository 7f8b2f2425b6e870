//! The RPM's life, its scripts run by rpm under systemd: installed, switched on, upgraded to another ABI while connections are
//! open, erased. There is no distribution with RPM in reach, so it is Debian's rpm in a Debian, without dependencies.

use std::fs;

use netfast_common::abi::ABI_VERSION;
use netfast_tests::{
    require::{Need, needs},
    systemd::{Base, Machine},
    topo::{self, Topo},
};

use super::{CONFIG, OWN_CONFIG, UNIT, files, life::Load, must_be_fast, named, property};
use crate::left::left_on;

const PROGRAM: &str = "/usr/bin/netfast";
/// Directories of many packages, which are there with every distribution that has RPM, and not in a Debian.
const SHARED: [&str; 5] = [
    "/usr/share/fish",
    "/usr/share/fish/vendor_completions.d",
    "/usr/share/licenses",
    "/usr/share/zsh",
    "/usr/share/zsh/site-functions",
];

/// `rpm` with a database of its own, whatever Debian's makes of that; its standard output.
fn rpm(machine: &Machine, args: &[&str]) -> String {
    let rpm = ["rpm", "--dbpath", "/var/lib/rpm", "--force-debian"];
    machine.run(&[&rpm, args].concat()).expect("rpm does it")
}

#[test]
fn rpm_installs_it_upgrades_it_under_load_and_erases_it() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = Topo::new(&topo::Options::default()).expect("a topology");
    let host = topo.host();
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    one.ns
        .sh(&format!("busybox ping -c1 -W2 {}", two.ip))
        .expect("they reach each other");
    let found = left_on(host);
    let machine = Machine::boot(host, Base::Root(&named("NETFAST_DEBIAN_ROOT"))).expect("a Debian under systemd");
    for (variable, inside) in [("NETFAST_RPM", "/tmp/new.rpm"), ("NETFAST_RPM_NEXT", "/tmp/next.rpm")] {
        machine.copy(&named(variable), inside).expect("copied");
    }
    let before = files(&machine);

    // Installed: all is there as it was packed, nothing runs.
    rpm(&machine, &["--install", "--nodeps", "/tmp/new.rpm"]);
    let version = rpm(&machine, &["--query", "--queryformat", "%{VERSION}", "netfast"]);
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert_eq!(rpm(&machine, &["--verify", "--nodeps", "netfast"]), "");
    assert_eq!(property(&machine, "ActiveState"), "inactive");
    assert_eq!(property(&machine, "UnitFileState"), "disabled");
    assert_eq!(left_on(host), found);

    // Switched on.
    machine.write(CONFIG, OWN_CONFIG).expect("a configuration");
    machine.run(&["systemctl", "enable", "--now", UNIT]).expect("it starts");
    let load = Load::start(&topo);
    must_be_fast(&machine, "the conversations are fast");
    let attached = left_on(host);

    // Upgraded: another daemon is at work, with the administrator's file, and no connection notices.
    let pins = |version: &str| machine.path(&format!("/sys/fs/bpf/netfast/v{version}")).exists();
    let this = ABI_VERSION.to_string();
    let pid = property(&machine, "MainPID");
    rpm(&machine, &["--upgrade", "--nodeps", "/tmp/next.rpm"]);
    assert_eq!(property(&machine, "ActiveState"), "active", "{}", machine.journal());
    assert_eq!(property(&machine, "UnitFileState"), "enabled");
    assert_ne!(property(&machine, "MainPID"), pid);
    assert_eq!(fs::read_to_string(machine.path(CONFIG)).expect("a file"), OWN_CONFIG);
    must_be_fast(&machine, "after the upgrade");
    assert!(!pins(&this) && pins("9999"), "{}", machine.journal());
    assert_eq!(left_on(host), attached);

    // Erased: the host as it was, and of files the administrator's alone, which rpm renames.
    rpm(&machine, &["--erase", "--nodeps", "netfast"]);
    assert_eq!(left_on(host), found, "{}", machine.journal());
    assert!(!machine.path(PROGRAM).exists() && !machine.path("/sys/fs/bpf/netfast").exists());
    assert!(!machine.path("/run/netfast").exists());
    println!("longest wait for an answer: {:.0} ms", load.end().as_secs_f64() * 1e3);
    let after = files(&machine);
    let is_rpms = |file: &str| file.starts_with("/var/lib/rpm") || SHARED.contains(&file);
    let left: Vec<&String> = after.difference(&before).filter(|file| !is_rpms(file)).collect();
    assert_eq!(left, ["/etc/netfast", "/etc/netfast/netfast.toml.rpmsave"]);
    assert!(before.is_subset(&after));
}
