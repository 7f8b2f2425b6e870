//! Findings in nftables rules (`NFT_MSG_GETRULE`, `linux/netfilter/nf_tables.h`), iptables-nft's among them.

use std::collections::{BTreeSet, HashMap};

use super::first::{is_other_protocol, is_unreplied, opens_or_closes, xt_is_always_slow};
use super::kind::{Kind, by_name, of_nft, of_xt};
use super::ways::{Chain, Common, Entrance, Graph};
use crate::observe::nftables::{GETRULE, GETSET, NEWRULE, NEWSET, NFGENMSG, family};
use crate::observe::socket::{Asker, DUMP, NetlinkError};
use crate::observe::wire::{Attr, Attrs, Message, Request, u32_at};
use crate::world::{NftChain, RuleFinding, RuleSource, Verdict};

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
/// `NFTA_MATCH_NAME` and `NFTA_TARGET_NAME`.
const XT_NAME: u16 = 1;

/// Looks through all rules of the socket's namespace.
pub fn findings(asker: &mut Asker, chains: &BTreeSet<NftChain>) -> Result<Vec<RuleFinding>, NetlinkError> {
    let request = Request::new(GETSET, DUMP, &[0; NFGENMSG]);
    let judging = asker.dump("nftables sets", &request, |sets: &mut BTreeSet<Set>, message| {
        if message.kind == NEWSET {
            sets.extend(judging_set(message));
        }
        Ok(())
    })?;
    let request = Request::new(GETRULE, DUMP, &[0; NFGENMSG]);
    let rules = asker.dump("nftables rules", &request, |rules: &mut Vec<Rule>, message| {
        if message.kind == NEWRULE {
            rules.extend(parse(message));
        }
        Ok(())
    })?;
    Ok(judge(rules, chains, &judging))
}

/// The findings of rules, with the ways that lead to each.
pub fn judge(mut rules: Vec<Rule>, chains: &BTreeSet<NftChain>, judging: &BTreeSet<Set>) -> Vec<RuleFinding> {
    let mut graph = Graph::default();
    for chain in chains {
        let at = (chain.family.clone(), chain.table.clone(), chain.name.clone());
        graph.enter(at, Entrance::of(chain));
    }
    for rule in &mut rules {
        let (family, table, _) = &rule.chain;
        let is_judging = |set: &String| judging.contains(&(family.clone(), table.clone(), set.clone()));
        if rule.sets.iter().any(is_judging) {
            rule.kinds.extend(by_name("meter"));
        }
        if rule.has_map {
            graph.obscure(family, table);
        }
        if let Some(to) = &rule.jump {
            let to = (family.clone(), table.clone(), to.clone());
            graph.jump(rule.chain.clone(), to, rule.common.clone());
        }
    }
    let found = rules.iter().flat_map(|rule| rule.findings(&graph));
    found.collect()
}

/// A set: its family, its table, its name.
pub type Set = (String, String, String);

/// A set whose elements limit by rate or amount: to look something up in it is to be judged.
pub fn judging_set(message: Message<'_>) -> Option<Set> {
    // NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_EXPR (one) and NFTA_SET_EXPRESSIONS (a list).
    let attrs = Attrs::after(message.payload, NFGENMSG);
    has_rate(attrs, 17, 18)
        .then(|| {
            let family = family(*message.payload.first()?);
            Some((family, attrs.find(1)?.text(), attrs.find(2)?.text()))
        })
        .flatten()
}

/// Reads a rule; `None` if it has no table, chain or expressions.
pub fn parse(message: Message<'_>) -> Option<Rule> {
    let attrs = Attrs::after(message.payload, NFGENMSG);
    let number = *message.payload.first()?;
    let text = |kind| attrs.find(kind).map(Attr::text);
    let mut rule = Rule {
        chain: (family(number), text(NFTA_RULE_TABLE)?, text(NFTA_RULE_CHAIN)?),
        handle: attrs.find(NFTA_RULE_HANDLE).and_then(Attr::be64).unwrap_or(0),
        version: match number {
            2 => Some(Version::V4),
            10 => Some(Version::V6),
            _ => None,
        },
        ..Rule::default()
    };
    for element in attrs.find(NFTA_RULE_EXPRESSIONS)?.nested() {
        rule.read(element.nested());
    }
    Some(rule)
}

/// What a register holds, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    IncomingName,
    OutgoingName,
    /// An interface's index, in host order
    IncomingIndex,
    OutgoingIndex,
    /// IANA protocol number
    Protocol,
    /// The byte of flags, under a mask
    TcpFlags(u8),
    /// `NF_CT_STATE_BIT`s, in host order, under a mask
    State(u32),
    /// `NFPROTO_*`
    NetfilterProtocol,
    /// `ETH_P_*`, in network order
    EtherType,
}

