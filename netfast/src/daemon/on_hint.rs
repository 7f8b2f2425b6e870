//! What a hint means for flows before it is known what changed.

use std::collections::BTreeSet;

use netfast_common::device::DeviceKey;
use tracing::{debug, warn};

use super::Daemon;
use crate::observe::Change;

impl Daemon {
    /// Notes a hint and all that wait behind it. What makes the kernel's verdicts old makes learned flows old at once;
    /// the pass that follows finds out whether it was more than that.
    pub(super) fn on_hint(&mut self, hint: Change, changes: &mut BTreeSet<Change>) {
        let mut outdated = false;
        let mut next = Some(hint);
        while let Some(change) = next {
            debug!("hint: {change:?}");
            // Every time, even if the same is still to be read: a flow may have been learned in between.
            outdated |= change.outdates_all_flows();
            if change.ends_direct_forwarding() {
                self.sync.datapath().end_leases();
            }
            // Hints are of the namespace that the daemon serves.
            let key = DeviceKey::served;
            let some = match change {
                Change::Neighbours { device, mac } => self.sync.datapath().outdate_neighbour(key(device), mac),
                Change::FdbMoved { port } => self.sync.datapath().outdate(key(port)),
                Change::Device { device } => self.sync.datapath().outdate_device(key(device)),
                Change::Programs { device } => {
                    let name = self.host.served().links.get(&device).map(|link| link.name.as_str());
                    if !self.sync.datapath().has_other_programs(key(device), name) {
                        // Ours, most likely.
                        next = self.hints.try_recv().ok();
                        continue;
                    }
                    self.sync.datapath().outdate_device(key(device))
                }
                Change::Links { .. }
                | Change::Addresses
                | Change::FdbAdded { .. }
                | Change::Routes
                | Change::PolicyRules
                | Change::Ipsec
                | Change::Tc
                | Change::Sysctls
                | Change::Tuning
                | Change::Ruleset
                | Change::Queues
                | Change::Containers
                | Change::Runtime
                | Change::Overflow => Ok(()),
            };
            if let Err(error) = some {
                warn!("{:#}", anyhow::Error::new(error));
                outdated = true;
            }
            changes.insert(change);
            next = self.hints.try_recv().ok();
        }
        if outdated && let Err(error) = self.sync.datapath().new_epoch() {
            warn!("{:#}", anyhow::Error::new(error));
        }
    }
}
