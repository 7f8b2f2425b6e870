//! Worlds for the property of `netfast explain`: what it says of a pair is what happens to the pair's packets.
//!
//! A world is a set of [`Trait`]s of one host with three bridges, and some [`Talk`]s. The same seed gives the same world for
//! as long as the generator is not changed.

use std::fmt;

use crate::seeds::rng::Rng;

/// Containers on each bridge of the host.
pub const BRIDGES: [usize; 3] = [3, 2, 1];

/// Packet-filter rules of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rules {
    /// None at all: nobody decides.
    None,
    /// An engine's with default options, which keep bridges apart, and two published ports.
    Engine,
    /// An engine's, without masquerade.
    Untranslated,
    /// A chain of nftables that lets everything through.
    Open,
}

/// One thing that differs from a plain host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trait {
    /// Which rules there are.
    Rules(Rules),
    /// Bridged packets pass iptables.
    BrNetfilter,
    /// The rules of an internal network for this bridge.
    Internal(usize),
    /// The rules of icc=false for this bridge.
    NoIcc(usize),
    /// A rule before conntrack drops the datagrams that this bridge's containers send.
    Raw(usize),
    /// A limit on what is forwarded from this bridge.
    Limit(usize),
    /// A limit on what is forwarded from this bridge to the uplink.
    LimitOut(usize),
    /// A limit on what the host gets.
    HostLimit,
    /// ufw's chain for what is logged.
    Ufw,
    /// A table of nftables for bridges, which lets everything through.
    BridgeTable,
    /// The same, which drops what the containers of bridge 0 send to each other.
    BridgeDrop,
    /// A filter of somebody else on the ingress of a container's veth.
    FilterIn(usize, usize),
    /// The same on its egress.
    FilterOut(usize, usize),
    /// A shaper on a container's veth.
    Shaped(usize, usize),
    /// A shaper on a bridge device.
    BridgeShaped(usize),
    /// A filter of somebody else on the uplink's ingress.
    UplinkFilter,
    /// The configuration names another uplink.
    OtherUplink,
    /// The configuration switches a bridge's network off.
    Disabled(usize),
    /// The uplink is down.
    UplinkDown,
    /// The outside knows the way to the containers.
    RouteBack,
    /// The host does not forward.
    NoForward,
    /// The host throws away what goes to the outside.
    Blackhole,
    /// A policy rule keeps a container from everything.
    Prohibited(usize, usize),
    /// A container has no default route.
    NoDefault(usize, usize),
    /// A container's interface is down, on its own side.
    Down(usize, usize),
    /// A container's veth is down, on the host's side.
    VethDown(usize, usize),
    /// A container has sent from two MAC addresses.
    TwoMacs(usize, usize),
    /// The host has forgotten the containers of this bridge.
    Forgotten(usize),
    /// A container has an address more, and the host knows both.
    TwoAddresses(usize, usize),
    /// A container's MTU, on both sides.
    Mtu(usize, usize, u16),
    /// Two containers of bridge 0 are on isolated ports.
    Isolated,
    /// Strict reverse-path filtering.
    Strict,
    /// conntrack counts.
    Accounting,
    /// conntrack counts, and may lag.
    AccountingAllowed,
    /// Rules with limits may see less.
    LimitsAllowed,
}

/// Who talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// A container, by bridge and place.
    Container(usize, usize),
    /// The host, by the address of this bridge.
    Gateway(usize),
    /// The host, by its address on the uplink.
    Host,
    /// The outside.
    Outside,
}

/// One conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Talk {
    /// The container that is asked about.
    pub container: (usize, usize),
    /// Whom it talks to.
    pub peer: Party,
    /// The peer opens the conversation.
    pub is_answering: bool,
    /// To the container's published port, or to one of another container for what it opens itself.
    pub is_published: bool,
    /// TCP, or UDP.
    pub is_tcp: bool,
    /// Bytes of each message.
    pub length: usize,
}

/// A host, and what is said there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// What differs from a plain host, at most one of each kind, in the order in which it is done.
    pub traits: Vec<Trait>,
    /// The conversations, one after the other.
    pub talks: Vec<Talk>,
    /// Packets of each direction that the kernel carries before TCP is learned.
    pub learn_after: u8,
}

