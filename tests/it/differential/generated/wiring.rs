//! Interfaces, addresses, routes and neighbours of an [arena](super::arena), of each family that its shape has.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use netfast_tests::{
    netns::NetNs,
    seeds::{
        family::Family,
        names,
        scenario::{Place, Shape},
    },
};

use super::{
    super::{
        station::{Station, Tap},
        wire::Packet,
    },
    arena::{Arena, REAL_CLIENTS, REAL_PUBLISHED, REAL_SERVER, batch},
};

impl Arena {
    /// Gives a place its veth pair and its station.
    pub fn plug(&mut self, place: Place, mac: [u8; 6]) -> Result<()> {
        let space = &self.spaces[&place];
        let veth = names::veth(place);
        let (own_mac, gateway_mac, more) = match place {
            Place::Container(bridge, index) => {
                let own = [2, 0, 0, 2, low(bridge), low(index)];
                let more = vec![format!("link set {veth} master {}", names::bridge(bridge))];
                (own, names::bridge_mac(bridge), more)
            }
            Place::Outside(uplink) => {
                let own = names::uplink_mac(uplink);
                (
                    own,
                    own,
                    self.addresses(&veth, |family| names::uplink_ip(uplink, family)),
                )
            }
        };
        let gateway = |family| match place {
            Place::Container(bridge, _) => names::gateway(bridge, family),
            Place::Outside(uplink) => names::uplink_ip(uplink, family),
        };
        let mut lines = vec![format!(
            "link add {veth} address {} type veth peer name eth0 address {} netns {}",
            names::text(own_mac),
            names::text(mac),
            space.name()
        )];
        lines.extend(self.trusts_neighbours(&veth));
        lines.push(format!("link set {veth} up"));
        lines.extend(more);
        batch(&self.host, &lines)?;
        self.silence(space)?;
        let mut lines = self.trusts_neighbours("eth0");
        lines.push("link set eth0 up".to_owned());
        lines.extend(self.addresses("eth0", |family| names::ip(place, family)));
        let families = self.shape.families().iter();
        lines.extend(families.map(|family| format!("route add default via {}", gateway(*family))));
        batch(space, &lines)?;
        let tap = Tap::open(space, "eth0")?;
        self.names.insert(own_mac, veth);
        self.names
            .insert(gateway_mac, format!("gateway {}", gateway(Family::V4)));
        let name = place.name();
        let IpAddr::V4(ip) = names::ip(place, Family::V4) else {
            unreachable!("an address of IPv4")
        };
        // Whatever its MAC address is: that is what is compared.
        self.names.insert(mac, name.clone());
        self.stations
            .insert(place, Station::of(name, ip, mac, gateway_mac, tap));
        Ok(())
    }

    /// What comes for real sockets is taken, and the stack answers nothing else but who asks for its neighbours. What a path
    /// carries is remembered for minutes, so those errors would reach into the scenarios that follow.
    fn silence(&self, space: &NetNs) -> Result<()> {
        let known = format!(
            "meta l4proto {{ tcp, udp }} th dport {{ {REAL_SERVER}, {}-{}, {}-{} }} accept",
            REAL_PUBLISHED.start(),
            REAL_PUBLISHED.end(),
            REAL_CLIENTS.start(),
            REAL_CLIENTS.end()
        );
        let table = |name: &str, more: &str, chains: &str| {
            format!(
                "table {name} silence; flush table {name} silence; table {name} silence {{ chain every {{ type filter hook \
                 prerouting priority -400; {known}; {more} accept; drop; }}; {chains}}}; "
            )
        };
        let mut text = table("ip", "icmp type destination-unreachable icmp code != frag-needed", "");
        if self.shape.six {
            // Nor does it say anything by its timers: reports of listeners (131, 132, 143), and who asks for routers.
            text += &table(
                "ip6",
                "icmpv6 type { 1, 135, 136 }",
                "chain said { type filter hook output priority -400; icmpv6 type { 131, 132, 133, 143 } drop; }; ",
            );
        }
        space.sh(&format!("nft '{text}'")).map(drop)
    }

