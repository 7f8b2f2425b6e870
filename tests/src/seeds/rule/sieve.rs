//! Matches by which one packet of a flow is caught and the next one is not, how they are spelt, and in which places such
//! a rule can stand.

use serde::{Deserialize, Serialize};

use super::{
    super::{family::Family, names, odd::Odd, scenario::Protocol, step::Device},
    Chain, Match,
};

/// A match on what may differ from packet to packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sieve {
    /// URG is set.
    Urgent,
    /// ACK alone is set, of the flags that begin, end and push.
    NoPush,
    /// ECE is set.
    Echoed,
    /// A TCP timestamp.
    Timestamp,
    /// A TCP selective acknowledgement.
    Sack,
    /// A TCP header with more than four bytes of options.
    Doff,
    /// A TCP window under 1000.
    Window,
    /// The ECN bits say that there was congestion.
    Ecn,
    /// TOS with a mask of the ECN bits alone.
    Tos,
    /// "Don't fragment" is not set.
    Fragmentable,
    /// A TTL over 100.
    Ttl,
    /// The same by a classic BPF program.
    Bpf,
    /// Text in the payload.
    Text,
    /// The payload's first four bytes.
    Payload,
    /// The IP header's length field is over 300, compared as a word of the header.
    Word,
    /// The packet is longer than 300 bytes, as the kernel's metadata say.
    Length,
    /// UDP's length field is over 300.
    UdpLength,
    /// No UDP checksum.
    Unsummed,
    /// The connection has had more than six packets one way.
    Counted,
}

/// Where a rule with such a match stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// iptables, `DOCKER-USER`.
    User,
    /// iptables, table raw.
    Raw,
    /// iptables: it marks in table mangle, and what is marked is dropped later.
    Marked,
    /// iptables-legacy, FORWARD.
    Legacy,
    /// A table of family inet.
    Own(Chain),
    /// A table of family ip, or ip6.
    OwnIp,
    /// The same by an anonymous set.
    Set,
    /// The same by a verdict map.
    Vmap,
    /// The same with the verdict in a chain that is jumped to.
    Jump,
    /// A map gives a mark, and what is marked is dropped later.
    Map,
    /// A table of the bridge family.
    Bridge(Chain),
    /// ebtables; it has only the match on TOS of all these.
    Ebtables,
    /// A chain of family netdev, on an interface's ingress or egress.
    Netdev(Device, bool),
}

/// The mark of [`Form::Marked`] and [`Form::Map`], which nobody else uses.
const MARK: u32 = 0x4_0000;