impl World {
    /// The world of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let rules = rng.weighted(&[
            (3, Rules::None),
            (5, Rules::Engine),
            (1, Rules::Untranslated),
            (2, Rules::Open),
        ]);
        let mut traits = vec![Trait::Rules(rules)];
        if rng.chance(50) {
            traits.push(Trait::BrNetfilter);
        }
        if rng.chance(40) {
            traits.push(Trait::RouteBack);
        }
        for _ in 0..rng.weighted(&[(2, 0), (5, 1), (3, 2), (2, 3)]) {
            let one = any(&mut rng);
            // Two of a kind, or both sorts of what is one switch, would undo each other.
            let is_same = |other: &Trait| std::mem::discriminant(other) == std::mem::discriminant(&one);
            let accounts = |one: &Trait| matches!(one, Trait::Accounting | Trait::AccountingAllowed);
            if !traits
                .iter()
                .any(|other| is_same(other) || accounts(other) && accounts(&one))
            {
                traits.push(one);
            }
        }
        Self {
            traits,
            talks: (0..3).map(|_| talk(&mut rng)).collect(),
            learn_after: rng.weighted(&[(2, 3), (1, 0)]),
        }
    }

    /// Whether it has this trait.
    pub fn has(&self, one: Trait) -> bool {
        self.traits.contains(&one)
    }
}

fn container(rng: &mut Rng) -> (usize, usize) {
    let bridge = rng.weighted(&[(3, 0), (2, 1), (1, 2)]);
    (bridge, rng.below(BRIDGES[bridge]))
}

fn any(rng: &mut Rng) -> Trait {
    let bridge = rng.below(BRIDGES.len());
    let (b, c) = container(rng);
    let all = [
        Trait::Internal(bridge),
        Trait::NoIcc(bridge),
        Trait::Raw(bridge),
        Trait::Limit(bridge),
        Trait::LimitOut(bridge),
        Trait::HostLimit,
        Trait::Ufw,
        Trait::BridgeTable,
        Trait::BridgeDrop,
        Trait::FilterIn(b, c),
        Trait::FilterOut(b, c),
        Trait::Shaped(b, c),
        Trait::BridgeShaped(bridge),
        Trait::UplinkFilter,
        Trait::OtherUplink,
        Trait::Disabled(bridge),
        Trait::UplinkDown,
        Trait::NoForward,
        Trait::Blackhole,
        Trait::Prohibited(b, c),
        Trait::NoDefault(b, c),
        Trait::Down(b, c),
        Trait::VethDown(b, c),
        Trait::TwoMacs(b, c),
        Trait::Forgotten(bridge),
        Trait::TwoAddresses(b, c),
        Trait::Mtu(b, c, rng.pick(&[1300, 1400, 9000])),
        Trait::Isolated,
        Trait::Strict,
        Trait::Accounting,
        Trait::AccountingAllowed,
        Trait::LimitsAllowed,
    ];
    rng.pick(&all)
}

fn talk(rng: &mut Rng) -> Talk {
    let container = container(rng);
    let peer = match rng.below(10) {
        0..4 => {
            let (bridge, place) = (container.0, rng.below(BRIDGES[container.0]));
            if place == container.1 {
                Party::Outside
            } else {
                Party::Container(bridge, place)
            }
        }
        4 => {
            let bridge = (container.0 + 1) % BRIDGES.len();
            Party::Container(bridge, rng.below(BRIDGES[bridge]))
        }
        5 => Party::Gateway(container.0),
        6 => Party::Host,
        _ => Party::Outside,
    };
    Talk {
        container,
        peer,
        is_answering: rng.chance(40),
        is_published: rng.chance(40),
        is_tcp: rng.chance(50),
        length: rng.pick(&[1, 64, 700, 1200]),
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, learn_after {}", self.traits, self.learn_after)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_seed_is_a_world() {
        assert_eq!(World::of(7), World::of(7));
        assert_ne!(World::of(7), World::of(8));
    }

    #[test]
    fn five_hundred_worlds_have_each_trait_and_each_sort_of_talk() {
        let mut traits: BTreeMap<String, usize> = BTreeMap::new();
        let mut peers: BTreeMap<(u8, bool, bool, bool), usize> = BTreeMap::new();
        for seed in 0..500 {
            let world = World::of(seed);
            for one in &world.traits {
                let name = format!("{one:?}");
                let name = if matches!(one, Trait::Rules(_)) {
                    name
                } else {
                    name.split('(').next().expect("a name").to_owned()
                };
                *traits.entry(name).or_default() += 1;
            }
            for talk in world.talks {
                let peer = match talk.peer {
                    Party::Container(bridge, _) => u8::from(bridge != talk.container.0),
                    Party::Gateway(_) => 2,
                    Party::Host => 3,
                    Party::Outside => 4,
                };
                let sort = (peer, talk.is_answering, talk.is_published, talk.is_tcp);
                *peers.entry(sort).or_default() += 1;
            }
        }
        // 32 kinds besides the rules, br_netfilter and the way back.
        assert_eq!(traits.len(), 4 + 2 + 32, "{traits:?}");
        assert!(traits.values().all(|count| *count >= 5), "{traits:?}");
        assert_eq!(peers.len(), 5 * 8, "{peers:?}");
    }
}
