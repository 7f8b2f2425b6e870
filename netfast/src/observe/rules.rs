//! Finds the rules whose verdict on one packet says little about the next, in nftables and in iptables-legacy.
//!
//! It only names what it sees; what follows for a network is the plan's business.

use std::io;

use super::socket::{Asker, NetlinkError};
use crate::world::{RuleFinding, Ruleset, Severity, Verdict};

mod first;
mod kind;
pub(crate) mod legacy;
pub(crate) mod nft;
mod ways;

pub use kind::{KINDS, Kind};

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
    ruleset.findings.iter_mut().for_each(spare_logging);
    ruleset.findings.iter_mut().for_each(spare_the_slow);
    ruleset.findings.sort();
    Ok(ruleset)
}

/// A limit on a rule that only logs decides about the log, not about packets. Common firewalls have such rules, ufw in
/// every default set.
fn spare_logging(finding: &mut RuleFinding) {
    let only_logs = ["log", "LOG", "NFLOG", "ULOG"].iter().any(|target| {
        let rest = finding.text.strip_suffix(target);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(' '))
    });
    if finding.severity == Severity::SlowPath && finding.verdict == Verdict::None && only_logs {
        finding.severity = Severity::Note;
        finding.reason = "decides only which packets are logged, of those on the slow path";
    }
}

/// A rule that sees every packet of those that it is for needs no help.
fn spare_the_slow(finding: &mut RuleFinding) {
    if finding.severity == Severity::SlowPath && finding.ways.is_empty() {
        finding.severity = Severity::Note;
        finding.reason = "meets no packet that could take the fast path";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::world::RuleSource;

    #[test]
    fn a_limit_on_logging_is_no_limit_on_packets() {
        let severity = |verdict, text: &str| {
            let mut finding = RuleFinding {
                source: RuleSource::Nft,
                family: "ip".into(),
                table: "filter".into(),
                chain: "ufw-user-limit".into(),
                rule: 1,
                what: "limit",
                severity: Severity::SlowPath,
                reason: "judges by the rate of packets",
                iif: None,
                oif: None,
                ways: BTreeSet::new(),
                verdict,
                text: text.into(),
            };
            spare_logging(&mut finding);
            finding.severity
        };
        for text in ["limit -j LOG", "-i docker0 -m limit -j NFLOG", "limit log"] {
            assert_eq!(severity(Verdict::None, text), Severity::Note, "{text}");
        }
        for text in ["limit", "limit -j MARK", "limit log -j MARK", "limit -j CATALOG"] {
            assert_eq!(severity(Verdict::None, text), Severity::SlowPath, "{text}");
        }
        assert_eq!(severity(Verdict::Drop, "limit log"), Severity::SlowPath);
    }
}
