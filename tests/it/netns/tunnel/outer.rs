//! What the kernel decides about outer packets, and who sees them: whatever changes on their way holds within a second, as it does
//! without netfast.

use nix::sys::signal::Signal;

use netfast_tests::hosts::VNI;

use super::*;

/// Counts outer packets that come in and have this about them.
struct Seen<'a> {
    ns: &'a NsHandle,
    table: String,
}

impl<'a> Seen<'a> {
    fn of(ns: &'a NsHandle, about: &str) -> Self {
        let table = format!("seen_{}", about.replace(' ', "_"));
        ns.sh(&format!(
            "nft add table ip {table} && nft add chain ip {table} c '{{ type filter hook input priority 0; }}' && \
             nft add rule ip {table} c udp dport {PORT} {about} counter"
        ))
        .expect("a rule that counts");
        Self { ns, table }
    }

    fn packets(&self) -> u64 {
        packets(
            &self
                .ns
                .sh(&format!("nft list table ip {}", self.table))
                .expect("the rule"),
        )
    }
}

/// What the first counter in a listing of nftables says.
pub fn packets(listed: &str) -> u64 {
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).expect("a counter").parse().expect("a number")
}

/// What is done on the near host stops the conversation within a second, with `FAR` for the far host's address; it goes on, and
/// its outer headers are repeated again, when it is undone.
fn stops(on: &str, off: &str) {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let (near, far) = (&world.host(0).ns, world.host(1).ip.to_string());
    near.sh(&on.replace("FAR", &far)).expect("it is done");
    silent_soon(&socket, &format!("{on}: it holds"));
    near.sh(&off.replace("FAR", &far)).expect("it is undone");
    until_answered(&socket, "it is undone");
    world.warm(&socket);
}

#[test]
fn a_black_hole_in_the_way_of_outer_packets() {
    stops("ip route add blackhole FAR/32", "ip route del blackhole FAR/32");
}

#[test]
fn another_neighbour_in_the_way_of_outer_packets() {
    stops(
        "ip neigh replace FAR lladdr 02:00:00:00:99:99 dev eth0 nud permanent",
        "ip neigh del FAR dev eth0",
    );
}

#[test]
fn an_ipsec_policy_about_outer_packets() {
    let policy = format!("src 0.0.0.0/0 dst FAR/32 proto udp dport {PORT} dir out");
    stops(
        &format!("ip xfrm policy add {policy} action block"),
        &format!("ip xfrm policy delete {policy}"),
    );
}

/// One that wants them encrypted: nobody here can, so none may leave as it is.
#[test]
fn an_ipsec_policy_that_wants_outer_packets_encrypted() {
    let policy = format!("src 0.0.0.0/0 dst FAR/32 proto udp dport {PORT} dir out");
    stops(
        &format!("ip xfrm policy add {policy} tmpl proto esp mode transport"),
        &format!("ip xfrm policy delete {policy}"),
    );
}

#[test]
fn a_mark_by_which_outer_packets_are_routed() {
    stops(
        &format!(
            "ip rule add fwmark 7 blackhole && iptables -w -t mangle -I OUTPUT -p udp --dport {PORT} -j MARK --set-mark 7"
        ),
        &format!(
            "iptables -w -t mangle -D OUTPUT -p udp --dport {PORT} -j MARK --set-mark 7 && ip rule del fwmark 7 blackhole"
        ),
    );
}

#[test]
fn a_rule_at_the_uplink_itself() {
    stops(
        &format!(
            "nft add table netdev n && nft add chain netdev n e '{{ type filter hook egress device eth0 priority 0; }}' && \
             nft add rule netdev n e udp dport {PORT} drop"
        ),
        "nft delete table netdev n",
    );
}

#[test]
fn an_uplink_that_goes_down() {
    stops("ip link set eth0 down", "ip link set eth0 up");
}

