//! Containers come, go, move and are replaced while others talk: picked up soon, nobody else disturbed.

use std::{
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    docker_host::Options,
    require::{Need, needs},
    site::HOST_IP,
    traffic::rr,
};

use super::bed::{Bed, PORT, Steady, TIMEOUT, connects, docker_host, ended, run};

#[test]
fn churn_is_picked_up_and_disturbs_nobody() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    let port = PORT.to_string();
    let server = ["netfast-traffic", "rr-server", &port];
    host.create_network("mine", &[]).expect("a network");
    host.create_network("other", &[]).expect("a network");
    let published = ["-p", "8080:7001", "-p", "8080:7001/udp"];
    host.run_container("steady", "mine", &published, &server)
        .expect("a server");
    host.run_container("client", "mine", &[], &[]).expect("a client");
    host.run_container("neighbour", "other", &[], &[]).expect("a client");
    let bed = Bed::start(host, None);
    for (container, network) in [("steady", "mine"), ("client", "mine"), ("neighbour", "other")] {
        bed.await_fast(container, network);
    }
    let (client, lan) = (bed.ns("client"), bed.host.lan().handle());
    let outside = SocketAddrV4::new(HOST_IP, 8080);
    let others = [
        Steady::start(&bed, "on the bridge", &client, bed.at("steady", "mine"), &[]),
        Steady::start(&bed, "published, TCP", &lan, outside, &[]),
        Steady::start(&bed, "published, UDP", &lan, outside, &["--udp"]),
    ];

    let mut times = Vec::new();
    for round in 0..3 {
        bed.host
            .run_container("mover", "mine", &["-p", "8090:7001"], &server)
            .expect("mover");
        times.push(("run", await_current(&bed, "mover", "mine")));
        talk(&bed, "after the start", "client", bed.at("mover", "mine"));
        bed.host.docker(&["stop", "mover"]).expect("docker stop");
        times.push(("stop", bed.await_gone("mover", "mine")));
        bed.host.docker(&["start", "mover"]).expect("docker start");
        times.push(("start", await_current(&bed, "mover", "mine")));
        talk(&bed, "after a stop and a start", "client", bed.at("mover", "mine"));
        bed.host.docker(&["restart", "mover"]).expect("docker restart");
        times.push(("restart", await_current(&bed, "mover", "mine")));
        talk(&bed, "after a restart", "client", bed.at("mover", "mine"));

        // A live flow of x itself, on its first network, while a second one comes.
        let own = (round == 0).then(|| Steady::start(&bed, "of the mover", &client, bed.at("mover", "mine"), &[]));
        bed.host
            .docker(&["network", "connect", "other", "mover"])
            .expect("docker network connect");
        times.push(("connect", await_current(&bed, "mover", "other")));
        talk(&bed, "after a connect", "neighbour", bed.at("mover", "other"));
        if let Some(own) = own {
            own.end(&bed);
        }
        bed.host
            .docker(&["network", "disconnect", "mine", "mover"])
            .expect("docker network disconnect");
        times.push(("disconnect", bed.await_gone("mover", "mine")));
        talk(&bed, "after a disconnect", "neighbour", bed.at("mover", "other"));
        bed.host
            .docker(&["network", "connect", "mine", "mover"])
            .expect("docker network connect");
        times.push(("connect again", await_current(&bed, "mover", "mine")));
        talk(
            &bed,
            "after a disconnect and a connect",
            "client",
            bed.at("mover", "mine"),
        );
        bed.host.remove_container("mover").expect("docker rm");
        times.push(("rm", bed.await_gone("mover", "mine")));
        bed.await_gone("mover", "other");
    }
    storm(&bed);
    bed.host.run_container("before", "mine", &[], &[]).expect("a container");
    bed.await_fast("before", "mine");
    bed.host.docker(&["rename", "before", "after"]).expect("docker rename");
    times.push(("rename", bed.await_fast("after", "mine")));

    for (what, time) in &times {
        println!(
            "docker {what}: picked up {:.0} ms after the command",
            time.as_secs_f64() * 1e3
        );
    }
    for steady in others {
        steady.end(&bed);
    }
}

/// Many containers at once.
fn storm(bed: &Bed) {
    let names: Vec<String> = (0..6).map(|number| format!("storm-{number}")).collect();
    let each = |work: &(dyn Fn(&str) + Sync)| {
        thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| work(name));
            }
        });
    };
    each(&|name| {
        let network = if name.ends_with(['0', '2', '4']) {
            "mine"
        } else {
            "bridge"
        };
        bed.host.run_container(name, network, &[], &[]).expect("a container");
        bed.await_fast(name, network);
    });
    each(&|name| bed.host.remove_container(name).expect("docker rm"));
    for name in &names {
        bed.await_gone(name, "mine");
        bed.await_gone(name, "bridge");
    }
}

