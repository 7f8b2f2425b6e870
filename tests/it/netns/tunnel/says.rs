//! What is said of tunnels, and the switch.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use netfast::config::DEFAULT_METRICS;

use super::*;
use crate::metrics;

/// Puts a configuration in force on the near host.
fn configure(world: &World, text: &str) {
    let netfast = &world.netfast[0];
    std::fs::write(netfast.run_dir().join("netfast.toml"), text).expect("a configuration");
    let pid = i32::try_from(netfast.pid().expect("it runs")).expect("a process");
    kill(Pid::from_raw(pid), Signal::SIGHUP).expect("it hears");
}

/// Everything that `netfast` prints about the tunnel of the near host.
fn said(world: &World) -> [String; 4] {
    let far = world.host(1).container_ip.to_string();
    let verb = |arguments: &[&str]| world.netfast[0].verb(arguments).expect("a report");
    [
        world.check(),
        verb(&["status"]),
        verb(&["networks"]),
        verb(&["explain", "veth0", &far]),
    ]
}

#[test]
fn all_reports_say_of_a_tunnel_that_its_outer_headers_are_repeated() {
    for kind in [Kind::Routed, Kind::Bridged] {
        let Some((world, _echo, socket)) = conversation(kind) else {
            return;
        };
        for text in said(&world) {
            let mut lines = text.lines().filter(|line| line.contains("outer headers are repeated"));
            assert!(lines.any(|line| line.contains(TUNNEL)), "{kind:?}: {text}");
        }
        assert!(ask(&socket));
        let answer = metrics::get(&world.host(0).ns, DEFAULT_METRICS, "/metrics", "").expect("it is served");
        let samples = metrics::samples(&answer.body);
        let of = |name: &str| samples[&format!("netfast_tunnel_{name}{{\"device\": {TUNNEL:?}}}")];
        assert!(of("repeated") > 0.5 && of("headers") > 0.5, "{samples:#?}");
        assert!(samples["netfast_tunnel_packets_total{}"] > 3.5, "{samples:#?}");
    }
}

/// Off, as by default: nothing of it is attached, and the reports say that it is the operator's wish. On and off again while packets
/// go.
#[test]
fn switched_off_nothing_of_it_is_attached() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let world = World::configured(Kind::Routed, "noudpcsum", "learn_after = 0\n");
    let _echo = Echo::start(&world.host(1).container, 7002);
    let socket = udp(&world.host(0).container, 0, at(world.host(1).container_ip, 7002));
    cmd::poll("answers", TIMEOUT, || ask(&socket).then_some(())).expect("an answer");
    let ns = &world.host(0).ns;
    let plain = ["netfast_up_in", "netfast_up_out"];
    let is_off = || {
        assert_eq!(programs_at(ns, TUNNEL), plain);
        assert_eq!(programs_at(ns, "eth0"), plain);
        let before = world.count(0, Reason::Encapsulated);
        assert_eq!((0..100).filter(|_| ask(&socket)).count(), 100);
        assert_eq!(world.count(0, Reason::Encapsulated), before);
        for text in said(&world) {
            assert!(
                text.contains("switched off (tunnels = false in netfast.toml)"),
                "{text}"
            );
        }
    };
    is_off();
    configure(&world, "learn_after = 0\ntunnels = true\n");
    cmd::poll("outer headers that are repeated", TIMEOUT, || {
        let before = world.count(0, Reason::Encapsulated);
        let answered = (0..4).filter(|_| ask(&socket)).count();
        (answered == 4 && world.count(0, Reason::Encapsulated) >= before + 4).then_some(())
    })
    .expect("it is switched on");
    configure(&world, "learn_after = 0\n");
    cmd::poll("no programs of tunnels", TIMEOUT, || {
        (programs_at(ns, TUNNEL) == plain).then_some(())
    })
    .expect("it is off");
    is_off();
}

/// Programs that the kernel does not take are missed in one line, and packets go as without them.
#[test]
fn a_kernel_that_does_not_take_the_programs_is_said_and_gone_without() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let hosts = Hosts::new(Kind::Routed, "noudpcsum").expect("two hosts");
    let host = &hosts.hosts[0];
    let options = Options {
        config: Some("learn_after = 0\ntunnels = true\n".into()),
        ..Options::no_runtime()
    };
    let netfast = NetfastProc::prepare(&host.ns, options).expect("directories");
    let config = netfast.run_dir().join("netfast.toml").display().to_string();
    let command = |verb: &str| {
        let mut command = netfast.command(&[verb, "--runtime", "none", "--config", &config]);
        command.env("NETFAST_WITHOUT_PROGRAMS", "netfast_tun_up");
        command
    };
    let why = "the kernel does not take the BPF program netfast_tun_up";
    let checked = cmd::finish(&mut command("check"), Duration::from_mins(1))
        .expect("it ends")
        .stdout;
    assert!(checked.contains(&format!("each outer header: {why}")), "{checked}");
    let daemon = cmd::Background::start(&mut command("run")).expect("it starts");
    let status = cmd::poll("it is in sync", Duration::from_mins(1), || {
        let status = netfast.verb(&["status"]).ok()?;
        status.contains("in sync").then_some(status)
    })
    .expect("it starts");
    assert!(status.contains("Not here: ") && status.contains(why), "{status}");
    assert!(status.contains(&format!("each outer header: {why}")), "{status}");
    assert_eq!(programs_at(&host.ns, TUNNEL), ["netfast_up_in", "netfast_up_out"]);
    let _echo = Echo::start(&hosts.hosts[1].container, 7002);
    let socket = udp(&host.container, 0, at(hosts.hosts[1].container_ip, 7002));
    until_answered(&socket, "an answer");
    let log = daemon.stop().expect("it ends").stderr;
    assert_eq!(log.lines().filter(|line| line.contains(why)).count(), 1, "{log}");
    netfast.detach().expect("detached");
}
