//! Docker's resolver: its ports, by the kernel itself. Which packets get which: `netfast-ebpf/src/resolver`.

use std::{io, os::fd::AsRawFd as _};

use etherparse::PacketBuilder;
use netfast_common::{net::Port, resolver::Ports};

use super::harness::{Context, Hook, Lab};

const RESOLVER: [u8; 4] = [127, 0, 0, 11];
const CLIENT: [u8; 4] = [127, 0, 0, 1];
const UDP_PORT: u16 = 37_874;
const TCP_PORT: u16 = 45_169;
const PORTS: Ports = Ports {
    udp: Port::new(UDP_PORT),
    tcp: Port::new(TCP_PORT),
};
/// Verdict: on to the next program.
const NEXT: i32 = -1;

impl Hook {
    /// Whether this kernel takes its program: one asks for its namespace (Linux 6.15).
    pub fn is_here(self) -> bool {
        self != Self::Resolver || netfast_tests::require::kernel_version().0 >= (6, 15)
    }
}

/// What the kernel calls the calling thread's namespace.
fn cookie() -> u64 {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let (mut cookie, mut length) = (0_u64, 8);
    // SAFETY: a place of that length.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert_eq!(code, 0, "{}", io::Error::last_os_error());
    cookie
}

fn frame(from: ([u8; 4], u16), to: ([u8; 4], u16), tcp: bool) -> Vec<u8> {
    let step = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4(from.0, to.0, 64);
    let mut frame = Vec::new();
    let payload = [1, 2, 3, 4, 5, 6, 7];
    if tcp {
        step.tcp(from.1, to.1, 1, 1000).ack(2).write(&mut frame, &payload)
    } else {
        step.udp(from.1, to.1).write(&mut frame, &payload)
    }
    .expect("a vector takes all");
    frame
}

/// An error about a datagram that could not be delivered.
fn unreachable(quoted: &[u8]) -> Vec<u8> {
    let port = etherparse::icmpv4::DestUnreachableHeader::Port;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([0; 6], [0; 6])
        .ipv4(RESOLVER, CLIENT, 64)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(port))
        .write(&mut frame, &quoted[14..])
        .expect("a vector takes all");
    frame
}

/// Has the program know its own namespace.
fn known(body: impl FnOnce(&mut Lab, &dyn Fn(&mut Lab, &[u8]) -> Vec<u8>) + Send) {
    if !Hook::Resolver.is_here() {
        return;
    }
    Lab::run(|lab| {
        lab.reset();
        lab.resolvers.insert(cookie(), PORTS, 0).expect("an entry");
        body(lab, &|lab, frame| {
            let done = lab.test_run(Hook::Resolver, Context::default(), frame);
            assert_eq!(done.verdict, NEXT);
            done.packet
        });
        lab.resolvers.remove(&cookie()).expect("it is there");
    });
}

#[test]
fn what_is_of_others_or_of_docker_s_rules_passes_as_it_was() {
    known(|lab, pass| {
        for (tcp, port, other) in [(false, UDP_PORT, TCP_PORT), (true, TCP_PORT, UDP_PORT)] {
            for (from, to) in [
                ((CLIENT, 40_000), (RESOLVER, port)),
                ((RESOLVER, 53), (CLIENT, 40_000)),
                ((RESOLVER, 40_000), (CLIENT, 53)),
                ((CLIENT, port), (RESOLVER, 80)),
                ((RESOLVER, other), (CLIENT, 40_000)),
                ((CLIENT, 40_000), (RESOLVER, 80)),
                ((CLIENT, 40_000), (CLIENT, 53)),
            ] {
                let frame = frame(from, to, tcp);
                assert_eq!(pass(lab, &frame), frame, "{from:?} to {to:?}, TCP: {tcp}");
            }
        }
    });
}

#[test]
fn an_error_about_a_question_names_the_port_that_was_asked() {
    known(|lab, pass| {
        let error = unreachable(&frame((CLIENT, 40_000), (RESOLVER, UDP_PORT), false));
        let done = pass(lab, &error);
        assert_eq!(done[64..66], [0, 53]);
        let sum = done[34..].chunks(2).fold(0, |sum: u32, two| {
            sum + u32::from(u16::from_be_bytes([two[0], *two.get(1).unwrap_or(&0)]))
        });
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the message's checksum is right");
        for (to, tcp) in [
            ((RESOLVER, 80), false),
            ((CLIENT, UDP_PORT), false),
            ((RESOLVER, UDP_PORT), true),
        ] {
            let error = unreachable(&frame((CLIENT, 40_000), to, tcp));
            assert_eq!(pass(lab, &error), error, "{to:?}, TCP: {tcp}");
        }
    });
}

#[test]
fn the_kernel_runs_it_in_the_namespace_that_it_knows_and_in_no_other() {
    if !Hook::Resolver.is_here() {
        return;
    }
    Lab::run(|lab| {
        lab.reset();
        let own = cookie();
        let pass = |lab: &mut Lab, frame: &[u8]| {
            let done = lab.test_run(Hook::Resolver, Context::default(), frame);
            assert_eq!(done.verdict, NEXT);
            done.packet
        };
        for (known, is_own) in [(own + 1, false), (own, true)] {
            lab.resolvers.insert(known, PORTS, 0).expect("an entry");
            for (tcp, port) in [(false, UDP_PORT), (true, TCP_PORT)] {
                let asked = frame((CLIENT, 40_000), (RESOLVER, 53), tcp);
                let there = frame((CLIENT, 40_000), (RESOLVER, port), tcp);
                let answered = frame((RESOLVER, port), (CLIENT, 40_000), tcp);
                let back = frame((RESOLVER, 53), (CLIENT, 40_000), tcp);
                assert_eq!(pass(lab, &asked), if is_own { there } else { asked.clone() });
                assert_eq!(pass(lab, &answered), if is_own { back } else { answered.clone() });
            }
        }
        lab.resolvers.remove(&own).expect("it is there");
    });
}
