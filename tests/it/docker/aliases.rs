//! Names that several containers share: clients are given the next one each time, and nothing else is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use netfast_tests::{
    cmd,
    dns::{A, AAAA, Answer, Question},
    docker_host::{DockerHost, Options},
    require::{Need, needs},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::bed::{Bed, TIMEOUT, at_loopback, docker_host};

const ROUNDS: usize = 100;
const WEB: [&str; 3] = ["web-1", "web-2", "web-3"];

/// A network with three containers called `web`, and one who asks.
fn shop() -> DockerHost {
    let host = docker_host(Options {
        dockerd_flags: vec!["--live-restore".to_owned()],
        ..Options::default()
    });
    host.create_network("shop", &[]).expect("a network");
    for name in WEB {
        host.run_container(name, "shop", &["--network-alias", "web"], &[])
            .expect("a container");
    }
    host.run_container("client", "shop", &["--network-alias", "solo"], &[])
        .expect("a container");
    host
}

fn addresses(host: &DockerHost, names: &[&str]) -> BTreeSet<IpAddr> {
    let ip = |name: &&str| host.container_ip(name, "shop").expect("an address").into();
    names.iter().map(ip).collect()
}

impl Bed {
    /// What `netfast aliases --json` says of one alias.
    fn alias(&self, name: &str) -> Option<Value> {
        let json = self.netfast.verb(&["aliases", "--json"]).expect("netfast aliases");
        let report: Value = serde_json::from_str(&json).expect("JSON");
        let aliases = report["aliases"].as_array().expect("aliases");
        aliases.iter().find(|alias| alias["alias"] == name).cloned()
    }

    /// Waits until `web` has so many members, who are all given, and the program is there for a container.
    fn await_given(&self, count: usize, container: &str) {
        self.await_members(count, count, container);
    }

    /// Waits until `web` has so many members, of whom so many are given, and the program is there for a container. Both
    /// count: one that was told to end is a member until it has ended, and the resolver may have forgotten it before.
    fn await_members(&self, all: usize, given: usize, container: &str) {
        let counts = |alias: &Value| {
            let members = alias["members"].as_array().expect("members");
            let given = members.iter().filter(|member| member["eligible"] == true).count();
            (members.len(), given)
        };
        let seen = cmd::poll("the members are known", TIMEOUT, || {
            let right = self.alias("web").is_some_and(|alias| counts(&alias) == (all, given));
            (right && at_loopback(&self.ns(container)) == ["netfast_answer"]).then_some(())
        });
        if let Err(error) = seen {
            panic!(
                "{error}; {:?}\nnetfast said:\n{}",
                self.alias("web"),
                self.netfast.log()
            );
        }
    }
}

/// Each run of as many answers as there are members names each member first.
fn assert_in_turn(what: &str, firsts: &[IpAddr], members: &BTreeSet<IpAddr>) {
    assert!(firsts.len() >= members.len(), "{what}: {} answers", firsts.len());
    for (round, some) in firsts.chunks_exact(members.len()).enumerate() {
        let some: BTreeSet<IpAddr> = some.iter().copied().collect();
        assert_eq!(&some, members, "{what}: round {round}");
    }
}

fn firsts(answers: &[Answer]) -> Vec<IpAddr> {
    answers
        .iter()
        .map(|answer| answer.first().expect("an address"))
        .collect()
}

/// A program with musl's resolver that prints the first address of a name.
fn with_musl(dir: &Path) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/it/docker/first_address.c");
    let program = dir.join("first_address");
    let mut compile = Command::new("musl-gcc");
    cmd::run(compile.args(["-static", "-O1", source, "-o"]).arg(&program)).expect("it compiles");
    program
}

