//! `netfast report` on a host whose engine is real and on which something is broken: each archive tells what.

use std::{fs, process::Command};

use netfast_tests::{
    docker_host::Options,
    require::{Need, needs},
};
use nix::sys::signal::Signal;

use super::bed::{Bed, docker_host};
use crate::archive::{Report, made};

const NEEDS: [Need; 3] = [Need::Root, Need::Docker, Need::Kernel(6, 6)];

/// Fails unless a part of the archive, or why there is none, has these words.
fn must_say(report: &Report, part: &str, words: &str) {
    let (text, error) = (&report.files[part], report.error(part));
    assert!(text.contains(words) || error.contains(words), "{part}: {error}\n{text}");
}

#[test]
fn the_report_tells_each_of_five_breakages() {
    if !needs(&NEEDS) {
        return;
    }
    let host = docker_host(Options::default());
    host.run_container("web", "bridge", &[], &[]).expect("a container");
    let mut bed = Bed::start(host, None);
    bed.await_fast("web", "bridge");
    let dir = tempfile::tempdir().expect("a directory");
    let plain = |bed: &Bed| -> Command {
        let url = bed.host.docker_host();
        bed.netfast.command(&["report", "--docker-host", &url])
    };

    // The daemon is dead: what it has attached is still there.
    bed.netfast.stop(Signal::SIGKILL).expect("killed");
    let report = made(plain(&bed), dir.path());
    must_say(&report, "status.txt", "daemon not running");
    must_say(&report, "check.txt", "netfast can run here");

    // The kernel lacks something.
    let mut command = plain(&bed);
    command.env("NETFAST_WITHOUT_TCX", "1");
    let report = made(command, dir.path());
    must_say(&report, "check.txt", "tcx");

    // The configuration is broken.
    let config = dir.path().join("wrong.toml");
    fs::write(&config, "flows = \"many\"\n").expect("a file");
    let mut command = plain(&bed);
    command.arg("--config").arg(&config);
    let report = made(command, dir.path());
    must_say(&report, "netfast.toml", "flows");
    must_say(&report, "check.txt", "flows");
    must_say(&report, "kernel.txt", "net.ipv4.ip_forward");

    // The pins were removed.
    fs::remove_dir_all(bed.netfast.pin_dir()).expect("removed");
    let report = made(plain(&bed), dir.path());
    must_say(&report, "status.txt", "nothing is attached");

    // Docker is gone.
    bed.host.stop_dockerd(Signal::SIGKILL).expect("killed");
    let report = made(plain(&bed), dir.path());
    must_say(&report, "check.txt", "cannot be asked");
    must_say(&report, "check.txt", "would exit with 6");
}
