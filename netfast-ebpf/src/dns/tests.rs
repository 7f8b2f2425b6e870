use std::collections::BTreeSet;

use etherparse::PacketBuilder;
use netfast_common::alias::{MEMBERS, NAME, RecordType, address4, address6, part};
use proptest::prelude::*;

use super::*;
use crate::ctx::{Ctx as _, fake::FakeSkb};

/// An address as the answer's data.
type Data = Vec<u8>;

/// An answer as a resolver writes it.
#[derive(Clone, Debug)]
struct Answer {
    name: &'static [&'static str],
    record_type: RecordType,
    addresses: Vec<Data>,
    /// Names are written as a pointer to the question.
    compressed: bool,
    /// What follows the answers: an OPT record, for example.
    behind: Vec<u8>,
}

/// An OPT record without options (RFC 6891).
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

impl Answer {
    fn of(addresses: &[[u8; 4]]) -> Self {
        Self {
            name: &["web"],
            record_type: RecordType::A,
            addresses: addresses.iter().map(|ip| ip.to_vec()).collect(),
            compressed: false,
            behind: Vec::new(),
        }
    }

    fn name(&self) -> Vec<u8> {
        let labels = self.name.iter().flat_map(|label| {
            let length = u8::try_from(label.len()).expect("short");
            std::iter::once(length).chain(label.bytes())
        });
        labels.chain([0]).collect()
    }

