//! One nftables rule, read expression by expression: what its registers hold, and what is made of it.

use super::super::field::{Bytes, Header, Outcome};
use super::super::reachability::{Chain, Common};
use super::super::reading::Reading;
use super::super::table::{CT, Class, EXTENSIONS, META, OBJECTS, Place, find};
use super::super::xt::BRIEF_S;
use super::registers::{Loaded, Registers, Varying};
use super::{NFTA_EXPR_NAME, is_rated};
use crate::host::Verdict;
use crate::observe::nftables::{NFGENMSG, family};
use crate::sys::netlink::{Attr, Attrs, Malformed, Message};

mod decide;

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_DATA: u16 = 2;
/// `NFT_CT_MARK`.
const CT_MARK: u32 = 3;
/// What is kept in a set for so long, in milliseconds, is gone before a packet of the fast path refreshes it for certain.
const BRIEF_MS: u64 = BRIEF_S as u64 * 1000;
/// `NFT_DYNSET_OP_DELETE`.
const DELETE: u32 = 2;
/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`.
const XT_NAME: u16 = 1;

/// Reads a rule. Expressions are read one by one here: `netlink-packet-netfilter` knows six of them, and not all that
/// those six may have.
pub fn parse(message: Message<'_>) -> Result<Rule, Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let number = message.payload[0];
    let text = |kind, name| attrs.need(kind, name).map(Attr::text);
    let family = family(number);
    let mut rule = Rule {
        reading: Reading::new(Common::default(), ["bridge", "netdev"].contains(&family.as_str())),
        number,
        chain: (
            family,
            text(NFTA_RULE_TABLE, "the table")?,
            text(NFTA_RULE_CHAIN, "the chain")?,
        ),
        handle: attrs.find(NFTA_RULE_HANDLE).map_or(Ok(0), Attr::be64)?,
        network: match number {
            2 => Header::Ip4,
            10 => Header::Ip6,
            _ => Header::Ip,
        },
        ..Rule::default()
    };
    for element in attrs.need(NFTA_RULE_EXPRESSIONS, "what it does")?.nested()?.iter() {
        rule.read(element.nested()?)?;
    }
    Ok(rule)
}

/// What has been read of a rule.
pub struct Rule {
    /// Its family (`NFPROTO_*`).
    pub number: u8,
    /// Where it is.
    pub chain: Chain,
    /// The kernel's number of it.
    pub handle: u64,
    /// What is found in it.
    pub reading: Reading,
    /// Whether it looks a verdict up.
    pub has_map: bool,
    /// The sets that it looks something up in.
    pub sets: Vec<String>,
    /// The sets that it adds to for as long as they keep what is added.
    pub adds_to: Vec<String>,
    registers: Registers,
    /// Which headers the packets have that the rest of the rule sees: by its table's family, or by a comparison.
    network: Header,
    transport: Header,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            number: 0,
            chain: Chain::default(),
            handle: 0,
            reading: Reading::default(),
            has_map: false,
            sets: Vec::new(),
            adds_to: Vec::new(),
            registers: Registers::default(),
            network: Header::Ip,
            transport: Header::Transport,
        }
    }
}

impl Rule {
    fn read(&mut self, expression: Attrs<'_>) -> Result<(), Malformed> {
        let name = expression.need(NFTA_EXPR_NAME, "an expression's name")?.text();
        let data = expression.inside(NFTA_EXPR_DATA)?;
        match name.as_str() {
            "match" | "target" => self.compat(&name, data)?,
            "meta" => self.meta(data)?,
            "ct" => self.ct(data)?,
            "payload" => self.payload(data)?,
            "exthdr" => self.extension(data)?,
            "cmp" => self.compare(data)?,
            "bitwise" => self.mask(data)?,
            // NFTA_BYTEORDER_SREG, NFTA_BYTEORDER_DREG, NFTA_BYTEORDER_LEN
            "byteorder" => self.derive(number(data, 1)?, number(data, 2)?, number(data, 4)?),
            // NFTA_RANGE_SREG
            "range" => self.ask(number(data, 1)?),
            "lookup" => self.lookup(data)?,
            "objref" => self.object(data)?,
            "immediate" => self.immediate(data)?,
            "dynset" => self.dynset(data)?,
            "hash" => self.hash(data)?,
            "reject" => self.reading.decide(Verdict::Drop, "reject"),
            "queue" => {
                self.reading.decide(Verdict::Queue, "queue");
                self.reading.see(Place::Expression, &name);
            }
            "log" => {
                const NFTA_LOG_GROUP: u16 = 1;
                let to_group = data.find(NFTA_LOG_GROUP).is_some();
                self.reading.words.push("log".into());
                self.reading
                    .see(Place::Expression, if to_group { "nflog" } else { "log" });
            }
            "counter" => {}
            _ => self.other(&name, data)?,
        }
        Ok(())
    }

    /// An expression that is known by its name alone. What it puts in a register is judged with it; where that is does not
    /// matter, since the attribute is not the same for all of them: what was there before is judged besides.
    fn other(&mut self, name: &str, data: Attrs<'_>) -> Result<(), Malformed> {
        if find(Place::Expression, name).is_some() {
            self.reading.words.push(name.to_owned());
        }
        // NFTA_FIB_DREG, NFTA_RT_DREG, NFTA_NG_DREG, NFTA_OSF_DREG: 1; NFTA_SOCKET_DREG: 2
        let target = match name {
            "fib" | "rt" | "numgen" | "osf" => number(data, 1)?,
            "socket" => number(data, 2)?,
            _ => None,
        };
        self.load(target, 4, Loaded::Plain);
        self.reading.see(Place::Expression, name);
        Ok(())
    }

    fn compat(&mut self, name: &str, data: Attrs<'_>) -> Result<(), Malformed> {
        let xt = data.find(XT_NAME).map(Attr::text).unwrap_or_default();
        // NFTA_MATCH_REV and NFTA_MATCH_INFO
        let revision = number(data, 2)?.and_then(|number| u8::try_from(number).ok());
        let info = data.find(3).map_or(&[][..], |info| info.payload);
        let (place, word) = if name == "match" {
            (Place::Match, "-m")
        } else {
            (Place::Target, "-j")
        };
        self.reading.words.push(format!("{word} {xt}"));
        self.reading.see_xt(place, &xt, revision.unwrap_or(u8::MAX), info);
        if place == Place::Target && matches!(xt.as_str(), "REJECT" | "DROP") {
            self.reading.verdict = Verdict::Drop;
        }
        Ok(())
    }

    fn meta(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_META_DREG, NFTA_META_KEY, NFTA_META_SREG; NFT_META_*
        let (target, key, source) = (number(data, 1)?, number(data, 2)?, number(data, 3)?);
        let name = key_name(&META, key);
        if source.is_some() {
            self.reading.words.push(format!("meta {name} set"));
            self.reading.see(Place::MetaSet, &name);
            self.ask(source);
            return Ok(());
        }
        let loaded = match key {
            Some(4) => Loaded::IncomingIndex,
            Some(5) => Loaded::OutgoingIndex,
            Some(6) => Loaded::IncomingName,
            Some(7) => Loaded::OutgoingName,
            Some(15) => Loaded::NetfilterProtocol,
            Some(16) => Loaded::Protocol,
            Some(1) => Loaded::EtherType,
            _ => self.key(Place::Meta, &name),
        };
        // Names of interfaces are 16 bytes long.
        let len = if name.ends_with("name") || name.ends_with("kind") {
            16
        } else {
            4
        };
        self.load(target, len, loaded);
        Ok(())
    }

    fn ct(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_SREG; NFT_CT_*
        let (target, key, source) = (number(data, 1)?, number(data, 2)?, number(data, 4)?);
        let name = key_name(&CT, key);
        if source.is_some() {
            self.reading.words.push(format!("ct {name} set"));
            self.reading.see(Place::CtSet, &name);
            let written = source.and_then(|register| self.registers.get(register));
            if key == Some(CT_MARK) && written == Some(&Loaded::ConnectionMark(true)) {
                self.reading.see(Place::Expression, "toggle");
            }
            self.ask(source);
            return Ok(());
        }
        let loaded = match key {
            Some(0) => Loaded::State(u32::MAX),
            Some(CT_MARK) => Loaded::ConnectionMark(false),
            _ => self.key(Place::Ct, &name),
        };
        let len = if name.contains("addr") || name == "label" {
            16
        } else {
            4
        };
        self.load(target, len, loaded);
        Ok(())
    }

    /// What a key of `meta` or `ct` loads. What judges is found when something is made of it.
    fn key(&mut self, place: Place, name: &str) -> Loaded {
        match find(place, name) {
            Some(known) if known.row.class == Class::Judges => {
                Loaded::Judging(Varying::new(known.what(), known.row.reason))
            }
            _ => {
                self.reading.see(place, name);
                Loaded::Plain
            }
        }
    }

    fn payload(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN, _SREG; the bases are link layer 0, network 1, transport 2, inner 3.
        let header = match number(data, 2)? {
            Some(0) => Header::Link,
            Some(1) => self.network,
            Some(2) => self.transport,
            _ => Header::Inner,
        };
        let (offset, len) = (number(data, 3)?.unwrap_or(u32::MAX), number(data, 4)?.unwrap_or(1));
        // No register is longer (`NFT_REG_SIZE` times four).
        let len = usize::try_from(len).unwrap_or(usize::MAX).clamp(1, 64);
        if let Some(source) = number(data, 5)? {
            self.write(Bytes::load(header, offset, len), source);
            return Ok(());
        }
        let loaded = match (header, offset, len) {
            (Header::Ip4, 9, 1) | (Header::Ip6, 6, 1) => Loaded::Protocol,
            (Header::Link, 12, 2) => Loaded::EtherType,
            _ => Loaded::Bytes(Bytes::load(header, offset, len)),
        };
        self.load(number(data, 1)?, len, loaded);
        Ok(())
    }

    /// `payload set`. nft writes two bytes at least: those bits that are written as they were read do not count.
    fn write(&mut self, place: Bytes, source: u32) {
        let same = match self.registers.get(source) {
            Some(Loaded::Bytes(bytes)) => {
                bytes.header == place.header && bytes.offset == place.offset && bytes.kept.len() == place.kept.len()
            }
            _ => false,
        };
        let changed = match self.registers.get(source) {
            Some(Loaded::Bytes(bytes)) if same => Bytes {
                kept: bytes
                    .kept
                    .iter()
                    .zip(&bytes.flip)
                    .map(|(kept, flip)| !kept | flip)
                    .collect(),
                ..place
            },
            _ => place,
        };
        if !same {
            self.ask(Some(source));
        }
        self.reading.words.push("set".into());
        // As the targets of iptables that do this.
        if let Outcome::VariesInIcmp(what, reason) = changed.varies() {
            self.reading.judges_icmp(what, reason);
        }
        let varies = matches!(changed.varies(), Outcome::Varies(..));
        self.reading.see(Place::Target, if varies { "TTL" } else { "DSCP" });
    }

    fn extension(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_EXTHDR_DREG, _LEN, _OP, _SREG; NFT_EXTHDR_OP_*
        let (target, len, op, source) = (number(data, 1)?, number(data, 4)?, number(data, 6)?, number(data, 7)?);
        let name = key_name(&EXTENSIONS, Some(op.unwrap_or(0)));
        let loaded = self.key(Place::Extension, &name);
        if let (None, Loaded::Judging(varying)) = (target, &loaded) {
            // `tcp option … set`, `reset tcp option …`
            self.reading.acts = true;
            self.judge(*varying);
        }
        self.ask(source);
        self.load(target, usize::try_from(len.unwrap_or(4)).unwrap_or(4), loaded);
        Ok(())
    }

    fn hash(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_HASH_SREG, NFTA_HASH_DREG, NFTA_HASH_LEN. A symmetric one has no source: it is of addresses and ports.
        self.derive(number(data, 1)?, number(data, 2)?, Some(4));
        Ok(())
    }

    fn lookup(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_DREG; register 0 is the verdict
        let is_map = number(data, 3)? == Some(0);
        self.has_map |= is_map;
        self.reading.acts |= is_map;
        self.sets.extend(data.find(1).map(Attr::text));
        self.reading.words.push("lookup".into());
        self.ask(number(data, 2)?);
        self.load(number(data, 3)?.filter(|target| *target != 0), 16, Loaded::Plain);
        Ok(())
    }

    fn dynset(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_DYNSET_SREG_KEY, NFTA_DYNSET_SREG_DATA
        self.ask(number(data, 4)?);
        self.ask(number(data, 5)?);
        let name = if is_rated(data, 7, 10)? { "meter" } else { "dynset" };
        self.reading.acts = true;
        self.reading.words.push(name.into());
        self.reading.see(Place::Expression, name);
        // NFTA_DYNSET_SET_NAME, NFTA_DYNSET_OP and NFTA_DYNSET_TIMEOUT
        match (number(data, 3)?, data.find(6).map(Attr::be64).transpose()?) {
            (Some(DELETE), _) => self.reading.see(Place::Expression, "toggle"),
            (_, Some(time)) if is_brief(time) => self.reading.see(Place::Expression, "brief set"),
            (_, None | Some(0)) => self.adds_to.extend(data.find(1).map(Attr::text)),
            _ => {}
        }
        Ok(())
    }

    fn object(&mut self, data: Attrs<'_>) -> Result<(), Malformed> {
        // NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_*. Without it, NFTA_OBJREF_SET_SREG and NFTA_OBJREF_SET_NAME: a map that
        // leads to counters, quotas, limits.
        let kind = number(data, 1)?;
        let name = if kind.is_none() && data.find(4).is_some() {
            self.ask(number(data, 3)?);
            "counter".to_owned()
        } else {
            key_name(&OBJECTS, kind)
        };
        self.reading.words.push(format!("{name} object"));
        self.reading.acts = true;
        self.reading.see(Place::Object, &name);
        Ok(())
    }

    fn load(&mut self, register: Option<u32>, len: usize, loaded: Loaded) {
        if let Some(register) = register {
            self.registers.load(register, len, loaded);
        }
    }

    fn derive(&mut self, from: Option<u32>, to: Option<u32>, len: Option<u32>) {
        let keys = from.into_iter().flat_map(|register| self.registers.key(register));
        let derived = Loaded::derived(keys);
        let len = usize::try_from(len.unwrap_or(4)).unwrap_or(4);
        self.load(to, len, derived);
    }

    /// A register, and those that follow it, decide something.
    fn ask(&mut self, register: Option<u32>) {
        let keys = register.into_iter().flat_map(|register| self.registers.key(register));
        let varying: Vec<_> = keys.filter_map(Loaded::varies).collect();
        for found in varying {
            self.judge(found);
        }
    }

    fn judge(&mut self, varying: Varying) {
        let Varying {
            what,
            reason,
            icmp_only,
        } = varying;
        // What of it is another protocol's is what its other words say.
        if icmp_only {
            self.reading.judges_icmp(what, reason);
            return;
        }
        self.reading.words.push(what.into());
        self.reading.judges(what, reason);
    }
}

/// Whether so many milliseconds are too short for what the fast path leaves to rules; 0: for ever.
pub(super) const fn is_brief(time: u64) -> bool {
    time != 0 && time <= BRIEF_MS
}

/// A number of an expression, if it is there.
pub(super) fn number(attrs: Attrs<'_>, kind: u16) -> Result<Option<u32>, Malformed> {
    attrs.find(kind).map(Attr::be32).transpose()
}

/// What nft calls a number; of one that it does not know, the number.
fn key_name(names: &[&str], key: Option<u32>) -> String {
    let Some(key) = key else {
        return "?".into();
    };
    let name = usize::try_from(key).ok().and_then(|key| names.get(key));
    name.filter(|name| !name.is_empty())
        .map_or_else(|| format!("key {key}"), ToString::to_string)
}
