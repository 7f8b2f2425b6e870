//! The command line from outside: exit codes and messages, with nothing running.

use std::{
    io,
    process::{Command, Stdio},
};

use netfast_tests::{
    cmd::{self, Finished},
    netfast_proc::{NetfastProc, Options},
    netns::NetNs,
    programs,
    require::{Need, needs},
};
use serde_json::Value;

fn netfast(args: &[&str]) -> Command {
    let mut command = Command::new(programs::netfast().expect("the binary"));
    command.args(args).env_remove("NETFAST_LOG");
    command
}

fn finish(command: &mut Command) -> Finished {
    cmd::finish(command, cmd::TIME_LIMIT).expect("it ends")
}

fn code(done: &Finished) -> i32 {
    done.status.code().unwrap_or_else(|| panic!("killed: {done:?}"))
}

#[test]
fn help_goes_to_stdout_and_says_what_the_exit_codes_mean() {
    let done = finish(&mut netfast(&["--help"]));
    assert_eq!((code(&done), done.stderr.as_str()), (0, ""));
    assert!(done.stdout.contains("Exit codes:"), "{}", done.stdout);
    for verb in [
        "run", "status", "networks", "aliases", "flows", "check", "report", "detach",
    ] {
        assert!(
            done.stdout.contains(&format!("\n  {verb} ")),
            "{verb} is not in the help"
        );
        let help = finish(&mut netfast(&[verb, "--help"]));
        assert_eq!(code(&help), 0);
        assert!(
            help.stdout.contains("--pin-dir") && help.stdout.contains("--run-dir"),
            "{verb}"
        );
        let prints = verb != "run";
        assert_eq!(
            help.stdout.contains("--json"),
            prints,
            "{verb}: --json on every verb that prints"
        );
    }
}

#[test]
fn help_and_version_are_commands_and_every_option_may_come_first() {
    let help = finish(&mut netfast(&["help", "trace"]));
    assert_eq!((code(&help), help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("Usage: netfast trace"), "{}", help.stdout);
    let (long, short) = (finish(&mut netfast(&["--version"])), finish(&mut netfast(&["version"])));
    assert_eq!((code(&short), &short.stdout), (0, &long.stdout));
    let json = finish(&mut netfast(&["--json", "version"]));
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(
        long.stdout.trim(),
        format!("netfast {}", json["version"].as_str().expect("a version"))
    );

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    let typed = finish(&mut netfast(&[
        "--json",
        "--run-dir",
        path,
        "--pin-dir",
        path,
        "status",
    ]));
    let said = finish(
        netfast(&["status"])
            .env("NETFAST_RUN_DIR", path)
            .env("NETFAST_PIN_DIR", path),
    );
    for done in [typed, said] {
        assert_eq!(code(&done), 7, "{}", done.stderr);
        assert!(
            done.stderr.contains(&format!("(pins: {path}, state: {path})")),
            "{}",
            done.stderr
        );
    }
    // What is typed goes before the environment, wherever it stands.
    let both = finish(
        netfast(&["--run-dir", path, "status", "--pin-dir", path])
            .env("NETFAST_RUN_DIR", "/nonexistent")
            .env("NETFAST_PIN_DIR", "/nonexistent"),
    );
    assert!(
        both.stderr.contains(&format!("(pins: {path}, state: {path})")),
        "{}",
        both.stderr
    );
    let none = finish(&mut netfast(&["--json", "run"]));
    assert_eq!(code(&none), 2, "{}", none.stderr);
}

#[test]
fn a_wrong_command_line_is_2_and_says_what_is_wrong() {
    for (args, said) in [
        (&["statsu"][..], "'statsu'"),
        (&["status", "--jsn"], "'--jsn'"),
        (&["run", "--runtime", "podman"], "'podman'"),
        (&["flows", "--limit", "many"], "'many'"),
        (&["run", "--config"], "--config"),
        (&[], "Usage: netfast [OPTIONS] <COMMAND>"),
    ] {
        let done = finish(&mut netfast(args));
        assert_eq!((code(&done), done.stdout.as_str()), (2, ""), "{args:?}");
        assert!(done.stderr.starts_with("netfast: "), "{}", done.stderr);
        assert!(done.stderr.contains(said), "{args:?} said {}", done.stderr);
    }
}

#[test]
fn config_check_says_what_would_be_in_force_or_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("netfast.toml");
    let check = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).expect("a file");
        finish(netfast(&["config", "check"]).arg(&file).args(more))
    };
    let done = check("flows = 4096\n", &[]);
    assert_eq!((code(&done), done.stderr.as_str()), (0, ""));
    assert!(
        done.stdout.contains("flows = 4096  # default: 262144\n"),
        "{}",
        done.stdout
    );
    let done = check("flows = 4096\n", &["--json"]);
    let json: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!((&json["flows"], &json["revalidate_ms"]), (&4096.into(), &1000.into()));
    for (text, said) in [
        ("flow = 1\n", "unknown field `flow`"),
        ("flows = 1\n", "1024 to 16777216"),
    ] {
        let done = check(text, &[]);
        assert_eq!((code(&done), done.stdout.as_str()), (3, ""));
        assert!(
            done.stderr.contains(said) && done.stderr.contains("every key"),
            "{}",
            done.stderr
        );
    }
    let done = finish(&mut netfast(&["config", "check", "/nonexistent/netfast.toml"]));
    assert_eq!(code(&done), 3);
    assert!(done.stderr.contains("/nonexistent/netfast.toml"), "{}", done.stderr);
}