#[test]
fn three_resolutions_reach_three_members() {
    if !needs(&[Need::Root, Need::Docker, Need::Program("musl-gcc")]) {
        return;
    }
    let host = shop();
    // Engine 20.10 answers an alias in any case, but not with the network in another case behind it.
    let asks = host.container_netns("client").expect("it runs");
    let names: Vec<&str> = ["web", "web.shop", "WEB", "Web.Shop"]
        .into_iter()
        .filter(|name| {
            Question::of(name)
                .ask(&asks)
                .is_ok_and(|answer| answer.addresses.len() == 3)
        })
        .collect();
    println!("the engine answers {names:?}");
    assert!(names.starts_with(&["web", "web.shop"]));
    let bed = Bed::start(host, None);
    bed.await_given(3, "client");
    let (client, all) = (bed.ns("client"), addresses(&bed.host, &WEB));

    // Every kind of question takes its part in the same turn.
    let mut answers = Vec::new();
    for round in 0..ROUNDS * all.len() {
        let question = Question {
            name: names[round % names.len()].to_owned(),
            tcp: round % 5 == 0,
            edns: round % 3 == 0,
            ..Question::of("web")
        };
        let answer = question.ask(&client).expect("an answer");
        assert_eq!(
            answer.addresses.iter().copied().collect::<BTreeSet<_>>(),
            all,
            "{question:?}"
        );
        assert_eq!(answer.ttls, [0; 3], "{question:?}");
        answers.push(answer);
    }
    assert_in_turn("questions of all kinds", &firsts(&answers), &all);

    // busybox is a static program with glibc's resolver in it.
    let line = format!(
        "for i in $(seq {}); do ping -c1 -W2 web | head -1; done",
        ROUNDS * all.len()
    );
    let pings = bed.host.exec("client", &line).expect("pings");
    let pinged: Vec<IpAddr> = pings
        .lines()
        .map(|line| {
            let ip = line.split(['(', ')']).nth(1).unwrap_or_else(|| panic!("ping: {line}"));
            ip.parse().expect("an address")
        })
        .collect();
    assert_eq!(pinged.len(), ROUNDS * all.len());
    assert_in_turn("ping of busybox", &pinged, &all);

    // The machine's own glibc, and musl, with the container's resolver.
    let file = bed.netfast.run_dir().join("resolv.conf");
    fs::write(&file, "nameserver 127.0.0.11\noptions ndots:0\n").expect("a file");
    let musl = with_musl(bed.netfast.run_dir());
    let times = ROUNDS * all.len();
    for ask in [
        &format!("for i in $(seq {times}); do getent hosts web | head -1; done"),
        &format!("for i in $(seq {times}); do getent ahostsv4 web | grep STREAM | head -1; done"),
        &format!("{} web {times}", musl.display()),
    ] {
        let line = format!(
            "unshare --mount sh -c 'mount --bind {} /etc/resolv.conf; {ask}'",
            file.display(),
        );
        let said = bed.host.in_container_netns("client", &line).expect("names");
        let first = said.lines().map(|line| line.split(' ').next().expect("a word"));
        let first: Vec<IpAddr> = first.map(|ip| ip.parse().expect("an address")).collect();
        assert_in_turn(ask, &first, &all);
    }

    // Clients share the turn.
    let shared: Vec<Answer> = (0..30)
        .map(|round| Question::of("web").ask(&bed.ns(["client", "web-1", "web-2"][round / 2 % 3])))
        .collect::<Result<_, _>>()
        .expect("answers");
    assert_in_turn("several clients", &firsts(&shared), &all);

    let alias = bed.alias("web").expect("it is listed");
    assert_eq!(
        (&alias["mode"], &alias["network"]),
        (&json!("rr"), &json!("shop")),
        "{alias:#}"
    );
    assert!(alias["evenness"].as_f64().expect("a number") > 0.99, "{alias:#}");
    let text = bed.netfast.verb(&["aliases", "WEB"]).expect("netfast aliases WEB");
    println!("{text}");
    assert!(bed.netfast.verb(&["aliases", "nobody"]).is_err());
}

