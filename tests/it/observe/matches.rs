//! What rules look at, by the tools that people write rules with: each kind of match, and the rule sets of the usual
//! software.

use std::collections::{BTreeMap, BTreeSet};

use netfast::host::{RuleFinding, Severity};
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
};

use super::watch;

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Program("nft"),
    Need::Program("iptables-nft"),
    Need::Program("iptables-legacy"),
    Need::Program("ebtables-nft"),
];

/// What is read of the rules in a namespace.
pub fn read(ns: &NetNs) -> Vec<RuleFinding> {
    let mut found = Vec::new();
    let place = &mut found;
    watch(&ns.handle(), None, |watch| async move {
        let ruleset = watch.snapshot().await.served().ruleset.clone();
        assert_eq!(ruleset.unreadable, None);
        *place = ruleset.findings;
    });
    found
}

/// A rule: whose, what it asks, and what it is found to judge by, if it judges.
type Case = (&'static str, &'static str, Option<&'static str>);

/// Rules of iptables, in either form.
const IPTABLES: [(&str, Option<&str>); 74] = [
    ("-p tcp --tcp-flags PSH PSH -j DROP", Some("tcp flags")),
    ("-p tcp --tcp-flags PSH,ACK PSH,ACK -j DROP", Some("tcp flags")),
    ("-p tcp ! --tcp-flags URG URG -j ACCEPT", Some("tcp flags")),
    ("-p tcp --tcp-option 8 -j DROP", Some("tcp option")),
    ("-p tcp -m ecn --ecn-tcp-ece -j DROP", Some("ecn")),
    ("-m ecn --ecn-ip-ect 3 -j DROP", Some("ecn")),
    ("-m tos --tos 0x02 -j DROP", Some("tos")),
    ("-m length --length 1000: -j DROP", Some("length")),
    ("-m string --string x --algo bm -j DROP", Some("string")),
    ("-m ttl --ttl-eq 1 -j DROP", Some("ttl")),
    ("-m u32 --u32 0x0=0x0 -j DROP", Some("u32")),
    ("-m bpf --bytecode '1,6 0 0 0' -j DROP", Some("bpf")),
    (
        "-m connbytes --connbytes 10000 --connbytes-dir both --connbytes-mode bytes -j DROP",
        Some("connbytes"),
    ),
    ("-m cpu --cpu 0 -j DROP", Some("cpu")),
    ("-m policy --dir in --pol ipsec -j ACCEPT", Some("policy")),
    (
        "-m statistic --mode random --probability 0.5 -j DROP",
        Some("statistic"),
    ),
    ("-m limit --limit 5/s -j ACCEPT", Some("limit")),
    (
        "-m hashlimit --hashlimit-upto 5/s --hashlimit-name h -j ACCEPT",
        Some("hashlimit"),
    ),
    ("-m quota --quota 1000 -j ACCEPT", Some("quota")),
    ("-m recent --name r --rcheck -j DROP", Some("recent")),
    ("-m recent --name r --set", Some("recent")),
    ("-m conntrack --ctexpire 1:10 -j DROP", Some("ct expiration")),
    ("-m helper --helper ftp -j ACCEPT", Some("ct helper")),
    ("-p tcp -m tcpmss --mss 1:500 -j DROP", Some("tcpmss")),
    ("-p udp -m length --length 100 -j MARK --set-mark 1", Some("length")),
    ("-m ecn --ecn-ip-ect 1 -j OTHER", Some("ecn")),
    ("-m ecn --ecn-ip-ect 1 -j RETURN", Some("ecn")),
    ("-m ecn --ecn-ip-ect 1 -j LOG", None),
    ("-m ecn --ecn-ip-ect 1", None),
    // What judges only packets that are always slow.
    ("-p tcp --syn -m tcpmss --mss 1:500 -j DROP", None),
    ("-p tcp --tcp-flags ALL NONE -j DROP", None),
    ("-p tcp --tcp-flags ALL FIN,PSH,URG -j DROP", None),
    ("-p tcp --tcp-flags SYN,FIN SYN,FIN -j DROP", None),
    ("-p tcp ! --syn -m conntrack --ctstate NEW -j DROP", None),
    ("-p icmp -m length --length 1000: -j DROP", None),
    ("-f -m ttl --ttl-lt 9 -j DROP", None),
    ("-m conntrack --ctstate NEW -m limit --limit 5/s -j ACCEPT", None),
    // What packets of a flow have in common.
    ("-p tcp --dport 80 -j ACCEPT", None),
    ("-p tcp ! --syn -j ACCEPT", None),
    ("-p tcp -m multiport --dports 80,443 -j ACCEPT", None),
    ("-p udp --sport 53 -j ACCEPT", None),
    ("-m addrtype --dst-type LOCAL -j DROP", None),
    ("-m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP", None),
    ("-m mac --mac-source 02:00:00:00:00:01 -j ACCEPT", None),
    ("-m mark --mark 0x4000/0x4000 -j ACCEPT", None),
    ("-m connmark --mark 1 -j ACCEPT", None),
    ("-m conntrack --ctstate INVALID -j DROP", None),
    ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", None),
    ("-m conntrack --ctstatus DNAT -j ACCEPT", None),
    ("-m conntrack ! --ctdir REPLY -j ACCEPT", None),
    ("-m state --state INVALID -j DROP", None),
    ("-m dscp --dscp 0x20 -j ACCEPT", None),
    ("-m tos --tos 0x10/0xfc -j ACCEPT", None),
    ("-m physdev --physdev-is-bridged -j ACCEPT", None),
    ("-m pkttype --pkt-type broadcast -j DROP", None),
    ("-m comment --comment x -j ACCEPT", None),
    (
        "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 -j ACCEPT",
        None,
    ),
    ("-m devgroup --src-group 1 -j ACCEPT", None),
    ("-m realm --realm 1 -j ACCEPT", None),
    ("-m connlabel --label 1 -j ACCEPT", None),
    ("-m connlimit --connlimit-above 100 -j REJECT", None),
    ("-m time --timestart 08:00 --timestop 18:00 -j ACCEPT", None),
    ("-m set --match-set s src -j DROP", None),
    ("-m set --match-set c src --packets-gt 9 -j DROP", Some("set")),
    ("-p sctp --dport 1 -j DROP", None),
    ("-p esp -m esp --espspi 1 -j DROP", None),
    ("-p ah -m ah --ahspi 1 -j DROP", None),
    ("-j REJECT", None),
    ("-j LOG", None),
    ("-j NFLOG --nflog-group 1", None),
    ("-m nfacct --nfacct-name a", Some("accounting")),
    ("-j TEE --gateway 10.0.0.1", Some("duplicate")),
    ("-j SET --add-set s src", None),
    ("-j SET --del-set s src", Some("toggle")),
];

/// Rules of its table mangle, in either form.
const MANGLE: [(&str, Option<&str>); 13] = [
    ("-m ecn --ecn-ip-ect 1 -j MARK --set-mark 1", Some("ecn")),
    ("-p tcp --tcp-flags PSH PSH -j CONNMARK --set-mark 1", Some("tcp flags")),
    ("-p tcp --dport 80 -j MARK --set-mark 1", None),
    ("-p tcp --dport 80 -j CONNMARK --save-mark", None),
    ("-j CLASSIFY --set-class 1:1", None),
    ("-j TTL --ttl-set 4", Some("rewrite")),
    ("-j TOS --set-tos 0x10", Some("rewrite")),
    ("-j TOS --set-tos 0x10/0xfc", None),
    ("-j DSCP --set-dscp 0x20", None),
    ("-p tcp -j ECN --ecn-tcp-remove", Some("rewrite")),
    ("-p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu", None),
    ("-p tcp -j TCPOPTSTRIP --strip-options timestamp", Some("rewrite")),
    ("-p udp --dport 68 -j CHECKSUM --checksum-fill", None),
];

/// Rules of nft.
const NFT: [(&str, Option<&str>); 58] = [
    ("ip ecn ce drop", Some("ip ecn")),
    ("ip ecn vmap { ce : drop, ect0 : accept }", Some("ip ecn")),
    ("ip dscp cs1 drop", None),
    ("ip dscp vmap { cs1 : drop, cs2 : accept }", None),
    ("ip dscp . ip saddr { cs1 . 10.0.0.1 } drop", None),
    (
        "ip saddr . ip daddr . tcp dport { 10.0.0.1 . 10.0.0.2 . 80 } drop",
        None,
    ),
    ("tcp flags psh drop", Some("tcp flags psh")),
    ("tcp flags & (psh | ack) == psh | ack drop", Some("tcp flags psh")),
    ("tcp flags & (ece | cwr) != 0 drop", Some("tcp flags")),
    ("tcp flags { ack, psh | ack } drop", Some("tcp flags")),
    ("tcp flags syn drop", None),
    ("tcp flags & (fin | syn | rst | ack) == syn drop", None),
    ("tcp flags & (fin | syn | rst | ack) != syn ct state new drop", None),
    ("tcp flags == 0x0 drop", None),
    ("tcp option timestamp exists drop", Some("tcp option")),
    ("tcp option sack-perm missing drop", Some("tcp option")),
    ("tcp flags syn tcp option maxseg size set rt mtu", None),
    ("tcp option maxseg size set 1000", Some("tcp option")),
    ("tcp doff > 5 drop", Some("tcp doff")),
    ("tcp window 0 drop", Some("tcp window, checksum, urgptr")),
    ("tcp sequence 7 drop", Some("tcp sequence, ackseq")),
    ("tcp urgptr 1 drop", Some("tcp window, checksum, urgptr")),
    ("udp length 100 drop", Some("udp length, checksum")),
    ("udp checksum 0 drop", Some("udp length, checksum")),
    ("ip frag-off & 0x1fff != 0 drop", None),
    ("ip frag-off & 0x4000 != 0 drop", Some("ip frag-off df")),
    ("ip hdrlength > 5 drop", None),
    ("ip length > 1000 drop", Some("ip length")),
    ("ip id 7 drop", Some("ip id")),
    ("ip ttl 5 drop", Some("ip ttl")),
    ("ip ttl { 5, 6 } drop", Some("ip ttl")),
    ("ip ttl 5-6 drop", Some("ip ttl")),
    ("ip checksum 5 drop", Some("ip checksum")),
    ("ip protocol tcp ip saddr 10.0.0.1 drop", None),
    ("ip option rr exists drop", None),
    ("icmp type echo-request limit rate 5/second drop", None),
    ("meta length > 1000 drop", Some("meta length")),
    ("meta cpu 0 drop", Some("meta cpu")),
    ("meta priority 1:1 drop", Some("meta priority")),
    ("meta random < 100 drop", Some("statistic")),
    ("meta mark 1 drop", None),
    ("meta pkttype broadcast drop", None),
    ("meta skuid 0 drop", None),
    ("meta hour \"08:00\"-\"18:00\" drop", None),
    ("meta ipsec exists drop", Some("meta ipsec")),
    ("ipsec in reqid 1 drop", Some("xfrm")),
    ("ct original packets > 5 drop", Some("connbytes")),
    ("ct expiration 10s drop", Some("ct expiration")),
    (
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        None,
    ),
    ("ct status dnat accept", None),
    ("ct mark 1 ct zone 0 accept", None),
    ("fib saddr . iif oif missing drop", None),
    ("socket transparent 1 accept", None),
    ("rt nexthop 10.0.0.1 drop", None),
    ("jhash ip saddr mod 2 0 drop", None),
    ("numgen inc mod 2 0 drop", Some("statistic")),
    ("@th,160,8 1 drop", Some("transport header")),
    ("@nh,8,8 & 0x3 == 1 drop", Some("ip ecn")),
];

/// Rules of nft in a table of bridges.
const BRIDGED: [(&str, Option<&str>); 9] = [
    ("ip ecn ce drop", Some("ip ecn")),
    ("tcp flags psh drop", Some("tcp flags psh")),
    ("ip ttl 5 drop", Some("ip ttl")),
    ("udp length 100 drop", Some("udp length, checksum")),
    ("ip frag-off & 0x4000 != 0 drop", Some("ip frag-off df")),
    ("ether type arp accept", None),
    ("ether saddr 02:00:00:00:00:01 drop", None),
    ("vlan id 7 drop", None),
    ("ip saddr 10.0.0.1 tcp dport 80 accept", None),
];

/// Rules of ebtables.
const EBTABLES: [(&str, Option<&str>); 12] = [
    ("-p IPv4 --ip-tos 2 -j DROP", Some("ip tos")),
    ("-p IPv4 --ip-proto tcp --ip-dport 80 -j DROP", None),
    ("-p IPv4 --ip-src 10.0.0.1 -j DROP", None),
    ("-p IPv4 --ip-proto icmp -j DROP", None),
    ("-p ARP --arp-opcode 1 -j ACCEPT", None),
    ("-p 802_1Q --vlan-id 7 -j DROP", None),
    ("--limit 5/s -j ACCEPT", Some("limit")),
    ("-s 02:00:00:00:00:01 -j DROP", None),
    ("--mark 1 -j DROP", None),
    ("--pkttype-type multicast -j DROP", None),
    ("--among-src 02:00:00:00:00:01 -j DROP", None),
    ("--log -j CONTINUE", None),
];

/// All of them.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for tool in ["iptables-nft -w -t filter", "iptables-legacy -w -t filter"] {
        cases.extend(IPTABLES.map(|(rule, what)| (tool, rule, what)));
    }
    for tool in ["iptables-nft -w -t mangle", "iptables-legacy -w -t mangle"] {
        cases.extend(MANGLE.map(|(rule, what)| (tool, rule, what)));
    }
    cases.extend(NFT.map(|(rule, what)| ("nft ip", rule, what)));
    cases.extend(NFT.map(|(rule, what)| ("nft inet", rule, what)));
    cases.extend(BRIDGED.map(|(rule, what)| ("nft bridge", rule, what)));
    cases.extend(EBTABLES.map(|(rule, what)| ("ebtables-nft", rule, what)));
    cases
}

