//! The watch of what datapaths of Open vSwitch do with packets. It is attached while the host has a datapath, and no longer: what is
//! attached to a module's tracepoint keeps the module from being unloaded.

use tracing::{info, warn};

use crate::{
    apply::{Datapath, attach, lacks::one_line},
    diff::Attachment,
    host::{Host, LinkKind},
};

fn has_datapath(host: &Host) -> bool {
    let mut links = host.served().links.values();
    links.any(|link| matches!(link.kind, LinkKind::Openvswitch))
}

impl Datapath {
    /// Attaches the watch if there is a datapath, and notes why that is not possible, if it is not.
    pub fn watch_datapaths(&mut self, host: &Host) {
        if self.watches_ovs || !has_datapath(host) {
            return;
        }
        let refused = self.ovs_refused.clone();
        let attached = refused.map_or_else(
            // What an earlier daemon has attached goes when the new one is there.
            || self.attach(Attachment::OVS_WATCH, "").map_err(|error| one_line(&error)),
            Err,
        );
        self.watches_ovs = attached.is_ok();
        let off = attached.err();
        if off == self.facts.ovs_off {
            return;
        }
        match &off {
            None => info!("watching what Open vSwitch does with packets"),
            Some(why) => warn!("containers at ports of Open vSwitch keep the kernel's path: {why}"),
        }
        self.facts.ovs_off = off;
    }

    /// Detaches it if there is none any more, and nothing can be learned through one.
    pub fn unwatch_datapaths(&mut self, host: &Host) {
        let watch = Attachment::OVS_WATCH;
        if has_datapath(host) || !self.pins.link(&watch).exists() {
            return;
        }
        match attach::detach(&self.pins, &watch) {
            Ok(()) => self.watches_ovs = false,
            Err(error) => warn!("{}: {error}", watch.at),
        }
    }
}