#[test]
fn who_is_not_well_is_not_given_and_newcomers_are() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop();
    let check = [
        "--network-alias",
        "web",
        "--health-cmd",
        "test ! -e /tmp/ill",
        "--health-interval",
        "200ms",
    ];
    let more = [&check[..], &["--health-retries", "1"]].concat();
    host.run_container("sick", "shop", &more, &[]).expect("a container");
    let bed = Bed::start(host, None);
    bed.await_given(4, "client");
    let client = bed.ns("client");
    let four = addresses(&bed.host, &["web-1", "web-2", "web-3", "sick"]);
    let asked = |times| firsts(&Question::of("web").ask_often(&client, times).expect("answers"));
    assert_in_turn("all are well", &asked(40), &four);

    bed.host.exec("sick", "touch /tmp/ill").expect("a file");
    bed.await_members(4, 3, "client");
    let three = addresses(&bed.host, &WEB);
    let answers = Question::of("web").ask_often(&client, 60).expect("answers");
    assert_in_turn("one is ill", &firsts(&answers), &three);
    for answer in &answers {
        assert_eq!(
            answer.addresses.iter().copied().collect::<BTreeSet<_>>(),
            three,
            "it is left out"
        );
    }
    // TCP's bytes are counted, so none can be left out: it comes last.
    let tcp = Question {
        tcp: true,
        ..Question::of("web")
    };
    let ill = bed.ip("sick", "shop");
    for answer in tcp.ask_often(&client, 6).expect("answers") {
        assert_eq!((answer.addresses.len(), answer.addresses[3]), (4, IpAddr::from(ill)));
    }
    bed.host.exec("sick", "rm /tmp/ill").expect("no file");
    bed.await_given(4, "client");
    assert_in_turn("it is well again", &asked(40), &four);

    bed.host.docker(&["pause", "sick"]).expect("paused");
    bed.await_members(4, 3, "client");
    assert_in_turn("one is paused", &asked(60), &three);
    bed.host.docker(&["unpause", "sick"]).expect("goes on");
    bed.await_given(4, "client");

    bed.host.remove_container("sick").expect("removed");
    bed.await_given(3, "client");
    assert_in_turn("one is gone", &asked(60), &three);
    bed.host
        .run_container("web-4", "shop", &["--network-alias", "web"], &[])
        .expect("a container");
    bed.await_given(4, "web-4");
    let four = addresses(&bed.host, &["web-1", "web-2", "web-3", "web-4"]);
    assert_in_turn("one has come", &asked(60), &four);

    // A restarted client has another namespace.
    bed.host
        .docker(&["restart", "--time", "0", "client"])
        .expect("restarted");
    bed.await_given(4, "client");
    let client = bed.ns("client");
    let asked = firsts(&Question::of("web").ask_often(&client, 60).expect("answers"));
    assert_in_turn("the client was restarted", &asked, &four);
    let links = fs::read_dir(bed.netfast.abi_dir().join("links")).expect("links");
    let names = links.map(|entry| entry.expect("an entry").file_name());
    let ours = names
        .filter(|name| name.to_string_lossy().starts_with("netfast_answer-"))
        .count();
    assert_eq!(ours, 5, "one for each container, and none for namespaces that are gone");
}

#[test]
fn it_goes_on_without_the_daemon_and_ends_with_detach() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let mut bed = Bed::start(shop(), None);
    bed.await_given(3, "client");
    let (client, all) = (bed.ns("client"), addresses(&bed.host, &WEB));
    let asked = |times| Question::of("web").ask_often(&client, times).expect("answers");
    // Not a whole number of rounds, so that the next must go on where this ended.
    let mut seen = firsts(&asked(31));
    bed.netfast.stop(Signal::SIGKILL).expect("killed");
    seen.extend(firsts(&asked(31)));
    bed.netfast.launch().expect("netfast starts again");
    bed.await_given(3, "client");
    seen.extend(firsts(&asked(31)));
    assert_in_turn("killed and started again", &seen, &all);
    assert_eq!(at_loopback(&client), ["netfast_answer"], "taken over, not added");

    bed.netfast.stop(Signal::SIGTERM).expect("stopped");
    bed.netfast.detach().expect("detached");
    for name in [&WEB[..], &["client"]].concat() {
        assert_eq!(at_loopback(&bed.ns(name)), [""; 0], "{name}");
    }
    let after = asked(60);
    assert!(after.iter().all(|answer| answer.ttls == [600; 3]), "as Docker says it");
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for first in firsts(&after) {
        *counts.entry(first).or_default() += 1;
    }
    println!("60 answers of Docker alone: {counts:?}");
}

