//! What the kernel does not announce is polled: iptables-legacy tables, listeners on NFQUEUE, sysctls, and what is
//! attached to interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::change::{Change, Hints, NewsOfLinks};
use super::foreign::{self, Attached, Links, Listed};
use super::{nfqueue, rules, sysctl};
use crate::host::Sysctls;

/// What is compared from one poll to the next. What could not be read is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    legacy: Option<BTreeMap<String, u64>>,
    queues: Option<BTreeSet<u16>>,
    sysctls: Sysctls,
    attached: Option<BTreeMap<u32, Attached>>,
    links: Links,
    listed: Listed,
}

impl Stamp {
    /// Reads what there is for the first time, in the calling thread's namespace. `news` as in [`foreign::look`]. It
    /// blocks for microseconds per interface, or for some milliseconds when iptables-legacy has thousands of rules.
    pub fn read(news: NewsOfLinks) -> Self {
        Self::with(&Links::default(), Listed::default(), news)
    }

    /// Reads it again. BPF links and interfaces that are known are not looked at again.
    fn renewed(&mut self, news: NewsOfLinks) -> Self {
        let now = Self::with(&self.links, mem::take(&mut self.listed), news);
        // What could not be read this time is compared with what was read last.
        let attached = now.attached.or_else(|| self.attached.clone());
        Self { attached, ..now }
    }

    fn with(known: &Links, listed: Listed, news: NewsOfLinks) -> Self {
        let links = known.renewed();
        let looked = foreign::look(listed, news, links.are_news_to(known)).ok();
        let (listed, attached) = looked.unzip();
        Self {
            legacy: rules::stamps().ok(),
            queues: nfqueue::bound().ok(),
            sysctls: sysctl::read(),
            attached,
            links,
            // Listed anew the next time, if it could not be this time.
            listed: listed.unwrap_or_default(),
        }
    }

    fn changes(&self, before: &Self) -> impl Iterator<Item = Change> {
        self.of_tables(before).chain(self.of_interfaces(before))
    }

    /// One that is new is announced, but what is attached to it may have come after it was looked at.
    fn of_interfaces(&self, before: &Self) -> impl Iterator<Item = Change> {
        let (now, before) = (self.attached.as_ref(), before.attached.as_ref());
        let pairs = now.zip(before).into_iter().flat_map(|(now, before)| {
            let known = |ifindex| before.get(ifindex).copied().unwrap_or_default();
            now.iter().map(move |(ifindex, now)| (*ifindex, *now, known(ifindex)))
        });
        pairs.flat_map(|(device, now, before)| {
            let quiet = (now.xdp, now.peer) != (before.xdp, before.peer);
            let programs = now.tcx != before.tcx;
            [
                quiet.then_some(Change::Device { device }),
                programs.then_some(Change::Programs { device }),
            ]
            .into_iter()
            .flatten()
        })
    }

    fn of_tables(&self, before: &Self) -> impl Iterator<Item = Change> + use<> {
        let ruleset = self.legacy != before.legacy || self.links.on_netfilter != before.links.on_netfilter;
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
        let news = hints.take_news_of_links();
        // An error means that the tokio runtime is shutting down.
        let Ok((was, now)) = tokio::task::spawn_blocking(move || {
            let now = before.renewed(news);
            (before, now)
        })
        .await
        else {
            return;
        };
        now.changes(&was).for_each(|change| hints.send(change));
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
            attached: None,
            links: Links::default(),
            listed: Listed::default(),
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
