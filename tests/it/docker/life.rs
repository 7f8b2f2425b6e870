//! The engine goes and comes back, netfast is killed, started again and detached: the traffic goes on.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd::{self, Background},
    docker_host::{DockerHost, Options},
    leftovers,
    require::{Need, needs},
    site::HOST_IP,
    traffic::{hash, hold, rr},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::bed::{Bed, PORT, Steady, TIMEOUT, docker_host, ended, report, run, serve};
use crate::left::left_on;

/// A host that outlives its engine, with a server and a client on it.
fn lasting_host() -> DockerHost {
    let host = docker_host(Options {
        dockerd_flags: vec!["--live-restore".to_owned()],
        ..Options::default()
    });
    host.create_network("mine", &[]).expect("a network");
    let port = PORT.to_string();
    let published = ["-p", "8080:7001", "-p", "8080:7001/udp"];
    host.run_container("server", "mine", &published, &["netfast-traffic", "rr-server", &port])
        .expect("a server");
    for client in ["client", "leaving"] {
        host.run_container(client, "mine", &[], &[]).expect("a client");
    }
    host
}

/// Conversations on the bridge and through the published port.
fn steady_flows(bed: &Bed) -> [Steady; 3] {
    let (client, lan) = (bed.ns("client"), bed.host.lan().handle());
    let outside = SocketAddrV4::new(HOST_IP, 8080);
    [
        Steady::start(bed, "on the bridge", &client, bed.at("server", "mine"), &[]),
        Steady::start(bed, "published, TCP", &lan, outside, &[]),
        Steady::start(bed, "published, UDP", &lan, outside, &["--udp"]),
    ]
}

/// Connections through the published port that say nothing until the end.
fn idle_connections(bed: &Bed) -> Background {
    let outside = SocketAddrV4::new(HOST_IP, 8080).to_string();
    run(&bed.host.lan().handle(), &["hold", &outside, "--connections", "50"])
}

/// Ends them; none may have died meanwhile.
fn all_answer(idle: Background) {
    let report: hold::Report = ended(idle);
    assert_eq!((report.opened, report.alive), (50, 50));
}

/// Fails unless every flow goes on, fast.
fn must_go_on(bed: &Bed, flows: &[Steady], when: &str) {
    let before: Vec<u64> = flows.iter().map(|flow| flow.fast_packets(bed).unwrap_or(0)).collect();
    for (flow, before) in flows.iter().zip(before) {
        let going = cmd::poll("the flow goes on", TIMEOUT, || {
            (flow.fast_packets(bed)? > before + 200).then_some(())
        });
        if let Err(error) = going {
            panic!(
                "{when}: {error}\n{}\nnetfast said:\n{}",
                bed.netfast.verb(&["status"]).unwrap_or_default(),
                bed.netfast.log()
            );
        }
    }
}

/// How many datagrams of a conversation are lost when the engine is started again, without netfast: since 28 it makes its rules
/// anew, and what comes meanwhile is dropped.
fn lost_by_a_restart(host: &mut DockerHost) -> u64 {
    let to = SocketAddrV4::new(HOST_IP, 8080).to_string();
    let line = ["rr", &to, "--udp", "--seconds", "300", "--size", "200"];
    let asking = run(&host.lan().handle(), &line);
    std::thread::sleep(Duration::from_millis(500));
    host.stop_dockerd(Signal::SIGTERM).expect("dockerd ends");
    host.start_dockerd().expect("dockerd starts again");
    let report: rr::Report = ended(asking);
    report.errors
}

#[test]
fn dockerd_goes_and_comes_back() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let mut host = lasting_host();
    let lost = lost_by_a_restart(&mut host);
    println!("without netfast a restart costs {lost} datagrams");
    let mut bed = Bed::start(host, None);
    for container in ["server", "client", "leaving"] {
        bed.await_fast(container, "mine");
    }
    let idle = idle_connections(&bed);
    let leaving = bed.host.container_pid("leaving").expect("it runs");
    let flows = steady_flows(&bed);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        bed.host.stop_dockerd(signal).expect("dockerd ends");
        await_runtime(&bed, "disconnected");
        must_go_on(&bed, &flows, "without dockerd");
        assert!(
            bed.endpoint("server", "mine").is_some_and(|end| end["path"] == "fast"),
            "what was known stays known"
        );
        if signal == Signal::SIGTERM {
            bed.host.start_dockerd().expect("dockerd starts again");
        } else {
            // One that ends while nobody tells.
            kill(
                Pid::from_raw(i32::try_from(leaving).expect("a process number")),
                Signal::SIGKILL,
            )
            .expect("it ran");
            cmd::poll("its end", TIMEOUT, || (!leftovers::is_running(leaving)).then_some(())).expect("it ends");
            bed.host.start_dockerd().expect("dockerd starts again");
            bed.await_gone("leaving", "mine");
        }
        await_runtime(&bed, "connected");
        must_go_on(&bed, &flows, "with dockerd back");
        let name = format!("new-after-{signal}");
        bed.host.run_container(&name, "mine", &[], &[]).expect("a container");
        let took = bed.await_fast(&name, "mine");
        println!("{name}: picked up after {:.0} ms", took.as_secs_f64() * 1e3);
    }
    let [bridged, tcp, udp] = flows;
    bridged.end(&bed);
    tcp.end(&bed);
    udp.end_with(&bed, 2 * lost);
    all_answer(idle);
    bed.record(
        "flows stay fast while the engine is stopped, killed and back",
        "live-restore",
        None,
        0,
    );
}

