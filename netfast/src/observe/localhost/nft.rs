//! nftables' rules for the host's own packets, iptables-nft's among them, as plain as they are.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    bytes::u16_at,
    host::{Effect, Field, IpNet, Match, Rule},
    observe::nftables::{NFGENMSG, family},
    sys::netlink::{Attr, Attrs, Malformed, Message},
};

/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// Codes of verdicts (`NF_DROP`, `NF_ACCEPT`, `NFT_*`).
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const CONTINUE: u32 = u32::MAX;
const BREAK: u32 = u32::MAX - 1;
const JUMP: u32 = u32::MAX - 2;
const GOTO: u32 = u32::MAX - 3;
const RETURN: u32 = u32::MAX - 4;
/// Keys of `meta` that tell who sends: `NFT_META_SKUID`, `NFT_META_SKGID`, `NFT_META_CGROUP`.
const SENDERS: [(u32, &str); 3] = [(10, "meta skuid"), (11, "meta skgid"), (23, "meta cgroup")];

/// Reads a rule; the names of its family, table and chain come with it.
pub fn parse(message: Message<'_>) -> Result<((String, String, String), Rule), Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let number = message.payload[0];
    // NFTA_RULE_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS
    let chain = (
        family(number),
        attrs.need(1, "the table")?.text(),
        attrs.need(2, "the chain")?.text(),
    );
    let mut reader = Reader {
        header: match number {
            2 => Header::V4,
            10 => Header::V6,
            _ => Header::Unknown,
        },
        loaded: BTreeMap::new(),
        matches: Vec::new(),
        effect: Effect::None,
    };
    for element in attrs.need(4, "what it does")?.nested()?.iter() {
        let expression = element.nested()?;
        let name = expression.need(NAME, "an expression's name")?.text();
        reader.read(&name, expression.inside(DATA)?)?;
    }
    let rule = Rule {
        matches: reader.matches,
        effect: reader.effect,
        number: attrs.find(3).map_or(Ok(0), Attr::be64)?,
    };
    Ok((chain, rule))
}

/// Which network header packets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Unknown,
    V4,
    V6,
}

/// What a register holds.
#[derive(Clone, Debug)]
enum Loaded {
    IncomingName,
    OutgoingName,
    IncomingIndex,
    OutgoingIndex,
    Protocol,
    Family,
    /// An address's first bytes, under a mask.
    Source(Vec<u8>),
    Destination(Vec<u8>),
    SourcePort,
    DestinationPort,
    Sender(&'static str),
    Other(String),
}

struct Reader {
    header: Header,
    loaded: BTreeMap<u32, Loaded>,
    matches: Vec<Match>,
    effect: Effect,
}

impl Reader {
    fn read(&mut self, name: &str, data: Attrs<'_>) -> Result<(), Malformed> {
        match name {
            "counter" | "log" => {}
            "meta" | "ct" if data.find(if name == "meta" { 3 } else { 4 }).is_some() => {
                self.acts(format!("{name} set"));
            }
            "meta" => {
                let (target, key) = (number(data, 1)?, number(data, 2)?.unwrap_or(u32::MAX));
                self.load(target, meta(key));
            }
            "payload" => self.payload(data)?,
            "bitwise" => self.mask(data)?,
            "cmp" => self.compare(data)?,
            "immediate" => self.immediate(data)?,
            "match" => self.extension(data),
            "target" => {
                let target = data.find(1).map(Attr::text).unwrap_or_default();
                if !matches!(target.as_str(), "LOG" | "NFLOG" | "TRACE") {
                    self.acts(target);
                }
            }
            "lookup" if number(data, 3)? == Some(0) => self.acts("a map of verdicts".into()),
            "lookup" => {
                self.other("a set".into(), false);
                self.load(number(data, 3)?, Loaded::Other("a map".into()));
            }
            // They put something in a register, by their first attribute, or the second.
            "ct" | "fib" | "rt" | "numgen" | "osf" | "exthdr" => {
                self.load(number(data, 1)?, Loaded::Other(name.into()));
            }
            "socket" | "hash" | "byteorder" => {
                let target = number(data, 2)?;
                let loaded = if name == "socket" {
                    Loaded::Sender("socket")
                } else {
                    Loaded::Other(name.into())
                };
                self.load(target, loaded);
            }
            "limit" | "quota" | "connlimit" | "range" | "last" => self.other(name.into(), false),
            _ => self.acts(name.into()),
        }
        Ok(())
    }

