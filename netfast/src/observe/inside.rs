//! Looks into containers' network namespaces for the packet-filter rules there: whether they are Docker's for its resolver
//! (moby's `libnetwork/resolver_unix.go`), and nothing else.
//!
//! What is not exactly known is somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::{io, thread};

use nix::sched::{CloneFlags, setns};

use super::legacy;
use super::nftables::{self, GETCHAIN, GETRULE, NEWCHAIN, NEWRULE, NFGENMSG};
use crate::bytes::u32_at;
use crate::host::{InsideRules, ResolverRules, SavedChain, SavedRule};
use crate::sys::netlink::message::attributes;
use crate::sys::netlink::{Attr, Attrs, DUMP, Malformed, Message, NLA_F_NESTED, NetlinkError, NetlinkSocket, Request};

mod rule;

use rule::{Says, read as read_rule};

/// `NFT_MSG_NEWTABLE` and `NFT_MSG_GETTABLE` of the subsystem.
pub const NEWTABLE: u16 = nftables::SUBSYSTEM;
const GETTABLE: u16 = nftables::SUBSYSTEM | 1;
/// `NFPROTO_IPV4`.
pub const IPV4: u8 = 2;
/// The table.
pub const TABLE: &str = "nat";
/// Docker's chains, and those that lead to them.
pub const CHAINS: [(&str, &str); 2] = [("OUTPUT", "DOCKER_OUTPUT"), ("POSTROUTING", "DOCKER_POSTROUTING")];
/// What else iptables makes in this table.
const MORE_CHAINS: [&str; 2] = ["PREROUTING", "INPUT"];

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_CHAIN_USERDATA: u16 = 12;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_COMPAT: u16 = 5;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_RULE_COMPAT_PROTO: u16 = 1;
const NFTA_RULE_COMPAT_FLAGS: u16 = 2;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// Why a namespace cannot be looked into. The usual cause is that it is gone.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// It cannot be entered, or a file there cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What rules there are in the namespaces of these processes, each with its namespace's inode, by that inode. One that is
/// gone or cannot be looked into is left out.
pub fn look(namespaces: &BTreeSet<(u64, u32)>) -> BTreeMap<u64, InsideRules> {
    if namespaces.is_empty() {
        return BTreeMap::new();
    }
    let look_into = |netns: u64, pid: u32| -> Result<Option<InsideRules>, InsideError> {
        let file = File::open(format!("/proc/{pid}/ns/net"))?;
        if file.metadata()?.ino() != netns {
            return Ok(None);
        }
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        Ok(Some(here()?.0))
    };
    let look_all = || {
        let mut found = BTreeMap::new();
        for (netns, pid) in namespaces {
            match look_into(*netns, *pid) {
                Ok(rules) => found.extend(rules.map(|rules| (*netns, rules))),
                Err(error) => tracing::debug!(pid, %error, "rules in a network namespace not looked at"),
            }
        }
        found
    };
    thread::scope(|scope| scope.spawn(look_all).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The rules of the calling thread's namespace, and their generation.
pub fn here() -> Result<(InsideRules, u32), InsideError> {
    let legacy = legacy_tables()?;
    let mut socket = NetlinkSocket::netfilter()?;
    loop {
        let before = nftables::generation(&mut socket)?.unwrap_or_default();
        let found = nft_rules(&mut socket)?;
        if nftables::generation(&mut socket)?.unwrap_or_default() != before {
            continue;
        }
        let found = match (found, &legacy) {
            (InsideRules::None | InsideRules::Resolver(_), Some(text)) => InsideRules::Other(text.clone()),
            (found, _) => found,
        };
        return Ok((found, before));
    }
}

/// The chains of the table in the socket's namespace.
pub fn chain_names(socket: &mut NetlinkSocket) -> Result<Vec<String>, NetlinkError> {
    let all = Request::new(GETCHAIN, DUMP, &[IPV4, 0, 0, 0]);
    socket.dump("nftables chains", &all, |names: &mut Vec<String>, message| {
        let attrs = Attrs::after(message.payload, NFGENMSG)?;
        let (table, name) = (
            attrs.need(NFTA_CHAIN_TABLE, "the table")?,
            attrs.need(NFTA_CHAIN_NAME, "the name")?,
        );
        if message.kind == NEWCHAIN && table.text() == TABLE {
            names.push(name.text());
        }
        Ok(())
    })
}

/// What there is of iptables-legacy, if there is anything: whoever looks at a table makes it, so one without rules is nothing.
fn legacy_tables() -> io::Result<Option<String>> {
    let tables = legacy::tables()?;
    let with_rules = tables.iter().find(|table| !is_empty(table));
    Ok(with_rules.map(|table| format!("there are rules of iptables-legacy in the table {}", table.key())))
}

/// Whether a table has nothing but policies, which accept, and the entry at the end of every table.
fn is_empty(table: &legacy::Table) -> bool {
    /// `-NF_ACCEPT - 1`, as verdicts are written there.
    const ACCEPTS: i32 = -2;
    /// `struct xt_entry_target` before the verdict.
    const VERDICT: usize = 32;
    let policies = table.hooks.iter().flatten().count();
    let verdict = |entry: &legacy::Entry<'_>| u32_at(entry.bytes, entry.target + VERDICT).map(u32::cast_signed);
    let all: Vec<_> = table.iter().collect();
    all.len() == policies + 1 && all.iter().take(policies).all(|entry| verdict(entry) == Some(ACCEPTS))
}

/// A table.
#[derive(Debug, Default)]
struct Tables {
    nat: bool,
    other: Option<String>,
}

/// A chain, with what matters of it.
#[derive(Debug)]
struct Chain {
    saved: SavedChain,
    is_accepting: bool,
}

/// Rules with what they say.
type Rules = Vec<(SavedRule, Option<Says>)>;

fn nft_rules(socket: &mut NetlinkSocket) -> Result<InsideRules, NetlinkError> {
    let all = |kind| Request::new(kind, DUMP, &[0; NFGENMSG]);
    let tables = socket.dump("nftables tables", &all(GETTABLE), |tables: &mut Tables, message| {
        if message.kind == NEWTABLE {
            note_table(tables, message)?;
        }
        Ok(())
    })?;
    if let Some(other) = tables.other {
        return Ok(InsideRules::Other(format!("there is the nftables table {other}")));
    }
    if !tables.nat {
        return Ok(InsideRules::None);
    }
    let chains = socket.dump("nftables chains", &all(GETCHAIN), |chains: &mut Vec<Chain>, message| {
        if message.kind == NEWCHAIN {
            chains.push(chain(message)?);
        }
        Ok(())
    })?;
    let rules = socket.dump("nftables rules", &all(GETRULE), |rules: &mut Rules, message| {
        if message.kind == NEWRULE {
            rules.push(rule(message)?);
        }
        Ok(())
    })?;
    Ok(match judge(chains, rules) {
        Ok(rules) => InsideRules::Resolver(rules),
        Err(text) => InsideRules::Other(text),
    })
}

fn note_table(tables: &mut Tables, message: Message<'_>) -> Result<(), Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let name = attrs.need(NFTA_TABLE_NAME, "the name")?.text();
    let flags = attrs.find(NFTA_TABLE_FLAGS).map(Attr::be32).transpose()?.unwrap_or(0);
    let family = message.payload[0];
    if family == IPV4 && name == TABLE && flags == 0 {
        tables.nat = true;
    } else {
        tables.other = Some(format!("{} {name}", nftables::family(family)));
    }
    Ok(())
}

fn chain(message: Message<'_>) -> Result<Chain, Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let name = attrs.need(NFTA_CHAIN_NAME, "the name")?.text();
    let kept = [
        NFTA_CHAIN_TABLE,
        NFTA_CHAIN_NAME,
        NFTA_CHAIN_HOOK,
        NFTA_CHAIN_POLICY,
        NFTA_CHAIN_TYPE,
        NFTA_CHAIN_USERDATA,
    ];
    let policy = attrs.find(NFTA_CHAIN_POLICY).map(Attr::be32).transpose()?;
    Ok(Chain {
        saved: SavedChain {
            is_base: attrs.find(NFTA_CHAIN_HOOK).is_some(),
            attributes: keep(attrs, &kept),
            name,
        },
        is_accepting: policy.is_none_or(|policy| policy == ACCEPT),
    })
}

fn rule(message: Message<'_>) -> Result<(SavedRule, Option<Says>), Malformed> {
    let attrs = Attrs::after(message.payload, NFGENMSG)?;
    let chain = attrs.need(NFTA_RULE_CHAIN, "the chain")?.text();
    let says = read_rule(attrs.inside(NFTA_RULE_EXPRESSIONS)?)?;
    let kept = [
        NFTA_RULE_TABLE,
        NFTA_RULE_CHAIN,
        NFTA_RULE_EXPRESSIONS,
        NFTA_RULE_USERDATA,
    ];
    let mut attributes = keep(attrs, &kept);
    if let Some(protocol) = says.as_ref().and_then(|says| says.protocol) {
        // iptables says this besides, for matches and targets of xtables; the kernel does not tell it again.
        let compat = self::attributes(&[
            (NFTA_RULE_COMPAT_PROTO, &u32::from(protocol).to_be_bytes()),
            (NFTA_RULE_COMPAT_FLAGS, &[0; 4]),
        ]);
        attributes.extend(self::attributes(&[(NFTA_RULE_COMPAT | NLA_F_NESTED, &compat)]));
    }
    Ok((SavedRule { chain, attributes }, says))
}

/// The attributes of these kinds, as they came.
fn keep(attrs: Attrs<'_>, kinds: &[u16]) -> Vec<u8> {
    let nested = [NFTA_CHAIN_HOOK, NFTA_RULE_EXPRESSIONS];
    let mut kept = Vec::new();
    for attr in attrs.iter().filter(|attr| kinds.contains(&attr.kind)) {
        // Numbers of both kinds of messages mean something nested, or nothing that is kept.
        let flag = if nested.contains(&attr.kind) { NLA_F_NESTED } else { 0 };
        kept.extend(attributes(&[(attr.kind | flag, attr.payload)]));
    }
    kept
}

/// Whether these are Docker's rules for its resolver, and nothing else: exactly as it writes them.
fn judge(chains: Vec<Chain>, rules: Rules) -> Result<ResolverRules, String> {
    for Chain { saved, is_accepting } in &chains {
        let is_known = if saved.is_base {
            CHAINS.iter().any(|(base, _)| saved.name == *base) || MORE_CHAINS.contains(&saved.name.as_str())
        } else {
            CHAINS.iter().any(|(_, own)| saved.name == *own)
        };
        if !is_known || !is_accepting {
            return Err(format!("the chain {} in table nat is not Docker's alone", saved.name));
        }
    }
    let of = |chain: &str| -> Vec<Option<&Says>> {
        let rules = rules.iter().filter(|(saved, _)| saved.chain == chain);
        rules.map(|(_, says)| says.as_ref()).collect()
    };
    let odd = |chain: &str| format!("the rules of the chain {chain} in table nat are not as Docker writes them");
    let mut ports: [Option<[u16; 2]>; 2] = [None; 2];
    for ((base, own), found) in CHAINS.into_iter().zip(&mut ports) {
        if of(base) != [Some(&Says::jump(own))] {
            return Err(odd(base));
        }
        // TCP's comes first, since each rule is inserted before the ones that are there.
        let rules = of(own);
        let [Some(tcp), Some(udp)] = rules[..] else {
            return Err(odd(own));
        };
        let port = |says: &Says, protocol| {
            if own == CHAINS[0].1 {
                says.dnat(protocol)
            } else {
                says.snat(protocol)
            }
        };
        let (Some(tcp), Some(udp)) = (port(tcp, rule::TCP), port(udp, rule::UDP)) else {
            return Err(odd(own));
        };
        *found = Some([udp, tcp]);
    }
    let expected: usize = 6;
    match ports {
        [Some([udp, tcp]), Some(back)] if [udp, tcp] == back && rules.len() == expected => Ok(ResolverRules {
            udp,
            tcp,
            chains: chains.into_iter().map(|chain| chain.saved).collect(),
            rules: rules.into_iter().map(|(saved, _)| saved).collect(),
        }),
        _ => Err("the rules in table nat are not as Docker writes them".into()),
    }
}