/// As most hosts are set up: the engine takes its containers along, and brings them back.
#[test]
fn dockerd_takes_its_containers_along() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    host.create_network("mine", &[]).expect("a network");
    let port = PORT.to_string();
    let always = ["--restart=always", "-p", "8080:7001", "-p", "8080:7001/udp"];
    host.run_container("server", "mine", &always, &["netfast-traffic", "rr-server", &port])
        .expect("a server");
    host.run_container("client", "mine", &["--restart=always"], &[])
        .expect("a client");
    let mut bed = Bed::start(host, None);
    for round in 0..2 {
        for container in ["server", "client"] {
            bed.await_fast(container, "mine");
        }
        for flow in steady_flows(&bed) {
            flow.end(&bed);
        }
        if round == 0 {
            let old = bed.host.container_veth("server", "eth0").expect("its veth");
            bed.host.stop_dockerd(Signal::SIGTERM).expect("dockerd ends");
            await_runtime(&bed, "disconnected");
            bed.host.start_dockerd().expect("dockerd starts again");
            let is_new = || {
                let end = bed.endpoint("server", "mine")?;
                (end["path"] == "fast" && end["veth"] != old.as_str()).then_some(())
            };
            cmd::poll("the server is back", TIMEOUT, is_new).expect("with a veth of its own");
        }
    }
}

fn await_runtime(bed: &Bed, state: &str) {
    let start = Instant::now();
    cmd::poll("the state of the runtime", TIMEOUT, || {
        (bed.status()["runtime"]["state"] == state).then_some(())
    })
    .unwrap_or_else(|error| panic!("{state}: {error}\n{:#}", bed.status()["runtime"]));
    println!("{state} after {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
}

#[test]
fn netfast_is_killed_adopted_and_detached() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = lasting_host();
    host.host()
        .set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")
        .expect("conntrack");
    let found = left_on(host.host());
    let mut bed = Bed::start(host, None);
    for container in ["server", "client", "leaving"] {
        bed.await_fast(container, "mine");
    }
    let attached = left_on(bed.host.host());
    assert!(attached.programs.len() > found.programs.len(), "{attached:?}");
    let idle = idle_connections(&bed);
    let flows = steady_flows(&bed);

    bed.netfast.stop(Signal::SIGKILL).expect("netfast is killed");
    must_go_on(&bed, &flows, "without netfast's daemon");
    let status = bed.status();
    assert_eq!(
        (&status["daemon"]["running"], &status["daemon"]["attached"]),
        (&Value::Bool(false), &Value::Bool(true))
    );
    // Longer than the revalidation interval.
    std::thread::sleep(Duration::from_millis(1500));
    must_go_on(&bed, &flows, "long without netfast's daemon");
    let before = bed.netfast.totals().expect("totals");
    bed.netfast.launch().expect("netfast starts again");
    must_go_on(&bed, &flows, "with netfast's daemon back");
    let after = bed.netfast.totals().expect("totals");
    assert!(after.fast_packets > before.fast_packets, "the counters were adopted");
    assert_eq!(left_on(bed.host.host()), attached, "the same programs are attached");
    bed.host.run_container("new", "mine", &[], &[]).expect("a container");
    bed.await_fast("new", "mine");
    bed.host.remove_container("new").expect("docker rm");
    bed.await_gone("new", "mine");

    // In the middle of a transfer: big enough that it lasts longer than the detaching.
    let server = bed.ns("client");
    let receiver = serve(&server, &["recv-hash", &PORT.to_string()]);
    let to = bed.at("client", "mine").to_string();
    let bytes = (2_u64 << 30).to_string();
    let mut sender = run(&bed.ns("server"), &["send-hash", &to, "--bytes", &bytes]);
    let ((), counted) = bed.count(|| std::thread::sleep(Duration::from_millis(300)));
    bed.must_be_fast("a long transfer", counted, 0.9);
    bed.netfast.stop(Signal::SIGTERM).expect("netfast stops");
    must_go_on(&bed, &flows, "after netfast has stopped");
    bed.netfast.detach().expect("netfast detaches");
    assert!(sender.is_running(), "the transfer was too short for this test");
    assert!(!bed.netfast.pin_dir().exists(), "pins are left");
    assert_eq!(left_on(bed.host.host()), found, "the host as found");
    let status = bed.netfast.try_verb(&["status"]).expect("it ends");
    assert_eq!(status.status.code(), Some(7), "{status:?}");

    let sender = sender.wait(cmd::TIME_LIMIT * 3).expect("the transfer ends");
    assert!(sender.status.success(), "{sender:?}");
    let sent: hash::Report = report(&sender);
    let got: hash::ServerReport = report(&receiver.stop().expect("the receiver ends"));
    assert!(got.errors.is_empty() && got.connections[0].exact, "{got:?}");
    assert_eq!(sent.sent_sha256, got.connections[0].received_sha256);
    for flow in flows {
        flow.end_alive();
    }
    all_answer(idle);
}
