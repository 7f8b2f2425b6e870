//! A script: clients that talk to virtual addresses, members that answer, and a daemon that changes who they are; made of
//! whatever bytes the fuzzer has.

use std::net::Ipv4Addr;

use arbitrary::Arbitrary;
use netfast_tests::{
    packet::{Mac, Packet, TCP, UDP, flag},
    scene::{BRIDGE_MAC, Dev},
};

use crate::script::{Edit, HostOdds, edited, steps};

/// Steps that are played of a script.
const MAX_STEPS: usize = 48;
/// Frames that a test run takes (`bpf_prog_test_run_skb`).
const SHORTEST: usize = 14;
const LONGEST: usize = 3000;
/// IANA protocol number.
pub const ICMP: u8 = 1;
/// The virtual addresses.
pub const VIPS: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(198, 18, 0, 3)];
/// Members that there may be; the first two are clients as well.
pub const MEMBERS: u8 = 5;
/// Clients: C is on another bridge.
pub const CLIENTS: [Dev; 3] = [Dev::A, Dev::B, Dev::C];

/// A client by its number.
pub fn client(number: u8) -> Dev {
    CLIENTS[usize::from(number) % CLIENTS.len()]
}

/// A member's addresses.
pub fn member(number: u8) -> (Ipv4Addr, Mac) {
    let last = number % MEMBERS + 2;
    (Ipv4Addr::new(172, 17, 0, last), [0x02, 0x42, 0xac, 0x11, 0, last])
}

/// What happens on the host.
#[derive(Clone, Debug)]
pub struct Script {
    /// In this order.
    pub steps: Vec<Step>,
}

impl Script {
    /// The script that bytes stand for; bytes that are left over mean nothing.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            steps: steps(bytes, MAX_STEPS),
        }
    }

    /// Without what a test run on the kernel cannot be told, and frames that it refuses.
    #[must_use]
    pub fn for_kernel(mut self) -> Self {
        for step in &mut self.steps {
            match step {
                Step::Ask(Ask { odds, .. }) | Step::Answer(Answer { odds, .. }) => odds.host = None,
                Step::Frame(_, _, frame, odds) => {
                    odds.host = None;
                    frame.resize(frame.len().clamp(SHORTEST, LONGEST), 0);
                }
                Step::Daemon(_) => {}
            }
        }
        self
    }
}

/// One thing that happens.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// A packet of a client.
    Ask(Ask),
    /// A packet to a client of who got one of its packets.
    Answer(Answer),
    /// Any bytes.
    Frame(Hook, u8, Vec<u8>, Odds),
    /// Something that the daemon does, or time.
    Daemon(Event),
}

/// A program.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// tcx ingress of a client's veth.
    In,
    /// tcx egress of a client's veth.
    Out,
}

/// What is not in a packet's bytes.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Odds {
    host: Option<(u8, HostOdds)>,
}

impl Odds {
    /// What only the faked kernel can be told: of one packet in eight that has a chance.
    pub fn host(&self) -> Option<HostOdds> {
        self.host.filter(|(chance, _)| chance % 8 == 1).map(|(_, odds)| odds)
    }
}

/// A packet of a client.
#[derive(Arbitrary, Clone, Debug)]
pub struct Ask {
    who: u8,
    to: To,
    port: u8,
    to_port: u8,
    what: What,
    edits: Option<Vec<Edit>>,
    /// The rest.
    pub odds: Odds,
}

/// Where to.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum To {
    Vip,
    OtherVip,
    Member(u8),
}

/// A packet to a client.
#[derive(Arbitrary, Clone, Debug)]
pub struct Answer {
    /// Of which of the known connections, the latest first.
    pub which: u8,
    what: What,
    /// An ICMP error comes from who stands between.
    is_routers: bool,
    edits: Option<Vec<Edit>>,
    /// The rest.
    pub odds: Odds,
}

