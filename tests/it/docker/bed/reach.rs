//! Who reaches whom, and whether fast.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{netfast_proc::Totals, netns::NsHandle, traffic::udp};

use super::{Bed, TIMEOUT, run};

/// Whether a client reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By TCP and by UDP.
    Both,
    /// By TCP; UDP is not asked.
    Tcp,
    /// By neither.
    None,
}

/// Fails unless the client reaches the echo server as expected.
pub fn reaches(what: &str, client: &NsHandle, to: impl Into<SocketAddr>, reach: Reach) {
    let to = to.into();
    // Who must be reached may take its time; who must not has time enough.
    let expected = reach != Reach::None;
    let patience = Duration::from_millis(if expected { 10_000 } else { 700 });
    assert_eq!(connects(client, to, patience), expected, "{what}: {to} by TCP");
    if reach != Reach::Tcp {
        assert_eq!(echoes(client, to, patience), expected, "{what}: {to} by UDP");
    }
}

/// Whether a TCP connection can be made.
pub fn connects(client: &NsHandle, to: impl Into<SocketAddr>, patience: Duration) -> bool {
    let to = to.into();
    client
        .run(|| TcpStream::connect_timeout(&to, patience).is_ok())
        .expect("entered")
}

/// Whether a UDP echo server answers.
pub fn echoes(client: &NsHandle, to: impl Into<SocketAddr>, patience: Duration) -> bool {
    let to = to.into();
    let ask = || -> io::Result<bool> {
        let socket = udp::bind_for(to, 0)?;
        if socket.connect(to).is_err() {
            // No route to there.
            return Ok(false);
        }
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let end = Instant::now() + patience;
        while Instant::now() < end {
            let _refused = socket.send(b"are you there");
            match socket.recv(&mut [0; 64]) {
                Ok(_) => return Ok(true),
                // A refusal comes at once: do not spin on it.
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(false)
    };
    client.run(ask).expect("entered").expect("a socket")
}

/// Packets of a connection of which its opening and closing ones are a small part.
const ENOUGH: u64 = 300;
/// The part that must take the fast path.
const SHARE: f64 = 0.8;

/// An allowed path is fast, by TCP and by UDP; returns the packets of both.
pub fn is_fast(bed: &Bed, what: &str, client: &NsHandle, to: impl Into<SocketAddr>) -> Totals {
    let to = to.into().to_string();
    let mut all = Totals::default();
    for more in [&[][..], &["--udp"]] {
        // A connection's first and last packets stay slow; on a busy machine a short time is not enough for many others.
        let mut counted = None;
        for seconds in ["0.3", "2", "10"] {
            let line = [&["rr", &to, "--seconds", seconds], more].concat();
            let (done, now) = bed.count(|| run(client, &line).wait(TIMEOUT).expect("rr ends"));
            assert!(done.status.success(), "{what} {more:?}: {done:?}");
            println!("{what} {more:?}: {now}");
            counted = Some(now);
            if now.packets.fast_packets > ENOUGH && now.is_fast(SHARE) {
                break;
            }
        }
        let counted = counted.expect("it was tried");
        bed.must_be_fast(what, counted, SHARE);
        all = all.plus(counted.packets);
    }
    all
}
