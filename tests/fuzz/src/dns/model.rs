//! What must become of a message, told apart from how the program does it: the message is read into parts, and a new one
//! written from them.

use std::net::IpAddr;

use netfast_common::alias::Alias;

/// Bytes behind the answers that the program moves when it leaves records out.
const MAX_MOVED: usize = 64;

/// An answer of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Header, but for the number of answers, and the question.
    head: Vec<u8>,
    /// The question's name as on the wire, in lower case.
    pub name: Vec<u8>,
    /// The question's type.
    pub record_type: u8,
    /// Name and data of each record.
    records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Time to live of each record.
    ttls: Vec<[u8; 4]>,
    /// What follows.
    behind: Vec<u8>,
}

impl Message {
    /// Reads one that is nothing but an answer of addresses to one question.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..12)?;
        let is_answer = header[2] & 0xfa == 0x80 && header[3].trailing_zeros() >= 4 && header[4..6] == [0, 1];
        let mut at = 12;
        let name = name(bytes, &mut at)?;
        let question = bytes.get(at..at + 4)?;
        at += 4;
        let record_type = question[1];
        let length = match record_type {
            1 => 4,
            28 => 16,
            _ => return None,
        };
        if !is_answer || question[0] != 0 || question[2..4] != [0, 1] {
            return None;
        }
        let mut head = bytes[..at].to_vec();
        head[6..8].fill(0);
        let (mut records, mut ttls) = (Vec::new(), Vec::new());
        for _ in 0..u16::from_be_bytes([header[6], header[7]]) {
            let start = at;
            if bytes.get(at..at + 2)? == [0xc0, 12] {
                at += 2;
            } else if self::name(bytes, &mut at)? != name {
                return None;
            }
            let record_name = bytes[start..at].to_vec();
            let fixed = bytes.get(at..at + 10)?;
            if fixed[..4] != [0, record_type, 0, 1] || usize::from(u16::from_be_bytes([fixed[8], fixed[9]])) != length {
                return None;
            }
            ttls.push([fixed[4], fixed[5], fixed[6], fixed[7]]);
            at += 10;
            records.push((record_name, bytes.get(at..at + length)?.to_vec()));
            at += length;
        }
        // All of them compressed, or none.
        if records.iter().any(|(name, _)| name.len() != records[0].0.len()) {
            return None;
        }
        Some(Self {
            head,
            name,
            record_type,
            records,
            ttls,
            behind: bytes[at..].to_vec(),
        })
    }

    /// Addresses, in their order.
    pub fn addresses(&self) -> Vec<Vec<u8>> {
        self.records.iter().map(|(_, address)| address.clone()).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        bytes[6..8].copy_from_slice(&u16::try_from(self.records.len()).expect("few").to_be_bytes());
        for ((name, data), ttl) in self.records.iter().zip(&self.ttls) {
            bytes.extend(name);
            bytes.extend([0, self.record_type, 0, 1]);
            bytes.extend(ttl);
            bytes.extend(u16::try_from(data.len()).expect("few").to_be_bytes());
            bytes.extend(data);
        }
        bytes.extend(&self.behind);
        bytes
    }

    /// The same with these addresses: names stay where they are.
    fn giving(&self, addresses: &[Vec<u8>], alias: &Alias) -> Vec<u8> {
        let names = self.records.iter().map(|(name, _)| name.clone());
        let given = Self {
            records: names.zip(addresses.iter().cloned()).collect(),
            ttls: vec![alias.ttl.to_be_bytes(); addresses.len()],
            ..self.clone()
        };
        given.bytes()
    }

    /// The answer with the virtual address; `None` if there is no place for it.
    pub fn with_virtual(&self, alias: &Alias, may_shorten: bool) -> Option<Vec<u8>> {
        let (vip, is_its) = match IpAddr::from(alias.vip) {
            IpAddr::V4(vip) => (vip.octets().to_vec(), self.record_type == 1),
            IpAddr::V6(vip) => (vip.octets().to_vec(), self.record_type == 28),
        };
        let shorten = may_shorten && self.behind.len() <= MAX_MOVED;
        let addresses = match (is_its, shorten) {
            (true, true) => vec![vip],
            (true, false) => vec![vip; self.records.len()],
            (false, true) => Vec::new(),
            (false, false) => return None,
        };
        Some(self.giving(&addresses, alias))
    }

    /// The answer in this turn's order, who is given first, and whether members are left out.
    pub fn in_turn(&self, alias: &Alias, turn: u64, may_shorten: bool) -> (Vec<u8>, Vec<u8>, bool) {
        let mut sorted = self.addresses();
        sorted.sort();
        let is_eligible = |rank: usize| alias.eligible >> rank & 1 == 1;
        let (mut well, mut others) = (Vec::new(), Vec::new());
        for (rank, address) in sorted.into_iter().enumerate() {
            if is_eligible(rank) { &mut well } else { &mut others }.push(address);
        }
        if well.is_empty() {
            (well, others) = (others, well);
        }
        let shorten = may_shorten && !others.is_empty() && self.behind.len() <= MAX_MOVED;
        let count = u64::try_from(well.len()).expect("few");
        well.rotate_left(usize::try_from(turn % count).expect("less"));
        let first = well[0].clone();
        if alias.flags & Alias::ONE != 0 {
            let shorten = may_shorten && self.behind.len() <= MAX_MOVED;
            let copies = if shorten { 1 } else { self.records.len() };
            return (self.giving(&vec![first.clone(); copies], alias), first, shorten);
        }
        if !shorten {
            well.extend(others);
        }
        (self.giving(&well, alias), first, shorten)
    }
}

