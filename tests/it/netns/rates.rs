//! Rules that judge each packet anew: with netfast their packets are counted and dropped as without it, and the networks
//! that they do not concern stay on the fast path.

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::Duration,
};

use netfast::apply::read::Tables;
use netfast_common::device::DeviceKey;
use netfast_tests::{
    cmd,
    netns::NsHandle,
    require::{Need, needs},
    site::LAN_IP,
    topo::{self, Topo},
};

use super::lab::{Echo, Lab, TICK, TIMEOUT, at, introduce, udp, until_answered, warm};

/// Datagrams of each case, one way.
const SENT: usize = 30;
/// Bytes of UDP payload of each; 100 bytes of IP packet.
const PAYLOAD: usize = 72;
/// What is dropped is waited for in vain; what is only late is counted at the end.
const SHORT: Duration = Duration::from_millis(5);
/// Between datagrams that are to become fast while a rule still lets them pass: long enough for netfast to have read a
/// rule that has just changed.
const PACE: Duration = Duration::from_millis(100);
/// The port that the rules are about.
const PORT: u16 = 7020;

/// A rule, and how many of the datagrams it lets through.
struct Case {
    what: &'static str,
    /// A shell line in the host. `$CHAIN` is an empty chain that all forwarded packets pass, in the table ip `t`.
    add: &'static str,
    remove: &'static str,
    passes: usize,
}

const fn iptables(what: &'static str, add: &'static str, remove: &'static str, passes: usize) -> Case {
    Case {
        what,
        add,
        remove,
        passes,
    }
}

/// Each drops what it has had enough of, so that the number that passes is exact: rates are so low that nothing is
/// refilled during a test.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let rules: [(&str, &str, usize); 6] = [
        ("limit", "-m limit --limit 1/hour --limit-burst 7 -j RETURN", 7),
        (
            "hashlimit",
            "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name nf -j RETURN",
            5,
        ),
        ("quota", "-m quota --quota 950 -j RETURN", 9),
        (
            "connbytes",
            "-m connbytes --connbytes 0:12 --connbytes-dir original --connbytes-mode packets -j RETURN",
            12,
        ),
        (
            "statistic",
            "-m statistic --mode nth --every 3 --packet 0 -j RETURN",
            10,
        ),
        ("recent", "-m recent --name nf --set", SENT),
    ];
    for backend in ["iptables-nft", "iptables-legacy"] {
        for (what, rule, passes) in rules {
            let text = |line: String| -> &'static str { line.leak() };
            let then = if what == "recent" {
                format!("{backend} -w -A RATE -m recent --name nf --update --seconds 3600 --hitcount 9 -j DROP")
            } else {
                format!("{backend} -w -A RATE -j DROP")
            };
            let add = format!(
                "{backend} -w -N RATE && {backend} -w -A RATE {rule} && {then} &&
                 {backend} -w -I FORWARD -i br-0 -p udp --dport {PORT} -j RATE"
            );
            let remove = format!(
                "{backend} -w -D FORWARD -i br-0 -p udp --dport {PORT} -j RATE; {backend} -w -F RATE; {backend} -w -X RATE"
            );
            let passes = if what == "recent" { 8 } else { passes };
            cases.push(iptables(
                text(format!("{what}, {backend}")),
                text(add),
                text(remove),
                passes,
            ));
        }
    }
    let own = |what, rule: &str, passes| {
        let add = format!(
            "nft -f - <<'END'
             table ip t {{
               quota q {{ over 700 bytes; }}
               limit l {{ rate 1/day burst 6 packets; }}
               counter n {{ }}
               set rated {{ type ipv4_addr; flags dynamic; timeout 1d; }}
               set brief {{ type ipv4_addr; flags dynamic,timeout; timeout 500ms; }}
               chain judge {{ {rule} }}
               chain c {{
                 type filter hook forward priority -10
                 iifname br-0 udp dport {PORT} jump judge
               }}
             }}
             END"
        )
        .replace("\n             ", "\n");
        Case {
            what,
            add: add.leak(),
            remove: "nft delete table ip t",
            passes,
        }
    };
    cases.extend([
        own("nft limit", "limit rate 1/day burst 3 packets return; drop;", 3),
        own("nft quota", "quota over 950 bytes drop;", 9),
        own("nft named quota", "quota name \"q\" drop;", 7),
        own("nft named limit", "limit name \"l\" return; drop;", 6),
        own("nft numgen", "numgen inc mod 3 0 return; drop;", 10),
        own("nft ct packets", "ct original packets > 11 drop;", 11),
        own(
            "nft meter",
            "add @rated { ip saddr limit rate 1/day burst 4 packets } return; drop;",
            4,
        ),
        own(
            "nft mark that is flipped",
            "ct mark set ct mark xor 1; ct mark 0 drop;",
            SENT / 2,
        ),
        own(
            "nft set that forgets",
            "update @brief { ip saddr }; ip saddr != @brief drop;",
            SENT,
        ),
        own("nft named counter", "counter name \"n\";", SENT),
    ]);
    cases
}

