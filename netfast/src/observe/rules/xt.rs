//! Matches and targets of iptables and ebtables that are judged by what they ask for, or that only packets pass which
//! take the slow path in any case: those that open or close a TCP connection, and those of a conversation that conntrack
//! has not seen a reply of.

use super::reachability::Protocol;
use super::table::Place;
use crate::bytes::{u16_at, u32_at};

/// FIN, SYN, RST: the data path leaves every packet with one of them to the kernel.
const OPENS_OR_CLOSES: u8 = 0x07;
/// And every one without it.
const ACK: u8 = 0x10;
/// IANA protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// The bits of TOS and traffic class that are no part of the flow.
const ECN: u8 = 3;

/// Whether a protocol is none of those on the fast path.
pub fn is_other_protocol(number: u8) -> bool {
    number != TCP && number != UDP && !is_icmp(number)
}

/// Whether a protocol is ICMP, of either family.
fn is_icmp(number: u8) -> bool {
    number == ICMP || number == ICMP6
}

/// What is known of the packets of a protocol.
pub fn known(number: u8) -> Option<Protocol> {
    match number {
        TCP => Some(Protocol::Tcp),
        ICMP | ICMP6 => Some(Protocol::Icmp),
        _ => None,
    }
}

/// Whether `ct state` of these (`NF_CT_STATE_BIT`: RELATED 4, NEW 8) is that of packets before the first reply.
pub fn is_unreplied(states: u32) -> bool {
    states != 0 && states & !(4 | 8) == 0
}

/// What a match or target that depends on its parameters is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The same for every packet of a flow.
    Repeatable,
    /// Only packets pass it that always take the slow path.
    SlowOnly,
    /// Only packets pass it that were not answered yet (`ct state new`).
    Unreplied,
    /// Only ICMP passes it.
    Icmp,
    /// It judges by the packet, or it is not understood.
    Judges,
}

/// How a target lets one packet change what the next one meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// What was there is there no more, or the other way round.
    Toggles,
    /// What it adds is gone again before the fast path asks for the next time.
    Brief,
}

/// What is kept in a set for so many seconds is gone before a packet of the fast path refreshes it for certain.
pub const BRIEF_S: u32 = 2;

/// Whether a target is one of those. `info` is its own structure, as the kernel has it.
pub fn changes(place: Place, name: &str, revision: u8, info: &[u8]) -> Option<Changes> {
    match (place, name) {
        (Place::Target, "CONNMARK") => mark_of_connection(info),
        (Place::Target, "SET") => set_target(revision, info),
        _ => None,
    }
}

/// `struct xt_connmark_tginfo1` and `2`: mark, mask, mask of the packet's mark, mode (`XT_CONNMARK_SET` is 0, `SAVE` 1). What
/// is kept of the old mark and flipped is another mark each time.
fn mark_of_connection(info: &[u8]) -> Option<Changes> {
    let (value, replaced, of_packet) = (u32_at(info, 0)?, u32_at(info, 4)?, u32_at(info, 8)?);
    let flipped = match info.get(12)? {
        0 => value,
        1 => of_packet,
        _ => 0,
    };
    (flipped & !replaced != 0).then_some(Changes::Toggles)
}

/// `struct xt_set_info_target_v1` to `3`: the sets to add to and to delete from (and in `v3` to take marks from), four bytes each
/// that begin with the number (`IPSET_INVALID_ID` is none); from `v2` on flags, and a time in seconds (`UINT_MAX` is the set's own).
fn set_target(revision: u8, info: &[u8]) -> Option<Changes> {
    const NONE: u16 = u16::MAX;
    if u16_at(info, 4)? != NONE {
        return Some(Changes::Toggles);
    }
    let time = match revision {
        0 | 1 => return None,
        2 => u32_at(info, 12)?,
        _ => u32_at(info, 16)?,
    };
    (time <= BRIEF_S && u16_at(info, 0)? != NONE).then_some(Changes::Brief)
}

/// Judges one of those that depend. `info` is its own structure, as the kernel has it.
pub fn ask(place: Place, name: &str, revision: u8, info: &[u8]) -> Answer {
    let answer = match (place, name) {
        (Place::Match, "tcp") => tcp(info),
        (Place::Match, "state") => u32_at(info, 0).map(|states| {
            if is_unreplied(states) {
                Answer::Unreplied
            } else {
                Answer::Repeatable
            }
        }),
        (Place::Match, "conntrack") => conntrack(revision, info),
        (Place::Match, "icmp") => icmp(info, [8, 0], Some(ANY_TYPE)),
        (Place::Match, "icmp6") => icmp(info, [128, 129], None),
        (Place::Match, "set") => set(revision, info),
        (Place::Match, "tos") => (revision == 1).then(|| tos(info)).flatten(),
        (Place::Target, "TOS") => (revision == 1).then(|| tos_target(info)).flatten(),
        (Place::Match, "ip") => bridged_ip(info, 17),
        (Place::Match, "ip6") => bridged_ip(info, 65),
        _ => None,
    };
    answer.unwrap_or(Answer::Judges)
}

