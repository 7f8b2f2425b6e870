//! With a real engine: its containers and networks, and its own coming and going.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd::{self, Background},
    docker_host::{self, DockerHost},
    netfast_proc::{NetfastProc, Options},
    require::{Need, needs},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{fast_endpoints, names, programs, state, wait_for};

/// A change is picked up within this time. What is promised is a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(10);

fn why(state: &Value, container: &str) -> Option<String> {
    let networks = state["networks"].as_array()?;
    let mut endpoints = networks
        .iter()
        .flat_map(|network| network["endpoints"].as_array().into_iter().flatten());
    let endpoint = endpoints.find(|endpoint| endpoint["container"] == container)?;
    endpoint["path"]["slow"]["why"].as_str().map(Into::into)
}

#[test]
fn follows_containers_networks_and_the_engine() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6), Need::Program("bpftool")]) {
        return;
    }
    let mut host = DockerHost::start(docker_host::Options::default()).expect("a Docker host");
    host.create_network("net1", &[]).expect("a network");
    host.create_network("off", &["--label", "netfast.enable=false"])
        .expect("a network");
    host.run_container("ca", "bridge", &[], &[]).expect("ca");
    host.run_container("cb", "net1", &[], &[]).expect("cb");
    let netfast = NetfastProc::start(host.host(), Options::docker(host.docker_host())).expect("netfast starts");
    assert_eq!(fast_endpoints(&state(&netfast)), names(&["ca", "cb"]));

    // Each is measured from the end of the docker command.
    let run = |name: &str, network: &str, extra: &[&str]| {
        host.run_container(name, network, extra, &[])
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    };
    let expect = |what: &str, wanted: &BTreeSet<String>| {
        let begin = Instant::now();
        let state = wait_for(&netfast, what, SOON, |state| fast_endpoints(state) == *wanted);
        eprintln!("{what}: after {:?}", begin.elapsed());
        state
    };
    run("cc", "net1", &[]);
    expect("a container started", &names(&["ca", "cb", "cc"]));
    run("slow", "net1", &["--label", "netfast.enable=false"]);
    run("offnet", "off", &[]);
    run("hosted", "host", &[]);
    run("alone", "none", &[]);
    run("sidecar", "container:cb", &[]);
    let state = wait_for(&netfast, "all are seen", SOON, |state| why(state, "sidecar").is_some());
    assert_eq!(fast_endpoints(&state), names(&["ca", "cb", "cc"]));
    for (container, expected) in [
        ("slow", "disabled-by-label"),
        ("offnet", "disabled-by-label"),
        ("hosted", "host-network"),
        ("alone", "no-network"),
        ("sidecar", "shared-namespace"),
    ] {
        assert_eq!(why(&state, container).as_deref(), Some(expected), "{container}");
    }
    host.docker(&["restart", "-t", "0", "cc"]).expect("restart");
    expect("a container restarted", &names(&["ca", "cb", "cc"]));
    host.docker(&["network", "connect", "bridge", "cc"]).expect("connect");
    wait_for(&netfast, "a second interface", SOON, |state| {
        let devices = state["devices"].as_object().expect("devices");
        let attached = |device: &&Value| device["kind"] == "endpoint" && device["attached"] == true;
        devices.values().filter(attached).count() == 4
    });
    host.docker(&["network", "disconnect", "net1", "cc"])
        .expect("disconnect");
    wait_for(&netfast, "one interface less", SOON, |state| {
        let on_net1 = |network: &&Value| network["name"] == "net1";
        let networks = state["networks"].as_array().expect("networks");
        let net1 = networks.iter().find(on_net1).expect("net1");
        net1["endpoints"].as_array().expect("endpoints").len() == 2
    });
    host.remove_container("ca").expect("remove");
    expect("a container removed", &names(&["cb", "cc"]));

    // Without the engine the fast path goes on; when it is back, what it has is read anew.
    let attached = programs(host.host());
    host.stop_dockerd(Signal::SIGKILL).expect("dockerd is killed");
    wait_for(&netfast, "its absence is seen", Duration::from_secs(5), |state| {
        state["runtime"]["state"] == "disconnected"
    });
    assert_eq!(programs(host.host()), attached);
    host.start_dockerd().expect("dockerd is back");
    wait_for(&netfast, "its return is seen", Duration::from_secs(10), |state| {
        state["runtime"]["state"] == "connected"
    });
    host.run_container("cd", "net1", &[], &[]).expect("cd");
    wait_for(&netfast, "a container after that", SOON, |state| {
        fast_endpoints(state).contains("cd")
    });
    netfast.detach().expect("detach");
    assert_eq!(programs(host.host()), Vec::<String>::new());
}