    fn bytes(&self, order: &[usize], ttl: u32) -> Vec<u8> {
        let half = |number: usize| u16::try_from(number).expect("few").to_be_bytes();
        let mut bytes = vec![0x12, 0x34, 0x81, 0x80, 0, 1];
        bytes.extend(half(order.len()));
        bytes.extend([0, 0]);
        bytes.extend(half(usize::from(!self.behind.is_empty())));
        bytes.extend(self.name());
        bytes.extend([0, self.record_type as u8, 0, 1]);
        for index in order {
            let data = &self.addresses[*index];
            if self.compressed {
                bytes.extend([0xc0, 12]);
            } else {
                bytes.extend(self.name());
            }
            bytes.extend([0, self.record_type as u8, 0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend(half(data.len()));
            bytes.extend(data);
        }
        bytes.extend(&self.behind);
        bytes
    }

    /// As the resolver sends it.
    fn sent(&self) -> Vec<u8> {
        let all: Vec<usize> = (0..self.addresses.len()).collect();
        self.bytes(&all, 600)
    }

    /// Indexes in ascending order of the addresses.
    fn ascending(&self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.addresses.len()).collect();
        all.sort_by(|a, b| self.addresses[*a].cmp(&self.addresses[*b]));
        all
    }

    fn alias(&self, eligible: u64) -> Alias {
        Alias {
            id: 7,
            eligible,
            members: self.addresses.len().try_into().expect("few"),
            ttl: 0,
            ..Alias::default()
        }
    }
}

fn scratch(bytes: &[u8]) -> Box<Scratch> {
    // SAFETY: numbers only, for which zero is valid.
    let mut scratch: Box<Scratch> = Box::new(unsafe { std::mem::zeroed() });
    // What an earlier message left there.
    scratch.message.fill(0xa5);
    scratch.message[..bytes.len()].copy_from_slice(bytes);
    scratch.length = bytes.len().try_into().expect("short");
    scratch
}

fn buffer(scratch: &mut Scratch) -> Buffer {
    // SAFETY: each test uses its own, and no reference while a step runs.
    unsafe { Buffer::new(&raw mut *scratch) }
}

fn nobody() -> FakeSkb {
    FakeSkb::new(&[0; 14])
}

fn reading(bytes: &[u8]) -> Result<Box<Scratch>, Verdict> {
    let mut scratch = scratch(bytes);
    read(&nobody(), buffer(&mut scratch))?;
    Ok(scratch)
}

/// The message that becomes of a message.
fn rotated(bytes: &[u8], alias: &Alias, turn: u64, may_shorten: bool) -> Result<Vec<u8>, Verdict> {
    let mut scratch = reading(bytes)?;
    scratch.alias = *alias;
    rotate(&nobody(), buffer(&mut scratch), turn, may_shorten)?;
    Ok(scratch.message[..scratch.length as usize].to_vec())
}

#[test]
fn each_turn_has_the_next_first() {
    let answer = Answer::of(&[[172, 18, 0, 4], [172, 18, 0, 2], [172, 18, 0, 3]]);
    for (turn, order) in [
        (0, [1, 2, 0]),
        (1, [2, 0, 1]),
        (2, [0, 1, 2]),
        (3, [1, 2, 0]),
        (u64::MAX, [1, 2, 0]),
    ] {
        let now = rotated(&answer.sent(), &answer.alias(u64::MAX), turn, true);
        assert_eq!(now, Ok(answer.bytes(&order, 0)), "turn {turn}");
    }
}

#[test]
fn the_key_is_the_name_in_lower_case_and_the_set() {
    let mut answer = Answer::of(&[[10, 0, 0, 9], [10, 0, 0, 1]]);
    answer.name = &["WeB", "my_Net"];
    let scratch = reading(&answer.sent()).expect("an answer");
    assert_eq!(&scratch.key.name[..12], b"\x03web\x06my_net\0");
    assert_eq!(scratch.key.record_type, 1);
    let sum = part(address4([10, 0, 0, 1])).wrapping_add(part(address4([10, 0, 0, 9])));
    assert_eq!(scratch.key.digest, digest(sum));

    let (a, b) = ([0xfd; 16], [0xfe; 16]);
    let answer = Answer {
        record_type: RecordType::Aaaa,
        addresses: vec![a.to_vec(), b.to_vec()],
        ..answer
    };
    let scratch = reading(&answer.sent()).expect("an answer");
    assert_eq!(scratch.key.record_type, 28);
    let sum = part(address6(a)).wrapping_add(part(address6(b)));
    assert_eq!(scratch.key.digest, digest(sum));
}

#[test]
fn who_is_not_well_is_left_out_or_comes_last() {
    let mut answer = Answer::of(&[[10, 0, 0, 3], [10, 0, 0, 2], [10, 0, 0, 4]]);
    for behind in [Vec::new(), OPT.to_vec()] {
        answer.behind = behind;
        // Not the one in the middle.
        let alias = answer.alias(0b101);
        assert_eq!(rotated(&answer.sent(), &alias, 0, true), Ok(answer.bytes(&[1, 2], 0)));
        assert_eq!(rotated(&answer.sent(), &alias, 1, true), Ok(answer.bytes(&[2, 1], 0)));
        assert_eq!(
            rotated(&answer.sent(), &alias, 1, false),
            Ok(answer.bytes(&[2, 1, 0], 0))
        );
        // Nobody is: then all are given.
        assert_eq!(
            rotated(&answer.sent(), &answer.alias(0), 0, true),
            Ok(answer.bytes(&[1, 0, 2], 0))
        );
    }
    answer.behind = vec![0; 65];
    let alias = answer.alias(0b101);
    assert_eq!(
        rotated(&answer.sent(), &alias, 0, true),
        Ok(answer.bytes(&[1, 2, 0], 0)),
        "too much to move"
    );
}

#[test]
fn what_is_odd_is_left_alone() {
    let good = Answer::of(&[[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]]);
    let after_name = 12 + 5;
    let first = after_name + 4;
    let edit = |place: usize, bytes: &[u8]| {
        let mut message = good.sent();
        message[place..place + bytes.len()].copy_from_slice(bytes);
        reading(&message).map(drop)
    };
    assert!(reading(&good.sent()).is_ok());
    for (place, bytes, verdict) in [
        (2, &[0x01][..], Verdict::NotAnswer),
        (2, &[0x89], Verdict::NotAnswer),
        (4, &[0, 2], Verdict::NotAnswer),
        (4, &[0, 0], Verdict::NotAnswer),
        (2, &[0x83], Verdict::Truncated),
        (3, &[0x83], Verdict::Refused),
        (6, &[0, 0], Verdict::Few),
        (6, &[0, 65], Verdict::TooMany),
        (6, &[1, 3], Verdict::TooMany),
        (6, &[0, 4], Verdict::OddRecord),
        (12, &[0xc0, 12], Verdict::OddName),
        (12, &[64], Verdict::OddName),
        (after_name, &[0, 5], Verdict::OtherQuestion),
        (after_name + 2, &[0, 3], Verdict::OtherQuestion),
        // The whole name is one label, which leads out of the message.
        (12, &[63], Verdict::OddName),
        (first, &[3, b'w', b'e', b'x'], Verdict::OddRecord),
        (first, &[0xc0, 13], Verdict::OddRecord),
        (first, &[0xc0, 0xff], Verdict::OddRecord),
        // A CNAME, another class, another length.
        (first + 5, &[0, 5], Verdict::OddRecord),
        (first + 7, &[0, 3], Verdict::OddRecord),
        (first + 13, &[0, 5], Verdict::OddRecord),
    ] {
        assert_eq!(edit(place, bytes), Err(verdict), "{place} {bytes:?}");
    }
    // One name compressed, the others not.
    let compressed = Answer {
        compressed: true,
        ..good.clone()
    };
    let mut mixed = good.bytes(&[0], 600);
    mixed[7] = 2;
    mixed.extend(&compressed.bytes(&[1], 600)[first..]);
    assert_eq!(reading(&mixed).map(drop), Err(Verdict::OddRecord));
    // Twice the same.
    let double = Answer::of(&[[10, 0, 0, 1], [10, 0, 0, 1], [10, 0, 0, 2]]);
    assert_eq!(
        rotated(&double.sent(), &double.alias(u64::MAX), 0, true),
        Err(Verdict::OtherSet)
    );
    // Another number than the alias has.
    assert_eq!(
        rotated(
            &good.sent(),
            &Alias {
                members: 2,
                ..good.alias(u64::MAX)
            },
            0,
            true
        ),
        Err(Verdict::OtherSet)
    );
}

#[test]
fn a_name_that_does_not_fit_is_left_alone() {
    let label = "a23456789012345678901234567890123456789012345678901234567890123";
    assert_eq!(label.len(), 63);
    let mut answer = Answer::of(&[[10, 0, 0, 1], [10, 0, 0, 2]]);
    answer.name = Vec::leak(vec![label, "a234567890123456789012345678901"]);
    assert_eq!(answer.name().len(), NAME as usize + 1);
    assert_eq!(reading(&answer.sent()).map(drop), Err(Verdict::OddName));
    answer.name = Vec::leak(vec![label, "a23456789012345678901234567890"]);
    assert_eq!(
        rotated(&answer.sent(), &answer.alias(3), 1, true),
        Ok(answer.bytes(&[1, 0], 0))
    );
}

#[test]
fn a_hundred_records_are_left_alone() {
    let addresses: Vec<[u8; 4]> = (0..100).map(|last| [10, 0, 0, last]).collect();
    assert_eq!(reading(&Answer::of(&addresses).sent()).map(drop), Err(Verdict::TooMany));
    let most = Answer::of(&addresses[..MEMBERS as usize]);
    let order: Vec<usize> = (63..64).chain(0..63).collect();
    assert_eq!(
        rotated(&most.sent(), &most.alias(u64::MAX), 63, true),
        Ok(most.bytes(&order, 0))
    );
}

/// A frame of the resolver.
fn frame(message: &[u8], tcp: bool, to: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4([127, 0, 0, 11], [127, 0, 0, 1], 64);
    let mut bytes = Vec::new();
    if tcp {
        let length = u16::try_from(message.len()).expect("short");
        let payload = [&length.to_be_bytes()[..], message].concat();
        builder.tcp(53, to, 1, 512).ack(2).psh().write(&mut bytes, &payload)
    } else {
        builder.udp(53, to).write(&mut bytes, message)
    }
    .expect("a vector takes all");
    bytes
}

/// What becomes of a frame whose alias is this one.
fn passed(skb: &FakeSkb, alias: &Alias, turn: u64) -> Verdict {
    let place = match find(skb) {
        Ok(place) => place.expect("a message"),
        Err(verdict) => return verdict,
    };
    let mut scratch = scratch(&[]);
    let buffer = buffer(&mut scratch);
    let change = || {
        assert!(buffer.with(|scratch| skb.load_some(place.offset, place.length, &mut scratch.message)));
        buffer.with(|scratch| scratch.length = place.length);
        read(skb, buffer)?;
        let old_sum = skb.dns_step(Step::Sum, buffer);
        buffer.with(|scratch| scratch.alias = *alias);
        rotate(skb, buffer, turn, place.packet.network.protocol == UDP)?;
        let new_sum = skb.dns_step(Step::Sum, buffer);
        Ok(rewrite::Message {
            offset: place.offset,
            old_length: place.length,
            new_length: buffer.with(|scratch| scratch.length),
            old_sum,
            new_sum,
        })
    };
    match change() {
        Ok(message) => {
            let done = buffer.with(|scratch| rewrite::message(skb, &place.packet, &message, &scratch.message));
            if done { Verdict::Rotated } else { Verdict::Unwritable }
        }
        Err(verdict) => verdict,
    }
}

#[test]
fn the_packet_is_as_if_sent_so() {
    let mut answer = Answer::of(&[[10, 0, 0, 3], [10, 0, 0, 2], [10, 0, 0, 4]]);
    // Of odd and of even length, and with an odd number of bytes moved.
    for (name, behind) in [
        (&["web"][..], Vec::new()),
        (&["ab"], OPT.to_vec()),
        (&["web"], OPT.to_vec()),
    ] {
        (answer.name, answer.behind) = (name, behind);
        for (tcp, eligible, order) in [
            (false, 7, &[0, 2, 1][..]),
            (true, 7, &[0, 2, 1]),
            (false, 0b110, &[2, 0]),
            (true, 0b110, &[2, 0, 1]),
        ] {
            let skb = FakeSkb::new(&frame(&answer.sent(), tcp, 4000));
            assert_eq!(passed(&skb, &answer.alias(eligible), 1), Verdict::Rotated);
            let expected = frame(&answer.bytes(order, 0), tcp, 4000);
            assert_eq!(skb.bytes(), expected, "{name:?} {tcp} {eligible:b}");
        }
    }
    // Without memory nothing is changed.
    let mut skb = FakeSkb::new(&frame(&answer.sent(), false, 4000));
    skb.no_memory = true;
    assert_eq!(passed(&skb, &answer.alias(6), 1), Verdict::Unwritable);
    assert_eq!(skb.bytes(), frame(&answer.sent(), false, 4000));
}

#[test]
fn what_is_no_whole_message_is_left_alone() {
    let answer = Answer::of(&[[10, 0, 0, 3], [10, 0, 0, 2]]);
    let found = |frame: &[u8]| find(&FakeSkb::new(frame)).map(|place| place.map(|place| place.length));
    let length = u32::try_from(answer.sent().len()).expect("short");
    assert_eq!(found(&frame(&answer.sent(), false, 4000)), Ok(Some(length)));
    assert_eq!(found(&frame(&answer.sent(), true, 4000)), Ok(Some(length)));
    let mut part = frame(&answer.sent(), true, 4000);
    part[14 + 20 + 20 + 1] += 1;
    assert_eq!(found(&part), Err(Verdict::TooLong));
    assert_eq!(
        found(&frame(&[0; MESSAGE as usize], false, 4000)),
        Err(Verdict::TooLong)
    );
    assert_eq!(found(&frame(&[], false, 4000)), Err(Verdict::TooLong));
    let mut bare = Vec::new();
    PacketBuilder::ethernet2([0; 6], [0; 6])
        .ipv4([127, 0, 0, 11], [127, 0, 0, 1], 64)
        .tcp(53, 4000, 1, 512)
        .ack(2)
        .write(&mut bare, &[])
        .expect("a vector takes all");
    assert_eq!(found(&bare), Ok(None));
    let mut other = frame(&answer.sent(), false, 4000);
    other[14 + 20 + 1] = 54;
    assert_eq!(found(&other), Err(Verdict::NotMessage));
    assert!(parse::is_from(&FakeSkb::new(&bare), ADDRESS));
    bare[14 + 15] = 12;
    assert!(!parse::is_from(&FakeSkb::new(&bare), ADDRESS));
}

/// Bytes behind a datagram, in the IP packet still, are of no message: its length field could not be written anew.
#[test]
fn a_datagram_that_does_not_fill_its_packet_is_left_alone() {
    let mut frame = frame(&Answer::of(&[[10, 0, 0, 3], [10, 0, 0, 2]]).sent(), false, 4000);
    frame[39] -= 1;
    assert_eq!(find(&FakeSkb::new(&frame)).map(drop), Err(Verdict::NotMessage));
}

/// Answers with distinct addresses.
fn answers() -> impl Strategy<Value = Answer> {
    let names: [&'static [&'static str]; 4] = [&["web"], &["Web", "my_net"], &["a"], &["x-1", "shop", "example"]];
    let addresses = prop::collection::btree_set(any::<[u8; 16]>(), 2..=MEMBERS as usize);
    (
        prop::sample::select(names.to_vec()),
        any::<(bool, bool, bool)>(),
        addresses,
        any::<u64>(),
    )
        .prop_map(|(name, (v6, compressed, opt), set, seed)| {
            let length = if v6 { 16 } else { 4 };
            let cut: BTreeSet<Data> = set.into_iter().map(|bytes| bytes[..length].to_vec()).collect();
            let mut addresses: Vec<Data> = cut.into_iter().collect();
            let turn = usize::try_from(seed % 61).expect("small") % addresses.len();
            addresses.rotate_left(turn);
            if seed % 2 == 0 {
                addresses.reverse();
            }
            Answer {
                name,
                record_type: if v6 { RecordType::Aaaa } else { RecordType::A },
                addresses,
                compressed,
                behind: if opt { OPT.to_vec() } else { Vec::new() },
            }
        })
}

