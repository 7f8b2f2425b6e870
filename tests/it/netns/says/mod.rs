//! What is said is what is done: `netfast explain` in worlds from seeds, beside what real packets do there.
//!
//! - [`host`]: one host that becomes each world in turn;
//! - [`talk`]: conversations, and the fast path's part of them.

use std::{env, net::SocketAddr, thread};

use netfast_tests::{
    require::{Need, needs},
    site::{HOST_IP, LAN_IP},
    worlds::{Party, Rules, Talk, Trait, World},
};
use serde_json::Value;

use super::lab::{Lab, at};

mod host;
mod talk;

use host::{PORT, PUBLISHED};
use talk::{Outcome, Server};

/// The worlds that every run of the tests plays.
const FIXED: u64 = 20;
/// Hosts that play many worlds at the same time.
const MAX_HOSTS: u64 = 2;
/// Which worlds, `FROM+COUNT`, instead of the fixed ones: set by `cargo xtask test netns --worlds`.
const WORLDS: &str = "NETFAST_WORLDS";
/// More is fast, less than the rest of it is slow.
const SHARE: f64 = 0.9;

#[test]
fn worlds() {
    if !needs(&[
        Need::Root,
        Need::Program("nft"),
        Need::Program("tc"),
        Need::Program("iptables-nft-restore"),
    ]) {
        return;
    }
    let (from, count) = env::var(WORLDS).map_or((0, FIXED), |text| {
        let (from, count) = text.split_once('+').expect("FROM+COUNT");
        (from.parse().expect("a seed"), count.parse().expect("a number"))
    });
    // Mostly it is waited until netfast has heard of a world, so that several hosts do not disturb each other.
    let hosts = (count / FIXED).clamp(1, MAX_HOSTS);
    let mut table = Table::default();
    thread::scope(|scope| {
        let played: Vec<_> = (0..hosts)
            .map(|host| scope.spawn(move || play_worlds((from..from + count).filter(|seed| seed % hosts == host))))
            .collect();
        for one in played {
            table.add(one.join().expect("a host's worlds"));
        }
    });
    println!("{table:#?}");
    assert!(table.contradictions.is_empty(), "{}", table.contradictions.join("\n"));
}

/// Plays these worlds on one host, one after the other.
fn play_worlds(seeds: impl Iterator<Item = u64>) -> Table {
    let lab = host::start();
    let _servers = servers(&lab);
    let mut table = Table::default();
    for seed in seeds {
        let world = World::of(seed);
        println!("world {seed}: {world}");
        host::enter(&lab, &world);
        for talk in &world.talks {
            play(&lab, seed, &world, talk, &mut table);
        }
        host::leave(&lab, &world);
        table.worlds += 1;
    }
    table
}

/// Each world in which a word was false once, by the traits and the talk that showed it.
#[test]
fn words_that_were_false_once() {
    if !needs(&[
        Need::Root,
        Need::Program("nft"),
        Need::Program("tc"),
        Need::Program("iptables-nft-restore"),
    ]) {
        return;
    }
    let direct = |container, peer| Talk {
        container,
        peer,
        is_answering: false,
        is_published: false,
        is_tcp: false,
        length: 64,
    };
    let engine = Trait::Rules(Rules::Engine);
    let cases = [
        (
            "an internal network to the outside",
            vec![engine, Trait::Internal(1)],
            direct((1, 0), Party::Outside),
        ),
        (
            "two containers of an icc=false network",
            vec![engine, Trait::BrNetfilter, Trait::NoIcc(0)],
            direct((0, 0), Party::Container(0, 1)),
        ),
        (
            "the host to a published port, under br_netfilter",
            vec![engine, Trait::BrNetfilter],
            Talk {
                is_answering: true,
                is_published: true,
                ..direct((0, 0), Party::Host)
            },
        ),
        (
            "the host to a published port, under br_netfilter and a table of bridges",
            vec![engine, Trait::BrNetfilter, Trait::BridgeTable],
            Talk {
                is_answering: true,
                is_published: true,
                ..direct((0, 0), Party::Host)
            },
        ),
        (
            "a container to the host, with ufw's rules",
            vec![Trait::Rules(Rules::None), Trait::Ufw],
            Talk {
                is_tcp: true,
                ..direct((0, 0), Party::Gateway(0))
            },
        ),
        (
            "a container whose address is not known, to the outside",
            vec![engine, Trait::Forgotten(0)],
            direct((0, 0), Party::Outside),
        ),
        (
            "between isolated ports",
            vec![Trait::Rules(Rules::None), Trait::Isolated],
            direct((0, 0), Party::Container(0, 1)),
        ),
        (
            "to a container whose side of the veth is down",
            vec![Trait::Rules(Rules::None), Trait::Down(0, 1)],
            direct((0, 0), Party::Container(0, 1)),
        ),
    ];
    let lab = host::start();
    let _servers = servers(&lab);
    for (number, (what, traits, talk)) in (0..).zip(cases) {
        let world = World {
            traits,
            talks: vec![talk],
            learn_after: 3,
        };
        host::enter(&lab, &world);
        let mut table = Table::default();
        play(&lab, number, &world, &talk, &mut table);
        host::leave(&lab, &world);
        assert!(
            table.contradictions.is_empty(),
            "{what}: {}",
            table.contradictions.join("\n")
        );
    }
}

