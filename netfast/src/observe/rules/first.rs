//! Matches that only packets pass which take the slow path in any case: those of other protocols than TCP and UDP, those
//! that open or close a TCP connection, and those of a conversation that conntrack has not seen a reply of.

use crate::observe::wire::{u16_at, u32_at};

/// FIN, SYN, RST: the data path leaves every packet with one of them to the kernel.
const OPENS_OR_CLOSES: u8 = 0x07;
/// IANA protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Whether a protocol is none of those on the fast path.
pub fn is_other_protocol(number: u8) -> bool {
    number != TCP && number != UDP
}

/// Whether TCP flags that are `value` under `mask` are those of a packet that opens or closes.
pub fn opens_or_closes(mask: u8, value: u8) -> bool {
    mask & value & OPENS_OR_CLOSES != 0
}

/// Whether `ct state` of these (`NF_CT_STATE_BIT`: RELATED 4, NEW 8) is that of packets before the first reply.
pub fn is_unreplied(states: u32) -> bool {
    states != 0 && states & !(4 | 8) == 0
}

/// Whether an xtables match lets only such packets through. `info` is its own structure, as the kernel has it.
pub fn xt_is_always_slow(name: &str, revision: u8, info: &[u8]) -> bool {
    let is = match name {
        "icmp" | "icmp6" | "sctp" | "dccp" | "esp" | "ah" => Some(true),
        "tcp" => tcp(info),
        "state" => u32_at(info, 0).map(is_unreplied),
        "conntrack" => conntrack(revision, info),
        _ => None,
    };
    is.unwrap_or(false)
}

/// `struct xt_tcp`: ports (8 bytes), option, mask and value of the flags, inversions (`XT_TCP_INV_FLAGS` is 4).
fn tcp(info: &[u8]) -> Option<bool> {
    let inverted = info.get(11)? & 4 != 0;
    Some(!inverted && opens_or_closes(*info.get(9)?, *info.get(10)?))
}

/// `struct xt_conntrack_mtinfo1` to `3`: eight addresses, expiry, protocol, ports, and then what is asked for.
fn conntrack(revision: u8, info: &[u8]) -> Option<bool> {
    const STATE: u16 = 1;
    const ASKED: usize = 8 * 16 + 8 + 2 + 4 * 2;
    let (asked, inverted) = (u16_at(info, ASKED)?, u16_at(info, ASKED + 2)?);
    let states = match revision {
        1 => u32::from(*info.get(ASKED + 4)?),
        2 | 3 => u32::from(u16_at(info, ASKED + 4)?),
        _ => return None,
    };
    Some(asked & STATE != 0 && inverted & STATE == 0 && is_unreplied(states))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_flags() {
        let match_of = |mask, value, inversions| {
            let info = [0, 0, 255, 255, 0, 0, 255, 255, 0, mask, value, inversions];
            xt_is_always_slow("tcp", 0, &info)
        };
        assert!(match_of(0x17, 0x02, 0), "--syn");
        assert!(!match_of(0x17, 0x02, 4), "! --syn");
        assert!(!match_of(0x17, 0x10, 0), "an acknowledgement");
        assert!(!match_of(0, 0, 0), "ports only");
        assert!(!xt_is_always_slow("tcp", 0, &[0; 3]), "cut short");
    }

    #[test]
    fn states() {
        let mut info = [0; 160];
        let mut with = |asked: u8, inverted: u8, states: u8| {
            (info[146], info[148], info[150]) = (asked, inverted, states);
            xt_is_always_slow("conntrack", 3, &info)
        };
        assert!(with(1, 0, 8) && with(1, 0, 12), "NEW, and RELATED");
        assert!(!with(1, 0, 2) && !with(1, 0, 10), "ESTABLISHED among them");
        assert!(!with(1, 1, 8), "! NEW");
        assert!(!with(0, 0, 8), "not about the state");
        assert!(!with(1, 0, 9), "INVALID");
        assert!(xt_is_always_slow("state", 0, &8u32.to_ne_bytes()));
        assert!(!xt_is_always_slow("state", 0, &2u32.to_ne_bytes()));
    }

    #[test]
    fn protocols() {
        assert!(xt_is_always_slow("icmp", 0, &[]) && !xt_is_always_slow("udp", 0, &[]));
        assert!(is_other_protocol(1) && !is_other_protocol(6) && !is_other_protocol(17));
    }
}
