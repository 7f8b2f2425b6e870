//! What a rule of Docker's says, whichever iptables has written it: in expressions of nftables, or in matches of xtables.

use netfast_common::resolver::{ADDRESS, DOMAIN};

use crate::bytes::{u16_at, u32_at};
use crate::sys::netlink::{Attr, Attrs, Malformed};

/// IANA protocol numbers.
pub const TCP: u8 = 6;
/// As above.
pub const UDP: u8 = 17;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
/// `NFT_JUMP`.
const JUMP: u32 = (-3_i32).cast_unsigned();
/// `NF_NAT_RANGE_MAP_IPS` and `NF_NAT_RANGE_PROTO_SPECIFIED`.
const MAP_IPS: u32 = 1;
const PROTO_SPECIFIED: u32 = 2;

/// What a rule says: all of it, but for counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Says {
    source: Option<[u8; 4]>,
    destination: Option<[u8; 4]>,
    /// IANA protocol number.
    pub protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    does: Option<Does>,
}

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Does {
    Jump(String),
    /// To this address, if to another, and this port.
    Dnat(Option<[u8; 4]>, u16),
    Snat(Option<[u8; 4]>, u16),
}

impl Says {
    /// What leads to one of Docker's chains.
    pub fn jump(to: &str) -> Self {
        Self {
            destination: Some(ADDRESS.bytes()),
            does: Some(Does::Jump(to.into())),
            ..Self::default()
        }
    }

    /// The port that it leads to what is sent to the resolver by this protocol; `None` if it says anything else.
    pub fn dnat(&self, protocol: u8) -> Option<u16> {
        let Some(Does::Dnat(_, port)) = self.does else {
            return None;
        };
        let exact = Self {
            destination: Some(ADDRESS.bytes()),
            protocol: Some(protocol),
            destination_port: Some(DOMAIN.number()),
            does: Some(Does::Dnat(Some(ADDRESS.bytes()), port)),
            ..Self::default()
        };
        (*self == exact).then_some(port)
    }

    /// The port from which what the resolver sends by this protocol is made to come from port 53; `None` if it says anything
    /// else.
    pub fn snat(&self, protocol: u8) -> Option<u16> {
        let port = self.source_port?;
        let exact = Self {
            source: Some(ADDRESS.bytes()),
            protocol: Some(protocol),
            source_port: Some(port),
            does: Some(Does::Snat(None, DOMAIN.number())),
            ..Self::default()
        };
        (*self == exact).then_some(port)
    }

    /// Notes what a header's bytes are compared with; `None`: that is nothing that Docker writes.
    fn compare(&mut self, loaded: Loaded, value: &[u8]) -> Option<()> {
        let half = || Some(u16::from_be_bytes(value.try_into().ok()?));
        match loaded {
            Loaded::Protocol => once(&mut self.protocol, *value.first().filter(|_| value.len() == 1)?),
            Loaded::Network(12) => once(&mut self.source, value.try_into().ok()?),
            Loaded::Network(16) => once(&mut self.destination, value.try_into().ok()?),
            Loaded::Transport(0) => once(&mut self.source_port, half()?),
            Loaded::Transport(2) => once(&mut self.destination_port, half()?),
            Loaded::Network(_) | Loaded::Transport(_) => None,
        }
    }

    /// Notes a match of xtables: `struct xt_udp`, `struct xt_tcp`.
    fn matches(&mut self, name: &str, info: &[u8]) -> Option<()> {
        // No option, no flags and nothing inverted.
        let rest = match name {
            "udp" => info.get(8..9)?,
            "tcp" => info.get(8..12)?,
            _ => return None,
        };
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        let range = |at| Some((u16_at(info, at)?, u16_at(info, at + 2)?));
        for (at, port) in [(0, &mut self.source_port), (4, &mut self.destination_port)] {
            match range(at)? {
                (0, u16::MAX) => {}
                (first, last) if first == last => once(port, first)?,
                _ => return None,
            }
        }
        Some(())
    }
}

/// Said once.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    match place {
        None => {
            *place = Some(value);
            Some(())
        }
        Some(_) => None,
    }
}

/// What is in the register.
#[derive(Clone, Copy, Debug)]
enum Loaded {
    Protocol,
    /// Bytes of the network header from this offset.
    Network(u32),
    Transport(u32),
}

/// What a rule's expressions say; `None`: something that Docker does not write.
pub fn read(expressions: Attrs<'_>) -> Result<Option<Says>, Malformed> {
    let mut says = Says::default();
    let mut loaded = None;
    for expression in expressions.iter() {
        let expression = expression.nested()?;
        let name = expression.need(NFTA_EXPR_NAME, "the name")?.text();
        let data = expression.inside(NFTA_EXPR_DATA)?;
        if says.does.is_some() || note(&mut says, &mut loaded, &name, data)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(says))
}

