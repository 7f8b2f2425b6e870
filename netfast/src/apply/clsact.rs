//! The clsact qdiscs that classic filters hang from, where tcx does not exist (before Linux 6.6).

use netfast_common::{abi::Program, device::Kind};
use nix::net::if_::if_nametoindex;

use crate::{
    apply::{
        AttachError,
        attach::{self, Place},
    },
    diff::Hook,
    observe::{NetlinkError, netlink},
    sys::netlink::write::write,
};

/// Adds clsact to an interface; `false` if it was there.
pub fn add(ifindex: u32) -> Result<bool, AttachError> {
    match write(|writer| writer.add_clsact(ifindex)) {
        Ok(()) => Ok(true),
        Err(error) => match error.refused() {
            // It may be an `ingress`, too: that shows at once, when a filter is attached to its egress.
            Some(libc::EEXIST) => Ok(false),
            Some(libc::ENODEV) => Err(AttachError::Gone),
            _ => Err(AttachError::Clsact(error)),
        },
    }
}

/// Removes our filters from an interface.
pub fn remove_filters(ifindex: u32, name: &str) -> Result<(), AttachError> {
    for kind in [Kind::Endpoint, Kind::Bridge, Kind::Uplink] {
        for hook in Hook::BOTH {
            attach::detach_filter(Place { ifindex, name, hook }, Program::of_device(kind, hook).name())?;
        }
    }
    Ok(())
}

/// Removes clsact from an interface that we added it to, unless somebody else's filters hang from it by now.
pub fn remove(ifindex: u32, name: &str) -> Result<bool, NetlinkError> {
    if if_nametoindex(name) != Ok(ifindex) {
        return Ok(false);
    }
    let found = netlink::snapshot()?;
    let used = found
        .tc_filters
        .get(&ifindex)
        .is_some_and(|filters| !filters.is_empty());
    let there = found
        .qdiscs
        .get(&ifindex)
        .is_some_and(|qdiscs| qdiscs.iter().any(|qdisc| qdisc.kind == "clsact"));
    if used || !there {
        return Ok(false);
    }
    write(|writer| writer.remove_clsact(ifindex))?;
    Ok(true)
}
