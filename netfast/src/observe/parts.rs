//! What is read anew after which hints.

use std::collections::BTreeSet;

use super::change::Change;
use super::netlink::{near::Links, route::is_link_local_v6};
use crate::host::Namespace;

/// What is read anew. Of links, and of what belongs to each, only those that hints name: a host has hundreds, each with
/// addresses, neighbours and forwarding entries. The rest can be large, too: a full routing table, thousands of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The links, with their addresses, neighbours, forwarding entries, queueing disciplines and other ends.
    pub links: Links,
    /// All forwarding entries.
    pub fdb: bool,
    /// Routes and policy rules.
    pub routes: bool,
    /// The packet filter's rules.
    pub ruleset: bool,
}

impl Parts {
    /// Everything.
    pub const ALL: Self = Self {
        links: Links::All,
        fdb: true,
        routes: true,
        ruleset: true,
    };

    /// What may not be as it is in `known`, after these hints.
    pub fn of(changes: &BTreeSet<Change>, known: &Namespace) -> Self {
        let any = |wanted: &[Change]| wanted.iter().any(|change| changes.contains(change));
        let links = with_other_ends(links(changes), known);
        // Links take routes with them when they go down, without a word about each IPv4 route. Those that come are announced.
        let takes_routes = |links: &Links| match links {
            Links::All => true,
            Links::Of(some) => known.routes.iter().any(|route| {
                let is_own = |oif| some.contains(&oif);
                route.oif.is_some_and(is_own) && !is_link_local_v6(route)
            }),
        };
        Self {
            routes: any(&[Change::Routes, Change::PolicyRules, Change::Addresses, Change::Overflow])
                || takes_routes(&links),
            ruleset: any(&[Change::Ruleset, Change::Queues, Change::Overflow]),
            // Where a station is that has moved is not said.
            fdb: changes
                .iter()
                .any(|change| matches!(change, Change::FdbMoved { .. } | Change::Overflow)),
            links,
        }
    }
}

/// With the other ends of veths that are here, too: when one end is moved to another namespace, nothing is said of the other.
fn with_other_ends(links: Links, known: &Namespace) -> Links {
    let Links::Of(mut some) = links else { return links };
    let others = some
        .iter()
        .filter_map(|ifindex| known.links.get(ifindex)?.other_end_here());
    let others: Vec<u32> = others.collect();
    some.extend(others);
    Links::Of(some)
}

/// The links that hints name, or all.
fn links(changes: &BTreeSet<Change>) -> Links {
    let mut some = BTreeSet::new();
    for change in changes {
        match *change {
            Change::Links { device } | Change::Device { device } | Change::Neighbours { device, .. } => {
                some.insert(device);
            }
            Change::FdbAdded { port } => {
                some.insert(port);
            }
            // They are about links that they do not name.
            Change::Addresses | Change::Tc | Change::Overflow => return Links::All,
            Change::FdbMoved { .. }
            | Change::Programs { .. }
            | Change::Routes
            | Change::PolicyRules
            | Change::Ipsec
            | Change::Sysctls
            | Change::Tuning
            | Change::Ruleset
            | Change::Queues
            | Change::Containers
            | Change::Runtime => {}
        }
    }
    Links::Of(some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Route, RouteType};

    fn of(changes: &[Change]) -> Parts {
        Parts::of(&changes.iter().copied().collect(), &Namespace::default())
    }

    fn some(links: &[u32]) -> Links {
        Links::Of(links.iter().copied().collect())
    }

    #[test]
    fn large_parts_are_read_only_when_a_hint_asks() {
        assert_eq!(of(&[Change::Overflow]), Parts::ALL);
        let nothing = Parts {
            links: some(&[]),
            fdb: false,
            routes: false,
            ruleset: false,
        };
        assert_eq!(of(&[Change::Containers, Change::Programs { device: 3 }]), nothing);
        assert_eq!(
            of(&[Change::FdbMoved { port: 3 }]),
            Parts {
                fdb: true,
                ..nothing.clone()
            }
        );
        assert_eq!(
            of(&[Change::Queues]),
            Parts {
                ruleset: true,
                ..nothing
            }
        );
    }

    #[test]
    fn of_links_those_are_read_that_hints_name() {
        let named = [
            Change::Links { device: 3 },
            Change::Device { device: 4 },
            Change::Neighbours { device: 5, mac: None },
            Change::FdbAdded { port: 6 },
        ];
        assert_eq!(of(&named).links, some(&[3, 4, 5, 6]));
        for unnamed in [Change::Addresses, Change::Tc, Change::Overflow] {
            assert_eq!(
                of(&[Change::Links { device: 3 }, unnamed]).links,
                Links::All,
                "{unnamed:?}"
            );
        }
    }

    #[test]
    fn a_link_that_goes_down_takes_its_routes_with_it() {
        let mut known = Namespace::default();
        for (dst, oif) in [("10.1.0.0/24", 3), ("fe80::/64", 3), ("fe80::/64", 4)] {
            known.routes.insert(Route {
                table: 254,
                dst: dst.parse().expect("a prefix"),
                priority: 0,
                gateway: None,
                oif: Some(oif),
                kind: RouteType::Unicast,
                protocol: 2,
                source: None,
                mtu: None,
                multipath: false,
                has_programs: false,
            });
        }
        let routes = |device: u32| Parts::of(&BTreeSet::from([Change::Device { device }]), &known).routes;
        assert!(routes(3) && !routes(4) && !routes(5));
    }
}