fn note(
    says: &mut Says,
    loaded: &mut Option<(u32, Loaded)>,
    name: &str,
    data: Attrs<'_>,
) -> Result<Option<()>, Malformed> {
    let number = |kind| data.find(kind).map(Attr::be32).transpose();
    Ok(match name {
        "counter" => Some(()),
        // NFTA_META_DREG, NFTA_META_KEY: NFT_META_L4PROTO
        "meta" => match (number(1)?, number(2)?) {
            (Some(register), Some(16)) => {
                *loaded = Some((register, Loaded::Protocol));
                Some(())
            }
            _ => None,
        },
        "payload" => {
            // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN
            *loaded = match (number(1)?, number(2)?, number(3)?, number(4)?) {
                (Some(register), Some(1), Some(9), Some(1)) => Some((register, Loaded::Protocol)),
                (Some(register), Some(1), Some(offset), Some(4)) => Some((register, Loaded::Network(offset))),
                (Some(register), Some(2), Some(offset), Some(2)) => Some((register, Loaded::Transport(offset))),
                _ => None,
            };
            loaded.map(|_| ())
        }
        // NFTA_CMP_SREG, NFTA_CMP_OP: NFT_CMP_EQ, NFTA_CMP_DATA with NFTA_DATA_VALUE
        "cmp" => match (loaded.take(), number(1)?, number(2)?, data.inside(3)?.find(1)) {
            (Some((register, loaded)), Some(source), Some(0), Some(value)) if register == source => {
                says.compare(loaded, value.payload)
            }
            _ => None,
        },
        // NFTA_MATCH_NAME, NFTA_MATCH_INFO
        "match" => match (data.find(1), data.find(3)) {
            (Some(name), Some(info)) => says.matches(&name.text(), info.payload),
            _ => None,
        },
        // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE and NFTA_VERDICT_CHAIN
        "immediate" => {
            let verdict = data.inside(2)?.inside(2)?;
            match (verdict.find(1).map(Attr::be32).transpose()?, verdict.find(2)) {
                (Some(JUMP), Some(chain)) => once(&mut says.does, Does::Jump(chain.text())),
                _ => None,
            }
        }
        // NFTA_TARGET_NAME, NFTA_TARGET_REV, NFTA_TARGET_INFO
        "target" => match (data.find(1), number(2)?, data.find(3)) {
            (Some(name), Some(revision), Some(info)) => {
                let to = nat(revision, info.payload);
                let does = to.and_then(|(address, port)| match name.text().as_str() {
                    "DNAT" => Some(Does::Dnat(address, port)),
                    "SNAT" => Some(Does::Snat(address, port)),
                    _ => None,
                });
                does.and_then(|does| once(&mut says.does, does))
            }
            _ => None,
        },
        _ => None,
    })
}

