//! An upgrade with everything switched on that is off by default: to another ABI and back, as the packages' programs do it, on
//! a Docker host with a conversation by each of them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use netfast::sys::ethtool;
use netfast_tests::{
    cmd::{self, Background},
    dns::Question,
    docker_host::{DockerHost, Options},
    leftovers,
    netfast_proc::NetfastProc,
    netns::NsHandle,
    require::{Need, needs},
    site::HOST_IP,
    traffic::{hold, rr},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::named;
use crate::{
    docker::bed::{Bed, PORT, TIMEOUT, docker_host, ended, options, run},
    left::left_on,
};

const CONFIG: &str =
    "resolver = true\nlocalhost = true\nsegments = \"on\"\nxdp = \"on\"\ntunnels = true\nalias_mode = \"vip\"\n";
/// Where the container's port is published.
const PUBLISHED: u16 = 8080;
/// Connections of each path that are open and say nothing.
const IDLE: usize = 20;

/// Two of one name on a network of its own with Docker's resolver, one of them published, and one on a macvlan network.
fn shop() -> DockerHost {
    let host = docker_host(Options::default());
    host.create_network("shop", &[]).expect("a network");
    let lan = [
        "--driver=macvlan",
        "--subnet=198.18.0.0/24",
        "--ip-range=198.18.0.64/28",
        "--gateway=198.18.0.100",
        "-o",
        "parent=eth0",
        "--label",
        "netfast.macvlan-host=true",
    ];
    host.create_network("lan", &lan).expect("a macvlan network");
    let port = PORT.to_string();
    let server = ["netfast-traffic", "rr-server", &port];
    let published = ["tcp", "udp"].map(|protocol| format!("--publish={PUBLISHED}:{PORT}/{protocol}"));
    let published: Vec<&str> = ["--network-alias", "web"]
        .into_iter()
        .chain(published.iter().map(String::as_str))
        .collect();
    for (name, network, more) in [
        ("web-1", "shop", &published[..]),
        ("web-2", "shop", &published[..2]),
        ("one", "lan", &[]),
    ] {
        host.run_container(name, network, more, &server).expect("a container");
    }
    host.run_container("client", "shop", &[], &[]).expect("a container");
    // What comes in by a network card has its checksum; what a veth brings has it only then.
    let compute = || ethtool::set_tx_checksums("eth0", false);
    host.lan().run(compute).expect("entered").expect("a setting");
    host
}

/// The program of one of the packages.
fn unpacked(variable: &str) -> PathBuf {
    let dir = leftovers::state_dir().expect("a directory").join(variable);
    let package = named(variable);
    cmd::run(Command::new("dpkg-deb").arg("--extract").args([&package, &dir])).expect("unpacked");
    dir.join("usr/bin/netfast")
}

/// The virtual address of `web`.
fn vip(bed: &Bed) -> Option<Ipv4Addr> {
    let said: Value = serde_json::from_str(&bed.netfast.verb(&["aliases", "--json"]).ok()?).ok()?;
    let mut all = said["aliases"].as_array()?.iter();
    all.find(|alias| alias["alias"] == "web")?["vip"].as_str()?.parse().ok()
}

/// What is not in force, by name.
fn missing(bed: &Bed) -> Vec<&'static str> {
    let status = bed.status();
    let all = |list: &Value, is_so: &dyn Fn(&Value) -> bool| {
        let list = list.as_array().map_or(&[][..], Vec::as_slice);
        !list.is_empty() && list.iter().all(is_so)
    };
    let of_127 = |port: &Value| port["listens"] != "0.0.0.0" || port["led"] == true;
    let text = |network: &str, key: &str| {
        let told = bed.network(network).unwrap_or_default()[key].clone();
        told.as_str().unwrap_or_default().to_owned()
    };
    let answered = || {
        let answer = Question::of("web").ask(&bed.ns("client")).ok()?;
        (answer.addresses == [IpAddr::from(vip(bed)?)]).then_some(())
    };
    let found = [
        ("resolver", all(&status["resolvers"], &|report| report["on"] == true)),
        ("localhost", all(&status["localhost"]["ports"], &of_127)),
        ("segments", text("shop", "segments") == "up to 128 KiB"),
        ("xdp", all(&status["xdp"]["uplinks"], &|uplink| uplink["why"].is_null())),
        (
            "macvlan-host",
            text("lan", "reason").ends_with("reach each other by eth0"),
        ),
        ("vip", answered().is_some()),
    ];
    found
        .into_iter()
        .filter(|(_, is_so)| !is_so)
        .map(|(name, _)| name)
        .collect()
}