/// What came of all talks.
#[derive(Debug, Default)]
struct Table {
    worlds: u64,
    fast: u64,
    slow: u64,
    kernel_decides_and_fast: u64,
    kernel_decides_and_slow: u64,
    kernel_decides_and_nothing: u64,
    inside: u64,
    /// Told once, and not again.
    unconfirmed: u64,
    contradictions: Vec<String>,
}

impl Table {
    fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.fast += other.fast;
        self.slow += other.slow;
        self.kernel_decides_and_fast += other.kernel_decides_and_fast;
        self.kernel_decides_and_slow += other.kernel_decides_and_slow;
        self.kernel_decides_and_nothing += other.kernel_decides_and_nothing;
        self.inside += other.inside;
        self.unconfirmed += other.unconfirmed;
        self.contradictions.extend(other.contradictions);
    }
}

fn servers(lab: &Lab) -> Vec<Server> {
    let containers = lab.topo.bridges.iter().flat_map(|bridge| &bridge.containers);
    let mut servers: Vec<Server> = containers
        .map(|container| Server::start(&container.ns, container.ip, PORT))
        .collect();
    servers.push(Server::start(lab.topo.lan(), LAN_IP, PORT));
    let host = lab.topo.host();
    let gateways = lab.topo.bridges.iter().map(|bridge| bridge.gateway);
    servers.extend(gateways.chain([HOST_IP]).map(|ip| Server::start(host, ip, PORT)));
    // Where no rule translates, as docker-proxy.
    servers.extend(PUBLISHED.map(|(port, _)| Server::start(host, HOST_IP, port)));
    servers
}

/// Asks, talks, asks again, and compares; what contradicts must do so twice.
fn play(lab: &Lab, seed: u64, world: &World, talk: &Talk, table: &mut Table) {
    let mut found = Vec::new();
    for _ in 0..2 {
        let Err(text) = try_once(lab, world, talk, table) else {
            table.unconfirmed += found.len() as u64;
            return;
        };
        found.push(text);
    }
    let text = format!("world {seed}: {world}\n{talk:?}\n{}", found.join("\nagain:\n"));
    println!("{text}");
    table.contradictions.push(text);
}

fn try_once(lab: &Lab, world: &World, talk: &Talk, table: &mut Table) -> Result<(), String> {
    let route = Route::of(lab, world, talk);
    let before = explain(lab, talk, &route.shown);
    let outcome = talk::talk(lab, &lab_ns(lab, route.opener), route.to, talk.is_tcp, talk.length);
    let after = explain(lab, talk, &route.shown);
    let told = |explained: &Value| {
        let text = lab.netfast.verb(&["explain", &veth(lab, talk), &route.shown]);
        format!(
            "said {}, {} of {} fast{}{}: {:?}\n{explained:#}\n{}",
            explained["verdict"],
            outcome.fast,
            outcome.all,
            if outcome.is_answered { "" } else { ", no answers" },
            outcome.is_refused.as_deref().unwrap_or_default(),
            outcome.reasons,
            text.unwrap_or_default()
        )
    };
    for explained in [&before, &after] {
        if !agrees(lab, world, talk, explained, &outcome) {
            return Err(told(explained));
        }
    }
    // Flows that there are go before everything else.
    let is_fast = outcome.is_answered && outcome.share() > SHARE;
    let wanted = if route.shown.contains(':') {
        &["fast", "direct"][..]
    } else {
        &["fast", "direct", "kernel-decides"]
    };
    if is_fast && !wanted.contains(&after["verdict"].as_str().unwrap_or_default()) {
        return Err(format!("its flows live: {}", told(&after)));
    }
    if is_fast && networks_say_slow(lab, talk) {
        return Err(format!("`netfast networks` says slow: {}", told(&after)));
    }
    let count = match before["verdict"].as_str() {
        Some("fast" | "direct") => &mut table.fast,
        Some("slow") => &mut table.slow,
        Some("inside") => &mut table.inside,
        _ if is_fast => &mut table.kernel_decides_and_fast,
        _ if outcome.is_answered => &mut table.kernel_decides_and_slow,
        _ => &mut table.kernel_decides_and_nothing,
    };
    *count += 1;
    Ok(())
}

/// Whether what was said is what was done.
fn agrees(lab: &Lab, world: &World, talk: &Talk, explained: &Value, outcome: &Outcome) -> bool {
    let is_fast = outcome.is_answered && outcome.share() > SHARE;
    let is_slow = outcome.share() < 1.0 - SHARE;
    // It was told for packets with this source.
    let own = lab.topo.container(talk.container.0, talk.container.1).ip.to_string();
    if explained["ways"][0]["source"]
        .as_str()
        .is_some_and(|source| source != own)
    {
        return is_slow;
    }
    match explained["verdict"].as_str() {
        // What a container does not send netfast cannot know of, and what nobody answers is fast some time later.
        Some("fast") => {
            let is_one_way = !talk.is_tcp && explained["ways"][0]["flows"]["live"].as_u64() > Some(0);
            is_fast || !outcome.is_answered && (is_one_way || cannot_send(world, talk))
        }
        // From the first packet on, whether somebody answers or not.
        Some("direct") => outcome.share() > SHARE || cannot_send(world, talk),
        Some("slow" | "inside") => is_slow,
        Some("kernel-decides") if outcome.is_answered => is_fast || is_slow && has_reason(explained, outcome),
        Some("kernel-decides") => outcome.fast == 0,
        _ => false,
    }
}