/// Two bridges with two containers each.
fn topology() -> topo::Options {
    topo::Options {
        bridges: vec![2, 2],
        ..topo::Options::default()
    }
}

/// Sends the datagrams on a conversation that has been answered, and counts those that arrive. The rule sees packets to
/// the port only, not the answers.
fn count(topo: &Topo, round: u16, pace: Duration) -> usize {
    let server = topo.container(0, 0);
    let sink: UdpSocket = server
        .ns
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .expect("entered")
        .expect("a free port");
    let client = udp(&topo.container(0, 1).ns, 42_000 + round, at(server.ip, PORT));
    let mut arrived = 0;
    let mut take = |patience| {
        sink.set_read_timeout(Some(patience)).expect("a timeout");
        let mut buffer = [0; 2048];
        let Ok((_, peer)) = sink.recv_from(&mut buffer) else {
            return false;
        };
        arrived += 1;
        sink.send_to(b"answer", peer).expect("sent");
        true
    };
    for number in 0..SENT {
        client.send(&[b'r'; PAYLOAD]).expect("sent");
        // The first one passes every rule; with its answer the conversation is one.
        take(if number == 0 { TIMEOUT } else { SHORT });
        thread::sleep(pace);
    }
    while take(TICK) {}
    arrived
}

/// How many of the datagrams pass each rule, with what netfast does before it is asked.
fn results(topo: &Topo, before: impl Fn(&Case), after: impl Fn(&Case), gone: impl Fn(&Case)) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (round, case) in (0..).zip(&cases()) {
        topo.host()
            .sh(case.add)
            .unwrap_or_else(|error| panic!("{}: {error:#}", case.what));
        before(case);
        found.push((case.what.to_owned(), count(topo, round, Duration::ZERO)));
        after(case);
        topo.host().sh(case.remove).expect("the rule can be removed");
        gone(case);
    }
    found
}

/// Whether netfast is attached to a container.
fn is_fast(lab: &Lab, (bridge, index): (usize, usize)) -> bool {
    let veth = &lab.topo.container(bridge, index).veth;
    let line = lab.topo.host().sh(&format!("ip -o link show {veth}")).expect("a veth");
    let number: u32 = line
        .split(':')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("an index");
    let tables = Tables::open(lab.netfast.pin_dir()).expect("the maps are pinned");
    tables
        .devices()
        .expect("the devices")
        .contains_key(&DeviceKey::served(number))
}

fn until(lab: &Lab, who: (usize, usize), fast: bool, what: &str) {
    cmd::poll(what, TIMEOUT, || (is_fast(lab, who) == fast).then_some(())).expect("netfast finds out");
}

fn ready() -> bool {
    needs(&[
        Need::Root,
        Need::Program("nft"),
        Need::Program("iptables-nft"),
        Need::Program("iptables-legacy"),
    ])
}

