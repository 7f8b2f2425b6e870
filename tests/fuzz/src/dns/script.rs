//! A script: aliases that come, change and go, and messages of the resolver, made of whatever bytes the fuzzer has. Close to
//! what a resolver says, so that random bytes get as far as a changed answer, and free to say anything else.

use std::{iter, net::Ipv4Addr};

use arbitrary::Arbitrary;
use netfast_common::{
    alias::{Alias, AliasKey, NAME, RecordType, address4, address6, digest, part},
    net::{AnyIp, Ip4, Ip6},
};
use netfast_tests::packet::{Packet, flag};

use crate::script::steps;

/// Steps that are played of a script.
const MAX_STEPS: usize = 12;
/// Members that an alias of a script may have: more than an alias can have.
const MAX_MEMBERS: u8 = 70;
/// Frames that a test run takes (`bpf_prog_test_run_skb`).
const LONGEST: usize = 3000;
/// The virtual addresses.
pub const VIP: [u8; 4] = [198, 18, 0, 2];
/// As above, of IPv6.
pub const VIP6: [u8; 16] = [0xfd, 0, 0x4e, 0x46, 0, 0, 0, 0, 0, 0, 0, 0, 198, 18, 0, 2];
/// Docker's resolver.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// Labels of aliases' names: the last but one is as long as a key, and the last longer.
const NAMES: [&[usize]; 4] = [&[3], &[3, 6], &[63, 28, 1], &[63, 28, 2]];
/// A record without options (RFC 6891).
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// What happens in a container's namespace.
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
            if let Step::Sent(sent) = step {
                sent.odds = Odds::default();
            }
        }
        self.steps.retain(|step| match step {
            Step::Sent(sent) => (14..=LONGEST).contains(&sent.frame().len()),
            Step::Known(_) => true,
        });
        self
    }
}

/// One thing that happens.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// The daemon learns of an alias.
    Known(Known),
    /// A packet of the resolver.
    Sent(Sent),
}

/// One alias in one family.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Which {
    name: u8,
    is_six: bool,
}

impl Which {
    /// By the number of its name.
    pub fn of(name: u8, is_six: bool) -> Self {
        Self { name, is_six }
    }

    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..u8::try_from(NAMES.len()).expect("few")).flat_map(|name| [false, true].map(|is_six| Self::of(name, is_six)))
    }

    /// Its name as on the wire.
    fn name(self) -> Vec<u8> {
        let labels = NAMES[usize::from(self.name) % NAMES.len()].iter().enumerate();
        let label = |(number, length): (usize, &usize)| {
            let letter = b'a' + u8::try_from(number).expect("few");
            iter::once(u8::try_from(*length).expect("short")).chain(iter::repeat_n(letter, *length))
        };
        labels.flat_map(label).chain([0]).collect()
    }

    fn record_type(self) -> RecordType {
        if self.is_six { RecordType::Aaaa } else { RecordType::A }
    }

    /// Key of its turn.
    pub fn id(self) -> u64 {
        10 + 2 * (u64::from(self.name) % NAMES.len() as u64) + u64::from(self.is_six)
    }

    /// What it is looked up by; `None` if its name is too long for a key.
    pub fn key(self, addresses: impl IntoIterator<Item = Vec<u8>>) -> Option<AliasKey> {
        let mut name = [0; NAME as usize];
        // The root's zero is not of the key, but there is room for it.
        let wire = self.name();
        name.get_mut(..wire.len())?.copy_from_slice(&wire);
        let parts = addresses.into_iter().map(|address| part(number(&address)));
        Some(AliasKey {
            digest: digest(parts.fold(0, u64::wrapping_add)),
            record_type: self.record_type() as u32,
            reserved: 0,
            name,
        })
    }

    /// A member's address.
    fn address(self, member: u8) -> Vec<u8> {
        // Not in the order of their numbers, and of IPv6 in either half.
        let mixed = member.wrapping_mul(37);
        if self.is_six {
            let mut address = vec![0xfd; 16];
            (address[7], address[15]) = (mixed & 3, member);
            address
        } else {
            vec![172, 18, mixed, member]
        }
    }
}

/// An address in the form in which addresses are compared.
pub fn number(address: &[u8]) -> [u64; 2] {
    address.try_into().map_or_else(
        |_| address6(address.try_into().expect("16 bytes")),
        |four: [u8; 4]| address4(four),
    )
}

/// An alias as the daemon writes it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Known {
    /// Which.
    pub which: Which,
    members: u8,
    eligible: u64,
    ttl: u16,
    gives: Gives,
    /// Not all that belongs to it is there.
    lack: Lack,
}

/// What an answer gives.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Members,
    One,
    Vip,
    Vip6,
}

/// What may be missing while the daemon works, or wrong.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Nothing,
    NothingEither,
    Turn,
    Members,
    Counts,
    All,
}

