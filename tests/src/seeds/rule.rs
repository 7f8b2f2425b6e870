//! Rules of others than the engine, and how they are spelt.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{
    family::Family,
    names,
    scenario::{Place, Protocol},
};

pub mod sieve;
pub mod steady;

use sieve::{Form, Sieve};
use steady::Steady;

/// What a rule is about; what is `None` is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Address family: the packets of the other one are let alone, but by a table of family inet that asks for no address.
    pub family: Family,
    /// Transport protocol.
    pub protocol: Option<Protocol>,
    /// Who sends.
    pub source: Option<Place>,
    /// Destination port; asked only together with a protocol.
    pub port: Option<u16>,
    /// The bridge that it comes in by.
    pub from_bridge: Option<usize>,
    /// The bridge that it goes out by.
    pub to_bridge: Option<usize>,
    /// New connections only, or established ones only.
    pub is_new: Option<bool>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may pass.
    Accept,
    /// It is dropped.
    Drop,
    /// It is refused by an ICMP error.
    Reject,
    /// It is refused by a TCP RST (other protocols: by an ICMP error).
    Reset,
}

/// Base chains that a user's own nftables table may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chain {
    /// Before routing.
    Prerouting,
    /// Forwarded packets.
    Forward,
    /// After routing.
    Postrouting,
}

impl Chain {
    /// Its hook.
    const fn hook(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
        }
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// In `DOCKER-USER`.
    User(Verdict, Match),
    /// In a table of a user's own, family inet, at this priority.
    Own(Chain, i32, Verdict, Match),
    /// In a table of the bridge family.
    Bridge(Chain, Verdict, Match),
    /// `CT --notrack`.
    Notrack(Match),
    /// `CT --helper ftp` on this port.
    Helper(u16),
    /// DSCP rewritten, in the forward chain.
    Dscp(u8, Match),
    /// TTL set, in the forward chain.
    Ttl(u8, Match),
    /// TTL raised by one, so that routing does not seem to have happened.
    TtlRaised(Match),
    /// The MSS of SYNs clamped.
    Mss(u16, Family),
    /// Marked before routing, and so routed by another table.
    Mark(Match),
    /// Marked after routing.
    LateMark(u32, Match),
    /// So many packets pass, then one an hour (`limit`).
    Limit(u8, Match),
    /// The same for each source address (`hashlimit`).
    HashLimit(u8, Match),
    /// So many bytes pass (`quota`).
    Quota(u16, Match),
    /// Every so many-th packet is dropped (`statistic`).
    Nth(u8, Match),
    /// Who has sent so many packets is dropped (`recent`).
    Recent(u8, Match),
    /// Packets are counted by a named counter.
    Account(Match),
    /// Connections may have so many packets (`connbytes`).
    ConnBytes(u8, Match),
    /// Packets over this length are dropped (`length`).
    Length(u16, Match),
    /// Handed to a program that accepts it.
    Queue(Match),
    /// The host answers handshakes to this port itself.
    Synproxy(u16, Family),
    /// What catches some packets of a flow and not others drops them.
    Sieve(Form, Sieve, Match),
    /// What says the same of all packets of a flow drops them.
    Steady(Steady, Match),
}

/// A line for iptables: table, chain, and what follows.
pub type Line = (&'static str, &'static str, String);

impl Match {
    fn iptables(&self) -> String {
        let mut text = String::new();
        if let Some(protocol) = self.protocol {
            let _ = write!(text, "-p {} ", protocol.name());
            if let Some(port) = self.port {
                let _ = write!(text, "--dport {port} ");
            }
        }
        if let Some(source) = self.source {
            let _ = write!(text, "-s {} ", names::ip(source, self.family));
        }
        if let Some(bridge) = self.from_bridge {
            let _ = write!(text, "-i {} ", names::bridge(bridge));
        }
        if let Some(bridge) = self.to_bridge {
            let _ = write!(text, "-o {} ", names::bridge(bridge));
        }
        match self.is_new {
            Some(true) => text.push_str("-m conntrack --ctstate NEW "),
            Some(false) => text.push_str("-m conntrack --ctstate ESTABLISHED "),
            None => {}
        }
        text
    }

    /// Without what only hooks after or before routing know.
    fn before_routing(&self) -> String {
        Self {
            to_bridge: None,
            is_new: None,
            ..*self
        }
        .iptables()
    }

