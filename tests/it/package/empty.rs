//! The tarball whose program is linked with musl, in a root with nothing but that program.

use std::{fs, process::Command, time::Duration};

use netfast_tests::{
    cmd::{self, Background},
    leftovers,
    netns::NetNs,
    require::{Need, needs},
    topo,
    traffic::rr,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::named;
use crate::left::left_on;

const TIMEOUT: Duration = Duration::from_mins(1);
/// Mounts what the kernel offers below the root `$1`, then runs the rest of the line there.
const ENTER: &str = r#"
root=$1
shift
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --bind "$BPFFS" "$root/sys/fs/bpf"
exec chroot "$root" "$@"
"#;

/// Below the root: its directory, and the bpffs that outlives each command.
struct Empty {
    dir: std::path::PathBuf,
}

impl Empty {
    fn command(&self, host: &NetNs, args: &[&str]) -> Command {
        let mut command = host.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-ec", ENTER, "enter"])
            .arg(self.dir.join("root"))
            .arg("/netfast")
            .args(args)
            .env("BPFFS", self.dir.join("bpf"));
        command
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        let _gone = nix::mount::umount2(&self.dir.join("bpf"), nix::mount::MntFlags::MNT_DETACH);
        leftovers::remove_dir(&self.dir);
    }
}

#[test]
fn the_static_program_is_fast_in_a_root_with_nothing_else() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = topo::Topo::new(&topo::Options::default()).expect("a topology");
    let host = topo.host();
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    let found = left_on(host);
    let empty = Empty {
        dir: leftovers::state_dir().expect("a directory").join("empty"),
    };
    for dir in ["root/proc", "root/sys", "root/run", "bpf", "unpacked"] {
        fs::create_dir_all(empty.dir.join(dir)).expect("made");
    }
    cmd::run(
        Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(empty.dir.join("bpf")),
    )
    .expect("a bpffs");
    cmd::run(
        Command::new("tar")
            .args(["--strip-components=1", "-xzf"])
            .arg(named("NETFAST_TARBALL_MUSL"))
            .arg("-C")
            .arg(empty.dir.join("unpacked")),
    )
    .expect("unpacked");
    fs::copy(
        empty.dir.join("unpacked/usr/bin/netfast"),
        empty.dir.join("root/netfast"),
    )
    .expect("copied");

    let version = cmd::run(&mut empty.command(host, &["--version"])).expect("it runs");
    assert_eq!(version, format!("netfast {}", env!("CARGO_PKG_VERSION")));
    let check = cmd::finish(
        &mut empty.command(host, &["check", "--runtime", "none", "--json"]),
        TIMEOUT,
    )
    .expect("it ends");
    assert!(check.status.success(), "{check:?}");
    let daemon = Background::start(&mut empty.command(host, &["run", "--runtime", "none"])).expect("started");
    let status = || {
        let json = cmd::run(&mut empty.command(host, &["status", "--json"])).ok()?;
        serde_json::from_str::<Value>(&json).ok()
    };
    cmd::poll("it is in sync", TIMEOUT, || {
        (status()?["daemon"]["in_sync"] == true).then_some(())
    })
    .expect("in sync");
    let tool = netfast_tests::programs::traffic()
        .expect("the traffic tool")
        .display()
        .to_string();
    let server = two.ns.spawn(&[&tool, "rr-server", "7000"]).expect("a server");
    std::thread::sleep(Duration::from_millis(300));
    let asked = one
        .ns
        .sh(&format!("{tool} rr {}:7000 --seconds 2", two.ip))
        .expect("it asks");
    let report: rr::Report = serde_json::from_str(&asked).expect("a report");
    assert_eq!(report.errors, 0, "{report:?}");
    let fast = status().expect("a status")["totals"]["fast_packets"]
        .as_u64()
        .expect("a number");
    assert!(fast > report.transactions, "{fast} fast of {report:?}");
    server.stop().expect("the server ends");
    daemon.signal(Signal::SIGTERM).expect("it runs");
    daemon.wait(TIMEOUT).expect("it ends");
    cmd::run(&mut empty.command(host, &["detach"])).expect("detached");
    assert_eq!(left_on(host), found);
}
