//! Rows in the other family: the same packets, maps and expectations, by IPv6 addresses.
//!
//! A row is written in IPv4. Its frames are sent as [`six::frame`] makes them, its flows and answers are put into the tables of
//! IPv6, and what is read back is told in IPv4 again, so that what a row wants is compared with it as it is.

use std::net::Ipv4Addr;

use netfast_common::{
    csum,
    device::Traffic,
    flow::{Flow, FlowKey},
    net::{Address, Ip4, Ip6},
    reason::{Count, Reason},
    vet::Answer,
};
use netfast_tests::{
    packet::{ICMP, six, six::ICMP6, six::MORE},
    scene::{Dev, bridged},
};

use super::{
    change::{device, in_use},
    harness::{Hook, Lab},
    row::{Row, check, frame_at, frame_enters, row},
};

/// Rows that say something of IPv4 alone, and why.
pub(super) const FOUR_ONLY: &[&str] = &[
    // Shorter than what every link carries of IPv6, or with its longer header longer than the interface takes.
    "577 bytes",
    "1499 bytes",
    "1500 bytes",
    "1600 bytes",
    "GSO with segments of 1000",
    "GSO with segments of 1460",
];

/// The shortest length that every link carries, of either family (RFC 791, RFC 8200).
const FLOORS: [u16; 2] = [576, 1280];

fn ip6(ip: Ip4) -> Ip6 {
    let ip = six::address(Ipv4Addr::from(ip.bytes())).expect("an address that has a like");
    Ip6::from_bytes(ip.octets())
}

fn ip4(ip: Ip6) -> Ip4 {
    Ip4::from_bytes(six::back(ip.bytes().into()).octets())
}

/// The key of the other family.
pub fn key_of(key: &FlowKey<Ip4>) -> FlowKey<Ip6> {
    let protocol = if key.protocol == ICMP { ICMP6 } else { key.protocol };
    FlowKey {
        protocol,
        ..key.with_addresses(ip6)
    }
}

/// The flow of the other family.
pub fn flow_of(of: &FlowKey<Ip4>, flow: &Flow<Ip4>) -> Flow<Ip6> {
    let more = u16::try_from(MORE).expect("few");
    let mut new = convert(of, &key_of(of), flow, ip6);
    new.max_length = flow.max_length.saturating_add(more);
    new
}

/// A flow of the other family and its key, told in this one.
pub fn back(of: &FlowKey<Ip6>, flow: &Flow<Ip6>) -> (FlowKey<Ip4>, Flow<Ip4>) {
    let more = u16::try_from(MORE).expect("few");
    let mut key = of.with_addresses(ip4);
    if key.protocol == ICMP6 {
        key.protocol = ICMP;
    }
    let mut new = convert(of, &key, flow, ip4);
    new.bytes = flow.bytes.wrapping_sub(flow.packets * MORE as u64);
    new.max_length = match flow.max_length {
        length if length == FLOORS[1] => FLOORS[0],
        u16::MAX => u16::MAX,
        length => length.saturating_sub(more),
    };
    (key, new)
}

fn convert<A: Address, B: Address>(
    old_key: &FlowKey<A>,
    new_key: &FlowKey<B>,
    flow: &Flow<A>,
    ip: impl Fn(A) -> B,
) -> Flow<B> {
    let mut new = flow.with_addresses(ip);
    for (tag, old) in [(&mut new.tag, flow.tag), (&mut new.tag_end, flow.tag_end)] {
        if old == old_key.tag() {
            *tag = new_key.tag();
        }
    }
    if flow.address_difference == difference(old_key, flow) {
        new.address_difference = difference(new_key, &new);
    }
    new
}

/// What a flow's addresses change of a checksum.
fn difference<A: Address>(key: &FlowKey<A>, flow: &Flow<A>) -> u32 {
    let sum = |a: A, b: A| csum::sum(&a.words()) + csum::sum(&b.words());
    csum::difference(sum(key.source, key.destination), sum(flow.source, flow.destination))
}

/// A count as it would be of IPv4.
pub fn count(count: Count) -> Count {
    Count {
        bytes: count.bytes.wrapping_sub(count.packets * MORE as u64),
        ..count
    }
}

/// Traffic as it would be of IPv4.
pub fn traffic(traffic: Traffic) -> Traffic {
    let less = |bytes: u64, packets: u64| bytes.wrapping_sub(packets * MORE as u64);
    Traffic {
        in_fast_bytes: less(traffic.in_fast_bytes, traffic.in_fast_packets),
        in_slow_bytes: less(traffic.in_slow_bytes, traffic.in_slow_packets),
        out_fast_bytes: less(traffic.out_fast_bytes, traffic.out_fast_packets),
        ..traffic
    }
}