    fn after_routing(&self) -> String {
        Self {
            from_bridge: None,
            ..*self
        }
        .iptables()
    }

    fn nft(&self, chain: Option<Chain>) -> String {
        let name = self.family.nft();
        let mut text = if chain.is_none() {
            format!("ether type {name} ")
        } else {
            String::new()
        };
        if let Some(source) = self.source {
            let _ = write!(text, "{name} saddr {} ", names::ip(source, self.family));
        }
        if let Some(protocol) = self.protocol {
            let _ = write!(text, "meta l4proto {} ", protocol.name());
            if let Some(port) = self.port {
                let _ = write!(text, "th dport {port} ");
            }
        }
        if let (Some(bridge), Some(Chain::Prerouting | Chain::Forward)) = (self.from_bridge, chain) {
            let _ = write!(text, "iifname {} ", names::bridge(bridge));
        }
        if let (Some(bridge), Some(Chain::Forward | Chain::Postrouting)) = (self.to_bridge, chain) {
            let _ = write!(text, "oifname {} ", names::bridge(bridge));
        }
        match self.is_new {
            Some(true) if chain.is_some() => text.push_str("ct state new "),
            Some(false) if chain.is_some() => text.push_str("ct state established "),
            _ => {}
        }
        text
    }
}

impl Rule {
    /// The family of the packets that it is about, and of the program that its lines are for.
    pub const fn family(&self) -> Family {
        match self {
            Self::User(_, what)
            | Self::Own(.., what)
            | Self::Bridge(.., what)
            | Self::Notrack(what)
            | Self::Dscp(_, what)
            | Self::Ttl(_, what)
            | Self::TtlRaised(what)
            | Self::Mark(what)
            | Self::LateMark(_, what)
            | Self::Limit(_, what)
            | Self::HashLimit(_, what)
            | Self::Quota(_, what)
            | Self::Nth(_, what)
            | Self::Recent(_, what)
            | Self::Account(what)
            | Self::ConnBytes(_, what)
            | Self::Length(_, what)
            | Self::Queue(what)
            | Self::Sieve(.., what)
            | Self::Steady(_, what) => what.family,
            // FTP's command PORT is of IPv4.
            Self::Helper(_) => Family::V4,
            Self::Mss(_, family) | Self::Synproxy(_, family) => *family,
        }
    }