/// Of which IP version the packets are that the rest of a rule sees: by its table's family, or by a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

/// What has been read of a rule.
#[derive(Default)]
pub struct Rule {
    chain: Chain,
    handle: u64,
    kinds: Vec<&'static Kind>,
    words: Vec<String>,
    common: Common,
    verdict: Verdict,
    /// The chain that it leads to.
    jump: Option<String>,
    /// Whether it looks a verdict up.
    has_map: bool,
    /// The sets that it looks something up in.
    sets: Vec<String>,
    registers: HashMap<u32, Loaded>,
    version: Option<Version>,
}

impl Rule {
    fn findings(&self, graph: &Graph) -> Vec<RuleFinding> {
        if self.kinds.is_empty() {
            return Vec::new();
        }
        let ways = graph.ways(&self.chain, &self.common);
        let finding = |kind: &&Kind| RuleFinding {
            source: RuleSource::Nft,
            family: self.chain.0.clone(),
            table: self.chain.1.clone(),
            chain: self.chain.2.clone(),
            rule: self.handle,
            what: kind.what,
            severity: kind.severity,
            reason: kind.reason,
            iif: self.common.iif.clone(),
            oif: self.common.oif.clone(),
            ways: ways.clone(),
            verdict: self.verdict,
            text: self.words.join(" "),
        };
        self.kinds.iter().map(finding).collect()
    }

    fn read(&mut self, expression: Attrs<'_>) {
        let Some(name) = expression.find(NFTA_EXPR_NAME).map(Attr::text) else {
            return;
        };
        let data = expression.find(NFTA_EXPR_DATA).map_or(Attrs(&[]), Attr::nested);
        match name.as_str() {
            "match" | "target" => {
                let xt = data.find(XT_NAME).map(Attr::text).unwrap_or_default();
                self.kinds.extend(of_xt(&xt));
                // NFTA_MATCH_REV and NFTA_MATCH_INFO
                let revision = number(data, 2).and_then(|number| u8::try_from(number).ok());
                let info = data.find(3).map_or(&[][..], |info| info.payload);
                if name == "match" && xt_is_always_slow(&xt, revision.unwrap_or(u8::MAX), info) {
                    self.common.always_slow = true;
                }
                if matches!(xt.as_str(), "REJECT" | "DROP") {
                    self.verdict = Verdict::Drop;
                }
                self.words
                    .push(format!("{} {xt}", if name == "match" { "-m" } else { "-j" }));
            }
            "meta" => self.meta(data),
            "cmp" => self.compare(data),
            "ct" => {
                self.kinds.extend(ct(data).and_then(by_name));
                // NFTA_CT_DREG; NFT_CT_STATE
                let state = number(data, 2) == Some(0);
                self.load(number(data, 1), state.then_some(Loaded::State(u32::MAX)));
            }
            "payload" => {
                self.kinds.extend(payload(data, self.version).and_then(by_name));
                self.load(number(data, 1), header_field(data, self.version));
            }
            "bitwise" => self.mask(data),
            "lookup" => {
                // NFTA_LOOKUP_SET, NFTA_LOOKUP_DREG; register 0 is the verdict
                self.has_map |= number(data, 3) == Some(0);
                self.sets.extend(data.find(1).map(Attr::text));
                self.words.push(name);
            }
            "objref" => self.kinds.extend(object(data).and_then(by_name)),
            "immediate" => self.immediate(data),
            "dynset" => self
                .kinds
                .extend(by_name(if has_rate(data, 7, 10) { "meter" } else { "dynset" })),
            "reject" => {
                self.verdict = Verdict::Drop;
                self.words.push("reject".into());
            }
            "queue" => {
                self.verdict = Verdict::Queue;
                self.kinds.extend(of_nft(&name));
                self.words.push("queue".into());
            }
            "log" => {
                const NFTA_LOG_GROUP: u16 = 1;
                let to_group = data.find(NFTA_LOG_GROUP).is_some();
                self.kinds.extend(by_name(if to_group { "nflog" } else { "log" }));
                self.words.push("log".into());
            }
            "counter" | "byteorder" => {}
            _ => {
                self.kinds.extend(of_nft(&name));
                self.words.push(name);
            }
        }
    }

