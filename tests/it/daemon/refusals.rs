//! Bad input and missing means: the message, the exit code, and nothing left behind.

use std::{fs, process::Command, time::Duration};

use netfast_tests::{
    cmd::{self, Finished},
    netfast_proc::{NetfastProc, Options, Runtime},
    require::{Need, needs},
    seccomp, topo,
};

use super::{Marks, heard};

/// A daemon that ended although it should not have started would end within this.
const LIMIT: Duration = Duration::from_secs(20);

struct Refused {
    done: Finished,
}

impl Refused {
    /// Checks exit code and message.
    fn with(self, code: i32, said: &[&str]) {
        let Finished { status, stderr, .. } = &self.done;
        assert_eq!(status.code(), Some(code), "{stderr}");
        let error = stderr.lines().skip_while(|line| !line.starts_with("netfast: error: "));
        let error = error.collect::<Vec<_>>().join("\n");
        assert!(!error.is_empty(), "no error in {stderr}");
        for text in said {
            assert!(error.contains(text), "{text:?} is not in {error}");
        }
    }
}

/// Starts `netfast run` with these arguments in a host; it must refuse and leave nothing.
fn refused(config: Option<&str>, args: &[&str], prefix: &[&str]) -> Refused {
    refused_where(config, args, prefix, |_| ())
}

/// The same, in circumstances that `arrange` makes.
fn refused_where(config: Option<&str>, args: &[&str], prefix: &[&str], arrange: impl FnOnce(&mut Command)) -> Refused {
    let topo = heard(&topo::Options::default());
    let before = Marks::of(topo.host());
    let netfast = NetfastProc::prepare(topo.host(), Options::no_runtime()).expect("prepared");
    let mut words: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
    words.push(
        netfast_tests::programs::netfast()
            .expect("the binary")
            .display()
            .to_string(),
    );
    words.push("run".into());
    if let Some(text) = config {
        let file = netfast.run_dir().join("netfast.toml");
        fs::write(&file, text).expect("a file");
        words.extend(["--config".into(), file.display().to_string()]);
    }
    words.extend(args.iter().map(|word| (*word).to_owned()));
    words.extend(["--pin-dir".into(), netfast.pin_dir().display().to_string()]);
    words.extend(["--run-dir".into(), netfast.run_dir().display().to_string()]);
    let (program, rest) = words.split_first().expect("a program");
    let mut command = topo.host().command(program);
    command.args(rest);
    arrange(&mut command);
    let done = cmd::finish(&mut command, LIMIT).expect("it ends");
    assert_eq!(Marks::of(topo.host()), before, "{}", done.stderr);
    assert!(!netfast.pin_dir().exists(), "pins are left");
    assert!(!netfast.run_dir().join("state.json").exists(), "a state is left");
    Refused { done }
}

const NEEDS: [Need; 3] = [Need::Root, Need::Kernel(6, 6), Need::Program("bpftool")];
const NONE: [&str; 2] = ["--runtime", "none"];

#[test]
fn a_wrong_configuration_is_3() {
    if !needs(&NEEDS) {
        return;
    }
    refused(
        None,
        &["--runtime", "none", "--config", "/nonexistent/netfast.toml"],
        &[],
    )
    .with(3, &["/nonexistent/netfast.toml", "No such file"]);
    refused(Some("flow = 1\n"), &NONE, &[]).with(3, &["netfast.toml", "unknown field `flow`", "`flows`"]);
    refused(Some("flows = \"many\"\n"), &NONE, &[]).with(3, &["flows = \"many\"", "invalid type"]);
    refused(Some("flows = 7\n"), &NONE, &[]).with(3, &["flows = 7", "1024 to 16777216"]);
    refused(Some("uplinks = [\"lan7\"]\n"), &NONE, &[]).with(3, &["no interface lan7", "ip link"]);
}

#[test]
fn an_unknown_uplink_on_the_command_line_is_2() {
    if !needs(&NEEDS) {
        return;
    }
    refused(None, &["--runtime", "none", "--uplink", "lan7"], &[]).with(2, &["no interface lan7", "ip link"]);
}

