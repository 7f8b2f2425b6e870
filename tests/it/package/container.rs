//! The container image: built without a registry from the tarball whose program is linked with musl, and run as packaging/compose.yaml
//! says, on a Docker host. It is killed, comes back, and is taken away, and no connection notices.

use std::{fs, path::Path};

use netfast_tests::{
    cmd,
    docker_host::{DockerHost, Options},
    leftovers,
    netfast_proc::Totals,
    netns::NsHandle,
    require::{Need, needs},
    site::HOST_IP,
    traffic::{hold, rr},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::named;
use crate::{
    docker::bed::{PORT, TIMEOUT, docker_host, ended, run},
    left::left_on,
};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");
/// Where the container's port is published.
const PUBLISHED: u16 = 8080;
/// Connections that are open and say nothing.
const IDLE: usize = 20;

/// What compose.yaml says of the service, as options of `docker run`. `place`: where something of the host's is, here.
fn options(compose: &str, place: &dyn Fn(&str) -> String) -> Vec<String> {
    let (_, service) = compose.split_once("\n  netfast:\n").expect("the service");
    let lines = service.lines().map(str::trim);
    let mut said = Vec::new();
    let mut last = "";
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(item) = line.strip_prefix("- ") {
            said.push((last, item));
            continue;
        }
        let (key, value) = line.split_once(':').expect("a key");
        last = key;
        let value = value.trim();
        let items = value.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
        said.extend(items.unwrap_or(value).split(", ").map(|item| (key, item)));
    }
    let mut options = Vec::new();
    for (key, value) in said {
        let option = match key {
            "network_mode" => "network",
            "pid" => "pid",
            "cgroup" => "cgroupns",
            "cap_drop" => "cap-drop",
            "cap_add" => "cap-add",
            "security_opt" => "security-opt",
            "read_only" => "read-only",
            "environment" => "env",
            "volumes" if value.is_empty() => continue,
            "volumes" => {
                let (from, to) = value.split_once(':').expect("from and to");
                options.push(format!("--volume={}:{to}", place(from)));
                continue;
            }
            // How it is made, what it is called, and what a single command needs not.
            "build" | "image" | "restart" => continue,
            _ => panic!("compose.yaml says {key}, of which this test knows nothing"),
        };
        options.push(format!("--{option}={value}"));
    }
    options
}

/// A Docker host with the image.
struct Site {
    host: DockerHost,
    options: Vec<String>,
}

impl Site {
    fn start() -> Self {
        let host = docker_host(Options::default());
        // The host's directories, but not the real one's.
        let dir = leftovers::state_dir().expect("a directory").join("container");
        let pins = format!("{}/{}-container", leftovers::BPFFS, leftovers::tag());
        fs::create_dir_all(&pins).expect("made");
        let place = |path: &str| match path {
            "/var/run/docker.sock" => host.docker_host().trim_start_matches("unix://").to_owned(),
            "/sys/fs/bpf" => pins.clone(),
            _ => dir.join(path.trim_start_matches('/')).display().to_string(),
        };
        let compose = fs::read_to_string(format!("{SOURCES}/compose.yaml")).expect("a file");
        let options = options(&compose, &place);
        let site = Self { host, options };
        site.build(&dir.join("build"));
        site
    }

    /// As the Dockerfile says: with the directory that has the tarball.
    fn build(&self, context: &Path) {
        fs::create_dir_all(context).expect("made");
        let tarball = named("NETFAST_TARBALL_MUSL");
        fs::copy(&tarball, context.join(tarball.file_name().expect("a file"))).expect("copied");
        let mut build = self.host.docker_command();
        build
            .args(["build", "--file", &format!("{SOURCES}/Dockerfile"), "--tag", "netfast"])
            .arg(context);
        cmd::run(&mut build).expect("the image is built");
    }