const fn slow_if(is_slow: bool) -> Answer {
    if is_slow { Answer::SlowOnly } else { Answer::Repeatable }
}

const fn judges_if(judges: bool) -> Answer {
    if judges { Answer::Judges } else { Answer::Repeatable }
}

/// `struct xt_tcp`: ports (8 bytes), option, mask and value of the flags, inversions (`XT_TCP_INV_FLAGS` is 4).
fn tcp(info: &[u8]) -> Option<Answer> {
    let (option, mask, value, inversions) = (*info.get(8)?, *info.get(9)?, *info.get(10)?, *info.get(11)?);
    let known = OPENS_OR_CLOSES | ACK;
    let is_inverted = inversions & 4 != 0;
    let contradicts = mask & known & (value ^ ACK) != 0 || value & !mask != 0;
    let flags = if !contradicts && mask & !known != 0 {
        Answer::Judges
    } else {
        // Fast packets all have what is asked for, or none of them has.
        slow_if(contradicts != is_inverted)
    };
    Some(if flags == Answer::Repeatable {
        judges_if(option != 0)
    } else {
        flags
    })
}

/// `iptables -m icmp` without a type.
const ANY_TYPE: u8 = 0xff;

/// `struct ipt_icmp`, `struct ip6t_icmp`: the type, the first and the last code, and whether what is asked for is inverted
/// (`IPT_ICMP_INV` is 1). Echo has a code of 0, or is slow.
fn icmp(info: &[u8], echo: [u8; 2], any: Option<u8>) -> Option<Answer> {
    let (kind, first, inverted) = (*info.first()?, *info.get(1)?, *info.get(3)?);
    let is_none_of_echo = Some(kind) != any && (!echo.contains(&kind) || first != 0);
    Some(if is_none_of_echo && inverted & 1 == 0 {
        Answer::SlowOnly
    } else {
        Answer::Icmp
    })
}

/// `struct xt_conntrack_mtinfo1` to `3`: eight addresses, expiry, protocol, ports, and then what is asked for.
fn conntrack(revision: u8, info: &[u8]) -> Option<Answer> {
    const STATE: u16 = 1;
    const EXPIRES: u16 = 1 << 7;
    const ASKED: usize = 8 * 16 + 8 + 2 + 4 * 2;
    let (asked, inverted) = (u16_at(info, ASKED)?, u16_at(info, ASKED + 2)?);
    let states = match revision {
        1 => u32::from(*info.get(ASKED + 4)?),
        2 | 3 => u32::from(u16_at(info, ASKED + 4)?),
        _ => return None,
    };
    if asked & STATE != 0 && inverted & STATE == 0 && is_unreplied(states) {
        return Some(Answer::Unreplied);
    }
    Some(judges_if(asked & EXPIRES != 0))
}

/// `struct xt_set_info_match_v1`, `v3`, `v4`: four bytes that name the set, then how to compare its counters
/// (`IPSET_COUNTER_NONE` is 0).
fn set(revision: u8, info: &[u8]) -> Option<Answer> {
    let operators = match revision {
        1 | 2 => return Some(Answer::Repeatable),
        3 => [8, 24],
        4 => [16, 32],
        _ => return None,
    };
    let [packets, bytes] = operators.map(|place| info.get(place).copied());
    Some(judges_if(packets? != 0 || bytes? != 0))
}

/// `struct xt_tos_match_info`: mask, value, inversion.
fn tos(info: &[u8]) -> Option<Answer> {
    Some(judges_if(info.first()? & ECN != 0))
}

/// `struct xt_tos_target_info`: value, mask.
fn tos_target(info: &[u8]) -> Option<Answer> {
    Some(judges_if((info.first()? | info.get(1)?) & ECN != 0))
}