/// A conversation of containers of the bridge that no rule is about.
fn bystanders(lab: &Lab) -> (Echo, UdpSocket) {
    let there = lab.topo.container(1, 0);
    let echo = Echo::start(&there.ns, 7021);
    let socket = udp(&lab.topo.container(1, 1).ns, 42_100, at(there.ip, 7021));
    until_answered(&socket, "the first answer");
    (echo, socket)
}

#[test]
fn each_packet_is_judged_as_without_netfast() {
    if !ready() {
        return;
    }
    let without = {
        let topo = Topo::new(&topology()).expect("a topology");
        introduce(&topo);
        results(&topo, |_| {}, |_| {}, |_| {})
    };
    let expected: Vec<_> = cases().iter().map(|case| (case.what.to_owned(), case.passes)).collect();
    assert_eq!(without, expected, "the kernel alone");
    // `connbytes` and `ct packets` switch conntrack's accounting on by themselves, for all networks and for good.
    let lab = Lab::with(&topology(), Some("allow_accounting = true\n"));
    let (_echo, bystander) = bystanders(&lab);
    let with = results(
        &lab.topo,
        |case| until(&lab, (0, 0), false, case.what),
        |case| {
            assert!(!is_fast(&lab, (0, 0)) && is_fast(&lab, (1, 0)), "{}", case.what);
            warm(&lab, &bystander);
        },
        |case| until(&lab, (0, 0), true, case.what),
    );
    assert_eq!(with, expected, "with netfast");
}

/// The other tests would prove nothing if they passed without the rules being found.
#[test]
fn rules_that_are_not_heeded_let_more_through() {
    if !ready() {
        return;
    }
    let lab = Lab::with(&topology(), Some("allow_rate_rules = true\nrevalidate_ms = 10000\n"));
    let quota = cases()
        .into_iter()
        .find(|case| case.what == "nft quota")
        .expect("the case");
    lab.topo.host().sh(quota.add).expect("a rule");
    cmd::poll("more than the quota", TIMEOUT, || {
        static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(500);
        let round = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        lab.topo.host().sh(quota.remove).expect("no rule");
        lab.topo.host().sh(quota.add).expect("a fresh quota");
        (count(&lab.topo, round, PACE) > quota.passes).then_some(())
    })
    .expect("the fast path takes packets past the quota");
}

/// Found: a rule for what one bridge's containers send to the host took the device of every bridge from netfast, and
/// without it nothing that any container sent off the host was learned.
#[test]
fn a_rule_for_one_bridge_leaves_the_others_fast_in_all_directions() {
    if !ready() {
        return;
    }
    let lab = Lab::with(&topology(), None);
    for (rule, forwarded_too) in [
        ("iptables -w -I INPUT -i br-1 -m limit --limit 1/hour -j ACCEPT", false),
        ("iptables -w -I FORWARD -i br-1 -m limit --limit 1/hour -j RETURN", true),
        (
            "nft 'add table ip t; add chain ip t c { type filter hook forward priority 0; }
             add rule ip t c iif br-1 limit rate 1/day accept'",
            true,
        ),
    ] {
        lab.topo.host().sh(rule).expect("a rule");
        if forwarded_too {
            until(&lab, (1, 0), false, rule);
        }
        let talk = |ns: &NsHandle, ip, from: &NsHandle, port| {
            let echo = Echo::start(ns, port);
            let socket = udp(from, 43_000, at(ip, port));
            until_answered(&socket, "the first answer");
            warm(&lab, &socket);
            drop(echo);
        };
        let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
        talk(&a.ns, a.ip, &b.ns, 7030);
        talk(lab.topo.lan(), LAN_IP, &a.ns, 7031);
        talk(lab.topo.host(), lab.topo.bridges[0].gateway, &b.ns, 7032);
        if !forwarded_too {
            // Between bridge 1 and the host every packet is judged; off the host it is not.
            talk(lab.topo.lan(), LAN_IP, &lab.topo.container(1, 0).ns, 7033);
        }
        let undo = if rule.starts_with("nft") {
            "nft delete table ip t".to_owned()
        } else {
            rule.replace(" -I ", " -D ")
        };
        lab.topo.host().sh(&undo).expect("no rule");
        until(&lab, (1, 0), true, "no rule");
    }
}

