//! All that is read of bytes that others wrote, as functions of those bytes, for the fuzzer (`cargo xtask fuzz`).
//!
//! Each returns in the end, does not panic, and checks besides what must hold of whatever it has read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{
    apply::conntrack,
    config::Config,
    observe::{
        docker::{convert, events::Todo},
        ebtables,
        legacy::{Family, HOOKS, Table},
        netlink::{address, link, neighbour, netconf, route, tc, watch::Memory},
        nftables::{self, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM},
        rules,
    },
    sys::netlink::{Message, Messages},
};

/// A datagram of rtnetlink, as notifications: what is said twice is news once.
pub fn rtnetlink(datagram: &[u8]) {
    let mut memory = Memory::default();
    for message in messages(datagram) {
        let first = memory.note(message);
        let again = memory.note(message);
        assert_eq!(first.is_err(), again.is_err(), "understood once: {message:?}");
        let again = again.ok().flatten();
        match message.kind {
            link::RTM_NEWLINK => {
                let Ok(link) = link::parse(message) else { continue };
                assert!(link.ifindex != 0 && !link.name.is_empty());
                assert!(again.is_none(), "a link twice: {link:?}");
            }
            neighbour::RTM_NEWNEIGH => {
                let is_fdb_entry = matches!(neighbour::parse(message), Ok(Some(neighbour::Entry::Fdb(_))));
                assert!(again.is_none() || is_fdb_entry, "twice: {again:?} by {message:?}");
            }
            address::RTM_NEWADDR => assert!(again.is_none(), "twice: {again:?} by {message:?}"),
            netconf::RTM_NEWNETCONF => {
                let switches = netconf::parse(message)
                    .map(|(_, switches)| switches)
                    .unwrap_or_default();
                let kinds: BTreeSet<u16> = switches.iter().map(|(kind, _)| *kind).collect();
                // One that contradicts itself changes something each time.
                assert!(
                    again.is_none() || kinds.len() < switches.len(),
                    "twice: {again:?} by {message:?}"
                );
            }
            _ => {}
        }
        // A listing reads more of a message than a notification.
        let _ = address::parse(message);
        let _ = netconf::parse(message);
        let _ = route::parse(message);
        let _ = route::parse_rule(message);
        let _ = tc::parse_qdisc(message);
        let _ = tc::parse_filter(message);
    }
}

/// Those of a datagram up to the first whose length cannot be true.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    Messages(datagram).map_while(Result::ok)
}

/// A datagram of `nf_tables`: chains, sets and rules, as one rule set.
pub fn nftables(datagram: &[u8]) {
    let (mut chains, mut sets, mut found) = (BTreeSet::new(), rules::nft::Sets::default(), Vec::new());
    for message in messages(datagram) {
        match message.kind {
            NEWCHAIN => chains.extend(nftables::parse_chain(message).ok().flatten()),
            NEWSET => drop(sets.note(message)),
            NEWSETELEM => drop(sets.note_elements(message)),
            NEWRULE => found.extend(rules::nft::parse(message)),
            _ => {}
        }
    }
    let count = found.len();
    let findings = rules::nft::judge(found, &chains, &sets);
    assert!(count != 0 || findings.is_empty());
}

/// A datagram of conntrack's list; each connection is answered by a message of ours.
pub fn conntrack(datagram: &[u8]) {
    for message in messages(datagram) {
        let Some(request) = conntrack::answer(message) else {
            continue;
        };
        let bytes = request.finish(1);
        let mut answered = Messages(&bytes);
        let Some(Ok(Message { payload, .. })) = answered.next() else {
            panic!("a request that cannot be read: {bytes:?}");
        };
        assert!(payload.len() >= 4 && answered.next().is_none());
    }
}

/// A table of iptables-legacy: what the kernel hands out.
pub fn iptables(bytes: &[u8]) {
    let Some(([which, hooks], entries)) = bytes.split_first_chunk() else {
        return;
    };
    let names = ["filter", "nat", "mangle", "raw"];
    let table = Table {
        family: if which & 1 == 0 { Family::Ip } else { Family::Ip6 },
        name: names[usize::from(which >> 1) % names.len()].into(),
        hooks: std::array::from_fn::<_, HOOKS, _>(|hook| (hooks & 1 << hook != 0).then_some(0)),
        entries: entries.to_vec(),
    };
    assert_eq!(table.hash(), table.clone().hash());
    rules::legacy::findings(&table);
}

/// A table of ebtables-legacy: what the kernel hands out.
pub fn ebtables(bytes: &[u8]) {
    let Some((hooks, entries)) = bytes.split_first() else {
        return;
    };
    let table = ebtables::Table {
        name: "filter".into(),
        hooks: u32::from(*hooks),
        entries: entries.to_vec(),
    };
    assert_eq!(table.hash(), table.clone().hash());
    rules::ebtables::findings(&table);
}

/// An answer or an event of the container runtime. A hash map's order must not show: what is read of an answer twice is
/// the same.
pub fn engine(json: &str) {
    fn twice<T: serde::de::DeserializeOwned, R: PartialEq + std::fmt::Debug>(json: &str, read: impl Fn(T) -> R) {
        if let (Ok(once), Ok(again)) = (serde_json::from_str(json), serde_json::from_str(json)) {
            assert_eq!(read(once), read(again));
        }
    }
    let mut networks = BTreeMap::new();
    if let Ok(answers) = serde_json::from_str::<Vec<_>>(json) {
        let read = answers
            .into_iter()
            .filter_map(|answer| convert::network(answer, convert::Kind::Docker));
        networks.extend(read.map(|network| (network.id.clone(), network)));
    }
    for kind in [convert::Kind::Docker, convert::Kind::Podman] {
        twice(json, |answer| convert::network(answer, kind));
    }
    twice(json, |answer| convert::container(answer, &networks));
    twice(json, |event| {
        let mut todo = Todo::default();
        todo.add(event);
        todo
    });
}

/// A configuration file. What is right survives the daemon's state file, what is wrong is told.
pub fn config(text: &str) {
    match Config::parse(text, Path::new("netfast.toml")) {
        Ok(config) => {
            let json = serde_json::to_string(&config).expect("plain data");
            assert_eq!(serde_json::from_str::<Config>(&json).expect("what was written"), config);
        }
        Err(error) => assert!(!format!("{:#}", anyhow::Error::new(error)).is_empty()),
    }
}