/// Waits until netfast has the container's present interface on a network, and that on the fast path.
fn await_current(bed: &Bed, container: &str, network: &str) -> Duration {
    let start = Instant::now();
    let attachment = bed.host.attachment(container, network).expect("it is on the network");
    let ns = bed.ns(container);
    let links = ns.sh("ip -o addr show").expect("its interfaces");
    let inside = links
        .lines()
        .find(|line| line.contains(&format!(" {}/", attachment.ip)))
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or_else(|| panic!("{container} has no {}: {links}", attachment.ip));
    let veth = bed.host.container_veth(container, inside).expect("its veth");
    let found = cmd::poll("the container is picked up", TIMEOUT, || {
        let end = bed.endpoint(container, network)?;
        (end["veth"] == veth.as_str() && end["path"] == "fast" && !end["traffic"].is_null()).then_some(())
    });
    if let Err(error) = found {
        panic!(
            "{container} on {network}, {veth}: {error}; it is {:#}\nnetfast said:\n{}",
            bed.endpoint(container, network).unwrap_or_default(),
            bed.netfast.log()
        );
    }
    start.elapsed()
}

/// A short conversation that must be answered, and go by the fast path.
fn talk(bed: &Bed, what: &str, client: &str, to: SocketAddrV4) {
    let ns = bed.ns(client);
    // The server may still be starting.
    let answers = || connects(&ns, to, Duration::from_secs(1)).then_some(());
    cmd::poll("the server answers", TIMEOUT, answers).unwrap_or_else(|error| panic!("{what}: {error}"));
    let before = fast_in(bed, client);
    let done = run(&ns, &["rr", &to.to_string(), "--seconds", "0.3"])
        .wait(TIMEOUT)
        .expect("rr ends");
    assert!(done.status.success(), "{what}: {done:?}");
    let report: rr::Report = super::bed::report(&done);
    assert_eq!(report.errors, 0, "{what}: {report:?}");
    let fast = fast_in(bed, client) - before;
    assert!(
        fast * 10 >= report.transactions * 8,
        "{what}: {fast} fast packets in {} transactions\n{}",
        report.transactions,
        bed.netfast.verb(&["status"]).unwrap_or_default()
    );
}

/// Packets that came from this container and took the fast path, over all its networks.
fn fast_in(bed: &Bed, container: &str) -> u64 {
    let status = bed.status();
    let networks = status["networks"].as_array().expect("networks");
    let ends = networks
        .iter()
        .flat_map(|network| network["endpoints"].as_array().into_iter().flatten());
    ends.filter(|end| end["container"] == container)
        .filter_map(|end| end["traffic"]["in_fast_packets"].as_u64())
        .sum()
}

#[test]
fn a_replaced_container_gets_the_traffic_of_its_address() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = docker_host(Options::default());
    let port = PORT.to_string();
    let server = ["netfast-traffic", "rr-server", &port];
    host.create_network("mine", &["--subnet=172.72.0.0/16"])
        .expect("a network");
    host.run_container("client", "mine", &[], &[]).expect("a client");
    let fixed = ["--ip", "172.72.0.50"];
    host.run_container("old", "mine", &fixed, &server).expect("a server");
    let bed = Bed::start(host, None);
    bed.await_fast("client", "mine");
    bed.await_fast("old", "mine");
    let (client, to) = (bed.ns("client"), bed.at("old", "mine"));
    // One socket over the whole time: its flow is learned towards the old container.
    let flow = run(&client, &["rr", &to.to_string(), "--udp", "--seconds", "120"]);
    cmd::poll("the flow is fast", TIMEOUT, || {
        (fast_in(&bed, "client") > 1000).then_some(())
    })
    .expect("fast");
    for (old, new) in [("old", "new"), ("new", "newest")] {
        bed.host.remove_container(old).expect("docker rm");
        // On the same host something else in between, so that numbers of interfaces are not simply next in line.
        bed.host.run_container("between", "bridge", &[], &[]).expect("another");
        bed.host
            .run_container(new, "mine", &fixed, &server)
            .expect("its successor");
        let took = await_current(&bed, new, "mine");
        let before = fast_in(&bed, "client");
        let again = cmd::poll("the flow is fast again", TIMEOUT, || {
            (fast_in(&bed, "client") > before + 1000).then_some(())
        });
        if let Err(error) = again {
            panic!("{error}\n{}", bed.netfast.verb(&["status"]).unwrap_or_default());
        }
        println!("{new}: picked up after {:.0} ms", took.as_secs_f64() * 1e3);
        talk(&bed, new, "client", to);
        bed.host.remove_container("between").expect("docker rm");
    }
    let report: rr::Report = ended(flow);
    println!("while the server was replaced twice: {report:?}");
    assert!(report.transactions > 3000, "{report:?}");
}
