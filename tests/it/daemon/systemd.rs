//! The unit that is shipped, under a real systemd.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use netfast::apply::read::Tables;
use netfast_tests::{
    cmd::{self, Background},
    netfast_proc::{Totals, abi_dir},
    programs as tools,
    require::{Need, needs},
    site::LAN_IP,
    systemd::{Base, Machine, SYSTEMD},
    topo::{self, Topo},
    traffic::{hold, paced},
};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Marks, fast_endpoints, heard, names, programs};

/// What the tests under a booted systemd need.
const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Kernel(6, 6),
    Need::Program("systemctl"),
    Need::File(SYSTEMD),
];
const UNIT: &str = "netfast.service";
const UNIT_FILE: &str = "/etc/systemd/system/netfast.service";
const CONFIG: &str = "/etc/netfast/netfast.toml";
const PINS: &str = "/sys/fs/bpf/netfast";
/// What must happen happens within this; how long it took is not judged.
const TIMEOUT: Duration = Duration::from_mins(1);
/// `systemd-analyze security`: 0 is all that systemd can forbid, 10 is nothing of it. Measured 3.1 (systemd 252); other
/// versions weigh a little differently.
const MAX_EXPOSED: f64 = 3.1;

fn source(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../netfast/dist").join(file)
}

/// A host whose systemd has netfast installed, not started.
fn machine(topo: &Topo) -> Machine {
    let machine = Machine::boot(topo.host(), Base::OwnUsr).expect("a machine under systemd");
    let program = tools::netfast().expect("the binary");
    machine.copy(&program, "/usr/bin/netfast").expect("installed");
    fs::set_permissions(machine.path("/usr/bin/netfast"), fs::Permissions::from_mode(0o755)).expect("a mode");
    machine.copy(&source("netfast.service"), UNIT_FILE).expect("installed");
    machine.write(CONFIG, "runtime = \"none\"\n").expect("a configuration");
    machine.run(&["systemctl", "daemon-reload"]).expect("reload");
    machine
}

fn state(machine: &Machine) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(machine.path("/run/netfast/state.json")).ok()?).ok()
}

fn main_pid(machine: &Machine) -> u32 {
    machine
        .property(UNIT, "MainPID")
        .expect("a property")
        .parse()
        .expect("a number")
}

/// What `netfast status --json` says of packets.
fn totals(machine: &Machine) -> Totals {
    let json = machine.run(&["netfast", "status", "--json"]).expect("status");
    let status: Value = serde_json::from_str(&json).expect("JSON");
    serde_json::from_value(status["totals"].clone()).expect("totals")
}