/// What an earlier daemon left goes on meanwhile; the engine's coming is noticed without anybody's help.
#[test]
fn an_engine_that_comes_late_is_waited_for() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6), Need::Program("bpftool")]) {
        return;
    }
    let mut host = DockerHost::start(docker_host::Options::default()).expect("a Docker host");
    host.run_container("ca", "bridge", &[], &[]).expect("ca");
    let mut netfast = NetfastProc::start(host.host(), Options::docker(host.docker_host())).expect("netfast starts");
    let attached = programs(host.host());
    netfast.stop(Signal::SIGKILL).expect("killed");
    host.stop_dockerd(Signal::SIGKILL).expect("dockerd is killed");

    let mut command = netfast.command(&["run", "--wait", "--docker-host", &host.docker_host()]);
    let daemon = Background::start(&mut command).expect("it starts");
    let pid = daemon.pid();
    thread::sleep(Duration::from_secs(3));
    assert_eq!(programs(host.host()), attached);
    assert_ne!(state(&netfast)["pid"], pid, "nothing is in sync yet");
    host.start_dockerd().expect("dockerd is back");
    cmd::poll("in sync", Duration::from_secs(30), || {
        let state = state(&netfast);
        (state["pid"] == pid && state["in_sync"] == true).then_some(())
    })
    .expect("the engine is noticed");
    // An engine that was killed ends its containers when it comes back.
    host.run_container("cb", "bridge", &[], &[]).expect("cb");
    wait_for(&netfast, "a container after that", Duration::from_secs(10), |state| {
        fast_endpoints(state).contains("cb")
    });
    let done = daemon.stop().expect("it ends");
    assert!(done.stderr.contains("the container runtime answers"), "{}", done.stderr);
    netfast.detach().expect("detach");
}

/// Hands on what is said to the engine and what it answers, with another version in its answers once it is told to.
struct Renamed {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What is replaced by what, of one length.
    names: Option<(String, String)>,
    connections: Vec<UnixStream>,
}

impl Renamed {
    fn listen(at: &Path, engine: String) -> Self {
        let listener = UnixListener::bind(at).expect("a socket");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&engine)) else {
                    continue;
                };
                let both = || {
                    (
                        client.try_clone().expect("a socket"),
                        server.try_clone().expect("a socket"),
                    )
                };
                let ((ask, asked), (told, tell)) = (both(), both());
                shared.lock().expect("no panic").connections.extend([client, server]);
                let state = Arc::clone(&shared);
                thread::spawn(move || hand_on(ask, asked, None));
                thread::spawn(move || hand_on(tell, told, Some(&state)));
            }
        });
        Self { state }
    }

    /// As an update does: all connections end, and the next ones are to another version.
    fn update(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len(), "lengths in answers stay true");
        let mut state = self.state.lock().expect("no panic");
        state.names = Some((from.into(), to.into()));
        for connection in state.connections.drain(..) {
            // It may have ended already.
            let _ended = connection.shutdown(Shutdown::Both);
        }
    }
}

fn hand_on(mut from: UnixStream, mut to: UnixStream, renamed: Option<&Mutex<State>>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut part = buffer[..length].to_vec();
        let names = renamed.and_then(|state| state.lock().expect("no panic").names.clone());
        if let Some((old, new)) = names {
            for at in 0..part.len().saturating_sub(old.len() - 1) {
                if part[at..].starts_with(old.as_bytes()) {
                    part[at..at + old.len()].copy_from_slice(new.as_bytes());
                }
            }
        }
        if to.write_all(&part).is_err() {
            break;
        }
    }
    let _ended = to.shutdown(Shutdown::Write);
}

#[test]
fn an_engine_that_is_updated_meanwhile_is_told_as_an_update() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6)]) {
        return;
    }
    let host = DockerHost::start(docker_host::Options::default()).expect("a Docker host");
    let version = ["version", "--format", "{{.Server.Version}}"];
    let old = host.docker(&version).expect("a version").trim().to_owned();
    let new = format!("99{}", &old[2..]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("docker.sock");
    let engine = host.docker_host();
    let renamed = Renamed::listen(&socket, engine.trim_start_matches("unix://").to_owned());
    let url = format!("unix://{}", socket.display());
    let netfast = NetfastProc::start(host.host(), Options::docker(url)).expect("netfast starts");
    assert!(
        state(&netfast)["record"]["updates"][0].is_null(),
        "nothing was updated yet"
    );

    renamed.update(&old, &new);
    let state = wait_for(&netfast, "the update is noticed", SOON, |state| {
        state["record"]["updates"][0].is_object()
    });
    let update = &state["record"]["updates"][0];
    let updated = update["updated"].as_array().expect("a list");
    assert_eq!(updated.len(), 1, "{update}");
    assert_eq!(updated[0]["part"], "engine", "{update}");
    let text = |key: &str| updated[0][key].as_str().expect("a version").to_owned();
    assert!(text("from").ends_with(&old) && text("to").ends_with(&new), "{update}");
    let said = netfast.verb(&["status"]).expect("status").replace('\n', " ");
    assert!(
        said.contains(&format!("Since the update engine {} -> {}", text("from"), text("to"))),
        "{said}"
    );
    netfast.detach().expect("detach");
}
