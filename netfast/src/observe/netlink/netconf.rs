//! Per-link IP switches such as forwarding (`RTM_GETNETCONF`, linux/netconf.h), to tell news from announcements.
//!
//! A link that comes announces its switches, four times while a container starts, and nothing has changed for anyone.

use std::collections::HashMap;

use super::{AF_INET, AF_INET6};
use crate::sys::netlink::{Attrs, DUMP, Malformed, Message, NetlinkError, NetlinkSocket, Request};

/// linux/rtnetlink.h, where links' switches come and go; the crate libc has both for glibc only.
pub const RTM_NEWNETCONF: u16 = 80;
/// See [`RTM_NEWNETCONF`].
pub const RTM_DELNETCONF: u16 = 81;

/// `struct netconfmsg`, padded.
const NETCONFMSG: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;

/// The family, and the link; -1 for all of them, -2 for those to come.
pub type Key = (u8, i32);

/// The switches by number, with their values.
pub type Switches = Vec<(u16, i32)>;

/// Lists the switches of all links.
pub fn list(socket: &mut NetlinkSocket) -> Result<HashMap<Key, Switches>, NetlinkError> {
    let mut all = HashMap::new();
    for family in [AF_INET, AF_INET6] {
        let request = Request::new(libc::RTM_GETNETCONF, DUMP, &[family, 0, 0, 0]);
        let listed = socket.dump(
            "forwarding switches",
            &request,
            |switches: &mut HashMap<_, _>, message| {
                if message.kind == RTM_NEWNETCONF {
                    switches.extend([parse(message)?]);
                }
                Ok(())
            },
        );
        match listed {
            Ok(switches) => all.extend(switches),
            // A kernel without that family.
            Err(error) if error.refused() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Reads a message.
pub fn parse(message: Message<'_>) -> Result<(Key, Switches), Malformed> {
    let attrs = Attrs::after(message.payload, NETCONFMSG)?;
    let ifindex = attrs.need(NETCONFA_IFINDEX, "the link")?.i32()?;
    let switches = attrs.iter().filter(|attr| attr.kind != NETCONFA_IFINDEX);
    // What is no number is no switch that is known.
    let switches = switches.filter_map(|attr| Some((attr.kind, attr.i32().ok()?)));
    Ok(((message.payload[0], ifindex), switches.collect()))
}
