//! Which virtual address is whose. Addresses are remembered, so that an alias has the same ones for as long as its network
//! exists: clients may keep them for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{VipPool, block, plus},
    host::NetworkId,
};

/// The place of the clients' next hop within a block.
const NEXT_HOP: u32 = 1;
/// The first place of a virtual address within a block.
const FIRST: u32 = 2;
/// Places of a block that virtual addresses can have: 2 to 254.
const PLACES: u32 = 253;

/// The virtual addresses that were given, by network and alias.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipMemory(BTreeMap<String, NetworkVips>);

/// Those of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct NetworkVips {
    /// The first addresses of its blocks of 256, of both families.
    blocks: BTreeSet<IpAddr>,
    /// Of IPv4, by alias.
    aliases: BTreeMap<String, IpAddr>,
    /// Of IPv6, by alias.
    aliases6: BTreeMap<String, IpAddr>,
}

impl NetworkVips {
    fn of(&self, pool: VipPool) -> &BTreeMap<String, IpAddr> {
        if pool.network().is_ipv4() {
            &self.aliases
        } else {
            &self.aliases6
        }
    }

    fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.aliases.values().chain(self.aliases6.values()).copied()
    }
}

impl VipMemory {
    /// The aliases of a network that have one.
    pub fn aliases(&self, network: &NetworkId) -> impl Iterator<Item = &str> {
        let vips = self.0.get(&network.0).into_iter();
        vips.flat_map(|vips| vips.aliases.keys().chain(vips.aliases6.keys()).map(String::as_str))
    }

    /// The virtual address of an alias, of the pool's family.
    pub fn get(&self, pool: VipPool, network: &NetworkId, alias: &str) -> Option<IpAddr> {
        self.0.get(&network.0)?.of(pool).get(alias).copied()
    }

    /// The blocks of a network, of both families.
    pub fn blocks(&self, network: &NetworkId) -> BTreeSet<IpAddr> {
        self.0
            .get(&network.0)
            .map(|vips| vips.blocks.clone())
            .unwrap_or_default()
    }

    /// Forgets what does not stay: addresses of other pools, aliases that are not kept, and then empty blocks.
    pub fn retain(&mut self, pools: [VipPool; 2], mut kept: impl FnMut(&str, &str) -> bool) {
        let in_pools = |vip: &IpAddr| pools.iter().any(|pool| pool.contains(*vip));
        for (network, vips) in &mut self.0 {
            for aliases in [&mut vips.aliases, &mut vips.aliases6] {
                aliases.retain(|alias, vip| in_pools(vip) && kept(network, alias));
            }
            let used: BTreeSet<IpAddr> = vips.all().map(block).collect();
            vips.blocks.retain(|block| used.contains(block));
        }
        self.0.retain(|_, vips| vips.all().next().is_some());
    }

    /// The virtual address of an alias, a new one if it has none; `None` if the pool is full. Where it is depends on
    /// the names, as long as nobody else is there.
    pub fn give(&mut self, pool: VipPool, network: &NetworkId, alias: &str) -> Option<IpAddr> {
        if let Some(vip) = self.get(pool, network, alias) {
            return Some(vip);
        }
        let taken: BTreeSet<IpAddr> = self.0.values().flat_map(NetworkVips::all).collect();
        let start = below(PLACES, alias);
        let place = |block: IpAddr| {
            let places = (0..PLACES).map(|step| FIRST + (start + step) % PLACES);
            places.map(|place| plus(block, place)).find(|vip| !taken.contains(vip))
        };
        let mut blocks = self.blocks(network).into_iter().filter(|block| pool.contains(*block));
        let known = blocks.find_map(place);
        let vip = known.or_else(|| place(self.free_block(pool, network)?))?;
        let vips = self.0.entry(network.0.clone()).or_default();
        vips.blocks.insert(block(vip));
        let aliases = if vip.is_ipv4() {
            &mut vips.aliases
        } else {
            &mut vips.aliases6
        };
        aliases.insert(alias.into(), vip);
        Some(vip)
    }

    fn free_block(&self, pool: VipPool, network: &NetworkId) -> Option<IpAddr> {
        let taken: BTreeSet<IpAddr> = self.0.values().flat_map(|vips| vips.blocks.iter().copied()).collect();
        let start = below(pool.blocks(), &network.0);
        (0..pool.blocks())
            .map(|step| pool.block((start + step) % pool.blocks()))
            .find(|block| !taken.contains(block))
    }
}

/// The next hop of the clients' route to a block.
pub fn next_hop(block: IpAddr) -> IpAddr {
    plus(block, NEXT_HOP)
}

/// A number less than `end` that depends on a name.
fn below(end: u32, name: &str) -> u32 {
    u32::try_from(hash(name.as_bytes()) % u64::from(end)).expect("less than a number of 32 bits")
}

