//! Finds the rules whose verdict on one packet says little about the next, in nftables and in iptables-legacy.
//!
//! It only names what it sees; what follows for a network is the plan's business.

use std::io;

use super::socket::{Asker, NetlinkError};
use crate::world::{RuleFinding, Ruleset, Severity};

mod field;
pub(crate) mod legacy;
pub(crate) mod nft;
mod reading;
mod table;
mod ways;
mod xt;

pub use field::{FIELDS, Field};
pub use table::{Row, TABLE};

/// What keeps the rules from being read.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// `nf_tables`.
    #[error(transparent)]
    Nft(#[from] NetlinkError),
    /// iptables-legacy.
    #[error("iptables-legacy tables: {0}")]
    Legacy(#[source] io::Error),
}

/// Reads both rule sets of the calling thread's namespace, whole. It blocks, for some milliseconds when there are
/// thousands of rules.
pub fn read() -> Result<Ruleset, RulesError> {
    let mut asker = Asker::netfilter()?;
    let tables = super::legacy::tables().map_err(RulesError::Legacy)?;
    let nfqueue_bound = super::nfqueue::bound().map_err(RulesError::Legacy)?;
    let nft_generation = super::nftables::generation(&mut asker)?;
    let mut ruleset = Ruleset {
        nft_generation,
        legacy: super::legacy::hashes(&tables),
        nfqueue_bound,
        ..Ruleset::default()
    };
    if nft_generation.is_some() {
        ruleset.nft_chains = super::nftables::chains(&mut asker)?;
        ruleset.findings = nft::findings(&mut asker, &ruleset.nft_chains)?;
    }
    ruleset.findings.extend(tables.iter().flat_map(legacy::findings));
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
