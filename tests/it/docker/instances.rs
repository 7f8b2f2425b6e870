//! Two hosts, two engines, two netfasts on one machine: they know nothing of each other.

use std::thread;

use netfast_tests::{
    docker_host::Options,
    require::{Need, needs},
    site::HOST_IP,
};
use nix::sys::signal::Signal;

use super::bed::{Bed, docker_host};

#[test]
fn two_instances_in_two_namespaces() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let mut beds = thread::scope(|scope| {
        let beds = [(); 2].map(|()| {
            scope.spawn(|| {
                let host = docker_host(Options::default());
                host.create_network("mine", &[]).expect("a network");
                host.run_container("server", "mine", &["-p", "8080:7001", "-p", "8080:7001/udp"], &[])
                    .expect("a server");
                host.run_container("client", "mine", &[], &[]).expect("a client");
                let bed = Bed::start(host, None);
                bed.await_fast("server", "mine");
                bed.await_fast("client", "mine");
                bed
            })
        });
        beds.map(|bed| bed.join().expect("a Docker host with netfast"))
    });
    assert_ne!(beds[0].netfast.pin_dir(), beds[1].netfast.pin_dir());
    let work = |bed: &Bed| {
        let (client, server) = (bed.ns("client"), bed.ns("server"));
        bed.prove("on the bridge", &client, &server, bed.at("server", "mine"));
        let published = std::net::SocketAddrV4::new(HOST_IP, 8080);
        bed.prove("published", &bed.host.lan().handle(), &server, published);
    };
    // At the same time, with the same addresses on both.
    thread::scope(|scope| {
        for bed in &beds {
            scope.spawn(|| work(bed));
        }
    });
    // What one counts the other does not.
    let before = beds[1].netfast.totals().expect("totals");
    work(&beds[0]);
    let idle = beds[1].netfast.totals().expect("totals").since(before);
    assert!(idle.fast_packets + idle.slow_packets < 100, "{idle:?}");
    // And it does not mind when the other goes.
    beds[0].netfast.stop(Signal::SIGTERM).expect("netfast stops");
    beds[0].netfast.detach().expect("netfast is detached");
    assert!(!beds[0].netfast.pin_dir().exists());
    work(&beds[1]);
}