/// Without a daemon: each conversation asks the kernel by itself. The next daemon takes over what is there.
#[test]
fn rules_hold_and_headers_are_repeated_when_the_daemon_is_killed() {
    let Some((mut world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    world.netfast[0].stop(Signal::SIGKILL).expect("it dies");
    thread::sleep(Duration::from_millis(1100));
    world.warm(&socket);
    let rule = format!("OUTPUT -p udp --dport {PORT} -j DROP");
    let ns = &world.host(0).ns;
    ns.sh(&format!("iptables -w -I {rule}")).expect("a rule");
    silent_soon(&socket, "the rule holds");
    ns.sh(&format!("iptables -w -D {rule}")).expect("no rule");
    until_answered(&socket, "the rule is gone");
    world.warm(&socket);
    let before = programs_at(&world.host(0).ns, TUNNEL);
    world.netfast[0].launch().expect("it starts again");
    assert_eq!(programs_at(&world.host(0).ns, TUNNEL), before);
    assert!(ask(&socket));
    world.warm(&socket);
}

/// The uplink's queueing discipline gets every packet: those whose outer header is repeated, too.
#[test]
fn a_queue_of_the_uplink_gets_every_outer_packet() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let ns = &world.host(0).ns;
    ns.sh("tc qdisc add dev eth0 root pfifo").expect("a queue");
    world.warm(&socket);
    let queued = || -> u64 {
        let listed = ns.sh("tc -s qdisc show dev eth0").expect("the queue");
        let sent = listed.split("pfifo").nth(1).expect("it is there");
        let mut words = sent.split_whitespace().skip_while(|word| *word != "Sent");
        words.nth(3).expect("a count").parse().expect("a number")
    };
    let before = (queued(), world.count(0, Reason::Encapsulated));
    assert_eq!((0..100).filter(|_| ask(&socket)).count(), 100);
    assert!(
        world.count(0, Reason::Encapsulated) >= before.1 + 90,
        "they were repeated"
    );
    assert!(queued() >= before.0 + 100, "{} {}", queued(), before.0);
}

/// Rules that keep outer packets out of conntrack are about each of them, so the kernel writes all headers, and conntrack has none.
#[test]
fn outer_packets_that_are_not_tracked() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let ns = &world.host(0).ns;
    ns.sh(&format!(
        "for chain in OUTPUT PREROUTING; do iptables -w -t raw -I $chain -p udp --dport {PORT} -j CT --notrack; done"
    ))
    .expect("rules");
    by_kernel(&world, &socket);
    let said = world.check();
    assert!(said.contains("must see every outer packet"), "{said}");
    let entries = ns.sh(&format!(
        "conntrack -F 2>&1; sleep 0.2; conntrack -L 2>/dev/null | grep -c 'dport={PORT}' || true"
    ));
    assert_eq!(entries.expect("a number").lines().last(), Some("0"));
    assert!(ask(&socket));
}

/// Asks until no outer header is repeated on the near host.
fn by_kernel(world: &World, socket: &UdpSocket) {
    cmd::poll("the kernel writes outer headers", TIMEOUT, || {
        let before = world.count(0, Reason::Encapsulated);
        let answered = (0..8).filter(|_| ask(socket)).count();
        (answered == 8 && world.count(0, Reason::Encapsulated) == before).then_some(())
    })
    .expect("it is noticed");
}

/// Another TTL of the tunnel is that of every packet within a second.
#[test]
fn a_tunnel_whose_ttl_is_changed() {
    let Some((world, _echo, socket)) = conversation(Kind::Routed) else {
        return;
    };
    let far = &world.host(1).ns;
    let (all, seen) = (Seen::of(far, "ip version 4"), Seen::of(far, "ip ttl 5"));
    world.warm(&socket);
    assert_eq!(seen.packets(), 0);
    let ns = &world.host(0).ns;
    ns.ip(&format!("link set {TUNNEL} type vxlan id {VNI} ttl 5"))
        .expect("another TTL");
    thread::sleep(Duration::from_millis(1500));
    let before = (all.packets(), seen.packets());
    assert_eq!((0..100).filter(|_| ask(&socket)).count(), 100);
    assert_eq!(all.packets() - before.0, seen.packets() - before.1);
    world.warm(&socket);
}

