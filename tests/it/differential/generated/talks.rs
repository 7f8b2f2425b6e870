//! Conversations as a script keeps them up: by hand, with raw packets, or with the host's own sockets at one end.

use std::net::{IpAddr, SocketAddr};

use netfast_tests::seeds::{
    family::Family,
    names,
    odd::Odd,
    scenario::{CONTAINER_PORT, HOST_PORT, PUBLISHED_PORT, Place, Protocol, Scenario, Talk, Way},
    step::By,
};

use super::{
    super::{
        conversation::{Conversation, set_tcp},
        describe::{Frame, Tuple},
        wire::{ACK, FIN, Packet, RST, SYN, TCP, UDP},
    },
    arena::{Arena, Got, Sockets},
    packets,
    play::Play,
};

/// A conversation under way.
#[derive(Clone, Debug)]
pub struct Live {
    pub talk: Talk,
    pub raw: Conversation,
    /// Who answers; `None`: the host.
    pub server: Option<Place>,
    /// It got through.
    pub is_open: bool,
    /// Datagrams on the same way from a port of their own.
    lone: Conversation,
    /// Somebody has got one of them.
    is_lone_heard: bool,
    /// How often its ports were used.
    times: u32,
    /// It was reset, and not opened since.
    is_reset: bool,
}

impl Live {
    /// Before its first packet.
    pub fn new(scenario: &Scenario, number: usize) -> Self {
        let talk = scenario.talks[number];
        let from = SocketAddr::new(names::ip(talk.client, talk.family), talk.port);
        let (to, server, seen_to) = ends(scenario, &talk);
        let raw = Conversation {
            protocol: if talk.protocol == Protocol::Tcp { TCP } else { UDP },
            client: talk.client.name(),
            from,
            to,
            server: server.map_or_else(|| "host".to_owned(), Place::name),
            seen_from: from,
            seen_to,
            client_seq: 1_000_000,
            server_seq: 5_000_000,
        };
        let mut lone = raw.clone();
        lone.protocol = UDP;
        lone.from.set_port(talk.lone_port());
        Self {
            talk,
            raw,
            server,
            is_open: false,
            lone,
            is_lone_heard: false,
            times: 0,
            is_reset: false,
        }
    }

    fn is_tcp(&self) -> bool {
        self.talk.protocol == Protocol::Tcp
    }

    /// Who sends; `None`: the host.
    pub fn sender(&self, by: By) -> Option<Place> {
        match by {
            By::Client => Some(self.talk.client),
            By::Server => self.server,
        }
    }

    fn ordinary(&self, by: By, payload: &[u8]) -> Packet {
        match by {
            By::Client => self.raw.forward(payload),
            By::Server => self.raw.back(payload),
        }
    }

    fn with_flags(&self, by: By, flags: u8, options: &[u8]) -> Packet {
        let (seq, ack) = match by {
            By::Client => (self.raw.client_seq, self.raw.server_seq),
            By::Server => (self.raw.server_seq, self.raw.client_seq),
        };
        self.ordinary(by, b"")
            .with(|packet| set_tcp(packet, flags, seq, ack, options))
    }

    fn advance(&mut self, by: By, bytes: usize) {
        let sequence = match by {
            By::Client => &mut self.raw.client_seq,
            By::Server => &mut self.raw.server_seq,
        };
        *sequence = sequence.wrapping_add(u32::try_from(bytes).expect("a length"));
    }
}

/// What the client sends to, who gets it, and under which address.
fn ends(scenario: &Scenario, talk: &Talk) -> (SocketAddr, Option<Place>, SocketAddr) {
    let family = talk.family;
    match talk.way {
        Way::Direct(place) => {
            let to = SocketAddr::new(names::ip(place, family), talk.to_port);
            (to, Some(place), to)
        }
        Way::Behind => {
            let to = SocketAddr::new(names::behind(family), talk.to_port);
            (to, Some(Place::Outside(0)), to)
        }
        Way::Published(number, uplink) => {
            let (bridge, index) = scenario.base.published[number].container;
            let place = Place::Container(bridge, index);
            let number = u16::try_from(number).expect("few");
            (
                SocketAddr::new(names::uplink_ip(uplink, family), PUBLISHED_PORT + number),
                Some(place),
                SocketAddr::new(names::ip(place, family), CONTAINER_PORT + number),
            )
        }
        Way::Host => {
            let ip = match talk.client {
                Place::Container(bridge, _) => names::gateway(bridge, family),
                Place::Outside(uplink) => names::uplink_ip(uplink, family),
            };
            let to = SocketAddr::new(ip, HOST_PORT);
            (to, None, to)
        }
    }
}