/// Cases that this kernel and these tools take: all but those whose match or target they lack.
const LEAST: usize = 270;

/// A chain of its own for each rule, so that its findings can be told from the others'.
fn install(ns: &NetNs, chain: &str, (tool, rule, _): Case) -> anyhow::Result<String> {
    if let Some(family) = tool.strip_prefix("nft ") {
        // Only bridges have the same hook but no ct.
        return ns.sh(&format!(
            "nft 'add chain {family} t {chain} {{ type filter hook forward priority 0; }}; add rule {family} t {chain} {rule}'"
        ));
    }
    ns.sh(&format!(
        "{tool} -N {chain} && {tool} -A FORWARD -j {chain} && {tool} -A {chain} {rule}"
    ))
}

/// Rules about what was not answered yet: whether one-way UDP must not be taken from them.
#[test]
fn rules_about_what_is_new_by_the_tools() {
    if !needs(&NEEDS) {
        return;
    }
    let cases: Vec<(Case, Option<Severity>)> = ["iptables-nft -w -t filter", "iptables-legacy -w -t filter"]
        .into_iter()
        .flat_map(|tool| {
            [
                (
                    "-m conntrack --ctstate NEW -m limit --limit 5/s -j ACCEPT",
                    Some(Severity::SlowUnreplied),
                ),
                (
                    "-m conntrack --ctstate NEW,RELATED -m statistic --mode random --probability 0.5 -j DROP",
                    Some(Severity::SlowUnreplied),
                ),
                (
                    "-p udp -m conntrack --ctstate NEW -m length --length 100: -j DROP",
                    Some(Severity::SlowUnreplied),
                ),
                ("-p tcp -m conntrack --ctstate NEW -m limit --limit 5/s -j ACCEPT", None),
                ("-p tcp --syn -m limit --limit 5/s -j ACCEPT", None),
                ("-p icmp -m limit --limit 5/s -j ACCEPT", Some(Severity::SlowEcho)),
                ("-m conntrack --ctstate NEW -m limit --limit 5/s -j LOG", None),
                ("-m conntrack --ctstate NEW -j ACCEPT", None),
            ]
            .map(|(rule, judges)| ((tool, rule, None), judges))
        })
        .chain(
            [
                ("ct state new limit rate 5/second accept", Some(Severity::SlowUnreplied)),
                // States are looked up in a set here, which is not followed: it counts as met by all packets.
                (
                    "ct state { new, related } limit rate 5/second accept",
                    Some(Severity::SlowPath),
                ),
                (
                    "meta l4proto udp ct state new meta length > 100 drop",
                    Some(Severity::SlowUnreplied),
                ),
                ("meta l4proto tcp ct state new limit rate 5/second accept", None),
                ("ct state new accept", None),
            ]
            .map(|(rule, judges)| (("nft inet", rule, None), judges)),
        )
        .collect();
    let ns = NetNs::new("matches").expect("a namespace");
    ns.sh("nft 'add table inet t'").expect("a table");
    for (number, (case, _)) in cases.iter().enumerate() {
        install(&ns, &format!("R{number}"), *case).unwrap_or_else(|error| panic!("{case:?}: {error:#}"));
    }
    let findings = read(&ns);
    for (number, ((tool, rule, _), expected)) in cases.into_iter().enumerate() {
        let of_rule = findings.iter().filter(|finding| finding.chain == format!("R{number}"));
        let of_rule: Vec<_> = of_rule.filter(|finding| finding.severity != Severity::Note).collect();
        let severities: BTreeSet<Severity> = of_rule.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, expected.into_iter().collect(), "{tool} {rule}: {of_rule:?}");
        if expected == Some(Severity::SlowUnreplied) {
            let ways: Vec<_> = of_rule.iter().flat_map(|finding| &finding.ways).collect();
            assert!(ways.iter().all(|way| way.unreplied), "{tool} {rule}: {of_rule:?}");
        }
    }
}