proptest! {
    #[test]
    fn every_answer_is_put_in_its_turn_s_order(answer in answers(), eligible: u64, turn: u64, may_shorten: bool) {
        prop_assume!(answer.sent().len() < MESSAGE as usize && answer.addresses.len() > 1);
        let ascending = answer.ascending();
        let is_eligible = |rank: &usize| eligible >> rank & 1 == 1;
        let all: Vec<usize> = (0..ascending.len()).collect();
        let (mut given, rest): (Vec<usize>, Vec<usize>) = all.into_iter().partition(is_eligible);
        let rest = if given.is_empty() { given = rest; Vec::new() } else { rest };
        let first = usize::try_from(turn % given.len() as u64).expect("few");
        given.rotate_left(first);
        if !may_shorten {
            given.extend(rest);
        }
        let order: Vec<usize> = given.into_iter().map(|rank| ascending[rank]).collect();
        let now = rotated(&answer.sent(), &answer.alias(eligible), turn, may_shorten);
        prop_assert_eq!(now, Ok(answer.bytes(&order, 0)));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..MESSAGE as usize)) {
        let _ = rotated(&bytes, &Answer::of(&[]).alias(u64::MAX), 3, true);
        // As far as the question is good.
        let mut bytes = [&Answer::of(&[[1; 4], [2; 4]]).sent()[..21], &bytes[..]].concat();
        bytes.truncate(MESSAGE as usize - 1);
        let alias = Alias { members: 2, ..Answer::of(&[]).alias(u64::MAX) };
        let _ = rotated(&bytes, &alias, 3, true);
    }

    #[test]
    fn what_is_spoiled_is_refused_or_keeps_its_records(
        answer in answers(), places in prop::collection::vec((any::<u16>(), any::<u8>()), 1..4), cut: u16, turn: u64,
    ) {
        let mut bytes = answer.sent();
        prop_assume!(bytes.len() < MESSAGE as usize);
        for (place, byte) in places {
            let place = usize::from(place) % bytes.len();
            bytes[place] = byte;
        }
        if cut % 3 == 0 {
            bytes.truncate(usize::from(cut) % bytes.len());
        }
        let records = bytes.get(6..8).map_or(0, |two| u32::from(u16::from_be_bytes([two[0], two[1]])));
        let alias = Alias { members: records, ..answer.alias(u64::MAX) };
        if let Ok(now) = rotated(&bytes, &alias, turn, true) {
            let set = |bytes: &[u8]| {
                let scratch = reading(bytes).expect("it was read before");
                scratch.addresses[..scratch.records as usize].iter().copied().collect::<BTreeSet<_>>()
            };
            prop_assert_eq!(bytes.len(), now.len());
            prop_assert_eq!(set(&bytes), set(&now));
        }
    }
}

mod one;
mod virtual_address;
