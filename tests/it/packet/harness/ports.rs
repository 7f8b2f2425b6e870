//! Ports between which packets are forwarded directly.

use netfast_common::direct::{Pace, Port, PortKey, pair};
use netfast_tests::{packet::six::MORE, scene::Dev};

use super::{Lab, clear};

impl Lab {
    /// Lets packets be forwarded directly from or to a port.
    pub fn set_port(&mut self, key: PortKey, mut port: Port) {
        if self.six {
            port.max_length += u32::try_from(MORE).expect("few");
        }
        self.has_ports = true;
        self.ports.insert(key, port, 0).expect("a port");
    }

    pub(super) fn forget_ports(&mut self) {
        if std::mem::take(&mut self.has_ports) {
            clear(&mut self.ports);
            for (from, to) in Dev::ALL.into_iter().flat_map(|from| Dev::ALL.map(|to| (from, to))) {
                let at = pair(from.slot(), to.slot());
                self.paces.set(at, Pace::default(), 0).expect("a pace");
            }
        }
    }
}
