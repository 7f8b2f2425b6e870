//! Per-link IP switches such as forwarding (`RTM_GETNETCONF`, linux/netconf.h), to tell news from announcements.
//!
//! A link that comes announces its switches, four times while a container starts, and nothing has changed for anyone.

use std::collections::HashMap;

use super::{AF_INET, AF_INET6};
use crate::observe::socket::{Asker, DUMP, NetlinkError};
use crate::observe::wire::{Attr, Attrs, Message, Request};

pub const RTM_NEWNETCONF: u16 = 80;
pub const RTM_DELNETCONF: u16 = 81;
const RTM_GETNETCONF: u16 = 82;
/// `struct netconfmsg`, padded.
const NETCONFMSG: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;

/// The family, and the link; -1 for all of them, -2 for those to come.
pub type Key = (u8, i32);

/// The switches by number, with their values.
pub type Switches = Vec<(u16, i32)>;

/// Lists the switches of all links.
pub fn list(asker: &mut Asker) -> Result<HashMap<Key, Switches>, NetlinkError> {
    let mut all = HashMap::new();
    for family in [AF_INET, AF_INET6] {
        let request = Request::new(RTM_GETNETCONF, DUMP, &[family, 0, 0, 0]);
        let listed = asker.dump(
            "forwarding switches",
            &request,
            |switches: &mut HashMap<_, _>, message| {
                switches.extend(parse(message));
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

/// Reads a message; `None` if it does not say about which link it is.
pub fn parse(message: Message<'_>) -> Option<(Key, Switches)> {
    let family = *message.payload.first()?;
    let attrs = Attrs::after(message.payload, NETCONFMSG);
    let ifindex = attrs.find(NETCONFA_IFINDEX).and_then(Attr::i32)?;
    let switches = attrs.iter().filter(|attr| attr.kind != NETCONFA_IFINDEX);
    Some((
        (family, ifindex),
        switches.filter_map(|attr| Some((attr.kind, attr.i32()?))).collect(),
    ))
}