#[test]
fn pins_that_somebody_removes_are_made_again_for_loopbacks_too() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let bed = Bed::start(shop(), None);
    bed.await_given(3, "client");
    let (client, all) = (bed.ns("client"), addresses(&bed.host, &WEB));
    for entry in fs::read_dir(bed.netfast.pin_dir()).expect("the pins") {
        fs::remove_dir_all(entry.expect("an entry").path()).expect("removed");
    }
    // The pin is what keeps it attached; the daemon looks once a second.
    cmd::poll("it goes with its pin", TIMEOUT, || {
        at_loopback(&client).is_empty().then_some(())
    })
    .expect("it is not attached");
    // Until the maps are pinned again, `netfast aliases` has nothing to read.
    cmd::poll("attached again", TIMEOUT, || {
        (at_loopback(&client) == ["netfast_answer"]).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", bed.netfast.log()));
    let answers = Question::of("web").ask_often(&client, 30).expect("answers");
    assert_in_turn("pinned again", &firsts(&answers), &all);
}

#[test]
fn a_name_of_one_is_answered_byte_for_byte_as_without_netfast() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop();
    let mut questions = Vec::new();
    for name in ["solo", "solo.shop", "client", "client.shop", "web-1", "web-2.shop"] {
        for (kind, edns, tcp) in [
            (A, false, false),
            (A, true, false),
            (A, false, true),
            (AAAA, true, false),
        ] {
            questions.push(Question {
                name: name.to_owned(),
                kind,
                edns,
                tcp,
            });
        }
    }
    let client = host.container_netns("client").expect("it runs");
    let ask = || -> Vec<Result<Vec<u8>, String>> {
        let ask = |question: &Question| question.ask(&client).map(|answer| answer.bytes);
        questions
            .iter()
            .map(|question| ask(question).map_err(|error| format!("{error:#}")))
            .collect()
    };
    let off = ask();
    let bed = Bed::start(host, None);
    bed.await_given(3, "client");
    let on = ask();
    for (question, (off, on)) in questions.iter().zip(off.iter().zip(&on)) {
        assert_eq!(off, on, "{question:?}");
    }
    assert!(
        off.iter().filter(|answer| answer.is_ok()).count() >= 20,
        "the resolver answers"
    );

    // With no name that two share, there is no program at all.
    for name in ["web-2", "web-3"] {
        bed.host.remove_container(name).expect("removed");
    }
    let gone = cmd::poll("nobody needs it", TIMEOUT, || {
        at_loopback(&client).is_empty().then_some(())
    });
    gone.unwrap_or_else(|error| panic!("{error}: {:?}", at_loopback(&client)));
}

#[test]
fn labels_and_the_configuration_switch_it_off() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop();
    host.run_container("deaf", "shop", &["--label", "netfast.alias=off"], &[])
        .expect("a container");
    host.create_network("quiet", &["--label", "netfast.alias=off"])
        .expect("a network");
    for name in ["quiet-1", "quiet-2"] {
        host.run_container(name, "quiet", &["--network-alias", "hush"], &[])
            .expect("a container");
    }
    let mut bed = Bed::start(host, Some("alias_ttl = 7"));
    bed.await_given(3, "client");
    let answer = Question::of("web").ask(&bed.ns("client")).expect("an answer");
    assert_eq!(answer.ttls, [7; 3]);
    for (name, alias) in [("deaf", "web"), ("quiet-1", "hush")] {
        assert_eq!(at_loopback(&bed.ns(name)), [""; 0], "{name}");
        let answer = Question::of(alias).ask(&bed.ns(name)).expect("an answer");
        assert!(answer.ttls.iter().all(|ttl| *ttl == 600), "{name}: {answer:?}");
    }
    bed.netfast.stop(Signal::SIGTERM).expect("netfast stops");
    let host = bed.host;
    let options = super::bed::options(&host, Some("alias_mode = \"off\""));
    bed.netfast.detach().expect("detached");
    drop(bed.netfast);
    let netfast = netfast_tests::netfast_proc::NetfastProc::start(host.host(), options).expect("netfast starts");
    let bed = Bed { netfast, host };
    bed.await_fast("client", "shop");
    assert_eq!(at_loopback(&bed.ns("client")), [""; 0]);
    assert_eq!(bed.alias("web").expect("it is listed")["mode"], "off");
}
