//! Header fields: which bits of a header are the same in all packets of a flow on the fast path.

/// A header that `payload` loads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Header {
    /// Ethernet.
    Link,
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
    /// One of them.
    Ip,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// `ICMPv6`.
    Icmp6,
    /// One of them, or another.
    Transport,
    /// What is behind the transport header.
    Inner,
}

impl Header {
    /// Its name, for fields that have none.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link header",
            Self::Ip4 => "ip header",
            Self::Ip6 => "ip6 header",
            Self::Ip => "network header",
            Self::Tcp => "tcp payload",
            Self::Udp => "udp payload",
            Self::Icmp => "icmp payload",
            Self::Icmp6 => "icmpv6 payload",
            Self::Transport => "transport header",
            Self::Inner => "payload",
        }
    }

    /// Those that it may be.
    const fn alternatives(self) -> &'static [Self] {
        match self {
            Self::Link => &[Self::Link],
            Self::Ip4 => &[Self::Ip4],
            Self::Ip6 => &[Self::Ip6],
            Self::Ip => &[Self::Ip4, Self::Ip6],
            Self::Tcp => &[Self::Tcp],
            Self::Udp => &[Self::Udp],
            Self::Icmp => &[Self::Icmp],
            Self::Icmp6 => &[Self::Icmp6],
            Self::Transport => &[Self::Transport],
            Self::Inner => &[],
        }
    }
}

/// How packets of a flow on the fast path may differ in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Not at all: it is part of the flow.
    Constant,
    /// Not at all, and it is this value: packets with another one always take the slow path.
    Fixed(u32),
    /// They may.
    Varies,
}

/// A field, its place counted in bits from the start of the header as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Of which header.
    pub header: Header,
    /// Its name, as nft has it.
    pub name: &'static str,
    /// First bit.
    pub start: u32,
    /// Number of bits.
    pub bits: u32,
    /// How it may differ.
    pub nature: Nature,
    /// Why, for people.
    pub reason: &'static str,
}

const fn field(
    header: Header,
    name: &'static str,
    (start, bits): (u32, u32),
    nature: Nature,
    reason: &'static str,
) -> Field {
    Field {
        header,
        name,
        start,
        bits,
        nature,
        reason,
    }
}

const PART: &str = "part of the flow";
const EACH: &str = "differs from packet to packet";
const NOT_ECHO: &str = "messages that are not echo are slow";
const CODED: &str = "messages with a code are slow";
const MARKED: &str = "routers and senders set ECN bits packet by packet";

