//! What the daemon tells a service manager, heard by the test in the manager's place.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use aya::programs::LinkOrder;
use netfast_tests::{
    cmd::Background,
    netfast_proc::{NetfastProc, Options},
    require::{Need, needs},
    topo,
};
use nix::sys::signal::Signal;

use super::{fast_endpoints, foreign::Foreign, heard, names, programs, state, wait_for};

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];
/// What must come, comes within this.
const LIMIT: Duration = Duration::from_secs(30);

/// The manager's end of the notification socket.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn new(netfast: &NetfastProc) -> Self {
        let path = netfast.run_dir().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, path }
    }

    fn launch(&self, netfast: &NetfastProc, watchdog: Option<Duration>) -> Background {
        self.launch_with(netfast, &["run", "--runtime", "none"], watchdog)
    }

    fn launch_with(&self, netfast: &NetfastProc, verb: &[&str], watchdog: Option<Duration>) -> Background {
        let mut command = netfast.command(verb);
        command
            .env("NOTIFY_SOCKET", &self.path)
            .arg("--config")
            .arg(netfast.run_dir().join("netfast.toml"));
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        Background::start(&mut command).expect("it starts")
    }

    /// The next message; `None` if none comes within `limit`.
    fn hear(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).expect("a limit");
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// The first message with this in it, and all before it.
    fn await_message(&self, what: &str) -> (String, Vec<String>) {
        let (end, mut before) = (Instant::now() + LIMIT, Vec::new());
        while Instant::now() < end {
            if let Some(message) = self.hear(Duration::from_secs(1)) {
                if message.contains(what) {
                    return (message, before);
                }
                before.push(message);
            }
        }
        panic!("no {what} within {LIMIT:?}; heard {before:?}");
    }
}

fn prepare(topo: &topo::Topo) -> NetfastProc {
    let options = Options {
        config: Some(String::new()),
        ..Options::no_runtime()
    };
    NetfastProc::prepare(topo.host(), options).expect("prepared")
}

#[test]
fn heartbeats_come_from_the_main_loop_and_a_reload_is_announced() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let netfast = prepare(&topo);
    let manager = Manager::new(&netfast);
    let daemon = manager.launch(&netfast, Some(Duration::from_millis(300)));
    let (ready, before) = manager.await_message("READY=1");
    assert_eq!(state(&netfast)["in_sync"], true, "ready is in sync");
    assert!(
        ready.contains("STATUS=2 endpoints and 1 uplinks on the fast path\n"),
        "{ready}"
    );
    assert!(
        before.iter().all(|message| !message.contains("WATCHDOG")),
        "a heartbeat before the start was done"
    );
    for _ in 0..5 {
        manager.await_message("WATCHDOG=1");
    }
    daemon.signal(Signal::SIGSTOP).expect("it runs");
    // What was under way when it stopped.
    while manager.hear(Duration::from_millis(400)).is_some() {}
    assert_eq!(
        manager.hear(Duration::from_secs(1)),
        None,
        "a stopped daemon shows no life"
    );
    daemon.signal(Signal::SIGCONT).expect("it runs");
    manager.await_message("WATCHDOG=1");

    for (text, interval) in [("revalidate_ms = 250\n", 250), ("revalidate_ms = 0\n", 250)] {
        fs::write(netfast.run_dir().join("netfast.toml"), text).expect("a file");
        daemon.signal(Signal::SIGHUP).expect("it runs");
        let (reloading, _) = manager.await_message("RELOADING=1");
        assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
        manager.await_message("READY=1");
        let tables = netfast::apply::read::Tables::open(netfast.pin_dir()).expect("tables");
        let found = tables.control().expect("the switches").revalidate_ns / 1_000_000;
        assert_eq!(found, interval, "in force when it is announced, or not at all");
    }
    daemon.signal(Signal::SIGTERM).expect("it runs");
    manager.await_message("STOPPING=1");
    daemon.wait(LIMIT).expect("it ends");
}