impl Lab {
    /// Puts a flow into a table: of those in use, or of those that wait.
    pub fn put_flow(&mut self, is_in_use: bool, key: FlowKey<Ip4>, flow: Flow<Ip4>) {
        let done = match (self.six, is_in_use) {
            (false, true) => self.flows.insert(key, flow, 0),
            (false, false) => self.unreplied.insert(key, flow, 0),
            (true, _) => self.tables6[usize::from(!is_in_use)].insert(key_of(&key), flow_of(&key, &flow), 0),
        };
        done.expect("a flow");
    }

    /// The flows of a table, likewise.
    pub fn flows_in(&self, is_in_use: bool) -> Vec<(FlowKey<Ip4>, Flow<Ip4>)> {
        if self.six {
            let table = self.tables6[usize::from(!is_in_use)].iter();
            return table
                .map(|element| element.expect("nothing is evicted"))
                .map(|(key, flow)| back(&key, &flow))
                .collect();
        }
        let table = if is_in_use { &self.flows } else { &self.unreplied };
        table
            .iter()
            .map(|element| element.expect("nothing is evicted"))
            .collect()
    }

    /// Answers a question about a flow.
    pub fn answer(&mut self, key: FlowKey<Ip4>, answer: Answer) {
        let done = if self.six {
            self.vetted6.insert(key_of(&key), answer, 0)
        } else {
            self.vetted.insert(key, answer, 0)
        };
        done.expect("an answer");
    }
}

/// An edit of a frame of IPv6.
type Edit = fn(&mut Vec<u8>);

/// Offsets from the start of the frame.
const LENGTH: usize = 18;
const NEXT_HEADER: usize = 20;
const HOP_LIMIT: usize = 21;
const SOURCE: usize = 22;
const DESTINATION: usize = 38;
const TRANSPORT: usize = 54;

/// What is odd about a packet of IPv6, and has no like in IPv4.
const ODD: &[(&str, Reason, Edit)] = &[
    ("hop-by-hop options", Reason::IpOptions, |f| f[NEXT_HEADER] = 0),
    ("a routing header", Reason::IpOptions, |f| f[NEXT_HEADER] = 43),
    ("destination options", Reason::IpOptions, |f| f[NEXT_HEADER] = 60),
    ("an authentication header", Reason::IpOptions, |f| f[NEXT_HEADER] = 51),
    ("an encrypted payload", Reason::IpOptions, |f| f[NEXT_HEADER] = 50),
    ("a mobility header", Reason::IpOptions, |f| f[NEXT_HEADER] = 135),
    ("HIP", Reason::IpOptions, |f| f[NEXT_HEADER] = 139),
    ("shim6", Reason::IpOptions, |f| f[NEXT_HEADER] = 140),
    ("a fragment header", Reason::Fragment, |f| f[NEXT_HEADER] = 44),
    ("a router solicitation", Reason::NeighbourDiscovery, |f| icmp(f, 133)),
    ("a neighbour solicitation", Reason::NeighbourDiscovery, |f| icmp(f, 135)),
    ("a redirect", Reason::NeighbourDiscovery, |f| icmp(f, 137)),
    ("an echo request with a code", Reason::OtherProtocol, |f| icmp(f, 128)),
    ("a packet too big", Reason::OtherProtocol, |f| icmp(f, 2)),
    ("an ICMPv6 type behind discovery", Reason::OtherProtocol, |f| {
        icmp(f, 138);
    }),
    ("SCTP", Reason::OtherProtocol, |f| f[NEXT_HEADER] = 132),
    ("no next header", Reason::OtherProtocol, |f| f[NEXT_HEADER] = 59),
    ("version 4", Reason::Malformed, |f| f[14] = 0x40),
    ("version 7", Reason::Malformed, |f| f[14] = 0x70),
    ("a length beyond the frame", Reason::Malformed, |f| f[LENGTH] = 0x10),
    ("a length of zero", Reason::Malformed, |f| f[LENGTH + 1] = 0),
    ("a hop limit of 1", Reason::TtlExpiring, |f| f[HOP_LIMIT] = 1),
    ("a hop limit of 0", Reason::TtlExpiring, |f| f[HOP_LIMIT] = 0),
    ("to a link-local address", Reason::LinkLocal, |f| {
        link_local(f, DESTINATION);
    }),
    ("to the last link-local prefix", Reason::LinkLocal, |f| {
        f[DESTINATION..DESTINATION + 2].copy_from_slice(&[0xfe, 0xbf]);
    }),
    ("to a multicast address", Reason::NotUnicast, |f| f[DESTINATION] = 0xff),
    ("to ::1", Reason::NotUnicast, |f| {
        f[DESTINATION..DESTINATION + 15].fill(0);
        f[DESTINATION + 15] = 1;
    }),
    ("from ::", Reason::NotUnicast, |f| f[SOURCE..SOURCE + 16].fill(0)),
    ("another flow label, and a wrong checksum", Reason::BadChecksum, |f| {
        f[17] ^= 1;
        f[TRANSPORT + 16] ^= 1;
    }),
];