/// Reads a name that is written out; in lower case.
fn name(bytes: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    loop {
        let length = *bytes.get(*at)?;
        if length > 63 {
            return None;
        }
        let label = bytes.get(*at..=*at + usize::from(length))?;
        name.extend(label.iter().map(u8::to_ascii_lowercase));
        *at += label.len();
        if length == 0 {
            return Some(name);
        }
    }
}

/// Where the message is in a frame of the resolver, and whether it is by UDP; `None` if the frame is not one that carries one
/// whole message.
pub fn place(frame: &[u8]) -> Option<(usize, bool)> {
    let is_udp = match *frame.get(23)? {
        17 => true,
        6 => false,
        _ => return None,
    };
    let field = |at: usize| Some(usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?])));
    let is_whole = frame[14] == 0x45 && frame.len() == 14 + field(16)?;
    let (offset, length) = if is_udp {
        (42, frame.len().checked_sub(34)?)
    } else {
        let offset = 34 + usize::from(*frame.get(46)? >> 4) * 4 + 2;
        (offset, frame.len().checked_sub(offset)?)
    };
    let told = field(if is_udp { 38 } else { offset - 2 })?;
    (is_whole && told == length && field(34)? == 53 && frame[26..30] == [127, 0, 0, 11]).then_some((offset, is_udp))
}

/// The frame that a frame becomes with another message, but for checksums.
pub fn with_message(frame: &[u8], offset: usize, message: &[u8]) -> Vec<u8> {
    let mut new = [&frame[..offset], message].concat();
    let mut set = |at: usize, length: usize| {
        new[at..at + 2].copy_from_slice(&u16::try_from(length).expect("short").to_be_bytes());
    };
    let length = offset + message.len();
    set(16, length - 14);
    if frame[23] == 17 {
        set(38, length - 34);
    }
    new
}

/// The frame with its checksums blanked: those are judged by themselves.
pub fn without_checksums(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[24..26].fill(0);
    let at = checksum_at(&frame);
    frame[at..at + 2].fill(0);
    frame
}

/// Offset of a frame's transport checksum.
pub fn checksum_at(frame: &[u8]) -> usize {
    if frame[23] == 17 { 40 } else { 50 }
}

/// The sum over the pseudo header, as the kernel leaves it for a device to complete.
pub fn partial_checksum(frame: &[u8]) -> Option<u16> {
    let ip = frame.get(14..34)?;
    let length = u16::from_be_bytes([ip[2], ip[3]]).checked_sub(20)?;
    let pairs = ip[12..20]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum = pairs.sum::<u32>() + u32::from(length) + u32::from(ip[9]);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).ok()
}