/// All fields. What lies behind them is content.
pub const FIELDS: [Field; 50] = {
    use Header::{Icmp, Icmp6, Ip4, Ip6, Link, Tcp, Transport, Udp};
    use Nature::{Constant, Fixed, Varies};
    [
        field(Link, "ether daddr", (0, 48), Constant, PART),
        field(Link, "ether saddr", (48, 48), Constant, PART),
        field(Link, "ether type", (96, 16), Constant, PART),
        field(Ip4, "ip version", (0, 4), Fixed(4), "of IPv4"),
        field(Ip4, "ip hdrlength", (4, 4), Fixed(5), "packets with options are slow"),
        field(Ip4, "ip dscp", (8, 6), Constant, PART),
        field(Ip4, "ip ecn", (14, 2), Varies, MARKED),
        field(Ip4, "ip length", (16, 16), Varies, EACH),
        field(Ip4, "ip id", (32, 16), Varies, EACH),
        field(
            Ip4,
            "ip frag-off reserved",
            (48, 1),
            Fixed(0),
            "packets with it are slow",
        ),
        field(
            Ip4,
            "ip frag-off df",
            (49, 1),
            Varies,
            "a sender may set it packet by packet",
        ),
        field(Ip4, "ip frag-off", (50, 14), Fixed(0), "fragments are slow"),
        field(Ip4, "ip ttl", (64, 8), Varies, "a sender may set it packet by packet"),
        field(Ip4, "ip protocol", (72, 8), Constant, PART),
        field(Ip4, "ip checksum", (80, 16), Varies, EACH),
        field(Ip4, "ip saddr", (96, 32), Constant, PART),
        field(Ip4, "ip daddr", (128, 32), Constant, PART),
        field(Ip6, "ip6 version", (0, 4), Fixed(6), "of IPv6"),
        field(Ip6, "ip6 dscp", (4, 6), Constant, PART),
        field(Ip6, "ip6 ecn", (10, 2), Varies, MARKED),
        field(
            Ip6,
            "ip6 flowlabel",
            (12, 20),
            Varies,
            "a sender may change it in mid-flow",
        ),
        field(Ip6, "ip6 length", (32, 16), Varies, EACH),
        field(Ip6, "ip6 nexthdr", (48, 8), Constant, PART),
        field(
            Ip6,
            "ip6 hoplimit",
            (56, 8),
            Varies,
            "a sender may set it packet by packet",
        ),
        field(Ip6, "ip6 saddr", (64, 128), Constant, PART),
        field(Ip6, "ip6 daddr", (192, 128), Constant, PART),
        field(Tcp, "tcp ports", (0, 32), Constant, PART),
        field(Tcp, "tcp sequence, ackseq", (32, 64), Varies, EACH),
        field(
            Tcp,
            "tcp doff",
            (96, 8),
            Varies,
            "packets of one flow have different options",
        ),
        field(
            Tcp,
            "tcp flags",
            (104, 3),
            Varies,
            "CWR, ECE and URG come and go in a flow",
        ),
        field(Tcp, "tcp flags ack", (107, 1), Fixed(1), "packets without ACK are slow"),
        field(Tcp, "tcp flags psh", (108, 1), Varies, "PSH comes and goes in a flow"),
        field(
            Tcp,
            "tcp flags syn, fin, rst",
            (109, 3),
            Fixed(0),
            "packets with SYN, FIN or RST are slow",
        ),
        field(Tcp, "tcp window, checksum, urgptr", (112, 48), Varies, EACH),
        field(Udp, "udp ports", (0, 32), Constant, PART),
        field(Udp, "udp length, checksum", (32, 32), Varies, EACH),
        // 8 and 0; 128 and 129.
        field(Icmp, "icmp type", (0, 4), Fixed(0), NOT_ECHO),
        field(Icmp, "icmp type of echo", (4, 1), Constant, PART),
        field(Icmp, "icmp type, the rest of it", (5, 3), Fixed(0), NOT_ECHO),
        field(Icmp, "icmp code", (8, 8), Fixed(0), CODED),
        field(Icmp, "icmp checksum", (16, 16), Varies, EACH),
        field(Icmp, "icmp id", (32, 16), Constant, PART),
        field(Icmp, "icmp sequence", (48, 16), Varies, EACH),
        field(Icmp6, "icmpv6 type", (0, 7), Fixed(64), NOT_ECHO),
        field(Icmp6, "icmpv6 type of echo", (7, 1), Constant, PART),
        field(Icmp6, "icmpv6 code", (8, 8), Fixed(0), CODED),
        field(Icmp6, "icmpv6 checksum", (16, 16), Varies, EACH),
        field(Icmp6, "icmpv6 id", (32, 16), Constant, PART),
        field(Icmp6, "icmpv6 sequence", (48, 16), Varies, EACH),
        field(Transport, "th ports", (0, 32), Constant, PART),
    ]
};

/// Why what has no field judges.
pub const CONTENT: &str = "judges by the content of each packet";

/// Bytes of a header in a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Which header.
    pub header: Header,
    /// Their place in it, in bytes.
    pub offset: u32,
    /// The bits that a mask has left of them.
    pub kept: Vec<u8>,
    /// The bits that have been turned over since, so that values are not those on the wire.
    pub flip: Vec<u8>,
}

/// What a comparison of bytes comes to, for packets on the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The same for all packets of a flow.
    Repeatable,
    /// No such packet passes.
    Never,
    /// It depends on the packet, by this field.
    Varies(&'static str, &'static str),
    /// The same, but only of ICMP: where others have ports it has a checksum.
    VariesInIcmp(&'static str, &'static str),
}

impl Bytes {
    /// Those that `payload` loads.
    pub fn load(header: Header, offset: u32, len: usize) -> Self {
        Self {
            header,
            offset,
            kept: vec![0xff; len],
            flip: vec![0; len],
        }
    }

    /// Whether any of the bits that are left varies, and in which field.
    pub fn varies(&self) -> Outcome {
        self.first_varying(self.kept.len())
    }

    /// `bytes == value`, or `bytes != value`.
    pub fn compare(&self, value: &[u8], is_equal: bool) -> Outcome {
        let len = value.len().min(self.kept.len());
        let is_told = self.flip.iter().all(|byte| *byte == 0);
        if is_told && self.contradicts(&value[..len]) {
            return if is_equal { Outcome::Never } else { Outcome::Repeatable };
        }
        match self.first_varying(len) {
            Outcome::Repeatable if is_told && !is_equal && self.is_fixed(len) => Outcome::Never,
            outcome @ (Outcome::Repeatable | Outcome::Never | Outcome::Varies(..) | Outcome::VariesInIcmp(..)) => {
                outcome
            }
        }
    }

