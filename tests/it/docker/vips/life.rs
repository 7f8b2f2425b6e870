//! What clients notice of members that come and go, of the daemon's end, and of netfast's.

use std::{
    fs, io,
    net::{IpAddr, SocketAddrV4, TcpStream},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use netfast::probe::{self, Attached};
use netfast_tests::{
    cmd,
    dns::Question,
    netns::NsHandle,
    require::{Need, needs},
};
use nix::sys::signal::Signal;

use super::{Bed, LIMIT, WEB, ask, connections, member, shop, stat, talk::Talk};
use crate::{docker::bed::TIMEOUT, left::left_on};

/// New connections, so many a second, from threads of a client.
struct Load {
    started: Instant,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Done>>,
}

/// What became of the connections.
#[derive(Debug, Default)]
struct Done {
    answered: u64,
    /// Those that were not established.
    failed: Vec<Failed>,
    /// Those that were established and then not answered.
    broken: Vec<Failed>,
    /// The longest time until one was established.
    longest: Duration,
}

/// A connection that failed.
#[derive(Debug)]
struct Failed {
    /// When it was begun.
    at: Instant,
    /// Why.
    error: io::Error,
}

impl Done {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.failed.extend(other.failed);
        self.broken.extend(other.broken);
        self.longest = self.longest.max(other.longest);
    }

    fn connect(&mut self, to: SocketAddrV4) {
        let at = Instant::now();
        let stream = match TcpStream::connect_timeout(&to.into(), LIMIT) {
            Ok(stream) => stream,
            Err(error) => return self.failed.push(Failed { at, error }),
        };
        self.longest = self.longest.max(at.elapsed());
        match ask(stream) {
            Ok(()) => self.answered += 1,
            Err(error) => self.broken.push(Failed { at, error }),
        }
    }

    /// Every connection was established, and answered as well.
    fn must_be_whole(&self, what: &str) {
        self.must_be_established(what);
        assert!(self.broken.is_empty(), "{what}: {:?}", self.broken);
    }

    /// Every connection was established.
    fn must_be_established(&self, what: &str) {
        assert!(self.failed.is_empty(), "{what}: {:?}", self.failed);
        assert!(self.answered > 500, "{what}: {} answered", self.answered);
    }
}

impl Load {
    const THREADS: u32 = 10;
    /// Connections a second of all threads.
    const RATE: u32 = 500;

    fn start(client: &NsHandle, to: SocketAddrV4) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let (stop, client) = (Arc::clone(&stop), client.clone());
            thread::spawn(move || client.run(|| connect_until(&stop, to)).expect("entered"))
        };
        Self {
            started: Instant::now(),
            threads: (0..Self::THREADS).map(one).collect(),
            stop,
        }
    }

    /// Ends it; returns what became of its connections.
    fn end(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let elapsed = self.started.elapsed();
        let mut done = Done::default();
        for thread in self.threads {
            done.add(thread.join().expect("no panic"));
        }
        println!(
            "{} connections answered, {:.0} a second, {} failed, {} broken later, longest connect {:?}",
            done.answered,
            done.answered as f64 / elapsed.as_secs_f64(),
            done.failed.len(),
            done.broken.len(),
            done.longest
        );
        done
    }
}

fn connect_until(stop: &AtomicBool, to: SocketAddrV4) -> Done {
    let pause = Duration::from_secs(1) * Load::THREADS / Load::RATE;
    let mut done = Done::default();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        done.connect(to);
        next = (next + pause).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    done
}

/// Failures as they are told, with the time since something happened.
fn told(what: &str, since: Instant, failed: &[Failed]) {
    for failed in failed {
        let after = failed.at.saturating_duration_since(since);
        println!("{what}: {:?} of one begun after {after:?}", failed.error.kind());
    }
}