/// With `tos inherit` each outer packet has the DSCP and the ECN bits of the one inside.
#[test]
fn a_tunnel_whose_packets_inherit_their_tos() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let world = World::with(Kind::Routed, "noudpcsum tos inherit");
    let _echo = Echo::start(&world.host(1).container, 7002);
    let socket = udp(&world.host(0).container, 0, at(world.host(1).container_ip, 7002));
    world.warm(&socket);
    let far = &world.host(1).ns;
    let (urgent, capable) = (Seen::of(far, "ip dscp ef"), Seen::of(far, "ip ecn ect1"));
    world.warm(&socket);
    // What is taken off at the uplink passes no rule that counts.
    world.netfast[1].detach().expect("detached");
    let sent = world.count(0, Reason::Encapsulated);
    let mut asked = 0;
    // By turns, and each for a while.
    for turn in 0..20 {
        let is_urgent = turn % 2 == 1;
        let tos = if is_urgent { 0xb9 } else { 0 };
        set_tos(&socket, tos);
        for _ in 0..turn {
            assert!(ask(&socket));
            asked += u64::from(is_urgent);
        }
    }
    assert_eq!((urgent.packets(), capable.packets()), (asked, asked));
    assert!(world.count(0, Reason::Encapsulated) >= sent + 80, "most were repeated");
}

/// Sets the TOS of what a socket sends.
fn set_tos(socket: &UdpSocket, tos: i32) {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Ipv4Tos, &tos).expect("an option");
}

/// A frame to an unknown station goes to all ends, so one that has several stays with the kernel, and says so.
#[test]
fn a_tunnel_that_is_given_a_second_end_for_unknown_stations() {
    let Some((world, _echo, socket)) = conversation(Kind::Bridged) else {
        return;
    };
    let ns = &world.host(0).ns;
    let end = format!("00:00:00:00:00:00 dev {TUNNEL} dst 198.18.0.99");
    ns.sh(&format!("bridge fdb append {end}")).expect("a second end");
    cmd::poll("it is said", TIMEOUT, || {
        let said = world.netfast[0].verb(&["status"]).expect("a report");
        said.contains("to unknown stations to 2 ends").then_some(())
    })
    .expect("it is noticed");
    by_kernel(&world, &socket);
    ns.sh(&format!("bridge fdb del {end}")).expect("one end");
    world.warm(&socket);
}

/// Where the uplink cannot take segments of tunnels the kernel cuts them, whoever has written the outer header.
#[test]
fn an_uplink_that_takes_no_long_packets() {
    let Some((world, _echo, _socket)) = conversation(Kind::Routed) else {
        return;
    };
    for number in [0, 1] {
        let ns = &world.host(number).ns;
        ns.ip("link set eth0 gso_max_size 1600").expect("a size");
    }
    let before = [0, 1].map(|number| world.sent(number));
    bulk(&world);
    for number in [0, 1] {
        world.check_share(number, before[number], 100);
    }
}

/// The tunnel is removed in the middle of a conversation, and made again.
#[test]
fn a_tunnel_that_is_removed_and_made_again() {
    for kind in [Kind::Routed, Kind::Bridged] {
        let Some((world, _echo, socket)) = conversation(kind) else {
            return;
        };
        let ns = &world.host(0).ns;
        ns.ip(&format!("link del {TUNNEL}")).expect("no tunnel");
        silent_soon(&socket, "the tunnel is gone");
        world.hosts.make_tunnel(0, kind, "noudpcsum").expect("a tunnel");
        until_answered(&socket, "the tunnel is there again");
        world.warm(&socket);
    }
}
