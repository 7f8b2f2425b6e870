//! The entries of the alias maps: what the program at the resolver's answers knows an alias by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netfast_common::{
    alias::{Alias, AliasKey, COUNTED, ENTRIES, MEMBERS, MemberKey, NAME, RecordType, address, digest, part},
    net::AnyIp,
};

use super::{AliasReport, AliasTable, Members};
use crate::{
    config::Config,
    host::{Attachment, Network},
    plan::vip::hash,
};

/// The longest label of a name (RFC 1035).
const MAX_LABEL: usize = 63;

/// Why an alias is not one that the program could know, if it is not.
pub(super) fn refusal(table: &AliasTable, network: &Network, name: &str, members: &Members<'_>) -> Option<String> {
    let spellings = spellings(network, name);
    if spellings.is_empty() {
        return Some(format!(
            "the name is longer than {NAME} bytes, or has an empty or too long part"
        ));
    }
    if members.len() > MEMBERS as usize {
        return Some(format!("it has more than {MEMBERS} members"));
    }
    let families = RecordType::ALL.len();
    if table.entries.len() + spellings.len() * 2 * families > ENTRIES as usize
        || table.members.len() + members.len() * families > COUNTED as usize
    {
        return Some("the table of aliases is full".into());
    }
    None
}

/// A name as it is asked for; none if it cannot be.
fn spellings(network: &Network, name: &str) -> Vec<[u8; NAME as usize]> {
    let Some(bare) = wire(name) else {
        return Vec::new();
    };
    // With the network's name it may be too long: then only the bare one is known.
    let spelled = wire(&format!("{name}.{}", network.name.to_ascii_lowercase()));
    [Some(bare), spelled].into_iter().flatten().collect()
}

/// Adds an alias to the table.
pub(super) fn add(
    table: &mut AliasTable,
    ambiguous: &mut BTreeSet<AliasKey>,
    network: &Network,
    report: &mut AliasReport,
    members: &Members<'_>,
    config: &Config,
) {
    let name = &report.alias;
    let spellings = spellings(network, name);
    for vip in report.vips() {
        let record_type = if vip.is_ipv4() { RecordType::A } else { RecordType::Aaaa };
        table.services.insert(id(&network.id.0, name, record_type));
    }
    // What answers of IPv6 leave out, those of IPv4 name.
    let is_named_by_ipv4 = |(_, on): &(_, &Attachment)| on.ipv6.is_none() || on.ipv4.is_some();
    let is_rotated = report.vips().next().is_none();
    report.one6 = is_rotated
        && members.iter().all(is_named_by_ipv4)
        && members.iter().filter(|(_, on)| on.ipv6.is_some()).count() > 1;
    for record_type in RecordType::ALL {
        let addresses: BTreeMap<[u64; 2], usize> = members
            .iter()
            .enumerate()
            .filter_map(|(index, (_, on))| Some((address(&ip(on, record_type)?.into()), index)))
            .collect();
        if addresses.is_empty() || (addresses.len() < 2 && is_rotated) {
            continue;
        }
        let id = id(&network.id.0, name, record_type);
        let mut alias = Alias {
            id,
            eligible: 0,
            members: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            ttl: config.alias_ttl,
            vip: vip_of(report, record_type),
            flags: if report.one6 && record_type == RecordType::Aaaa {
                Alias::ONE
            } else {
                0
            },
            reserved: 0,
        };
        let mut sum = 0_u64;
        for (rank, (&address, &index)) in addresses.iter().enumerate() {
            alias.eligible |= u64::from(report.members[index].eligible) << rank;
            sum = sum.wrapping_add(part(address));
            table.members.insert(MemberKey { alias: id, address });
            report.members[index].counted_by.push((id, address));
        }
        for &name in &spellings {
            let key = |digest| AliasKey {
                digest,
                record_type: record_type as u32,
                reserved: 0,
                name,
            };
            // The entry by which the name is known, whatever the set.
            table.entries.insert(key(0), Alias::default());
            let key = key(digest(sum));
            if table.entries.insert(key, alias).is_some_and(|other| other.id != id) {
                ambiguous.insert(key);
            }
        }
    }
}

/// The virtual address for answers of a type: one of the other family makes them have no records.
fn vip_of(report: &AliasReport, record_type: RecordType) -> AnyIp {
    let is_its = |vip: &IpAddr| vip.is_ipv4() == (record_type == RecordType::A);
    let its = report.vips().find(is_its).or_else(|| report.vips().next());
    its.map_or_else(AnyIp::default, AnyIp::from)
}

/// A container's address of a record type.
pub(super) fn ip(on: &Attachment, record_type: RecordType) -> Option<IpAddr> {
    match record_type {
        RecordType::A => on.ipv4.map(|net| net.addr).filter(IpAddr::is_ipv4),
        RecordType::Aaaa => on.ipv6.map(|net| net.addr).filter(IpAddr::is_ipv6),
    }
}

/// A name in lower case as it is on the wire, without the root's zero; `None` if it cannot be, or is too long.
pub(super) fn wire(name: &str) -> Option<[u8; NAME as usize]> {
    let mut bytes = Vec::with_capacity(NAME as usize);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|_| label.len() <= MAX_LABEL)?;
        bytes.push(Some(length).filter(|length| *length != 0)?);
        bytes.extend(label.bytes());
    }
    // One byte stays zero: the program looks for the name's end within the key.
    let mut name = [0; NAME as usize];
    name.get_mut(..bytes.len())
        .filter(|_| bytes.len() < NAME as usize)?
        .copy_from_slice(&bytes);
    Some(name)
}

/// The number of an alias, the same in every daemon.
pub(super) fn id(network: &str, name: &str, record_type: RecordType) -> u64 {
    let parts = [network.as_bytes(), &[0], name.as_bytes(), &[0, record_type as u8]];
    hash(&parts.concat())
}