    fn meta(&mut self, data: Attrs<'_>) {
        // NFTA_META_DREG, NFTA_META_KEY, NFTA_META_SREG; NFT_META_*
        let (target, key, source) = (number(data, 1), number(data, 2), number(data, 3));
        let what = match key {
            Some(2 | 3 | 14) if source.is_some() => Some("mark"),
            Some(12) if source.is_some() => Some("trace"),
            Some(0) => Some("content"),
            Some(24) => Some("statistic"),
            Some(30..=32) => Some("time"),
            _ => None,
        };
        self.kinds.extend(what.and_then(by_name));
        self.words.extend(what.map(String::from));
        let loaded = match key {
            Some(4) => Some(Loaded::IncomingIndex),
            Some(5) => Some(Loaded::OutgoingIndex),
            Some(6) => Some(Loaded::IncomingName),
            Some(7) => Some(Loaded::OutgoingName),
            Some(15) => Some(Loaded::NetfilterProtocol),
            Some(16) => Some(Loaded::Protocol),
            Some(1) => Some(Loaded::EtherType),
            _ => None,
        };
        self.load(target, loaded);
    }

    fn load(&mut self, register: Option<u32>, loaded: Option<Loaded>) {
        let Some(register) = register else { return };
        match loaded {
            Some(loaded) => self.registers.insert(register, loaded),
            None => self.registers.remove(&register),
        };
    }

    /// `register = register & mask ^ flip`.
    fn mask(&mut self, data: Attrs<'_>) {
        // NFTA_BITWISE_SREG, _DREG, _MASK and _XOR with NFTA_DATA_VALUE in them, _OP: 0 is this one.
        let value = |kind| data.find(kind).and_then(|value| value.nested().find(1));
        let is_mask = number(data, 6).unwrap_or(0) == 0;
        let is_plain = value(5).is_some_and(|flip| flip.payload.iter().all(|byte| *byte == 0));
        let before = number(data, 1).and_then(|register| self.registers.get(&register).copied());
        let after = match (before, value(4).map(|mask| mask.payload)) {
            _ if !is_mask || !is_plain => None,
            (Some(Loaded::TcpFlags(old)), Some([mask, ..])) => Some(Loaded::TcpFlags(old & mask)),
            (Some(Loaded::State(old)), Some(mask)) => u32_at(mask, 0).map(|mask| Loaded::State(old & mask)),
            _ => None,
        };
        self.load(number(data, 2), after);
    }

    fn compare(&mut self, data: Attrs<'_>) {
        // NFTA_CMP_SREG, NFTA_CMP_OP (NFT_CMP_EQ 0, NFT_CMP_NEQ 1), NFTA_CMP_DATA with NFTA_DATA_VALUE in it
        let value = data.find(3).and_then(|value| value.nested().find(1));
        let (Some(register), Some(value)) = (number(data, 1), value) else {
            return;
        };
        let Some(loaded) = self.registers.get(&register).copied() else {
            return;
        };
        match number(data, 2) {
            Some(0) => self.equals(loaded, value),
            // `ct state new` and `tcp flags syn` ask whether anything is left under a mask.
            Some(1) if value.payload.iter().all(|byte| *byte == 0) => match loaded {
                Loaded::State(mask) => self.common.always_slow |= is_unreplied(mask),
                Loaded::TcpFlags(mask) => self.common.always_slow |= mask != 0 && mask & !7 == 0,
                Loaded::IncomingName
                | Loaded::OutgoingName
                | Loaded::IncomingIndex
                | Loaded::OutgoingIndex
                | Loaded::Protocol
                | Loaded::NetfilterProtocol
                | Loaded::EtherType => {}
            },
            _ => {}
        }
    }

    fn equals(&mut self, loaded: Loaded, value: Attr<'_>) {
        // Without a terminating zero it is the beginning of a name, for `eth*`.
        let name = Some(value.text()).filter(|_| value.payload.contains(&0));
        let by_index = || nix::net::if_::if_indextoname(value.u32()?).ok()?.into_string().ok();
        match loaded {
            Loaded::IncomingName => {
                self.words.push(format!("iifname {}", value.text()));
                self.common.iif = name;
            }
            Loaded::OutgoingName => {
                self.words.push(format!("oifname {}", value.text()));
                self.common.oif = name;
            }
            Loaded::IncomingIndex => {
                self.common.iif = by_index();
                self.words
                    .extend(self.common.iif.iter().map(|name| format!("iif {name}")));
            }
            Loaded::OutgoingIndex => {
                self.common.oif = by_index();
                self.words
                    .extend(self.common.oif.iter().map(|name| format!("oif {name}")));
            }
            Loaded::NetfilterProtocol | Loaded::EtherType => {
                self.version = match value.payload {
                    [2, ..] | [0x08, 0x00, ..] => Some(Version::V4),
                    [10, ..] | [0x86, 0xdd, ..] => Some(Version::V6),
                    _ => None,
                };
            }
            Loaded::Protocol => self.common.always_slow |= value.u8().is_some_and(is_other_protocol),
            Loaded::TcpFlags(mask) => {
                self.common.always_slow |= value.u8().is_some_and(|flags| opens_or_closes(mask, flags));
            }
            Loaded::State(mask) => {
                self.common.always_slow |= value.u32().is_some_and(|states| is_unreplied(mask & states));
            }
        }
    }