fn ended<T: DeserializeOwned>(process: Background) -> T {
    process.signal(Signal::SIGTERM).expect("it runs");
    let done = process.wait(TIMEOUT).expect("it ends");
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

/// Waits until the machine's journal has this.
fn journal_has(machine: &Machine, what: &str) {
    cmd::poll(what, TIMEOUT, || machine.journal().contains(what).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
}

fn restarts(machine: &Machine) -> u32 {
    machine
        .property(UNIT, "NRestarts")
        .expect("a property")
        .parse()
        .expect("a number")
}

/// Fails unless the fast path carries packets now.
fn must_be_fast(machine: &Machine, when: &str) {
    let before = totals(machine).fast_packets;
    cmd::poll(when, TIMEOUT, || {
        (totals(machine).fast_packets > before + 100).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
}

/// Epoch, and the generation of each device: what makes flows old.
fn age(machine: &Machine) -> (u32, Vec<u32>) {
    let tables = Tables::open(&machine.path(PINS)).expect("tables");
    let devices = tables.devices().expect("devices");
    let generations = devices
        .values()
        .map(|device| tables.generation(device.slot).expect("a generation"));
    (tables.control().expect("the switches").epoch, generations.collect())
}

fn revalidate_ms(machine: &Machine) -> u64 {
    let tables = Tables::open(&machine.path(PINS)).expect("tables");
    tables.control().expect("the switches").revalidate_ns / 1_000_000
}

#[test]
fn the_unit_is_ready_in_step_survives_a_hang_reloads_and_stops() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    // Read without CAP_NET_RAW, or the network would stay on the slow path.
    host.sh("iptables-legacy -A FORWARD -p tcp --dport 9 -j ACCEPT")
        .expect("a rule of the old kind");
    let before = Marks::of(host);
    let machine = machine(&topo);
    // Sooner than shipped, and still so long that a busy machine is in time.
    machine
        .write(
            "/etc/systemd/system/netfast.service.d/test.conf",
            "[Service]\nWatchdogSec=6\n",
        )
        .expect("a drop-in");
    machine.run(&["systemctl", "daemon-reload"]).expect("reload");

    // Start: `systemctl` returns when the unit is ready, and ready is in sync.
    machine.run(&["systemctl", "start", UNIT]).expect("it starts");
    let found = state(&machine).expect("a state");
    assert_eq!(found["in_sync"], true, "{found:#}");
    assert_eq!(
        fast_endpoints(&found),
        names(&["veth0x0", "veth0x1"]),
        "{found:#}\n{}",
        machine.journal()
    );
    assert_eq!(
        machine.property(UNIT, "StatusText").expect("a status"),
        "2 endpoints and 1 uplinks on the fast path"
    );
    let attached = programs(host);
    assert_eq!(attached.len(), 8, "{attached:?}");
    in_its_sandbox(&machine);

    // A conversation that lasts through everything.
    let tool = tools::traffic().expect("the traffic tool").display().to_string();
    let server = topo.lan().spawn(&[&tool, "rr-server", "7000"]).expect("a server");
    std::thread::sleep(Duration::from_millis(300));
    let to = format!("{LAN_IP}:7000");
    let client = &topo.container(0, 0).ns;
    let idle = client.spawn(&[&tool, "hold", &to, "--connections", "20"]);
    let idle = idle.expect("a client");
    let asking = client.spawn(&[&tool, "paced", &to, "--rate", "500", "--seconds", "600"]);
    let asking = asking.expect("a client");
    must_be_fast(&machine, "the conversation is fast");

    // Reload: another interval, and no flow is the older for it; a wrong file fails the reload and changes nothing.
    let (pid, was) = (main_pid(&machine), age(&machine));
    machine
        .write(CONFIG, "runtime = \"none\"\nrevalidate_ms = 500\n")
        .expect("a configuration");
    machine.run(&["systemctl", "reload", UNIT]).expect("reload");
    cmd::poll("the new interval", TIMEOUT, || {
        (revalidate_ms(&machine) == 500).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
    assert_eq!((main_pid(&machine), age(&machine)), (pid, was));
    machine.write(CONFIG, "revalidate = 7\n").expect("a configuration");
    let refused = machine.try_run(&["systemctl", "reload", UNIT]).expect("it ends");
    assert!(!refused.status.success(), "{refused:?}");
    journal_has(&machine, "unknown field `revalidate`");
    assert_eq!(machine.property(UNIT, "ActiveState").expect("a state"), "active");
    assert_eq!((main_pid(&machine), revalidate_ms(&machine)), (pid, 500));
    machine.write(CONFIG, "runtime = \"none\"\n").expect("a configuration");

    // A hang: the watchdog ends it, systemd starts it again, and the fast path does not notice.
    machine.run(&["kill", "-STOP", &pid.to_string()]).expect("stopped");
    must_be_fast(&machine, "while the daemon hangs");
    cmd::poll("it is started again", TIMEOUT, || {
        let new = main_pid(&machine);
        let state = state(&machine)?;
        (new != 0 && new != pid && state["pid"] == new && state["in_sync"] == true).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
    journal_has(&machine, "Watchdog timeout");
    let once = restarts(&machine);
    assert!(once >= 1);
    assert_eq!(programs(host), attached, "adopted, not attached twice");
    must_be_fast(&machine, "after the restart");

    // Killed, it comes back too; stopped, it leaves what is attached.
    machine
        .run(&["kill", "-KILL", &main_pid(&machine).to_string()])
        .expect("killed");
    cmd::poll("it is started again", TIMEOUT, || {
        (restarts(&machine) > once && machine.property(UNIT, "ActiveState").ok()? == "active").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
    machine.run(&["systemctl", "stop", UNIT]).expect("it stops");
    assert_eq!(machine.property(UNIT, "ActiveState").expect("a state"), "inactive");
    assert_eq!(machine.property(UNIT, "Result").expect("a result"), "success");
    assert_eq!(programs(host), attached);
    must_be_fast(&machine, "after the unit has stopped");

    machine.run(&["netfast", "detach"]).expect("detach");
    assert_eq!(Marks::of(host), before);
    let idle: hold::Report = ended(idle);
    assert_eq!((idle.opened, idle.dead), (20, 0));
    let asking: paced::Report = ended(asking);
    // A machine that is busy with other things may lose a datagram.
    assert!(asking.lost * 100 <= asking.sent, "{asking:?}");
    server.stop().expect("the server ends");
}

/// The running daemon has the five capabilities and may write where it must, and nowhere else.
fn in_its_sandbox(machine: &Machine) {
    let pid = main_pid(machine).to_string();
    let status = machine
        .run(&["cat", &format!("/proc/{pid}/status")])
        .expect("its status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("a field");
        line.trim_start_matches(':').trim().to_owned()
    };
    // linux/capability.h: NET_ADMIN 12, SYS_PTRACE 19, SYS_ADMIN 21, PERFMON 38, BPF 39.
    let wanted: u64 = [12, 19, 21, 38, 39].into_iter().map(|bit| 1_u64 << bit).sum();
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(u64::from_str_radix(&field(set), 16), Ok(wanted), "{set}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
    // As the daemon sees the files; and as everybody else does, for a place where nobody could write proves nothing.
    let inside = ["nsenter", "--target", &pid, "--mount"];
    let makes = |enter: &[&str], place: &str| {
        let dir = format!("{place}/netfast-was-here");
        let line = format!("mkdir {dir} && rmdir {dir}");
        machine
            .try_run(&[enter, &["sh", "-c", &line]].concat())
            .expect("it ends")
            .status
            .success()
    };
    for place in [
        "/etc/netfast",
        "/usr/bin",
        "/var/lib",
        "/root",
        "/home",
        "/run",
        "/sys/fs/bpf",
        "/sys/fs/cgroup",
        "/dev",
    ] {
        assert!(makes(&[], place), "{place} cannot be written to by anybody");
        assert!(
            !makes(&inside, place),
            "{place} can be written to by the daemon:\n{}",
            machine
                .run(&["cat", &format!("/proc/{pid}/mountinfo")])
                .unwrap_or_default()
        );
    }
    for place in ["/run/netfast", "/sys/fs/bpf/netfast"] {
        assert!(makes(&inside, place), "{place} cannot be written to by the daemon");
    }
}

/// Docker first where both start, and from then on each by itself.
#[test]
fn the_unit_waits_for_docker_and_outlives_its_restarts() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let machine = machine(&topo);
    let docker = "docker.service";
    // In its place, something that takes its time.
    machine
        .write(
            "/etc/systemd/system/docker.service",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=sleep 3\n",
        )
        .expect("a unit");
    machine.run(&["systemctl", "daemon-reload"]).expect("reload");
    machine.run(&["systemctl", "start", docker, UNIT]).expect("both start");
    let when = |unit: &str, event: &str| -> u64 {
        let text = machine.property(unit, event).expect("a property");
        text.parse().expect("microseconds")
    };
    let (up, begun) = (
        when(docker, "ActiveEnterTimestampMonotonic"),
        when(UNIT, "InactiveExitTimestampMonotonic"),
    );
    assert!(up > 0 && begun >= up, "Docker was up at {up}, netfast began at {begun}");
    let pid = main_pid(&machine);
    for verb in ["restart", "stop"] {
        machine.run(&["systemctl", verb, docker]).expect("Docker's own");
        assert_eq!(machine.property(UNIT, "ActiveState").expect("a state"), "active");
        assert_eq!(main_pid(&machine), pid, "after docker's {verb}");
    }
    machine.run(&["systemctl", "stop", UNIT]).expect("it stops");
    machine.run(&["netfast", "detach"]).expect("detach");
}

/// A host without Docker starts it once, and not every two seconds.
#[test]
fn without_docker_the_unit_is_up_and_waits() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let machine = machine(&topo);
    machine
        .write(CONFIG, "docker_host = \"unix:///run/no-docker.sock\"\n")
        .expect("a configuration");
    machine.run(&["systemctl", "start", UNIT]).expect("it starts");
    let pid = main_pid(&machine);
    let told = machine.property(UNIT, "StatusText").expect("a status");
    assert!(
        told.starts_with("waiting for the container runtime") && told.contains("no-docker.sock"),
        "{told}"
    );
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(
        (main_pid(&machine), restarts(&machine)),
        (pid, 0),
        "{}",
        machine.journal()
    );
    assert_eq!(machine.property(UNIT, "ActiveState").expect("a state"), "active");

    machine.write(CONFIG, "runtime = \"none\"\n").expect("a configuration");
    machine.run(&["systemctl", "reload", UNIT]).expect("reload");
    cmd::poll("it is in sync", TIMEOUT, || {
        (state(&machine)?["in_sync"] == true).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
    assert_eq!(main_pid(&machine), pid);
    machine.run(&["systemctl", "stop", UNIT]).expect("it stops");
    machine.run(&["netfast", "detach"]).expect("detach");
}

/// The daemon has a view of the file systems of its own, in which the old bpffs may live on.
#[test]
fn a_bpffs_that_is_mounted_anew_under_the_unit_makes_it_start_again() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    let before = Marks::of(host);
    let machine = machine(&topo);
    // As systemd has it on a real machine, where what is mounted is seen by the units.
    machine.run(&["mount", "--make-rshared", "/"]).expect("shared");
    machine.run(&["systemctl", "start", UNIT]).expect("it starts");
    let attached = programs(host);
    assert_eq!(attached.len(), 8, "{attached:?}");
    let tool = tools::traffic().expect("the traffic tool").display().to_string();
    let server = topo.lan().spawn(&[&tool, "rr-server", "7000"]).expect("a server");
    std::thread::sleep(Duration::from_millis(300));
    let to = format!("{LAN_IP}:7000");
    let idle = topo
        .container(0, 0)
        .ns
        .spawn(&[&tool, "hold", &to, "--connections", "20"]);
    let idle = idle.expect("a client");

    let pid = main_pid(&machine);
    let anew = "umount /sys/fs/bpf && mount -t bpf -o mode=700 bpf /sys/fs/bpf";
    machine.run(&["sh", "-c", anew]).expect("mounted anew");
    assert_eq!(programs(host), attached, "the unit still has the old one");
    cmd::poll("a daemon that sees the new one", TIMEOUT, || {
        let new = main_pid(&machine);
        let state = state(&machine)?;
        (new != 0 && new != pid && state["pid"] == new && state["in_sync"] == true).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
    journal_has(&machine, "was mounted anew");
    // In sync it is also before it has heard of all stations again.
    cmd::poll("all attached, once", TIMEOUT, || {
        (programs(host) == attached).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}\n{}", programs(host), machine.journal()));
    assert!(abi_dir(&machine.path(PINS)).join("links").is_dir());
    machine.run(&["netfast", "status"]).expect("it can be seen again");
    machine.run(&["systemctl", "stop", UNIT]).expect("it stops");
    machine.run(&["netfast", "detach"]).expect("detach");
    assert_eq!(Marks::of(host), before);
    let idle: hold::Report = ended(idle);
    assert_eq!((idle.opened, idle.dead), (20, 0));
    server.stop().expect("the server ends");
}

#[test]
fn the_unit_is_well_formed_and_its_exposure_is_bounded() {
    if !needs(&[Need::Root, Need::Program("systemd-analyze")]) {
        return;
    }
    let unit = source("netfast.service").display().to_string();
    let mut analyze = std::process::Command::new("systemd-analyze");
    let text = cmd::run(analyze.args(["security", "--no-pager", "--offline=true", &unit])).expect("it ends");
    let score = text
        .lines()
        .find_map(|line| line.split_once("exposure level for netfast.service: "));
    let score: f64 = score
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no score in {text}"));
    println!("systemd-analyze security: {score}");
    assert!(score <= MAX_EXPOSED, "{text}");

    // What systemd does not understand it ignores, with a warning that nobody reads.
    let dir = tempfile::tempdir().expect("a directory");
    let text = fs::read_to_string(&unit).expect("the unit");
    let program = tools::netfast().expect("the binary").display().to_string();
    let copy = dir.path().join(UNIT);
    // The program, and no manual, are where this was built.
    let text = text.replace("/usr/bin/netfast", &program);
    fs::write(&copy, text.replace("Documentation=man:netfast(8)\n", "")).expect("a copy");
    let mut verify = std::process::Command::new("systemd-analyze");
    let done = cmd::finish(verify.arg("verify").arg(&copy), TIMEOUT).expect("it ends");
    let about_us: Vec<&str> = done.stderr.lines().filter(|line| line.contains(UNIT)).collect();
    assert!(about_us.is_empty(), "{about_us:?}");
}
