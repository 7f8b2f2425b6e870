//! ICMP about a conversation, and on its way.

use netfast_tests::seeds::{
    family::Family,
    step::{By, Icmp},
};

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
        let family = about.family();
        let (kind, code, word) = error_of(family, kind);
        let mut quoted = about.ip_bytes();
        quoted.truncate(family.header() + 8 + 40);
        let error = Packet::icmp(from.ip(), to.ip(), kind, code, word, &quoted);
        self.say(number, by, vec![error]);
    }

    /// Echo requests to where the conversation goes, and replies by whoever got them.
    pub fn echo(&mut self, number: usize, times: u8) {
        let Live { talk, raw, .. } = self.live[number].clone();
        let (request_type, reply_type) = match talk.family {
            Family::V4 => (8, 0),
            Family::V6 => (128, 129),
        };
        for count in 0..times {
            let word = [0, u8::try_from(number).expect("few"), 0, count];
            let request = Packet::icmp(raw.from.ip(), raw.to.ip(), request_type, 0, word, b"ping");
            let got = self.say_from(talk.client, vec![request]);
            let Some(server) = self.live[number].server else {
                continue;
            };
            let request = got.get(&server).and_then(|frames| frames.iter().find_map(Frame::tuple));
            if let Some(tuple) = request {
                let reply = Packet::icmp(tuple.destination.ip(), tuple.source.ip(), reply_type, 0, word, b"ping");
                self.say_from(server, vec![reply]);
            }
        }
    }
}

/// Type, code and second word (RFC 792, RFC 4443).
fn error_of(family: Family, kind: Icmp) -> (u8, u8, [u8; 4]) {
    match (family, kind) {
        (Family::V4, Icmp::Port) => (3, 3, [0; 4]),
        (Family::V4, Icmp::TooBig(mtu)) => (3, 4, u32::from(mtu).to_be_bytes()),
        (Family::V4, Icmp::Time) => (11, 0, [0; 4]),
        (Family::V6, Icmp::Port) => (1, 4, [0; 4]),
        (Family::V6, Icmp::TooBig(mtu)) => (2, 0, u32::from(mtu).to_be_bytes()),
        (Family::V6, Icmp::Time) => (3, 0, [0; 4]),
    }
}
