//! Killed again and again, and taken away, in the middle of traffic: nothing is lost, nothing is left.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use netfast_tests::{
    cmd::{self, Background},
    netfast_proc::NetfastProc,
    netns::{NetNs, NsHandle},
    programs as tools,
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    topo::{self, Published, Topo},
    traffic::{hold, paced},
};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::{Marks, fast_endpoints, heard, names, names_below, programs, start, state};
use crate::left::left_on;

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];
/// What must happen happens within this; how long it took is not judged.
const TIMEOUT: Duration = Duration::from_mins(1);
const PORT: u16 = 7000;
/// The paths, in the order in which the load is on them.
const PATHS: [&str; 3] = ["bridge", "published port", "masquerade"];
/// Idle connections on each path.
const IDLE: usize = 20;
/// How often the daemon is killed.
const KILLS: usize = 5;

pub(super) fn host() -> Topo {
    heard(&topo::Options {
        published: vec![Published {
            host_port: PORT,
            container: (0, 0),
            port: PORT,
        }],
        ..topo::Options::default()
    })
}

/// Conversations on one bridge, to a published port, and through masquerade: many that are idle but for keep-alive, and
/// one that asks all the time. Light, since other tests run beside it.
pub(super) struct Load {
    servers: Vec<Background>,
    paced: Vec<Background>,
    idle: Vec<Background>,
}

impl Load {
    pub(super) fn start(topo: &Topo) -> Self {
        let tool = tools::traffic().expect("the traffic tool").display().to_string();
        let run = |ns: &NsHandle, args: &[&str]| ns.spawn(&[&[tool.as_str()], args].concat()).expect("it starts");
        let (server, client) = (&topo.container(0, 0).ns, &topo.container(0, 1).ns);
        let port = PORT.to_string();
        let servers = vec![
            run(server, &["rr-server", &port]),
            run(topo.lan(), &["rr-server", &port]),
        ];
        for ns in [server.handle(), topo.lan().handle()] {
            cmd::poll("the servers listen", TIMEOUT, || listens(&ns).then_some(())).expect("listening");
        }
        let paths: [(NsHandle, Ipv4Addr); 3] = [
            (client.handle(), topo.container(0, 0).ip),
            (topo.lan().handle(), HOST_IP),
            (client.handle(), LAN_IP),
        ];
        let mut load = Self {
            servers,
            paced: Vec::new(),
            idle: Vec::new(),
        };
        for (ns, ip) in paths {
            let to = format!("{ip}:{PORT}");
            load.paced
                .push(run(&ns, &["paced", &to, "--seconds", "600", "--rate", "200"]));
            load.idle
                .push(run(&ns, &["hold", &to, "--connections", &IDLE.to_string()]));
        }
        load
    }

    /// Ends it; no connection may have been lost.
    pub(super) fn end(self) {
        for (path, idle) in PATHS.into_iter().zip(self.idle) {
            let report: hold::Report = ended(idle);
            assert_eq!((report.opened, report.dead), (IDLE, 0), "{path}");
        }
        for paced in self.paced {
            let report: paced::Report = ended(paced);
            println!("{report:?}");
            // A machine that is busy with other things may lose a datagram; netfast's end must not show.
            assert!(report.lost * 100 <= report.sent, "{report:?}");
        }
        drop(self.servers);
    }
}

fn ended<T: DeserializeOwned>(process: Background) -> T {
    process.signal(Signal::SIGTERM).expect("it runs");
    let done = process.wait(TIMEOUT).expect("it ends");
    assert!(done.status.success(), "{done:?}");
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

fn listens(ns: &NsHandle) -> bool {
    ns.sh(&format!("ss -ltnH sport = :{PORT}"))
        .is_ok_and(|found| !found.is_empty())
}

/// Fails unless the fast path carries packets now.
pub(super) fn must_be_fast(netfast: &NetfastProc, when: &str) {
    let before = netfast.totals().expect("totals").fast_packets;
    cmd::poll(when, TIMEOUT, || {
        (netfast.totals().ok()?.fast_packets > before + 500).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", netfast.log()));
}

/// The kernel's number of each program on each hook.
fn program_ids(host: &NetNs) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    for device in ["eth0", "br-0", "veth0x0", "veth0x1"] {
        let programs = host
            .run(|| netfast::probe::attached(device))
            .expect("entered")
            .expect("a list");
        for program in programs {
            assert_eq!(
                found.insert(format!("{device} {:?} {}", program.hook, program.name), program.id),
                None,
                "{device}: attached twice"
            );
        }
    }
    found
}

#[test]
fn killed_again_and_again_under_load_no_connection_is_lost() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = host();
    let mut netfast = start(topo.host());
    let load = Load::start(&topo);
    must_be_fast(&netfast, "before");
    let (attached, pins) = (programs(topo.host()), names_below(netfast.pin_dir()));
    let mut ids = program_ids(topo.host());
    for round in 1..=KILLS {
        netfast.stop(Signal::SIGKILL).expect("killed");
        must_be_fast(&netfast, "without a daemon");
        netfast.launch().expect("the next one starts");
        assert_eq!(programs(topo.host()), attached, "round {round}");
        assert_eq!(names_below(netfast.pin_dir()), pins, "round {round}");
        let now = program_ids(topo.host());
        assert!(now.keys().eq(ids.keys()), "round {round}: {now:?}");
        assert!(
            now.iter().all(|(place, id)| ids[place] != *id),
            "the new daemon's programs took over"
        );
        ids = now;
        must_be_fast(&netfast, "with a new one");
    }
    assert_eq!(fast_endpoints(&state(&netfast)), names(&["veth0x0", "veth0x1"]));
    load.end();
}

#[test]
fn detached_under_load_the_host_is_as_found_and_no_connection_is_lost() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = host();
    let host = topo.host();
    // What an administrator has chosen: it must come back, not the kernel's default.
    host.ip("link set veth0x0 gso_max_size 50000 gro_max_size 40000")
        .expect("segment sizes");
    let (marks, found) = (Marks::of(host), left_on(host));
    let mut netfast = start(host);
    let load = Load::start(&topo);
    for round in 0..2 {
        must_be_fast(&netfast, "before");
        assert_ne!(left_on(host), found, "the listing sees what netfast does");
        netfast.verb(&["detach"]).expect("detach");
        assert_eq!(left_on(host), found, "round {round}");
        assert_eq!(Marks::of(host), marks, "round {round}");
        assert!(!netfast.pin_dir().exists(), "round {round}: pins are left");
        if round == 0 {
            // It has ended already.
            netfast.stop(Signal::SIGTERM).expect("its end");
            netfast.launch().expect("it starts again");
        }
    }
    load.end();
}