#[test]
fn members_come_and_go_under_load() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    let check = [
        "--health-cmd",
        "test ! -e /tmp/ill",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
    ];
    member(&host, "sick", "shop", &check);
    let bed = Bed::start(host, None);
    let to = bed.await_vip("shop", 4, &["client"]);
    let client = bed.ns("client");

    // Unhealthy: it still answers, so nothing fails, and the time until it gets no more is that of the check and ours.
    let load = Load::start(&client, to);
    thread::sleep(Duration::from_millis(500));
    bed.host.exec("sick", "touch /tmp/ill").expect("a file");
    let start = Instant::now();
    let sick = bed.ns("sick");
    let opened = || stat(&sick, "Tcp", "PassiveOpens");
    let last = cmd::poll("it gets no more", TIMEOUT, || {
        let (before, at) = (opened(), Instant::now());
        thread::sleep(Duration::from_millis(200));
        (opened() == before).then_some(at)
    });
    println!(
        "unhealthy: no more after {:?}",
        last.expect("it ends").saturating_duration_since(start)
    );
    bed.host.exec("sick", "rm /tmp/ill").expect("no file");
    bed.await_vip("shop", 4, &[]);
    let before = opened();
    thread::sleep(Duration::from_millis(300));
    assert!(opened() > before, "it is given again");
    load.end().must_be_whole("unhealthy");

    // Scaled up: with a check that waits until it answers, and without one, given before its server listens.
    for (name, extra) in [("web-4", &check[..]), ("web-5", &[])] {
        let load = Load::start(&client, to);
        thread::sleep(Duration::from_millis(600));
        let start = Instant::now();
        member(&bed.host, name, "shop", extra);
        let all = if name == "web-4" { 5 } else { 6 };
        bed.await_vip("shop", all, &[]);
        println!("scaled up: {name} is given after {:?}", start.elapsed());
        thread::sleep(Duration::from_millis(600));
        load.end().must_be_whole(name);
        assert!(stat(&bed.ns(name), "Tcp", "PassiveOpens") > 0, "{name}");
    }

    // Scaled down, in each way. What was open to it may break, and every other connection must be established.
    for (left, (what, name, command)) in [
        ("stopped", "web-4", &["stop", "--time", "5"][..]),
        ("killed", "web-3", &["kill", "--signal", "KILL"]),
        ("removed", "web-2", &["rm", "--force"]),
        ("disconnected", "web-5", &["network", "disconnect", "shop"]),
    ]
    .into_iter()
    .enumerate()
    {
        let load = Load::start(&client, to);
        thread::sleep(Duration::from_millis(600));
        let start = Instant::now();
        let (took, no_more) = thread::scope(|scope| {
            let ended = scope.spawn(|| {
                bed.host.docker(&[command, &[name]].concat()).expect("it ends");
                start.elapsed()
            });
            bed.await_vip("shop", 5 - left, &[]);
            let no_more = start.elapsed();
            (ended.join().expect("no panic"), no_more)
        });
        thread::sleep(Duration::from_millis(2500));
        let done = load.end();
        told(&format!("{what}, not established"), start, &done.failed);
        told(&format!("{what}, broken"), start, &done.broken);
        println!(
            "{what}: no more after {no_more:?} (docker took {took:?}), longest connect {:?}",
            done.longest
        );
        done.must_be_established(what);
        // Those that were open to it, of some hundred that had been opened meanwhile.
        assert!(done.broken.len() <= Load::THREADS as usize, "{what}: {:?}", done.broken);
    }
    let said = bed.netfast.verb(&["aliases", "--json"]).expect("netfast aliases");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    println!("{}", said["virtual_packets"]);
    connections(&client, to, 20);
}

