//! Matches that say the same of every packet of a flow as netfast keys it, so that nothing has to become slow for them.

use serde::{Deserialize, Serialize};

use super::{
    super::{names, scenario::Place},
    Line, Match,
};

/// A match on what is the same for all packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Steady {
    /// DSCP, which is part of a flow.
    Dscp,
    /// Several ports.
    Ports,
    /// The sender's MAC address.
    Mac(Place),
    /// To one, to a group, to all.
    PacketType,
    /// A mark that the connection got at its beginning.
    ConnMark,
    /// A range of addresses.
    Range(usize),
    /// Kind of an address in the routing table.
    AddressType,
    /// A comment.
    Comment,
    /// The packet's mark.
    Mark,
    /// Address and port in a named set of nftables.
    NamedSet(Place),
    /// `ct state invalid`.
    Invalid,
    /// Whose socket it is from.
    Owner,
    /// The connection's direction.
    Direction,
    /// The bridge port that it came by.
    Port(Place),
    /// A group of interfaces.
    Group,
    /// `IPsec` was applied.
    Policy,
}

impl Steady {
    /// Its kind, for the coverage table.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Dscp => "steady: DSCP",
            Self::Ports => "steady: multiport",
            Self::Mac(_) => "steady: MAC source",
            Self::PacketType => "steady: packet type",
            Self::ConnMark => "steady: connmark",
            Self::Range(_) => "steady: iprange",
            Self::AddressType => "steady: addrtype",
            Self::Comment => "steady: comment",
            Self::Mark => "steady: mark",
            Self::NamedSet(_) => "steady: named set",
            Self::Invalid => "steady: state invalid",
            Self::Owner => "steady: owner",
            Self::Direction => "steady: direction",
            Self::Port(_) => "steady: physdev",
            Self::Group => "steady: devgroup",
            Self::Policy => "steady: policy",
        }
    }

    /// All kinds, for the coverage table.
    pub const KINDS: [&'static str; 16] = [
        "steady: DSCP",
        "steady: multiport",
        "steady: MAC source",
        "steady: packet type",
        "steady: connmark",
        "steady: iprange",
        "steady: addrtype",
        "steady: comment",
        "steady: mark",
        "steady: named set",
        "steady: state invalid",
        "steady: owner",
        "steady: direction",
        "steady: physdev",
        "steady: devgroup",
        "steady: policy",
    ];

    /// Lines for iptables; what they match is dropped.
    pub(super) fn iptables(self, what: &Match) -> Vec<Line> {
        let about = what.iptables();
        let user = |by: &str| vec![("filter", "DOCKER-USER", format!("{about}{by} -j DROP"))];
        match self {
            Self::Dscp => user("-m dscp --dscp 46"),
            // It needs a protocol.
            Self::Ports if what.protocol.is_none() => user("-p udp -m multiport --dports 7001,8000"),
            Self::Ports => user("-m multiport --dports 7001,8000"),
            Self::Mac(place) => user(&format!(
                "-m mac --mac-source {} -m conntrack --ctstate NEW",
                names::text(names::mac(place))
            )),
            Self::PacketType => user("-m pkttype --pkt-type multicast"),
            Self::ConnMark => vec![
                (
                    "mangle",
                    "FORWARD",
                    format!("{about}-m conntrack --ctstate NEW -j CONNMARK --set-mark 5"),
                ),
                (
                    "filter",
                    "DOCKER-USER",
                    "-m connmark --mark 5 -m conntrack --ctdir REPLY -j DROP".to_owned(),
                ),
            ],
            Self::Range(bridge) => {
                let range = names::first_two(bridge, what.family);
                user(&format!("-m iprange --src-range {range}"))
            }
            Self::AddressType => user("-m addrtype --src-type LOCAL"),
            Self::Comment => user("-m comment --comment \"DSCP, length and TTL\" -m mark --mark 99"),
            Self::Mark => user(&format!("-m mark --mark {}", names::MARK)),
            Self::NamedSet(_) => Vec::new(),
            Self::Invalid => user("-m conntrack --ctstate INVALID"),
            Self::Owner => vec![(
                "mangle",
                "POSTROUTING",
                format!("{}-m owner --uid-owner 0 -j DROP", what.after_routing()),
            )],
            Self::Direction => user("-m conntrack --ctdir REPLY --ctstate ESTABLISHED"),
            Self::Port(place) => user(&format!("-m physdev --physdev-in {}", names::veth(place))),
            Self::Group => user("-m devgroup --src-group 7"),
            Self::Policy => user("-m policy --dir in --pol ipsec"),
        }
    }

    /// Its nftables table, if it has one.
    pub(super) fn nft(self, what: &Match, table: &str) -> Option<String> {
        let Self::NamedSet(place) = self else { return None };
        let Match { family, .. } = what;
        Some(format!(
            "table inet {table} {{ set known {{ type {}_addr . inet_service; elements = {{ {} . 7000 }}; }}; chain every \
             {{ type filter hook forward priority 5; {} daddr . th dport @known drop; }}; }}",
            family.name(),
            names::ip(place, *family),
            family.nft()
        ))
    }
}