fn icmp(frame: &mut [u8], kind: u8) {
    frame[NEXT_HEADER] = 58;
    frame[TRANSPORT] = kind;
}

fn link_local(frame: &mut [u8], at: usize) {
    frame[at..at + 2].copy_from_slice(&[0xfe, 0x80]);
}

pub(super) fn rows() -> Vec<Row> {
    let (there, _) = bridged();
    let frame = six::frame(&there.packet().bytes()).expect("a plain packet");
    let edited = |edit: Edit| {
        let mut frame = frame.clone();
        edit(&mut frame);
        frame
    };
    let mut rows: Vec<Row> = ODD
        .iter()
        .map(|(what, reason, edit)| {
            let step = frame_enters(&there, edited(*edit)).slow(*reason);
            row(format!("IPv6: {what}"), vec![in_use(&there)], vec![step])
        })
        .collect();
    for length in 54..frame.len() {
        let step = frame_enters(&there, frame[..length].to_vec()).slow(Reason::Malformed);
        rows.push(row(format!("IPv6: TCP cut to {length} bytes"), Vec::new(), vec![step]));
    }
    let off = device(Dev::A, |device| device.flags &= !netfast_common::device::Device::IPV6);
    rows.push(row(
        "IPv6 of an interface is left to the kernel, its IPv4 is not",
        vec![off],
        vec![
            frame_enters(&there, frame.clone()).slow(Reason::Ipv6Off),
            super::row::enters(&there, &there.packet()).slow(Reason::NoFlow),
        ],
    ));
    rows.push(row(
        "from a link-local address",
        Vec::new(),
        vec![frame_enters(&there, edited(|frame| link_local(frame, SOURCE))).slow(Reason::LinkLocal)],
    ));
    let out = device(Dev::B, |device| device.flags &= !netfast_common::device::Device::IPV6);
    rows.push(row(
        "IPv6 of the interface it leaves by is left to the kernel",
        vec![out],
        vec![
            frame_enters(&there, frame.clone()).slow(Reason::NoFlow),
            frame_at(Hook::EndpointOut, Dev::B, Some(Dev::A), frame.clone()).ends(Reason::EgressUnknown),
        ],
    ));
    rows.push(alike());
    // There is one candidate for both families.
    rows.push(row(
        "a packet of IPv6 takes the place of an IPv4 candidate",
        Vec::new(),
        vec![
            super::row::enters(&there, &there.packet()).slow(Reason::NoFlow),
            frame_enters(&there, frame.clone()).slow(Reason::NoFlow),
            super::row::leaves(&there, &there.packet()).ends(Reason::OtherPacket),
        ],
    ));
    rows
}

/// All that is compared of two packets is the same, but that they are of different families.
fn alike() -> Row {
    let (there, _) = bridged();
    let four = there.packet().with(|packet| packet.id = 3);
    let shorter = four
        .clone()
        .with(|packet| packet.payload.truncate(packet.payload.len() - MORE));
    let mut six = six::frame(&shorter.bytes()).expect("a plain packet");
    // Identification and fragment field of the one are the flow label of the other.
    six[15..18].copy_from_slice(&[3, 0x40, 0]);
    // And a byte of the address is where the key of the other has its protocol. The sum stays.
    six[DESTINATION] = 6;
    six[DESTINATION + 2..DESTINATION + 4].copy_from_slice(&[0x45, 0x47]);
    row(
        "a packet of IPv4 is not the candidate of IPv6 that it looks like",
        Vec::new(),
        vec![
            frame_enters(&there, six).slow(Reason::NoFlow),
            super::row::leaves(&there, &four).ends(Reason::OtherPacket),
        ],
    )
}

#[test]
fn packets_of_ipv6() {
    check(&rows());
}
