//! What commands say of a host without a runtime, on the command line and to a shell that completes.

use std::{process::Command, time::Duration};

use netfast_tests::{
    cmd::{self, Background, Finished},
    programs,
    require::{Need, needs},
};
use serde_json::Value;

use super::lab::{Lab, talk};
use crate::daemon::Marks;

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];

#[test]
fn status_has_a_verdict_a_choice_and_goes_on() {
    if !needs(&NEEDS) {
        return;
    }
    let lab = Lab::start();
    let conversation = talk(&lab, 7777);
    let text = lab.netfast.verb(&["status"]).expect("status");
    let verdict = text.lines().next().unwrap_or_default();
    assert!(
        verdict.starts_with("ok: ") && verdict.contains(" of packets fast, 3 of 3 endpoints, daemon running"),
        "{text}"
    );
    assert!(!text.contains("CANDIDATES FOR LEARNING"), "{text}");
    let verbose = lab.netfast.verb(&["status", "--verbose"]).expect("status");
    assert!(verbose.contains("CANDIDATES FOR LEARNING"), "{verbose}");

    let (one, other) = (
        &lab.topo.bridges[0].containers[0].veth,
        &lab.topo.bridges[1].containers[0].veth,
    );
    let container = lab.netfast.verb(&["status", one]).expect("status");
    assert!(
        container.contains("1 of 1 endpoints") && container.contains(one) && !container.contains(other),
        "{container}"
    );
    let bridge = &lab.topo.bridges[0].name;
    let network: Value =
        serde_json::from_str(&lab.netfast.verb(&["status", bridge, "--json"]).expect("status")).expect("JSON");
    assert_eq!(network["networks"].as_array().map(Vec::len), Some(1), "{network:#}");
    let nobody = lab.netfast.try_verb(&["status", "nobody"]).expect("it ends");
    assert_eq!(nobody.status.code(), Some(1), "{}", nobody.stderr);

    // Again and again, until it is interrupted.
    let watch = Background::start(&mut lab.netfast.command(&["status", "--watch=0.2"])).expect("it starts");
    std::thread::sleep(Duration::from_secs(2));
    let done = watch.stop().expect("it ends");
    let times = done.stdout.matches("daemon running").count();
    assert!(times >= 2, "printed {times} times:\n{}", done.stdout);
    drop(conversation);
}

/// Found: `explain` asked the routes of whoever called it, and `status` with another instance's run directory said that no
/// daemon runs.
#[test]
fn who_asks_from_elsewhere_is_told_so() {
    if !needs(&NEEDS) {
        return;
    }
    let lab = Lab::start();
    let veth = &lab.topo.bridges[0].containers[0].veth;
    let program = programs::netfast().expect("netfast").display().to_string();
    let [pins, run] = [lab.netfast.pin_dir(), lab.netfast.run_dir()].map(|dir| dir.display().to_string());
    let elsewhere = lab
        .topo
        .lan()
        .spawn(&[
            &program,
            "explain",
            veth,
            "192.0.2.9",
            "--pin-dir",
            &pins,
            "--run-dir",
            &run,
        ])
        .and_then(|command| command.wait(cmd::TIME_LIMIT))
        .expect("it ends");
    assert_eq!(elsewhere.status.code(), Some(1), "{elsewhere:?}");
    assert!(
        elsewhere.stderr.contains("another network namespace") && elsewhere.stderr.contains("nsenter --net=/proc/"),
        "{}",
        elsewhere.stderr
    );
    let other = format!("{run}-other");
    for verb in ["status", "networks", "flows"] {
        let done = lab
            .topo
            .host()
            .spawn(&[&program, verb, "--pin-dir", &pins, "--run-dir", &other])
            .and_then(|command| command.wait(cmd::TIME_LIMIT))
            .expect("it ends");
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(done.stderr.contains(&format!("--run-dir {run}")), "{}", done.stderr);
    }
}