#[test]
fn docker_that_is_not_there_is_6() {
    if !needs(&NEEDS) {
        return;
    }
    refused(None, &["--docker-host", "unix:///nonexistent/docker.sock"], &[]).with(
        6,
        &[
            "/nonexistent/docker.sock cannot be asked: Socket not found: /nonexistent/docker.sock\n",
            "--runtime none",
        ],
    );
}

#[test]
fn missing_capabilities_are_4() {
    if !needs(&[NEEDS[0], NEEDS[1], NEEDS[2], Need::Program("setpriv")]) {
        return;
    }
    let without = ["setpriv", "--bounding-set", "-bpf,-sys_admin"];
    refused(None, &NONE, &without).with(4, &["CAP_BPF", "Run netfast as root"]);
    let without = ["setpriv", "--bounding-set", "-net_admin"];
    refused(None, &NONE, &without).with(4, &["CAP_NET_ADMIN"]);
}

#[test]
fn a_kernel_without_what_is_needed_is_5() {
    if !needs(&NEEDS) {
        return;
    }
    // As if it was built without CONFIG_BPF_SYSCALL.
    let without = |first, errno| {
        refused_where(None, &NONE, &[], |command| {
            seccomp::refuse(command, libc::SYS_bpf, first, errno);
        })
    };
    without(None, libc::ENOSYS).with(
        5,
        &[
            "has no BPF programs for tc",
            "Linux 4.1 and later",
            "CONFIG_BPF_SYSCALL",
        ],
    );
    // As if it had no such table: BPF_MAP_CREATE fails as for an unknown type.
    without(Some(0), libc::EINVAL).with(5, &["has no BPF tables (LRU hash)", "Linux 4.10 and later"]);
    // What the administrator forbids is no lack of the kernel's.
    without(None, libc::EPERM).with(4, &["the kernel does not permit netfast to load a program", "seccomp"]);
}

#[test]
fn a_second_daemon_is_8_and_the_first_goes_on() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let netfast = NetfastProc::start(topo.host(), Options::no_runtime()).expect("the first starts");
    let marks = Marks::of(topo.host());
    let mut second: Command = netfast.command(&["run", "--runtime", "none"]);
    let done = cmd::finish(&mut second, LIMIT).expect("it ends");
    let pid = format!("process {}", netfast.pid().expect("it runs"));
    Refused { done }.with(8, &["another netfast runs", &pid, "--run-dir"]);
    assert_eq!(Marks::of(topo.host()), marks);
}

/// Two on the same interfaces would each take the other's programs for somebody else's.
#[test]
fn a_second_daemon_with_other_directories_is_8_and_the_first_goes_on() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let mut first = NetfastProc::start(topo.host(), Options::no_runtime()).expect("the first starts");
    let marks = Marks::of(topo.host());
    let second = NetfastProc::prepare(topo.host(), Options::no_runtime()).expect("prepared");
    let mut command = second.command(&["run", "--runtime", "none"]);
    let done = cmd::finish(&mut command, LIMIT).expect("it ends");
    let pid = format!("process {}", first.pid().expect("it runs"));
    let run_dir = format!("--run-dir {}", first.run_dir().display());
    Refused { done }.with(8, &["another netfast works", &pid, &run_dir]);
    assert_eq!(Marks::of(topo.host()), marks);
    assert!(!second.pin_dir().exists(), "pins are left");

    // The mark goes with the process, however that ends.
    first.stop(nix::sys::signal::Signal::SIGKILL).expect("killed");
    let mut second = second;
    second.launch().expect("it starts now");
    let left = format!("`netfast detach --pin-dir {} --run-dir ", first.pin_dir().display());
    assert!(second.log().contains(&left), "{}", second.log());
    first.detach().expect("what it left goes");
    second.stop(nix::sys::signal::Signal::SIGTERM).expect("it ends");
    let before = second.log().len();
    second.launch().expect("it starts again");
    assert!(!second.log()[before..].contains(&left), "{}", second.log());
}

#[test]
fn a_pin_directory_elsewhere_is_5() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let dir = tempfile::tempdir().expect("a directory");
    let (pins, run) = (dir.path().join("pins"), dir.path().join("run"));
    let mut command = topo.host().command(
        &netfast_tests::programs::netfast()
            .expect("the binary")
            .display()
            .to_string(),
    );
    command
        .args(["run", "--runtime", "none", "--pin-dir"])
        .arg(&pins)
        .arg("--run-dir")
        .arg(&run);
    let done = cmd::finish(&mut command, LIMIT).expect("it ends");
    Refused { done }.with(5, &["is not in a BPF filesystem", "mount -t bpf"]);
    assert!(!pins.exists());
}

