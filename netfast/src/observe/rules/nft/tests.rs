//! Rules as the kernel tells them, expression by expression.

use super::super::field::{FIELDS, Header, Nature};
use super::super::table::{CT, Class, EXTENSIONS, META, OBJECTS, Place, find, rows};
use super::*;
use crate::host::Severity;
use crate::sys::netlink::Messages;

mod changes;
mod icmp;

const NESTED: u16 = 1 << 15;

type Parts = Vec<(u16, Vec<u8>)>;

fn be(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn attrs(parts: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let request = parts.iter().fold(Request::new(0, 0, &[]), |request, (kind, payload)| {
        request.attr(*kind, payload)
    });
    request.finish(0)[16..].to_vec()
}

fn expression(name: &str, data: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    attrs(&[(NFTA_EXPR_NAME, text), (2 | NESTED, attrs(data))])
}

fn value(kind: u16, bytes: &[u8]) -> (u16, Vec<u8>) {
    (kind | NESTED, attrs(&[(1, bytes.to_vec())]))
}

fn load(header: Header, offset: u32, len: u32, register: u32) -> Vec<u8> {
    let base = match header {
        Header::Link => 0,
        Header::Ip4 | Header::Ip6 | Header::Ip => 1,
        Header::Tcp | Header::Udp | Header::Icmp | Header::Icmp6 | Header::Transport => 2,
        Header::Inner => 3,
    };
    expression(
        "payload",
        &[(1, be(register)), (2, be(base)), (3, be(offset)), (4, be(len))],
    )
}

fn mask(register: u32, mask: &[u8], flip: &[u8]) -> Vec<u8> {
    let len = u32::try_from(mask.len()).expect("short");
    expression(
        "bitwise",
        &[
            (1, be(register)),
            (2, be(register)),
            (3, be(len)),
            value(4, mask),
            value(5, flip),
        ],
    )
}

fn cmp(register: u32, op: u32, bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[(1, be(register)), (2, be(op)), value(3, bytes)])
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[(1, be(1)), (2, be(key))])
}

fn lookup(verdict: bool) -> Vec<u8> {
    let mut data: Parts = vec![(1, b"s\0".to_vec()), (2, be(1))];
    if verdict {
        data.push((3, be(0)));
    }
    expression("lookup", &data)
}

fn drop() -> Vec<u8> {
    let verdict = attrs(&[(1, be(0))]);
    let data = attrs(&[(2 | NESTED, verdict)]);
    expression("immediate", &[(1, be(0)), (2 | NESTED, data)])
}

/// A rule in the first hook of a family, and what is found in it.
fn findings_at(family: u8, hook: u32, expressions: &[Vec<u8>]) -> Vec<RuleFinding> {
    let list: Parts = expressions.iter().map(|one| (1 | NESTED, one.clone())).collect();
    let request = Request::new(NEWRULE, 0, &[family, 0, 0, 0])
        .attr(1, b"t\0")
        .attr(2, b"c\0")
        .attr(4 | NESTED, &attrs(&list));
    let bytes = request.finish(0);
    let rule = parse(Messages(&bytes).next().expect("one message").expect("whole")).expect("a rule");
    let chain = NftChain {
        family: crate::observe::nftables::family(family),
        table: "t".into(),
        name: "c".into(),
        kind: "filter".into(),
        hook,
        priority: 0,
        device: None,
        policy_drop: false,
    };
    judge(vec![rule], &[chain].into(), &Sets::default())
}

const IP: u8 = 2;
const BRIDGE: u8 = 7;

fn findings(expressions: &[Vec<u8>]) -> Vec<RuleFinding> {
    findings_at(IP, 2, expressions)
}

/// What judges in it, for packets that could be on the fast path; `None` if nothing does.
fn judging(expressions: &[Vec<u8>]) -> Option<&'static str> {
    let found = findings(expressions);
    let slow = found
        .iter()
        .find(|finding| finding.severity == Severity::SlowPath && !finding.ways.is_empty());
    slow.map(|finding| finding.what)
}

fn tcp() -> Vec<Vec<u8>> {
    vec![meta(16), cmp(1, 0, &[6])]
}

