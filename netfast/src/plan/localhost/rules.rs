//! Whether the host's rules let packets on the loopback interface pass as if there were none, and do not ask who sends what goes
//! to the container. A rule that may be met counts as met; what is not understood may be met.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::host::{BaseChain, ChainName, Effect, Field, HostRules, IpNet, Match, Protocol, Proxy, Rule};

/// `NF_INET_*`.
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// Rules that are looked at for one port at most; where there are more it is not known what they come to.
const MOST: usize = 100_000;
/// How deep chains are followed (`NFT_JUMP_STACK_SIZE` is 16).
const DEEPEST: usize = 16;

/// Why the rules may treat packets of the host's programs to a listener otherwise than there being none; `None`: they do not.
pub fn judge(rules: &HostRules, proxy: &Proxy) -> Option<String> {
    let is_v4 = proxy.target.is_ipv4();
    let protocol = match proxy.protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => return Some("SCTP".into()),
    };
    let port = proxy.listens.port();
    let at_loopback = |source_port, destination_port| Packet {
        is_v4,
        protocol,
        incoming: Interface::None,
        outgoing: Interface::None,
        source: Address::Loopback,
        destination: Address::Loopback,
        source_port,
        destination_port,
    };
    let request = at_loopback(None, Some(port));
    let answer = at_loopback(Some(port), None);
    let to_container = Packet {
        source: Address::Any,
        destination: Address::One(proxy.target.ip()),
        destination_port: Some(proxy.target.port()),
        outgoing: Interface::Any,
        ..request.clone()
    };
    let mut walk = Walk { rules, left: MOST };
    for base in &rules.bases {
        if !is_of(base, is_v4) {
            continue;
        }
        let of_loopback: &[&Packet] = match base.hook {
            // By then the connection is known, and its NAT decided (`nf_nat_inet_fn`).
            PREROUTING | INPUT if base.is_nat => &[],
            OUTPUT | POSTROUTING if base.is_nat => &[&request],
            PREROUTING | INPUT | OUTPUT | POSTROUTING => &[&request, &answer],
            _ => &[],
        };
        for packet in of_loopback {
            let found = walk.base(base, &packet.at(base.hook), Question::Any);
            if found.is_some() {
                return found;
            }
        }
        if matches!(base.hook, OUTPUT | POSTROUTING)
            && let Some(found) = walk.base(base, &to_container, Question::Sender)
        {
            return Some(found);
        }
    }
    None
}

/// Whether a chain is asked about packets of the family.
fn is_of(base: &BaseChain, is_v4: bool) -> bool {
    let family = base.name.0.split(' ').next().unwrap_or_default();
    family == "inet" || (family == "ip") == is_v4 && family.starts_with("ip")
}

/// What all packets in question have in common.
#[derive(Clone, Debug)]
struct Packet {
    is_v4: bool,
    protocol: u8,
    incoming: Interface,
    outgoing: Interface,
    source: Address,
    destination: Address,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

impl Packet {
    /// The same at a hook: on the loopback interface.
    fn at(&self, hook: u32) -> Self {
        let (incoming, outgoing) = if matches!(hook, PREROUTING | INPUT) {
            (Interface::Loopback, Interface::None)
        } else {
            (Interface::None, Interface::Loopback)
        };
        Self {
            incoming,
            outgoing,
            ..self.clone()
        }
    }
}

/// Where packets come in or go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interface {
    /// Nowhere yet, or no more.
    None,
    /// By the loopback interface.
    Loopback,
    /// It is not known where.
    Any,
}

/// Whom they are from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    /// Any of the loopback addresses.
    Loopback,
    /// This.
    One(IpAddr),
    /// Anybody.
    Any,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    const fn of(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

/// What is asked of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Whether they do anything.
    Any,
    /// Whether what they do depends on who sends.
    Sender,
}

/// How a walk through a chain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Nothing was decided, or may have been.
    Falls,
    /// Accepted for certain.
    Accepted,
    /// A rule may do something.
    Judged(String),
}

struct Walk<'a> {
    rules: &'a HostRules,
    left: usize,
}

