//! Routes (`RTM_GETROUTE`, linux/rtnetlink.h) and policy routing rules (`RTM_GETRULE`, `linux/fib_rules.h`).

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AF_INET, AF_INET6, AF_UNSPEC};
use crate::observe::socket::{Asker, DUMP, NetlinkError, REQUEST};
use crate::observe::wire::{Attr, Attrs, Message, Request, ip, u16_at, u32_at};
use crate::world::{IpNet, PolicyRules, Route, RouteType};

pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
pub const RTM_NEWRULE: u16 = 32;
pub const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
/// `struct rtmsg` and `struct fib_rule_hdr`.
const RTMSG: usize = 12;
/// `struct rtnexthop`.
const RTNEXTHOP: usize = 8;
/// A cached exception (a path MTU, a redirect), not a configured route.
const RTM_F_CLONED: u32 = 0x200;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP_TYPE: u16 = 21;
const RTAX_MTU: u16 = 2;
/// `LWTUNNEL_ENCAP_BPF` of linux/lwtunnel.h.
const ENCAP_BPF: u16 = 6;

/// Lists the IPv4 and IPv6 routes of all tables.
pub fn list(asker: &mut Asker) -> Result<BTreeSet<Route>, NetlinkError> {
    let mut header = [0; RTMSG];
    header[0] = AF_UNSPEC;
    asker.dump(
        "routes",
        &Request::new(RTM_GETROUTE, DUMP, &header),
        |routes: &mut BTreeSet<_>, message| {
            if message.kind == RTM_NEWROUTE && !is_cached(message) {
                routes.extend(parse(message).unwrap_or_default());
            }
            Ok(())
        },
    )
}

/// Asks where the kernel would send a packet with these addresses (of one family) that comes in by an interface.
pub fn ask(asker: &mut Asker, iif: u32, source: IpAddr, destination: IpAddr) -> Result<Route, NetlinkError> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut header = [0; RTMSG];
    (header[0], header[1], header[2]) = match destination {
        IpAddr::V4(_) => (AF_INET, 32, 32),
        IpAddr::V6(_) => (AF_INET6, 128, 128),
    };
    let request = Request::new(RTM_GETROUTE, REQUEST, &header)
        .attr(RTA_DST, &octets(destination))
        .attr(RTA_SRC, &octets(source))
        .attr(RTA_IIF, &iif.to_ne_bytes());
    // The answer is marked as a copy of a cached one; it may have been made for the question.
    asker.ask("a route", &request, |message| parse(message)?.into_iter().next())
}

/// Counts and hashes the IPv4 and IPv6 rules.
pub fn list_rules(asker: &mut Asker) -> Result<PolicyRules, NetlinkError> {
    let mut header = [0; RTMSG];
    header[0] = AF_UNSPEC;
    let request = Request::new(RTM_GETRULE, DUMP, &header);
    let rules: Result<Vec<(u8, Vec<u8>)>, _> =
        asker.dump("policy routing rules", &request, |rules: &mut Vec<_>, message| {
            if let (RTM_NEWRULE, Some(family)) = (message.kind, message.payload.first()) {
                rules.push((*family, message.payload.to_vec()));
            }
            Ok(())
        });
    let mut summary = PolicyRules::default();
    let mut hasher = DefaultHasher::new();
    for (family, rule) in rules? {
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

/// Whether the message is about a cached exception, which comes and goes with traffic.
pub fn is_cached(message: Message<'_>) -> bool {
    u32_at(message.payload, 8).is_some_and(|flags| flags & RTM_F_CLONED != 0)
}

/// Reads a route message: one route per hop. `None` if it is not of IPv4 or IPv6.
pub fn parse(message: Message<'_>) -> Option<Vec<Route>> {
    let [family, dst_len, _src_len, _tos, table, protocol, _scope, kind] = *message.payload.first_chunk()?;
    let any: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let attrs = Attrs::after(message.payload, RTMSG);
    let dst = attrs.find(RTA_DST).and_then(Attr::ip).unwrap_or(any);
    let (gateway, oif) = hop(attrs);
    let route = Route {
        table: attrs.find(RTA_TABLE).and_then(Attr::u32).unwrap_or(table.into()),
        dst: IpNet::new(dst, dst_len)?,
        priority: attrs.find(RTA_PRIORITY).and_then(Attr::u32).unwrap_or(0),
        gateway,
        oif: oif.or_else(|| attrs.find(RTA_OIF).and_then(Attr::u32)),
        kind: route_type(kind),
        protocol,
        source: attrs.find(RTA_PREFSRC).and_then(Attr::ip),
        mtu: attrs
            .find(RTA_METRICS)
            .and_then(|metrics| metrics.nested().find(RTAX_MTU))
            .and_then(Attr::u32),
        multipath: false,
        has_programs: has_programs(attrs),
    };
    let Some(multipath) = attrs.find(RTA_MULTIPATH) else {
        return Some(vec![route]);
    };
    let mut routes = Vec::new();
    let mut rest = multipath.payload;
    while let (Some(len), Some(oif)) = (u16_at(rest, 0), u32_at(rest, 4)) {
        let len = usize::from(len);
        let Some(attrs) = rest.get(RTNEXTHOP..len) else { break };
        let (gateway, _) = hop(Attrs(attrs));
        let has_programs = has_programs(Attrs(attrs));
        routes.push(Route {
            gateway,
            oif: Some(oif),
            multipath: true,
            has_programs,
            ..route.clone()
        });
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(routes)
}

fn has_programs(attrs: Attrs<'_>) -> bool {
    attrs.find(RTA_ENCAP_TYPE).and_then(Attr::u16) == Some(ENCAP_BPF)
}

fn hop(attrs: Attrs<'_>) -> (Option<IpAddr>, Option<u32>) {
    // RTA_VIA is a gateway of the other family, after two bytes that name the family.
    let via = attrs.find(RTA_VIA).and_then(|via| ip(via.payload.get(2..)?));
    let gateway = attrs.find(RTA_GATEWAY).and_then(Attr::ip).or(via);
    (gateway, attrs.find(RTA_OIF).and_then(Attr::u32))
}

/// Whether no packet that a host forwards can be routed by it: IPv6 link-local and multicast destinations, of which
/// each new veth brings some.
pub fn is_link_local_v6(route: &Route) -> bool {
    matches!(route.dst.addr, IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast())
}

fn route_type(kind: u8) -> RouteType {
    match kind {
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