impl Known {
    /// The members' addresses.
    pub fn addresses(&self) -> Vec<Vec<u8>> {
        (0..self.members % MAX_MEMBERS)
            .map(|member| self.which.address(member))
            .collect()
    }

    /// What the map says; `None`: it is gone.
    pub fn alias(&self) -> Option<Alias> {
        let members = u32::from(self.members % MAX_MEMBERS);
        (self.lack != Lack::All).then(|| Alias {
            id: self.which.id(),
            eligible: self.eligible,
            members: if self.lack == Lack::Members {
                members + 1
            } else {
                members
            },
            ttl: self.ttl.into(),
            vip: match self.gives {
                Gives::Members | Gives::One => AnyIp::default(),
                Gives::Vip => AnyIp::v4(Ip4::from_bytes(VIP)),
                Gives::Vip6 => AnyIp::v6(Ip6::from_bytes(VIP6)),
            },
            flags: if self.gives == Gives::One { Alias::ONE } else { 0 },
            reserved: 0,
        })
    }

    /// Whether it has a turn.
    pub fn has_turn(&self) -> bool {
        self.lack != Lack::Turn
    }

    /// Whether answers that name its members first are counted.
    pub fn has_counts(&self) -> bool {
        self.lack != Lack::Counts
    }
}

/// A packet of the resolver.
#[derive(Arbitrary, Clone, Debug)]
pub struct Sent {
    message: Message,
    is_tcp: bool,
    edits: Option<Vec<Edit>>,
    /// What a test run cannot be told.
    pub odds: Odds,
}

/// What of a packet only the faked kernel can be told.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Odds {
    /// Bytes that are readable without pulling.
    pub linear: Option<u8>,
    /// The checksum is left to the device, as on a loopback interface; else it is there.
    pub is_partial: bool,
    /// One of 16: the kernel has no memory.
    no_memory: u8,
}

impl Odds {
    /// The kernel has no memory.
    pub fn no_memory(self) -> bool {
        self.no_memory % 16 == 1
    }
}

/// A message.
#[derive(Arbitrary, Clone, Debug)]
enum Message {
    Answer(Answer),
    Edited(Answer, Vec<MessageEdit>),
    Bytes(Vec<u8>),
}

/// An answer as a resolver writes it.
#[derive(Arbitrary, Clone, Debug)]
struct Answer {
    id: u16,
    which: Which,
    /// Which letters of the question's name are capitals.
    capitals: u16,
    /// The same of records' names.
    record_capitals: u16,
    is_compressed: bool,
    members: Choice,
    order: u32,
    ttl: u32,
    behind: Behind,
}

/// Which addresses.
#[derive(Arbitrary, Clone, Debug)]
enum Choice {
    /// Those of the first so many members.
    First(u8),
    /// The same, and one of them twice.
    Twice(u8, u8),
    /// Any.
    Any(Vec<u8>),
}

/// What follows the answers.
#[derive(Arbitrary, Clone, Debug)]
enum Behind {
    Nothing,
    Opt,
    Zeros(u8),
}

/// How a message differs from a good one.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum MessageEdit {
    Byte(u16, u8),
    Cut(u16),
    Answers(u16),
    Longer(u16),
}

/// How a packet differs from a good one.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Edit {
    Byte(u16, u8),
    Source([u8; 4]),
    Port(u16),
    Checksum(u16),
    UdpLength(u16),
    Prefix(u16),
    TcpOptions(u8),
    IpOptions(u8),
    Trailer(u8),
    Fragment(u16),
    Cut(u16),
}

