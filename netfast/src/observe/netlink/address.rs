//! Addresses of links (`RTM_GETADDR`, `linux/if_addr.h`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use libc::{IFA_ADDRESS, IFA_LOCAL};

use crate::host::{Address, AddressScope, IpNet};
use crate::sys::netlink::rt::{self, AddressAttribute, AddressFamily, AddressHeader, AddressMessage};
use crate::sys::netlink::{Attrs, DUMP, Emitable as _, Malformed, Message, NetlinkError, NetlinkSocket, Request};

pub use libc::{RTM_DELADDR, RTM_NEWADDR};

/// Lists the IPv4 and IPv6 addresses of the socket's namespace, or of one link there. That this is gone is an error
/// (`ENODEV`).
pub fn list(socket: &mut NetlinkSocket, of: Option<u32>) -> Result<BTreeSet<Address>, NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.index = of.unwrap_or_default();
    let request = Request::of(&rt::RouteNetlinkMessage::GetAddress(message), DUMP);
    socket.dump("addresses", &request, |addresses: &mut BTreeSet<_>, message| {
        if message.kind == RTM_NEWADDR {
            // A kernel that does not know of filters has listed all.
            let wanted = |address: &Address| of.is_none_or(|ifindex| ifindex == address.ifindex);
            addresses.extend(parse(message)?.filter(wanted));
        }
        Ok(())
    })
}

/// Reads an address message; `None` if it is not of IPv4 or IPv6.
pub fn parse(message: Message<'_>) -> Result<Option<Address>, Malformed> {
    let header = AddressHeader::parse(message.payload)?;
    let attrs = Attrs::after(message.payload, header.buffer_len())?;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return Ok(None);
    }
    let (mut address, mut local) = (None, None);
    for attr in attrs
        .iter()
        .filter(|attr| [IFA_ADDRESS, IFA_LOCAL].contains(&attr.kind))
    {
        #[expect(clippy::wildcard_enum_match_arm, reason = "these are all that is asked for")]
        match attr.decode()? {
            AddressAttribute::Address(ip) => address = Some(ip),
            AddressAttribute::Local(ip) => local = Some(ip),
            other => return Err(Malformed::unexpected(&other)),
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 gives IFA_LOCAL only then.
    let local = local.or(address).ok_or_else(|| Malformed::missing("the address"))?;
    Ok(Some(Address {
        ifindex: header.index,
        net: IpNet::new(local, header.prefix_len).ok_or(Malformed::wrong("the prefix is too long"))?,
        peer: address.filter(|peer| *peer != local),
        scope: scope_of(header.scope),
    }))
}

/// Whether it is an IPv6 link-local address, which no packet that a host forwards ever has.
pub fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn scope_of(scope: rt::AddressScope) -> AddressScope {
    match u8::from(scope) {
        0 => AddressScope::Universe,
        200 => AddressScope::Site,
        253 => AddressScope::Link,
        254 => AddressScope::Host,
        other => AddressScope::Other(other),
    }
}
