//! Rules in the host's own chains: netfast leaves the host's own input and output to the kernel, so a rule there sees every
//! packet although the packets are on the fast path. What such a rule knows from the bridge is another matter.

use std::{net::UdpSocket, thread, time::Duration};

use netfast_tests::{
    require::{Need, needs},
    topo::{self, Topo},
};

use super::lab::{Echo, Lab, ask, at, introduce, udp, until_answered, warm};

/// Questions of each case.
const ASKED: usize = 12;
/// The port that the rules are about.
const PORT: u16 = 7100;
/// One that they are not about.
const OTHER: u16 = 7101;
/// Packets that take the fast path at least where the path is fast: all but the first exchanges.
const MOST: u64 = 7;

/// A rule in a chain of the host, and how many of the questions are answered with it.
struct Case {
    what: &'static str,
    add: &'static str,
    remove: &'static str,
    answered: usize,
    /// Whether the fast path may be used nevertheless.
    fast: bool,
}

const fn case(what: &'static str, add: &'static str, remove: &'static str, answered: usize) -> Case {
    Case {
        what,
        add,
        remove,
        answered,
        fast: true,
    }
}

/// Questions are of 92 bytes of IP.
const CASES: [Case; 10] = [
    case(
        "limit, INPUT",
        "iptables -w -A INPUT -p udp --dport 7100 -m limit --limit 1/hour --limit-burst 7 -j ACCEPT &&
         iptables -w -A INPUT -p udp --dport 7100 -j DROP",
        "iptables -w -F INPUT",
        7,
    ),
    case(
        "quota, OUTPUT",
        "iptables -w -A OUTPUT -p udp --sport 7100 -m quota --quota 500 -j ACCEPT &&
         iptables -w -A OUTPUT -p udp --sport 7100 -j DROP",
        "iptables -w -F OUTPUT",
        5,
    ),
    case(
        "statistic, INPUT, legacy",
        "iptables-legacy -w -A INPUT -p udp --dport 7100 -m statistic --mode nth --every 3 --packet 2 -j DROP",
        "iptables-legacy -w -F INPUT",
        8,
    ),
    case(
        "connbytes, OUTPUT, legacy",
        "iptables-legacy -w -A OUTPUT -p udp --sport 7100 -m connbytes --connbytes 6: --connbytes-dir original \
         --connbytes-mode packets -j DROP",
        "iptables-legacy -w -F OUTPUT",
        5,
    ),
    case(
        "ttl, INPUT",
        "iptables -w -A INPUT -p udp --dport 7100 -m ttl --ttl-lt 10 -j DROP",
        "iptables -w -F INPUT",
        ASKED,
    ),
    // The headers are as they were.
    case(
        "mac and pkttype, INPUT",
        "iptables -w -A INPUT -p udp --dport 7100 -m mac --mac-source 02:42:ac:1e:00:02 -m pkttype --pkt-type unicast -j ACCEPT &&
         iptables -w -A INPUT -p udp --dport 7100 -j DROP",
        "iptables -w -F INPUT",
        ASKED,
    ),
    case(
        "nft limit, input",
        "nft 'table ip t { chain c { type filter hook input priority 5;
           udp dport 7100 limit rate 1/day burst 3 packets accept; udp dport 7100 drop; }; }'",
        "nft delete table ip t",
        3,
    ),
    case(
        "nft numgen, output",
        "nft 'table inet t { chain c { type filter hook output priority 5; udp sport 7100 numgen inc mod 3 2 drop; }; }'",
        "nft delete table inet t",
        8,
    ),
    // The bridge has seen the port, or has set the mark, before the host's rules ask for it.
    Case {
        fast: false,
        ..case(
            "physdev, INPUT",
            "iptables -w -A INPUT -p udp --dport 7100 -m physdev --physdev-in veth0x0 -j ACCEPT &&
             iptables -w -A INPUT -p udp --dport 7100 -j DROP",
            "iptables -w -F INPUT",
            ASKED,
        )
    },
    Case {
        fast: false,
        ..case(
            "a bridge's mark, INPUT",
            "nft 'table bridge t { chain c { type filter hook prerouting priority 0;
               ether type ip udp dport 7100 meta mark set 7; }; }' &&
             iptables -w -A INPUT -p udp --dport 7100 -m mark --mark 7 -j ACCEPT &&
             iptables -w -A INPUT -p udp --dport 7100 -j DROP",
            "iptables -w -F INPUT; nft delete table bridge t",
            ASKED,
        )
    },
];

fn topology() -> topo::Options {
    topo::Options {
        bridges: vec![2],
        ..topo::Options::default()
    }
}

/// How many questions are answered with each rule; `lab` is there if netfast is.
fn answers(topo: &Topo, lab: Option<&Lab>, bystander: &UdpSocket) -> Vec<(&'static str, usize)> {
    let mut all = Vec::new();
    for (round, case) in (0..).zip(&CASES) {
        topo.host()
            .sh(case.add)
            .unwrap_or_else(|error| panic!("{}: {error:#}", case.what));
        if let Some(lab) = lab {
            // iptables-legacy is polled.
            thread::sleep(Duration::from_millis(1500));
            if case.fast {
                warm(lab, bystander);
            }
        }
        let container = topo.container(0, 0);
        let socket = udp(&container.ns, 42_000 + round, at(topo.bridges[0].gateway, PORT));
        let before = lab.map_or(0, Lab::fast);
        let ask_after_a_while = |_: &usize| {
            // A new flow waits for a moment until the daemon has looked at its conntrack entry.
            thread::sleep(Duration::from_millis(20));
            ask(&socket)
        };
        let answered = (0..ASKED).filter(ask_after_a_while).count();
        if let Some(lab) = lab {
            let fast = lab.fast() - before;
            let told = format!("{}: {fast} fast, {}", case.what, lab.told());
            assert!(if case.fast { fast >= MOST } else { fast == 0 }, "{told}");
        }
        all.push((case.what, answered));
        topo.host().sh(case.remove).expect("the rule can be removed");
    }
    all
}

#[test]
fn the_host_s_own_rules_see_every_packet_of_the_fast_path() {
    let tools = ["nft", "iptables", "iptables-legacy"].map(Need::Program);
    if !needs(&[Need::Root]) || !needs(&tools) {
        return;
    }
    let expected: Vec<_> = CASES.iter().map(|case| (case.what, case.answered)).collect();
    let play = |topo: &Topo, lab: Option<&Lab>| {
        topo.host()
            .sh("sysctl -qw net.netfilter.nf_conntrack_acct=1")
            .expect("a switch");
        let _echoes = [PORT, OTHER].map(|port| Echo::start(topo.host(), port));
        let bystander = udp(&topo.container(0, 1).ns, 43_000, at(topo.bridges[0].gateway, OTHER));
        until_answered(&bystander, "the first answer");
        answers(topo, lab, &bystander)
    };
    let alone = Topo::new(&topology()).expect("a topology");
    introduce(&alone);
    assert_eq!(play(&alone, None), expected, "the kernel alone");
    drop(alone);
    let lab = Lab::with(&topology(), Some("revalidate_ms = 10000\nallow_accounting = true\n"));
    assert_eq!(play(&lab.topo, Some(&lab)), expected, "with netfast");
}
