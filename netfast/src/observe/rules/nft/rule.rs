//! One nftables rule, read expression by expression: what its registers hold, and what is made of it.

use super::super::field::{Bytes, Header, Outcome};
use super::super::reading::Reading;
use super::super::table::{CT, Class, EXTENSIONS, META, OBJECTS, Place, find};
use super::super::ways::{Chain, Common};
use super::super::xt::{is_other_protocol, is_unreplied};
use super::registers::{Loaded, Registers};
use super::{NFTA_EXPR_NAME, is_rated};
use crate::observe::nftables::{NFGENMSG, family};
use crate::observe::wire::{Attr, Attrs, Message, u32_at};
use crate::world::Verdict;

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_DATA: u16 = 2;
/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`.
const XT_NAME: u16 = 1;

/// Reads a rule; `None` if it has no table, chain or expressions.
pub fn parse(message: Message<'_>) -> Option<Rule> {
    let attrs = Attrs::after(message.payload, NFGENMSG);
    let number = *message.payload.first()?;
    let text = |kind| attrs.find(kind).map(Attr::text);
    let family = family(number);
    let mut rule = Rule {
        reading: Reading::new(Common::default(), ["bridge", "netdev"].contains(&family.as_str())),
        chain: (family, text(NFTA_RULE_TABLE)?, text(NFTA_RULE_CHAIN)?),
        handle: attrs.find(NFTA_RULE_HANDLE).and_then(Attr::be64).unwrap_or(0),
        network: match number {
            2 => Header::Ip4,
            10 => Header::Ip6,
            _ => Header::Ip,
        },
        ..Rule::default()
    };
    for element in attrs.find(NFTA_RULE_EXPRESSIONS)?.nested() {
        rule.read(element.nested());
    }
    Some(rule)
}

/// What has been read of a rule.
pub struct Rule {
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
    registers: Registers,
    /// Which headers the packets have that the rest of the rule sees: by its table's family, or by a comparison.
    network: Header,
    transport: Header,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            chain: Chain::default(),
            handle: 0,
            reading: Reading::default(),
            has_map: false,
            sets: Vec::new(),
            registers: Registers::default(),
            network: Header::Ip,
            transport: Header::Transport,
        }
    }
}

impl Rule {
    fn read(&mut self, expression: Attrs<'_>) {
        let Some(name) = expression.find(NFTA_EXPR_NAME).map(Attr::text) else {
            return;
        };
        let data = expression.find(NFTA_EXPR_DATA).map_or(Attrs(&[]), Attr::nested);
        match name.as_str() {
            "match" | "target" => self.compat(&name, data),
            "meta" => self.meta(data),
            "ct" => self.ct(data),
            "payload" => self.payload(data),
            "exthdr" => self.extension(data),
            "cmp" => self.compare(data),
            "bitwise" => self.mask(data),
            // NFTA_BYTEORDER_SREG, NFTA_BYTEORDER_DREG, NFTA_BYTEORDER_LEN
            "byteorder" => self.derive(number(data, 1), number(data, 2), number(data, 4)),
            // NFTA_RANGE_SREG
            "range" => self.ask(number(data, 1)),
            "lookup" => self.lookup(data),
            "objref" => self.object(data),
            "immediate" => self.immediate(data),
            "dynset" => self.dynset(data),
            "hash" => self.hash(data),
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
            _ => self.other(&name, data),
        }
    }

    /// An expression that is known by its name alone. What it puts in a register is judged with it; where that is does not
    /// matter, since the attribute is not the same for all of them: what was there before is judged besides.
    fn other(&mut self, name: &str, data: Attrs<'_>) {
        if find(Place::Expression, name).is_some() {
            self.reading.words.push(name.to_owned());
        }
        // NFTA_FIB_DREG, NFTA_RT_DREG, NFTA_NG_DREG, NFTA_OSF_DREG: 1; NFTA_SOCKET_DREG: 2
        let target = match name {
            "fib" | "rt" | "numgen" | "osf" => number(data, 1),
            "socket" => number(data, 2),
            _ => None,
        };
        self.load(target, 4, Loaded::Plain);
        self.reading.see(Place::Expression, name);
    }

    fn compat(&mut self, name: &str, data: Attrs<'_>) {
        let xt = data.find(XT_NAME).map(Attr::text).unwrap_or_default();
        // NFTA_MATCH_REV and NFTA_MATCH_INFO
        let revision = number(data, 2).and_then(|number| u8::try_from(number).ok());
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
    }

    fn meta(&mut self, data: Attrs<'_>) {
        // NFTA_META_DREG, NFTA_META_KEY, NFTA_META_SREG; NFT_META_*
        let (target, key, source) = (number(data, 1), number(data, 2), number(data, 3));
        let name = key_name(&META, key);
        if source.is_some() {
            self.reading.words.push(format!("meta {name} set"));
            self.reading.see(Place::MetaSet, &name);
            self.ask(source);
            return;
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
    }

    fn ct(&mut self, data: Attrs<'_>) {
        // NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_SREG; NFT_CT_*
        let (target, key, source) = (number(data, 1), number(data, 2), number(data, 4));
        let name = key_name(&CT, key);
        if source.is_some() {
            self.reading.words.push(format!("ct {name} set"));
            self.reading.see(Place::CtSet, &name);
            self.ask(source);
            return;
        }
        let loaded = if key == Some(0) {
            Loaded::State(u32::MAX)
        } else {
            self.key(Place::Ct, &name)
        };
        let len = if name.contains("addr") || name == "label" {
            16
        } else {
            4
        };
        self.load(target, len, loaded);
    }

    /// What a key of `meta` or `ct` loads. What judges is found when something is made of it.
    fn key(&mut self, place: Place, name: &str) -> Loaded {
        match find(place, name) {
            Some(known) if known.row.class == Class::Judges => Loaded::Judging(known.what(), known.row.reason),
            _ => {
                self.reading.see(place, name);
                Loaded::Plain
            }
        }
    }

    fn payload(&mut self, data: Attrs<'_>) {
        // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN, _SREG; the bases are link layer 0, network 1, transport 2, inner 3.
        let header = match number(data, 2) {
            Some(0) => Header::Link,
            Some(1) => self.network,
            Some(2) => self.transport,
            _ => Header::Inner,
        };
        let (offset, len) = (number(data, 3).unwrap_or(u32::MAX), number(data, 4).unwrap_or(1));
        // No register is longer (`NFT_REG_SIZE` times four).
        let len = usize::try_from(len).unwrap_or(usize::MAX).clamp(1, 64);
        if let Some(source) = number(data, 5) {
            self.write(Bytes::load(header, offset, len), source);
            return;
        }
        let loaded = match (header, offset, len) {
            (Header::Ip4, 9, 1) | (Header::Ip6, 6, 1) => Loaded::Protocol,
            (Header::Link, 12, 2) => Loaded::EtherType,
            _ => Loaded::Bytes(Bytes::load(header, offset, len)),
        };
        self.load(number(data, 1), len, loaded);
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
        let varies = matches!(changed.varies(), Outcome::Varies(..));
        self.reading.see(Place::Target, if varies { "TTL" } else { "DSCP" });
    }

    fn extension(&mut self, data: Attrs<'_>) {
        // NFTA_EXTHDR_DREG, _LEN, _OP, _SREG; NFT_EXTHDR_OP_*
        let (target, len, op, source) = (number(data, 1), number(data, 4), number(data, 6), number(data, 7));
        let name = key_name(&EXTENSIONS, Some(op.unwrap_or(0)));
        let loaded = self.key(Place::Extension, &name);
        if let (None, Loaded::Judging(what, reason)) = (target, &loaded) {
            // `tcp option … set`, `reset tcp option …`
            self.reading.acts = true;
            self.judge((what, reason));
        }
        self.ask(source);
        self.load(target, usize::try_from(len.unwrap_or(4)).unwrap_or(4), loaded);
    }

    fn hash(&mut self, data: Attrs<'_>) {
        // NFTA_HASH_SREG, NFTA_HASH_DREG, NFTA_HASH_LEN. A symmetric one has no source: it is of addresses and ports.
        self.derive(number(data, 1), number(data, 2), Some(4));
    }

    fn lookup(&mut self, data: Attrs<'_>) {
        // NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_DREG; register 0 is the verdict
        let is_map = number(data, 3) == Some(0);
        self.has_map |= is_map;
        self.reading.acts |= is_map;
        self.sets.extend(data.find(1).map(Attr::text));
        self.reading.words.push("lookup".into());
        self.ask(number(data, 2));
        self.load(number(data, 3).filter(|target| *target != 0), 16, Loaded::Plain);
    }

    fn dynset(&mut self, data: Attrs<'_>) {
        // NFTA_DYNSET_SREG_KEY, NFTA_DYNSET_SREG_DATA
        self.ask(number(data, 4));
        self.ask(number(data, 5));
        let name = if is_rated(data, 7, 10) { "meter" } else { "dynset" };
        self.reading.acts = true;
        self.reading.words.push(name.into());
        self.reading.see(Place::Expression, name);
    }

    fn object(&mut self, data: Attrs<'_>) {
        // NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_*. Without it, NFTA_OBJREF_SET_SREG and NFTA_OBJREF_SET_NAME: a map that
        // leads to counters, quotas, limits.
        let kind = number(data, 1);
        let name = if kind.is_none() && data.find(4).is_some() {
            self.ask(number(data, 3));
            "counter".to_owned()
        } else {
            key_name(&OBJECTS, kind)
        };
        self.reading.words.push(format!("{name} object"));
        self.reading.acts = true;
        self.reading.see(Place::Object, &name);
    }

    fn load(&mut self, register: Option<u32>, len: usize, loaded: Loaded) {
        if let Some(register) = register {
            self.registers.load(register, len, loaded);
        }
    }

    fn derive(&mut self, from: Option<u32>, to: Option<u32>, len: Option<u32>) {
        let keys = from.into_iter().flat_map(|register| self.registers.key(register));
        let varying = keys.map(Loaded::derived).find(|loaded| *loaded != Loaded::Plain);
        let len = usize::try_from(len.unwrap_or(4)).unwrap_or(4);
        self.load(to, len, varying.unwrap_or(Loaded::Plain));
    }

    /// A register, and those that follow it, decide something.
    fn ask(&mut self, register: Option<u32>) {
        let keys = register.into_iter().flat_map(|register| self.registers.key(register));
        let varying: Vec<_> = keys.filter_map(Loaded::varies).collect();
        for found in varying {
            self.judge(found);
        }
    }

    fn judge(&mut self, (what, reason): (&'static str, &'static str)) {
        self.reading.words.push(what.into());
        self.reading.judges(what, reason);
    }

    /// `register = register & mask ^ flip`.
    fn mask(&mut self, data: Attrs<'_>) {
        // NFTA_BITWISE_SREG, _DREG, _LEN, _MASK and _XOR with NFTA_DATA_VALUE in them, _OP: 0 is this one; NFTA_BITWISE_SREG2.
        let value = |kind| data.find(kind).and_then(|value| value.nested().find(1));
        let (source, target, len) = (number(data, 1), number(data, 2), number(data, 3));
        let is_mask = number(data, 6).unwrap_or(0) == 0;
        let flip = value(5).map_or(&[][..], |flip| flip.payload);
        let flipped = flip.iter().any(|byte| *byte != 0);
        let before = source.and_then(|register| self.registers.get(register));
        let after = match (before, value(4).map(|mask| mask.payload)) {
            (Some(Loaded::Bytes(bytes)), Some(mask))
                if is_mask && mask.len() == bytes.kept.len() && flip.len() == mask.len() =>
            {
                let kept = bytes.kept.iter().zip(mask).map(|(kept, mask)| kept & mask);
                let old = bytes.flip.iter().zip(mask).map(|(old, mask)| old & mask);
                Loaded::Bytes(Bytes {
                    kept: kept.collect(),
                    flip: old.zip(flip).map(|(old, flip)| old ^ flip).collect(),
                    ..bytes.clone()
                })
            }
            (Some(Loaded::State(old)), Some(mask)) if is_mask && !flipped => {
                u32_at(mask, 0).map_or(Loaded::Plain, |mask| Loaded::State(old & mask))
            }
            _ => {
                let second = number(data, 8).and_then(|register| self.registers.get(register));
                let mut both = source
                    .into_iter()
                    .flat_map(|register| self.registers.key(register))
                    .chain(second);
                both.find_map(Loaded::varies)
                    .map_or(Loaded::Plain, |(what, reason)| Loaded::Judging(what, reason))
            }
        };
        self.load(target, usize::try_from(len.unwrap_or(4)).unwrap_or(4), after);
    }

    fn compare(&mut self, data: Attrs<'_>) {
        // NFTA_CMP_SREG, NFTA_CMP_OP (NFT_CMP_EQ 0, NFT_CMP_NEQ 1), NFTA_CMP_DATA with NFTA_DATA_VALUE in it
        let value = data.find(3).and_then(|value| value.nested().find(1));
        let (Some(register), Some(value)) = (number(data, 1), value) else {
            return;
        };
        let Some(loaded) = self.registers.get(register).cloned() else {
            return;
        };
        let is_zero = value.payload.iter().all(|byte| *byte == 0);
        match (number(data, 2), &loaded) {
            (Some(op @ (0 | 1)), Loaded::Bytes(bytes)) => match bytes.compare(value.payload, op == 0) {
                Outcome::Repeatable => {}
                Outcome::Never => self.reading.common.always_slow = true,
                Outcome::Varies(what, reason) => self.judge((what, reason)),
            },
            (Some(0), _) => self.equals(&loaded, value),
            // `ct state new` asks whether anything is left under a mask.
            (Some(1), Loaded::State(mask)) if is_zero => self.reading.common.always_slow |= is_unreplied(*mask),
            _ => {}
        }
        if !matches!(loaded, Loaded::Bytes(_)) || !matches!(number(data, 2), Some(0 | 1)) {
            loaded.varies().into_iter().for_each(|found| self.judge(found));
        }
    }

    fn equals(&mut self, loaded: &Loaded, value: Attr<'_>) {
        // Without a terminating zero it is the beginning of a name, for `eth*`.
        let name = Some(value.text()).filter(|_| value.payload.contains(&0));
        let by_index = || nix::net::if_::if_indextoname(value.u32()?).ok()?.into_string().ok();
        let Reading { common, words, .. } = &mut self.reading;
        match loaded {
            Loaded::IncomingName => {
                words.push(format!("iifname {}", value.text()));
                common.iif = name;
            }
            Loaded::OutgoingName => {
                words.push(format!("oifname {}", value.text()));
                common.oif = name;
            }
            Loaded::IncomingIndex => {
                common.iif = by_index();
                words.extend(common.iif.iter().map(|name| format!("iif {name}")));
            }
            Loaded::OutgoingIndex => {
                common.oif = by_index();
                words.extend(common.oif.iter().map(|name| format!("oif {name}")));
            }
            Loaded::NetfilterProtocol | Loaded::EtherType => match value.payload {
                [2, ..] | [0x08, 0x00, ..] => self.network = Header::Ip4,
                [10, ..] | [0x86, 0xdd, ..] => self.network = Header::Ip6,
                // Neither IPv4 nor IPv6: ARP, a VLAN tag.
                _ => common.always_slow = true,
            },
            Loaded::Protocol => {
                common.always_slow |= value.u8().is_some_and(is_other_protocol);
                self.transport = match value.u8() {
                    Some(6) => Header::Tcp,
                    Some(17) => Header::Udp,
                    _ => Header::Transport,
                };
            }
            Loaded::State(mask) => {
                common.always_slow |= value.u32().is_some_and(|states| is_unreplied(mask & states));
            }
            Loaded::Plain | Loaded::Judging(..) | Loaded::Bytes(_) => {}
        }
    }

    fn immediate(&mut self, data: Attrs<'_>) {
        // NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN
        let content = data.find(2).map_or(Attrs(&[]), Attr::nested);
        let Some(verdict) = content.find(2) else {
            let len = content.find(1).map_or(4, |value| value.payload.len());
            self.load(number(data, 1), len, Loaded::Plain);
            return;
        };
        let verdict = verdict.nested();
        let chain = verdict.find(2).map(Attr::text).unwrap_or_default();
        let (kind, word) = match verdict.find(1).and_then(Attr::be32).map(u32::cast_signed) {
            Some(0) => (Verdict::Drop, "drop".into()),
            Some(1) => (Verdict::Accept, "accept".into()),
            Some(-3) => (Verdict::Jump, format!("jump {chain}")),
            Some(-4) => (Verdict::Jump, format!("goto {chain}")),
            Some(-5) => (Verdict::Return, "return".into()),
            // NF_QUEUE, with the queue's number in the upper half.
            Some(code) if code & 0xff == 3 => {
                self.reading.see(Place::Expression, "queue");
                (Verdict::Queue, "queue".into())
            }
            // NFT_CONTINUE
            Some(-1) => return,
            other => (Verdict::None, format!("verdict {}", other.unwrap_or_default())),
        };
        self.reading.decide(kind, word);
        self.reading.jump = (kind == Verdict::Jump).then_some(chain);
    }
}

fn number(attrs: Attrs<'_>, kind: u16) -> Option<u32> {
    attrs.find(kind).and_then(Attr::be32)
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