    /// `docker run more… netfast args…`, as compose.yaml says.
    fn run(&self, more: &[&str], args: &[&str]) -> String {
        let mut run = self.host.docker_command();
        run.arg("run").args(more).args(&self.options).arg("netfast").args(args);
        cmd::run(&mut run).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What `netfast status --json` says in the container.
    fn status(&self) -> Option<Value> {
        let said = self
            .host
            .docker(&["exec", "netfast", "/usr/bin/netfast", "status", "--json"])
            .ok()?;
        serde_json::from_str(&said).ok()
    }

    fn log(&self) -> String {
        let said = cmd::finish(self.host.docker_command().args(["logs", "netfast"]), TIMEOUT);
        said.map(|said| said.stdout + &said.stderr).unwrap_or_default()
    }

    fn fast_packets(&self) -> Option<u64> {
        let totals: Totals = serde_json::from_value(self.status()?["totals"].clone()).ok()?;
        Some(totals.fast_packets)
    }

    /// The daemon is in sync, and what is under way is fast.
    fn await_fast(&self, when: &str) {
        let in_sync = || (self.status()?["daemon"]["in_sync"] == true).then(|| self.fast_packets())?;
        let seen = cmd::poll("it is in sync", TIMEOUT, in_sync).and_then(|before| {
            cmd::poll("packets are fast", TIMEOUT, || {
                (self.fast_packets()? > before + 1000).then_some(())
            })
        });
        seen.unwrap_or_else(|error| panic!("{when}: {error:#}\n{:#?}\n{}", self.status(), self.log()));
    }
}

#[test]
fn the_image_is_fast_comes_back_after_a_kill_and_is_taken_away() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6)]) {
        return;
    }
    let site = Site::start();
    let host = &site.host;
    let port = PORT.to_string();
    let publish = format!("--publish={PUBLISHED}:{PORT}");
    host.create_network("shop", &[]).expect("a network");
    host.run_container("web", "shop", &[&publish], &["netfast-traffic", "rr-server", &port])
        .expect("a container");
    host.run_container("client", "shop", &[], &[]).expect("a container");
    let found = left_on(host.host());

    let restart = "--restart=unless-stopped";
    let compose = fs::read_to_string(format!("{SOURCES}/compose.yaml")).expect("a file");
    assert!(compose.contains("restart: unless-stopped"));
    site.run(&["--detach", "--name=netfast", restart], &[]);
    let web = host.container_ip("web", "shop").expect("an address");
    let ways: [(&str, NsHandle, String); 2] = [
        (
            "bridge",
            host.container_netns("client").expect("it runs"),
            format!("{web}:{port}"),
        ),
        ("published", host.lan().handle(), format!("{HOST_IP}:{PUBLISHED}")),
    ];
    let held = IDLE.to_string();
    let busy = ways
        .each_ref()
        .map(|(_, ns, to)| run(ns, &["rr", to, "--seconds", "300"]));
    let idle = ways
        .each_ref()
        .map(|(_, ns, to)| run(ns, &["hold", to, "--connections", &held]));
    site.await_fast("at first");
    let attached = left_on(host.host());
    assert_ne!(attached, found);

    // Killed: the engine starts it again, as it would after a crash.
    let pid = || host.container_pid("netfast").ok();
    let first = pid().expect("it runs");
    kill(Pid::from_raw(i32::try_from(first).expect("small")), Signal::SIGKILL).expect("killed");
    cmd::poll("it is started again", TIMEOUT, || (pid()? != first).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", site.log()));
    site.await_fast("after the kill");
    assert_eq!(left_on(host.host()), attached);

    // Stopped, all goes on; then it is taken away.
    host.docker(&["stop", "netfast"]).expect("it stops");
    assert_eq!(left_on(host.host()), attached);
    site.run(&["--rm"], &["detach"]);
    assert_eq!(left_on(host.host()), found);
    host.remove_container("netfast").expect("it is removed");
    for (process, (what, ..)) in busy.into_iter().zip(&ways) {
        let report: rr::Report = ended(process);
        assert!(report.errors == 0 && report.transactions > 1000, "{what}: {report:?}");
        println!(
            "{what}: longest wait for an answer {:.0} ms",
            report.latency.max_us / 1e3
        );
    }
    for (process, (what, ..)) in idle.into_iter().zip(&ways) {
        let report: hold::Report = ended(process);
        assert_eq!((report.opened, report.dead), (IDLE, 0), "{what}: {report:?}");
    }
}

#[test]
fn compose_yaml_is_read_as_docker_reads_it() {
    let compose = "# x\nservices:\n  netfast:\n    image: netfast\n    # x\n    pid: host\n    cap_add: [A, B]\n    volumes:\n      - /a:/b:ro\n";
    let options = options(compose, &|path| format!("/lab{path}"));
    assert_eq!(
        options,
        ["--pid=host", "--cap-add=A", "--cap-add=B", "--volume=/lab/a:/b:ro"]
    );
}
