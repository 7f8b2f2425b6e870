//! What detach does not break, and what it leaves where tcx does not exist.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    programs as tools,
    require::{Need, needs},
    site::LAN_IP,
    topo,
    traffic::hash,
};
use nix::sys::signal::Signal;

use super::{Marks, fast_endpoints, heard, names, programs, start, state, wait_for};

const BE_LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";
/// Large enough to last until the middle of it has been met.
const BYTES: u64 = 1 << 30;

/// A connection through masquerade has been on the fast path for long, so conntrack's window is far behind; then the
/// fast path goes. Only the mark of the connection itself lets its segments pass.
#[test]
fn a_connection_survives_detach_in_its_middle() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = heard(&topo::Options::default());
    assert_eq!(topo.host().sysctl(BE_LIBERAL).expect("conntrack"), "0");
    let netfast = start(topo.host());
    let tool = tools::traffic().expect("the traffic tool").display().to_string();
    let server = topo
        .lan()
        .spawn(&[&tool, "recv-hash", "7000"])
        .expect("the server starts");
    sleep(Duration::from_millis(200));
    let to = format!("{LAN_IP}:7000");
    let client = topo
        .container(0, 0)
        .ns
        .spawn(&[
            &tool,
            "send-hash",
            &to,
            "--bytes",
            &BYTES.to_string(),
            "--back",
            "100000",
        ])
        .expect("the client starts");
    cmd::poll("it is on the fast path", Duration::from_secs(30), || {
        let fast = netfast.totals().ok()?.fast_packets;
        (fast > 5_000).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
    let begin = Instant::now();
    assert_eq!(topo.host().sysctl(BE_LIBERAL).expect("conntrack"), "0");
    netfast.verb(&["detach"]).expect("detach");
    assert_eq!(topo.host().sysctl(BE_LIBERAL).expect("conntrack"), "0");
    let done = client.wait(Duration::from_mins(1)).expect("it ends");
    assert!(done.status.success(), "{done:?}");
    let report: hash::Report = serde_json::from_str(&done.stdout).expect("a report");
    assert!(report.exact && report.close_seconds < 1.0, "{report:?}");
    assert!(
        begin.elapsed().as_secs_f64() < report.seconds,
        "it had not ended before detach"
    );
    let done = server.wait(Duration::from_secs(10)).expect("it ends");
    assert!(done.status.success(), "{done:?}");
}

/// As on kernels before 6.6.
#[test]
fn without_tcx_filters_are_made_taken_over_and_removed() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    // One clsact is somebody else's, with a filter of theirs.
    host.sh("tc qdisc add dev eth0 clsact").expect("clsact");
    host.sh("tc filter add dev eth0 egress prio 7 bpf da bytecode '1,6 0 0 4294967295,'")
        .expect("a filter");
    let filters = |device: &str| {
        let show = |hook: &str| host.sh(&format!("tc filter show dev {device} {hook}")).expect("tc");
        show("ingress") + "\n" + &show("egress")
    };
    let before = (Marks::of(host), filters("eth0"));
    let netfast = NetfastProc::prepare(host, Options::no_runtime()).expect("prepared");
    let launch = || {
        let mut command = netfast.command(&["run", "--runtime", "none"]);
        let daemon = cmd::Background::start(command.env("NETFAST_WITHOUT_TCX", "1")).expect("it starts");
        let pid = daemon.pid();
        wait_for(&netfast, "it is ready", Duration::from_secs(5), |state| {
            state["pid"] == pid && state["in_sync"] == true
        });
        daemon
    };
    let daemon = launch();
    assert_eq!(programs(host), Vec::<String>::new());
    let ours = |device: &str, kind: &str| {
        let found = filters(device);
        for hook in ["in", "out"] {
            let name = format!("netfast_{kind}_{hook} direct-action");
            assert_eq!(found.matches(&name).count(), 1, "{device}: {found}");
        }
    };
    let check = |netfast: &NetfastProc| {
        for (device, kind) in [("eth0", "up"), ("br-0", "br"), ("veth0x0", "ep"), ("veth0x1", "ep")] {
            ours(device, kind);
        }
        let state = state(netfast);
        assert_eq!(state["attached_by"], "clsact");
        assert_eq!(fast_endpoints(&state), names(&["veth0x0", "veth0x1"]));
    };
    check(&netfast);
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    one.ns
        .sh(&format!("busybox ping -c1 -W2 {}", two.ip))
        .expect("they reach each other");
    daemon.signal(Signal::SIGKILL).expect("kill");
    daemon.wait(Duration::from_secs(5)).expect("it ends");
    let daemon = launch();
    check(&netfast);
    daemon.stop().expect("it ends");
    netfast.detach().expect("detach");
    assert_eq!((Marks::of(host), filters("eth0")), before);
}
