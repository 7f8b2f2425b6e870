//! Who else decides about the packets of a network: what netfast cannot know, since it has no copy of anybody's rules.
//!
//! Where nobody does, packets between two accelerated interfaces go fast for certain; elsewhere they do if they are let
//! through.

use crate::{
    host::{Link, LinkKind, Namespace, Network},
    plan::report::Deciders,
};

/// `NF_INET_LOCAL_IN` and `NF_INET_LOCAL_OUT` (`linux/netfilter.h`).
const HOST_HOOKS: [u32; 2] = [1, 3];
/// `NF_INET_FORWARD`.
const FORWARD_HOOK: u32 = 2;
/// Docker's option for a bridge network whose containers may not talk to each other.
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";

/// A family of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As nftables and netfast's list of legacy tables call it.
    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// Which of netfilter's switches shows it packets within a bridge.
    const fn switch(self) -> &'static str {
        match self {
            Self::V4 => "bridge-nf-call-iptables",
            Self::V6 => "bridge-nf-call-ip6tables",
        }
    }
}

/// Who decides about the packets of a bridge, of one family; `network` is the runtime's, if there is one.
pub fn of_bridge(netns: &Namespace, bridge: &Link, network: Option<&Network>, family: Family) -> Deciders {
    let unread = netns
        .ruleset
        .unreadable
        .as_ref()
        .map(|_| "rules that could not be read".to_owned());
    let all = || unread.clone().or_else(|| layer2(netns, bridge));
    let within = if is_without_icc(network) {
        Some("the engine's rules for icc=false, which drop what its containers send to each other".into())
    } else {
        all().or_else(|| bridged(netns, bridge, family))
    };
    let internal = network.is_some_and(|network| network.internal);
    let routed = if internal {
        Some(
            "the engine's rules for an internal network, which drop what leaves it and what comes from elsewhere"
                .into(),
        )
    } else {
        all().or_else(|| has_ip_rules(netns, family, |hook| !HOST_HOOKS.contains(&hook)).then(ip_rules))
    };
    let host = all().or_else(|| has_ip_rules(netns, family, |hook| hook != FORWARD_HOOK).then(ip_rules));
    Deciders {
        within,
        routed,
        host,
        bridged: bridged(netns, bridge, family).is_some() && !only_ip_translates(netns, bridge),
    }
}

/// Whether the engine is to keep the containers of a network from each other.
pub fn is_without_icc(network: Option<&Network>) -> bool {
    let icc = network.and_then(|network| network.options.get(OPTION_ICC));
    icc.is_some_and(|value| value == "false")
}

/// Whether rules for IP may translate packets within a bridge, and nothing else may: no tables of bridges or devices, and
/// none that could not be read.
pub fn only_ip_translates(netns: &Namespace, bridge: &Link) -> bool {
    let is_known = netns.ruleset.unreadable.is_none() && layer2(netns, bridge).is_none();
    is_known && bridged(netns, bridge, Family::V4).is_some()
}

fn ip_rules() -> String {
    "the host's packet-filter rules".into()
}

/// Rules of iptables or nftables that are asked about packets of a family at one of these hooks.
fn has_ip_rules(netns: &Namespace, family: Family, at: impl Fn(u32) -> bool) -> bool {
    let mut chains = netns.ruleset.nft_chains.iter();
    let is_ip = |of: &str| of == family.name() || of == "inet";
    let mut legacy = netns.ruleset.legacy.keys().filter_map(|table| table.split_once('/'));
    legacy.any(|(of, _)| of == family.name()) || chains.any(|chain| is_ip(&chain.family) && at(chain.hook))
}

/// Whether those rules are asked about packets that stay within a bridge.
pub fn bridged(netns: &Namespace, bridge: &Link, family: Family) -> Option<String> {
    let sysctls = &netns.sysctls;
    let LinkKind::Bridge(info) = bridge.kind else {
        return None;
    };
    let (of_all, of_this) = match family {
        Family::V4 => (sysctls.bridge_nf_call_iptables, info.nf_call_iptables),
        Family::V6 => (sysctls.bridge_nf_call_ip6tables, info.nf_call_ip6tables),
    };
    let is_asked = of_this || of_all == Some(true);
    (is_asked && has_ip_rules(netns, family, |hook| !HOST_HOOKS.contains(&hook))).then(|| {
        format!(
            "{}, which judge packets within a bridge, too ({})",
            ip_rules(),
            family.switch()
        )
    })
}

