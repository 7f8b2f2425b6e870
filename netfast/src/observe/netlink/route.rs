//! Routes (`RTM_GETROUTE`, linux/rtnetlink.h) and policy routing rules (`RTM_GETRULE`, `linux/fib_rules.h`).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::{RTA_DST, RTA_GATEWAY, RTA_METRICS, RTA_MULTIPATH, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY, RTA_TABLE};

use super::{AF_INET, AF_INET6};
use crate::bytes::{u16_at, u32_at};
use crate::host::{IpNet, PolicyRules, Route, RouteType};
use crate::sys::netlink::rt::RouteNetlinkMessage::{GetRoute, GetRule};
use crate::sys::netlink::rt::{
    self, AddressFamily, RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage,
    RouteMetric, RouteVia, RuleHeader, RuleMessage,
};
use crate::sys::netlink::{
    Attrs, DUMP, Emitable as _, Malformed, Message, NLM_F_REQUEST, NetlinkError, NetlinkSocket, Request,
};

pub use libc::{RTM_DELROUTE, RTM_DELRULE, RTM_NEWROUTE, RTM_NEWRULE};

/// linux/rtnetlink.h; the crate libc has both for glibc only.
const RTA_VIA: u16 = 18;
/// See [`RTA_VIA`].
const RTA_ENCAP_TYPE: u16 = 21;
/// `struct rtnexthop`.
const RTNEXTHOP: usize = 8;
const RTAX_MTU: u16 = 2;

/// Lists the IPv4 and IPv6 routes of all tables.
pub fn list(socket: &mut NetlinkSocket) -> Result<BTreeSet<Route>, NetlinkError> {
    let request = Request::of(&GetRoute(RouteMessage::default()), DUMP);
    socket.dump("routes", &request, |routes: &mut BTreeSet<_>, message| {
        // Cached exceptions come from kernels without strict checking of requests (before Linux 4.20).
        if message.kind == RTM_NEWROUTE && !is_cached(message) {
            routes.extend(parse(message)?);
        }
        Ok(())
    })
}

/// Asks where the kernel would send a packet with these addresses (of one family) that comes in by an interface.
pub fn ask(socket: &mut NetlinkSocket, iif: u32, source: IpAddr, destination: IpAddr) -> Result<Route, NetlinkError> {
    let mut message = RouteMessage::default();
    let (family, len) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = len;
    message.header.source_prefix_length = len;
    message.attributes = vec![
        RouteAttribute::Destination(destination.into()),
        RouteAttribute::Source(source.into()),
        RouteAttribute::Iif(iif),
    ];
    let request = Request::of(&GetRoute(message), NLM_F_REQUEST);
    // The answer is marked as a copy of a cached one; it may have been made for the question.
    socket.ask("a route", &request, |message| {
        let route = parse(message)?.into_iter().next();
        route.ok_or_else(|| Malformed::missing("the route"))
    })
}

/// Counts and hashes the IPv4 and IPv6 rules.
pub fn list_rules(socket: &mut NetlinkSocket) -> Result<PolicyRules, NetlinkError> {
    let request = Request::of(&GetRule(RuleMessage::default()), DUMP);
    let rules: Vec<(u8, Vec<u8>)> = socket.dump("policy routing rules", &request, |rules: &mut Vec<_>, message| {
        if message.kind == RTM_NEWRULE {
            rules.push((parse_rule(message)?, message.payload.to_vec()));
        }
        Ok(())
    })?;
    let mut summary = PolicyRules::default();
    let mut hasher = DefaultHasher::new();
    for (family, rule) in rules {
        match family {
            AF_INET => summary.v4 += 1,
            AF_INET6 => summary.v6 += 1,
            // The multicast routing families.
            _ => continue,
        }
        rule.hash(&mut hasher);
    }
    summary.hash = hasher.finish();
    Ok(summary)
}

/// Reads the family of a rule, of which nothing else is told apart. It must be whole all the same.
pub fn parse_rule(message: Message<'_>) -> Result<u8, Malformed> {
    let header = RuleHeader::parse(message.payload)?;
    Attrs::after(message.payload, header.buffer_len())?;
    Ok(header.family.into())
}

/// Whether the message is about a cached exception, which comes and goes with traffic.
pub fn is_cached(message: Message<'_>) -> bool {
    RouteHeader::parse(message.payload).is_ok_and(|header| header.flags.contains(RouteFlags::Cloned))
}