/// Found: a note on a closed standard error ended it like a fault of its own.
#[test]
fn a_reader_that_is_gone_is_no_fault() {
    if !needs(&NEEDS) {
        return;
    }
    let lab = Lab::start();
    let mut trace = lab.netfast.command(&["trace", "--seconds", "0.5"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    trace.stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
    let status = trace.status().expect("it runs");
    assert_eq!(status.code(), Some(0), "{status}");
    for wrong in ["nan", "-1", "0", "inf"] {
        let done = lab
            .netfast
            .try_verb(&["trace", &format!("--seconds={wrong}")])
            .expect("it ends");
        assert_eq!(done.status.code(), Some(2), "{wrong}: {done:?}");
    }
}

#[test]
fn explain_does_not_contradict_its_flows_without_a_runtime() {
    if !needs(&NEEDS) {
        return;
    }
    let lab = Lab::start();
    let conversation = talk(&lab, 7777);
    let (a, b) = (&lab.topo.bridges[0].containers[0], &lab.topo.bridges[0].containers[1]);
    for to in [b.ip.to_string(), format!("{}:7777", b.ip)] {
        let text = lab.netfast.verb(&["explain", &a.veth, &to]).expect("explain");
        assert!(
            text.contains("on the fast path") && !text.contains("no route"),
            "{text}"
        );
    }
    drop(conversation);
}

#[test]
fn networks_without_a_runtime_have_no_blank_columns() {
    if !needs(&NEEDS) {
        return;
    }
    let lab = Lab::start();
    let text = lab.netfast.verb(&["networks"]).expect("networks");
    let head = text.lines().next().unwrap_or_default();
    assert!(head.starts_with("NAME"), "{text}");
    for line in text.lines().skip(1) {
        assert!(!line.starts_with(' '), "{text}");
    }
    for blank in ["NETWORK ID", "SUBNET"] {
        assert!(!head.contains(blank), "{text}");
    }
}

#[test]
fn a_dry_run_says_what_detach_then_does() {
    if !needs(&NEEDS) {
        return;
    }
    let mut lab = Lab::start();
    let before = Marks::of(lab.topo.host());
    let would: Value =
        serde_json::from_str(&lab.netfast.verb(&["--json", "detach", "--dry-run"]).expect("it ends")).expect("JSON");
    assert_eq!(would["stopped"], lab.netfast.pid().expect("it runs"), "{would:#}");
    let text = lab.netfast.verb(&["detach", "-n"]).expect("it ends");
    assert!(
        text.contains("nothing is changed") && text.contains("Stop the daemon"),
        "{text}"
    );
    assert_eq!(Marks::of(lab.topo.host()), before);
    lab.netfast
        .stop(nix::sys::signal::Signal::SIGTERM)
        .expect("it still runs");
    let done: Value = serde_json::from_str(&lab.netfast.verb(&["detach", "--json"]).expect("it ends")).expect("JSON");
    for key in ["links", "pin_directories", "clsact", "sysctls", "ways"] {
        assert_eq!(would[key], done[key], "{key}: {would:#}");
    }
    let text = lab.netfast.verb(&["detach", "--dry-run"]).expect("it ends");
    assert!(text.contains("nothing to do"), "{text}");
}

/// What bash offers for the last of these words.
fn offered(lab: &Lab, words: &[&str]) -> Vec<String> {
    let program = programs::netfast().expect("the binary").display().to_string();
    // As the package's script does, which only names it otherwise.
    let script = r#"
        eval "$(COMPLETE=bash "$1")"
        shift
        COMP_WORDS=(netfast "$@") COMP_CWORD=$#
        _clap_complete_netfast netfast "${COMP_WORDS[COMP_CWORD]}" ""
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash", &program])
        .args(words)
        .env("NETFAST_RUN_DIR", lab.netfast.run_dir());
    let Finished { status, stdout, stderr } = cmd::finish(&mut bash, cmd::TIME_LIMIT).expect("it ends");
    assert!(status.success(), "{stderr}");
    stdout.lines().map(|word| word.trim().to_owned()).collect()
}

#[test]
fn a_shell_completes_containers_networks_and_reasons() {
    if !needs(&[Need::Root, Need::Kernel(6, 6), Need::Program("bash")]) {
        return;
    }
    let lab = Lab::start();
    let has = |words: &[&str], wanted: &str| {
        let found = offered(&lab, words);
        assert!(
            found.iter().any(|word| word == wanted),
            "{words:?}: no {wanted} in {found:?}"
        );
        found
    };
    let veth = &lab.topo.bridges[0].containers[0].veth;
    let bridge = &lab.topo.bridges[0].name;
    has(&["sta"], "status");
    has(&["explain", ""], veth);
    has(&["explain", veth, ""], veth);
    has(&["flows", "--container", ""], veth);
    has(&["networks", ""], bridge);
    has(&["status", ""], bridge);
    has(&["status", ""], veth);
    let reasons = has(&["explain", "--reason", "no-f"], "no-flow");
    assert!(reasons.iter().all(|reason| reason.starts_with("no-f")), "{reasons:?}");
    has(&["trace", "reason", ""], "no-flow");
    has(&["trace", "host", ""], veth);
    has(&["trace", ""], "tcp");
    // What is typed goes before the environment.
    let elsewhere = offered(&lab, &["explain", "--run-dir", "/nonexistent", ""]);
    assert!(!elsewhere.contains(veth), "{elsewhere:?}");
}

#[test]
fn flows_are_followed_as_lines() {
    if !needs(&NEEDS) {
        return;
    }
    let lab = Lab::start();
    let follow = Background::start(&mut lab.netfast.command(&["flows", "--follow=0.2"])).expect("it starts");
    std::thread::sleep(Duration::from_secs(1));
    let conversation = talk(&lab, 7777);
    std::thread::sleep(Duration::from_secs(1));
    drop(conversation);
    let done = follow.stop().expect("it ends");
    let lines = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let of_it: Vec<Value> = lines
        .filter(|line: &Value| line.to_string().contains(":7777\""))
        .collect();
    let events: Vec<&str> = of_it.iter().filter_map(|line| line["event"].as_str()).collect();
    assert!(events.contains(&"open"), "{}", done.stdout);
    assert!(!events.contains(&"found"), "it began later: {}", done.stdout);
    assert!(
        of_it
            .iter()
            .all(|line| line["time_ms"].as_u64() > Some(1_600_000_000_000)),
        "{}",
        done.stdout
    );
    let both = lab
        .netfast
        .try_verb(&["flows", "--follow", "--limit", "3"])
        .expect("it ends");
    assert_eq!(both.status.code(), Some(2), "{}", both.stderr);
}