/// What every firewall has: limits on new connections, on pings, on what comes to be translated.
#[test]
fn rules_that_only_first_packets_meet_keep_nobody_slow() {
    if !ready() {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let rules = [
        "iptables -w -I FORWARD -m conntrack --ctstate NEW -m limit --limit 1000/s -j ACCEPT",
        "iptables -w -I FORWARD -p tcp --syn -m limit --limit 1000/s -j ACCEPT",
        "iptables -w -I FORWARD -p icmp --icmp-type destination-unreachable -m limit --limit 1000/s -j ACCEPT",
        "iptables-legacy -w -I FORWARD -m conntrack --ctstate NEW -m recent --name x --set",
        "iptables-legacy -w -I FORWARD -p tcp --syn -m hashlimit --hashlimit-upto 9999/s --hashlimit-name y -j ACCEPT",
        "iptables-legacy -w -I FORWARD -p icmp --icmp-type 11 -m limit --limit 1000/s -j ACCEPT",
        "iptables -w -t nat -I PREROUTING -p tcp --dport 9 -m statistic --mode nth --every 2 --packet 0 -j REDIRECT",
        "nft 'add table ip t; add chain ip t c { type filter hook forward priority 0; }
         add rule ip t c ct state new limit rate 1000/second
         add rule ip t c tcp flags syn limit rate 1000/second
         add rule ip t c icmp type destination-unreachable limit rate 1000/second
         add chain ip t unused
         add rule ip t unused limit rate 1/second'",
    ];
    for rule in rules {
        lab.topo.host().sh(rule).unwrap_or_else(|error| panic!("{error:#}"));
    }
    let checked = lab.netfast.verb(&["check", "--runtime", "none"]).expect("a report");
    assert!(checked.contains("no packet that could take the fast path"), "{checked}");
    let (_echo, bystander) = bystanders(&lab);
    // Legacy rules are polled.
    thread::sleep(Duration::from_secs(2));
    warm(&lab, &bystander);
    for who in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert!(is_fast(&lab, who), "{who:?}; {checked}");
    }
}

/// Everything passes a shaper on the way to a container.
#[test]
fn traffic_control_sees_every_packet() {
    if !needs(&[Need::Root, Need::Program("tc")]) {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let _echo = Echo::start(&a.ns, 7040);
    let socket = udp(&b.ns, 43_001, at(a.ip, 7040));
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    // A discipline on the way to a container: its flows go through the device.
    let host = lab.topo.host();
    for kind in ["tbf rate 1gbit burst 100kb latency 50ms", "pfifo limit 1000"] {
        host.sh(&format!("tc qdisc replace dev {} root handle 7: {kind}", a.veth))
            .expect("a discipline");
        let settled = || {
            let before = passed(host, &a.veth);
            let answered = (0..20).filter(|_| super::lab::ask(&socket)).count();
            (answered == 20 && passed(host, &a.veth) - before >= 20).then_some(())
        };
        cmd::poll(kind, TIMEOUT, settled).expect("every packet passes the discipline");
        warm(&lab, &socket);
        host.sh(&format!("tc qdisc del dev {} root", a.veth)).expect("none");
    }
}

/// Packets that a root discipline has let through.
fn passed(host: &NsHandle, device: &str) -> u64 {
    let shown = host
        .sh(&format!("tc -s qdisc show dev {device} root"))
        .expect("statistics");
    let line = shown
        .lines()
        .find(|line| line.trim_start().starts_with("Sent"))
        .expect("a count");
    let mut words = line.split_whitespace().skip(3);
    words.next().and_then(|word| word.parse().ok()).expect("packets")
}
