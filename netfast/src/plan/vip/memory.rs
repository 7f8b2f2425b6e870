//! Which virtual address is whose. Addresses are remembered, so that an alias has the same one for as long as its network
//! exists: clients may keep it for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use serde::{Deserialize, Serialize};

use crate::{config::VipPool, host::NetworkId};

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
struct NetworkVips {
    /// The first addresses of its blocks of 256.
    blocks: BTreeSet<Ipv4Addr>,
    /// By alias.
    aliases: BTreeMap<String, Ipv4Addr>,
}

impl VipMemory {
    /// The aliases of a network that have one.
    pub fn aliases(&self, network: &NetworkId) -> impl Iterator<Item = &str> {
        let vips = self.0.get(&network.0);
        vips.into_iter()
            .flat_map(|vips| vips.aliases.keys().map(String::as_str))
    }

    /// The virtual address of an alias.
    pub fn get(&self, network: &NetworkId, alias: &str) -> Option<Ipv4Addr> {
        self.0.get(&network.0)?.aliases.get(alias).copied()
    }

    /// The blocks of a network.
    pub fn blocks(&self, network: &NetworkId) -> BTreeSet<Ipv4Addr> {
        self.0
            .get(&network.0)
            .map(|vips| vips.blocks.clone())
            .unwrap_or_default()
    }

    /// Forgets what does not stay: addresses of another pool, aliases that are not kept, and then empty blocks.
    pub fn retain(&mut self, pool: VipPool, mut kept: impl FnMut(&str, &str) -> bool) {
        for (network, vips) in &mut self.0 {
            vips.aliases
                .retain(|alias, vip| pool.contains(*vip) && kept(network, alias));
            let used: BTreeSet<Ipv4Addr> = vips.aliases.values().map(|vip| block(*vip)).collect();
            vips.blocks.retain(|block| used.contains(block));
        }
        self.0.retain(|_, vips| !vips.aliases.is_empty());
    }

    /// The virtual address of an alias, a new one if it has none; `None` if the pool is full. Where it is depends on
    /// the names, as long as nobody else is there.
    pub fn give(&mut self, pool: VipPool, network: &NetworkId, alias: &str) -> Option<Ipv4Addr> {
        if let Some(vip) = self.get(network, alias) {
            return Some(vip);
        }
        let taken: BTreeSet<Ipv4Addr> = self
            .0
            .values()
            .flat_map(|vips| vips.aliases.values().copied())
            .collect();
        let start = below(PLACES, alias);
        let place = |block: Ipv4Addr| {
            let places = (0..PLACES).map(|step| FIRST + (start + step) % PLACES);
            places
                .map(|place| Ipv4Addr::from(u32::from(block) + place))
                .find(|vip| !taken.contains(vip))
        };
        let known = self.blocks(network).into_iter().find_map(place);
        let vip = known.or_else(|| place(self.free_block(pool, network)?))?;
        let vips = self.0.entry(network.0.clone()).or_default();
        vips.blocks.insert(block(vip));
        vips.aliases.insert(alias.into(), vip);
        Some(vip)
    }

    fn free_block(&self, pool: VipPool, network: &NetworkId) -> Option<Ipv4Addr> {
        let taken: BTreeSet<Ipv4Addr> = self.0.values().flat_map(|vips| vips.blocks.iter().copied()).collect();
        let start = below(pool.blocks(), &network.0);
        (0..pool.blocks())
            .map(|step| pool.block((start + step) % pool.blocks()))
            .find(|block| !taken.contains(block))
    }
}

/// The block that an address is in.
fn block(ip: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(ip) & 0xffff_ff00)
}

/// The next hop of the clients' route to a block.
pub fn next_hop(block: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(block) + NEXT_HOP)
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

    #[test]
    fn an_alias_keeps_its_address_and_shares_it_with_nobody() {
        let mut memory = VipMemory::default();
        let pool = VipPool::default();
        let vip = memory.give(pool, &network("a"), "web").expect("room");
        assert!(pool.contains(vip) && (2..=254).contains(&vip.octets()[3]));
        assert_eq!(memory.give(pool, &network("a"), "web"), Some(vip));
        assert_eq!(
            VipMemory::default().give(pool, &network("a"), "web"),
            Some(vip),
            "the same in every daemon"
        );
        let other = memory.give(pool, &network("b"), "web").expect("room");
        assert_ne!(block(vip), block(other));
        assert_eq!(next_hop(block(vip)).octets()[3], 1);
        memory.retain(pool, |network, _| network == "b");
        assert_eq!(
            (memory.get(&network("a"), "web"), memory.get(&network("b"), "web")),
            (None, Some(other))
        );
        memory.retain(self::pool("10.0.0.0/8"), |_, _| true);
        assert_eq!(memory, VipMemory::default(), "another pool");
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
        memory.retain(two, |_, alias| alias == "more");
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
            let all: Vec<Ipv4Addr> = memory.0.values().flat_map(|vips| vips.aliases.values().copied()).collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            let blocks: Vec<Ipv4Addr> = memory.0.values().flat_map(|vips| vips.blocks.iter().copied()).collect();
            prop_assert_eq!(blocks.iter().collect::<BTreeSet<_>>().len(), blocks.len());
            prop_assert!(memory.0.values().all(|vips| vips.aliases.values().all(|vip| vips.blocks.contains(&block(*vip)))));
        }
    }
}