#[test]
fn a_wrong_configuration_on_reload_changes_nothing() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let options = Options {
        runtime: Runtime::None,
        config: Some("revalidate_ms = 500\n".into()),
        args: Vec::new(),
        own_bpffs: false,
    };
    let netfast = NetfastProc::start(topo.host(), options).expect("netfast starts");
    let revalidate = || {
        let tables = netfast::apply::read::Tables::open(netfast.pin_dir()).expect("tables");
        tables.control().expect("the switches").revalidate_ns
    };
    assert_eq!(revalidate(), 500_000_000);
    let file = netfast.run_dir().join("netfast.toml");
    let reload = |text: &str| {
        fs::write(&file, text).expect("a file");
        cmd::sh(&format!("kill -HUP {}", netfast.pid().expect("it runs"))).expect("kill");
    };
    reload("revalidate_ms = 0\n");
    cmd::poll("it is refused", LIMIT, || {
        netfast
            .log()
            .contains("the configuration stays as it was")
            .then_some(())
    })
    .expect("a message");
    assert_eq!(revalidate(), 500_000_000);
    reload("revalidate_ms = 250\n");
    cmd::poll("it is taken", LIMIT, || (revalidate() == 250_000_000).then_some(())).expect("the new interval");
    // In words, for whoever reads the log.
    let log = netfast.log();
    for said in [
        concat!(
            "netfast ",
            env!("CARGO_PKG_VERSION"),
            " starts; configuration: revalidate 500 ms, runtime none"
        ),
        "fast path on, learning after 3 packets of each direction",
        "configuration reloaded: revalidate 500 ms -> 250 ms",
    ] {
        assert!(log.contains(said), "no {said:?} in {log}");
    }
}

#[test]
fn directories_of_two_instances_are_not_mixed() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let mut netfast = NetfastProc::start(topo.host(), Options::no_runtime()).expect("netfast starts");
    let marks = Marks::of(topo.host());
    let dir = tempfile::tempdir().expect("a directory");
    let elsewhere = dir.path().display().to_string();
    let program = netfast_tests::programs::netfast()
        .expect("the binary")
        .display()
        .to_string();
    let finish = |verb: &[&str], pins: &str, run: &str| {
        let mut command = topo.host().command(&program);
        command.args(verb).args(["--pin-dir", pins, "--run-dir", run]);
        Refused {
            done: cmd::finish(&mut command, LIMIT).expect("it ends"),
        }
    };
    let (pins, run) = (
        netfast.pin_dir().display().to_string(),
        netfast.run_dir().display().to_string(),
    );
    finish(&["run", "--runtime", "none"], &pins, &elsewhere).with(8, &["in use by the netfast", &run]);
    finish(&["detach"], &pins, &elsewhere).with(1, &["of the instance with --run-dir", &run]);
    let other_pins = format!("{pins}-other");
    finish(&["detach"], &other_pins, &run).with(1, &["of the instance with --pin-dir", &pins]);
    assert_eq!(Marks::of(topo.host()), marks);
    assert!(
        netfast
            .stop(nix::sys::signal::Signal::SIGTERM)
            .expect("it went on")
            .success()
    );

    // Nobody is there any more: another may take over what is attached.
    cmd::sh(&format!(
        "rm -r {run}/state.json {run}/lock && rmdir --ignore-fail-on-non-empty {run}"
    ))
    .expect("gone");
    let mut next = topo.host().command(&program);
    next.args(["run", "--runtime", "none", "--pin-dir", &pins, "--run-dir", &elsewhere]);
    let daemon = cmd::Background::start(&mut next).expect("it starts");
    cmd::poll("it is ready", LIMIT, || {
        dir.path().join("state.json").exists().then_some(())
    })
    .expect("a state");
    daemon.stop().expect("it ends");
    let done = finish(&["detach"], &pins, &elsewhere).done;
    assert!(done.status.success(), "{}", done.stderr);
    assert!(!netfast.pin_dir().exists());
}