fn with(first: Vec<Vec<u8>>, then: &[Vec<u8>]) -> Vec<Vec<u8>> {
    first.into_iter().chain(then.iter().cloned()).chain([drop()]).collect()
}

/// Every field of every header, loaded whole in bytes, masked, and looked up in a set.
#[test]
fn each_header_field_by_itself() {
    for field in &FIELDS {
        let offset = field.start / 8;
        let len = (field.start + field.bits).div_ceil(8) - offset;
        let mut bits = vec![0; len as usize];
        for bit in field.start..field.start + field.bits {
            bits[(bit / 8 - offset) as usize] |= 0x80 >> (bit % 8);
        }
        let family = if field.header == Header::Ip6 { 10 } else { IP };
        let first = match field.header {
            Header::Tcp => tcp(),
            Header::Udp => vec![meta(16), cmp(1, 0, &[17])],
            Header::Icmp => vec![meta(16), cmp(1, 0, &[1])],
            Header::Icmp6 => vec![meta(16), cmp(1, 0, &[58])],
            Header::Link | Header::Ip4 | Header::Ip6 | Header::Ip | Header::Transport | Header::Inner => Vec::new(),
        };
        let flip = vec![0; bits.len()];
        let asked = with(
            first,
            &[load(field.header, offset, len, 1), mask(1, &bits, &flip), lookup(false)],
        );
        let found: Vec<_> = findings_at(family, 2, &asked)
            .iter()
            .map(|finding| finding.what)
            .collect();
        let expected = match field.nature {
            Nature::Varies => vec![field.name],
            // Where others have a port.
            _ if field.header == Header::Transport => vec!["icmp checksum"],
            Nature::Constant | Nature::Fixed(_) => Vec::new(),
        };
        assert_eq!(found, expected, "{}", field.name);
    }
}

/// Every key of meta, ct, exthdr and objref, and every expression that is judged by its name.
#[test]
fn each_name_by_itself() {
    let severities = |expressions: &[Vec<u8>]| {
        let found = findings(expressions);
        found.iter().map(|finding| finding.severity).max()
    };
    let expected = |place, name| {
        let row = find(place, name).expect("a row").row;
        (row.class.severity(), row.class == Class::SlowOnly)
    };
    let keys = |place, names: &[&'static str], make: &dyn Fn(u32) -> Vec<Vec<u8>>| {
        for (number, name) in (0..).zip(names).filter(|(_, name)| !name.is_empty()) {
            assert_eq!(severities(&make(number)), expected(place, name).0, "{place:?} {name}");
        }
        let unknown = findings(&make(250));
        assert_eq!(
            (unknown.len(), unknown[0].severity),
            (1, Severity::SlowPath),
            "{place:?}"
        );
        assert!(
            unknown[0].what.starts_with("unknown") && unknown[0].text.contains("key 250"),
            "{unknown:?}"
        );
    };
    keys(Place::Meta, &META, &|key| vec![meta(key), lookup(false), drop()]);
    keys(Place::Ct, &CT, &|key| {
        vec![expression("ct", &[(1, be(1)), (2, be(key))]), lookup(false), drop()]
    });
    keys(Place::Extension, &EXTENSIONS, &|op| {
        vec![expression("exthdr", &[(1, be(1)), (6, be(op))]), lookup(false), drop()]
    });
    keys(Place::Object, &OBJECTS, &|kind| {
        vec![expression("objref", &[(1, be(kind)), (2, b"o\0".to_vec())])]
    });
    for row in rows().filter(|row| row.place == Place::Expression && row.class != Class::Depends) {
        for name in row
            .names
            .iter()
            .filter(|name| !["meter", "nflog", "brief set", "toggle"].contains(*name))
        {
            let got = severities(&[expression(name, &[]), drop()]);
            assert_eq!(got, row.class.severity(), "{name}");
        }
    }
    for (name, key, set) in [("mark", 3, "meta"), ("mark", 3, "ct")] {
        let place = if set == "meta" {
            (Place::MetaSet, 3)
        } else {
            (Place::CtSet, 4)
        };
        let written = severities(&[expression(set, &[(2, be(key)), (place.1, be(1))])]);
        assert_eq!(written, expected(place.0, name).0, "{set} {name} set");
    }
    let unknown = findings(&[expression("novelty", &[]), drop()]);
    assert_eq!(unknown[0].what, "unknown expression");
    assert_eq!(unknown[0].text, "novelty drop");
}