#[test]
fn connections_outlive_the_daemon_and_netfast() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    // Each has some links, which go one by one.
    for number in 0..12 {
        host.run_container(&format!("more-{number}"), "shop", &[], &[])
            .expect("a container");
    }
    host.host()
        .set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")
        .expect("conntrack");
    let found = left_on(host.host());
    let routes = |ns: &NsHandle| ns.sh("ip route; ip neigh show nud permanent").expect("routes");
    let (found_inside, found_routes) = (
        routes(&host.container_netns("client").expect("it runs")),
        routes(host.host()),
    );
    let mut bed = Bed::start(host, None);
    let to = bed.await_vip("shop", 3, &["client", "web-1"]);
    let client = bed.ns("client");
    assert_ne!(routes(&client), found_inside, "there is a way");
    let mut talks: Vec<Talk> = (0..6).map(|_| Talk::start(&client, to)).collect();

    let load = Load::start(&client, to);
    thread::sleep(Duration::from_millis(500));
    bed.netfast.stop(Signal::SIGKILL).expect("killed");
    thread::sleep(Duration::from_millis(1500));
    bed.netfast.launch().expect("it starts again");
    assert_eq!(bed.await_vip("shop", 3, &["client"]), to, "the same address");
    thread::sleep(Duration::from_millis(500));
    load.end().must_be_whole("killed and started again");
    for talk in &mut talks {
        talk.ask(50);
    }
    let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&client, to, 30));
    assert_eq!(opened, [10; 3]);

    // A ping is a conversation, too.
    let pings = client
        .command("busybox")
        .args(["ping", "-i", "1", "-c", "20", &to.ip().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it pings");
    thread::sleep(Duration::from_secs(3));
    bed.netfast.stop(Signal::SIGTERM).expect("netfast stops");
    let would = bed.netfast.verb(&["detach", "--dry-run"]).expect("a dry run");
    let stop = AtomicBool::new(false);
    let said = thread::scope(|scope| {
        // Each of them is in use meanwhile.
        for talk in &mut talks {
            scope.spawn(|| talk.ask_until(&stop));
        }
        let said = bed.netfast.verb(&["detach"]).expect("netfast detaches");
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        said
    });
    println!("{said}");
    assert!(said.contains("7 connections to virtual addresses go on"), "{said}");
    let links = |text: &str, verb: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(verb));
        line.unwrap_or_else(|| panic!("{verb}: {text}")).to_owned()
    };
    assert_eq!(links(&would, "Remove "), links(&said, "Removed "), "{would}");
    assert_eq!(left_on(bed.host.host()), found, "the host as found");
    assert_eq!(routes(bed.host.host()), found_routes);
    assert_eq!(routes(&client), found_inside);
    for talk in &mut talks {
        talk.ask(50);
    }
    drop(talks);
    let said = pings.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&said.stdout);
    let answered = said.lines().filter(|line| line.contains("bytes from")).count();
    // One may be on its way while the entry changes.
    assert!(answered >= 19, "{said}");
    let answer = Question::of("web").ask(&client).expect("an answer");
    let members: Vec<IpAddr> = WEB.iter().map(|name| bed.ip(name, "shop").into()).collect();
    assert!(
        answer.addresses.len() == 3 && answer.addresses.iter().all(|ip| members.contains(ip)),
        "as Docker says it: {answer:?}"
    );
}

/// Our programs on an interface, in the order in which they run, and the routes and neighbours of a client.
fn marks(bed: &Bed, veth: &str) -> (Vec<String>, String) {
    let found = bed.host.host().run(|| probe::attached(veth)).expect("entered");
    let found = found.expect("a query of tcx");
    let ours = found.into_iter().filter(Attached::is_ours).map(|program| program.name);
    let routes = bed
        .ns("client")
        .sh("ip route show proto 110; ip neigh show nud permanent");
    (ours.collect(), routes.expect("routes"))
}