/// `struct ebt_ip_info`, `struct ebt_ip6_info`: the protocol, and behind it what is asked for (`EBT_IP_TOS` and `EBT_IP6_TCLASS` are 4) and
/// what of it is inverted.
fn bridged_ip(info: &[u8], protocol: usize) -> Option<Answer> {
    const TOS: u8 = 4;
    const PROTOCOL: u8 = 8;
    let (number, asked, inverted) = (*info.get(protocol)?, *info.get(protocol + 1)?, *info.get(protocol + 2)?);
    let is_named = asked & !inverted & PROTOCOL != 0;
    if is_named && is_other_protocol(number) {
        return Some(Answer::SlowOnly);
    }
    let judges = asked & TOS != 0;
    if is_named && !judges && is_icmp(number) {
        return Some(Answer::Icmp);
    }
    Some(judges_if(judges))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_match(name: &str, revision: u8, info: &[u8]) -> Answer {
        ask(Place::Match, name, revision, info)
    }

    #[test]
    fn tcp_flags() {
        let of = |option, mask, value, inversions| {
            of_match(
                "tcp",
                0,
                &[0, 0, 255, 255, 0, 0, 255, 255, option, mask, value, inversions],
            )
        };
        let (repeatable, slow, judges) = (Answer::Repeatable, Answer::SlowOnly, Answer::Judges);
        for (option, mask, value, inversions, expected, what) in [
            (0, 0x17, 0x02, 0, slow, "--syn"),
            (0, 0x17, 0x02, 4, repeatable, "! --syn"),
            (0, 0x17, 0x10, 0, repeatable, "an acknowledgement"),
            (0, 0x17, 0x10, 4, slow, "all but acknowledgements"),
            (0, 0, 0, 0, repeatable, "ports only"),
            (0, 0x08, 0x08, 0, judges, "PSH"),
            (0, 0x08, 0, 0, judges, "no PSH"),
            (0, 0x08, 0x08, 4, judges, "! PSH"),
            (0, 0x18, 0x18, 0, judges, "PSH,ACK"),
            (0, 0x20, 0x20, 0, judges, "URG"),
            (0, 0x3f, 0, 0, slow, "ALL NONE"),
            (0, 0x3f, 0x29, 0, slow, "ALL FIN,PSH,URG"),
            (0, 0x06, 0x06, 0, slow, "SYN,RST SYN,RST"),
            (5, 0, 0, 0, judges, "an option"),
            (5, 0x17, 0x02, 0, slow, "an option of SYNs"),
        ] {
            assert_eq!(of(option, mask, value, inversions), expected, "{what}");
        }
        assert_eq!(of_match("tcp", 0, &[0; 3]), judges, "cut short");
    }

    #[test]
    fn types_of_icmp() {
        let (slow, icmp) = (Answer::SlowOnly, Answer::Icmp);
        for (name, info, expected, what) in [
            ("icmp", [0xff, 0, 0xff, 0], icmp, "any"),
            ("icmp", [8, 0, 0xff, 0], icmp, "echo-request"),
            ("icmp", [0, 0, 0, 0], icmp, "echo-reply"),
            ("icmp", [8, 1, 1, 0], slow, "a request with a code"),
            ("icmp", [3, 0, 0xff, 0], slow, "destination-unreachable"),
            ("icmp", [3, 0, 0xff, 1], icmp, "! destination-unreachable"),
            ("icmp", [128, 0, 0xff, 0], slow, "a type of IPv6"),
            ("icmp6", [128, 0, 0xff, 0], icmp, "echo-request"),
            ("icmp6", [129, 0, 0xff, 0], icmp, "echo-reply"),
            ("icmp6", [0xff, 0, 0xff, 0], slow, "a type of its own"),
            ("icmp6", [135, 0, 0xff, 0], slow, "neighbour-solicitation"),
        ] {
            assert_eq!(of_match(name, 0, &info), expected, "{name} {what}");
        }
        assert_eq!(of_match("icmp", 0, &[8]), Answer::Judges, "cut short");
    }

    #[test]
    fn states() {
        let mut info = [0; 160];
        let mut with = |asked: u8, inverted: u8, states: u8| {
            (info[146], info[148], info[150]) = (asked, inverted, states);
            of_match("conntrack", 3, &info)
        };
        for (asked, inverted, states, expected, what) in [
            (1, 0, 8, Answer::Unreplied, "NEW"),
            (1, 0, 12, Answer::Unreplied, "NEW,RELATED"),
            (1, 0, 2, Answer::Repeatable, "ESTABLISHED"),
            (1, 0, 10, Answer::Repeatable, "ESTABLISHED,NEW"),
            (1, 1, 8, Answer::Repeatable, "! NEW"),
            (0, 0, 8, Answer::Repeatable, "not about the state"),
            (1, 0, 1, Answer::Repeatable, "INVALID"),
            (0x80, 0, 0, Answer::Judges, "--ctexpire"),
        ] {
            assert_eq!(with(asked, inverted, states), expected, "{what}");
        }
        assert_eq!(
            of_match("conntrack", 4, &[0; 200]),
            Answer::Judges,
            "a revision to come"
        );
        assert_eq!(of_match("state", 0, &8u32.to_ne_bytes()), Answer::Unreplied);
        assert_eq!(of_match("state", 0, &1u32.to_ne_bytes()), Answer::Repeatable, "INVALID");
    }

    #[test]
    fn the_bits_that_a_mask_keeps() {
        assert_eq!(of_match("tos", 1, &[0xfc, 0x10, 0]), Answer::Repeatable);
        assert_eq!(of_match("tos", 1, &[0xff, 0x10, 0]), Answer::Judges);
        assert_eq!(of_match("tos", 0, &[0x10, 0]), Answer::Judges);
        let target = |value, mask| ask(Place::Target, "TOS", 1, &[value, mask]);
        assert_eq!(target(0x10, 0xfc), Answer::Repeatable);
        assert_eq!(target(0x10, 0xff), Answer::Judges);
        assert_eq!(target(0x01, 0), Answer::Judges);
    }

    #[test]
    fn counters_of_sets() {
        let with = |revision, place: usize| {
            let mut info = [0; 48];
            info[place] = 1;
            of_match("set", revision, &info)
        };
        assert_eq!(with(1, 0), Answer::Repeatable);
        assert_eq!(
            (with(3, 0), with(3, 8), with(3, 24)),
            (Answer::Repeatable, Answer::Judges, Answer::Judges)
        );
        assert_eq!(
            (with(4, 0), with(4, 16), with(4, 32)),
            (Answer::Repeatable, Answer::Judges, Answer::Judges)
        );
        assert_eq!(with(5, 0), Answer::Judges, "a revision to come");
    }

    #[test]
    fn what_changes_what_the_next_packet_meets() {
        let words = |numbers: &[u32]| {
            numbers
                .iter()
                .flat_map(|number| number.to_ne_bytes())
                .collect::<Vec<_>>()
        };
        let mark =
            |mark, mask, packet, mode: u32| changes(Place::Target, "CONNMARK", 1, &words(&[mark, mask, packet, mode]));
        assert_eq!(mark(1, 0, u32::MAX, 0), Some(Changes::Toggles), "--set-xmark 1/0");
        assert_eq!(mark(1, 1, u32::MAX, 0), None, "--set-mark 1/1");
        assert_eq!(mark(0, u32::MAX, u32::MAX, 1), None, "--save-mark");
        assert_eq!(
            mark(0, 0, 1, 1),
            Some(Changes::Toggles),
            "--save-mark --nfmask 1 --ctmask 0"
        );
        assert_eq!(mark(0, 0, u32::MAX, 2), None, "--restore-mark");
        // Sets by their numbers, with the dimension and flags behind.
        let set = |revision, add: u32, delete: u32, seconds| {
            let marks: &[u32] = if revision < 3 { &[] } else { &[0xffff] };
            let all = [&[add, delete], marks, &[0, seconds]].concat();
            changes(Place::Target, "SET", revision, &words(&all))
        };
        let none = 0xffff;
        assert_eq!(set(3, 1, none, u32::MAX), None, "--add-set");
        assert_eq!(set(3, 1, none, 2), Some(Changes::Brief), "--add-set --timeout 2");
        assert_eq!(set(2, 1, none, 2), Some(Changes::Brief), "as iptables of then has it");
        assert_eq!(set(3, 1, none, 3), None);
        assert_eq!(set(3, none, 1, u32::MAX), Some(Changes::Toggles), "--del-set");
        assert_eq!(set(1, 1, none, 0), None, "without a time");
    }

    #[test]
    fn bridged_headers() {
        for (name, place) in [("ip", 17), ("ip6", 65)] {
            let with = |protocol, asked, inverted| {
                let mut info = [0; 80];
                (info[place], info[place + 1], info[place + 2]) = (protocol, asked, inverted);
                of_match(name, 0, &info)
            };
            assert_eq!(with(0, 4, 0), Answer::Judges, "TOS");
            assert_eq!(with(0, 4, 4), Answer::Judges, "! TOS");
            assert_eq!(with(6, 8 | 16, 0), Answer::Repeatable, "ports of TCP");
            assert_eq!(with(132, 8, 0), Answer::SlowOnly, "SCTP");
            assert_eq!(with(1, 8, 0), Answer::Icmp, "ICMP");
            assert_eq!(with(58, 8, 0), Answer::Icmp, "ICMPv6");
            assert_eq!(with(1, 8 | 4, 0), Answer::Judges, "the TOS of ICMP");
            assert_eq!(with(1, 8, 8), Answer::Repeatable, "! ICMP");
        }
    }
}
