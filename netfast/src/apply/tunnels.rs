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
    /// Loads the programs; returns why those for what leaves cannot be used, and those for what comes in. All else does without.
    pub(super) fn load_tunnels(&mut self, without: &Without) -> (Option<Lack>, Option<Lack>) {
        let mut load = |programs: [Program; 2]| {
            let mut programs = programs.into_iter();
            programs.find_map(|program| self.load_optional(program, without))
        };
        let out = load([Program::TunnelEgress, Program::TunnelUplink]);
        let way_in = load([Program::TunnelIngress, Program::TunnelTaken]);
        let why = |lack: &Lack| lack.why.clone();
        (self.facts.tunnels_off, self.facts.way_in_off) = (out.as_ref().map(why), way_in.as_ref().map(why));
        (out, way_in)
    }

    /// Takes over what an earlier daemon said of tunnels.
    pub(super) fn adopt_tunnels(&mut self) -> Result<(), ApplyError> {
        for entry in &self.tunnels {
            let (key, tunnel) = entry.map_err(|source| map_error(map::TUNNELS, source))?;
            self.realized.tunnels.insert(key, tunnel);
        }
        Ok(())
    }

    /// Says of a tunnel that its outer headers may be repeated, or no longer; and taken off.
    pub(super) fn set_tunnel(
        &mut self,
        key: DeviceKey,
        from: Option<Tunnel>,
        to: Option<Tunnel>,
    ) -> Result<(), ApplyError> {
        if let Some(tunnel) = from.filter(Tunnel::has_way_in) {
            remove(&mut self.ends, map::ENDS, &tunnel.end(key.netns))?;
        }
        if let Some(tunnel) = to.filter(Tunnel::has_way_in) {
            self.ends
                .insert(tunnel.end(key.netns), key.ifindex, 0)
                .map_err(|source| map_error(map::ENDS, source))?;
        }
        match to {
            Some(tunnel) => self
                .tunnels
                .insert(key, tunnel, 0)
                .map_err(|source| map_error(map::TUNNELS, source)),
            None => remove(&mut self.tunnels, map::TUNNELS, &key),
        }
    }
}
