//! Finds the rules whose verdict on one packet says little about the next, in nftables, iptables-legacy and
//! ebtables-legacy.
//!
//! It only names what it sees; what follows for a network is the plan's business.

use std::collections::BTreeMap;
use std::io;

use crate::host::{RuleFinding, Ruleset, Severity};
use crate::sys::netlink::{NetlinkError, NetlinkSocket};

mod counts;
#[cfg(test)]
mod document;
pub(crate) mod ebtables;
mod field;
pub(crate) mod legacy;
pub(crate) mod nft;
mod reachability;
mod reading;
mod table;
mod xt;

pub use counts::{Counts, counts};

/// What keeps the rules from being read.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// `nf_tables`.
    #[error(transparent)]
    Nft(#[from] NetlinkError),
    /// iptables-legacy.
    #[error("iptables-legacy tables: {0}")]
    Legacy(#[source] io::Error),
    /// ebtables-legacy.
    #[error("ebtables-legacy tables: {0}")]
    Ebtables(#[source] io::Error),
}

/// A hash of each table of iptables-legacy and ebtables-legacy by its key, to notice changes, which nobody announces.
pub fn stamps() -> io::Result<BTreeMap<String, u64>> {
    Ok(hashes(&super::legacy::tables()?, &super::ebtables::tables()?))
}

fn hashes(tables: &[super::legacy::Table], bridged: &[super::ebtables::Table]) -> BTreeMap<String, u64> {
    let tables = tables.iter().map(|table| (table.key(), table.hash()));
    tables
        .chain(bridged.iter().map(|table| (table.key(), table.hash())))
        .collect()
}

/// Reads all rule sets of the calling thread's namespace, whole. It blocks, for some milliseconds when there are
/// thousands of rules.
pub fn read() -> Result<Ruleset, RulesError> {
    let mut socket = NetlinkSocket::netfilter()?;
    let tables = super::legacy::tables().map_err(RulesError::Legacy)?;
    let bridged = super::ebtables::tables().map_err(RulesError::Ebtables)?;
    let nfqueue_bound = super::nfqueue::bound().map_err(RulesError::Legacy)?;
    let nft_generation = super::nftables::generation(&mut socket)?;
    let mut ruleset = Ruleset {
        nft_generation,
        legacy: hashes(&tables, &bridged),
        nfqueue_bound,
        ..Ruleset::default()
    };
    if nft_generation.is_some() {
        ruleset.nft_chains = super::nftables::chains(&mut socket)?;
        ruleset.findings = nft::findings(&mut socket, &ruleset.nft_chains)?;
    }
    ruleset.findings.extend(tables.iter().flat_map(legacy::findings));
    ruleset.findings.extend(bridged.iter().flat_map(ebtables::findings));
    ruleset.findings.iter_mut().for_each(spare_the_slow);
    ruleset.findings.sort();
    Ok(ruleset)
}

/// A rule that sees every packet of those that it is for needs no help.
fn spare_the_slow(finding: &mut RuleFinding) {
    if finding.severity == Severity::SlowPath && finding.ways.is_empty() {
        finding.severity = Severity::Note;
        finding.reason = "meets no packet that could take the fast path";
    }
}
