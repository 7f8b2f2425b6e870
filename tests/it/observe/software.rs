//! The rule sets of the usual software keep nobody slow: whatever they look at can be repeated, or is asked only of packets
//! that are slow anyway, or by the host's own rules.

use netfast::host::Severity;
use netfast_tests::{
    netns::NetNs,
    require::{Need, needs},
};

use super::matches::read;

/// Docker Engine 20.10 with a user-defined network, a published port, an internal network and `icc=false`, and Swarm's rules
/// for encrypted overlays.
const DOCKER_20: &str = r#"*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*mangle
-A OUTPUT -p udp -m udp --dport 4789 -m u32 --u32 "0x0>>0x16&0x3c@0xc&0xffffff00=0x100100" -j MARK --set-mark 13681891
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -p udp -m udp --dport 4789 -m u32 --u32 "0x0>>0x16&0x3c@0xc&0xffffff00=0x100100" -m policy --dir in --pol ipsec -j ACCEPT
-A INPUT -p udp -m udp --dport 4789 -m u32 --u32 "0x0>>0x16&0x3c@0xc&0xffffff00=0x100100" -j DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A FORWARD -i br-a -o br-a -j DROP
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 ! -s 172.18.0.0/16 -o br-b -j DROP
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"#;

/// Docker Engine 28.
const DOCKER_28: &str = r"*raw
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
COMMIT
";

/// What `ufw enable` installs, with `ufw limit 22`.
const UFW: &str = r#"*filter
:ufw-after-logging-forward - [0:0]
:ufw-before-forward - [0:0]
:ufw-before-input - [0:0]
:ufw-logging-allow - [0:0]
:ufw-logging-deny - [0:0]
:ufw-not-local - [0:0]
:ufw-user-forward - [0:0]
:ufw-user-input - [0:0]
:ufw-user-limit - [0:0]
:ufw-user-limit-accept - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-logging-forward
-A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-before-input -j ufw-user-input
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-logging-allow -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW ALLOW] "
-A ufw-logging-deny -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN
-A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name DEFAULT --mask 255.255.255.255 --rsource
-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource -j ufw-user-limit
-A ufw-user-input -p tcp -m tcp --dport 22 -j ufw-user-limit-accept
-A ufw-user-limit -m limit --limit 3/min -j LOG --log-prefix "[UFW LIMIT BLOCK] "
-A ufw-user-limit -j REJECT --reject-with icmp-port-unreachable
-A ufw-user-limit-accept -j ACCEPT
COMMIT
"#;

/// kube-proxy (iptables), flannel and libvirt.
const KUBERNETES: &str = r#"*mangle
-A POSTROUTING -o virbr0 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SEP-B - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "dns" -m udp --dport 53 -j KUBE-SVC-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-A
-A KUBE-SVC-A -j KUBE-SEP-B
-A KUBE-SEP-A -s 10.244.0.2/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p udp -m udp -j DNAT --to-destination 10.244.0.2:53
-A KUBE-SEP-B -p udp -m recent --name KUBE-SEP-B --set -m udp -j DNAT --to-destination 10.244.0.3:53
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:FLANNEL-FWD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -j FLANNEL-FWD
-A FORWARD -m physdev --physdev-is-bridged -j ACCEPT
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT
COMMIT
"#;

/// firewalld.
const FIREWALLD: &str = "
table inet firewalld {
    chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; jump mangle_PRE_public; }
    chain mangle_PRE_public { }
    chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; oifname eth0 masquerade; }
    chain filter_PREROUTING {
        type filter hook prerouting priority filter + 10;
        icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
        meta nfproto ipv6 fib saddr . mark . iif oif missing drop
    }
    chain filter_INPUT {
        type filter hook input priority filter + 10;
        ct state { established, related } accept
        ct status dnat accept
        iifname lo accept
        ct state invalid drop
        reject with icmpx type admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority filter + 10;
        ct state { established, related } accept
        ct status dnat accept
        iifname lo accept
        ct state invalid drop
        ip6 daddr { ::/96, 2002::/24 } reject with icmpv6 type addr-unreachable
        jump filter_FORWARD_ZONES
        limit rate 1/second log prefix \"FINAL_REJECT: \"
        reject with icmpx type admin-prohibited
    }
    chain filter_FORWARD_ZONES { iifname docker0 goto filter_FWD_docker; goto filter_FWD_public; }
    chain filter_FWD_docker { accept; }
    chain filter_FWD_public { meta l4proto { icmp, ipv6-icmp } accept; tcp dport 22 ct state { new, untracked } accept; }
}
";

