//! A writer of pcapng (draft-ietf-opsawg-pcapng): section header, one interface description per device, enhanced
//! packets with the verdict as a comment, in the machine's byte order as the format allows. Only what tcpdump and
//! Wireshark need.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use netfast_common::trace::CAPTURE;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u16 = 1;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
/// Timestamps are in nanoseconds: 10^-9.
const NANOSECONDS: u8 = 9;

/// A packet to be written.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The interface that it was seen at.
    pub ifindex: u32,
    /// Since 1970, nanoseconds.
    pub time_ns: u64,
    /// Its length in bytes.
    pub length: u32,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// Shown beside it.
    pub comment: &'a str,
}

/// A file being written.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    /// Number in the file by index in the kernel.
    interfaces: BTreeMap<u32, u32>,
}

impl<W: Write> Writer<W> {
    /// Begins the file.
    pub fn new(mut to: W) -> io::Result<Self> {
        let mut body = BYTE_ORDER.to_ne_bytes().to_vec();
        body.extend([1_u16.to_ne_bytes(), 0_u16.to_ne_bytes()].concat());
        // The section's length is not known.
        body.extend(u64::MAX.to_ne_bytes());
        option(
            &mut body,
            SHB_USERAPPL,
            concat!("netfast ", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        option(&mut body, 0, &[]);
        block(&mut to, SECTION_HEADER, &body)?;
        Ok(Self {
            to,
            interfaces: BTreeMap::new(),
        })
    }

    /// Writes a packet, and before the first of an interface that interface, with the name that `name` gives.
    pub fn packet(&mut self, packet: &Packet<'_>, name: impl FnOnce() -> String) -> io::Result<()> {
        let number = if let Some(number) = self.interfaces.get(&packet.ifindex) {
            *number
        } else {
            self.interface(packet.ifindex, &name())?
        };
        let mut body = number.to_ne_bytes().to_vec();
        let [low, high] = [packet.time_ns & u64::from(u32::MAX), packet.time_ns >> 32];
        #[expect(clippy::cast_possible_truncation, reason = "both are halves")]
        body.extend([(high as u32).to_ne_bytes(), (low as u32).to_ne_bytes()].concat());
        let captured = u32::try_from(packet.bytes.len()).map_err(io::Error::other)?;
        body.extend(captured.to_ne_bytes());
        body.extend(packet.length.max(captured).to_ne_bytes());
        padded(&mut body, packet.bytes);
        option(&mut body, OPT_COMMENT, packet.comment.as_bytes());
        option(&mut body, 0, &[]);
        block(&mut self.to, ENHANCED_PACKET, &body)
    }

    fn interface(&mut self, ifindex: u32, name: &str) -> io::Result<u32> {
        let number = u32::try_from(self.interfaces.len()).map_err(io::Error::other)?;
        let mut body = LINKTYPE_ETHERNET.to_ne_bytes().to_vec();
        body.extend([0; 2]);
        body.extend(CAPTURE.to_ne_bytes());
        option(&mut body, IF_NAME, name.as_bytes());
        option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
        option(&mut body, 0, &[]);
        block(&mut self.to, INTERFACE, &body)?;
        self.interfaces.insert(ifindex, number);
        Ok(number)
    }

    /// Hands on what was written, for readers that follow.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn block(to: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_ne_bytes();
    to.write_all(&kind.to_ne_bytes())?;
    to.write_all(&length)?;
    to.write_all(body)?;
    to.write_all(&length)
}

/// An option; names and comments are short. A code of 0 ends the options.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(1024)];
    body.extend(code.to_ne_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(0).to_ne_bytes());
    padded(body, value);
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    #[test]
    fn another_reader_understands_it() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).expect("memory");
        let packets = [(7, b"abcde".as_slice(), 1_514), (9, b"xyz1", 4), (7, b"", 60)];
        for (number, (ifindex, bytes, length)) in packets.into_iter().enumerate() {
            let packet = Packet {
                ifindex,
                time_ns: 1_700_000_000_123_456_789 + number as u64,
                length,
                bytes,
                comment: "slow: no-flow",
            };
            writer.packet(&packet, || format!("veth{ifindex}")).expect("memory");
        }
        writer.flush().expect("memory");

        let mut reader = PcapNgReader::new(file.as_slice()).expect("a section");
        let (mut names, mut seen) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            let block = block.expect("a block");
            if let Block::InterfaceDescription(interface) = block {
                assert!(
                    format!("{:?}", interface.options).contains("IfTsResol(9)"),
                    "{interface:?}"
                );
                names.push(format!("{:?}", interface.options));
            } else if let Block::EnhancedPacket(packet) = block {
                assert!(format!("{:?}", packet.options).contains("slow: no-flow"), "{packet:?}");
                seen.push((packet.interface_id, packet.data.to_vec(), packet.original_len));
            } else {
                panic!("{block:?}");
            }
        }
        assert!(
            names.len() == 2 && names[0].contains("veth7") && names[1].contains("veth9"),
            "{names:?}"
        );
        let wanted = [
            (0, b"abcde".to_vec(), 1_514),
            (1, b"xyz1".to_vec(), 4),
            (0, Vec::new(), 60),
        ];
        assert_eq!(seen, wanted);
    }
}