/// A host without Docker gets up, the daemon waits and shows life, and what comes later is followed.
#[test]
fn a_runtime_that_does_not_answer_is_waited_for() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let netfast = prepare(&topo);
    let manager = Manager::new(&netfast);
    let nowhere = format!("unix://{}/docker.sock", netfast.run_dir().display());
    fs::write(
        netfast.run_dir().join("netfast.toml"),
        format!("docker_host = \"{nowhere}\"\n"),
    )
    .expect("a file");
    let daemon = manager.launch_with(&netfast, &["run", "--wait"], Some(Duration::from_millis(300)));
    let begin = Instant::now();
    let waiting = "STATUS=waiting for the container runtime: ";
    let (first, _) = manager.await_message(waiting);
    assert!(!first.contains("READY"), "{first}");
    let (ready, _) = manager.await_message("READY=1");
    assert!(ready.contains(waiting) && ready.contains("docker.sock"), "{ready}");
    assert!(
        begin.elapsed() >= Duration::from_secs(4),
        "ready after {:?}",
        begin.elapsed()
    );
    for _ in 0..5 {
        manager.await_message("WATCHDOG=1");
    }
    assert!(!netfast.run_dir().join("state.json").exists());
    let status = netfast.try_verb(&["status"]).expect("it ends");
    assert_eq!(status.status.code(), Some(7), "{}", status.stderr);

    // Told to follow none, it goes on at once.
    fs::write(netfast.run_dir().join("netfast.toml"), "runtime = \"none\"\n").expect("a file");
    daemon.signal(Signal::SIGHUP).expect("it runs");
    manager.await_message("STATUS=2 endpoints and 1 uplinks on the fast path");
    assert_eq!(state(&netfast)["in_sync"], true);
    daemon.signal(Signal::SIGTERM).expect("it runs");
    let done = daemon.wait(LIMIT).expect("it ends");
    assert!(done.status.success(), "{}", done.stderr);
    assert_eq!(
        done.stderr.matches("waiting for the container runtime: ").count(),
        1,
        "said once: {}",
        done.stderr
    );

    // While it waits it can be stopped.
    fs::write(
        netfast.run_dir().join("netfast.toml"),
        format!("docker_host = \"{nowhere}\"\n"),
    )
    .expect("a file");
    let daemon = manager.launch_with(&netfast, &["run", "--wait"], None);
    manager.await_message(waiting);
    daemon.signal(Signal::SIGTERM).expect("it runs");
    manager.await_message("STOPPING=1");
    let done = daemon.wait(LIMIT).expect("it ends");
    assert!(done.status.success(), "{}", done.stderr);
}

/// One that cannot be attached to must neither hold up the others nor be forgotten.
#[test]
fn an_endpoint_that_cannot_be_attached_to_is_told_and_tried_again() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let netfast = prepare(&topo);
    let manager = Manager::new(&netfast);
    // As many programs as a hook can have (`bpf_mprog_max`), and of those that do not keep the endpoint on the slow path.
    let mut others: Vec<Foreign> = (0..63).map(|number| Foreign::load(&format!("other{number}"))).collect();
    topo.host()
        .run(|| {
            for other in &mut others {
                other.attach("veth0x0", LinkOrder::default());
            }
        })
        .expect("entered");

    let begin = Instant::now();
    let daemon = manager.launch(&netfast, None);
    let (ready, before) = manager.await_message("READY=1");
    // It did try for a while first; then a host with one bad interface is better up than not.
    assert!(
        begin.elapsed() >= Duration::from_secs(5),
        "ready after {:?} only",
        begin.elapsed()
    );
    let missing = "; 1 interfaces could not be attached to and are tried again";
    assert!(ready.contains(missing), "{ready}");
    assert!(before.iter().any(|message| message.contains(missing)), "{before:?}");
    let found = state(&netfast);
    assert_eq!(found["in_sync"], false);
    assert_eq!(fast_endpoints(&found), names(&["veth0x1"]), "{found:#}");
    let status = netfast.verb(&["status"]).expect("status");
    assert!(
        status.contains("veth0x0") && status.contains("cannot attach"),
        "{status}"
    );

    drop(others.pop());
    let both = names(&["veth0x0", "veth0x1"]);
    let found = wait_for(&netfast, "it is tried again", Duration::from_mins(1), |state| {
        fast_endpoints(state) == both
    });
    assert_eq!(found["in_sync"], true);
    manager.await_message("STATUS=2 endpoints and 1 uplinks on the fast path\n");
    daemon.stop().expect("it ends");
    netfast.detach().expect("detach");
    assert!(!netfast.pin_dir().exists());
    assert!(
        programs(topo.host()).iter().all(|program| program.contains(" other")),
        "all of ours are gone"
    );
}
