//! What stands before published ports at loopback addresses, looked at where somebody asks for it. The rules are read again when
//! they have changed, which is known.

use std::collections::BTreeMap;

use crate::{
    config::Config,
    host::{Host, HostRules, Localhost},
    observe::localhost,
    plan::wants_localhost,
    probe,
};

/// Which rules they are: nftables' generation, and hashes of legacy tables.
type Stamp = (Option<u32>, BTreeMap<String, u64>);

/// The rules, as last seen.
#[derive(Debug, Default)]
pub struct Memory(Option<(Stamp, HostRules)>);

impl Memory {
    /// Looks; `None` where nobody asks.
    pub fn look(&mut self, host: &Host, config: &Config) -> Option<Localhost> {
        if !wants_localhost(config) {
            self.0 = None;
            return None;
        }
        let mut seen = Localhost {
            off: localhost::cgroup_root().err(),
            on_loopback: on_loopback(),
            ..Localhost::default()
        };
        match localhost::proxies() {
            Ok(proxies) => seen.proxies = proxies,
            Err(error) => seen.off = Some(format!("docker-proxy's processes cannot be looked at: {error}")),
        }
        let ruleset = &host.served().ruleset;
        let stamp = (ruleset.nft_generation, ruleset.legacy.clone());
        if self.0.as_ref().is_none_or(|(known, _)| *known != stamp) {
            match localhost::rules() {
                Ok(rules) => self.0 = Some((stamp, rules)),
                Err(error) => {
                    self.0 = None;
                    seen.rules = Err(format!("{:#}", anyhow::Error::new(error)));
                }
            }
        }
        if let Some((_, rules)) = &self.0 {
            seen.rules = Ok(rules.clone());
        }
        Some(seen)
    }
}

/// A program of somebody else's on the loopback interface. Where there is no tcx, classic filters are listed with all others.
fn on_loopback() -> Option<String> {
    let programs = probe::attached("lo").ok()?;
    let other = programs.into_iter().find(|program| !program.is_ours())?;
    Some(other.name)
}