/// A reason that was told beside the kernel's decision, and counted.
fn has_reason(explained: &Value, outcome: &Outcome) -> bool {
    let ways = explained["ways"].as_array().into_iter().flatten();
    let mut steps = ways.flat_map(|way| way["steps"].as_array().into_iter().flatten());
    steps.any(|step| {
        let why = step["why"].as_str().unwrap_or_default();
        outcome.reasons.iter().any(|(reason, _)| reason.name() == why)
    })
}

/// A container has no route to the other.
fn cannot_send(world: &World, talk: &Talk) -> bool {
    let lacks = |(bridge, place)| world.has(Trait::NoDefault(bridge, place));
    let peer = match talk.peer {
        Party::Container(bridge, place) => lacks((bridge, place)),
        Party::Gateway(_) | Party::Host | Party::Outside => false,
    };
    lacks(talk.container) || peer
}

fn networks_say_slow(lab: &Lab, talk: &Talk) -> bool {
    let text = lab.netfast.verb(&["networks", "--json"]).expect("networks");
    let networks: Value = serde_json::from_str(&text).expect("JSON");
    let name = format!("br-{}", talk.container.0);
    let all = networks["networks"].as_array().expect("networks");
    let network = all
        .iter()
        .find(|network| network["name"] == name.as_str())
        .expect("its network");
    let endpoints = network["endpoints"].as_array().expect("endpoints");
    let veth = veth(lab, talk);
    let own = endpoints
        .iter()
        .find(|one| one["veth"] == veth.as_str())
        .expect("its endpoint");
    let is_host = matches!(talk.peer, Party::Gateway(_) | Party::Host);
    network["path"] == "slow" || own["path"] == "slow" || is_host && network["host"]["path"] == "slow"
}

fn explain(lab: &Lab, talk: &Talk, shown: &str) -> Value {
    let text = lab
        .netfast
        .verb(&["explain", &veth(lab, talk), shown, "--json"])
        .expect("an explanation");
    serde_json::from_str(&text).expect("JSON")
}

fn veth(lab: &Lab, talk: &Talk) -> String {
    lab.topo.container(talk.container.0, talk.container.1).veth.clone()
}

/// Who opens a conversation, by which address, and what the container's packets have as their destination.
struct Route {
    opener: Party,
    to: SocketAddr,
    shown: String,
}

impl Route {
    fn of(lab: &Lab, world: &World, talk: &Talk) -> Self {
        let (bridge, place) = talk.container;
        let own = Party::Container(bridge, place);
        let (opener, other) = if talk.is_answering {
            (talk.peer, own)
        } else {
            (own, talk.peer)
        };
        // A port that no rule translates for the opener is the host's own, and then it is about who opens.
        let is_ruled = world.has(Trait::Rules(Rules::Engine)) || world.has(Trait::Rules(Rules::Untranslated));
        let is_neighbour = matches!(opener, Party::Container(near, _) if near == bridge);
        let is_published = talk.is_published && (!talk.is_answering || is_ruled && !is_neighbour);
        let mut ports = PUBLISHED.iter();
        let port = ports.find(|(_, (bridge, place))| other == Party::Container(*bridge, *place));
        let direct = at(Self::address(lab, other), PORT);
        let to = port
            .filter(|_| is_published)
            .map_or(direct, |(port, _)| at(HOST_IP, *port));
        let shown = if !talk.is_answering {
            format!("{to}/{}", if talk.is_tcp { "tcp" } else { "udp" })
        } else if matches!(talk.peer, Party::Gateway(_) | Party::Host) {
            // The kernel takes the address that is nearest to the destination, before it is translated.
            if to == direct {
                lab.topo.bridges[bridge].gateway.to_string()
            } else {
                HOST_IP.to_string()
            }
        } else {
            Self::address(lab, talk.peer).to_string()
        };
        Self { opener, to, shown }
    }

    fn address(lab: &Lab, who: Party) -> std::net::Ipv4Addr {
        match who {
            Party::Container(bridge, place) => lab.topo.container(bridge, place).ip,
            Party::Gateway(bridge) => lab.topo.bridges[bridge].gateway,
            Party::Host => HOST_IP,
            Party::Outside => LAN_IP,
        }
    }
}

fn lab_ns(lab: &Lab, who: Party) -> netfast_tests::netns::NsHandle {
    match who {
        Party::Container(bridge, place) => lab.topo.container(bridge, place).ns.handle(),
        Party::Gateway(_) | Party::Host => lab.topo.host().handle(),
        Party::Outside => lab.topo.lan().handle(),
    }
}