    fn first_varying(&self, len: usize) -> Outcome {
        if self.header == Header::Inner && self.kept.iter().any(|byte| *byte != 0) {
            return Outcome::Varies(self.header.name(), CONTENT);
        }
        if let Some((name, reason)) = self.varying_in(self.header.alternatives(), len) {
            return Outcome::Varies(name, reason);
        }
        if self.header == Header::Transport
            && let Some((name, reason)) = self.varying_in(&[Header::Icmp, Header::Icmp6], len)
        {
            return Outcome::VariesInIcmp(name, reason);
        }
        Outcome::Repeatable
    }

    /// The first field of these headers that varies, and why.
    fn varying_in(&self, headers: &'static [Header], len: usize) -> Option<(&'static str, &'static str)> {
        let mut fields = headers
            .iter()
            .flat_map(|header| self.bits(len).map(move |(_, bit)| at(*header, bit)));
        fields.find_map(|field| match field {
            None => Some((self.header.name(), CONTENT)),
            Some(field) if field.nature == Nature::Varies => Some((field.name, field.reason)),
            Some(_) => None,
        })
    }

    /// Whether a bit that is left has a known value, and another one in `value`.
    fn contradicts(&self, value: &[u8]) -> bool {
        let [header] = self.header.alternatives() else {
            return false;
        };
        self.bits(value.len()).any(|(index, bit)| {
            let wanted = value[(index / 8) as usize] >> (7 - index % 8) & 1;
            matches!(at(*header, bit), Some(Field { nature: Nature::Fixed(fixed), start, bits, .. })
                if u32::from(wanted) != fixed >> (bits - 1 - (bit - start)) & 1)
        })
    }

    /// Whether all bits that are left have known values.
    fn is_fixed(&self, len: usize) -> bool {
        let [header] = self.header.alternatives() else {
            return false;
        };
        let is_fixed = |bit| matches!(at(*header, bit), Some(field) if matches!(field.nature, Nature::Fixed(_)));
        self.bits(len).all(|(_, bit)| is_fixed(bit)) && self.bits(len).next().is_some()
    }

    /// The bits that are left of the first bytes: their index among them, and in the header.
    fn bits(&self, len: usize) -> impl Iterator<Item = (u32, u32)> {
        let first = self.offset.saturating_mul(8);
        let bytes = (0u32..).zip(self.kept.iter().take(len));
        bytes
            .flat_map(|(byte, kept)| {
                (0..8)
                    .filter(move |bit| kept >> (7 - bit) & 1 != 0)
                    .map(move |bit| byte * 8 + bit)
            })
            .map(move |index| (index, first.saturating_add(index)))
    }
}

