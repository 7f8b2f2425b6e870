//! Virtual addresses of IPv6: on a dual-stack network the same name has both, and each takes turns.

use std::{fs, net::SocketAddrV6};

use netfast_tests::dns::A;

use super::*;

/// A dual-stack network whose aliases have virtual addresses.
fn dual_stack() -> DockerHost {
    shop(&["--ipv6", "--subnet=fd00:51::/64"])
}

/// The counters of a namespace's stack by name.
fn stat6(ns: &NsHandle, name: &str) -> u64 {
    let text = ns
        .run(|| fs::read_to_string("/proc/thread-self/net/snmp6"))
        .expect("entered")
        .expect("the counters");
    let mut fields = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = fields.find(|(this, _)| *this == name).expect("a counter");
    value.trim().parse().expect("a number")
}

impl Bed {
    /// The virtual addresses of `web`, both with [`PORT`], as soon as so many members are given and these are told of them.
    fn await_both(&self, given: usize, clients: &[&str]) -> (SocketAddrV4, SocketAddrV6) {
        let to = self.await_vip("shop", given, clients);
        let seen = cmd::poll("the virtual address of IPv6", TIMEOUT, || {
            let vip: Ipv6Addr = self.web("shop")?["vip6"].as_str()?.parse().ok()?;
            let question = Question {
                kind: AAAA,
                ..Question::of("web")
            };
            let told = |client: &&str| {
                let answer = question.ask(&self.ns(client));
                answer.is_ok_and(|answer| answer.addresses == [IpAddr::from(vip)])
            };
            clients.iter().all(told).then_some(SocketAddrV6::new(vip, PORT, 0, 0))
        });
        let to6 = seen.unwrap_or_else(|error| {
            panic!(
                "{error}; {:#}\nnetfast said:\n{}",
                self.web("shop").unwrap_or_default(),
                self.netfast.log()
            )
        });
        (to, to6)
    }

    fn rise6(&self, members: &[&str], name: &str, during: impl FnOnce()) -> Vec<u64> {
        let counts = || members.iter().map(|member| stat6(&self.ns(member), name));
        let before: Vec<u64> = counts().collect();
        during();
        counts().zip(before).map(|(after, before)| after - before).collect()
    }
}

#[test]
fn a_dual_stack_name_has_two_addresses_and_connections_to_each_go_to_the_next_member() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(dual_stack(), None);
    let (to, to6) = bed.await_both(3, &["client", "web-1"]);
    let client = bed.ns("client");
    for to in [SocketAddr::from(to), SocketAddr::from(to6)] {
        let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&client, to, 300));
        println!("300 connections to {to}: {opened:?}");
        assert_eq!(opened, [100; 3], "{to}");
    }
    let asked = bed.rise6(&WEB, "Udp6InDatagrams", || {
        let ask = || (0..30).try_for_each(|_| datagram(to6));
        client.run(ask).expect("entered").expect("answers");
    });
    assert_eq!(asked, [10; 3]);
    let pinged = bed.rise6(&WEB, "Icmp6InEchos", || {
        for _ in 0..3 {
            let ping = format!("ping -6 -c1 -W2 {}", to6.ip());
            bed.host.exec("client", &ping).expect("an answer");
        }
    });
    assert_eq!(pinged, [1; 3]);
    // A member is given itself in its turn.
    let hairpin = bed.rise(&WEB, "Tcp", "PassiveOpens", || {
        connections(&bed.ns("web-1"), to6, 9);
    });
    assert_eq!(hairpin, [3; 3]);
    let web = bed.web("shop").expect("it is listed");
    assert_eq!(web["evenness"], 1.0, "{web:#}");
    // A long one stays where it is, fast.
    for what in ["first", "second"] {
        let (rose, counted) = bed.count(|| {
            bed.rise(&WEB, "Tcp", "PassiveOpens", || {
                let to = to6.to_string();
                let done = super::super::bed::run(&client, &["rr", &to, "--seconds", "1"])
                    .wait(TIMEOUT)
                    .expect("it ends");
                assert!(done.status.success(), "{done:?}");
            })
        });
        println!("a long connection of IPv6, the {what}: {counted}");
        assert_eq!(rose.iter().sum::<u64>(), 1, "one member");
        bed.must_be_fast("a long connection of IPv6", counted, 0.95);
    }
    let text = bed.netfast.verb(&["aliases", "web"]).expect("netfast aliases web");
    println!("{text}");
    assert!(text.contains(&format!("{} {}", to.ip(), to6.ip())), "{text}");
    for asked in ["web:7001", &to6.to_string()] {
        let said = bed
            .netfast
            .verb(&["explain", "client", asked])
            .expect("netfast explain");
        let wanted = format!("virtual addresses {} and {}", to.ip(), to6.ip());
        assert!(said.contains(&wanted) && said.contains("the next of 3 of 3"), "{said}");
    }
}

