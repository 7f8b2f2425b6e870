//! ICMP echo of both families: fast once it was answered, and judged by every rule that is about ICMP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::FromRawFd as _,
    thread,
    time::{Duration, Instant},
};

use netfast::{
    apply::conntrack::{self, Entry, Tuple},
    sys::netlink::NetlinkSocket,
};
use netfast_common::reason::Reason;
use netfast_tests::{
    cmd,
    netns::NsHandle,
    require::{Need, needs},
    site::{LAN_IP, LAN_IP6},
    topo,
};

use super::{
    lab::{Echo, Lab, TICK, TIMEOUT, at, topology, udp, until_answered, warm},
    six::{self, SELDOM},
};

/// Bytes of a question: a header, and what `ping` sends by default.
const LENGTH: usize = 8 + 56;
/// A rule ends a flow within this time, as the tests of UDP have it.
const BOUND: Duration = Duration::from_secs(5);

/// Asks one address, as `ping` does with a socket of its own (`IPPROTO_ICMP`, `SOCK_DGRAM`).
struct Pinger {
    socket: UdpSocket,
    to: IpAddr,
    sequence: u16,
}

impl Pinger {
    /// With this identifier; 0: any.
    fn with_id(ns: &NsHandle, to: impl Into<IpAddr>, id: u16) -> Self {
        let to = to.into();
        ns.set_sysctl("net/ipv4/ping_group_range", "0 2147483647")
            .expect("pings are allowed");
        let open = || -> io::Result<UdpSocket> {
            let (family, protocol, any): (_, _, IpAddr) = match to {
                IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, Ipv4Addr::UNSPECIFIED.into()),
                IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, Ipv6Addr::UNSPECIFIED.into()),
            };
            // SAFETY: no pointers.
            let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the kernel has just made it for us.
            let socket = unsafe { UdpSocket::from_raw_fd(fd) };
            if id != 0 {
                bind(&socket, SocketAddr::new(any, id))?;
            }
            socket.connect(SocketAddr::new(to, 0))?;
            socket.set_read_timeout(Some(TICK))?;
            Ok(socket)
        };
        Self {
            socket: ns.run(open).expect("entered").expect("a socket for pings"),
            to,
            sequence: 0,
        }
    }

    fn new(ns: &NsHandle, to: impl Into<IpAddr>) -> Self {
        Self::with_id(ns, to, 0)
    }

    /// Its identifier.
    fn id(&self) -> u16 {
        self.socket.local_addr().expect("an address").port()
    }

    /// Whether a question is answered, with what it said.
    fn ask(&mut self) -> bool {
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = [0xa5; LENGTH];
        let kind = if self.to.is_ipv4() { 8 } else { 128 };
        question[..8].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
        question[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        // Refused where a rule rejects.
        if self.socket.send(&question).is_err() {
            return false;
        }
        let mut answer = [0; LENGTH + 1];
        // What is left of earlier questions is no answer to this one.
        while let Ok(length) = self.socket.recv(&mut answer) {
            if answer[6..8] == question[6..8] {
                let id = u16::from_be_bytes([answer[4], answer[5]]);
                assert_eq!((length, id, &answer[8..LENGTH]), (LENGTH, self.id(), &question[8..]));
                return true;
            }
        }
        false
    }

    /// Asks until questions and answers take the fast path.
    fn warm(&mut self, lab: &Lab, what: &str) {
        let seen = cmd::poll(what, TIMEOUT, || {
            let before = lab.fast();
            let answered = (0..8).filter(|_| self.ask()).count();
            (answered == 8 && lab.fast() >= before + 16).then_some(())
        });
        assert!(seen.is_ok(), "{what} is not fast: {}", lab.told());
    }

    /// Asks until there is no answer; for how long there were some.
    fn until_silent(&mut self, what: &str) -> Duration {
        let begin = Instant::now();
        cmd::poll(what, TIMEOUT, || (!self.ask() && !self.ask()).then_some(())).expect("it stops");
        begin.elapsed()
    }

    fn until_answered(&mut self, what: &str) {
        cmd::poll(what, TIMEOUT, || self.ask().then_some(())).expect("an answer");
    }
}

/// Binds a socket that the standard library has not made.
fn bind(socket: &UdpSocket, to: SocketAddr) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::SockaddrStorage;
    let address = SockaddrStorage::from(to);
    nix::sys::socket::bind(socket.as_raw_fd(), &address).map_err(io::Error::from)
}

/// `ping` as it is.
fn busybox(lab: &Lab, from: &NsHandle, to: IpAddr) {
    const COUNT: u64 = 2000;
    let before = lab.fast();
    let said = from
        .sh(&format!("busybox ping -A -q -c {COUNT} -w 20 {to}"))
        .expect("answers");
    let fast = lab.fast() - before;
    // The first ones, those until the daemon has looked at the conntrack entry, and one a second.
    assert!(
        said.contains(" 0% packet loss") && fast > COUNT,
        "{fast} of {} are fast: {said}; {}",
        2 * COUNT,
        lab.told()
    );
}

