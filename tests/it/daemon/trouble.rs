//! What must not happen, and does: tables that cannot be written, a daemon that hangs, a bug.

use std::{
    env,
    future::{Future as _, poll_fn},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};
use netfast::{
    apply::lacks::Without,
    config::{RawConfig, Runtime},
    daemon::{self, Settings},
};
use netfast_common::{
    abi::MAX_DEVICES,
    device::{Device, DeviceKey},
};
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    netns::NetNs,
    programs as tools,
    require::{Need, needs},
    topo,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{
    Marks, fast_endpoints, heard, names, names_below, programs, start, state,
    survive::{self, Load, must_be_fast},
    wait_for,
};

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];
/// What must happen happens within this; how long it took is not judged.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Takes the places that are left in the table of devices, as interfaces that are not there; returns them.
fn fill(netfast: &NetfastProc) -> (HashMap<MapData, DeviceKey, Device>, Vec<DeviceKey>) {
    let pin = netfast.abi_dir().join("maps/netfast_devices");
    let map = Map::from_map_data(MapData::from_pin(pin).expect("pinned")).expect("a map");
    let mut devices: HashMap<_, DeviceKey, Device> = map.try_into().expect("a table of devices");
    let mut taken = Vec::new();
    for device in (1_000_000..1_000_000 + MAX_DEVICES).map(DeviceKey::served) {
        if devices.insert(device, Device::default(), 0).is_err() {
            return (devices, taken);
        }
        taken.push(device);
    }
    panic!("the table has room for more than {MAX_DEVICES}");
}

#[test]
fn an_entry_that_cannot_be_written_is_told_and_tried_again() {
    if !needs(&NEEDS) {
        return;
    }
    let mut topo = survive::host();
    let netfast = start(topo.host());
    let load = Load::start(&topo);
    must_be_fast(&netfast, "before");
    let (mut devices, taken) = fill(&netfast);
    topo.add_container(0).expect("one more");
    let error = |state: &Value| -> Option<String> {
        let devices = state["devices"].as_object()?;
        let device = devices.values().find(|device| device["name"] == "veth0x2")?;
        Some(device["error"]["text"].as_str()?.to_owned())
    };
    let found = wait_for(&netfast, "it is told", TIMEOUT, |state| error(state).is_some());
    let text = error(&found).expect("an error");
    assert!(text.contains("cannot access the map netfast_devices"), "{text}");
    assert_eq!(found["in_sync"], false);
    assert_eq!(fast_endpoints(&found), names(&["veth0x0", "veth0x1"]));
    must_be_fast(&netfast, "the others go on");

    for device in taken {
        devices.remove(&device).expect("ours");
    }
    let gateway = topo.bridges[0].gateway;
    let ping = format!("busybox ping -c1 -W2 {gateway}");
    topo.container(0, 2).ns.sh(&ping).expect("it is heard from");
    let all = names(&["veth0x0", "veth0x1", "veth0x2"]);
    let found = wait_for(&netfast, "it is tried again", TIMEOUT, |state| {
        fast_endpoints(state) == all && state["in_sync"] == true
    });
    assert_eq!(error(&found), None);
    load.end();
}

