//! UDP between real sockets: what each end got from whom, and what the kernel says against it. Stations see the packets
//! that the sockets' own stacks make, so those are compared as well.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use netfast_tests::{
    netns::NsHandle,
    seeds::{family::Family, step::Datagrams},
};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

use super::{
    packets::bytes,
    play::Play,
    transfer::{Ends, once_free},
};

impl Play<'_> {
    /// Tries it where the conversation has got through. All is done by one thread, which knows when a packet has come to
    /// its end: nobody waits for what never comes.
    pub fn datagrams(&mut self, number: usize, plan: Datagrams) {
        let ends = match self.real_ends(number) {
            Ok(ends) => ends,
            Err(why) => return self.note(why.to_owned()),
        };
        let (server, client) = match sockets(&ends, plan) {
            Ok(sockets) => sockets,
            Err(error) => return self.note(format!("no socket: {error:#}")),
        };
        for round in 0..plan.rounds {
            let message = bytes(usize::from(plan.size) * usize::from(plan.segments) + usize::from(round));
            if let Err(error) = client.send(&message) {
                self.note(format!("the client cannot send: {error}"));
            }
            self.hear();
            let Some(peer) = self.take("server", &server, ends.port) else {
                continue;
            };
            if let Err(error) = server.send_to(&message, peer) {
                self.note(format!("the server cannot send: {error}"));
            }
            self.hear();
            self.take("client", &client, ends.from.port());
        }
    }

    /// Notes what a socket has got; from whom the last came.
    fn take(&mut self, who: &str, socket: &UdpSocket, port: u16) -> Option<SocketAddr> {
        let mut buffer = vec![0; 1 << 16];
        let mut last = None;
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let is_whole = buffer[..length] == bytes(length);
                    let words = if is_whole { "" } else { ", others than were sent" };
                    self.note(format!(
                        "{who}: from {} udp {}>{port} {length} bytes{words}",
                        from.ip(),
                        from.port()
                    ));
                    last = Some(from);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return last,
                // What an ICMP error has left there.
                Err(error) => self.note(format!("{who}: {error}")),
            }
        }
    }
}

/// Server and client.
fn sockets(ends: &Ends, plan: Datagrams) -> anyhow::Result<(UdpSocket, UdpSocket)> {
    let bound = |space: &NsHandle, at| space.run(|| once_free(|| UdpSocket::bind(at)));
    let any = Family::of(ends.to.ip()).unspecified();
    let server = bound(&ends.server, SocketAddr::new(any, ends.port))??;
    let client = bound(&ends.client, ends.from)??;
    client.connect(ends.to)?;
    for socket in [&server, &client] {
        socket.set_nonblocking(true)?;
        if plan.segments > 1 {
            setsockopt(socket, UdpGsoSegment, &i32::from(plan.size))?;
        }
    }
    Ok((server, client))
}
