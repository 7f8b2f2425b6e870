//! Rules: stamps that tell a change, and findings of what a cache cannot repeat.

use netfast::{
    host::{RuleFinding, RuleSource, Severity, Verdict},
    observe::Change,
};
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
};

use super::watch;

const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Program("nft"),
    Need::Program("iptables-nft"),
    Need::Program("iptables-legacy"),
];

/// Adds a rule in a fresh namespace and says what is found.
fn findings(line: &str) -> Vec<RuleFinding> {
    let ns = NetNs::new("rules").expect("a namespace");
    let script =
        format!("nft add table ip t && nft add chain ip t c '{{ type filter hook forward priority 0; }}' && {line}");
    ns.sh(&script).expect("a rule");
    let mut found = Vec::new();
    let place = &mut found;
    watch(&ns.handle(), None, |watch| async move {
        let ruleset = watch.snapshot().await.served().ruleset.clone();
        assert_eq!(ruleset.unreadable, None);
        assert!(ruleset.nft_generation.is_some());
        assert!(
            ruleset
                .nft_chains
                .iter()
                .any(|chain| chain.table == "t" && chain.hook == 2 && !chain.policy_drop)
        );
        *place = ruleset.findings;
    });
    found
}

#[test]
fn rules_that_a_cache_cannot_repeat_are_found() {
    if !needs(&NEEDS) {
        return;
    }
    let check = |line: &str, expected: &[&str]| {
        let found = findings(line);
        let what: Vec<_> = found.iter().map(|finding| finding.what).collect();
        assert_eq!(what, expected, "{line}: {found:?}");
    };
    check("nft add rule ip t c numgen random mod 2 == 0 accept", &["statistic"]);
    check("nft add rule ip t c meta length 100 drop", &["meta length"]);
    check("nft add rule ip t c ip ttl 5 drop", &["ip ttl"]);
    check("nft add rule ip t c quota over 1 mbytes drop", &["quota"]);
    check("nft add rule ip t c log", &["log"]);
    check("nft add rule ip t c log group 2", &["nflog"]);
    check("nft add rule ip t c ct mark set 1", &["mark"]);
    check("nft add rule ip t c ip dscp set cs1", &["rewrite"]);
    check("nft add rule ip t c dup to 10.0.0.1", &["duplicate"]);
    check("nft add rule ip t c ct count over 5 drop", &["connlimit"]);
    check("iptables-nft -A FORWARD -j NFQUEUE --queue-num 1", &["nfqueue"]);
    check(
        "iptables-nft -A FORWARD -m statistic --mode random --probability 0.5 -j DROP",
        &["statistic"],
    );
    check(
        "iptables-nft -A FORWARD -m string --string x --algo bm -j LOG",
        &["log", "string"],
    );
    check("iptables-legacy -A FORWARD -j NFQUEUE --queue-num 1", &["nfqueue"]);
    check("iptables-legacy -A FORWARD -m length --length 100 -j DROP", &["length"]);
    check("iptables-legacy -t mangle -A FORWARD -j TTL --ttl-set 4", &["rewrite"]);
    check("ip6tables-legacy -A FORWARD -m limit --limit 5/s -j ACCEPT", &["limit"]);
}

#[test]
fn rules_that_it_can_repeat_are_not() {
    if !needs(&NEEDS) {
        return;
    }
    let lines = [
        "nft add rule ip t c tcp dport 80 counter accept",
        "nft add rule ip t c ip saddr 1.2.3.4 ct state established accept",
        "nft 'add table ip6 t; add chain ip6 t c; add rule ip6 t c ip6 saddr fd00::/8 ip6 daddr fd00::1 udp dport 53 drop'",
        "iptables-nft -A FORWARD -i br0 -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "iptables-legacy -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1:80",
    ];
    for line in lines {
        assert_eq!(findings(line), [], "{line}");
    }
}

#[test]
fn a_finding_says_where_and_for_which_interface() {
    if !needs(&NEEDS) {
        return;
    }
    let limit = |source, chain: &str, text: &str, found: &[RuleFinding]| {
        let [finding] = found else {
            panic!("one finding: {found:?}")
        };
        assert_eq!(
            (finding.source, finding.what, finding.severity),
            (source, "limit", Severity::SlowPath)
        );
        assert_eq!((finding.family.as_str(), finding.chain.as_str()), ("ip", chain));
        assert_eq!(
            (finding.iif.as_deref(), finding.verdict),
            (Some("docker0"), Verdict::Accept)
        );
        assert_eq!(finding.text, text);
    };
    let nft = findings("nft add rule ip t c iifname docker0 limit rate 5/second accept");
    limit(RuleSource::Nft, "c", "iifname docker0 limit accept", &nft);
    let legacy = findings(
        "iptables-legacy -N MINE && iptables-legacy -A FORWARD -j MINE
         iptables-legacy -A MINE -j RETURN; iptables-legacy -A MINE -i docker0 -m limit --limit 5/s -j ACCEPT",
    );
    limit(RuleSource::Legacy, "MINE", "-i docker0 -m limit -j ACCEPT", &legacy);
    assert_eq!(legacy[0].rule, 2);
    let any = findings("iptables-legacy -A FORWARD -i eth+ ! -o docker0 -m limit --limit 5/s -j DROP");
    assert_eq!((any[0].iif.as_deref(), any[0].oif.as_deref()), (None, None), "{any:?}");
}

/// A chain of several devices is met by way of each of them.
#[test]
fn chains_of_devices_say_of_which() {
    if !needs(&NEEDS) {
        return;
    }
    let of = |device: &str| {
        let found = findings(&format!(
            "ip link add name a type veth peer name b && nft 'table netdev d {{ chain c {{
             type filter hook ingress {device} priority 0; ip ecn ce drop; }}; }}'"
        ));
        assert_eq!((found.len(), found[0].what), (1, "ip ecn"), "{found:?}");
        found[0]
            .ways
            .iter()
            .map(|way| (way.iif.clone(), way.host_only))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("device a"), [(Some("a".into()), false)]);
    assert_eq!(of("devices = { a, b }"), [(None, false)]);
}

#[test]
fn a_changed_rule_is_a_hint_and_a_counting_rule_is_none() {
    if !needs(&NEEDS) {
        return;
    }
    let host = NetNs::new("rules").expect("a namespace");
    host.sh("iptables-legacy -A INPUT -p icmp; nft add table ip t; nft add chain ip t c '{ type filter hook input priority 0; }'
             nft add rule ip t c counter")
        .expect("counting rules");
    let ns = host.handle();
    watch(&host.handle(), None, |mut watch| async move {
        watch.hints(None).await;
        let before = watch.snapshot().await.served().ruleset.clone();
        assert!(before.legacy.contains_key("ip/filter"), "{before:?}");
        ns.sh("busybox ping -c 3 127.0.0.1").expect("packets to count");
        assert!(
            !watch.hints(None).await.contains(&Change::Ruleset),
            "packets are no change of the rules"
        );
        assert_eq!(watch.snapshot().await.served().ruleset, before);
        for line in [
            "iptables-legacy -A INPUT -p tcp",
            "nft add rule ip t c tcp dport 1 drop",
            "iptables-legacy -F",
        ] {
            let before = watch.snapshot().await.served().ruleset.clone();
            ns.sh(line).expect("a change");
            assert!(
                watch.hints(Some(Change::Ruleset)).await.contains(&Change::Ruleset),
                "{line}"
            );
            assert_ne!(watch.snapshot().await.served().ruleset, before, "{line}");
        }
    });
}