#[test]
fn echo_is_fast_on_each_path() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let gateway = lab.topo.bridges[0].gateway;
    for (what, from, to) in [
        ("within a bridge", a.ns.handle(), b.ip),
        ("masqueraded", a.ns.handle(), LAN_IP),
        ("to the host", a.ns.handle(), gateway),
        ("from the host", lab.topo.host().handle(), a.ip),
    ] {
        Pinger::new(&from, to).warm(&lab, what);
        busybox(&lab, &from, to.into());
    }
    assert_eq!(lab.count(Reason::OtherProtocol), 0, "{}", lab.told());
}

#[test]
fn echo_of_ipv6_is_fast_on_each_path() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = six::lab(&["-t nat -A POSTROUTING -s fd00:30::/64 ! -o br-0 -j MASQUERADE"], None);
    let a = lab.topo.container(0, 0);
    for (what, from, to) in [
        ("within a bridge", a.ns.handle(), six::ip(0, Some(1))),
        ("between bridges", a.ns.handle(), six::ip(1, Some(0))),
        ("masqueraded", a.ns.handle(), LAN_IP6),
        ("to the host", a.ns.handle(), six::ip(0, None)),
        ("from the host", lab.topo.host().handle(), six::ip(0, Some(0))),
    ] {
        Pinger::new(&from, to).warm(&lab, what);
    }
}

/// Two containers that ask the same address with the same identifier: masquerading gives one of them another.
#[test]
fn an_identifier_that_is_taken_is_translated() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let [mut one, mut other] = [0, 1].map(|index| {
        let mut pinger = Pinger::with_id(&lab.topo.container(0, index).ns, LAN_IP, 4242);
        pinger.warm(&lab, "masqueraded");
        pinger
    });
    for _ in 0..100 {
        assert!(one.ask() || one.ask(), "no answer for the first");
        assert!(other.ask() || other.ask(), "no answer for the second");
    }
    let shown = lab.netfast.verb(&["flows"]).expect("flows");
    let of = |needle: &str| shown.lines().filter(|line| line.contains(needle)).count();
    assert!(of("request id 4242") >= 2 && of("reply id 4242") >= 2, "{shown}");
    let leaves: Vec<_> = shown
        .lines()
        .filter_map(|line| line.split("leaves as ").nth(1))
        .filter(|text| text.contains("request"))
        .collect();
    assert!(
        leaves.len() == 2 && leaves[0] != leaves[1],
        "one is translated: {shown}"
    );
}

/// What the daemon asks conntrack about is what it knows.
#[test]
fn conntrack_knows_echo_by_the_tuples_of_flows() {
    if !needs(&[Need::Root]) {
        return;
    }
    // So that there is conntrack for either family.
    let rule = "-I FORWARD -m conntrack --ctstate INVALID -j DROP";
    let lab = six::lab(&[rule], None);
    let a = lab.topo.container(0, 0);
    let ends: [(IpAddr, IpAddr, u8); 2] = [
        (a.ip.into(), lab.topo.container(1, 0).ip.into(), 1),
        (six::ip(0, Some(0)).into(), six::ip(1, Some(0)).into(), 58),
    ];
    lab.topo.host().sh(&format!("iptables -w {rule}")).expect("a rule");
    for (from, to, protocol) in ends {
        let host = lab.topo.host();
        let mut pinger = Pinger::new(&a.ns, to);
        pinger.until_answered("an answer");
        let id = pinger.id();
        let entry = |source, destination| {
            let tuple = Tuple {
                source,
                destination,
                protocol,
            };
            host.run(|| {
                let mut socket = NetlinkSocket::netfilter().expect("a socket");
                conntrack::entry(&mut socket, &tuple).expect("an answer")
            })
            .expect("entered")
        };
        assert_eq!(entry((from, id), (to, 0)), Entry::Plain, "{from}'s request");
        assert_eq!(entry((to, 0), (from, id)), Entry::Plain, "{to}'s reply");
        assert_eq!(entry((from, id ^ 1), (to, 0)), Entry::None, "another identifier");
        assert_eq!(entry((from, 0), (to, id)), Entry::None, "a reply that is none");
    }
}

