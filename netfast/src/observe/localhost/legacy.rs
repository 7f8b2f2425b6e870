//! Rules of iptables-legacy for the host's own packets, as plain as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nft::{extension, plain};
use crate::{
    bytes::{text, u16_at, u32_at},
    host::{BaseChain, ChainName, Effect, Field, HostRules, IpNet, Match, Rule},
    observe::{
        legacy::{Entry, Family, Table},
        rules::legacy::{ERROR, HOOKS, chains, target},
    },
};

/// Bytes of an interface's name.
const NAME: usize = 16;
/// `struct xt_entry_match` before its data: size, name, revision.
const XT_HEADER: usize = 32;

/// Adds a table's rules.
pub fn read(table: &Table, rules: &mut HostRules) {
    let names = chains(table);
    let name = |chain: &str| -> ChainName {
        (
            format!("{} (legacy)", table.family.name()),
            table.name.clone(),
            chain.to_owned(),
        )
    };
    for (hook, chain) in (0_u32..).zip(HOOKS) {
        if table.hooks[hook as usize].is_some() {
            rules.bases.push(BaseChain {
                name: name(chain),
                hook,
                is_nat: table.name == "nat",
                // The policy is the chain's last rule.
                drops: false,
            });
        }
    }
    let (mut chain, mut number) = (String::new(), 0);
    for entry in table.iter() {
        if let Some(begins) = names.get(&entry.offset) {
            chain.clone_from(begins);
            number = 0;
        }
        number += 1;
        let rule = rule(&entry, table.family, &names);
        let Some((matches, effect)) = rule else { continue };
        let rule = Rule {
            matches,
            effect,
            number,
        };
        rules.chains.entry(name(&chain)).or_default().push(rule);
    }
}

fn rule(
    entry: &Entry<'_>,
    family: Family,
    names: &std::collections::HashMap<usize, String>,
) -> Option<(Vec<Match>, Effect)> {
    let (name, data) = target(entry)?;
    if name == ERROR {
        return None;
    }
    let matches = conditions(entry, family).unwrap_or_else(|| vec![plain(Field::Other("a match".into()))]);
    let effect = match name.as_str() {
        "" => standard(entry, data, names),
        "LOG" | "NFLOG" | "TRACE" => Effect::None,
        _ => Effect::Acts(name),
    };
    Some((matches, effect))
}

/// The standard target: a verdict as -code - 1, or the offset of the entry to go on with.
fn standard(entry: &Entry<'_>, data: &[u8], names: &std::collections::HashMap<usize, String>) -> Effect {
    match u32_at(data, 0).map(u32::cast_signed) {
        Some(-2) => Effect::Accept,
        Some(-5) => Effect::Return,
        Some(offset @ 0..) => {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            if offset == entry.offset + entry.bytes.len() {
                return Effect::None;
            }
            match names.get(&offset) {
                // A chain that is gone to does not come back, which is no worse than one that does.
                Some(chain) => Effect::Jump(chain.clone()),
                None => Effect::Acts("a jump".into()),
            }
        }
        _ => Effect::Acts("DROP".into()),
    }
}

fn conditions(entry: &Entry<'_>, family: Family) -> Option<Vec<Match>> {
    let layout = family.layout();
    let inverted = *entry.bytes.get(layout.inversion)?;
    let mut matches = Vec::new();
    // IPT_INV_VIA_IN 1, _VIA_OUT 2, _SRCIP 8, _DSTIP 16, _FRAG 32, XT_INV_PROTO 64
    let width = if family == Family::Ip { 4 } else { 16 };
    for (is_source, bit) in [(true, 8), (false, 16)] {
        let at = if is_source { 0 } else { width };
        let address = entry.bytes.get(at..at + width)?;
        let mask = entry.bytes.get(2 * width + at..2 * width + at + width)?;
        if mask.iter().all(|byte| *byte == 0) && inverted & bit == 0 {
            continue;
        }
        let field = match net(address, mask) {
            Some(net) if is_source => Field::Source(net),
            Some(net) => Field::Destination(net),
            None => Field::Other("an address".into()),
        };
        matches.push(Match {
            field,
            negated: inverted & bit != 0,
        });
    }
    for (which, bit) in [(0, 1), (1, 2)] {
        let at = |index: usize| entry.bytes.get(layout.interfaces + NAME * index..)?.get(..NAME);
        let name = text(at(which)?);
        if name.is_empty() {
            continue;
        }
        // The mask covers the terminating zero unless the name ends in '+'.
        let is_prefix = *at(2 + which)?.get(name.len())? == 0;
        let field = if which == 0 {
            Field::Incoming { name, is_prefix }
        } else {
            Field::Outgoing { name, is_prefix }
        };
        matches.push(Match {
            field,
            negated: inverted & bit != 0,
        });
    }
    let protocol = u16_at(entry.bytes, layout.protocol)?;
    if protocol != 0 {
        let field = u8::try_from(protocol).map_or(Field::Other("a protocol".into()), Field::Protocol);
        matches.push(Match {
            field,
            negated: inverted & 64 != 0,
        });
    }
    if layout.has_fragments && *entry.bytes.get(layout.inversion - 1)? & 1 != 0 {
        matches.push(plain(Field::Other("fragments".into())));
    }
    let mut offset = layout.matches;
    while offset < entry.target {
        let part = entry.bytes.get(offset..entry.target)?;
        let len = usize::from(u16_at(part, 0)?).max(XT_HEADER);
        let name = text(part.get(2..31)?);
        matches.extend(extension(&name, part.get(XT_HEADER..len).unwrap_or_default()));
        offset += len;
    }
    Some(matches)
}

/// A network by its mask; `None` if that has holes.
fn net(address: &[u8], mask: &[u8]) -> Option<IpNet> {
    if let (Ok(address), Ok(mask)) = (<[u8; 4]>::try_from(address), <[u8; 4]>::try_from(mask)) {
        let mask = u32::from_be_bytes(mask);
        let ones = mask.leading_ones();
        return (ones == mask.count_ones())
            .then(|| IpNet::new(IpAddr::V4(Ipv4Addr::from(address)), u8::try_from(ones).ok()?))?;
    }
    let mask = u128::from_be_bytes(mask.try_into().ok()?);
    let ones = mask.leading_ones();
    let address = Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?);
    (ones == mask.count_ones()).then(|| IpNet::new(IpAddr::V6(address), u8::try_from(ones).ok()?))?
}