fn await_all(bed: &Bed, when: &str) {
    let seen = cmd::poll("all is in force", TIMEOUT, || missing(bed).is_empty().then_some(()));
    seen.unwrap_or_else(|error| {
        panic!(
            "{when}: {error}: {:?} {:#}\nnetfast said:\n{}",
            missing(bed),
            bed.status(),
            bed.netfast.log()
        )
    });
}

/// What each opt-in carries: busy and idle connections.
struct Load {
    busy: Vec<(&'static str, Background)>,
    idle: Vec<(&'static str, Background)>,
}

impl Load {
    fn start(bed: &Bed) -> Self {
        let host = bed.host.host().handle();
        let one = bed.host.attachment("one", "lan").expect("it is on the network").ip;
        let at = |ip: Ipv4Addr, port: u16| SocketAddrV4::new(ip, port).to_string();
        let ways: [(&str, NsHandle, String); 4] = [
            ("localhost", host.clone(), at(Ipv4Addr::LOCALHOST, PUBLISHED)),
            ("published", bed.host.lan().handle(), at(HOST_IP, PUBLISHED)),
            ("macvlan", host, at(one, PORT)),
            ("vip", bed.ns("client"), at(vip(bed).expect("an address"), PORT)),
        ];
        let held = IDLE.to_string();
        let idle = ways
            .iter()
            .map(|(what, client, to)| (*what, run(client, &["hold", to, "--connections", &held])));
        let idle = idle.collect();
        let ask =
            |client: &NsHandle, to: &str, more: &[&str]| run(client, &[&["rr", to, "--seconds", "300"], more].concat());
        let mut busy: Vec<_> = ways
            .iter()
            .map(|(what, client, to)| (*what, ask(client, to, &[])))
            .collect();
        // What goes by XDP.
        let (_, lan, published) = &ways[1];
        busy.push(("datagrams", ask(lan, published, &["--udp"])));
        Self { busy, idle }
    }

    /// Ends it; says the longest time that each waited for an answer.
    fn end(self) -> String {
        let mut said = Vec::new();
        for (what, process) in self.busy {
            let report: rr::Report = ended(process);
            assert!(report.errors == 0 && report.transactions > 1000, "{what}: {report:?}");
            said.push(format!("{what} {:.0} ms", report.latency.max_us / 1e3));
        }
        for (what, process) in self.idle {
            let report: hold::Report = ended(process);
            assert_eq!((report.opened, report.dead), (IDLE, 0), "{what}: {report:?}");
        }
        said.join(", ")
    }
}

#[test]
fn all_that_is_off_by_default_goes_on_over_upgrades_and_no_connection_is_lost() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 15)]) {
        return;
    }
    let [new, next] = ["NETFAST_DEB_NEW", "NETFAST_DEB_NEXT"].map(unpacked);
    let host = shop();
    let found = left_on(host.host());

    let mut netfast = NetfastProc::prepare(host.host(), options(&host, Some(CONFIG))).expect("directories");
    netfast.use_program(&new);
    netfast.launch().expect("netfast starts");
    let mut bed = Bed { netfast, host };
    await_all(&bed, "at first");
    let load = Load::start(&bed);
    let (client, done) = (bed.ns("client"), AtomicBool::new(false));
    let names = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let (mut answers, mut longest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                // A client of its own asks again after five seconds; here nothing may be lost.
                Question::of("web-1").ask(&client).expect("an answer");
                longest = longest.max(start.elapsed());
                answers += 1;
                thread::sleep(Duration::from_millis(5));
            }
            (answers, longest)
        });
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (program, when) in [(&next, "another ABI"), (&new, "back")] {
                let sent = |bed: &Bed| bed.status()["xdp"]["packets"].as_u64().unwrap_or_default();
                bed.netfast.stop(Signal::SIGTERM).expect("it ends");
                bed.netfast.use_program(program);
                bed.netfast.launch().expect("the other one starts");
                await_all(&bed, when);
                let before = sent(&bed);
                cmd::poll("datagrams by XDP", TIMEOUT, || {
                    (sent(&bed) > before + 100).then_some(())
                })
                .unwrap_or_else(|error| panic!("{when}: {error}\n{}", bed.netfast.log()));
            }
        }));
        done.store(true, Ordering::Relaxed);
        let asked = asked.join();
        if let Err(panic) = upgraded {
            std::panic::resume_unwind(panic);
        }
        asked.expect("every name was resolved")
    });
    println!(
        "longest waits: {}; {} names, {:.0} ms",
        load.end(),
        names.0,
        names.1.as_secs_f64() * 1e3
    );
    bed.netfast.stop(Signal::SIGTERM).expect("it ends");
    bed.netfast.detach().expect("it detaches");
    assert_eq!(left_on(bed.host.host()), found);
    let rules = client.sh("iptables-save -t nat").expect("its rules");
    assert!(rules.contains("DOCKER_OUTPUT"), "Docker's rules are back: {rules}");
}