    /// Lines for [`batch`]: its addresses. Nobody else can have them.
    pub fn addresses(&self, device: &str, of: impl Fn(Family) -> IpAddr) -> Vec<String> {
        let families = self.shape.families().iter();
        let lines = families.map(|family| {
            let nodad = if *family == Family::V6 { " nodad" } else { "" };
            format!("addr replace {}/{} dev {device}{nodad}", of(*family), family.prefix())
        });
        lines.collect()
    }

    /// Neighbours that are known are not asked again in the next half hour: lines for [`batch`].
    pub fn trusts_neighbours(&self, device: &str) -> Vec<String> {
        let caches = self.shape.families().iter().map(|family| match family {
            Family::V4 => "arp_cache",
            Family::V6 => "ndisc_cache",
        });
        caches
            .map(|cache| format!("ntable change name {cache} dev {device} base_reachable 3600000"))
            .collect()
    }

    /// Each station says where it is, so that bridges and host know, and what they remember of earlier is right again.
    pub fn announce(&mut self) -> Result<()> {
        let neighbours = self.stations.iter().flat_map(|(place, station)| {
            let device = match place {
                Place::Container(bridge, _) => names::bridge(*bridge),
                Place::Outside(uplink) => names::uplink(*uplink),
            };
            self.shape.families().iter().map(move |family| {
                format!(
                    "neigh replace {} lladdr {} dev {device} nud reachable",
                    names::ip(*place, *family),
                    names::text(station.mac)
                )
            })
        });
        let neighbours: Vec<String> = neighbours.collect();
        batch(&self.host, &neighbours)?;
        self.until_forwarded();
        let frames: Vec<_> = self
            .stations
            .iter()
            .flat_map(|(place, station)| self.announcements(*place, station))
            .collect();
        for sent in self.fence.send_pinned(&frames)? {
            sent?;
        }
        self.drain();
        Ok(())
    }

    /// How a station says where it is.
    fn announcements<'a>(&self, place: Place, station: &'a Station) -> Vec<(&'a Tap, Vec<u8>)> {
        let frames = self.shape.families().iter().map(|family| match family {
            Family::V4 => gratuitous_arp(station),
            Family::V6 => unsolicited_advertisement(station, names::ip(place, *family)),
        });
        frames.map(|frame| (station.tap(), frame)).collect()
    }

    /// One container announces itself.
    pub fn announce_one(&mut self, place: Place) -> Result<()> {
        let Some(station) = self.stations.get(&place) else {
            return Ok(());
        };
        self.until_forwarded();
        self.fence
            .send_pinned(&self.announcements(place, station))?
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// Waits until bridges let new ports take part, or what these say is lost: for a link's beginning the kernel takes up to a
    /// second (`net/core/link_watch.c`).
    fn until_forwarded(&self) {
        let line = "for i in $(seq 400); do bridge link | grep -q 'state disabled' || break; sleep 0.005; done";
        // One that is down remains so.
        drop(self.sh(line));
    }

    /// A shell line that gives the host those of its addresses and routes of IPv6 back that it may have lost with an interface.
    pub fn restore_six(&self) -> String {
        if !self.shape.six {
            return String::new();
        }
        let bridges =
            (0..self.shape.bridges.len()).map(|number| (names::bridge(number), names::gateway(number, Family::V6)));
        let addresses = bridges.map(|(name, ip)| format!("ip addr replace {ip}/64 dev {name} nodad"));
        let mut routes = routes(Family::V6);
        // The rule is nobody's who could be lost.
        routes.pop();
        addresses.chain(routes).collect::<Vec<_>>().join("; ")
    }
}

/// Shell lines: the host's routes by its uplinks.
pub fn routes(family: Family) -> Vec<String> {
    let by = |uplink| names::ip(Place::Outside(uplink), family);
    let (ip, table) = (family.ip(), names::TABLE);
    vec![
        format!("{ip} route replace default via {}", by(0)),
        format!(
            "{ip} route replace {}/{} via {}",
            names::behind(family),
            family.bits(),
            by(0)
        ),
        format!("{ip} route replace default via {} table {table}", by(1)),
        format!("{ip} rule add fwmark {} lookup {table}", names::MARK),
    ]
}