/// A rule in mid-flow counts at once, long before a flow asks.
#[test]
fn a_rule_in_mid_flow_ends_echo() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), Some(SELDOM));
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let host = lab.topo.host();
    for (what, to, chain) in [("within a bridge", b.ip, "FORWARD"), ("masqueraded", LAN_IP, "FORWARD")] {
        for rule in [
            "-p icmp -j DROP",
            "-p icmp --icmp-type echo-request -j DROP",
            "-p icmp --icmp-type echo-reply -j DROP",
            "-p icmp -j REJECT",
        ] {
            let what = format!("{what}: {rule}");
            let mut pinger = Pinger::new(&a.ns, to);
            pinger.warm(&lab, &what);
            host.sh(&format!("iptables -w -I {chain} {rule}")).expect("a rule");
            let took = pinger.until_silent(&what);
            assert!(took < BOUND, "{what}: {took:?}");
            host.sh(&format!("iptables -w -D {chain} {rule}")).expect("no rule");
            pinger.until_answered(&what);
        }
    }
}

#[test]
fn a_rule_in_mid_flow_ends_echo_of_ipv6() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = six::lab(&[], Some(SELDOM));
    let a = lab.topo.container(0, 0);
    let host = lab.topo.host();
    for to in [six::ip(0, Some(1)), six::ip(1, Some(0))] {
        for rule in [
            "FORWARD -p icmpv6 --icmpv6-type echo-request -j DROP",
            "FORWARD -p icmpv6 --icmpv6-type echo-reply -j DROP",
        ] {
            let mut pinger = Pinger::new(&a.ns, to);
            pinger.warm(&lab, rule);
            host.sh(&format!("ip6tables -w -I {rule}")).expect("a rule");
            let took = pinger.until_silent(rule);
            assert!(took < BOUND, "{rule}: {took:?}");
            host.sh(&format!("ip6tables -w -D {rule}")).expect("no rule");
            pinger.until_answered(rule);
        }
    }
}

/// A limit on pings lets so many through as it says, and keeps nothing slow but them.
#[test]
fn a_limit_on_echo_counts_every_packet() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(&topology(), None);
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let host = lab.topo.host();
    let _echo = Echo::start(&b.ns, 7001);
    let socket = udp(&a.ns, 0, at(b.ip, 7001));
    until_answered(&socket, "the first answer");
    let mut pinger = Pinger::new(&a.ns, b.ip);
    for (tool, add, delete) in [
        (
            "iptables",
            "iptables -w -I FORWARD -p icmp --icmp-type echo-request -j DROP
             iptables -w -I FORWARD -p icmp -m limit --limit 1/hour --limit-burst 7 -j ACCEPT",
            "iptables -w -D FORWARD -p icmp --icmp-type echo-request -j DROP
             iptables -w -D FORWARD -p icmp -m limit --limit 1/hour --limit-burst 7 -j ACCEPT",
        ),
        (
            "nftables",
            "nft 'add table ip t; add chain ip t c { type filter hook forward priority -10; }
             add rule ip t c icmp type echo-request limit rate over 1/hour burst 7 packets drop'",
            "nft delete table ip t",
        ),
    ] {
        pinger.warm(&lab, tool);
        host.sh(add).expect("rules");
        // Netfast is told, and reads the rules.
        thread::sleep(Duration::from_millis(1500));
        let (fast, off) = (lab.fast(), lab.count(Reason::EchoOff));
        let answered = (0..15).filter(|_| pinger.ask()).count();
        assert!(answered <= 7, "{tool}: {answered} were let through");
        assert_eq!(lab.fast(), fast, "{tool}: each must be judged; {}", lab.told());
        assert!(lab.count(Reason::EchoOff) >= off + 15, "{tool}: {}", lab.told());
        warm(&lab, &socket);
        let checked = lab.netfast.verb(&["check", "--runtime", "none"]).expect("a report");
        assert!(
            checked.contains("it sees only ICMP, so ping stays slow"),
            "{tool}: {checked}"
        );
        host.sh(delete).expect("no rules");
        pinger.until_answered(tool);
    }
    pinger.warm(&lab, "without the rules");
}

/// Of requests that nobody answers each is one of a new conversation.
#[test]
fn echo_that_nobody_answers_stays_slow() {
    if !needs(&[Need::Root]) {
        return;
    }
    let lab = Lab::with(
        &topo::Options {
            bridges: vec![2],
            ..topology()
        },
        None,
    );
    let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
    let mut pinger = Pinger::new(&a.ns, b.ip);
    pinger.warm(&lab, "before");
    b.ns.set_sysctl("net/ipv4/icmp_echo_ignore_all", "1")
        .expect("no answers");
    let mut unanswered = Pinger::new(&a.ns, b.ip);
    let fast = lab.fast();
    for _ in 0..10 {
        assert!(!unanswered.ask());
    }
    assert_eq!(lab.fast(), fast, "{}", lab.told());
    assert!(lab.count(Reason::Unreplied) >= 9, "{}", lab.told());
    b.ns.set_sysctl("net/ipv4/icmp_echo_ignore_all", "0").expect("answers");
    unanswered.until_answered("an answer");
    unanswered.warm(&lab, "after");
}