#[test]
fn a_wrong_log_filter_is_2() {
    let done = finish(netfast(&["status"]).env("NETFAST_LOG", "netfast=loud"));
    assert_eq!(code(&done), 2);
    assert!(done.stderr.contains("NETFAST_LOG=\"netfast=loud\""), "{}", done.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut child = netfast(&["--help"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn without_a_daemon_reports_are_7_and_say_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    for verb in ["status", "networks", "aliases", "flows"] {
        for args in [&[verb][..], &[verb, "--json"]] {
            let done = finish(netfast(args).args(["--pin-dir", path, "--run-dir", path]));
            assert_eq!(
                (code(&done), done.stdout.as_str()),
                (7, ""),
                "{args:?}: {}",
                done.stderr
            );
            assert!(
                done.stderr.starts_with("netfast: error: netfast is not running"),
                "{}",
                done.stderr
            );
            assert!(
                done.stderr.contains(path) && done.stderr.contains("netfast run"),
                "{}",
                done.stderr
            );
        }
    }
}

#[test]
fn pins_of_another_version_are_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("v999/maps")).expect("its pins");
    let path = dir.path().to_str().expect("UTF-8");
    let done = finish(netfast(&["status"]).args(["--pin-dir", path, "--run-dir", path]));
    assert_eq!(code(&done), 1);
    assert!(
        done.stderr.contains("of another version of netfast") && done.stderr.contains("/v999"),
        "{}",
        done.stderr
    );
}

fn lines_of(report: &Value) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = report["lines"].as_array().expect("lines");
    lines
        .iter()
        .map(|line| (text(line, "subject"), text(line, "level")))
        .collect()
}

#[test]
fn check_works_without_a_daemon_and_leaves_nothing() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let host = NetNs::new("check").expect("a namespace");
    let netfast = NetfastProc::prepare(&host, Options::no_runtime()).expect("directories");
    let done = netfast
        .try_verb(&["check", "--runtime", "none", "--json"])
        .expect("it ends");
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stdout));
    assert_eq!(code(&done), 0, "{report:#}");
    assert_eq!(
        (&report["can_run"], &report["exit_code"]),
        (&Value::Bool(true), &Value::from(0))
    );
    let lines = lines_of(&report);
    for needed in ["CAP_BPF", "tcx", "BPF programs for tc", "BPF filesystem"] {
        assert!(lines.contains(&(needed.into(), "ok".into())), "{needed}: {lines:?}");
    }
    assert!(!netfast.pin_dir().exists(), "check has made its pin directory");
    let text = netfast.verb(&["check", "--runtime", "none"]).expect("exit code 0");
    assert!(text.contains("netfast can run here"), "{text}");
}

#[test]
fn check_says_why_the_default_route_s_interface_is_no_uplink() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let host = NetNs::new("uplinks").expect("a namespace");
    for command in [
        "ip link add up0 type veth peer name up1",
        "ip address add 192.0.2.1/24 dev up0",
        "ip link set up1 up",
        "ip link set up0 up",
        "ip route add default via 192.0.2.2",
    ] {
        host.sh(command).expect("a default route");
    }
    let netfast = NetfastProc::prepare(&host, Options::no_runtime()).expect("directories");
    let text = netfast.verb(&["check", "--runtime", "none"]).expect("exit code 0");
    assert!(
        text.contains("up0") && text.contains("is no uplink: it is a veth") && text.contains("--uplink up0"),
        "{text}"
    );
    let named = netfast.verb(&["check", "--runtime", "none", "--uplink", "up0"]);
    let named = named.expect("exit code 0");
    assert!(!named.contains("is no uplink"), "{named}");
    let line = named.lines().find(|line| line.contains("uplinks")).unwrap_or_default();
    assert!(line.contains("ok") && line.ends_with("up0"), "{named}");
}

#[test]
fn check_says_which_capability_is_missing() {
    if !needs(&[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-bpf,-sys_admin", "--inh-caps=-all"])
        .arg(programs::netfast().expect("the binary"))
        .args(["check", "--runtime", "none", "--json", "--run-dir"])
        .arg(dir.path());
    let done = finish(&mut command);
    assert_eq!(code(&done), 4, "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let line = &report["lines"][0];
    assert_eq!(
        (&line["subject"], &line["level"]),
        (&Value::from("CAP_BPF"), &Value::from("fail"))
    );
    assert_eq!(line["remedy"], "Run netfast as root, or with CAP_BPF.");
    let lines = lines_of(&report);
    assert!(
        !lines.iter().any(|(subject, _)| subject == "netlink"),
        "said once is enough: {lines:?}"
    );
}

#[test]
fn check_wants_pins_in_a_bpffs() {
    if !needs(&[Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let done = finish(netfast(&["check", "--runtime", "none", "--pin-dir"]).arg(dir.path().join("pins")));
    assert_eq!(code(&done), 5, "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("is not in a BPF filesystem"), "{}", done.stdout);
    assert!(
        done.stdout
            .contains(&format!("mount -t bpf bpf {}", dir.path().display())),
        "{}",
        done.stdout
    );
}