/// A stack must say nothing by itself, by its timers, since a bridge learns from every frame where a station is. So there is no
/// IPv6 where none is generated, and elsewhere nobody looks for routers and for others with the same address.
pub fn silent(shape: &Shape) -> Vec<String> {
    let switches: &[&str] = if shape.six {
        &[
            "disable_ipv6=0",
            "accept_ra=0",
            "router_solicitations=0",
            "accept_dad=0",
            "dad_transmits=0",
            "keep_addr_on_down=1",
        ]
    } else {
        &["disable_ipv6=1"]
    };
    let each = switches
        .iter()
        .flat_map(|switch| ["all", "default"].map(|whose| format!("net.ipv6.conf.{whose}.{switch}")));
    // Nor must it tell of datagrams that are not whole, half a minute later.
    let patient = ["net.ipv4.ipfrag_time=3600", "net.ipv6.ip6frag_time=3600"];
    each.chain(patient.map(str::to_owned)).collect()
}

/// The host's switches.
pub fn set_sysctls(host: &NetNs, shape: &Shape) -> Result<()> {
    let mut lines = silent(shape);
    if shape.six {
        lines.extend(
            [
                "net.ipv6.conf.all.forwarding=1",
                // Sockets of IPv6 are for IPv6.
                "net.ipv6.bindv6only=1",
                // As below.
                "net.ipv6.icmp.ratelimit=0",
                "net.netfilter.nf_conntrack_frag6_timeout=3600",
            ]
            .map(str::to_owned),
        );
    }
    let bridged6 = u8::from(shape.br_netfilter && shape.six);
    lines.extend([
        "net.ipv4.ip_forward=1".to_owned(),
        format!("net.bridge.bridge-nf-call-iptables={}", u8::from(shape.br_netfilter)),
        // Where nothing is shown to iptables, packets within a bridge are forwarded directly.
        format!("net.bridge.bridge-nf-call-ip6tables={bridged6}"),
        // ARP stays with the bridge, so this is no matter, and on where the module is there.
        "net.bridge.bridge-nf-call-arptables=1".to_owned(),
        // Whether an ICMP error comes must not depend on when the last one came.
        "net.ipv4.icmp_ratelimit=0".to_owned(),
        "net.ipv4.conf.all.send_redirects=0".to_owned(),
        "net.ipv4.conf.default.send_redirects=0".to_owned(),
        format!("net.netfilter.nf_conntrack_checksum={}", u8::from(!shape.unsummed)),
        // By design netfast has each connection that it carries marked so: conntrack sees one segment a second, and would
        // call the others' successors invalid.
        format!("net.netfilter.nf_conntrack_tcp_be_liberal={}", u8::from(!shape.strict)),
    ]);
    host.sh(&format!("sysctl -qw {}", lines.join(" "))).map(drop)
}

/// An announcement of one's own address (RFC 5227).
fn gratuitous_arp(station: &Station) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(station.mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(station.mac);
    frame.extend(station.ip.octets());
    frame.extend([0; 6]);
    frame.extend(station.ip.octets());
    frame.resize(60, 0);
    frame
}

/// An announcement of one's own IPv6 address to all: an unsolicited neighbour advertisement that overrides (RFC 4861, 7.2.6).
fn unsolicited_advertisement(station: &Station, ip: IpAddr) -> Vec<u8> {
    let IpAddr::V6(target) = ip else { return Vec::new() };
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut body = target.octets().to_vec();
    body.extend([2, 1]);
    body.extend(station.mac);
    let packet =
        Packet::icmp(ip, all, 136, 0, [0x20, 0, 0, 0], &body).with(|packet| (packet.ttl, packet.id) = (255, 0));
    packet.frame(station.mac, [0x33, 0x33, 0, 0, 0, 1])
}

fn low(number: usize) -> u8 {
    u8::try_from(number).expect("a handful of everything")
}