/// TCP's option of a maximum segment size of 1460.
const MSS: [u8; 4] = [2, 4, 5, 0xb4];

impl Play<'_> {
    /// TCP's handshake, or a question and an answer.
    pub fn open(&mut self, number: usize) {
        let is_tcp = self.live[number].is_tcp();
        let opening = self.opening(number);
        let got = self.say(number, By::Client, vec![opening]);
        let arrived = self.arrival(number, &got);
        if arrived.is_none() && is_tcp && self.is_answered_for(number, &got) {
            return;
        }
        let Some((server, tuple)) = arrived else {
            self.live[number].is_open = false;
            return;
        };
        self.meet(number, server, tuple);
        self.accept(number);
    }

    fn opening(&self, number: usize) -> Packet {
        let live = &self.live[number];
        if live.is_tcp() {
            return live.with_flags(By::Client, SYN, &MSS).with(|packet| {
                set_tcp(packet, SYN, live.raw.client_seq, 0, &MSS);
            });
        }
        live.raw.opening()
    }

    /// Where the first packet has arrived, and under which addresses.
    fn arrival(&self, number: usize, got: &Got) -> Option<(Option<Place>, Tuple)> {
        self.arrival_of(number, &self.live[number].raw, got)
    }

    fn arrival_of(&self, number: usize, first: &Conversation, got: &Got) -> Option<(Option<Place>, Tuple)> {
        let live = &self.live[number];
        let is_first = |tuple: &Tuple| tuple.protocol == first.protocol && tuple.destination == first.seen_to;
        let places = match (live.talk.way, live.server) {
            (Way::Behind, _) => vec![Place::Outside(0), Place::Outside(1)],
            (_, Some(place)) => vec![place],
            (_, None) => Vec::new(),
        };
        let found = places.into_iter().find_map(|place| {
            let mut tuples = got.get(&place)?.iter().filter_map(Frame::tuple);
            Some((Some(place), tuples.find(|tuple| is_first(tuple))?))
        });
        found.or_else(|| {
            let caller = self
                .heard_by_host
                .filter(|caller| caller.is_ipv4() == first.from.is_ipv4())?;
            let tuple = Tuple {
                protocol: UDP,
                source: caller,
                destination: first.to,
            };
            live.server.is_none().then_some((None, tuple))
        })
    }

    fn meet(&mut self, number: usize, server: Option<Place>, tuple: Tuple) {
        let live = &mut self.live[number];
        live.server = server;
        live.is_open = true;
        live.raw.seen_from = tuple.source;
        live.raw.seen_to = tuple.destination;
        live.advance(By::Client, usize::from(live.is_tcp()));
    }

    /// The answer to the first packet, and what follows it.
    fn accept(&mut self, number: usize) {
        let live = &self.live[number];
        if live.is_tcp() {
            let answer = live.with_flags(By::Server, SYN | ACK, &MSS);
            let got = self.say(number, By::Server, vec![answer]);
            let before = self.live[number].raw.server_seq;
            self.advance_if_heard(number, By::Server, 1, &got);
            // What acknowledges nothing that was heard may be out of the windows of a connection that had these ports before.
            if self.part.scenario.shape.strict && self.live[number].raw.server_seq == before {
                return;
            }
            let end = self.live[number].with_flags(By::Client, ACK, &[]);
            self.say(number, By::Client, vec![end]);
        } else if live.server.is_some() {
            let answer = live.raw.back(b"answer");
            self.say(number, By::Server, vec![answer]);
        } else {
            self.host_answers(number, b"answer");
        }
    }

    /// Whether somebody on the way has answered the SYN for the server, as SYNPROXY does; then the handshake goes on
    /// with that.
    fn is_answered_for(&mut self, number: usize, got: &Got) -> bool {
        let live = &self.live[number];
        let frames = got.get(&live.talk.client);
        let Some((seq, ack)) = frames.and_then(|frames| frames.iter().find_map(Frame::syn_ack)) else {
            return false;
        };
        if ack != live.raw.client_seq.wrapping_add(1) {
            return false;
        }
        // conntrack has not seen the SYN, and takes what follows for out of the windows of the connection that had these ports
        // before: unless netfast has carried that, see `Shape::strict`.
        if self.part.scenario.shape.strict && live.times > 0 {
            return true;
        }
        self.note_cookie(seq);
        let live = &mut self.live[number];
        live.advance(By::Client, 1);
        live.raw.server_seq = seq.wrapping_add(1);
        let end = live.with_flags(By::Client, ACK, &[]);
        let got = self.say(number, By::Client, vec![end]);
        let Some((server, tuple)) = self.arrival(number, &got) else {
            return true;
        };
        // Now the proxy opens the server's half, with the client's number.
        let live = &mut self.live[number];
        let towards_client = live.raw.server_seq;
        live.server = server;
        live.is_open = true;
        (live.raw.seen_from, live.raw.seen_to) = (tuple.source, tuple.destination);
        live.raw.server_seq = 5_000_000;
        let answer = live.with_flags(By::Server, SYN | ACK, &MSS);
        self.say(number, By::Server, vec![answer]);
        // From here on the two sides have numbers of their own, which the proxy translates; those that the client
        // acknowledges are the proxy's.
        self.live[number].raw.server_seq = towards_client;
        true
    }

    /// What is lost will be sent again, and nobody acknowledges what he did not get: conntrack may judge windows.
    fn advance_if_heard(&mut self, number: usize, by: By, bytes: usize, got: &Got) {
        let live = &mut self.live[number];
        let listener = match by {
            By::Client => live.server,
            By::Server => Some(live.talk.client),
        };
        let frames = listener.and_then(|place| got.get(&place));
        let mut tuples = frames.into_iter().flatten().filter_map(Frame::tuple);
        if tuples.any(|tuple| tuple.protocol == live.raw.protocol) {
            live.advance(by, bytes);
        }
    }

    /// First packets, which nobody answers.
    pub fn knock(&mut self, number: usize, times: u8) {
        for _ in 0..times {
            let opening = self.opening(number);
            self.say(number, By::Client, vec![opening]);
        }
    }

    /// Datagrams that nobody answers.
    pub fn lone(&mut self, number: usize, times: u8) {
        let client = self.live[number].talk.client;
        for count in 0..times {
            let packet = self.live[number].lone.forward(&packets::bytes(20 + usize::from(count)));
            self.heard_by_host = None;
            let got = self.say_from(client, vec![packet]);
            let lone = self.live[number].lone.clone();
            if let Some((_, tuple)) = self.arrival_of(number, &lone, &got) {
                let live = &mut self.live[number];
                (live.lone.seen_from, live.lone.seen_to) = (tuple.source, tuple.destination);
                live.is_lone_heard = true;
            }
        }
    }

    /// Whoever has got the last of them answers.
    pub fn late_answer(&mut self, number: usize) {
        let live = &self.live[number];
        if !live.is_lone_heard {
            return;
        }
        match live.server {
            Some(place) => {
                let packet = live.lone.back(b"late");
                self.say_from(place, vec![packet]);
            }
            None => self.host_says(live.lone.seen_from, b"late"),
        }
    }

    /// A packet each way, so many times.
    pub fn exchange(&mut self, number: usize, times: u8) {
        for round in 0..times {
            let payload = packets::bytes(40 + usize::from(round));
            for by in [By::Client, By::Server] {
                let live = &mut self.live[number];
                if live.is_tcp() && !live.is_open {
                    let port = live.talk.port;
                    self.note_loose(port);
                }
                let live = &mut self.live[number];
                if by == By::Server && live.server.is_none() {
                    self.host_answers(number, &payload);
                    continue;
                }
                let packet = live.ordinary(by, &payload);
                let got = self.say(number, by, vec![packet]);
                self.advance_if_heard(number, by, payload.len(), &got);
            }
        }
    }

    /// Packets that nobody answers.
    pub fn one_way(&mut self, number: usize, by: By, times: u8) {
        for _ in 0..times {
            self.send_odd(number, by, Odd::Plain(30));
        }
    }

    /// An odd packet.
    pub fn send_odd(&mut self, number: usize, by: By, odd: Odd) {
        if self.live[number].sender(by).is_none() {
            return;
        }
        let packet = self.live[number].ordinary(by, b"an odd packet of 32 bytes, or so");
        // By another way than before conntrack forgets a masqueraded connection.
        let goes_astray = matches!(
            odd,
            Odd::WrongMac(_) | Odd::StrangeMac | Odd::BroadcastMac | Odd::MulticastMac | Odd::SpoofedMac(_)
        );
        if self.live[number].is_tcp() && (!self.live[number].is_open || goes_astray) {
            self.note_loose(self.live[number].talk.port);
        }
        let made = packets::make(packet, odd);
        let is_in_order = matches!(
            odd,
            Odd::Plain(_) | Odd::NoDf | Odd::Ecn(_) | Odd::Gso { .. } | Odd::Ftp(..)
        );
        let bytes = made[0].payload.len();
        let got = self.say_spoilt(number, by, made, odd);
        if is_in_order {
            self.advance_if_heard(number, by, bytes, &got);
        }
    }

    /// FIN, as far as the protocol has one.
    pub fn finish(&mut self, number: usize, by: By) {
        if self.live[number].is_reset {
            // No TCP does, and conntrack, which may still call it established (see `compare`), would take it for the beginning
            // of an orderly close, upon which the ports are free again.
            self.note("reset: nobody closes it".to_owned());
        } else if self.live[number].is_tcp() {
            let packet = self.live[number].with_flags(by, FIN | ACK, &[]);
            let got = self.say(number, by, vec![packet]);
            self.advance_if_heard(number, by, 1, &got);
        }
    }

    /// A bare acknowledgement.
    pub fn acknowledge(&mut self, number: usize, by: By) {
        if self.live[number].is_tcp() {
            let packet = self.live[number].with_flags(by, ACK, &[]);
            self.say(number, by, vec![packet]);
        }
    }

    /// RST.
    pub fn reset(&mut self, number: usize, by: By) {
        if self.live[number].is_tcp() {
            let packet = self.live[number].with_flags(by, RST | ACK, &[]);
            self.say(number, by, vec![packet]);
            self.live[number].is_reset = true;
            self.note_reset(self.live[number].talk.port);
        }
    }

    /// The same ports again.
    pub fn reopen(&mut self, number: usize) {
        let client = self.live[number].talk.client;
        if !self.arena.stations.contains_key(&client) {
            // Without its SYN nobody answers by the new sequence numbers.
            self.note(format!("{} is gone", client.name()));
            return;
        }
        let live = &mut self.live[number];
        live.times += 1;
        let before = (live.raw.client_seq, live.raw.server_seq);
        let server_begin = 5_000_000_u32.wrapping_add(live.times.wrapping_mul(700_000_000));
        live.raw.client_seq = 1_000_000_u32.wrapping_add(live.times.wrapping_mul(900_000_000));
        live.raw.server_seq = server_begin;
        self.open(number);
        let live = &mut self.live[number];
        live.is_reset &= !live.is_open;
        if self.part.scenario.shape.strict && live.is_tcp() && live.raw.server_seq == server_begin {
            // It was not opened: what follows is of the old one, and in its windows. If the server's answer was lost behind
            // conntrack, that has begun new ones by it, and what it calls the connection depends on whether it judges by them.
            (live.raw.client_seq, live.raw.server_seq) = before;
            let port = live.talk.port;
            self.note_reset(port);
        }
    }

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
    fn host_answers(&mut self, number: usize, payload: &[u8]) {
        let to = self.live[number].raw.seen_from;
        if !self.live[number].is_open {
            return;
        }
        self.host_says(to, payload);
    }

    fn host_says(&mut self, to: SocketAddr, payload: &[u8]) {
        let Sockets { listener, .. } = &self.arena.sockets[&Family::of(to.ip())];
        if let Err(error) = listener.send_to(payload, to) {
            self.note(format!("the host cannot answer: {error}"));
        }
        self.hear();
    }

    /// Packets of a conversation, each after the other.
    pub fn say(&mut self, number: usize, by: By, packets: Vec<Packet>) -> Got {
        self.say_spoilt(number, by, packets, Odd::Plain(0))
    }

    fn say_spoilt(&mut self, number: usize, by: By, packets: Vec<Packet>, odd: Odd) -> Got {
        match self.live[number].sender(by) {
            Some(place) => self.say_all(place, packets, odd),
            None => Got::new(),
        }
    }

    pub fn say_from(&mut self, place: Place, packets: Vec<Packet>) -> Got {
        self.say_all(place, packets, Odd::Plain(0))
    }
}

/// Neighbours on one bridge talk directly.
pub fn next_hop(arena: &Arena, from: Place, to: IpAddr) -> Option<[u8; 6]> {
    let family = Family::of(to);
    let own = names::ip(from, family);
    let mut others = arena.stations.iter();
    let found = others.find(|(place, _)| {
        let ip = names::ip(**place, family);
        (ip == to || names::link_local(ip) == to) && names::are_neighbours(ip, own)
    });
    found.map(|(_, station)| station.mac)
}