/// What it is.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum What {
    Syn,
    SynAck,
    Data,
    Fin,
    Rst,
    Flags(u8),
    Datagram,
    Echo,
    EchoReply,
    /// An ICMP error of a type, about such a packet, of which so many bytes are quoted.
    Error(u8, Quoted, u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Quoted {
    Tcp,
    Udp,
    Bare,
    Echo,
    EchoReply,
}

/// What the daemon does, or time.
#[derive(Arbitrary, Clone, Debug)]
pub enum Event {
    /// These are the members of a service from now on, in turn; each is well, or by affinity.
    Members(bool, Vec<u8>, bool),
    /// Whether a member of a service may be given.
    Well(bool, u8, bool),
    /// A member of a service is no more.
    Gone(bool, u8),
    /// A slot of a service is missing.
    Slotless(bool, u8),
    /// A service is no more.
    NoService(bool),
    /// A service has no turn.
    NoTurn(bool),
    /// So many seconds.
    Pause(u8),
    /// A client's interface is not known any more, or is again.
    Device(u8, bool),
}

/// Two ends of a conversation: the client's, and the other.
#[derive(Clone, Copy, Debug)]
pub struct Between {
    /// Whose.
    pub who: Dev,
    /// Address and port.
    pub client: (Ipv4Addr, u16),
    /// Address and port.
    pub remote: (Ipv4Addr, u16),
    /// The remote's MAC address.
    pub mac: Mac,
}

impl Between {
    /// A packet of TCP or UDP.
    fn packet(&self, protocol: u8, is_back: bool) -> Packet {
        let (source, destination) = if is_back {
            (self.remote, self.client)
        } else {
            (self.client, self.remote)
        };
        let packet = if protocol == TCP {
            Packet::tcp(source, destination)
        } else {
            Packet::udp(source, destination)
        };
        let macs = (self.who.mac(), self.mac);
        let (to, from) = if is_back { macs } else { (macs.1, macs.0) };
        packet.macs(to, from)
    }

    fn icmp(&self, is_back: bool, head: [u8; 2], word: [u8; 4], payload: &[u8]) -> Packet {
        self.packet(UDP, is_back).with(|packet| {
            packet.protocol = ICMP;
            (packet.icmp_type, packet.icmp_word) = (Some(head), Some(word));
            packet.payload = payload.to_vec();
        })
    }

    fn echo(&self, kind: u8, is_back: bool) -> Packet {
        let [upper, lower] = self.client.1.to_be_bytes();
        self.icmp(is_back, [kind, 0], [upper, lower, 0, 1], b"echo")
    }

    fn what(&self, what: What, is_back: bool) -> Packet {
        let tcp = |flags: u8| {
            self.packet(TCP, is_back).with(|packet| {
                packet.flags = flags;
                if flags & (flag::SYN | flag::FIN | flag::RST) != 0 {
                    packet.payload.clear();
                }
            })
        };
        match what {
            What::Syn => tcp(flag::SYN),
            What::SynAck => tcp(flag::SYN | flag::ACK),
            What::Data => tcp(flag::ACK),
            What::Fin => tcp(flag::FIN | flag::ACK),
            What::Rst => tcp(flag::RST | flag::ACK),
            What::Flags(flags) => tcp(flags),
            What::Datagram => self.packet(UDP, is_back),
            What::Echo => self.echo(8, is_back),
            What::EchoReply => self.echo(0, is_back),
            What::Error(kind, quoted, length) => self.error(kind, quoted, length, is_back),
        }
    }

    /// An error about a packet of the other direction.
    fn error(&self, kind: u8, quoted: Quoted, length: u8, is_back: bool) -> Packet {
        let about = match quoted {
            Quoted::Tcp => self.packet(TCP, !is_back),
            Quoted::Udp => self.packet(UDP, !is_back),
            Quoted::Bare => self.packet(UDP, !is_back).with(|packet| packet.checksum = Some(0)),
            Quoted::Echo => self.echo(8, !is_back),
            Quoted::EchoReply => self.echo(0, !is_back),
        };
        let bytes = about.bytes();
        let end = (14 + 28 + usize::from(length)).min(bytes.len());
        // Mostly one of those that are errors.
        let kind = [3, 11, 12, kind][usize::from(kind % 4)];
        self.icmp(is_back, [kind, 3], [0; 4], &bytes[14..end])
    }
}

impl Ask {
    /// Who sends it.
    pub fn who(&self) -> Dev {
        client(self.who)
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let who = self.who();
        let (address, mac) = match self.to {
            To::Vip => (VIPS[0], BRIDGE_MAC),
            To::OtherVip => (VIPS[1], BRIDGE_MAC),
            To::Member(number) => member(number),
        };
        let between = Between {
            who,
            client: (who.address(), 4000 + u16::from(self.port % 4)),
            remote: (address, [80, 4000][usize::from(self.to_port % 8 == 1)]),
            mac,
        };
        edited(
            between.what(self.what, false),
            self.edits.as_deref().unwrap_or_default(),
        )
        .bytes()
    }
}

impl Answer {
    /// The frame.
    pub fn frame(&self, between: &Between) -> Vec<u8> {
        let mut packet = between.what(self.what, true);
        if self.is_routers && packet.protocol == ICMP {
            packet.source.0 = Ipv4Addr::new(172, 17, 0, 1);
        }
        edited(packet, self.edits.as_deref().unwrap_or_default()).bytes()
    }
}
