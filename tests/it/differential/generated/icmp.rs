//! ICMP about a conversation, and on its way.

use netfast_tests::seeds::step::{By, Icmp};

use super::{
    super::{describe::Frame, wire::Packet},
    play::Play,
    talks::Live,
};

impl Play<'_> {
    /// An ICMP error about a packet of the conversation, as the side that sends the error saw it.
    pub fn error(&mut self, number: usize, by: By, kind: Icmp) {
        let Live { raw, .. } = &self.live[number];
        if self.live[number].sender(by).is_none() {
            return;
        }
        let (about, from, to) = match by {
            By::Client => {
                let about = raw.back(b"about this").with(|packet| {
                    (packet.source, packet.destination) = (raw.to, raw.from);
                });
                (about, raw.from, raw.to)
            }
            By::Server => {
                let about = raw.forward(b"about this").with(|packet| {
                    (packet.source, packet.destination) = (raw.seen_from, raw.seen_to);
                });
                (about, raw.seen_to, raw.seen_from)
            }
        };
        let (kind, code, word) = match kind {
            Icmp::Port => (3, 3, [0; 4]),
            Icmp::TooBig(mtu) => (3, 4, [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]]),
            Icmp::Time => (11, 0, [0; 4]),
        };
        let mut quoted = about.ip_bytes();
        quoted.truncate(20 + 8 + 40);
        let error = Packet::icmp(*from.ip(), *to.ip(), kind, code, word, &quoted);
        self.say(number, by, vec![error]);
    }

    /// Echo requests to where the conversation goes, and replies by whoever got them.
    pub fn echo(&mut self, number: usize, times: u8) {
        let Live { talk, raw, .. } = self.live[number].clone();
        for count in 0..times {
            let word = [0, u8::try_from(number).expect("few"), 0, count];
            let request = Packet::icmp(*raw.from.ip(), *raw.to.ip(), 8, 0, word, b"ping");
            let got = self.say_from(talk.client, vec![request]);
            let Some(server) = self.live[number].server else {
                continue;
            };
            let request = got.get(&server).and_then(|frames| frames.iter().find_map(Frame::tuple));
            if let Some(tuple) = request {
                let reply = Packet::icmp(*tuple.destination.ip(), *tuple.source.ip(), 0, 0, word, b"ping");
                self.say_from(server, vec![reply]);
            }
        }
    }
}
