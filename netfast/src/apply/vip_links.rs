//! Virtual addresses: the programs that translate them, loaded, and what is taken over of an earlier daemon.

use std::collections::BTreeMap;

use netfast_common::abi::Program;

use crate::{
    apply::{
        ApplyError, Datapath,
        lacks::{Lack, Without},
        routes,
    },
    plan::{Client, VipMemory, Way},
};

impl Datapath {
    /// Loads the programs; returns why they cannot be used. All else does without.
    pub(super) fn load_vip(&mut self, without: &Without) -> Option<Lack> {
        let mut programs = [Program::VipIngress, Program::VipEgress].into_iter();
        programs.find_map(|program| self.load_optional(program, without))
    }

    /// Takes over the maps, and finds out of which pools the host says that there is no way there.
    pub(super) fn adopt_vips(&mut self) -> Result<(), ApplyError> {
        self.realized.vips = self.vips.read()?;
        self.realized.pools = routes::pools().map_err(|source| ApplyError::Pool(source.into()))?;
        Ok(())
    }

    /// Remembers what an earlier daemon has given and done. Of the ways only the place counts: they are made anew.
    pub fn remember_vips(&mut self, memory: VipMemory, ways: &BTreeMap<Client, Way>) {
        self.facts.vips = memory;
        let places = ways.iter().map(|(client, way)| {
            let way = Way {
                blocks: way.blocks.clone(),
                ..Way::default()
            };
            (*client, way)
        });
        self.realized.ways = places.collect();
    }

    /// The virtual addresses that were given.
    pub fn set_vip_memory(&mut self, memory: VipMemory) {
        self.facts.vips = memory;
    }

    /// Whether there are virtual addresses.
    pub fn has_vips(&self) -> bool {
        !self.realized.vips.services.is_empty()
    }

    /// The clients' ways that there are.
    pub fn ways(&self) -> &BTreeMap<Client, Way> {
        &self.realized.ways
    }
}