impl Sieve {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Urgent,
        Self::NoPush,
        Self::Echoed,
        Self::Timestamp,
        Self::Sack,
        Self::Doff,
        Self::Window,
        Self::Ecn,
        Self::Tos,
        Self::Fragmentable,
        Self::Ttl,
        Self::Bpf,
        Self::Text,
        Self::Payload,
        Self::Word,
        Self::Length,
        Self::UdpLength,
        Self::Unsummed,
        Self::Counted,
    ];

    /// Its kind, for the coverage table.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Urgent => "sieve: TCP flag URG",
            Self::NoPush => "sieve: TCP flag PSH",
            Self::Echoed => "sieve: TCP flag ECE",
            Self::Timestamp => "sieve: TCP option timestamps",
            Self::Sack => "sieve: TCP option SACK",
            Self::Doff => "sieve: TCP data offset",
            Self::Window => "sieve: TCP window",
            Self::Ecn => "sieve: ECN",
            Self::Tos => "sieve: TOS with ECN bits",
            Self::Fragmentable => "sieve: DF",
            Self::Ttl => "sieve: TTL",
            Self::Bpf => "sieve: classic BPF",
            Self::Text => "sieve: text",
            Self::Payload => "sieve: bytes of the payload",
            Self::Word => "sieve: word of the header",
            Self::Length => "sieve: length",
            Self::UdpLength => "sieve: UDP length",
            Self::Unsummed => "sieve: UDP checksum",
            Self::Counted => "sieve: packets of the connection",
        }
    }

    /// The protocol that it is about, if it is about one only.
    pub const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Urgent | Self::NoPush | Self::Echoed | Self::Timestamp | Self::Sack | Self::Doff | Self::Window => {
                Some(Protocol::Tcp)
            }
            Self::Payload | Self::UdpLength | Self::Unsummed => Some(Protocol::Udp),
            Self::Ecn
            | Self::Tos
            | Self::Fragmentable
            | Self::Ttl
            | Self::Bpf
            | Self::Text
            | Self::Word
            | Self::Length
            | Self::Counted => None,
        }
    }

    /// A packet that it catches, which an ordinary one of its flow is not.
    pub const fn caught(self) -> Odd {
        match self {
            Self::Urgent => Odd::Flags(0x38),
            Self::NoPush => Odd::Flags(0x10),
            Self::Echoed => Odd::Flags(0x58),
            Self::Timestamp | Self::Doff => Odd::TcpOptions { long: false },
            Self::Sack => Odd::Sack,
            Self::Window => Odd::Window(500),
            Self::Ecn => Odd::Ecn(3),
            Self::Tos => Odd::Ecn(2),
            Self::Fragmentable => Odd::NoDf,
            Self::Ttl | Self::Bpf => Odd::Ttl(200),
            Self::Text | Self::Payload => Odd::Needle,
            Self::Word | Self::Length | Self::UdpLength => Odd::Plain(900),
            Self::Unsummed => Odd::ZeroChecksum,
            Self::Counted => Odd::Plain(20),
        }
    }

    /// As iptables spells it, or ip6tables, if they can.
    const fn iptables(self, family: Family) -> Option<&'static str> {
        Some(match (self, family) {
            (Self::Urgent, _) => "--tcp-flags URG URG",
            (Self::NoPush, _) => "--tcp-flags SYN,RST,FIN,PSH,ACK ACK",
            (Self::Echoed, _) => "-m ecn --ecn-tcp-ece",
            (Self::Timestamp, _) => "--tcp-option 8",
            (Self::Sack, _) => "--tcp-option 5",
            (Self::Doff, Family::V4) => "-m u32 --u32 \"0>>22&0x3C@12>>28=7:15\"",
            (Self::Doff, Family::V6) => "-m u32 --u32 \"52>>28=7:15\"",
            (Self::Window, Family::V4) => "-m u32 --u32 \"0>>22&0x3C@12&0xFFFF=0:999\"",
            (Self::Window, Family::V6) => "-m u32 --u32 \"52&0xFFFF=0:999\"",
            (Self::Ecn, _) => "-m ecn --ecn-ip-ect 3",
            (Self::Tos, _) => "-m tos --tos 0x02/0x03",
            (Self::Fragmentable, Family::V4) => "-m u32 --u32 \"4&0x4000=0\"",
            (Self::Ttl, Family::V4) => "-m ttl --ttl-gt 100",
            (Self::Ttl, Family::V6) => "-m hl --hl-gt 100",
            (Self::Bpf, Family::V4) => "-m bpf --bytecode \"4,48 0 0 8,37 0 1 100,6 0 0 65535,6 0 0 0\"",
            (Self::Bpf, Family::V6) => "-m bpf --bytecode \"4,48 0 0 7,37 0 1 100,6 0 0 65535,6 0 0 0\"",
            (Self::Text, _) => "-m string --algo bm --string needle",
            (Self::Word, Family::V4) => "-m u32 --u32 \"0&0xFFFF=301:65535\"",
            (Self::Word, Family::V6) => "-m u32 --u32 \"4>>16=261:65535\"",
            (Self::Length | Self::UdpLength, _) => "-m length --length 301:65535",
            (Self::Unsummed, Family::V4) => "-m u32 --u32 \"0>>22&0x3C@4&0xFFFF=0\"",
            (Self::Unsummed, Family::V6) => "-m u32 --u32 \"44&0xFFFF=0\"",
            (Self::Payload | Self::Counted, _) | (Self::Fragmentable, Family::V6) => return None,
        })
    }

    /// As nft spells it, if it can.
    const fn nft(self, family: Family) -> Option<&'static str> {
        Some(match (self, family) {
            (Self::Urgent, _) => "tcp flags & urg == urg",
            (Self::NoPush, _) => "tcp flags & (fin | syn | rst | psh | ack) == ack",
            (Self::Echoed, _) => "tcp flags & ecn == ecn",
            (Self::Timestamp, _) => "tcp option timestamp exists",
            (Self::Sack, _) => "tcp option sack exists",
            (Self::Doff, _) => "tcp doff > 6",
            (Self::Window, _) => "tcp window < 1000",
            (Self::Ecn, Family::V4) => "ip ecn ce",
            (Self::Ecn, Family::V6) => "ip6 ecn ce",
            (Self::Tos, Family::V4) => "@nh,8,8 & 0x03 == 0x02",
            (Self::Tos, Family::V6) => "@nh,8,8 & 0x30 == 0x20",
            (Self::Fragmentable, Family::V4) => "ip frag-off & 0x4000 == 0",
            (Self::Ttl, Family::V4) => "ip ttl > 100",
            (Self::Ttl, Family::V6) => "ip6 hoplimit > 100",
            (Self::Payload, _) => "@th,64,32 0x6e656564",
            (Self::Word, Family::V4) => "ip length > 300",
            (Self::Word, Family::V6) => "ip6 length > 260",
            (Self::Length, _) => "meta length > 300",
            (Self::UdpLength, _) => "udp length > 300",
            (Self::Unsummed, _) => "udp checksum 0",
            (Self::Counted, _) => "ct original packets > 6",
            (Self::Bpf | Self::Text, _) | (Self::Fragmentable, Family::V6) => return None,
        })
    }

    /// What nft looks up, what is found, and what else there is, in a set or a map.
    const fn key(self, family: Family) -> Option<(&'static str, &'static str, &'static str)> {
        Some(match (self, family) {
            (Self::Urgent, _) => ("tcp flags", "psh | ack | urg", "psh | ack"),
            (Self::Doff, _) => ("tcp doff", "7-15", "5-6"),
            (Self::Window, _) => ("tcp window", "0-999", "1000-65535"),
            (Self::Ecn, Family::V4) => ("ip ecn", "ce", "not-ect"),
            (Self::Ecn, Family::V6) => ("ip6 ecn", "ce", "not-ect"),
            (Self::Fragmentable, Family::V4) => ("ip frag-off", "0", "0x4000"),
            (Self::Ttl, Family::V4) => ("ip ttl", "101-255", "1-100"),
            (Self::Ttl, Family::V6) => ("ip6 hoplimit", "101-255", "1-100"),
            (Self::Word, Family::V4) => ("ip length", "301-65535", "20-300"),
            (Self::Word, Family::V6) => ("ip6 length", "261-65535", "0-260"),
            (Self::Length, _) => ("meta length", "301-65535", "20-300"),
            (Self::UdpLength, _) => ("udp length", "301-65535", "8-300"),
            (
                Self::NoPush
                | Self::Echoed
                | Self::Timestamp
                | Self::Sack
                | Self::Tos
                | Self::Payload
                | Self::Unsummed
                | Self::Counted
                | Self::Bpf
                | Self::Text,
                _,
            )
            | (Self::Fragmentable, Family::V6) => return None,
        })
    }

    /// Whether there is such a rule.
    pub fn fits(self, form: Form, family: Family) -> bool {
        match form {
            Form::User | Form::Raw | Form::Marked | Form::Legacy => self.iptables(family).is_some(),
            // Connections are known in neither.
            Form::Bridge(_) | Form::Netdev(..) => self.nft(family).is_some() && self != Self::Counted,
            // Nor are they before their packets are looked up (priority -200).
            Form::Own(_) | Form::OwnIp | Form::Jump => self.nft(family).is_some(),
            Form::Set | Form::Vmap | Form::Map => self.key(family).is_some(),
            Form::Ebtables => self == Self::Tos,
        }
    }
}

