//! What may differ between a packet that passed and what it became.

use netfast_tests::packet::{TCP, UDP, check_checksums, difference, internet_checksum};

use super::{ACK, Passed, RST, SYN};
use crate::{dns::model::partial_checksum, vip::script::Hook};

/// The packet with other ends and nothing else, and checksums that are right if they were.
pub fn judge_ends(passed: &Passed<'_>, wanted: &[u8]) {
    let (before, after) = (passed.before, passed.after);
    let at = match before[23] {
        TCP => Some(50),
        UDP => Some(40),
        _ => None,
    };
    let blank = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame[24..26].fill(0);
        if let Some(at) = at {
            frame[at..at + 2].fill(0);
        }
        frame
    };
    let difference = difference(&blank(wanted), &blank(after));
    assert!(blank(wanted) == blank(after), "not as it should be:\n{difference}");
    judge_ip(after);
    let Some(at) = at else { return };
    let field = |frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if before[23] == UDP && field(before) == 0 {
        assert_eq!(field(after), 0, "no checksum stays none");
    } else if passed.odds.host().is_some_and(|odds| odds.partial) {
        let sum = |frame: &[u8]| partial_checksum(frame).map(|sum| sum % 0xffff);
        let was_right = sum(before) == Some(field(before) % 0xffff);
        assert!(
            !was_right || sum(after) == Some(field(after) % 0xffff),
            "the pseudo header's sum is wrong"
        );
    } else {
        let (was, is) = (check_checksums(before), check_checksums(after));
        assert_eq!(was.is_ok(), is.is_ok(), "was {was:?}, is {is:?}");
    }
}

/// Four bytes of a frame as a number.
pub fn number(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().expect("four"))
}

/// A member's reset that became the client's SYN again.
pub fn judge_syn_again(passed: &Passed<'_>) {
    let (before, after) = (passed.before, passed.after);
    assert_eq!(after[6..12], passed.who.mac(), "as the client's own");
    assert_eq!((after[23], after[47] & (SYN | ACK | RST)), (TCP, SYN));
    assert_eq!(
        number(before, 42),
        number(after, 38).wrapping_add(1),
        "the reset acknowledges it"
    );
    judge_ip(after);
    let is_partial = passed.odds.host().is_some_and(|odds| odds.partial);
    if !is_partial && check_checksums(before).is_ok() {
        check_checksums(after).expect("right checksums stay right");
    }
}

fn judge_ip(frame: &[u8]) {
    assert_eq!(internet_checksum(&[&frame[14..34]]), 0, "the IP checksum");
}

/// A reset that answers a SYN.
pub fn judge_refusal(passed: &Passed<'_>) {
    let (before, after) = (passed.before, passed.after);
    assert_eq!((passed.hook, after.len()), (Hook::In, 54));
    assert!(
        after[..6] == before[6..12] && after[6..12] == before[..6],
        "back to who sent it"
    );
    assert!(after[26..30] == before[30..34] && after[30..34] == before[26..30]);
    assert!(after[34..36] == before[36..38] && after[36..38] == before[34..36]);
    assert_eq!((number(after, 38), after[47]), (0, RST | ACK));
    assert_eq!(
        number(after, 42),
        number(before, 38).wrapping_add(1),
        "the SYN is acknowledged"
    );
    judge_ip(after);
    let is_partial = passed.odds.host().is_some_and(|odds| odds.partial);
    if !is_partial && check_checksums(before).is_ok() {
        check_checksums(after).expect("right checksums stay right");
    }
}

/// An ICMP error: nothing may differ but addresses, its own and those of the packet that it quotes, and checksums.
pub fn judge_error(passed: &Passed<'_>) {
    let (before, after) = (passed.before, passed.after);
    assert_eq!(before.len(), after.len());
    let quoted_checksum = 62 + if before[51] == TCP { 16 } else { 6 };
    let may = [0..12, 24..34, 36..38, 52..62, quoted_checksum..quoted_checksum + 2];
    for place in 0..before.len() {
        let is_free = may.iter().any(|range| range.contains(&place));
        assert!(
            is_free || before[place] == after[place],
            "byte {place} of an error was changed"
        );
    }
    judge_ip(after);
    let end = (14 + usize::from(u16::from_be_bytes([before[16], before[17]]))).min(before.len());
    let sum = |frame: &[u8], range: std::ops::Range<usize>| internet_checksum(&[&frame[range]]);
    for range in [34..end, 42..62] {
        let (was, is) = (sum(before, range.clone()), sum(after, range));
        assert!(was != 0 || is == 0, "a checksum of the error is wrong");
    }
    let client = passed.who.address().octets();
    let is_clients = if passed.hook == Hook::In { 30 } else { 26 };
    assert!(passed.hook == Hook::Out || before[26..30] == client);
    assert_ne!(after[is_clients..is_clients + 4], [0; 4]);
}
