//! A package's life on each release of Debian that it is for: installed, upgraded from the release before and to the next
//! ABI while connections are open, removed, purged, under that release's own systemd.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    time::Duration,
};

use netfast_tests::{
    cmd::{self, Background},
    programs as tools,
    require::{Need, needs},
    site::LAN_IP,
    systemd::{Base, Machine},
    topo::{self, Topo},
    traffic::{hold, rr},
};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::{CONFIG, INSTALLED, OWN_CONFIG, UNIT, files, install, install_with, must_be_fast, named, property};
use crate::left::left_on;

const TIMEOUT: Duration = Duration::from_mins(1);
/// Connections that are open and say next to nothing.
const IDLE: usize = 50;
/// Connections that ask all the time.
const BUSY: usize = 4;
/// The packages, in the order in which they replace each other: the release before, one of this ABI, this one, and one of another ABI.
const PACKAGES: [(&str, &str); 4] = [
    ("NETFAST_DEB_PREVIOUS", "/tmp/previous.deb"),
    ("NETFAST_DEB_OLD", "/tmp/old.deb"),
    ("NETFAST_DEB_NEW", "/tmp/new.deb"),
    ("NETFAST_DEB_NEXT", "/tmp/next.deb"),
];

#[test]
fn on_debian_12_it_installs_upgrades_under_load_and_leaves_nothing() {
    lives_on("NETFAST_ROOT_BOOKWORM");
}

#[test]
fn on_debian_13_it_installs_upgrades_under_load_and_leaves_nothing() {
    lives_on("NETFAST_ROOT_TRIXIE");
}

#[test]
fn on_debian_forky_it_installs_upgrades_under_load_and_leaves_nothing() {
    lives_on("NETFAST_ROOT_FORKY");
}

/// Connections from a container to the outside, through masquerade.
pub(super) struct Load {
    server: Background,
    busy: Background,
    idle: Background,
}

impl Load {
    /// Opens them.
    pub(super) fn start(topo: &Topo) -> Self {
        let tool = tools::traffic().expect("the traffic tool").display().to_string();
        let server = topo.lan().spawn(&[&tool, "rr-server", "7000"]).expect("a server");
        cmd::poll("the server listens", TIMEOUT, || {
            let found = topo.lan().sh("ss -ltnH sport = :7000").ok()?;
            (!found.is_empty()).then_some(())
        })
        .expect("listening");
        let to = format!("{LAN_IP}:7000");
        let one = &topo.container(0, 0).ns;
        let client = |args: &[&str]| one.spawn(&[&[tool.as_str()], args].concat()).expect("a client");
        Self {
            server,
            busy: client(&["rr", &to, "--seconds", "600", "--connections", &BUSY.to_string()]),
            idle: client(&["hold", &to, "--connections", &IDLE.to_string()]),
        }
    }

    /// Ends it: no connection may have been lost. Returns the longest time that a request was without an answer.
    pub(super) fn end(self) -> Duration {
        let held: hold::Report = ended(self.idle);
        assert_eq!((held.opened, held.dead), (IDLE, 0), "{held:?}");
        let busy: rr::Report = ended(self.busy);
        assert!(busy.transactions > 1000 && busy.errors == 0, "{busy:?}");
        self.server.stop().expect("the server ends");
        Duration::from_secs_f64(busy.latency.max_us / 1e6)
    }
}