/// One address, if any, and one port: `struct nf_nat_ipv4_multi_range_compat`, `struct nf_nat_range`, `struct nf_nat_range2`.
fn nat(revision: u32, info: &[u8]) -> Option<(Option<[u8; 4]>, u16)> {
    let address = |at: usize| -> Option<[u8; 4]> { info.get(at..at + 4)?.try_into().ok() };
    let port = |at: usize| Some(u16::from_be_bytes(info.get(at..at + 2)?.try_into().ok()?));
    let (flags, first, last, ports) = match revision {
        0 if u32_at(info, 0)? == 1 => (u32_at(info, 4)?, address(8)?, address(12)?, 16),
        1 | 2 => (u32_at(info, 0)?, address(4)?, address(20)?, 36),
        _ => return None,
    };
    let (low, high) = (port(ports)?, port(ports + 2)?);
    if first != last || low != high || flags & PROTO_SPECIFIED == 0 || flags & !(MAP_IPS | PROTO_SPECIFIED) != 0 {
        return None;
    }
    Some(((flags & MAP_IPS != 0).then_some(first), low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::message::attributes;

    fn expression(name: &str, data: &[u8]) -> Vec<u8> {
        let name: Vec<u8> = name.bytes().chain([0]).collect();
        let parts = attributes(&[(NFTA_EXPR_NAME, &name), (NFTA_EXPR_DATA, data)]);
        attributes(&[(1, &parts)])
    }

    fn numbers(all: &[u32]) -> Vec<u8> {
        let bytes: Vec<[u8; 4]> = all.iter().map(|number| number.to_be_bytes()).collect();
        let pairs: Vec<(u16, &[u8])> = (1..).zip(bytes.iter().map(<[u8; 4]>::as_slice)).collect();
        attributes(&pairs)
    }

    /// A load into register 1, and a comparison of it.
    fn is(name: &str, load: &[u32], operator: u32, value: &[u8]) -> Vec<u8> {
        let value = attributes(&[(1, value)]);
        let compared = [numbers(&[1, operator]), attributes(&[(3, &value)])].concat();
        [expression(name, &numbers(load)), expression("cmp", &compared)].concat()
    }

    fn target(name: &str, revision: u32, info: &[u8]) -> Vec<u8> {
        let name: Vec<u8> = name.bytes().chain([0]).collect();
        let data = attributes(&[(1, &name), (2, &revision.to_be_bytes()), (3, info)]);
        expression("target", &data)
    }

    /// `struct nf_nat_range2`, to one address and one port.
    fn range(flags: u32, ip: [u8; 4], port: u16) -> Vec<u8> {
        let (mut info, port) = (vec![0; 44], port.to_be_bytes());
        info[..4].copy_from_slice(&flags.to_ne_bytes());
        info[4..8].copy_from_slice(&ip);
        info[20..24].copy_from_slice(&ip);
        info[36..38].copy_from_slice(&port);
        info[38..40].copy_from_slice(&port);
        info
    }

    const IP: [u8; 4] = [127, 0, 0, 11];

    fn protocol() -> Vec<u8> {
        is("meta", &[1, 16], 0, &[UDP])
    }

    fn destination(operator: u32, ip: [u8; 4]) -> Vec<u8> {
        is("payload", &[1, 1, 16, 4], operator, &ip)
    }

    fn port(offset: u32, number: u16) -> Vec<u8> {
        is("payload", &[1, 2, offset, 2], 0, &number.to_be_bytes())
    }

    fn dnat() -> Vec<u8> {
        target("DNAT", 2, &range(3, IP, 4000))
    }

    fn said(parts: &[Vec<u8>]) -> Option<Says> {
        read(Attrs::new(&parts.concat()).expect("attributes")).expect("whole")
    }

    /// `struct xt_udp` of one destination port.
    fn xt_udp(port: u16) -> Vec<u8> {
        let ports: Vec<u8> = [0, u16::MAX, port, port]
            .iter()
            .flat_map(|half| half.to_ne_bytes())
            .collect();
        let data = attributes(&[(1, b"udp\0"), (2, &[0; 4]), (3, &[&ports[..], &[0; 8]].concat())]);
        expression("match", &data)
    }

    #[test]
    fn docker_s_rules_are_known_as_any_iptables_writes_them() {
        let counter = expression("counter", &[]);
        let newer = said(&[protocol(), destination(0, IP), port(2, 53), counter.clone(), dnat()]);
        let protocol_by_header = is("payload", &[1, 1, 9, 1], 0, &[UDP]);
        let older = said(&[destination(0, IP), protocol_by_header, xt_udp(53), counter, dnat()]);
        for says in [newer, older] {
            let says = says.expect("it is read");
            assert_eq!(
                (says.dnat(UDP), says.dnat(TCP), says.snat(UDP)),
                (Some(4000), None, None)
            );
        }
        let source = is("payload", &[1, 1, 12, 4], 0, &IP);
        let back = said(&[
            protocol(),
            source,
            port(0, 4000),
            target("SNAT", 2, &range(2, [0; 4], 53)),
        ]);
        assert_eq!(back.expect("it is read").snat(UDP), Some(4000));
    }

    #[test]
    fn whatever_else_a_rule_says_it_is_not_docker_s() {
        let limit = expression("limit", &[]);
        let loads_only = expression("payload", &numbers(&[1, 1, 16, 4]));
        let with_range = |flags, ip, to: u16| {
            let mut info = range(flags, ip, 4000);
            info[38..40].copy_from_slice(&to.to_be_bytes());
            target("DNAT", 2, &info)
        };
        for (what, parts) in [
            (
                "another address",
                vec![protocol(), destination(0, [127, 0, 0, 12]), port(2, 53), dnat()],
            ),
            ("inverted", vec![protocol(), destination(1, IP), port(2, 53), dnat()]),
            (
                "another port",
                vec![protocol(), destination(0, IP), port(2, 54), dnat()],
            ),
            ("any port", vec![protocol(), destination(0, IP), dnat()]),
            ("any protocol", vec![destination(0, IP), port(2, 53), dnat()]),
            (
                "a limit",
                vec![protocol(), destination(0, IP), port(2, 53), limit, dnat()],
            ),
            (
                "a port of the source besides",
                vec![protocol(), destination(0, IP), port(2, 53), port(0, 9), dnat()],
            ),
            (
                "said twice",
                vec![protocol(), destination(0, IP), port(2, 53), port(2, 53), dnat()],
            ),
            (
                "another way to match",
                vec![protocol(), destination(0, IP), xt_udp(53), xt_udp(53), dnat()],
            ),
            ("not compared", vec![protocol(), loads_only, port(2, 53), dnat()]),
            ("nothing done", vec![protocol(), destination(0, IP), port(2, 53)]),
            (
                "done twice",
                vec![protocol(), destination(0, IP), port(2, 53), dnat(), dnat()],
            ),
            (
                "to another address",
                vec![
                    protocol(),
                    destination(0, IP),
                    port(2, 53),
                    with_range(3, [127, 0, 0, 1], 4000),
                ],
            ),
            (
                "to several ports",
                vec![protocol(), destination(0, IP), port(2, 53), with_range(3, IP, 4001)],
            ),
            (
                "by chance",
                vec![protocol(), destination(0, IP), port(2, 53), with_range(7, IP, 4000)],
            ),
            (
                "to another place",
                vec![
                    protocol(),
                    destination(0, IP),
                    port(2, 53),
                    target("REDIRECT", 0, &[0; 24]),
                ],
            ),
        ] {
            let port = said(&parts).and_then(|says| says.dnat(UDP));
            assert_eq!(port, None, "{what}");
        }
    }
}