    /// Lines for iptables, or for ip6tables, in their order.
    pub fn iptables(&self) -> Vec<Line> {
        let user = |text: String| vec![("filter", "DOCKER-USER", text)];
        let mangle = |text: String| vec![("mangle", "FORWARD", text)];
        // What a kind lets through returns, the rest is dropped.
        let judged = |what: &Match, by: String| {
            vec![
                ("filter", "DOCKER-USER", format!("{}{by} -j RETURN", what.iptables())),
                ("filter", "DOCKER-USER", format!("{}-j DROP", what.iptables())),
            ]
        };
        match self {
            Self::Own(..) | Self::Bridge(..) | Self::Account(_) => Vec::new(),
            Self::Sieve(form, sieve, what) => sieve::iptables(*form, *sieve, what),
            Self::Steady(steady, what) => steady.iptables(what),
            Self::User(verdict, what) => {
                let is_tcp = what.protocol == Some(Protocol::Tcp);
                let target = match verdict {
                    Verdict::Accept => "ACCEPT",
                    Verdict::Drop => "DROP",
                    Verdict::Reset if is_tcp => "REJECT --reject-with tcp-reset",
                    Verdict::Reject | Verdict::Reset => match what.family {
                        Family::V4 => "REJECT --reject-with icmp-admin-prohibited",
                        Family::V6 => "REJECT --reject-with icmp6-adm-prohibited",
                    },
                };
                user(format!("{}-j {target}", what.iptables()))
            }
            Self::Notrack(what) => vec![("raw", "PREROUTING", format!("{}-j CT --notrack", what.before_routing()))],
            Self::Helper(port) => vec![("raw", "PREROUTING", format!("-p tcp --dport {port} -j CT --helper ftp"))],
            Self::Dscp(dscp, what) => mangle(format!("{}-j DSCP --set-dscp {dscp}", what.iptables())),
            Self::Ttl(ttl, what) => mangle(format!("{}{}-set {ttl}", what.iptables(), hops(what.family))),
            Self::TtlRaised(what) => mangle(format!("{}{}-inc 1", what.iptables(), hops(what.family))),
            Self::Mss(mss, _) => mangle(format!("-p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {mss}")),
            Self::Mark(what) => vec![(
                "mangle",
                "PREROUTING",
                format!("{}-j MARK --set-mark {}", what.before_routing(), names::MARK),
            )],
            Self::LateMark(mark, what) => vec![(
                "mangle",
                "POSTROUTING",
                format!("{}-j MARK --set-mark {mark}", what.after_routing()),
            )],
            Self::Limit(burst, what) => judged(what, format!("-m limit --limit 1/hour --limit-burst {burst}")),
            Self::HashLimit(burst, what) => judged(
                what,
                format!(
                    "-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst {burst} --hashlimit-mode srcip \
                     --hashlimit-name generated"
                ),
            ),
            Self::Quota(bytes, what) => judged(what, format!("-m quota --quota {bytes}")),
            Self::Nth(every, what) => user(format!(
                "{}-m statistic --mode nth --every {every} --packet 0 -j DROP",
                what.iptables()
            )),
            Self::Recent(count, what) => vec![
                (
                    "filter",
                    "DOCKER-USER",
                    format!(
                        "{}-m recent --name generated-{} --set",
                        what.iptables(),
                        what.family.nft()
                    ),
                ),
                (
                    "filter",
                    "DOCKER-USER",
                    format!(
                        "{}-m recent --name generated-{} --rcheck --seconds 3600 --hitcount {count} -j DROP",
                        what.iptables(),
                        what.family.nft()
                    ),
                ),
            ],
            Self::ConnBytes(packets, what) => judged(
                what,
                format!("-m connbytes --connbytes 0:{packets} --connbytes-dir both --connbytes-mode packets"),
            ),
            Self::Length(most, what) => user(format!(
                "{}-m length --length {}:65535 -j DROP",
                what.iptables(),
                most + 1
            )),
            Self::Queue(what) => user(format!("{}-j NFQUEUE --queue-num {QUEUE}", what.iptables())),
            Self::Synproxy(port, _) => vec![
                (
                    "raw",
                    "PREROUTING",
                    format!("-p tcp --dport {port} --syn -j CT --notrack"),
                ),
                (
                    "filter",
                    "DOCKER-USER",
                    format!(
                        "-p tcp --dport {port} -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --mss 1460 \
                         --wscale 7"
                    ),
                ),
            ],
        }
    }

    /// A line for the chain FORWARD of the filter table of iptables-legacy, or of ip6tables-legacy.
    pub fn legacy(&self) -> Option<String> {
        let Self::Sieve(form, sieve, what) = self else {
            return None;
        };
        sieve::legacy(*form, *sieve, what)
    }

    /// A line for the chain FORWARD of ebtables' filter table.
    pub fn ebtables(&self) -> Option<String> {
        let Self::Sieve(form, _, what) = self else {
            return None;
        };
        sieve::ebtables(*form, what)
    }

    /// The nftables table that it needs, with this name, if it needs one.
    pub fn nft(&self, table: &str) -> Option<String> {
        if let Self::Sieve(form, sieve, what) = self {
            return sieve::nft(*form, *sieve, what, table);
        }
        if let Self::Steady(steady, what) = self {
            return steady.nft(what, table);
        }
        let (hook, priority, verdict, text) = if let Self::Own(chain, priority, verdict, what) = self {
            (chain.hook(), *priority, *verdict, what.nft(Some(*chain)))
        } else if let Self::Bridge(chain, verdict, what) = self {
            (chain.hook(), 0, *verdict, what.nft(None))
        } else if let Self::Account(what) = self {
            return Some(format!(
                "table inet {table} {{ counter passed {{ }}; chain every {{ type filter hook forward priority 5; {}counter \
                 name passed; }}; }}",
                what.nft(Some(Chain::Forward))
            ));
        } else {
            return None;
        };
        let family = self.table_family()?;
        let is_refusal = matches!(verdict, Verdict::Reject | Verdict::Reset);
        let verdict = match verdict {
            Verdict::Accept => "accept",
            // Refusals exist only where packets are routed.
            Verdict::Reject | Verdict::Reset if is_refusal && family == "inet" && hook == "forward" => {
                "reject with icmpx type admin-prohibited"
            }
            Verdict::Drop | Verdict::Reject | Verdict::Reset => "drop",
        };
        Some(format!(
            "table {family} {table} {{ chain every {{ type filter hook {hook} priority {priority}; {text}{verdict}; }}; }}"
        ))
    }

