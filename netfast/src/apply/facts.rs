//! What the plan must know of the BPF subsystem: programs of others on the hooks that netfast is attached to.

use netfast_common::{abi::Hook, device::DeviceKey};

use crate::{
    apply::{Datapath, Mode},
    host::{Host, LinkKind},
    plan::{Facts, Foreign},
    probe,
};

impl Datapath {
    /// Looks again at the programs on an interface; whether others than before are among them that are not ours. One
    /// that is not known yet is looked at when it is.
    pub fn has_other_programs(&mut self, device: DeviceKey, name: Option<&str>) -> bool {
        if self.mode == Mode::Clsact || !self.facts.foreign.contains_key(&device) {
            return false;
        }
        let Some(programs) = name.and_then(|name| probe::attached(name).ok()) else {
            // It was renamed, or has just gone: it is looked at anew when that has been read.
            self.facts.foreign.remove(&device);
            return true;
        };
        let found = foreign(&programs);
        self.facts.foreign.insert(device, found.clone()) != Some(found)
    }

    /// What the plan must know of the BPF subsystem. Interfaces are looked at when they appear, and all of them when `all`
    /// is set; what happens to their programs afterwards is polled for, see [`Self::has_other_programs`].
    pub fn facts(&mut self, host: &Host, all: bool) -> &Facts {
        let devices = self.realized.devices.iter();
        self.facts.endpoints = devices
            .filter(|(_, entry)| entry.device.is_endpoint())
            .map(|(key, entry)| (*key, entry.device))
            .collect();
        if self.mode == Mode::Clsact {
            return &self.facts;
        }
        self.facts.foreign.retain(|device, _| host.link(*device).is_some());
        for link in host.served().links.values().filter(|link| link.is_ethernet()) {
            let concerns = link.master.is_some() || !matches!(link.kind, LinkKind::Dummy | LinkKind::Loopback);
            let device = host.served().key(link.ifindex);
            if concerns && (all || !self.facts.foreign.contains_key(&device)) {
                // One that went away meanwhile is not in the next snapshot.
                if let Ok(programs) = probe::attached(&link.name) {
                    self.facts.foreign.insert(device, foreign(&programs));
                }
            }
        }
        &self.facts
    }
}

/// Which of the programs on an interface are somebody else's, and where.
pub fn foreign(programs: &[probe::Attached]) -> Foreign {
    let mut found = Foreign::default();
    let mut after_ours = false;
    for program in programs {
        let name = if program.name.is_empty() {
            format!("(id {})", program.id)
        } else {
            program.name.clone()
        };
        match (program.hook, program.is_ours()) {
            (Hook::Ingress, true) => after_ours = true,
            (Hook::Ingress, false) => {
                if after_ours {
                    found.ingress_after.push(name.clone());
                }
                found.ingress.push(name);
            }
            (Hook::Egress, true) => {}
            (Hook::Egress, false) => found.egress.push(name),
        }
    }
    found
}