/// The field that a bit is of.
fn at(header: Header, bit: u32) -> Option<&'static Field> {
    FIELDS
        .iter()
        .find(|field| field.header == header && (field.start..field.start + field.bits).contains(&bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(header: Header, offset: u32, mask: &[u8]) -> Bytes {
        Bytes {
            kept: mask.to_vec(),
            ..Bytes::load(header, offset, mask.len())
        }
    }

    fn varying(bytes: &Bytes) -> Option<&'static str> {
        match bytes.varies() {
            Outcome::Varies(name, _) => Some(name),
            Outcome::Repeatable | Outcome::Never | Outcome::VariesInIcmp(..) => None,
        }
    }

    #[test]
    fn fields_lie_side_by_side() {
        for pair in FIELDS.windows(2).filter(|pair| pair[0].header == pair[1].header) {
            assert_eq!(pair[0].start + pair[0].bits, pair[1].start, "{}", pair[1].name);
        }
    }

    /// Every field by itself, as a rule would ask for it.
    #[test]
    fn each_field_judges_as_the_table_says() {
        for field in &FIELDS {
            let offset = field.start / 8;
            let end = (field.start + field.bits).div_ceil(8);
            let mut mask = vec![0; (end - offset) as usize];
            for bit in field.start..field.start + field.bits {
                mask[(bit / 8 - offset) as usize] |= 0x80 >> (bit % 8);
            }
            let bytes = masked(field.header, offset, &mask);
            let expected = (field.nature == Nature::Varies).then_some(field.name);
            assert_eq!(varying(&bytes), expected, "{}", field.name);
        }
    }

    #[test]
    fn a_mask_decides_what_is_looked_at() {
        assert_eq!(varying(&masked(Header::Ip4, 1, &[0xfc])), None, "ip dscp");
        assert_eq!(varying(&masked(Header::Ip4, 1, &[0x03])), Some("ip ecn"));
        assert_eq!(varying(&masked(Header::Ip4, 1, &[0xff])), Some("ip ecn"));
        assert_eq!(
            varying(&masked(Header::Ip4, 12, &[0xff; 8])),
            None,
            "ip saddr . ip daddr"
        );
        assert_eq!(varying(&masked(Header::Ip4, 8, &[0xff; 2])), Some("ip ttl"));
        assert_eq!(varying(&masked(Header::Ip4, 8, &[0, 0xff])), None, "ip protocol");
        assert_eq!(varying(&masked(Header::Ip4, 6, &[0x1f, 0xff])), None, "the offset");
        assert_eq!(varying(&masked(Header::Ip4, 20, &[0xff])), Some("ip header"), "options");
        assert_eq!(varying(&masked(Header::Ip, 12, &[0xff])), None, "addresses of either");
        assert_eq!(varying(&masked(Header::Ip, 8, &[0xff])), Some("ip ttl"));
        assert_eq!(varying(&masked(Header::Ip, 4, &[0xff])), Some("ip id"));
        assert_eq!(varying(&masked(Header::Tcp, 20, &[1])), Some("tcp payload"));
        assert_eq!(varying(&masked(Header::Transport, 4, &[1])), Some("transport header"));
        assert_eq!(varying(&masked(Header::Inner, 0, &[1])), Some("payload"));
        assert_eq!(
            varying(&masked(Header::Link, 12, &[0xff; 4])),
            Some("link header"),
            "a VLAN tag"
        );
        assert_eq!(varying(&masked(Header::Ip4, u32::MAX, &[0xff])), Some("ip header"));
    }

    #[test]
    fn echo_is_told_from_other_messages() {
        let of = |header, offset, value: u8, is_equal| masked(header, offset, &[0xff]).compare(&[value], is_equal);
        for (header, echo) in [(Header::Icmp, [8, 0]), (Header::Icmp6, [128, 129])] {
            for kind in 0..=255 {
                let expected = if echo.contains(&kind) {
                    Outcome::Repeatable
                } else {
                    Outcome::Never
                };
                assert_eq!(of(header, 0, kind, true), expected, "{header:?} {kind}");
                assert_eq!(of(header, 0, kind, false), Outcome::Repeatable, "{header:?} not {kind}");
            }
            assert_eq!(of(header, 1, 0, true), Outcome::Repeatable, "{header:?} code 0");
            assert_eq!(of(header, 1, 0, false), Outcome::Never, "{header:?} code not 0");
            assert_eq!(of(header, 1, 4, true), Outcome::Never, "{header:?} code 4");
            assert_eq!(varying(&masked(header, 4, &[0xff; 2])), None, "{header:?} id");
            assert!(varying(&masked(header, 6, &[0xff; 2])).is_some_and(|name| name.ends_with("sequence")));
            assert!(varying(&masked(header, 8, &[0xff])).is_some_and(|name| name.ends_with("payload")));
        }
        // Ports, if it is TCP or UDP.
        let ports = |offset| masked(Header::Transport, offset, &[0xff; 2]).varies();
        assert_eq!(ports(0), Outcome::Repeatable, "th sport");
        assert_eq!(ports(2), Outcome::VariesInIcmp("icmp checksum", EACH), "th dport");
    }

    #[test]
    fn what_only_slow_packets_pass_is_told() {
        let flags = |mask, value, is_equal| masked(Header::Tcp, 13, &[mask]).compare(&[value], is_equal);
        let varies = |outcome| matches!(outcome, Outcome::Varies(..));
        assert_eq!(flags(0x17, 0x02, true), Outcome::Never, "syn");
        assert_eq!(flags(0x17, 0x02, false), Outcome::Repeatable, "!= syn");
        assert_eq!(flags(0x02, 0, false), Outcome::Never, "any of syn");
        assert_eq!(flags(0x10, 0x10, true), Outcome::Repeatable, "ack");
        assert_eq!(flags(0x3f, 0, true), Outcome::Never, "none, and so no ack");
        assert_eq!(flags(0x3f, 0x29, true), Outcome::Never, "a christmas tree");
        assert!(varies(flags(0x08, 0x08, true)) && varies(flags(0x08, 0, false)) && varies(flags(0x0a, 0, false)));
        assert!(varies(flags(0x18, 0x18, true)));
        let fragment = masked(Header::Ip4, 6, &[0x3f, 0xff]);
        assert_eq!(fragment.compare(&[0, 0], false), Outcome::Never, "fragments");
        assert_eq!(fragment.compare(&[0, 0], true), Outcome::Repeatable);
        assert!(
            varies(masked(Header::Ip4, 6, &[0x40, 0]).compare(&[0x40, 0], true)),
            "DF"
        );
        let flipped = Bytes {
            flip: vec![1, 0],
            ..fragment
        };
        assert_eq!(flipped.compare(&[0, 0], false), Outcome::Repeatable);
    }
}
