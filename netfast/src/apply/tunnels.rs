//! Tunnels whose outer headers are repeated: the programs, loaded, and what they are told.

use netfast_common::{
    abi::{Program, map},
    device::DeviceKey,
    tunnel::Tunnel,
};

use crate::apply::{
    ApplyError, Datapath,
    aliases::remove,
    lacks::{Lack, Without},
    map_error,
};

impl Datapath {
    /// Loads the programs; returns why they cannot be used. All else does without.
    pub(super) fn load_tunnels(&mut self, without: &Without) -> Option<Lack> {
        let mut programs = [Program::TunnelEgress, Program::TunnelUplink].into_iter();
        programs.find_map(|program| self.load_optional(program, without))
    }

    /// Takes over what an earlier daemon said of tunnels.
    pub(super) fn adopt_tunnels(&mut self) -> Result<(), ApplyError> {
        for entry in &self.tunnels {
            let (key, tunnel) = entry.map_err(|source| map_error(map::TUNNELS, source))?;
            self.realized.tunnels.insert(key, tunnel);
        }
        Ok(())
    }

    /// Says of a tunnel that its outer headers may be repeated, or no longer.
    pub(super) fn set_tunnel(&mut self, key: DeviceKey, to: Option<Tunnel>) -> Result<(), ApplyError> {
        match to {
            Some(tunnel) => self
                .tunnels
                .insert(key, tunnel, 0)
                .map_err(|source| map_error(map::TUNNELS, source)),
            None => remove(&mut self.tunnels, map::TUNNELS, &key),
        }
    }
}
