//! `netfast report`: what is handed on to others tells what is wrong with a host, and not whose it is.

use std::{fs, process::Command};

use super::lab::{Lab, talk};
use crate::archive::{PARTS, made};
use netfast_tests::{
    netfast_proc::{NetfastProc, Options},
    programs,
    require::{Need, needs},
    seccomp,
    topo::{self, Topo},
};

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];
#[test]
fn a_report_tells_much_and_names_nobody() {
    if !needs(&NEEDS) {
        return;
    }
    let lab = Lab::start();
    let conversation = talk(&lab, 7777);
    lab.topo
        .host()
        .sh("nft 'add table ip zaphods; add chain ip zaphods trillian; add rule ip zaphods trillian ip saddr 203.0.113.77 drop'")
        .expect("a rule of somebody's");
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let words = format!(
        "{}2026-11-30 cannot attach to beeblebrox at 198.51.100.7\n",
        lab.netfast.log()
    );
    fs::write(&log, words).expect("a log");
    let log = format!("--log={}", log.display());
    let report = made(lab.netfast.command(&["report", "--runtime", "none", &log]), dir.path());
    drop(conversation);

    for part in &PARTS[1..] {
        assert_eq!(report.error(part), "", "{part}");
    }
    let said = |part: &str, text: &str| assert!(report.files[part].contains(text), "{part}: {}", report.files[part]);
    said("check.txt", "netfast can run here");
    said("status.txt", "3 of 3 endpoints, daemon running");
    said("networks.txt", "br-0");
    said("log.txt", "ready: ");
    said("kernel.txt", "net.ipv4.ip_forward");
    said("netfast.toml", "learn_after");
    said("rules.txt", "RULES BY CHAIN");
    let veth = &lab.topo.bridges[0].containers[0].veth;
    let macs = lab.topo.host().sh("ip -o link").expect("links");
    let macs = macs
        .split_whitespace()
        .filter(|word| word.len() == 17 && word.contains(':'));
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let mut secrets = vec![
        "zaphods",
        "trillian",
        "beeblebrox",
        "203.0.113.77",
        "198.51.100.7",
        host.trim(),
    ];
    secrets.extend(macs.filter(|mac| !["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"].contains(mac)));
    for (part, text) in &report.files {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in {part}:\n{text}");
        }
    }
    assert!(secrets.len() > 8, "there is something to hide: {secrets:?}");
    // Of the rule, that it is there.
    let counted = report.files["rules.txt"].lines().find(|line| line.contains("word-"));
    assert!(
        counted.is_some_and(|line| line.split_whitespace().nth(3) == Some("1")),
        "{veth}: {:?}",
        report.files
    );
}

/// Each of these keeps netfast from its work; its report says so, and has the rest.
#[test]
fn a_report_of_a_broken_host_says_what_is_broken() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = Topo::new(&topo::Options::default()).expect("a topology");
    let dir = tempfile::tempdir().expect("a directory");
    let prepared = || NetfastProc::prepare(topo.host(), Options::no_runtime()).expect("prepared");
    let plain = ["report", "--runtime", "none"];

    // Nothing was ever started here.
    let netfast = prepared();
    let report = made(netfast.command(&plain), dir.path());
    assert!(
        report.error("status.txt").contains("nothing is attached"),
        "{}",
        report.list
    );
    assert!(report.files["check.txt"].contains("netfast can run here"));
    assert!(report.files["README.txt"].contains("status.txt"));

    // The engine is not there.
    let engine = made(
        netfast.command(&["report", "--docker-host", "unix:///nonexistent/docker.sock"]),
        dir.path(),
    );
    let check = &engine.files["check.txt"];
    assert!(
        check.contains("cannot be asked") && check.contains("would exit with 6"),
        "{check}"
    );

    // The configuration is wrong.
    let config = dir.path().join("wrong.toml");
    fs::write(&config, "revalidate_ms = \"zaphod\"\n").expect("a file");
    let mut command = netfast.command(&plain);
    command.arg("--config").arg(&config);
    let wrong = made(command, dir.path());
    assert!(wrong.error("netfast.toml").contains("revalidate_ms"), "{}", wrong.list);
    assert!(wrong.error("check.txt").contains("revalidate_ms"), "{}", wrong.list);
    assert!(!wrong.list.to_string().contains("zaphod"), "{}", wrong.list);
    assert_eq!(wrong.error("kernel.txt"), "");

    // The kernel refuses BPF, as seccomp or a lockdown makes it.
    let mut command = netfast.command(&plain);
    seccomp::refuse(&mut command, libc::SYS_bpf, None, libc::EPERM);
    let refused = made(command, dir.path());
    let check = &refused.files["check.txt"];
    assert!(check.contains("does not permit netfast to load a program"), "{check}");
    assert_eq!(refused.error("rules.txt"), "");

    // The daemon's state was cut off, and what is pinned is gone.
    let mut netfast = NetfastProc::start(topo.host(), Options::no_runtime()).expect("it starts");
    netfast.stop(nix::sys::signal::Signal::SIGKILL).expect("killed");
    let state = netfast.run_dir().join("state.json");
    let whole = fs::read(&state).expect("a state");
    fs::write(&state, &whole[..whole.len() / 2]).expect("cut off");
    let cut = made(netfast.command(&plain), dir.path());
    assert!(
        cut.error("status.txt").contains("is not a state of this version"),
        "{}",
        cut.list
    );
    fs::write(&state, &whole).expect("whole again");

    // Root without its capabilities, as in a container.
    let program = programs::netfast().expect("netfast");
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-all").arg(program).args(plain);
    let nobody = made(command, dir.path());
    let check = &nobody.files["check.txt"];
    assert!(check.contains("missing capability CAP_BPF"), "{check}");
    assert!(nobody.error("rules.txt").contains("not permitted"), "{}", nobody.list);
    assert_eq!(nobody.error("kernel.txt"), "");
}