/// Reads a route message: one route per hop; none if it is not of IPv4 or IPv6.
pub fn parse(message: Message<'_>) -> Result<Vec<Route>, Malformed> {
    let header = RouteHeader::parse(message.payload)?;
    let attrs = Attrs::after(message.payload, header.buffer_len())?;
    let any: IpAddr = if header.address_family == AddressFamily::Inet {
        Ipv4Addr::UNSPECIFIED.into()
    } else if header.address_family == AddressFamily::Inet6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        return Ok(Vec::new());
    };
    let hop = Hop::read(attrs, &header)?;
    let mut route = Route {
        table: header.table.into(),
        dst: IpNet::new(any, 0).ok_or(Malformed::wrong("no prefix"))?,
        priority: 0,
        gateway: hop.gateway,
        oif: hop.oif,
        kind: route_type(header.kind),
        protocol: header.protocol.into(),
        source: None,
        mtu: None,
        multipath: false,
        has_programs: hop.has_programs,
    };
    let mut dst = any;
    let needed = [RTA_TABLE, RTA_DST, RTA_PRIORITY, RTA_PREFSRC];
    for attr in attrs.iter().filter(|attr| needed.contains(&attr.kind)) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "these are all that is asked for")]
        match attr.decode_with((header.address_family, header.kind, RouteLwEnCapType::None))? {
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Destination(to) => dst = address(&to)?,
            RouteAttribute::Priority(priority) => route.priority = priority,
            RouteAttribute::PrefSource(source) => route.source = Some(address(&source)?),
            other => return Err(Malformed::unexpected(&other)),
        }
    }
    route.dst = IpNet::new(dst, header.destination_prefix_length).ok_or(Malformed::wrong("the prefix is too long"))?;
    if let Some(mtu) = attrs.inside(RTA_METRICS)?.find(RTAX_MTU)
        && let RouteMetric::Mtu(mtu) = mtu.decode()?
    {
        route.mtu = Some(mtu);
    }
    match attrs.find(RTA_MULTIPATH) {
        Some(hops) => multipath(hops.payload, &header, &route),
        None => Ok(vec![route]),
    }
}

/// A route for each of several next hops (`struct rtnexthop` and attributes). Not by `RouteNextHop`, which would decode
/// all attributes of all hops.
fn multipath(mut rest: &[u8], header: &RouteHeader, route: &Route) -> Result<Vec<Route>, Malformed> {
    let mut routes = Vec::new();
    while !rest.is_empty() {
        let (Some(len), Some(oif)) = (u16_at(rest, 0), u32_at(rest, 4)) else {
            return Err(Malformed::wrong("a next hop is cut"));
        };
        let len = usize::from(len);
        let attrs = rest
            .get(RTNEXTHOP..len)
            .ok_or(Malformed::wrong("a next hop's length lies"))?;
        let hop = Hop::read(Attrs::new(attrs)?, header)?;
        routes.push(Route {
            gateway: hop.gateway,
            oif: Some(oif),
            multipath: true,
            has_programs: hop.has_programs,
            ..route.clone()
        });
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(routes)
}

/// What is said of one hop.
#[derive(Default)]
struct Hop {
    gateway: Option<IpAddr>,
    oif: Option<u32>,
    has_programs: bool,
}

impl Hop {
    fn read(attrs: Attrs<'_>, header: &RouteHeader) -> Result<Self, Malformed> {
        let mut hop = Self::default();
        let needed = [RTA_GATEWAY, RTA_VIA, RTA_OIF, RTA_ENCAP_TYPE];
        for attr in attrs.iter().filter(|attr| needed.contains(&attr.kind)) {
            #[expect(clippy::wildcard_enum_match_arm, reason = "these are all that is asked for")]
            match attr.decode_with((header.address_family, header.kind, RouteLwEnCapType::None))? {
                RouteAttribute::Gateway(gateway) => hop.gateway = Some(address(&gateway)?),
                // A gateway of the other family.
                RouteAttribute::Via(RouteVia::Inet(gateway)) => hop.gateway = Some(gateway.into()),
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => hop.gateway = Some(gateway.into()),
                RouteAttribute::Oif(oif) => hop.oif = Some(oif),
                RouteAttribute::EncapType(kind) => hop.has_programs = kind == RouteLwEnCapType::Bpf,
                other => return Err(Malformed::unexpected(&other)),
            }
        }
        Ok(hop)
    }
}

fn address(address: &RouteAddress) -> Result<IpAddr, Malformed> {
    if let RouteAddress::Inet(ip) = address {
        Ok((*ip).into())
    } else if let RouteAddress::Inet6(ip) = address {
        Ok((*ip).into())
    } else {
        Err(Malformed::unexpected(address))
    }
}

/// Whether no packet that a host forwards can be routed by it: IPv6 link-local and multicast destinations, of which
/// each new veth brings some.
pub fn is_link_local_v6(route: &Route) -> bool {
    matches!(route.dst.addr, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast())
}

fn route_type(kind: rt::RouteType) -> RouteType {
    match u8::from(kind) {
        1 => RouteType::Unicast,
        2 => RouteType::Local,
        3 => RouteType::Broadcast,
        4 => RouteType::Anycast,
        5 => RouteType::Multicast,
        6 => RouteType::Blackhole,
        7 => RouteType::Unreachable,
        8 => RouteType::Prohibit,
        9 => RouteType::Throw,
        other => RouteType::Other(other),
    }
}
