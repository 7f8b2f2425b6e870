//! Whatever judges packets goes on judging them: attached before a flow or in the middle of it, by the packet or by the
//! flow, at every place between the sockets.

mod by_flow;
mod by_packet;
mod direct;
mod flooding;
pub mod program;
mod recovery;

use std::{
    any::Any,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd,
    netns::NsHandle,
    site::{HOST_IP, LAN_IP},
};

use self::program::UNWANTED;
use super::lab::{Echo, Lab, TICK, at, udp, until_answered, warm};

/// Promised is a second, and at once for what is announced; the rest is for a busy machine.
const BOUND: Duration = Duration::from_millis(2500);
/// More than the usual interval at which flows ask the kernel again.
const SILENCE: Duration = Duration::from_millis(1300);
/// Within this, what is polled for has been looked at.
const LOOK: Duration = Duration::from_millis(1500);
/// Asks the kernel so seldom that only the daemon can have noticed within [`BOUND`].
const SELDOM: &str = "revalidate_ms = 10000\n";
/// What programs let through.
const WANTED: u8 = b'q';

/// A way through the topology, to container 0 unless it leads out.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// From its neighbour on the bridge.
    Bridge,
    /// From the outside, by its published port.
    Published,
    /// From the host.
    Host,
    /// From it to the outside.
    Out,
}

impl Way {
    /// A server at its end, and a client at its begin.
    fn open(self, lab: &Lab, port: u16) -> (Echo, UdpSocket) {
        let (a, b) = (lab.topo.container(0, 0), lab.topo.container(0, 1));
        let (server, from, to) = match self {
            Self::Bridge => (Echo::start(&a.ns, 7001), b.ns.handle(), at(a.ip, 7001)),
            Self::Published => (Echo::start(&a.ns, 7001), lab.topo.lan().handle(), at(HOST_IP, 7000)),
            Self::Host => (Echo::start(&a.ns, 7001), lab.topo.host().handle(), at(a.ip, 7001)),
            Self::Out => (Echo::start(lab.topo.lan(), 7002), a.ns.handle(), at(LAN_IP, 7002)),
        };
        (server, udp(&from, port, to))
    }
}

/// Keeps what judges, until it is dropped.
type Held = Box<dyn Any>;

/// A command that takes away what another has made.
struct Undo(NsHandle, String);

impl Drop for Undo {
    fn drop(&mut self) {
        if let Err(error) = self.0.sh(&self.1) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a shell line in the host, and another when the judge goes.
fn held(lab: &Lab, on: &str, off: &str) -> Undo {
    let host = lab.topo.host().handle();
    host.sh(on).unwrap_or_else(|error| panic!("{error:#}"));
    Undo(host, off.to_owned())
}

/// Sends a question with this first byte, and says which one was answered, if any was.
fn ask_with(socket: &UdpSocket, first: u8) -> Option<u8> {
    let mut bytes = [b'.'; 64];
    bytes[0] = first;
    // Refused where nobody listens any more.
    let _refused = socket.send(&bytes);
    let received = socket.recv(&mut bytes);
    received.is_ok().then(|| bytes[0])
}

/// Asks all the time, and says how long after `begin` the last answer came: what comes later than that is too late, or
/// comes when the kernel is asked anew, within [`SILENCE`].
fn last_answer(socket: &UdpSocket, first: u8, begin: Instant) -> Duration {
    socket
        .set_read_timeout(Some(Duration::from_millis(10)))
        .expect("an option");
    let mut last = Duration::ZERO;
    while begin.elapsed() < last.min(BOUND) + SILENCE {
        if ask_with(socket, first) == Some(first) {
            last = begin.elapsed();
        }
        thread::sleep(Duration::from_millis(3));
    }
    socket.set_read_timeout(Some(TICK)).expect("an option");
    last
}

/// Sends unwanted and wanted questions in turn for a while: none of the former is answered, the latter are.
fn judges_on(socket: &UdpSocket, what: &str) {
    let (begin, mut answered, mut asked) = (Instant::now(), 0, 0);
    let mut bytes = [b'.'; 64];
    bytes[0] = UNWANTED;
    while begin.elapsed() < SILENCE {
        socket.send(&bytes).expect("sent");
        asked += 1;
        match ask_with(socket, WANTED) {
            Some(WANTED) => answered += 1,
            Some(_) => panic!("{what}: passed by at question {asked}"),
            None => {}
        }
        thread::sleep(Duration::from_millis(3));
    }
    assert!(
        answered * 10 > asked * 9 && asked > 20,
        "{what}: {answered} of {asked} wanted ones"
    );
}

/// A program or filter that drops what begins with [`UNWANTED`] is attached while a flow is on the fast path, and stays
/// while another begins.
fn judged(way: Way, attach: impl FnOnce(&Lab) -> Held) {
    let lab = Lab::start();
    let (echo, socket) = way.open(&lab, 40_100);
    until_answered(&socket, "the first answer");
    warm(&lab, &socket);
    assert_eq!(ask_with(&socket, UNWANTED), Some(UNWANTED), "nobody judges yet");
    let held = attach(&lab);
    let last = last_answer(&socket, UNWANTED, Instant::now());
    assert!(last < BOUND, "{way:?}: passed by for {last:?}\n{}", lab.netfast.log());
    judges_on(&socket, "in mid-flow");
    drop(echo);
    let (_echo, later) = way.open(&lab, 40_101);
    until_answered(&later, "an answer to what is wanted");
    judges_on(&later, "before the flow");
    drop(held);
    until_unjudged(&lab, &later);
}

/// The flow is answered again, and back on the fast path.
fn until_unjudged(lab: &Lab, socket: &UdpSocket) {
    until_answered(socket, "an answer without the judge");
    warm(lab, socket);
    // The kernel lets go of a program a moment after its last descriptor.
    cmd::poll("nobody judges any more", Duration::from_secs(10), || {
        (ask_with(socket, UNWANTED) == Some(UNWANTED)).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}"));
}
