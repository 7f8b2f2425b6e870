//! What the kernel does not announce is polled: iptables-legacy tables, listeners on NFQUEUE, sysctls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::change::{Change, Hints};
use super::{legacy, nfqueue, sysctl};
use crate::world::Sysctls;

/// What is compared from one poll to the next. What could not be read is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    legacy: Option<BTreeMap<String, u64>>,
    queues: Option<BTreeSet<u16>>,
    sysctls: Sysctls,
}

impl Stamp {
    /// Reads what there is, in the calling thread's namespace. It blocks for microseconds, or for some milliseconds
    /// when iptables-legacy has thousands of rules.
    pub fn read() -> Self {
        Self {
            legacy: legacy::tables().map(|tables| legacy::hashes(&tables)).ok(),
            queues: nfqueue::bound().ok(),
            sysctls: sysctl::read(),
        }
    }

    fn changes(&self, before: &Self) -> impl Iterator<Item = Change> {
        let ruleset = self.legacy != before.legacy;
        let queues = self.queues != before.queues;
        let sysctls = self.sysctls.of_verdicts() != before.sysctls.of_verdicts();
        let tuning = self.sysctls != before.sysctls && !sysctls;
        let changes = [
            (ruleset, Change::Ruleset),
            (queues, Change::Queues),
            (sysctls, Change::Sysctls),
            (tuning, Change::Tuning),
        ];
        changes
            .into_iter()
            .filter_map(|(changed, change)| changed.then_some(change))
    }
}

/// Polls for ever.
pub async fn run(mut before: Stamp, interval: Duration, hints: Hints) {
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        // An error means that the tokio runtime is shutting down.
        let Ok(now) = tokio::task::spawn_blocking(Stamp::read).await else {
            return;
        };
        now.changes(&before).for_each(|change| hints.send(change));
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_netfast_sets_itself_outdates_no_flows() {
        let before = Stamp {
            legacy: None,
            queues: None,
            sysctls: Sysctls {
                ip_forward: Some(true),
                conntrack_tcp_be_liberal: Some(false),
                ..Sysctls::default()
            },
        };
        let changes = |edit: fn(&mut Sysctls)| {
            let mut now = before.clone();
            edit(&mut now.sysctls);
            now.changes(&before).collect::<Vec<_>>()
        };
        assert_eq!(changes(|_| {}), []);
        assert_eq!(
            changes(|sysctls| sysctls.conntrack_tcp_be_liberal = Some(true)),
            [Change::Tuning]
        );
        assert_eq!(changes(|sysctls| sysctls.conntrack_acct = Some(true)), [Change::Tuning]);
        assert!(!Change::Tuning.outdates_all_flows());
        assert_eq!(
            changes(|sysctls| {
                sysctls.conntrack_tcp_be_liberal = Some(true);
                sysctls.ip_forward = Some(false);
            }),
            [Change::Sysctls]
        );
    }
}