#[test]
fn a_connection_of_ipv6_that_a_member_refuses_goes_to_the_next_and_nobody_is_a_refusal() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = dual_stack();
    host.run_container("idle", "shop", &["--network-alias", "web"], &[])
        .expect("a member");
    let bed = Bed::start(host, None);
    let (_, to6) = bed.await_both(4, &["client", "web-1"]);
    for client in ["client", "web-1", "idle"] {
        let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || {
            connections(&bed.ns(client), to6, 200);
        });
        println!("200 connections of {client}: {opened:?}");
        assert_eq!(opened.iter().sum::<u64>(), 200, "{client}");
    }
    let members = [&WEB[..], &["idle"]].concat();
    for name in &members {
        bed.host.docker(&["pause", name]).expect("paused");
    }
    bed.await_both(0, &[]);
    let client = bed.ns("client");
    let start = Instant::now();
    let refused = client.run(|| talk(to6)).expect("entered").expect_err("nobody is there");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(start.elapsed() < Duration::from_millis(500));
    let refused = client.run(|| datagram(to6)).expect("entered");
    let refused = refused.expect_err("nobody is there");
    println!("UDP: {refused}");
    assert!(start.elapsed() < Duration::from_secs(1));
    for name in &members {
        bed.host.docker(&["unpause", name]).expect("goes on");
    }
    bed.await_both(4, &["client"]);
    connections(&client, to6, 8);
}

/// Routes and neighbours of netfast's in a namespace.
fn ways(ns: &NsHandle) -> String {
    let text = ns.sh("ip -6 route show proto 110; ip -6 neigh show nud permanent");
    text.expect("routes")
}

#[test]
fn ways_of_ipv6_come_with_the_address_and_go_with_netfast() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let mut bed = Bed::start(dual_stack(), None);
    let (_, to6) = bed.await_both(3, &["client"]);
    let (client, host) = (bed.ns("client"), bed.host.host().handle());
    let way = ways(&client);
    println!("{way}");
    assert_eq!(way.lines().count(), 2, "a route and its next hop: {way}");
    let pool = ways(&host);
    assert!(pool.contains("prohibit fd6e:6574:6661:7374::/112"), "{pool}");
    // What no program translates is refused by the host.
    let done = host
        .run(|| TcpStream::connect_timeout(&to6.into(), LIMIT))
        .expect("entered");
    done.expect_err("the host is no client");
    let mut stream = client
        .run(|| TcpStream::connect_timeout(&to6.into(), LIMIT))
        .expect("entered")
        .expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut echo = || stream.write_all(b"q").and_then(|()| stream.read_exact(&mut [0]));
    echo().expect("an answer");

    bed.netfast.stop(nix::sys::signal::Signal::SIGKILL).expect("killed");
    echo().expect("it goes on without the daemon");
    assert_eq!(ways(&client), way);
    bed.netfast.launch().expect("it starts again");
    assert_eq!(bed.await_both(3, &["client"]).1, to6, "the same address");
    assert_eq!(ways(&client), way);
    echo().expect("an answer");

    bed.netfast
        .stop(nix::sys::signal::Signal::SIGTERM)
        .expect("netfast stops");
    let said = bed.netfast.verb(&["detach"]).expect("netfast detaches");
    println!("{said}");
    assert_eq!((ways(&client).as_str(), ways(&host).as_str()), ("", ""));
    let answer = |kind| {
        let question = Question {
            kind,
            ..Question::of("web")
        };
        question.ask(&client).expect("an answer").addresses.len()
    };
    assert_eq!([answer(A), answer(AAAA)], [3; 2], "as Docker says it");
}

#[test]
fn a_pool_of_ipv6_that_is_in_use_is_refused_or_leaves_the_address_of_ipv4() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = dual_stack();
    let config = "vip_pool6 = \"fd00:51::/112\"";
    let options = crate::docker::bed::options(&host, Some(config));
    let error =
        netfast_tests::netfast_proc::NetfastProc::start(host.host(), options).expect_err("the network is there");
    let error = format!("{error:#}");
    assert!(error.contains("vip_pool6 = fd00:51::/112 overlaps"), "{error}");
    let bed = Bed::start(host, None);
    bed.await_both(3, &["client"]);
    let overlapping = "fd6e:6574:6661:7374::7/64";
    let ip = |verb: &str| {
        let line = format!("-6 addr {verb} {overlapping} dev eth0");
        bed.host.host().ip(&line).expect("an address changes");
    };
    ip("add");
    let why = cmd::poll("the conflict", TIMEOUT, || {
        let web = bed.web("shop")?;
        (web["vip6"].is_null()).then(|| web["reason"].as_str().map(str::to_owned))?
    });
    let why = why.expect("it is said");
    assert!(
        why.starts_with("no virtual address of IPv6") && why.contains("of eth0"),
        "{why}"
    );
    let question = Question {
        kind: AAAA,
        ..Question::of("web")
    };
    let client = bed.ns("client");
    cmd::poll("no address of IPv6", TIMEOUT, || {
        let answer = question.ask(&client).ok()?;
        answer.addresses.is_empty().then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", bed.netfast.log()));
    let to = bed.await_vip("shop", 3, &["client"]);
    connections(&client, to, 3);
    ip("del");
    bed.await_both(3, &["client"]);
}