/// podman's netavark.
const NETAVARK: &str = "
table inet netavark {
    chain INPUT { type filter hook input priority filter; ip saddr 10.88.0.0/16 meta l4proto { tcp, udp } th dport 53 accept; }
    chain FORWARD {
        type filter hook forward priority filter;
        ct state invalid drop
        jump NETAVARK-ISOLATION-1
        ip daddr 10.88.0.0/16 ct state established,related accept
        ip saddr 10.88.0.0/16 accept
    }
    chain NETAVARK-ISOLATION-1 { iifname podman1 oifname != podman1 jump NETAVARK-ISOLATION-2; }
    chain NETAVARK-ISOLATION-2 { oifname podman1 drop; }
    chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local jump HOSTPORT; }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat;
        meta mark & 0x2000 == 0x2000 masquerade
        ip saddr 10.88.0.0/16 ip daddr != 224.0.0.0/4 masquerade
    }
    chain SETMARK { meta mark set meta mark or 0x2000; }
    chain HOSTPORT { ip saddr 10.88.0.0/16 tcp dport 8080 jump SETMARK; tcp dport 8080 dnat ip to 10.88.0.2:80; }
}
";

/// kube-proxy's own nftables mode: everything by maps of verdicts.
const KUBE_PROXY: &str = "
table ip kube-proxy {
    map service-ips {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.10 . udp . 53 : goto service-dns, 10.96.0.1 . tcp . 443 : goto service-api }
    }
    map no-endpoint-services {
        type ipv4_addr . inet_proto . inet_service : verdict
        elements = { 10.96.0.11 . tcp . 80 : goto reject-chain }
    }
    chain filter-forward { type filter hook forward priority -110; ct state new jump service-endpoints-check; }
    chain filter-output { type filter hook output priority -110; ct state new jump service-endpoints-check; }
    chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
    chain nat-output { type nat hook output priority -100; jump services; }
    chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
    chain masquerading {
        mark & 0x4000 == 0 return
        mark set mark xor 0x4000
        masquerade fully-random
    }
    chain mark-for-masquerade { mark set mark or 0x4000; }
    chain reject-chain { reject; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
    chain service-dns { numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto endpoint-b }; }
    chain service-api { numgen random mod 1 vmap { 0 : goto endpoint-a }; }
    chain endpoint-a { ip saddr 10.244.0.2 jump mark-for-masquerade; meta l4proto udp dnat to 10.244.0.2:53; }
    chain endpoint-b { ip saddr 10.244.0.3 jump mark-for-masquerade; meta l4proto udp dnat to 10.244.0.3:53; }
}
";

/// A rule that judges, behind a map of verdicts, is met by those who are sent there.
#[test]
fn maps_of_verdicts_are_followed() {
    if !needs(&[Need::Root, Need::Program("nft")]) {
        return;
    }
    let ns = NetNs::new("maps").expect("a namespace");
    ns.sh(
        "nft 'table ip t {
           map m { type ifname : verdict; elements = { \"br-1\" : jump judging }; }
           chain judging { ip ecn ce drop; }
           chain idle { ip ttl 5 drop; }
           chain forward { type filter hook forward priority 0; iifname vmap @m; ip daddr vmap { 10.0.0.1 : goto other }; }
           chain input { type filter hook input priority 0; ip protocol vmap { tcp : goto idle }; }
           chain other { meta length > 1000 drop; }
         }'",
    )
    .expect("rules");
    let found = read(&ns);
    let slow = found.iter().filter(|finding| finding.severity == Severity::SlowPath);
    let slow: Vec<_> = slow.map(|finding| (finding.chain.as_str(), finding.what)).collect();
    assert_eq!(slow, [("judging", "ip ecn"), ("other", "meta length")], "{found:#?}");
}

#[test]
fn none_of_them_keeps_anybody_slow() {
    let tools = ["nft", "iptables-nft-restore", "iptables-legacy-restore"].map(Need::Program);
    if !needs(&[Need::Root]) || !needs(&tools) {
        return;
    }
    let mut slow = Vec::new();
    let mut look = |what: &str, program: &str, rules: &str| {
        let ns = NetNs::new("software").expect("a namespace");
        ns.sh(&format!("{program} <<'END'\n{rules}\nEND"))
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let found = read(&ns);
        let found = found.iter().filter(|finding| finding.severity == Severity::SlowPath);
        slow.extend(found.map(|finding| format!("{what} by {program}: {finding}, {}", finding.reason)));
    };
    for program in ["iptables-nft-restore", "iptables-legacy-restore"] {
        for (what, rules) in [
            ("Docker 20.10", DOCKER_20),
            ("Docker 28", DOCKER_28),
            ("ufw", UFW),
            ("Kubernetes", KUBERNETES),
        ] {
            look(what, program, rules);
        }
    }
    look("firewalld", "nft -f -", FIREWALLD);
    look("kube-proxy", "nft -f -", KUBE_PROXY);
    look("netavark", "nft -f -", NETAVARK);
    assert!(slow.is_empty(), "{slow:#?}");
}