    /// The family of its nftables table, if it has one.
    pub const fn table_family(&self) -> Option<&'static str> {
        if let Self::Sieve(form, _, what) = self {
            return form.family(what.family);
        }
        if matches!(
            self,
            Self::Own(..) | Self::Account(_) | Self::Steady(Steady::NamedSet(_), _)
        ) {
            Some("inet")
        } else if matches!(self, Self::Bridge(..)) {
            Some("bridge")
        } else {
            None
        }
    }

    /// Its kind, for the coverage table.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(Verdict::Accept, _) => "DOCKER-USER accept",
            Self::User(Verdict::Drop, _) => "DOCKER-USER drop",
            Self::User(Verdict::Reject, _) => "DOCKER-USER reject, ICMP",
            Self::User(Verdict::Reset, _) => "DOCKER-USER reject, RST",
            Self::Own(Chain::Prerouting, ..) => "own table, prerouting",
            Self::Own(Chain::Forward, ..) => "own table, forward",
            Self::Own(Chain::Postrouting, ..) => "own table, postrouting",
            Self::Bridge(Chain::Prerouting, ..) => "bridge family, prerouting",
            Self::Bridge(Chain::Forward, ..) => "bridge family, forward",
            Self::Bridge(Chain::Postrouting, ..) => "bridge family, postrouting",
            Self::Notrack(_) => "NOTRACK",
            Self::Helper(_) => "conntrack helper",
            Self::Dscp(..) => "DSCP mangled",
            Self::Ttl(..) => "TTL mangled",
            Self::TtlRaised(_) => "TTL raised",
            Self::Mss(..) => "MSS clamped",
            Self::Mark(_) => "mark, policy routing",
            Self::LateMark(..) => "mark after routing",
            Self::Limit(..) => "limit",
            Self::HashLimit(..) => "hashlimit",
            Self::Quota(..) => "quota",
            Self::Nth(..) => "statistic",
            Self::Recent(..) => "recent",
            Self::Account(_) => "accounting",
            Self::ConnBytes(..) => "connbytes",
            Self::Length(..) => "length",
            Self::Queue(_) => "NFQUEUE",
            Self::Synproxy(..) => "SYNPROXY",
            Self::Sieve(_, sieve, _) => sieve.kind(),
            Self::Steady(steady, _) => steady.kind(),
        }
    }

    /// Where it stands, for the coverage table; most kinds stand in one place only.
    pub const fn place(&self) -> Option<&'static str> {
        if let Self::Sieve(form, ..) = self {
            Some(form.kind())
        } else {
            None
        }
    }

    /// Whether it judges each packet anew, so that netfast takes whole networks off the fast path for it.
    pub const fn judges_each_packet(&self) -> bool {
        if let Some(what) = self.judged() {
            return !matches!(what.is_new, Some(true));
        }
        matches!(
            self,
            Self::Account(_) | Self::Notrack(_) | Self::Helper(_) | Self::Synproxy(..) | Self::Sieve(..)
        )
    }

    /// Whether it judges each packet anew of conversations that were not answered, so that netfast leaves those to the kernel.
    pub const fn judges_each_new_packet(&self) -> bool {
        matches!(
            self.judged(),
            Some(Match {
                is_new: Some(true),
                protocol: None | Some(Protocol::Udp),
                ..
            })
        )
    }

    /// What a rule is about that counts, measures or draws lots.
    const fn judged(&self) -> Option<&Match> {
        if let Self::Limit(_, what)
        | Self::HashLimit(_, what)
        | Self::Quota(_, what)
        | Self::Nth(_, what)
        | Self::Recent(_, what)
        | Self::ConnBytes(_, what)
        | Self::Length(_, what) = self
        {
            return Some(what);
        }
        None
    }
}

/// The target that changes how many hops a packet may make, and how its options begin.
const fn hops(family: Family) -> &'static str {
    match family {
        Family::V4 => "-j TTL --ttl",
        Family::V6 => "-j HL --hl",
    }
}

/// The queue of NFQUEUE rules.
pub const QUEUE: u16 = 7;