impl Answer {
    fn bytes(&self) -> Vec<u8> {
        let cased = |capitals: u16| -> Vec<u8> {
            let mut name = self.which.name();
            for (place, byte) in name.iter_mut().enumerate() {
                if capitals >> (place % 16) & 1 == 1 {
                    byte.make_ascii_uppercase();
                }
            }
            name
        };
        let mut members: Vec<u8> = match &self.members {
            Choice::First(count) => (0..*count % 110).collect(),
            Choice::Twice(count, which) => (0..*count % 66).chain([*which]).collect(),
            Choice::Any(members) => members.clone(),
        };
        members.sort_by_key(|member| {
            u32::from(*member)
                .wrapping_mul(self.order | 1)
                .wrapping_mul(0x9e37_79b9)
        });
        let fixed = [0, self.which.record_type() as u8, 0, 1];
        let count = u16::try_from(members.len()).unwrap_or(u16::MAX);
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend([0x81, 0x80, 0, 1]);
        bytes.extend(count.to_be_bytes());
        bytes.extend([0, 0, 0, u8::from(matches!(self.behind, Behind::Opt))]);
        bytes.extend(cased(self.capitals));
        bytes.extend(fixed);
        for member in members {
            let data = self.which.address(member);
            if self.is_compressed {
                bytes.extend([0xc0, 12]);
            } else {
                bytes.extend(cased(self.record_capitals.rotate_left(member.into())));
            }
            bytes.extend(fixed);
            bytes.extend(self.ttl.to_be_bytes());
            bytes.extend([0, if self.which.is_six { 16 } else { 4 }]);
            bytes.extend(data);
        }
        match self.behind {
            Behind::Nothing => {}
            Behind::Opt => bytes.extend(OPT),
            Behind::Zeros(count) => bytes.resize(bytes.len() + usize::from(count), 0),
        }
        bytes
    }
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let (answer, edits) = match self {
            Self::Bytes(bytes) => return bytes.clone(),
            Self::Answer(answer) => (answer, &[][..]),
            Self::Edited(answer, edits) => (answer, &edits[..]),
        };
        let mut bytes = answer.bytes();
        for edit in edits {
            let length = bytes.len().max(1);
            match *edit {
                MessageEdit::Byte(place, value) => {
                    if let Some(byte) = bytes.get_mut(usize::from(place) % length) {
                        *byte = value;
                    }
                }
                MessageEdit::Cut(to) => bytes.truncate(usize::from(to) % length),
                MessageEdit::Answers(count) => {
                    if let Some(field) = bytes.get_mut(6..8) {
                        field.copy_from_slice(&count.to_be_bytes());
                    }
                }
                MessageEdit::Longer(by) => bytes.resize(length + usize::from(by) % 2300, 0),
            }
        }
        bytes
    }
}

impl Sent {
    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let message = self.message.bytes();
        let client = (Ipv4Addr::LOCALHOST, 40000);
        let mut packet = if self.is_tcp {
            let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
            let payload = [&length.to_be_bytes()[..], &message].concat();
            Packet::tcp(RESOLVER, client).with(|packet| packet.payload = payload)
        } else {
            Packet::udp(RESOLVER, client).with(|packet| packet.payload = message)
        };
        packet = packet.macs([0; 6], [0; 6]).with(|packet| packet.flags = flag::ACK);
        let (mut cut, mut bytes) = (None, Vec::new());
        for edit in self.edits.iter().flatten() {
            match *edit {
                Edit::Byte(place, value) => bytes.push((usize::from(place), value)),
                Edit::Source(address) => packet.source.0 = address.into(),
                Edit::Port(port) => packet.source.1 = port,
                Edit::Checksum(checksum) => packet.checksum = Some(checksum),
                Edit::UdpLength(length) => packet.udp_length = Some(length),
                Edit::Prefix(length) => {
                    if let Some(prefix) = packet.payload.get_mut(..2).filter(|_| self.is_tcp) {
                        prefix.copy_from_slice(&length.to_be_bytes());
                    }
                }
                Edit::TcpOptions(words) => packet.tcp_options = vec![1; usize::from(words % 11) * 4],
                Edit::IpOptions(words) => packet.ip_options = vec![1; usize::from(words % 11) * 4],
                Edit::Trailer(length) => packet.trailer = vec![0; length.into()],
                Edit::Fragment(fragment) => packet.fragment = fragment,
                Edit::Cut(length) => cut = Some(usize::from(length)),
            }
        }
        if self.odds.is_partial {
            packet.checksum = Some(super::model::partial_checksum(&packet.bytes()).unwrap_or(0));
        }
        let mut frame = packet.bytes();
        for (place, value) in bytes {
            let length = frame.len();
            frame[place % length] = value;
        }
        frame.truncate(cut.unwrap_or(usize::MAX));
        frame
    }
}

/// An alias, and an answer that gives its members.
#[cfg(test)]
pub fn known_and_sent(bytes: &[u8]) -> Script {
    let mut from = arbitrary::Unstructured::new(bytes);
    let mut make = || -> arbitrary::Result<_> {
        let known = Known {
            which: Which::of(0, from.arbitrary()?),
            members: from.int_in_range(2..=9)?,
            eligible: from.arbitrary()?,
            ttl: 0,
            gives: from.arbitrary()?,
            lack: Lack::Nothing,
        };
        let answer = Answer {
            id: 7,
            which: known.which,
            capitals: from.arbitrary()?,
            record_capitals: 0,
            is_compressed: from.arbitrary()?,
            members: Choice::First(known.members),
            order: from.arbitrary()?,
            ttl: 600,
            behind: Behind::Opt,
        };
        let sent = Sent {
            message: Message::Answer(answer),
            is_tcp: from.arbitrary()?,
            edits: None,
            odds: Odds::default(),
        };
        Ok(vec![Step::Known(known), Step::Sent(sent)])
    };
    Script {
        steps: make().expect("enough bytes"),
    }
}