    fn immediate(&mut self, data: Attrs<'_>) {
        // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN
        let Some(verdict) = data.find(2).and_then(|data| data.nested().find(2)) else {
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
                self.kinds.extend(of_nft("queue"));
                (Verdict::Queue, "queue".into())
            }
            _ => return,
        };
        self.verdict = kind;
        self.jump = (kind == Verdict::Jump).then_some(chain);
        self.words.push(word);
    }
}

fn number(attrs: Attrs<'_>, kind: u16) -> Option<u32> {
    attrs.find(kind).and_then(Attr::be32)
}

fn ct(data: Attrs<'_>) -> Option<&'static str> {
    // NFTA_CT_KEY, NFTA_CT_SREG; NFT_CT_*
    let sets = data.find(4).is_some();
    match number(data, 2)? {
        3 | 4 | 13 if sets => Some("mark"),
        17 if sets => Some("ct target"),
        6 => Some("ct helper"),
        14..=16 => Some("connbytes"),
        _ => None,
    }
}

fn payload(data: Attrs<'_>, version: Option<Version>) -> Option<&'static str> {
    // NFTA_PAYLOAD_BASE, _OFFSET, _LEN, _SREG; the bases are link layer 0, network 1, transport 2, inner 3. In the
    // network header it is about length and hop limit of IPv6, and length, identification and TTL of IPv4.
    if data.find(5).is_some() {
        return Some("rewrite");
    }
    let (offset, len) = (number(data, 3)?, number(data, 4)?);
    let covers = |byte: u32| offset <= byte && byte < offset.saturating_add(len);
    match number(data, 2)? {
        1 if version == Some(Version::V6) => (covers(4) || covers(7)).then_some("content"),
        1 => [2, 4, 8].into_iter().any(covers).then_some("content"),
        // Beyond the ports, other than TCP's flags.
        2 if offset.saturating_add(len) > 4 && !matches!(offset, 12 | 13) => Some("content"),
        3 => Some("content"),
        _ => None,
    }
}

/// A field of a header that tells whether packets are on the fast path at all.
fn header_field(data: Attrs<'_>, version: Option<Version>) -> Option<Loaded> {
    // NFTA_PAYLOAD_BASE, _OFFSET, _LEN
    match (number(data, 2)?, number(data, 3)?, number(data, 4)?) {
        (1, 9, 1) if version == Some(Version::V4) => Some(Loaded::Protocol),
        (2, 13, 1) => Some(Loaded::TcpFlags(u8::MAX)),
        _ => None,
    }
}

fn object(data: Attrs<'_>) -> Option<&'static str> {
    // NFTA_OBJREF_IMM_TYPE; NFT_OBJECT_*. Without it, NFTA_OBJREF_SET_NAME: a map that leads to counters, quotas, limits.
    let Some(kind) = number(data, 1) else {
        return data.find(4).map(|_| "accounting");
    };
    match kind {
        1 => Some("accounting"),
        2 => Some("quota"),
        3 | 7 | 9 => Some("ct target"),
        4 => Some("limit"),
        5 => Some("connlimit"),
        8 => Some("mark"),
        10 => Some("synproxy"),
        _ => None,
    }
}

/// Whether a set, or a statement that adds to one, limits by rate or amount per element:
/// `add @set { ip saddr limit rate 10/second }`. `one` is the attribute of a single expression, `list` of several.
fn has_rate(data: Attrs<'_>, one: u16, list: u16) -> bool {
    let one = data.find(one).into_iter().map(Attr::nested);
    let list = data
        .find(list)
        .map_or(Attrs(&[]), Attr::nested)
        .iter()
        .map(Attr::nested);
    one.chain(list)
        .filter_map(|expression| expression.find(NFTA_EXPR_NAME))
        .any(|name| matches!(name.text().as_str(), "limit" | "quota"))
}