impl Form {
    /// Its kind, for the coverage table.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::User => "sieve in DOCKER-USER",
            Self::Raw => "sieve in raw",
            Self::Marked => "sieve that marks in mangle",
            Self::Legacy => "sieve in iptables-legacy",
            Self::Own(_) => "sieve in family inet",
            Self::OwnIp => "sieve in family ip",
            Self::Set => "sieve by a set",
            Self::Vmap => "sieve by a verdict map",
            Self::Jump => "sieve that jumps",
            Self::Map => "sieve that marks by a map",
            Self::Bridge(_) => "sieve in family bridge",
            Self::Ebtables => "sieve in ebtables",
            Self::Netdev(_, false) => "sieve on a device's ingress",
            Self::Netdev(_, true) => "sieve on a device's egress",
        }
    }

    /// All kinds, for the coverage table.
    pub const KINDS: [&'static str; 14] = [
        "sieve in DOCKER-USER",
        "sieve in raw",
        "sieve that marks in mangle",
        "sieve in iptables-legacy",
        "sieve in family inet",
        "sieve in family ip",
        "sieve by a set",
        "sieve by a verdict map",
        "sieve that jumps",
        "sieve that marks by a map",
        "sieve in family bridge",
        "sieve in ebtables",
        "sieve on a device's ingress",
        "sieve on a device's egress",
    ];

    /// The family of its nftables table, if it has one of its own.
    pub const fn family(self, of: Family) -> Option<&'static str> {
        match self {
            Self::Own(_) | Self::Set | Self::Vmap | Self::Jump | Self::Map => Some("inet"),
            Self::OwnIp => Some(of.nft()),
            Self::Bridge(_) => Some("bridge"),
            Self::Netdev(..) => Some("netdev"),
            Self::User | Self::Raw | Self::Marked | Self::Legacy | Self::Ebtables => None,
        }
    }
}