    fn payload(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_PAYLOAD_DREG, _BASE (network 1, transport 2), _OFFSET, _LEN, _SREG
        let target = number(data, 1)?;
        if number(data, 5)?.is_some() {
            self.acts("payload set".into());
            return Ok(());
        }
        let (base, offset, len) = (number(data, 2)?, number(data, 3)?, number(data, 4)?.unwrap_or(0));
        let all = vec![0xff; usize::try_from(len.min(16)).unwrap_or(16)];
        let loaded = match (base, self.header, offset, len) {
            (Some(1), Header::V4, Some(9), 1) | (Some(1), Header::V6, Some(6), 1) => Loaded::Protocol,
            (Some(1), Header::V4, Some(12), 1..=4) | (Some(1), Header::V6, Some(8), 1..=16) => Loaded::Source(all),
            (Some(1), Header::V4, Some(16), 1..=4) | (Some(1), Header::V6, Some(24), 1..=16) => {
                Loaded::Destination(all)
            }
            (Some(2), _, Some(0), 2) => Loaded::SourcePort,
            (Some(2), _, Some(2), 2) => Loaded::DestinationPort,
            _ => Loaded::Other("a header".into()),
        };
        self.load(target, loaded);
        Ok(())
    }

    /// `register = register & mask`, and no more than that.
    fn mask(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_BITWISE_SREG, _DREG, _MASK, _XOR, _OP
        let (source, target) = (number(data, 1)?, number(data, 2)?);
        let bytes = |kind: u16| -> Result<Vec<u8>, Malformed> {
            Ok(data
                .inside(kind)?
                .find(1)
                .map_or(Vec::new(), |value| value.payload.to_vec()))
        };
        let (mask, flip) = (bytes(4)?, bytes(5)?);
        let is_plain = number(data, 6)?.unwrap_or(0) == 0 && flip.iter().all(|byte| *byte == 0);
        let before = source.and_then(|register| self.loaded.get(&slot(register))).cloned();
        let after = match before {
            Some(Loaded::Source(all)) if is_plain && mask.len() == all.len() => Loaded::Source(mask),
            Some(Loaded::Destination(all)) if is_plain && mask.len() == all.len() => Loaded::Destination(mask),
            Some(sender @ Loaded::Sender(_)) => sender,
            _ => Loaded::Other("bits".into()),
        };
        self.load(target, after);
        Ok(())
    }

    fn compare(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_CMP_SREG, _OP (equal 0, not equal 1), _DATA with NFTA_DATA_VALUE
        let register = data.need(1, "what is compared")?.be32()?;
        let value = data.need(3, "what it is compared with")?.nested()?;
        let value = value.need(1, "what it is compared with")?.payload;
        let negated = match number(data, 2)? {
            Some(0) => false,
            Some(1) => true,
            _ => {
                self.other("a comparison".into(), false);
                return Ok(());
            }
        };
        let loaded = self.loaded.get(&slot(register)).cloned();
        let Some(field) = loaded.and_then(|loaded| self.field(&loaded, value)) else {
            self.other("a comparison".into(), negated);
            return Ok(());
        };
        if let (Field::IsV4(is_v4), false) = (&field, negated) {
            self.header = if *is_v4 { Header::V4 } else { Header::V6 };
        }
        self.matches.push(Match { field, negated });
        Ok(())
    }

    /// What it means that a register has this value.
    fn field(&self, loaded: &Loaded, value: &[u8]) -> Option<Field> {
        let name = || {
            let is_prefix = !value.contains(&0);
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            (String::from_utf8_lossy(&value[..end]).into_owned(), is_prefix)
        };
        let by_index = || {
            let index = u32::from_ne_bytes(value.try_into().ok()?);
            nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
        };
        let port = || Some(u16::from_be_bytes(value.try_into().ok()?));
        Some(match loaded {
            Loaded::IncomingName => {
                let (name, is_prefix) = name();
                Field::Incoming { name, is_prefix }
            }
            Loaded::OutgoingName => {
                let (name, is_prefix) = name();
                Field::Outgoing { name, is_prefix }
            }
            Loaded::IncomingIndex => Field::Incoming {
                name: by_index()?,
                is_prefix: false,
            },
            Loaded::OutgoingIndex => Field::Outgoing {
                name: by_index()?,
                is_prefix: false,
            },
            Loaded::Protocol => Field::Protocol(*value.first()?),
            Loaded::Family => match value.first()? {
                2 => Field::IsV4(true),
                10 => Field::IsV4(false),
                _ => return None,
            },
            Loaded::Source(mask) => Field::Source(self.net(mask, value)?),
            Loaded::Destination(mask) => Field::Destination(self.net(mask, value)?),
            Loaded::SourcePort => port().map(|port| Field::SourcePort(port, port))?,
            Loaded::DestinationPort => port().map(|port| Field::DestinationPort(port, port))?,
            Loaded::Sender(what) => Field::Sender((*what).into()),
            Loaded::Other(what) => Field::Other(what.clone()),
        })
    }

