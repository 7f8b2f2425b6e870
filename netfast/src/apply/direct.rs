//! Direct forwarding: the ports between which there is any, and the lease without which there is none.

use std::sync::atomic::Ordering;

use netfast_common::{
    abi::map,
    device::DeviceKey,
    direct::{LEASE_NS, Port, PortKey},
};
use tracing::warn;

use crate::{
    apply::{
        ApplyError, Datapath,
        aliases::remove,
        lease::{self, Leases},
        map_error,
    },
    plan::DirectPort,
};

impl Datapath {
    /// Lets packets be forwarded directly for a while: to be called by a daemon that has looked at everything that it has
    /// heard of, and only then.
    pub fn renew_direct(&self) {
        if !self.realized.ports.values().any(|port| !port.is_ended) {
            self.end_direct();
            return;
        }
        let leases = self.lease.get_or_init(|| {
            let leases = Leases::of(&self.control);
            leases
                .inspect_err(|error| warn!("nothing is forwarded directly: {error}"))
                .ok()
        });
        if let Some(leases) = leases {
            leases
                .direct_until_ns()
                .store(lease::now_ns() + LEASE_NS, Ordering::Relaxed);
        }
    }

    /// From here on nothing is forwarded directly.
    pub fn end_direct(&self) {
        if let Some(Some(leases)) = self.lease.get() {
            leases.direct_until_ns().store(0, Ordering::Relaxed);
        }
    }

    /// Writes what is said of a port, for the generation that its device has now.
    pub(super) fn set_port(
        &mut self,
        key: DeviceKey,
        from: Option<DirectPort>,
        to: Option<DirectPort>,
    ) -> Result<(), ApplyError> {
        let failed = |source| map_error(map::PORTS, source);
        let kept = to.map(|port| keys(key, &port)).unwrap_or_default();
        let old = from.map(|port| keys(key, &port)).unwrap_or_default();
        for key in old.iter().filter(|key| !kept.contains(key)) {
            remove(&mut self.ports, map::PORTS, key)?;
        }
        let (Some(port), Some(slot)) = (to, self.slot(key)) else {
            return Ok(());
        };
        let generation = self
            .generations
            .get(&slot.into(), 0)
            .map_err(|source| map_error(map::GENERATIONS, source))?;
        for at in kept {
            let entry = Port {
                tag: at.tag(),
                bridge: port.bridge,
                ifindex: key.ifindex,
                generation,
                max_length: port.max_length,
                slot,
                exit: port.exit as u8,
                reserved: 0,
                tag_end: at.tag(),
            };
            self.ports.insert(at, entry, 0).map_err(failed)?;
        }
        Ok(())
    }
}

/// By what a port is found: as a source, and as a destination.
fn keys(device: DeviceKey, port: &DirectPort) -> Vec<PortKey> {
    let at = |ifindex| PortKey::new(device.netns, ifindex, port.mac.0);
    vec![at(device.ifindex), at(port.bridge)]
}