#[test]
fn programs_and_ways_are_there_in_order_and_are_made_again() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let mut bed = Bed::start(shop(&[]), None);
    let veth = bed.host.container_veth("client", "eth0").expect("its veth");
    let order = ["netfast_ep_in", "netfast_vip_in", "netfast_vip_out", "netfast_ep_out"];
    let await_all = |bed: &Bed, when: &str| {
        let seen = cmd::poll("programs and a way", TIMEOUT, || {
            let (programs, routes) = marks(bed, &veth);
            (programs == order && routes.lines().count() == 2).then_some(routes)
        });
        seen.unwrap_or_else(|error| panic!("{when}: {error}; {:?}\n{}", marks(bed, &veth), bed.netfast.log()))
    };
    let way = await_all(&bed, "at the start");
    println!("{way}");
    let vip = bed.web("shop").expect("it is listed")["vip"].clone();
    let pool = bed
        .host
        .host()
        .ip("route show type prohibit proto 110")
        .expect("a route");
    assert!(pool.starts_with("prohibit 198.19.0.0/16"), "{pool}");

    bed.netfast.stop(Signal::SIGKILL).expect("killed");
    assert_eq!(marks(&bed, &veth).1, way);
    bed.netfast.launch().expect("it starts again");
    assert_eq!(await_all(&bed, "started again"), way);
    assert_eq!(bed.web("shop").expect("it is listed")["vip"], vip);

    // Programs whose pins somebody removes come back in the same order, whichever of them is gone.
    let links = bed.netfast.abi_dir().join("links");
    let index = bed
        .host
        .host()
        .sh(&format!("cat /proc/net/dev >/dev/null; ip -o link show {veth}"))
        .expect("a link");
    let index = index.split(':').next().expect("its index").to_owned();
    for gone in [
        format!("netfast_ep_in-0-{index}"),
        format!("netfast_vip_out-0-{index}"),
        format!("netfast_ep_out-0-{index}"),
        format!("netfast_vip_in-0-{index}"),
    ] {
        fs::remove_file(links.join(&gone)).expect("a pin");
        // The daemon looks for maps once a second, and for links with each thorough pass.
        bed.netfast.stop(Signal::SIGTERM).expect("stopped");
        bed.netfast.launch().expect("it starts again");
        await_all(&bed, &gone);
    }

    // A client that is restarted has another namespace, and one that leaves the network has no way any more.
    bed.host
        .docker(&["restart", "--time", "0", "client"])
        .expect("restarted");
    let seen = cmd::poll("a way in the new namespace", TIMEOUT, || {
        let ns = bed.host.container_netns("client").ok()?;
        (!ns.sh("ip route show proto 110").ok()?.is_empty()).then_some(())
    });
    seen.unwrap_or_else(|error| panic!("{error}\n{}", bed.netfast.log()));
    bed.netfast.stop(Signal::SIGTERM).expect("netfast stops");
    bed.netfast.detach().expect("netfast detaches");
    let (programs, routes) = marks(&bed, &bed.host.container_veth("client", "eth0").expect("its veth"));
    assert_eq!((programs, routes.as_str()), (vec![], ""));
    assert_eq!(
        bed.host
            .host()
            .ip("route show type prohibit proto 110")
            .expect("routes"),
        ""
    );
}

#[test]
fn nothing_of_it_is_there_by_default() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    host.create_network("plain", &[]).expect("a network");
    for name in ["plain-1", "plain-2"] {
        member(&host, name, "plain", &[]);
    }
    for name in [&WEB[..], &["client"]].concat() {
        host.remove_container(name).expect("removed");
    }
    let routes = |ns: &NsHandle| {
        ns.sh("ip route; ip neigh show nud permanent")
            .expect("routes")
            .replace(" linkdown", "")
    };
    let asks = host.container_netns("plain-1").expect("it runs");
    let before = (routes(host.host()), routes(&asks));
    let bed = Bed::start(host, None);
    bed.await_fast("plain-1", "plain");
    let web = cmd::poll("the alias", TIMEOUT, || bed.web("plain")).expect("it is listed");
    assert_eq!((&web["mode"], &web["vip"]), (&"rr".into(), &serde_json::Value::Null));
    let programs = left_on(bed.host.host()).programs;
    assert!(
        programs.values().flatten().all(|name| !name.starts_with("netfast_vip")),
        "{programs:?}"
    );
    assert_eq!((routes(bed.host.host()), routes(&asks)), before);
}

#[test]
fn a_pool_that_is_in_use_is_refused() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    let options = crate::docker::bed::options(&host, Some("vip_pool = \"198.18.0.0/16\""));
    let error = netfast_tests::netfast_proc::NetfastProc::start(host.host(), options).expect_err("the LAN is there");
    let error = format!("{error:#}");
    assert!(error.contains("vip_pool = 198.18.0.0/16 overlaps"), "{error}");
    // One that comes to be in use is said, and names are rotated.
    let bed = Bed::start(host, None);
    bed.await_vip("shop", 3, &["client"]);
    bed.host
        .host()
        .ip("addr add 198.19.3.1/24 dev eth0")
        .expect("an address");
    let why = cmd::poll("the conflict", TIMEOUT, || {
        let web = bed.web("shop")?;
        (web["mode"] == "rr").then(|| web["reason"].as_str().map(str::to_owned))?
    });
    let why = why.expect("it is said");
    assert!(why.contains("198.19.3.1/24 of eth0"), "{why}");
    let answer = Question::of("web").ask(&bed.ns("client")).expect("an answer");
    assert_eq!(answer.addresses.len(), 3);
    bed.host
        .host()
        .ip("addr del 198.19.3.1/24 dev eth0")
        .expect("no address");
    bed.await_vip("shop", 3, &["client"]);
}
