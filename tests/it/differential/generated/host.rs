//! What the host itself says, by sockets of its own.

use std::net::SocketAddr;

use netfast_tests::seeds::{family::Family, names, scenario::Place};

use super::{
    super::{describe::Frame, wire::Packet},
    arena::Sockets,
    play::Play,
};

impl Play<'_> {
    /// The host sends to a container by a socket of its own, and the container answers.
    pub fn host_talk(&mut self, place: Place, times: u8, family: Family) {
        let to = SocketAddr::new(names::ip(place, family), 7200);
        for count in 0..times {
            let text = [b'h', b'0' + count];
            let sent = self.arena.sockets[&family].caller.send_to(&text, to);
            if let Err(error) = sent {
                self.note(format!("the host cannot send: {error}"));
            }
            let got = self.hear();
            let asked = got.get(&place).and_then(|frames| frames.iter().find_map(Frame::tuple));
            if let Some(tuple) = asked {
                let answer = Packet::udp(tuple.destination, tuple.source, &text);
                self.say_from(place, vec![answer]);
            }
        }
    }

    /// The host's listener answers.
    pub(super) fn host_answers(&mut self, number: usize, payload: &[u8]) {
        let to = self.live[number].raw.seen_from;
        if !self.live[number].is_open {
            return;
        }
        self.host_says(to, payload);
    }

    pub(super) fn host_says(&mut self, to: SocketAddr, payload: &[u8]) {
        let Sockets { listener, .. } = &self.arena.sockets[&Family::of(to.ip())];
        if let Err(error) = listener.send_to(payload, to) {
            self.note(format!("the host cannot answer: {error}"));
        }
        self.hear();
    }
}