/// The last resort of promise one: flows ask the kernel by themselves, whether or not the daemon can make them.
#[test]
fn an_epoch_that_cannot_be_raised_makes_no_verdict_older_than_a_second() {
    if !needs(&[NEEDS[0], NEEDS[1], Need::Program("bpftool")]) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    let before = Marks::of(host);
    let netfast = start(host);
    let tool = tools::traffic().expect("the traffic tool").display().to_string();
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    let _server = two.ns.spawn(&[&tool, "rr-server", "7000"]).expect("a server");
    std::thread::sleep(Duration::from_millis(300));
    let to = format!("{}:7000", two.ip);
    let client = ["paced", &to, "--rate", "200", "--seconds", "600"];
    let _client = one
        .ns
        .spawn(&[&[tool.as_str()], &client[..]].concat())
        .expect("a client");
    must_be_fast(&netfast, "before");

    let control = netfast.abi_dir().join("maps/netfast_control");
    cmd::run(Command::new("bpftool").args(["map", "freeze", "pinned"]).arg(&control)).expect("frozen");
    host.sh(&format!("iptables -I FORWARD -s {} -j DROP", one.ip))
        .expect("a rule");
    wait_for(&netfast, "it is told", TIMEOUT, |state| state["in_sync"] == false);
    let fast = || netfast.totals().expect("totals").fast_packets;
    cmd::poll("the rule holds", TIMEOUT, || {
        let before = fast();
        std::thread::sleep(Duration::from_secs(2));
        (fast() == before).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", netfast.log()));
    assert!(
        netfast.log().contains("cannot access the map netfast_control"),
        "{}",
        netfast.log()
    );

    // It cannot be switched off either, and goes all the same.
    host.sh(&format!("iptables -D FORWARD -s {} -j DROP", one.ip))
        .expect("the rule goes");
    netfast.detach().expect("detach");
    assert_eq!(Marks::of(host), before);
    assert!(!netfast.pin_dir().exists());
}

#[test]
fn a_daemon_that_hangs_does_not_keep_detach_from_its_work() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let before = Marks::of(topo.host());
    let mut netfast = start(topo.host());
    let pid = i32::try_from(netfast.pid().expect("it runs")).expect("a process");
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it hangs");
    let said = netfast.verb(&["detach"]).expect("detach");
    assert!(said.contains("did not end and was killed"), "{said}");
    assert_eq!(Marks::of(topo.host()), before);
    assert!(!netfast.pin_dir().exists());
    let ended = netfast.stop(Signal::SIGTERM).expect("it has ended");
    assert!(!ended.success());
}

/// Directories of the daemon that is to panic, for the process that it does that in.
const PANICS: &str = "NETFAST_TEST_PANICS";

/// Unlike a signal, a panic runs every destructor on its way: none of them may detach anything.
#[test]
fn a_panic_leaves_the_fast_path_as_it_is() {
    if let Some(dirs) = env::var_os(PANICS) {
        panic_when_ready(&PathBuf::from(dirs));
    }
    if !needs(&NEEDS) {
        return;
    }
    let topo = survive::host();
    let host = topo.host();
    let before = Marks::of(host);
    let mut netfast = NetfastProc::prepare(host, Options::no_runtime()).expect("prepared");
    let load = Load::start(&topo);
    let dirs = netfast.run_dir().join("dirs");
    std::fs::create_dir(&dirs).expect("a directory");
    std::os::unix::fs::symlink(netfast.pin_dir(), dirs.join("pins")).expect("a link");
    std::os::unix::fs::symlink(netfast.run_dir(), dirs.join("run")).expect("a link");
    panicked(host, &dirs);
    let (attached, pins) = (programs(host), names_below(netfast.pin_dir()));
    assert_eq!(attached.len(), 8, "{attached:?}");
    assert_eq!(state(&netfast)["in_sync"], true, "it had no time to say goodbye");
    must_be_fast(&netfast, "after the panic");
    netfast.launch().expect("the next one starts");
    assert_eq!(programs(host), attached);
    assert_eq!(names_below(netfast.pin_dir()), pins);
    must_be_fast(&netfast, "with the next one");
    netfast.detach().expect("detach");
    assert_eq!(Marks::of(host), before);
    load.end();
}

/// Runs this test in a process of its own, in the host's namespace, where it panics.
fn panicked(host: &NetNs, dirs: &std::path::Path) {
    let program = env::current_exe().expect("this program").display().to_string();
    let mut command = host.command(&program);
    command
        .args(["--exact", "daemon::trouble::a_panic_leaves_the_fast_path_as_it_is"])
        .env(PANICS, dirs);
    let done = cmd::finish(&mut command, TIMEOUT).expect("it ends");
    assert_eq!(done.status.code(), Some(101), "{done:?}");
    assert!(done.stdout.contains("a bug in the daemon"), "{done:?}");
}

/// The daemon itself, until it is in sync; then a panic in the thread that it runs on.
fn panic_when_ready(dirs: &std::path::Path) -> ! {
    let real = |name: &str| std::fs::read_link(dirs.join(name)).expect("a link");
    let settings = Settings {
        file: None,
        typed: RawConfig {
            runtime: Some(Runtime::None),
            ..RawConfig::default()
        },
        pin_dir: real("pins"),
        run_dir: real("run"),
        without: Without::default(),
        wait: false,
        state_dir: None,
        given: None,
    };
    let state = settings.run_dir.join("state.json");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let is_ready = move || {
        let text = std::fs::read_to_string(&state).ok()?;
        let state: Value = serde_json::from_str(&text).ok()?;
        (state["in_sync"] == true).then_some(())
    };
    runtime.block_on(async {
        let mut daemon = Box::pin(daemon::run(settings, None));
        let mut bug = Box::pin(async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(is_ready().is_none(), "a bug in the daemon");
            }
        });
        poll_fn(|context| {
            let never: std::task::Poll<()> = bug.as_mut().poll(context);
            assert!(never.is_pending(), "it has no end");
            daemon.as_mut().poll(context)
        })
        .await
        .expect("it does not get that far");
    });
    panic!("the daemon ended before it panicked");
}
