//! The packet-filter rules in containers, as last seen. Nobody announces them to the host, and to look at those of hundreds of
//! containers after every hint would cost more than the hint.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{apply::Outcome, diff::Action, host::InsideRules, observe::inside::look};

/// How old what was seen may be.
const MAX_AGE: Duration = Duration::from_secs(2);

/// What was seen, and when.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<u64, (Instant, InsideRules)>);

impl Memory {
    /// What there is in these namespaces, each with a process in it; looked at anew where that is old or not known, and
    /// everywhere if `all` is set.
    pub fn get(&mut self, namespaces: BTreeSet<(u64, u32)>, all: bool) -> BTreeMap<u64, InsideRules> {
        let inodes: BTreeSet<u64> = namespaces.iter().map(|(netns, _)| *netns).collect();
        self.0
            .retain(|netns, (seen, _)| inodes.contains(netns) && !all && seen.elapsed() < MAX_AGE);
        let unknown = namespaces.into_iter().filter(|(netns, _)| !self.0.contains_key(netns));
        let now = Instant::now();
        for (netns, rules) in look(&unknown.collect()) {
            self.0.insert(netns, (now, rules));
        }
        self.0
            .iter()
            .map(|(netns, (_, rules))| (*netns, rules.clone()))
            .collect()
    }

    /// Forgets what actions have changed, or tried to.
    pub fn note(&mut self, outcome: &Outcome) {
        let failed = outcome.failures.iter().map(|failure| &failure.action);
        for action in outcome.done.iter().chain(failed) {
            if let Action::TakeOut { loopback, .. } | Action::PutBack { loopback, .. } = action {
                self.0.remove(&loopback.netns);
            }
        }
    }
}
