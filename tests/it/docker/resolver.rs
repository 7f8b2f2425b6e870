//! Docker's rules for its resolver are replaced by a program: names go on, and the rules come back.

use std::{collections::BTreeSet, fs, net::IpAddr, thread::sleep, time::Duration};

use netfast_tests::{
    cmd,
    dns::{Answer, Question},
    docker_host::{DockerHost, Iptables, Options},
    netns::NsHandle,
    require::{Need, kernel_version, needs},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::bed::{Bed, TIMEOUT, at_loopback, docker_host};

const LABEL: &str = "netfast.resolver=true";
const WEB: [&str; 2] = ["web-1", "web-2"];

/// Whether this kernel lets a program ask for its namespace (Linux 6.15), and all else is there.
fn can() -> bool {
    needs(&[Need::Root, Need::Docker]) && kernel_version().0 >= (6, 15)
}

/// An engine that is outlived by its containers: two called `web`, and one who asks.
fn shop(iptables: Iptables, label: &[&str]) -> DockerHost {
    let host = docker_host(Options {
        dockerd_flags: vec!["--live-restore".to_owned()],
        iptables,
        ..Options::default()
    });
    host.create_network("shop", label).expect("a network");
    for name in WEB {
        host.run_container(name, "shop", &["--network-alias", "web"], &[])
            .expect("a container");
    }
    host.run_container("client", "shop", &[], &[]).expect("a container");
    host
}

/// All rules of a namespace, as both iptables and nft show them, without counters and dates.
fn rules(ns: &NsHandle) -> String {
    let all = "iptables-nft-save; iptables-legacy-save -t nat 2>/dev/null; nft list ruleset 2>/dev/null";
    let text = ns.sh(all).expect("rules");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let plain = lines.map(|line| {
        let words = line.split(' ').collect::<Vec<_>>();
        let is_count = |at: usize| at > 0 && matches!(words[at - 1], "packets" | "bytes");
        let kept = words.iter().enumerate().filter(|(at, _)| !is_count(*at));
        let line: Vec<&str> = kept.map(|(_, word)| *word).collect();
        let line = line.join(" ");
        // Policies' counters of legacy tables.
        line.split(" [").next().unwrap_or_default().to_owned() + "\n"
    });
    plain.collect()
}

fn has_rules(ns: &NsHandle) -> bool {
    rules(ns).contains("DOCKER_OUTPUT")
}

/// Waits until the rules are out of a container, or in it.
fn await_rules(bed: &Bed, container: &str, there: bool) {
    let ns = bed.ns(container);
    let seen = cmd::poll("its rules", TIMEOUT, || (has_rules(&ns) == there).then_some(()));
    if let Err(error) = seen {
        panic!(
            "{error}: {container} should have them: {there}\n{}\nnetfast said:\n{}",
            rules(&ns),
            bed.netfast.log()
        );
    }
}

/// Names are resolved both ways, and the members take turns.
fn names_work(bed: &Bed, container: &str, in_turn: bool) {
    let ns = bed.ns(container);
    let ip = |name: &str| IpAddr::from(bed.ip(name, "shop"));
    let members: BTreeSet<IpAddr> = WEB.iter().map(|name| ip(name)).collect();
    for tcp in [false, true] {
        let question = |name: &str| Question {
            tcp,
            ..Question::of(name)
        };
        let answer = question("web-1").ask(&ns).expect("an answer");
        assert_eq!(answer.addresses, [ip("web-1")], "by TCP: {tcp}");
        let answers: Vec<Answer> = question("web").ask_often(&ns, 4).expect("answers");
        if in_turn {
            for two in answers.chunks_exact(2) {
                let first: BTreeSet<IpAddr> = two.iter().filter_map(Answer::first).collect();
                assert_eq!(first, members, "by TCP: {tcp}");
            }
        }
    }
}

/// What `netfast status --json` says of a container.
fn said(bed: &Bed, container: &str) -> Option<Value> {
    let status = bed.status();
    let all = status["resolvers"].as_array().expect("resolvers");
    all.iter().find(|report| report["container"] == container).cloned()
}

fn configure(bed: &Bed, text: &str) {
    fs::write(bed.netfast.run_dir().join("netfast.toml"), text).expect("the configuration");
    let pid = bed
        .netfast
        .pid()
        .and_then(|pid| i32::try_from(pid).ok())
        .expect("it runs");
    kill(Pid::from_raw(pid), Signal::SIGHUP).expect("it hears");
}

#[test]
fn names_go_on_without_docker_s_rules_and_the_rules_come_back_as_they_were() {
    if !can() {
        return;
    }
    let mut bed = Bed::start(shop(Iptables::Default, &["--label", LABEL]), None);
    let all = ["web-1", "web-2", "client"];
    for name in all {
        await_rules(&bed, name, false);
    }
    let client = bed.ns("client");
    cmd::poll("turns", TIMEOUT, || (at_loopback(&client).len() == 2).then_some(())).expect("both programs");
    assert_eq!(
        at_loopback(&client),
        ["netfast_resolve", "netfast_answer"],
        "ports are translated before members take turns"
    );
    assert!(
        !rules(&client).contains("table"),
        "nothing is left:\n{}",
        rules(&client)
    );
    names_work(&bed, "client", true);
    assert_eq!(said(&bed, "client").expect("it is wanted")["on"], true);

    // conntrack does not see a packet of the container.
    let server = bed.ip("web-1", "shop");
    bed.host
        .exec("client", &format!("ping -c2 -i0.2 {server}"))
        .expect("pings");
    assert_eq!(
        client
            .sysctl("net/netfilter/nf_conntrack_count")
            .expect("a number")
            .trim(),
        "0"
    );

    // Without the daemon, and with the next one.
    bed.netfast.stop(Signal::SIGKILL).expect("killed");
    names_work(&bed, "client", true);
    bed.netfast.launch().expect("netfast starts again");
    bed.await_fast("client", "shop");
    names_work(&bed, "client", true);
    assert!(!has_rules(&client) && said(&bed, "client").expect("it is wanted")["on"] == true);

    // A second network comes and goes; one that says no ends it for whoever is on it.
    bed.host
        .create_network("mall", &["--label", "netfast.resolver=false"])
        .expect("a network");
    bed.host
        .docker(&["network", "connect", "mall", "client"])
        .expect("connected");
    await_rules(&bed, "client", true);
    names_work(&bed, "client", true);
    bed.host
        .docker(&["network", "disconnect", "mall", "client"])
        .expect("disconnected");
    await_rules(&bed, "client", false);
    names_work(&bed, "client", true);

    // All come back, without the daemon, and are Docker's to the letter.
    bed.netfast.stop(Signal::SIGKILL).expect("killed");
    bed.netfast.detach().expect("detached");
    for name in all {
        let ns = bed.ns(name);
        assert_eq!(at_loopback(&ns), [""; 0], "{name}");
        assert!(has_rules(&ns), "{name}");
    }
    names_work(&bed, "client", false);
}

#[test]
fn what_was_taken_out_is_put_back_byte_for_byte() {
    if !can() {
        return;
    }
    let host = shop(Iptables::Nft, &[]);
    let names = ["web-1", "web-2", "client"];
    let namespaces = names.map(|name| host.container_netns(name).expect("it runs"));
    let before = namespaces.each_ref().map(rules);
    assert!(before.iter().all(|rules| rules.contains("DOCKER_OUTPUT")), "{before:?}");
    let mut bed = Bed::start(host, Some("resolver = true"));
    for name in names {
        await_rules(&bed, name, false);
    }
    // By the configuration.
    configure(&bed, "resolver = false\n");
    for name in names {
        await_rules(&bed, name, true);
    }
    assert_eq!(namespaces.each_ref().map(rules), before);
    names_work(&bed, "client", true);
    configure(&bed, "resolver = true\n");
    for name in names {
        await_rules(&bed, name, false);
    }
    bed.netfast.stop(Signal::SIGTERM).expect("stopped");
    bed.netfast.detach().expect("detached");
    assert_eq!(namespaces.each_ref().map(rules), before);
}

#[test]
fn an_engine_that_comes_back_makes_new_rules_and_somebody_s_own_keep_docker_s() {
    if !can() {
        return;
    }
    let mut bed = Bed::start(shop(Iptables::Default, &["--label", LABEL]), None);
    await_rules(&bed, "client", false);
    await_rules(&bed, "web-1", false);
    let client = bed.ns("client");
    let ports = || {
        let text = client
            .sh("ss -Hlnu src 127.0.0.11; ss -Hlnt src 127.0.0.11")
            .expect("sockets");
        let words = text.split_whitespace().filter(|word| word.starts_with("127.0.0.11:"));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = ports();
    assert_eq!(before.len(), 2, "{before:?}");
    bed.host.stop_dockerd(Signal::SIGTERM).expect("dockerd ends");
    bed.host.start_dockerd().expect("dockerd starts again");
    // Docker's new rules lead to its new ports until netfast has replaced them, too.
    names_work(&bed, "client", true);
    assert_ne!(ports(), before, "they are others");
    for name in ["client", "web-1"] {
        await_rules(&bed, name, false);
    }
    names_work(&bed, "client", true);

    // A rule that comes later: at the latest after the next thorough look.
    let mesh = "nft add table inet mesh; nft add chain inet mesh in '{ type filter hook input priority 0; }'; nft add rule inet \
                mesh in ct state established accept";
    client.sh(mesh).expect("somebody's rule");
    sleep(Duration::from_secs(2));
    bed.host
        .run_container("newcomer", "shop", &[], &[])
        .expect("a reason to look");
    await_rules(&bed, "client", true);
    names_work(&bed, "client", true);
    cmd::poll("it goes", TIMEOUT, || {
        (!at_loopback(&client).contains(&"netfast_resolve".into())).then_some(())
    })
    .expect("the program is not needed");
    let report = said(&bed, "client").expect("it is wanted");
    assert_eq!(
        (&report["on"], report["why"].as_str()),
        (&Value::Bool(false), Some("there is the nftables table inet mesh"))
    );
    assert!(rules(&client).contains("table inet mesh"), "{}", rules(&client));
    await_rules(&bed, "newcomer", false);
    // Others are as they were.
    assert!(!has_rules(&bed.ns("web-1")));
    let text = bed.netfast.verb(&["networks", "shop"]).expect("networks");
    assert!(text.contains("replaced in 3 of 4 containers; not in client"), "{text}");
    bed.netfast.stop(Signal::SIGTERM).expect("stopped");
    bed.netfast.detach().expect("detached");
    let restored = ports();
    for name in ["client", "web-1"] {
        let rules = rules(&bed.ns(name));
        assert!(rules.contains("DOCKER_OUTPUT"), "{name}: {rules}");
    }
    let rules = rules(&client);
    assert!(
        restored.iter().all(|to| rules.contains(to.as_str())),
        "{restored:?}: {rules}"
    );
    names_work(&bed, "client", false);
}
