//! Containers in which Docker's rules for its resolver make conntrack and NAT look at every packet, and whose owner wants netfast
//! to do that one translation itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, Runtime},
    host::{Container, Host, InsideRules, NetnsId, Network, NetworkMode, ResolverRules},
    plan::{Facts, Loopback, aliases::has_resolver, labels},
};

/// On a network for its containers, on a container for that: whether these rules are replaced.
pub(super) const LABEL: &str = "netfast.resolver";

/// A container's network namespace in which they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The container.
    pub container: String,
    /// What rules there are now.
    pub rules: InsideRules,
}

/// What became of a wish, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolverReport {
    /// The container.
    pub container: String,
    /// The networks that it is on, by name.
    pub networks: Vec<String>,
    /// Whether the program does what the rules did, and they are out.
    pub on: bool,
    /// Why not.
    pub why: Option<String>,
}

/// The network namespaces in which the rules should be replaced, if they are Docker's alone, each with the container whose it is.
pub fn wanted<'a>(host: &'a Host, config: &Config) -> BTreeMap<Loopback, &'a Container> {
    let mut all = BTreeMap::new();
    // A daemon that serves an overlay network's namespace leaves it to that of the host's.
    if config.runtime != Runtime::Docker || config.sandbox.is_some() {
        return all;
    }
    let wishes = |network: &Network| -> Option<bool> {
        if !has_resolver(network) || network.resolved_at_gateway {
            return None;
        }
        let says_no = network.labels.get(LABEL).is_some_and(|value| labels::is_false(value));
        if says_no || labels::why_off(network, config).is_some() {
            return Some(false);
        }
        (config.resolver || labels::is_set(&network.labels, LABEL)).then_some(true)
    };
    let mut namespaces = BTreeSet::new();
    for container in host.containers.values() {
        let networks = container.attachments.iter();
        let wishes: BTreeSet<bool> = networks
            .filter_map(|on| wishes(host.networks.get(&on.network)?))
            .collect();
        let own = container.labels.get(LABEL);
        let is_off = labels::is_off(&container.labels) || own.is_some_and(|value| labels::is_false(value));
        let is_wanted = wishes.contains(&true) && !wishes.contains(&false);
        if !is_wanted || is_off || matches!(container.network_mode, NetworkMode::Host | NetworkMode::Container(_)) {
            continue;
        }
        if let (Some(NetnsId { ino: netns, .. }), true) = (container.netns, container.pid != 0)
            && namespaces.insert(netns)
        {
            let pid = container.pid;
            all.insert(Loopback { netns, pid }, container);
        }
    }
    all
}

/// What should be.
pub fn plan(host: &Host, config: &Config, facts: &Facts) -> BTreeMap<Loopback, Inside> {
    if facts.resolver_off.is_some() {
        return BTreeMap::new();
    }
    let inside = wanted(host, config).into_iter().filter_map(|(loopback, container)| {
        let rules = facts.inside.get(&loopback.netns)?.clone();
        let container = container.name.clone();
        Some((loopback, Inside { container, rules }))
    });
    inside.collect()
}

/// What became of each wish: what was taken out, and what could not be done.
pub fn reports(
    host: &Host,
    config: &Config,
    facts: &Facts,
    taken: &BTreeMap<Loopback, ResolverRules>,
    errors: &BTreeMap<Loopback, String>,
) -> Vec<ResolverReport> {
    let mut all = Vec::new();
    for (loopback, container) in wanted(host, config) {
        let on = taken.contains_key(&loopback);
        let why = match facts.inside.get(&loopback.netns) {
            _ if on => None,
            _ if facts.resolver_off.is_some() => facts.resolver_off.clone(),
            Some(InsideRules::Other(text)) => Some(text.clone()),
            _ if errors.contains_key(&loopback) => errors.get(&loopback).cloned(),
            Some(InsideRules::None) => Some("Docker has no rules for its resolver there".into()),
            Some(InsideRules::Resolver(_)) => Some("not done yet".into()),
            None => Some("its network namespace could not be looked into".into()),
        };
        let networks = container.attachments.iter();
        all.push(ResolverReport {
            container: container.name.clone(),
            networks: networks.map(|on| on.network_name.clone()).collect(),
            on,
            why,
        });
    }
    all.sort_by(|a, b| a.container.cmp(&b.container));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Attachment, ContainerId, NetworkId};

    /// A network `shop`, and a container `web` on it and on Docker's own; `edit` changes them.
    fn is_wanted(config: &Config, edit: impl FnOnce(&mut Network, &mut Container)) -> bool {
        let network = |name: &str| Network {
            id: NetworkId(name.into()),
            name: name.into(),
            driver: "bridge".into(),
            ..Network::default()
        };
        let on = |name: &str| Attachment {
            network: NetworkId(name.into()),
            network_name: name.into(),
            ..Attachment::default()
        };
        let mut shop = network("shop");
        let mut web = Container {
            id: ContainerId("web".into()),
            name: "web".into(),
            pid: 17,
            netns: Some(NetnsId { dev: 1, ino: 4 }),
            attachments: vec![on("bridge"), on("shop")],
            ..Container::default()
        };
        edit(&mut shop, &mut web);
        let mut host = Host::default();
        for network in [network("bridge"), shop] {
            host.networks.insert(network.id.clone(), network);
        }
        host.containers.insert(web.id.clone(), web);
        let wanted = wanted(&host, config);
        assert!(
            wanted
                .keys()
                .all(|loopback| *loopback == Loopback { netns: 4, pid: 17 })
        );
        !wanted.is_empty()
    }

    #[test]
    fn it_is_done_where_somebody_asks_for_it_and_nobody_says_no() {
        let off = Config::default();
        let on = Config {
            resolver: true,
            ..Config::default()
        };
        let set = |labels: &mut BTreeMap<String, String>, value: &str| drop(labels.insert(LABEL.into(), value.into()));
        assert!(!is_wanted(&off, |_, _| ()));
        assert!(is_wanted(&on, |_, _| ()));
        assert!(is_wanted(&off, |network, _| set(&mut network.labels, "true")));
        assert!(!is_wanted(&on, |network, _| set(&mut network.labels, "false")));
        assert!(!is_wanted(&on, |_, container| set(&mut container.labels, "false")));
        let disable =
            |labels: &mut BTreeMap<String, String>| drop(labels.insert("netfast.enable".into(), "false".into()));
        assert!(!is_wanted(&on, |network, _| disable(&mut network.labels)));
        assert!(!is_wanted(&on, |_, container| disable(&mut container.labels)));
    }

    #[test]
    fn where_docker_has_no_resolver_inside_there_is_nothing_to_do() {
        let on = Config {
            resolver: true,
            ..Config::default()
        };
        assert!(!is_wanted(&on, |network, _| network.resolved_at_gateway = true));
        assert!(!is_wanted(&on, |_, container| drop(container.attachments.pop())));
        assert!(!is_wanted(&on, |_, container| container.network_mode = NetworkMode::Host));
        assert!(!is_wanted(&on, |_, container| {
            container.network_mode = NetworkMode::Container(ContainerId("other".into()));
        }));
        assert!(!is_wanted(&on, |_, container| container.pid = 0));
        let none = Config {
            runtime: Runtime::None,
            ..on
        };
        assert!(!is_wanted(&none, |_, _| ()));
    }
}