/// Lines for iptables.
pub(super) fn iptables(form: Form, sieve: Sieve, what: &Match) -> Vec<super::Line> {
    let Some(by) = sieve.iptables(what.family) else {
        return Vec::new();
    };
    match form {
        Form::User => vec![("filter", "DOCKER-USER", format!("{}{by} -j DROP", what.iptables()))],
        Form::Raw => vec![("raw", "PREROUTING", format!("{}{by} -j DROP", what.before_routing()))],
        Form::Marked => vec![
            (
                "mangle",
                "FORWARD",
                format!("{}{by} -j MARK --set-mark {MARK}", what.iptables()),
            ),
            ("filter", "DOCKER-USER", format!("-m mark --mark {MARK} -j DROP")),
        ],
        Form::Legacy
        | Form::Own(_)
        | Form::OwnIp
        | Form::Set
        | Form::Vmap
        | Form::Jump
        | Form::Map
        | Form::Bridge(_)
        | Form::Ebtables
        | Form::Netdev(..) => Vec::new(),
    }
}

/// A line for the chain FORWARD of iptables-legacy.
pub(super) fn legacy(form: Form, sieve: Sieve, what: &Match) -> Option<String> {
    let by = sieve.iptables(what.family).filter(|_| form == Form::Legacy)?;
    Some(format!("{}{by} -j DROP", what.iptables()))
}

/// A line for the chain FORWARD of ebtables.
pub(super) fn ebtables(form: Form, what: &Match) -> Option<String> {
    let of = what.protocol.map_or_else(String::new, |protocol| {
        let number = if protocol == Protocol::Tcp { 6 } else { 17 };
        match what.family {
            Family::V4 => format!("--ip-proto {number} "),
            Family::V6 => format!("--ip6-proto {number} "),
        }
    });
    let (ethertype, tos) = match what.family {
        Family::V4 => ("IPv4", "ip-tos"),
        Family::V6 => ("IPv6", "ip6-tclass"),
    };
    (form == Form::Ebtables).then(|| format!("-p {ethertype} {of}--{tos} 0x02 -j DROP"))
}

/// Its nftables table.
pub(super) fn nft(form: Form, sieve: Sieve, what: &Match, table: &str) -> Option<String> {
    let of_what = what.family;
    let family = form.family(of_what)?;
    let forward = Chain::Forward;
    let chain = |chain: Chain, text: &str| {
        let hook = chain.hook();
        format!("chain every {{ type filter hook {hook} priority 5; {text}; }};")
    };
    let inside = match form {
        Form::Own(of) => chain(of, &format!("{}{} drop", what.nft(Some(of)), sieve.nft(of_what)?)),
        Form::OwnIp => chain(
            forward,
            &format!("{}{} drop", what.nft(Some(forward)), sieve.nft(of_what)?),
        ),
        Form::Set => {
            let (key, caught, _) = sieve.key(of_what)?;
            chain(
                forward,
                &format!("{}{key} {{ {caught} }} drop", what.nft(Some(forward))),
            )
        }
        Form::Vmap => {
            let (key, caught, _) = sieve.key(of_what)?;
            chain(
                forward,
                &format!("{}{key} vmap {{ {caught} : drop }}", what.nft(Some(forward))),
            )
        }
        Form::Jump => {
            let jump = format!("{}{} jump other", what.nft(Some(forward)), sieve.nft(of_what)?);
            format!("chain other {{ drop; }}; {}", chain(forward, &jump))
        }
        Form::Map => {
            let (key, caught, rest) = sieve.key(of_what)?;
            let mark = format!(
                "{}meta mark set {key} map {{ {caught} : {MARK}, {rest} : 0 }}",
                what.nft(Some(forward))
            );
            format!(
                "{} chain late {{ type filter hook forward priority 6; meta mark {MARK} drop; }};",
                chain(forward, &mark)
            )
        }
        Form::Bridge(of) => chain(of, &format!("{}{} drop", what.nft(None), sieve.nft(of_what)?)),
        Form::Netdev(device, is_egress) => {
            let hook = if is_egress { "egress" } else { "ingress" };
            let device = names::device(device);
            format!(
                "chain every {{ type filter hook {hook} device \"{device}\" priority 0; {}{} drop; }};",
                what.nft(None),
                sieve.nft(of_what)?
            )
        }
        Form::User | Form::Raw | Form::Marked | Form::Legacy | Form::Ebtables => return None,
    };
    Some(format!("table {family} {table} {{ {inside} }}"))
}