#[test]
fn each_kind_of_match_by_the_tools() {
    if !needs(&NEEDS) {
        return;
    }
    let ns = NetNs::new("matches").expect("a namespace");
    ns.sh("nft 'add table ip t; add table inet t; add table bridge t'
         for tool in iptables-nft iptables-legacy; do $tool -w -N OTHER; done
         ipset create s hash:ip; ipset create c hash:ip counters; nfacct add a; true")
        .expect("what rules refer to");
    let (mut installed, mut refused) = (BTreeMap::new(), Vec::new());
    for (number, case) in cases().into_iter().enumerate() {
        let chain = format!("R{number}");
        match install(&ns, &chain, case) {
            Ok(_) => {
                installed.insert(chain, case);
            }
            Err(_) => refused.push(case),
        }
    }
    for (tool, rule, _) in &refused {
        println!("not taken here: {tool} {rule}");
    }
    assert!(
        installed.len() >= LEAST,
        "only {} of them were taken: {refused:#?}",
        installed.len()
    );
    let findings = read(&ns);
    let mut wrong = Vec::new();
    for (chain, (tool, rule, expected)) in &installed {
        let slow = findings
            .iter()
            .filter(|finding| finding.chain == *chain && finding.severity == Severity::SlowPath)
            .map(|finding| finding.what);
        let slow: Vec<_> = slow.collect();
        // iptables-nft says some matches in nftables' own words, each release some more.
        let same = |what: &&str| {
            let own = |what: &str| what.split(' ').next().unwrap_or_default().to_owned();
            expected.is_some_and(|expected| own(what) == own(expected) || what.ends_with(expected))
        };
        if slow.is_empty() != expected.is_none() || !slow.iter().all(same) {
            wrong.push(format!("{tool} {rule}: {slow:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
