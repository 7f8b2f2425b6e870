//! Addresses of links (`RTM_GETADDR`, `linux/if_addr.h`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::AF_UNSPEC;
use crate::observe::socket::{Asker, DUMP, NetlinkError};
use crate::observe::wire::{Attr, Attrs, Message, Request, u32_at};
use crate::world::{Address, AddressScope, IpNet};

pub const RTM_NEWADDR: u16 = 20;
pub const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
/// `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Lists the IPv4 and IPv6 addresses of the socket's namespace.
pub fn list(asker: &mut Asker) -> Result<BTreeSet<Address>, NetlinkError> {
    let mut header = [0; IFADDRMSG];
    header[0] = AF_UNSPEC;
    let request = Request::new(RTM_GETADDR, DUMP, &header);
    asker.dump("addresses", &request, |addresses: &mut BTreeSet<_>, message| {
        if message.kind == RTM_NEWADDR {
            addresses.extend(parse(message));
        }
        Ok(())
    })
}

/// Reads an address message; `None` if it is not of IPv4 or IPv6.
pub fn parse(message: Message<'_>) -> Option<Address> {
    let [_family, prefix, _flags, scope] = *message.payload.first_chunk()?;
    let attrs = Attrs::after(message.payload, IFADDRMSG);
    let address = attrs.find(IFA_ADDRESS).and_then(Attr::ip);
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 gives IFA_LOCAL only then.
    let local = attrs.find(IFA_LOCAL).and_then(Attr::ip).or(address)?;
    Some(Address {
        ifindex: u32_at(message.payload, 4)?,
        net: IpNet::new(local, prefix)?,
        peer: address.filter(|peer| *peer != local),
        scope: scope_of(scope),
    })
}

/// Whether it is an IPv6 link-local address, which no packet that a host forwards ever has.
pub fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn scope_of(scope: u8) -> AddressScope {
    match scope {
        0 => AddressScope::Universe,
        200 => AddressScope::Site,
        253 => AddressScope::Link,
        254 => AddressScope::Host,
        other => AddressScope::Other(other),
    }
}
