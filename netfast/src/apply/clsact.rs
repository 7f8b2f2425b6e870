//! The clsact qdiscs that classic filters hang from, where tcx does not exist (before Linux 6.6).

use aya::programs::tc::{self, TcError};
use netfast_common::{abi::Program, device::Kind};
use nix::net::if_::if_nametoindex;

use crate::{
    apply::{
        AttachError,
        attach::{self, Place},
    },
    diff::Hook,
    observe::{
        NetlinkError, netlink,
        socket::{Asker, REQUEST},
        wire::Request,
    },
};

// Numbers of linux/rtnetlink.h and linux/pkt_sched.h.
const RTM_DELQDISC: u16 = 37;
const NLM_F_ACK: u16 = 4;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const TC_H_CLSACT_HANDLE: u32 = 0xffff_0000;

/// Adds clsact to an interface; `false` if it was there.
pub fn add(name: &str) -> Result<bool, AttachError> {
    match tc::qdisc_add_clsact(name) {
        Ok(()) => Ok(true),
        // aya does not tell the errno apart; whether there is one shows at once, when a filter is attached to it.
        Err(TcError::NetlinkError(_) | TcError::AlreadyAttached) => Ok(false),
        Err(error) => Err(AttachError::Program(Box::new(error.into()))),
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
    // `struct tcmsg`: family and padding, ifindex, handle, parent, info.
    let header = [0, ifindex, TC_H_CLSACT_HANDLE, TC_H_CLSACT, 0]
        .map(u32::to_ne_bytes)
        .concat();
    let request = Request::new(RTM_DELQDISC, REQUEST | NLM_F_ACK, &header);
    // The answer is an acknowledgement: a list of nothing.
    Asker::route()?.dump::<()>("the clsact qdisc", &request, |(), _| Ok(()))?;
    Ok(true)
}