/// FNV-1a (<http://www.isthe.com/chongo/tech/comp/fnv/>), 64 bits.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(name: &str) -> NetworkId {
        NetworkId(name.into())
    }

    fn pool(text: &str) -> VipPool {
        text.parse().expect("a pool")
    }

    /// Both pools, this one in its family's place.
    fn with(pool: VipPool) -> [VipPool; 2] {
        match pool.network() {
            IpAddr::V4(_) => [pool, VipPool::DEFAULT6],
            IpAddr::V6(_) => [VipPool::DEFAULT, pool],
        }
    }

    fn last_byte(ip: IpAddr) -> u8 {
        match ip {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        }
    }

    #[test]
    fn an_alias_keeps_its_address_and_shares_it_with_nobody() {
        keeps_its_address(VipPool::DEFAULT, "10.0.0.0/8");
        keeps_its_address(VipPool::DEFAULT6, "fd00::/112");
    }

    fn keeps_its_address(pool: VipPool, another: &str) {
        let mut memory = VipMemory::default();
        let vip = memory.give(pool, &network("a"), "web").expect("room");
        assert!(pool.contains(vip) && (2..=254).contains(&last_byte(vip)));
        assert_eq!(memory.give(pool, &network("a"), "web"), Some(vip));
        assert_eq!(
            VipMemory::default().give(pool, &network("a"), "web"),
            Some(vip),
            "the same in every daemon"
        );
        let other = memory.give(pool, &network("b"), "web").expect("room");
        assert_ne!(block(vip), block(other));
        assert_eq!(last_byte(next_hop(block(vip))), 1);
        memory.retain(with(pool), |network, _| network == "b");
        assert_eq!(
            (
                memory.get(pool, &network("a"), "web"),
                memory.get(pool, &network("b"), "web")
            ),
            (None, Some(other))
        );
        memory.retain(with(self::pool(another)), |_, _| true);
        assert_eq!(memory, VipMemory::default(), "another pool");
    }

    #[test]
    fn an_alias_has_one_of_each_family_and_one_goes_without_the_other() {
        let mut memory = VipMemory::default();
        let a = network("a");
        let v4 = memory.give(VipPool::DEFAULT, &a, "web").expect("room");
        let v6 = memory.give(VipPool::DEFAULT6, &a, "web").expect("room");
        assert!(v4.is_ipv4() && v6.is_ipv6());
        assert_eq!(memory.blocks(&a), BTreeSet::from([block(v4), block(v6)]));
        memory.retain(with(pool("10.0.0.0/8")), |_, _| true);
        assert_eq!(memory.get(VipPool::DEFAULT, &a, "web"), None);
        assert_eq!(memory.get(VipPool::DEFAULT6, &a, "web"), Some(v6));
        assert_eq!(memory.blocks(&a), BTreeSet::from([block(v6)]));
        assert_eq!(memory.aliases(&a).collect::<Vec<_>>(), ["web"]);
    }

    #[test]
    fn what_a_daemon_without_ipv6_has_written_is_read() {
        let text = r#"{"a":{"blocks":["198.19.7.0"],"aliases":{"web":"198.19.7.9"}}}"#;
        let memory: VipMemory = serde_json::from_str(text).expect("it is read");
        let vip = memory.get(VipPool::DEFAULT, &network("a"), "web");
        assert_eq!(vip, "198.19.7.9".parse().ok());
    }

    #[test]
    fn a_full_pool_is_full() {
        let mut memory = VipMemory::default();
        let one = pool("10.1.2.0/24");
        for alias in 0..PLACES {
            assert!(memory.give(one, &network("a"), &alias.to_string()).is_some());
        }
        assert_eq!(memory.give(one, &network("a"), "more"), None);
        assert_eq!(memory.give(one, &network("b"), "web"), None);
        // With two blocks, the network takes the other one as well.
        let two = pool("10.1.2.0/23");
        assert!(memory.give(two, &network("a"), "more").is_some());
        assert_eq!(memory.blocks(&network("a")).len(), 2);
        memory.retain(with(two), |_, alias| alias == "more");
        assert_eq!(memory.blocks(&network("a")).len(), 1);
    }

    proptest! {
        #[test]
        fn addresses_are_unique_and_blocks_are_of_one_network(
            wanted in proptest::collection::vec((0_u8..12, 0_u16..400), 1..400),
        ) {
            let pool: VipPool = "10.9.0.0/19".parse().expect("a pool");
            let mut memory = VipMemory::default();
            for (on, alias) in &wanted {
                prop_assert!(memory.give(pool, &network(&on.to_string()), &alias.to_string()).is_some());
            }
            let all: Vec<IpAddr> = memory.0.values().flat_map(NetworkVips::all).collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            let blocks: Vec<IpAddr> = memory.0.values().flat_map(|vips| vips.blocks.iter().copied()).collect();
            prop_assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), blocks.len());
            prop_assert!(memory.0.values().all(|vips| vips.aliases.values().all(|vip| vips.blocks.contains(&block(*vip)))));
        }
    }
}
