//! DNS messages (RFC 1035) of our own making, and a client that shows an answer as it came.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::netns::NsHandle;

/// Docker's resolver, in every container's namespace.
pub const RESOLVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);
/// Question type of IPv4 addresses.
pub const A: u16 = 1;
/// Question type of IPv6 addresses.
pub const AAAA: u16 = 28;
/// An OPT record without options, for messages of up to 1232 bytes (RFC 6891).
pub const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// A question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The name, with dots.
    pub name: String,
    /// [`A`] or [`AAAA`], or any other.
    pub kind: u16,
    /// Whether the client speaks EDNS.
    pub edns: bool,
    /// By TCP.
    pub tcp: bool,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub bytes: Vec<u8>,
    /// Addresses, in their order.
    pub addresses: Vec<IpAddr>,
    /// Times to live of the addresses, in seconds.
    pub ttls: Vec<u32>,
}

impl Question {
    /// For IPv4 addresses by UDP.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: A,
            edns: false,
            tcp: false,
        }
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x4e, 0x46, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns)];
        bytes.extend(name(&self.name));
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend([0, 1]);
        if self.edns {
            bytes.extend(OPT);
        }
        bytes
    }

    /// Asks Docker's resolver from inside a container's namespace.
    pub fn ask(&self, ns: &NsHandle) -> Result<Answer> {
        self.ask_often(ns, 1).map(|mut answers| answers.remove(0))
    }

    /// The same so many times, one after the other.
    pub fn ask_often(&self, ns: &NsHandle, times: usize) -> Result<Vec<Answer>> {
        let query = self.bytes();
        let ask = || if self.tcp { by_tcp(&query) } else { by_udp(&query) };
        ns.run(|| (0..times).map(|_| Answer::parse(ask()?)).collect())?
    }
}

fn by_udp(query: &[u8]) -> Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(RESOLVER)?;
    socket.send(query)?;
    let mut bytes = vec![0; 65536];
    let length = socket.recv(&mut bytes).context("no answer of the resolver")?;
    bytes.truncate(length);
    Ok(bytes)
}

fn by_tcp(query: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(RESOLVER)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let length = u16::try_from(query.len())?;
    stream.write_all(&[&length.to_be_bytes()[..], query].concat())?;
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix).context("no answer of the resolver")?;
    let mut bytes = vec![0; u16::from_be_bytes(prefix).into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Answer {
    /// Reads a message; records of other types than addresses are passed over.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let half = |at: usize| -> Result<u16> {
            let pair = bytes.get(at..at + 2).context("a message that is cut short")?;
            Ok(u16::from_be_bytes([pair[0], pair[1]]))
        };
        let name_end = |mut at: usize| -> Result<usize> {
            loop {
                match bytes.get(at).context("a name that is cut short")? {
                    0 => return Ok(at + 1),
                    0xc0..=0xff => return Ok(at + 2),
                    length => at += 1 + usize::from(*length),
                }
            }
        };
        let mut at = name_end(12)? + 4;
        let (mut addresses, mut ttls) = (Vec::new(), Vec::new());
        for _ in 0..half(6)? {
            let fixed = name_end(at)?;
            let length = usize::from(half(fixed + 8)?);
            let data = bytes
                .get(fixed + 10..fixed + 10 + length)
                .context("data that is cut short")?;
            let address = match half(fixed)? {
                A => Some(IpAddr::from(<[u8; 4]>::try_from(data)?)),
                AAAA => Some(IpAddr::from(<[u8; 16]>::try_from(data)?)),
                _ => None,
            };
            if let Some(address) = address {
                addresses.push(address);
                ttls.push(u32::from(half(fixed + 4)?) << 16 | u32::from(half(fixed + 6)?));
            }
            at = fixed + 10 + length;
        }
        ensure!(at <= bytes.len(), "records beyond the message's end");
        Ok(Self { bytes, addresses, ttls })
    }

    /// The address that most clients take.
    pub fn first(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }
}

/// A resolver's answer with these addresses of one family, as Docker's writes it: names are not compressed.
pub fn answer(question: &Question, addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
    let mut bytes = question.bytes();
    let behind = bytes.split_off(bytes.len() - if question.edns { OPT.len() } else { 0 });
    bytes[2..4].copy_from_slice(&[0x81, 0x80]);
    let count = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    for address in addresses {
        let data = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.extend(name(&question.name));
        bytes.extend(question.kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        bytes.extend(data);
    }
    bytes.extend(behind);
    bytes
}

/// A name as it is on the wire.
fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').flat_map(|label| {
        let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
        std::iter::once(length).chain(label.bytes())
    });
    labels.chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let addresses: [IpAddr; 2] = [[10, 0, 0, 2].into(), [10, 0, 0, 1].into()];
        let question = Question {
            edns: true,
            ..Question::of("web.shop")
        };
        let read = Answer::parse(answer(&question, &addresses, 600)).expect("it is whole");
        assert_eq!(
            (read.addresses.as_slice(), read.ttls.as_slice()),
            (&addresses[..], &[600, 600][..])
        );
        assert!(Answer::parse(read.bytes[..read.bytes.len() - 12].to_vec()).is_err());
    }
}