/// Every match and target of iptables and ebtables, wrapped as iptables-nft does, without parameters.
#[test]
fn each_name_of_iptables_by_itself() {
    for row in rows().filter(|row| [Place::Match, Place::Target].contains(&row.place)) {
        let what = if row.place == Place::Match { "match" } else { "target" };
        for name in row.names {
            let part = expression(
                what,
                &[(1, format!("{name}\0").into_bytes()), (2, be(0)), (3, Vec::new())],
            );
            let found = findings(&[part, drop()]);
            // Without parameters, what depends on them is not understood.
            let expected = if row.class == Class::Depends {
                Some(Severity::SlowPath)
            } else {
                row.class.severity().filter(|_| row.class != Class::Bridged)
            };
            assert_eq!(
                found.iter().map(|finding| finding.severity).max(),
                expected,
                "{what} {name}: {found:?}"
            );
        }
    }
}

#[test]
fn masks_decide() {
    let dscp = [load(Header::Ip4, 1, 1, 1), mask(1, &[0xfc], &[0]), cmp(1, 0, &[0x20])];
    assert_eq!(judging(&with(Vec::new(), &dscp)), None, "ip dscp");
    let ecn = [load(Header::Ip4, 1, 1, 1), mask(1, &[0x03], &[0])];
    assert_eq!(
        judging(&with(Vec::new(), &[ecn.to_vec(), vec![cmp(1, 0, &[3])]].concat())),
        Some("ip ecn")
    );
    assert_eq!(
        judging(&[ecn.to_vec(), vec![lookup(true)]].concat()),
        Some("ip ecn"),
        "a vmap"
    );
    assert_eq!(
        judging(&[ecn.to_vec(), vec![lookup(false)]].concat()),
        None,
        "a rule that does nothing"
    );
    let whole = [load(Header::Ip4, 1, 1, 1), cmp(1, 0, &[0])];
    assert_eq!(judging(&with(Vec::new(), &whole)), Some("ip ecn"), "all of TOS");
    // NFT_BITWISE_RSHIFT is 2.
    let shift = expression(
        "bitwise",
        &[(1, be(1)), (2, be(1)), (3, be(1)), (6, be(2)), value(7, &[2])],
    );
    let shifted = [dscp[0].clone(), dscp[1].clone(), shift.clone(), lookup(false)];
    assert_eq!(judging(&with(Vec::new(), &shifted)), None, "ip dscp, shifted");
    let shifted = [dscp[0].clone(), shift, lookup(false)];
    assert_eq!(
        judging(&with(Vec::new(), &shifted)),
        Some("ip ecn"),
        "shifted without a mask"
    );
    let pair = [load(Header::Ip4, 12, 8, 1), lookup(false)];
    assert_eq!(judging(&with(Vec::new(), &pair)), None, "ip saddr . ip daddr");
    let concatenated = [load(Header::Ip4, 12, 4, 1), load(Header::Ip4, 8, 1, 9), lookup(false)];
    assert_eq!(
        judging(&with(Vec::new(), &concatenated)),
        Some("ip ttl"),
        "ip saddr . ip ttl"
    );
    let less = [load(Header::Ip4, 8, 1, 1), cmp(1, 2, &[9])];
    assert_eq!(judging(&with(Vec::new(), &less)), Some("ip ttl"), "ip ttl < 9");
    let range = [load(Header::Ip4, 8, 1, 1), expression("range", &[(1, be(1))])];
    assert_eq!(judging(&with(Vec::new(), &range)), Some("ip ttl"), "ip ttl 5-9");
    let swapped = expression("byteorder", &[(1, be(1)), (2, be(2)), (4, be(2))]);
    let length = [load(Header::Ip4, 2, 2, 1), swapped, cmp(2, 2, &[0, 9])];
    assert_eq!(
        judging(&with(Vec::new(), &length)),
        Some("ip length"),
        "in another register"
    );
    let hashed = |source| {
        [
            load(Header::Ip4, source, 4, 1),
            expression("hash", &[(1, be(1)), (2, be(2))]),
            cmp(2, 0, &[0; 4]),
        ]
    };
    assert_eq!(judging(&with(Vec::new(), &hashed(12))), None, "jhash ip saddr");
    assert_eq!(
        judging(&with(Vec::new(), &hashed(4))),
        Some("ip id"),
        "jhash of more than that"
    );
}

