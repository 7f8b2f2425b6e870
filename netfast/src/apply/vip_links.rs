//! The programs that translate virtual addresses: loaded, taken over, attached to endpoints.

use std::collections::{BTreeMap, BTreeSet};

use netfast_common::abi::Program;
use tracing::warn;

use crate::{
    apply::{
        ApplyError, Datapath, Mode,
        attach::{self, Place},
        object,
        pins::LinkPin,
        ways,
    },
    diff::Hook,
    plan::{Client, VipMemory, Way},
};

impl Datapath {
    /// Loads the programs; returns why they cannot be used. All else does without.
    pub(super) fn load_vip(&mut self) -> Option<String> {
        if self.mode == Mode::Clsact {
            return Some("the kernel has no tcx (Linux 6.6)".into());
        }
        let mut programs = [Program::VipIngress, Program::VipEgress].into_iter();
        let loaded = programs.try_for_each(|program| object::load_program(&mut self.ebpf, program));
        let text = format!("{:#}", anyhow::Error::new(loaded.err()?));
        warn!("there are no virtual addresses: {text}");
        Some(text)
    }

    /// Takes over the maps, and finds out what the host says of the pool.
    pub(super) fn adopt_vips(&mut self) -> Result<(), ApplyError> {
        self.realized.vips = self.vips.read()?;
        let pools = ways::pools().map_err(|source| ApplyError::Pool(source.into()))?;
        let mut pools = pools.into_iter();
        self.realized.pool = pools.next();
        for more in pools {
            ways::set_pool(Some(more), None).map_err(ApplyError::Pool)?;
        }
        Ok(())
    }

    /// Takes over a link.
    pub(super) fn adopt_vip(&mut self, ifindex: u32, hook: Hook) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::Attach { ifindex, hook, source };
        let pin = LinkPin::Vip(ifindex, hook);
        let program = object::get(&mut self.ebpf, Program::of_vips(hook))?;
        match attach::adopt(program, &self.pins, pin) {
            Ok(true) => {
                self.realized.vip_links.insert((ifindex, hook));
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                warn!("{:#}", anyhow::Error::new(failed(error)));
                // It runs an old program: better none, and another is attached if it is wanted.
                attach::detach(&self.pins, pin).map_err(failed)
            }
        }
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

    /// Attaches a program to an endpoint.
    pub(super) fn attach_vip(&mut self, ifindex: u32, name: &str, hook: Hook) -> Result<(), ApplyError> {
        let program = object::get(&mut self.ebpf, Program::of_vips(hook))?;
        let place = Place { ifindex, name, hook };
        attach::attach_vip(program, &self.pins, place).map_err(|source| ApplyError::Attach { ifindex, hook, source })
    }

    /// Detaches it. What was learned with its translation must not be used any more.
    pub(super) fn detach_vip(&mut self, ifindex: u32, hook: Hook) -> Result<(), ApplyError> {
        let detached = attach::detach(&self.pins, LinkPin::Vip(ifindex, hook));
        detached.map_err(|source| ApplyError::Attach { ifindex, hook, source })?;
        self.slot(ifindex).map_or(Ok(()), |slot| self.new_generation(slot))
    }

    /// Links whose pins are gone.
    pub(super) fn lost_vips(&self) -> BTreeSet<(u32, Hook)> {
        let is_lost = |&&(ifindex, hook): &&(u32, Hook)| self.is_lost(LinkPin::Vip(ifindex, hook));
        self.realized.vip_links.iter().filter(is_lost).copied().collect()
    }
}