impl Walk<'_> {
    fn base(&mut self, base: &BaseChain, packet: &Packet, question: Question) -> Option<String> {
        match self.chain(&base.name, packet, question, 0) {
            End::Judged(text) => Some(text),
            End::Accepted => None,
            End::Falls => (base.drops && question == Question::Any).then(|| {
                let (family, table, chain) = &base.name;
                format!("{family} {table} {chain} drops what no rule of it is known to accept")
            }),
        }
    }

    fn chain(&mut self, name: &ChainName, packet: &Packet, question: Question, depth: usize) -> End {
        let rules = self.rules;
        let mut may_leave = false;
        for rule in rules.chains.get(name).into_iter().flatten() {
            let Some(left) = self.left.checked_sub(1).filter(|_| depth <= DEEPEST) else {
                return End::Judged(format!("there are too many rules to follow in {} {}", name.0, name.1));
            };
            self.left = left;
            let truth = met(rule, packet);
            let is_about_sender = rule.matches.iter().any(|one| matches!(one.field, Field::Sender(_)));
            if truth == Truth::No || rule.effect == Effect::None {
                continue;
            }
            if question == Question::Sender && is_about_sender {
                return judged(name, rule);
            }
            let certainly = truth == Truth::Yes;
            let is_accepted = match &rule.effect {
                Effect::Acts(_) if question == Question::Any => return judged(name, rule),
                Effect::Acts(_) | Effect::None => false,
                Effect::Accept => certainly,
                Effect::Return => {
                    if certainly && depth > 0 {
                        return End::Falls;
                    }
                    may_leave = true;
                    false
                }
                Effect::Jump(to) | Effect::Goto(to) => {
                    let to = (name.0.clone(), name.1.clone(), to.clone());
                    let end = self.chain(&to, packet, question, depth + 1);
                    if let End::Judged(_) = end {
                        return end;
                    }
                    if matches!(rule.effect, Effect::Goto(_)) && end == End::Falls {
                        if certainly && depth > 0 {
                            return End::Falls;
                        }
                        may_leave = true;
                    }
                    certainly && end == End::Accepted
                }
            };
            // Who may have left the chain before has not been accepted by it. In one that a hook leads to the policy decides then,
            // which may be a rule further down.
            match (is_accepted, may_leave, depth) {
                (true, false, _) => return End::Accepted,
                (true, true, 1..) => return End::Falls,
                _ => {}
            }
        }
        End::Falls
    }
}

fn judged((family, table, chain): &ChainName, rule: &Rule) -> End {
    let what = match &rule.effect {
        Effect::Acts(what) => what.as_str(),
        Effect::Accept => "accept",
        Effect::Return => "return",
        Effect::Jump(to) | Effect::Goto(to) => to,
        Effect::None => "",
    };
    let family = family.split(' ').next().unwrap_or_default();
    let number = rule.number;
    End::Judged(format!(
        "the rule {family} {table} {chain} {number} ({what}) may judge what the host's programs send to it"
    ))
}

fn met(rule: &Rule, packet: &Packet) -> Truth {
    let truths = rule.matches.iter().map(|one| holds(one, packet));
    truths.min().unwrap_or(Truth::Yes)
}

fn holds(one: &Match, packet: &Packet) -> Truth {
    let truth = match &one.field {
        Field::Incoming { name, is_prefix } => interface(packet.incoming, name, *is_prefix, one.negated),
        Field::Outgoing { name, is_prefix } => interface(packet.outgoing, name, *is_prefix, one.negated),
        Field::Protocol(number) => Truth::of(*number == packet.protocol),
        Field::IsV4(is_v4) => Truth::of(*is_v4 == packet.is_v4),
        Field::Source(net) => within(net, packet.source, packet.is_v4),
        Field::Destination(net) => within(net, packet.destination, packet.is_v4),
        Field::SourcePort(from, to) => between(*from, *to, packet.source_port),
        Field::DestinationPort(from, to) => between(*from, *to, packet.destination_port),
        Field::Sender(_) | Field::Other(_) => Truth::Maybe,
    };
    if one.negated { truth.not() } else { truth }
}

/// iptables takes an interface that there is not for one without a name, nftables ends the rule.
fn interface(at: Interface, name: &str, is_prefix: bool, negated: bool) -> Truth {
    match at {
        Interface::Loopback => Truth::of(name == "lo" || (is_prefix && "lo".starts_with(name))),
        Interface::None if !(negated || is_prefix && name.is_empty()) => Truth::No,
        Interface::None | Interface::Any => Truth::Maybe,
    }
}

fn between(from: u16, to: u16, port: Option<u16>) -> Truth {
    match port {
        Some(port) => Truth::of((from..=to).contains(&port)),
        None if (from, to) == (0, u16::MAX) => Truth::Yes,
        None => Truth::Maybe,
    }
}

fn within(net: &IpNet, address: Address, is_v4: bool) -> Truth {
    if net.addr.is_ipv4() != is_v4 {
        return Truth::No;
    }
    match address {
        Address::One(address) => Truth::of(net.contains(address)),
        Address::Any if net.prefix == 0 => Truth::Yes,
        Address::Any => Truth::Maybe,
        Address::Loopback if is_v4 => {
            let (first, last) = (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 255));
            match (net.contains(first.into()), net.contains(last.into())) {
                (true, true) => Truth::Yes,
                _ if net.addr.is_loopback() => Truth::Maybe,
                _ => Truth::No,
            }
        }
        Address::Loopback => Truth::of(net.contains(Ipv6Addr::LOCALHOST.into())),
    }
}
