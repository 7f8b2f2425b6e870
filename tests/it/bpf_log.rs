//! What the BPF programs say: nothing in a released build; in one for debugging (feature `bpf-log`, which `cargo xtask
//! test` builds beside), what becomes of packets off the fast path.

use std::{env, path::PathBuf, time::Duration};

use aya_obj::Object;
use netfast::apply::OBJECT;
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    programs as tools,
    require::{Need, needs},
    topo::{self, Topo},
};

/// The variable with the build for debugging.
const PROGRAM: &str = "NETFAST_BPF_LOG_BIN";
const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn a_released_object_has_nothing_to_log_with() {
    let object = Object::parse(OBJECT).expect("an object");
    let foreign: Vec<&String> = object
        .maps
        .keys()
        .filter(|name| !name.starts_with("netfast_") && !name.starts_with(".rodata"))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let has = |text: &[u8]| OBJECT.windows(text.len()).any(|window| window == text);
    assert!(has(b"netfast_control"), "names are found like this");
    for name in [&b"AYA_LOG"[..], b"aya_log", b"netfast_log_in", b"netfast_log_out"] {
        assert!(!has(name), "{} is in it", String::from_utf8_lossy(name));
    }
}

fn start(topo: &Topo, filter: Option<&str>) -> (NetfastProc, cmd::Background) {
    let program = env::var_os(PROGRAM).map(PathBuf::from);
    let program = program.unwrap_or_else(|| panic!("{PROGRAM} is not set: run it by `cargo xtask test netns`"));
    let mut netfast = NetfastProc::prepare(topo.host(), Options::no_runtime()).expect("prepared");
    netfast.use_program(&program);
    let mut command = netfast.command(&["run", "--runtime", "none"]);
    if let Some(filter) = filter {
        command.env("NETFAST_LOG", filter);
    }
    let daemon = cmd::Background::start(&mut command).expect("it starts");
    cmd::poll("it is ready", TIMEOUT, || {
        let state = std::fs::read_to_string(netfast.run_dir().join("state.json")).ok()?;
        state.contains("\"in_sync\":true").then_some(())
    })
    .expect("ready");
    (netfast, daemon)
}

#[test]
fn a_build_for_debugging_tells_what_was_learned_and_nothing_of_the_fast_path() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = Topo::new(&topo::Options::default()).expect("a topology");
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    let ping = format!("busybox ping -c1 -W2 {}", two.ip);
    one.ns.sh(&ping).expect("they reach each other");
    let tool = tools::traffic().expect("the traffic tool").display().to_string();
    let _server = two.ns.spawn(&[&tool, "rr-server", "7000"]).expect("a server");
    std::thread::sleep(Duration::from_millis(300));
    let to = format!("{}:7000", two.ip);
    let talk = |netfast: &NetfastProc| {
        let before = netfast.totals().expect("totals").fast_packets;
        let client = ["paced", &to, "--rate", "500", "--seconds", "3"];
        let client = one
            .ns
            .spawn(&[&[tool.as_str()], &client[..]].concat())
            .expect("a client");
        client.wait(TIMEOUT).expect("it ends");
        let fast = netfast.totals().expect("totals").fast_packets - before;
        assert!(fast > 1000, "{fast} packets took the fast path");
        fast
    };

    // `learned` is 40, `paired` 41, `no-flow` 18.
    let (netfast, daemon) = start(&topo, Some("debug"));
    talk(&netfast);
    netfast.detach().expect("detach");
    let said = daemon.wait(TIMEOUT).expect("it ends").stderr;
    for learned in ["out, reason 40", "out, reason 41"] {
        assert!(said.contains(learned), "{said}");
    }
    assert!(!said.contains("slow, reason"), "that is for the next level: {said}");
    let lines = |said: &str| said.lines().filter(|line| line.contains(", reason ")).count();
    assert!(lines(&said) < 300, "{} lines", lines(&said));

    let (netfast, daemon) = start(&topo, Some("trace"));
    talk(&netfast);
    netfast.detach().expect("detach");
    let said = daemon.wait(TIMEOUT).expect("it ends").stderr;
    assert!(said.contains("slow, reason 18"), "{said}");

    // And without being asked, nothing.
    let (netfast, daemon) = start(&topo, None);
    talk(&netfast);
    netfast.detach().expect("detach");
    let said = daemon.wait(TIMEOUT).expect("it ends").stderr;
    assert_eq!(lines(&said), 0, "{said}");
}
