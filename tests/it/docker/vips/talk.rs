//! Connections that stay.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddrV4, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use netfast_tests::netns::NsHandle;

use super::LIMIT;

/// A connection that is asked again and again.
pub struct Talk(TcpStream);

impl Talk {
    pub fn start(client: &NsHandle, to: SocketAddrV4) -> Self {
        let stream = client
            .run(|| TcpStream::connect_timeout(&to.into(), LIMIT))
            .expect("entered");
        let stream = stream.expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        let mut talk = Self(stream);
        talk.ask(20);
        talk
    }

    /// Asks a hundred times a second until it is told to stop.
    pub fn ask_until(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.ask(1);
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn ask(&mut self, times: usize) {
        for _ in 0..times {
            self.0.write_all(b"are you there?").expect("sent");
            self.0.read_exact(&mut [0; 14]).expect("an answer");
        }
    }
}
