//! How many rules there are, chain by chain: what can be told of a packet filter without telling its rules.

use std::collections::BTreeMap;

use super::RulesError;
use crate::observe::{
    ebtables, legacy,
    nftables::{self, GETRULE, NEWRULE, NFGENMSG, family},
};
use crate::sys::netlink::{Attr, Attrs, DUMP, NetlinkSocket, Request};

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;

/// Numbers of rules of the calling thread's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of nftables (and iptables-nft), by family, table and chain; chains without rules are not there.
    pub nft: BTreeMap<(String, String, String), usize>,
    /// Entries of each table of iptables-legacy, each chain's policy counted as one, by `ip/NAME` or `ip6/NAME`.
    pub legacy: BTreeMap<String, usize>,
    /// Tables of ebtables-legacy, with the number of their bytes.
    pub ebtables: BTreeMap<String, usize>,
}

/// Counts them.
pub fn counts() -> Result<Counts, RulesError> {
    let mut socket = NetlinkSocket::netfilter()?;
    let tables = legacy::tables().map_err(RulesError::Legacy)?;
    let bridged = ebtables::tables().map_err(RulesError::Ebtables)?;
    let mut counts = Counts {
        legacy: tables.iter().map(|table| (table.key(), table.iter().count())).collect(),
        ebtables: bridged.iter().map(|table| (table.key(), table.entries.len())).collect(),
        ..Counts::default()
    };
    if nftables::generation(&mut socket)?.is_some() {
        let request = Request::new(GETRULE, DUMP, &[0; NFGENMSG]);
        counts.nft = socket.dump("nftables rules", &request, |nft: &mut BTreeMap<_, usize>, message| {
            if message.kind == NEWRULE {
                let attrs = Attrs::after(message.payload, NFGENMSG)?;
                let text = |kind, name| attrs.need(kind, name).map(Attr::text);
                let chain = (
                    family(message.payload[0]),
                    text(NFTA_RULE_TABLE, "the table")?,
                    text(NFTA_RULE_CHAIN, "the chain")?,
                );
                *nft.entry(chain).or_default() += 1;
            }
            Ok(())
        })?;
    }
    Ok(counts)
}