/// What decides about every frame of a bridge.
fn layer2(netns: &Namespace, bridge: &Link) -> Option<String> {
    if matches!(bridge.kind, LinkKind::Openvswitch) {
        return Some("the flows of Open vSwitch".into());
    }
    if let LinkKind::Bridge(info) = bridge.kind
        && info.vlan_filtering
    {
        return Some(format!("the VLANs of {}", bridge.name));
    }
    let mut chains = netns.ruleset.nft_chains.iter();
    if chains.any(|chain| chain.family == "bridge" || chain.family == "netdev") {
        return Some("rules of nftables for bridges or devices".into());
    }
    let is_other = |table: &String| !table.starts_with("ip/") && !table.starts_with("ip6/");
    let legacy = netns.ruleset.legacy.keys().any(is_other);
    legacy.then(|| "rules of ebtables".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::{BridgeInfo, Host, NetworkId, NftChain},
        plan::tests::build::{self, BRIDGE, docker_host},
    };

    fn chain(family: &str, hook: u32) -> NftChain {
        build::chain(family, hook, None)
    }

    /// Whether somebody decides within the bridge, on what is routed, and on what the host itself sends and gets.
    fn decided(change: impl FnOnce(&mut Host)) -> [bool; 3] {
        decided_of(Family::V4, change)
    }

    fn decided_of(family: Family, change: impl FnOnce(&mut Host)) -> [bool; 3] {
        let mut host = docker_host();
        host.served_mut().ruleset.nft_chains.clear();
        host.served_mut().ruleset.legacy.clear();
        host.served_mut().sysctls.bridge_nf_call_iptables = Some(false);
        host.served_mut().sysctls.bridge_nf_call_ip6tables = Some(false);
        change(&mut host);
        let network = host.networks.get(&NetworkId("id-of-bridge".into()));
        let Deciders {
            within, routed, host, ..
        } = of_bridge(host.served(), &host.served().links[&BRIDGE], network, family);
        [within, routed, host].map(|text| text.is_some())
    }

    fn network(host: &mut Host) -> &mut Network {
        host.networks
            .get_mut(&NetworkId("id-of-bridge".into()))
            .expect("it is there")
    }

    #[test]
    fn without_rules_nobody_decides() {
        assert_eq!(decided(|_| {}), [false; 3]);
        // Of IPv4, which rules for IPv6 alone are not asked about.
        let ip6 = decided(|host| host.served_mut().ruleset.nft_chains = [chain("ip6", 2)].into());
        assert_eq!(ip6, [false; 3]);
    }

    #[test]
    fn rules_decide_on_what_passes_their_hook() {
        let with = |family: &'static str, hook, bridged| {
            decided(move |host| {
                host.served_mut().ruleset.nft_chains.insert(chain(family, hook));
                host.served_mut().sysctls.bridge_nf_call_iptables = Some(bridged);
            })
        };
        assert_eq!(with("ip", 2, false), [false, true, false]);
        assert_eq!(with("inet", 2, true), [true, true, false]);
        assert_eq!(with("ip", 1, true), [false, false, true]);
        assert_eq!(with("ip", 0, true), [true; 3]);
        assert_eq!(with("bridge", 2, false), [true; 3]);
        let legacy = decided(|host| host.served_mut().ruleset.legacy = [("ip/filter".into(), 1)].into());
        assert_eq!(legacy, [false, true, true]);
    }

    #[test]
    fn each_family_has_rules_and_a_switch_of_its_own() {
        let with = |of: &'static str, asks: Family, iptables, ip6tables| {
            decided_of(asks, move |host| {
                host.served_mut().ruleset.nft_chains.insert(chain(of, 2));
                host.served_mut().sysctls.bridge_nf_call_iptables = Some(iptables);
                host.served_mut().sysctls.bridge_nf_call_ip6tables = Some(ip6tables);
            })
        };
        assert_eq!(with("ip", Family::V6, true, true), [false; 3]);
        assert_eq!(with("ip6", Family::V4, true, true), [false; 3]);
        assert_eq!(with("ip6", Family::V6, true, false), [false, true, false]);
        assert_eq!(with("ip6", Family::V6, false, true), [true, true, false]);
        assert_eq!(with("inet", Family::V6, false, true), [true, true, false]);
        let legacy = |asks| {
            decided_of(asks, |host| {
                host.served_mut().ruleset.legacy = [("ip6/filter".into(), 1)].into();
            })
        };
        assert_eq!(legacy(Family::V6), [false, true, true]);
        assert_eq!(legacy(Family::V4), [false; 3]);
        let by_itself = decided_of(Family::V6, |host| {
            host.served_mut().ruleset.nft_chains.insert(chain("ip6", 2));
            let bridge = host.served_mut().links.get_mut(&BRIDGE).expect("docker0");
            bridge.kind = LinkKind::Bridge(BridgeInfo {
                nf_call_ip6tables: true,
                ..BridgeInfo::default()
            });
        });
        assert_eq!(by_itself, [true, true, false]);
    }

    #[test]
    fn what_changes_addresses_within_a_bridge_is_told_apart() {
        let with = |families: &[&str], unreadable: Option<&str>, bridged| {
            let mut host = docker_host();
            let netns = host.served_mut();
            netns.ruleset.legacy.clear();
            netns.ruleset.nft_chains = families.iter().map(|family| chain(family, 0)).collect();
            netns.ruleset.unreadable = unreadable.map(Into::into);
            netns.sysctls.bridge_nf_call_iptables = Some(bridged);
            let host = &host;
            only_ip_translates(host.served(), &host.served().links[&BRIDGE])
        };
        assert!(with(&["ip"], None, true));
        assert!(!with(&["ip"], None, false), "they are not asked there");
        assert!(!with(&["ip6"], None, true), "there are none");
        assert!(!with(&["ip", "bridge"], None, true));
        assert!(!with(&["ip", "netdev"], None, true));
        assert!(!with(&["ip"], Some("EPERM"), true));
    }

    #[test]
    fn a_bridge_that_calls_iptables_by_itself_is_judged() {
        let of = decided(|host| {
            host.served_mut().ruleset.nft_chains.insert(chain("ip", 2));
            let bridge = host.served_mut().links.get_mut(&BRIDGE).expect("docker0");
            bridge.kind = LinkKind::Bridge(BridgeInfo {
                nf_call_iptables: true,
                ..BridgeInfo::default()
            });
        });
        assert_eq!(of, [true, true, false]);
    }

    #[test]
    fn internal_networks_and_icc_are_told_whatever_the_rules_are() {
        assert_eq!(decided(|host| network(host).internal = true), [false, true, false]);
        let icc = decided(|host| {
            network(host).options.insert(OPTION_ICC.into(), "false".into());
        });
        assert_eq!(icc, [true, false, false]);
    }
}