fn ended<T: DeserializeOwned>(process: Background) -> T {
    process.signal(Signal::SIGTERM).expect("it runs");
    let done = process.wait(TIMEOUT).expect("it ends");
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

/// Installs over what is there; another daemon is at work afterwards, with the administrator's file, which needs no question.
fn upgrade(machine: &Machine, package: &str) {
    upgrade_with(machine, package, &[]);
}

fn upgrade_with(machine: &Machine, package: &str, options: &[&str]) {
    let pid = property(machine, "MainPID");
    install_with(machine, package, options);
    assert_eq!(property(machine, "ActiveState"), "active", "{}", machine.journal());
    assert_ne!(property(machine, "MainPID"), pid);
    assert_eq!(fs::read_to_string(machine.path(CONFIG)).expect("a file"), OWN_CONFIG);
    must_be_fast(machine, package);
}

fn lives_on(root: &str) {
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
    let machine = Machine::boot(host, Base::Root(&named(root))).expect("a Debian under systemd");
    for (variable, inside) in PACKAGES {
        machine.copy(&named(variable), inside).expect("copied");
    }
    let [previous, old, new, next] = PACKAGES.map(|(_, inside)| inside);
    let before = files(&machine);

    // Install: all is there, nothing runs.
    install(&machine, previous);
    assert_eq!(property(&machine, "ActiveState"), "inactive");
    assert_eq!(property(&machine, "UnitFileState"), "disabled");
    assert_eq!(left_on(host), found);
    machine.write(CONFIG, OWN_CONFIG).expect("a configuration");
    machine.run(&["systemctl", "enable", "--now", UNIT]).expect("it starts");
    let load = Load::start(&topo);
    must_be_fast(&machine, "the conversations are fast");

    // From the release before, whose maps and links are others, and within this one.
    let pins = |version: &str| machine.path(&format!("/sys/fs/bpf/netfast/v{version}")).exists();
    let this = netfast_common::abi::ABI_VERSION.to_string();
    assert!(pins("1") && !pins(&this));
    // 0.1.0's file had all keys in it, so that this once dpkg would ask for the administrator's.
    upgrade_with(&machine, old, &["--force-confold"]);
    assert!(pins(&this) && !pins("1"), "{}", machine.journal());
    let attached = left_on(host);
    upgrade(&machine, new);
    assert_eq!(left_on(host), attached);
    must_be_whole(&machine);

    // And to a build with another ABI: the old ones go when the new are at work.
    upgrade(&machine, next);
    assert_eq!(left_on(host), attached);
    assert!(!pins(&this) && pins("9999"));

    // Removal: the host as it was, the configuration stays.
    machine.run(&["dpkg", "--remove", "netfast"]).expect("dpkg removes it");
    assert_eq!(left_on(host), found, "{}", machine.journal());
    assert!(machine.path(CONFIG).is_file() && !machine.path("/usr/bin/netfast").exists());
    assert!(!machine.path("/sys/fs/bpf/netfast").exists(), "pins are left");
    let longest = load.end();
    record(&machine, new, longest);

    // Purge: nothing at all is left. Installed anew, it is as on the first day.
    machine.run(&["dpkg", "--purge", "netfast"]).expect("dpkg purges it");
    let after = files(&machine);
    let left: Vec<&String> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:?}");
    let gone: Vec<&String> = before.difference(&after).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert!(!machine.path("/run/netfast").exists());
    install(&machine, new);
    let shipped = fs::read_to_string(machine.path(CONFIG)).expect("a file");
    assert!(shipped.contains("/usr/share/doc/netfast/netfast.toml"), "{shipped}");
    machine
        .run(&["dpkg", "--purge", "netfast"])
        .expect("never run, it goes as well");
    assert_eq!(files(&machine), after);
}

/// This version's files are there, as they were packed.
fn must_be_whole(machine: &Machine) {
    for file in INSTALLED {
        assert!(machine.path(file).is_file(), "{file} is not there");
    }
    let changed = machine.run(&["dpkg", "--verify", "netfast"]).expect("dpkg has sums");
    let changed: Vec<&str> = changed.lines().filter(|line| !line.ends_with(CONFIG)).collect();
    assert!(changed.is_empty(), "{changed:?}");
    let version = machine
        .run(&["dpkg-query", "--show", "--showformat", "${Version}", "netfast"])
        .expect("installed");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    // The shipped file, not the administrator's.
    machine
        .run(&["netfast", "config", "check", "/usr/share/doc/netfast/netfast.toml"])
        .expect("the shipped file is right");
}

/// Says what was seen, as a line of the table in CONTRIBUTING.md, where the environment asks for it.
fn record(machine: &Machine, package: &str, longest: Duration) {
    let Some(path) = env::var_os("NETFAST_RELEASES") else {
        return;
    };
    let version = |package: &str| {
        machine
            .run(&["dpkg-query", "--show", "--showformat", "${Version}", package])
            .expect("installed")
    };
    let release = machine
        .run(&[
            "sh",
            "-c",
            ". /etc/os-release; echo \"${VERSION_ID:-testing} ($VERSION_CODENAME)\"",
        ])
        .expect("it has a name");
    let depends = machine
        .run(&["dpkg-deb", "--field", package, "Depends"])
        .expect("it depends on something");
    let mut file = File::options().create(true).append(true).open(path).expect("opened");
    writeln!(
        file,
        "| {release} | {} | {} | {depends} | {} open, 0 lost | {:.0} ms |",
        version("libc6"),
        version("systemd"),
        IDLE + BUSY,
        longest.as_secs_f64() * 1e3,
    )
    .expect("written");
}
