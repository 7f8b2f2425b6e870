//! The engine goes and comes back, its containers staying: docker-proxy goes and comes with it, and nobody needs netfast for that.

use std::{io::ErrorKind, net::TcpStream};

use netfast_tests::{
    docker_host::Options,
    require::{Need, needs},
};
use nix::sys::signal::Signal;

use super::{
    super::bed::{Bed, TIMEOUT, docker_host},
    ON, PUBLISHED, at_host, await_led, connect, goes_on, localhost, must_be, run_web, stay,
};

/// Connections that were led past docker-proxy need neither it nor the engine; new ones go by what listens on the port, as without
/// netfast: while no engine runs, nobody does (docker-proxy dies with it, `Pdeathsig` in moby's `newProxyCommand`).
#[test]
fn connections_outlive_the_engine_and_new_ones_follow_its_proxy() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options {
        dockerd_flags: vec!["--live-restore".to_owned()],
        ..Options::default()
    });
    run_web(&host);
    let mut bed = Bed::start(host, Some(ON));
    await_led(&bed, None);
    let to = localhost(PUBLISHED);
    let mut first = stay(&bed, to);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        bed.host.stop_dockerd(signal).expect("dockerd ends");
        goes_on(&mut first);
        let refused = at_host(&bed, || TcpStream::connect_timeout(&to, TIMEOUT).map(drop));
        assert_eq!(
            refused.expect_err("no proxy").kind(),
            ErrorKind::ConnectionRefused,
            "after {signal}"
        );
        bed.host.start_dockerd().expect("dockerd starts again");
        await_led(&bed, None);
        must_be(&connect(&bed, to), &bed, to, true);
        assert_eq!(first.0.peer_addr().expect("a peer"), to, "after {signal}");
        goes_on(&mut first);
    }
}
