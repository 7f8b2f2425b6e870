//! A conversation between two stations, opened by hand and kept up by hand.

use std::{
    net::{SocketAddr, SocketAddrV4},
    thread,
    time::Duration,
};

use super::{
    describe::Frame,
    wire::{ACK, PSH, Packet, SYN, TCP, Transport},
    world::{Got, World},
};

/// How often a flow is tried before it must have been learned.
const TRIES: usize = 300;
/// Between two tries, once the first have failed: the daemon may still be at it.
const PAUSE: Duration = Duration::from_millis(20);

/// What keeps a conversation up; of TCP it is sent again and again as if it was lost. A bare acknowledgement would not
/// begin a flow.
const KEEP: &[u8] = b"keep";

/// The two ends; each sees the other under the addresses of its own side of any translation.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub protocol: u8,
    /// Station that began.
    pub client: String,
    /// Its address and port, and what it sends to.
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Station that answers.
    pub server: String,
    /// The client as the server sees it, and the server's own address and port.
    pub seen_from: SocketAddr,
    pub seen_to: SocketAddr,
    /// Next sequence numbers.
    pub client_seq: u32,
    pub server_seq: u32,
}

impl Conversation {
    /// Opens one from port `port` of `client` to `to`, which ends at `server`. Every packet is a step.
    pub fn open(
        world: &mut World,
        protocol: u8,
        client: &str,
        port: u16,
        to: impl Into<SocketAddr>,
        server: &str,
    ) -> Self {
        Self::open_by(world, protocol, client, port, to, server, |world, from, _, packet| {
            let got = world.exchange(&[(from, packet.clone())]);
            let lines = world.lines(&got);
            (got, lines)
        })
    }

    /// The same, with packets sent by `send` (from, to, packet), which returns what everybody got, and what to note.
    pub fn open_by(
        world: &mut World,
        protocol: u8,
        client: &str,
        port: u16,
        to: impl Into<SocketAddr>,
        server: &str,
        send: impl Fn(&mut World, &str, &str, &Packet) -> (Got, Vec<String>),
    ) -> Self {
        let from = SocketAddrV4::new(world.ip(client), port).into();
        let to = to.into();
        let mut this = Self {
            protocol,
            client: client.to_owned(),
            from,
            to,
            server: server.to_owned(),
            seen_from: from,
            seen_to: to,
            client_seq: 1_000_000,
            server_seq: 5_000_000,
        };
        let (got, lines) = send(world, client, server, &this.opening());
        let mut tuples = got[server].iter().filter_map(Frame::tuple);
        let Some(tuple) = tuples.find(|tuple| tuple.protocol == protocol) else {
            panic!("the first packet did not arrive at {server}: {lines:?}");
        };
        world.note("the first packet", lines);
        (this.seen_from, this.seen_to) = (tuple.source, tuple.destination);
        this.client_seq += 1;
        let answer = match protocol {
            TCP => this
                .back(b"")
                .with(|packet| set_tcp(packet, SYN | ACK, this.server_seq, this.client_seq, &[2, 4, 5, 0xb4])),
            _ => this.back(b"answer"),
        };
        let (_, lines) = send(world, server, client, &answer);
        world.note("the answer", lines);
        this.server_seq += 1;
        if protocol == TCP {
            let (_, lines) = send(world, client, server, &this.forward(b""));
            world.note("the handshake's end", lines);
        }
        this
    }

    /// The packet that begins it.
    pub fn opening(&self) -> Packet {
        if self.protocol == TCP {
            let mut packet = Packet::tcp(self.from, self.to, SYN, self.client_seq, 0);
            set_tcp(&mut packet, SYN, self.client_seq, 0, &[2, 4, 5, 0xb4]);
            return packet;
        }
        Packet::udp(self.from, self.to, b"hello")
    }

    /// An ordinary packet from the client; of TCP, the next in order.
    pub fn forward(&self, payload: &[u8]) -> Packet {
        self.packet(self.from, self.to, self.client_seq, self.server_seq, payload)
    }

    /// An ordinary packet from the server.
    pub fn back(&self, payload: &[u8]) -> Packet {
        self.packet(self.seen_to, self.seen_from, self.server_seq, self.client_seq, payload)
    }

    fn packet(&self, source: SocketAddr, destination: SocketAddr, seq: u32, ack: u32, payload: &[u8]) -> Packet {
        if self.protocol == TCP {
            let flags = if payload.is_empty() { ACK } else { ACK | PSH };
            return Packet::tcp(source, destination, flags, seq, ack).data(payload);
        }
        Packet::udp(source, destination, payload)
    }

    /// The client says something, and it is a step.
    pub fn say(&mut self, world: &mut World, title: &str, payload: &[u8]) {
        let packet = self.forward(payload);
        world.step(title, &[(&self.client, packet)]);
        self.client_seq += u32::try_from(payload.len()).expect("a length");
    }

    /// The server says something, and it is a step.
    pub fn answer(&mut self, world: &mut World, title: &str, payload: &[u8]) {
        let packet = self.back(payload);
        world.step(title, &[(&self.server, packet)]);
        self.server_seq += u32::try_from(payload.len()).expect("a length");
    }

    /// A packet each way; both must arrive. Whether each took the fast path.
    fn pair(&self, world: &mut World) -> (bool, bool) {
        let mut fast = [false; 2];
        let ways = [
            (&self.client, &self.server, self.forward(KEEP)),
            (&self.server, &self.client, self.back(KEEP)),
        ];
        for (way, (from, to, packet)) in ways.into_iter().enumerate() {
            let got = world.exchange(&[(from, packet)]);
            let arrived = got[to]
                .iter()
                .filter_map(Frame::tuple)
                .filter(|tuple| tuple.protocol == self.protocol)
                .count();
            assert_eq!(
                arrived,
                1,
                "a packet from {from} to {to} came {arrived} times ({}): {:?}",
                world.told(),
                world.lines(&got)
            );
            fast[way] = world.was_fast();
        }
        (fast[0], fast[1])
    }

    /// Packets both ways until, with netfast on, both directions take the fast path.
    pub fn warm(&self, world: &mut World) {
        if !world.is_on() {
            for _ in 0..3 {
                self.pair(world);
            }
            return;
        }
        let mut told = String::new();
        for number in 0..TRIES {
            if self.pair(world) == (true, true) {
                return;
            }
            told = world.told();
            if number > 6 {
                thread::sleep(PAUSE);
            }
        }
        panic!("the flow was not learned; the last packet was counted as {told}");
    }

    /// Packets both ways, none of which may take the fast path.
    pub fn stays_slow(&self, world: &mut World) {
        for _ in 0..12 {
            let fast = self.pair(world);
            assert_eq!(fast, (false, false), "a packet took the fast path");
        }
        assert_eq!(world.flows(), 0, "flows were learned");
    }
}

/// Changes the TCP header.
pub fn set_tcp(packet: &mut Packet, flags: u8, seq: u32, ack: u32, options: &[u8]) {
    packet.transport = Transport::Tcp {
        seq,
        ack,
        flags,
        options: options.to_vec(),
    };
}
