//! Rules about ICMP: they are about echo alone, and those about ports are about none of it, if they say so.

use super::*;

/// How much a rule of FORWARD stands against the fast path, by what.
fn severity(expressions: &[Vec<u8>]) -> Option<(Severity, &'static str)> {
    let found = findings(expressions);
    let slow = found.iter().filter(|finding| !finding.ways.is_empty());
    slow.map(|finding| (finding.severity, finding.what)).max()
}

fn limit() -> Vec<u8> {
    expression("limit", &[])
}

fn of(protocol: u8) -> Vec<Vec<u8>> {
    vec![meta(16), cmp(1, 0, &[protocol])]
}

#[test]
fn rules_about_icmp_are_about_echo() {
    for (header, protocol, echo, other) in [(Header::Icmp, 1, 8, 3), (Header::Icmp6, 58, 128, 135)] {
        let limited = |kind: Option<u8>, op| {
            let of_kind = kind.map(|kind| [load(header, 0, 1, 1), cmp(1, op, &[kind])]);
            let parts: Vec<_> = of_kind.into_iter().flatten().chain([limit()]).collect();
            severity(&with(of(protocol), &parts))
        };
        let slow = Some((Severity::SlowEcho, "limit"));
        assert_eq!(limited(None, 0), slow, "all");
        assert_eq!(limited(Some(echo), 0), slow, "echo-request");
        assert_eq!(limited(Some(other), 0), None, "what is slow");
        assert_eq!(limited(Some(other), 1), slow, "not what is slow");
        let asks = |offset, len| severity(&with(of(protocol), &[load(header, offset, len, 1), lookup(false)]));
        assert_eq!(asks(4, 2), None, "the identifier");
        assert!(matches!(asks(6, 2), Some((Severity::SlowEcho, what)) if what.ends_with("sequence")));
        assert!(matches!(asks(8, 4), Some((Severity::SlowEcho, what)) if what.ends_with("payload")));
    }
    assert_eq!(severity(&with(of(132), &[limit()])), None, "SCTP");
}

/// Where others have a port, ICMP has a checksum.
#[test]
fn ports_of_any_protocol_are_no_ports_of_icmp() {
    let port = |first: Vec<Vec<u8>>, last: &[Vec<u8>]| {
        let asked: Vec<_> = [load(Header::Transport, 2, 2, 1)]
            .into_iter()
            .chain(last.iter().cloned())
            .collect();
        severity(&with(first, &asked))
    };
    let asked = Some((Severity::SlowEcho, "icmp checksum"));
    let (equal, at_least, set) = (cmp(1, 0, &[0, 53]), cmp(1, 5, &[0, 53]), lookup(false));
    for ask in [&equal, &at_least, &set] {
        assert_eq!(port(Vec::new(), std::slice::from_ref(ask)), asked);
        assert_eq!(port(of(6), std::slice::from_ref(ask)), None, "TCP");
        assert_eq!(port(of(17), std::slice::from_ref(ask)), None, "UDP");
    }
    // As nft puts a range into a register of the host's order.
    let swapped = expression(
        "byteorder",
        &[(1, be(1)), (2, be(1)), (3, be(0)), (4, be(2)), (5, be(2))],
    );
    assert_eq!(port(Vec::new(), &[swapped, cmp(1, 5, &[53, 0])]), asked, "a range");
    // The protocol is told behind it.
    let late = [equal.clone(), meta(16), cmp(1, 0, &[6])];
    assert_eq!(port(Vec::new(), &late), None, "TCP all the same");
    // The host's own rules see every packet, and nobody is told of each of those about ports.
    let input = findings_at(IP, 1, &with(Vec::new(), &[load(Header::Transport, 2, 2, 1), equal]));
    assert!(input.is_empty(), "{input:?}");
    let first = severity(&with(Vec::new(), &[load(Header::Transport, 0, 2, 1), lookup(false)]));
    assert_eq!(first, None, "th sport is type and code");
}