    /// A network of the first bytes of an address, and what of them counts.
    fn net(&self, mask: &[u8], value: &[u8]) -> Option<IpNet> {
        if mask.len() != value.len() {
            return None;
        }
        let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
        let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
        let leading = mask.iter().position(|byte| *byte != 0xff).map_or(set, |first| {
            u32::try_from(first).unwrap_or(0) * 8 + mask[first].leading_ones()
        });
        if ones != set || leading != set {
            return None;
        }
        let mut bytes = [0; 16];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        let address = match self.header {
            Header::V4 => {
                let (first, _) = bytes.split_at(4);
                IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(first).ok()?))
            }
            Header::V6 => IpAddr::V6(Ipv6Addr::from(bytes)),
            Header::Unknown => return None,
        };
        IpNet::new(address, u8::try_from(set).ok()?)
    }

    fn immediate(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_IMMEDIATE_DREG, _DATA; NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, _CHAIN
        if number(data, 1)? != Some(0) {
            return Ok(());
        }
        let verdict = data.inside(2)?.inside(2)?;
        let chain = || verdict.find(2).map(Attr::text).unwrap_or_default();
        let effect = match number(verdict, 1)? {
            Some(ACCEPT) => Effect::Accept,
            Some(CONTINUE | BREAK) => Effect::None,
            Some(JUMP) => Effect::Jump(chain()),
            Some(GOTO) => Effect::Goto(chain()),
            Some(RETURN) => Effect::Return,
            Some(DROP) => Effect::Acts("drop".into()),
            _ => Effect::Acts("a verdict".into()),
        };
        // What it has done before counts.
        if !matches!(self.effect, Effect::Acts(_)) {
            self.effect = effect;
        }
        Ok(())
    }

    fn extension(&mut self, data: Attrs<'_>) {
        let name = data.find(1).map(Attr::text).unwrap_or_default();
        let info = data.find(3).map_or(&[][..], |info| info.payload);
        self.matches.extend(extension(&name, info));
    }

    fn load(&mut self, register: Option<u32>, loaded: Loaded) {
        if let Some(register) = register {
            self.loaded.insert(slot(register), loaded);
        }
    }

    fn other(&mut self, what: String, negated: bool) {
        let field = Field::Other(what);
        self.matches.push(Match { field, negated });
    }

    fn acts(&mut self, what: String) {
        self.effect = Effect::Acts(what);
    }
}

/// A match of iptables: what is known of it. `info` is its own structure.
pub fn extension(name: &str, info: &[u8]) -> Vec<Match> {
    let other = || vec![plain(Field::Other(format!("-m {name}")))];
    match name {
        "comment" => Vec::new(),
        "owner" | "cgroup" | "socket" => vec![plain(Field::Sender(format!("-m {name}")))],
        // `struct xt_tcp`: ports, an option, the flags' mask and value, inversions; `struct xt_udp`: ports, inversions.
        "tcp" | "udp" => ports(name, info).unwrap_or_else(other),
        _ => other(),
    }
}

fn ports(name: &str, info: &[u8]) -> Option<Vec<Match>> {
    let at = |offset| u16_at(info, offset);
    let (source, destination) = ((at(0)?, at(2)?), (at(4)?, at(6)?));
    let inversions = *info.get(if name == "tcp" { 11 } else { 8 })?;
    let mut matches = Vec::new();
    for ((from, to), inversion, is_source) in [(source, 1, true), (destination, 2, false)] {
        let negated = inversions & inversion != 0;
        if (from, to) != (0, u16::MAX) || negated {
            let field = if is_source {
                Field::SourcePort(from, to)
            } else {
                Field::DestinationPort(from, to)
            };
            matches.push(Match { field, negated });
        }
    }
    if name == "tcp" && (*info.get(8)? != 0 || *info.get(9)? != 0) {
        matches.push(plain(Field::Other("tcp flags".into())));
    }
    Some(matches)
}

/// A condition as it stands.
pub const fn plain(field: Field) -> Match {
    Match { field, negated: false }
}

/// What a key of `meta` loads (`NFT_META_*`).
fn meta(key: u32) -> Loaded {
    match key {
        4 => Loaded::IncomingIndex,
        5 => Loaded::OutgoingIndex,
        6 => Loaded::IncomingName,
        7 => Loaded::OutgoingName,
        15 => Loaded::Family,
        16 => Loaded::Protocol,
        _ => SENDERS.iter().find(|(known, _)| *known == key).map_or_else(
            || Loaded::Other(format!("meta key {key}")),
            |(_, name)| Loaded::Sender(name),
        ),
    }
}

fn number(attrs: Attrs<'_>, kind: u16) -> Result<Option<u32>, Malformed> {
    attrs.find(kind).map(Attr::be32).transpose()
}

/// Registers of 16 bytes (`NFT_REG_1` is 1) are four of 4 bytes (`NFT_REG32_00` is 8) each.
const fn slot(register: u32) -> u32 {
    if register <= 4 {
        register * 4
    } else {
        register.saturating_sub(4)
    }
}