#[test]
fn tcp_flags() {
    let flags = |bits, op, value| {
        let asked = [
            load(Header::Tcp, 13, 1, 1),
            mask(1, &[bits], &[0]),
            cmp(1, op, &[value]),
        ];
        judging(&with(tcp(), &asked))
    };
    assert_eq!(flags(0x02, 1, 0), None, "tcp flags syn");
    assert_eq!(flags(0x17, 0, 0x02), None, "--syn");
    assert_eq!(flags(0x12, 0, 0x10), None, "ack and no syn");
    assert_eq!(flags(0x08, 1, 0), Some("tcp flags psh"));
    assert_eq!(flags(0x20, 1, 0), Some("tcp flags"));
    assert_eq!(flags(0x0a, 1, 0), Some("tcp flags psh"), "syn or psh");
    let whole = [load(Header::Tcp, 13, 1, 1), lookup(true)];
    assert_eq!(judging(&[tcp(), whole.to_vec()].concat()), Some("tcp flags"), "a vmap");
    // Of a packet that may be UDP, this byte is payload.
    let any = [load(Header::Tcp, 13, 1, 1), mask(1, &[2], &[0]), cmp(1, 1, &[0])];
    assert_eq!(judging(&with(Vec::new(), &any)), Some("transport header"));
    let window = [load(Header::Tcp, 14, 2, 1), cmp(1, 0, &[0, 0])];
    assert_eq!(judging(&with(tcp(), &window)), Some("tcp window, checksum, urgptr"));
    let port = [load(Header::Tcp, 2, 2, 1), cmp(1, 0, &[0, 80])];
    assert_eq!(judging(&with(tcp(), &port)), None);
}

#[test]
fn what_is_written() {
    let write = |bits: &[u8], flip: &[u8]| {
        let len = u32::try_from(bits.len()).expect("short");
        let put = expression("payload", &[(2, be(1)), (3, be(0)), (4, be(len)), (5, be(1))]);
        let found = findings(&[load(Header::Ip4, 0, len, 1), mask(1, bits, flip), put]);
        found
            .iter()
            .map(|finding| (finding.what, finding.severity))
            .collect::<Vec<_>>()
    };
    let excluded = vec![("rewrite", Severity::SelfExcluding)];
    assert_eq!(write(&[0xff, 0x03], &[0, 0x20]), excluded, "ip dscp set");
    let slow = vec![("rewrite", Severity::SlowPath)];
    assert_eq!(write(&[0xff, 0xfc], &[0, 0x03]), slow, "ip ecn set");
    assert_eq!(write(&[0xff, 0xff], &[0, 0x03]), slow, "ecn bits turned over");
    let mark = findings_at(BRIDGE, 0, &[expression("meta", &[(2, be(3)), (3, be(1))])]);
    let host: Vec<_> = mark
        .iter()
        .filter(|finding| finding.severity == Severity::SlowPath)
        .collect();
    assert_eq!((host.len(), host[0].what), (1, "early mark"));
    assert!(host[0].ways.iter().all(|way| way.host_only), "{host:?}");
    let mark = findings_at(BRIDGE, 2, &[expression("meta", &[(2, be(3)), (3, be(1))])]);
    assert_eq!(
        mark.iter().map(|finding| finding.severity).collect::<Vec<_>>(),
        [Severity::Note],
        "FORWARD"
    );
}

#[test]
fn a_bridge_table_is_asked_as_the_others_are() {
    let ip = [load(Header::Link, 12, 2, 1), cmp(1, 0, &[8, 0])];
    let ecn = [load(Header::Ip, 1, 1, 1), mask(1, &[3], &[0]), cmp(1, 0, &[3])];
    let slow = |expressions: &[Vec<u8>]| {
        let found = findings_at(BRIDGE, 2, expressions);
        found.iter().any(|finding| !finding.ways.is_empty())
    };
    assert!(slow(&with(ip.to_vec(), &ecn)));
    let id = [load(Header::Ip, 4, 1, 1), mask(1, &[0xff], &[0]), cmp(1, 0, &[3])];
    assert!(slow(&with(Vec::new(), &id)), "whichever version it is");
    let arp = [load(Header::Link, 12, 2, 1), cmp(1, 0, &[8, 6])];
    assert!(!slow(&with(arp.to_vec(), &ecn)), "ARP is always slow");
    let macs = [load(Header::Link, 6, 6, 1), cmp(1, 0, &[2; 6])];
    assert!(!slow(&with(Vec::new(), &macs)));
}

/// The host's own chains see every packet, on the fast path too; but not by which port of a bridge it came.
#[test]
fn the_host_s_own_chains() {
    let ttl = with(Vec::new(), &[load(Header::Ip4, 8, 1, 1), cmp(1, 0, &[5])]);
    for (hook, slow) in [(0, true), (1, false), (2, true), (3, false), (4, true)] {
        let found = findings_at(IP, hook, &ttl);
        assert_eq!(found[0].severity == Severity::SlowPath, slow, "hook {hook}: {found:?}");
        assert_eq!(found[0].ways.is_empty(), !slow, "hook {hook}");
    }
    let physdev = expression("match", &[(1, b"physdev\0".to_vec()), (2, be(0)), (3, vec![0; 64])]);
    for (hook, host) in [(0, true), (1, true), (2, false), (3, false), (4, false)] {
        let found = findings_at(IP, hook, &[physdev.clone(), drop()]);
        assert_eq!(
            found.iter().any(|finding| finding.ways.iter().all(|way| way.host_only)),
            host,
            "hook {hook}"
        );
    }
}

#[test]
fn a_message_without_what_is_needed_is_an_error() {
    let read = |parts: &[(u16, Vec<u8>)]| {
        let request = Request::new(NEWRULE, 0, &[IP, 0, 0, 0]);
        let request = parts
            .iter()
            .fold(request, |request, (kind, payload)| request.attr(*kind, payload));
        let bytes = request.finish(0);
        let message = Messages(&bytes).next().expect("one message").expect("whole");
        let (mut sets, mut elements) = (Sets::default(), Sets::default());
        (
            parse(message).is_ok(),
            sets.note(message).is_ok(),
            elements.note_elements(message).is_ok(),
        )
    };
    let name = |kind, text: &str| (kind, terminated(text));
    let list = |expression: Vec<u8>| (4 | NESTED, attrs(&[(1 | NESTED, expression)]));
    assert_eq!(read(&[name(1, "t"), name(2, "c"), list(drop())]), (true, true, true));
    assert_eq!(read(&[name(2, "c"), list(drop())]), (false, false, false), "no table");
    assert_eq!(
        read(&[name(1, "t"), list(drop())]),
        (false, false, false),
        "no chain, no set"
    );
    assert_eq!(
        read(&[name(1, "t"), name(2, "c")]),
        (false, true, true),
        "no expressions"
    );
    let lying = vec![200, 0, 1, 0];
    for (what, expression) in [
        ("no name", attrs(&[(2 | NESTED, Vec::new())])),
        ("nothing to compare", expression("cmp", &[(1, be(1)), (2, be(0))])),
        (
            "nothing to compare it with",
            expression("cmp", &[(2, be(0)), value(3, &[6])]),
        ),
        (
            "a number of another length",
            expression("meta", &[(1, be(1)), (2, vec![0; 3])]),
        ),
        ("a lie", lying.clone()),
        (
            "a lie about the data",
            attrs(&[(NFTA_EXPR_NAME, b"meta\0".to_vec()), (2 | NESTED, lying.clone())]),
        ),
        (
            "a lie about a mask",
            expression("bitwise", &[(1, be(1)), (2, be(1)), (3, be(4)), (4, lying.clone())]),
        ),
        (
            "a lie about a verdict",
            expression("immediate", &[(1, be(0)), (2, attrs(&[(2, lying.clone())]))]),
        ),
    ] {
        assert!(!read(&[name(1, "t"), name(2, "c"), list(expression)]).0, "{what}");
    }
    let lie = |kind| read(&[name(1, "t"), name(2, "c"), list(drop()), (kind, lying.clone())]);
    assert!(!lie(18).1, "a lie about a set's expressions");
    assert!(!lie(3).2, "a lie about a set's elements");
}
