//! What each message must have, and what it may have besides.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::sys::netlink::rt::{
    AddressAttribute, AddressFamily, AddressMessage, LinkMessage, NeighbourAttribute, NeighbourMessage, RouteAttribute,
    RouteMessage, RouteNetlinkMessage, RuleMessage, TcMessage,
};
use crate::sys::netlink::{Malformed, Message, Messages, Parseable as _, Request};

const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// One kind of message.
struct Kind {
    name: &'static str,
    /// With all that is needed.
    whole: Request,
    /// Without something that is needed.
    lacking: Request,
    /// An attribute that is needed, in a shape that it never has.
    wrong: (u16, &'static [u8]),
    /// An attribute that is not needed, in a shape that it never has.
    odd: (u16, &'static [u8]),
    parse: fn(Message<'_>) -> Result<(), Malformed>,
    /// What the packet crate makes of it; `None` where it has nothing.
    by_crate: Option<fn(&[u8]) -> bool>,
}

fn link_request() -> Request {
    let mut header = [0; 16];
    header[4] = 7;
    Request::new(link::RTM_NEWLINK, 0, &header)
}

fn address_message(attributes: Vec<AddressAttribute>) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = 7;
    message.header.prefix_len = 24;
    message.attributes = attributes;
    Request::of(&RouteNetlinkMessage::NewAddress(message), 0)
}

fn neighbour_message(family: AddressFamily, attributes: Vec<NeighbourAttribute>) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = 7;
    message.attributes = attributes;
    Request::of(&RouteNetlinkMessage::NewNeighbour(message), 0)
}

fn route_message(prefix: u8) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = prefix;
    message.attributes = vec![RouteAttribute::Destination(IP.into()), RouteAttribute::Oif(7)];
    Request::of(&RouteNetlinkMessage::NewRoute(message), 0)
}

fn tc_message(make: fn(TcMessage) -> RouteNetlinkMessage) -> Request {
    Request::of(&make(TcMessage::with_index(7)), 0)
}

fn kinds() -> Vec<Kind> {
    vec![
        Kind {
            name: "a link",
            whole: link_request().attr(libc::IFLA_IFNAME, b"eth0\0"),
            lacking: link_request(),
            wrong: (libc::IFLA_MASTER, &[1]),
            odd: (libc::IFLA_CARRIER, &[1, 2, 3]),
            parse: |message| link::parse(message).map(drop),
            by_crate: Some(|bytes| LinkMessage::parse(bytes).is_ok()),
        },
        Kind {
            name: "an address",
            whole: address_message(vec![AddressAttribute::Address(IP.into())]),
            lacking: address_message(Vec::new()),
            wrong: (libc::IFA_LOCAL, &[1, 2, 3]),
            odd: (libc::IFA_CACHEINFO, &[1]),
            parse: |message| address::parse(message).map(drop),
            by_crate: Some(|bytes| AddressMessage::parse(bytes).is_ok()),
        },
        Kind {
            name: "a neighbour",
            whole: neighbour_message(AddressFamily::Inet, vec![NeighbourAttribute::Destination(IP.into())]),
            lacking: neighbour_message(AddressFamily::Inet, Vec::new()),
            wrong: (libc::NDA_DST, &[1, 2, 3]),
            odd: (libc::NDA_PROBES, &[1]),
            parse: |message| neighbour::parse(message).map(drop),
            by_crate: Some(|bytes| NeighbourMessage::parse(bytes).is_ok()),
        },
        Kind {
            name: "a forwarding entry",
            whole: neighbour_message(
                AddressFamily::Bridge,
                vec![NeighbourAttribute::LinkLayerAddress(MAC.to_vec())],
            ),
            lacking: neighbour_message(AddressFamily::Bridge, Vec::new()),
            wrong: (libc::NDA_VLAN, &[1]),
            odd: (libc::NDA_CACHEINFO, &[1]),
            parse: |message| neighbour::parse(message).map(drop),
            by_crate: Some(|bytes| NeighbourMessage::parse(bytes).is_ok()),
        },
        Kind {
            name: "forwarding switches",
            whole: Request::new(netconf::RTM_NEWNETCONF, 0, &[2, 0, 0, 0]).attr(1, &7_i32.to_ne_bytes()),
            lacking: Request::new(netconf::RTM_NEWNETCONF, 0, &[2, 0, 0, 0]),
            wrong: (1, &[1]),
            odd: (77, &[1]),
            parse: |message| netconf::parse(message).map(drop),
            by_crate: None,
        },
        Kind {
            name: "a route",
            whole: route_message(24),
            lacking: route_message(33),
            wrong: (libc::RTA_TABLE, &[1]),
            odd: (libc::RTA_CACHEINFO, &[1]),
            parse: |message| route::parse(message).map(drop),
            by_crate: Some(|bytes| RouteMessage::parse(bytes).is_ok()),
        },
        Kind {
            name: "a rule",
            whole: Request::of(&RouteNetlinkMessage::NewRule(RuleMessage::default()), 0),
            lacking: Request::new(route::RTM_NEWRULE, 0, &[2; 8]),
            wrong: (0, &[]),
            // FRA_PRIORITY
            odd: (6, &[1]),
            parse: |message| route::parse_rule(message).map(drop),
            by_crate: Some(|bytes| RuleMessage::parse(bytes).is_ok()),
        },
        Kind {
            name: "a queueing discipline",
            whole: tc_message(RouteNetlinkMessage::NewQueueDiscipline).attr(libc::TCA_KIND, b"fq\0"),
            lacking: tc_message(RouteNetlinkMessage::NewQueueDiscipline),
            wrong: (0, &[]),
            odd: (libc::TCA_STATS, &[1]),
            parse: |message| tc::parse_qdisc(message).map(drop),
            by_crate: Some(|bytes| TcMessage::parse(bytes).is_ok()),
        },
        Kind {
            name: "a filter",
            whole: tc_message(RouteNetlinkMessage::NewTrafficFilter).attr(libc::TCA_KIND, b"bpf\0"),
            lacking: tc_message(RouteNetlinkMessage::NewTrafficFilter),
            wrong: (libc::TCA_OPTIONS, &[200, 0, 7, 0]),
            odd: (libc::TCA_STATS, &[1]),
            parse: |message| tc::parse_filter(message).map(drop),
            by_crate: Some(|bytes| TcMessage::parse(bytes).is_ok()),
        },
    ]
}

fn read(kind: &Kind, bytes: &[u8]) -> Result<(), Malformed> {
    (kind.parse)(Messages(bytes).next().expect("one message")?)
}

#[test]
fn a_message_without_what_is_needed_is_an_error() {
    for kind in kinds() {
        read(&kind, &kind.whole.finish(0)).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        assert!(
            read(&kind, &kind.lacking.finish(0)).is_err(),
            "{}: lacks something",
            kind.name
        );
        let (number, payload) = kind.wrong;
        if number != 0 {
            let wrong = kind.whole.clone().attr(number, payload).finish(0);
            // The first of a kind counts in some, so it alone is there.
            let alone = kind.lacking.clone().attr(number, payload).finish(0);
            let both = [read(&kind, &wrong), read(&kind, &alone)];
            assert!(
                both.iter().any(Result::is_err),
                "{}: {number} of another shape",
                kind.name
            );
        }
    }
}

#[test]
fn a_message_that_was_cut_is_an_error() {
    for kind in kinds() {
        let whole = kind.whole.finish(0);
        // In the header that all have, in that of its kind, and in its last attribute.
        for len in [0, 15, 16, 17, 19, whole.len() - 4] {
            let mut cut = whole[..len].to_vec();
            assert!(
                Messages(&cut).all(|message| message.is_err()),
                "{} is longer than {len}",
                kind.name
            );
            if len >= 16 {
                cut[0] = u8::try_from(len).expect("short");
                assert!(read(&kind, &cut).is_err(), "{} of {len} bytes", kind.name);
            }
        }
    }
}

#[test]
fn an_attribute_whose_length_lies_is_an_error_and_not_an_end() {
    for kind in kinds() {
        let mut bytes = kind.whole.clone().attr(99, &[0; 4]).finish(0);
        read(&kind, &bytes).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        let at = bytes.len() - 8;
        for len in [0, 3, 9, 200] {
            bytes[at] = len;
            assert!(read(&kind, &bytes).is_err(), "{}: {len}", kind.name);
        }
    }
}

/// What decodes a message whole does not get over such an attribute, and so is not used.
#[test]
fn an_odd_attribute_that_is_not_needed_does_no_harm() {
    for kind in kinds() {
        let (number, payload) = kind.odd;
        let odd = kind.whole.clone().attr(number, payload).finish(0);
        read(&kind, &odd).unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        if let Some(by_crate) = kind.by_crate {
            assert!(by_crate(&kind.whole.finish(0)[16..]), "{}", kind.name);
            assert!(!by_crate(&odd[16..]), "{}: not so odd", kind.name);
        }
    }
}

#[test]
fn next_hops_are_a_route_each_and_a_lying_one_is_an_error() {
    let hop = |oif: u8| [16, 0, 0, 0, oif, 0, 0, 0, 8, 0, 5, 0, 10, 0, 0, oif];
    let hops = [hop(1), hop(2)].concat();
    let read = |hops: &[u8]| {
        let bytes = route_message(24).attr(libc::RTA_MULTIPATH, hops).finish(0);
        route::parse(Messages(&bytes).next().expect("one message")?)
    };
    let routes = read(&hops).expect("two");
    let found: Vec<_> = routes
        .iter()
        .map(|route| (route.oif, route.gateway, route.multipath))
        .collect();
    let gateway = |last| Some(Ipv4Addr::new(10, 0, 0, last).into());
    assert_eq!(found, [(Some(1), gateway(1), true), (Some(2), gateway(2), true)]);
    for len in [0, 7, 13, 17, 200] {
        let mut lying = hops.clone();
        lying[16] = len;
        assert!(read(&lying).is_err(), "{len}");
    }
}

proptest! {
    /// The packet crates index into what they decode, so what they are given must be long enough.
    #[test]
    fn any_bytes_are_read_or_refused(number in 0_u16..130, family in 0_u8..12, payload in prop::collection::vec(any::<u8>(), 0..256)) {
        let request = Request::new(number, 0, &[&[family], &payload[..]].concat());
        let bytes = request.finish(0);
        let message = Messages(&bytes).next().expect("one message").expect("whole");
        for kind in kinds() {
            let _ = (kind.parse)(message);
        }
    }

    /// A number of attributes of any kind and content.
    #[test]
    fn any_attributes_are_read_or_refused(
        attributes in prop::collection::vec((0_u16..64, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        for kind in kinds() {
            let request = attributes.iter().fold(kind.whole.clone(), |request, (kind, payload)| request.attr(*kind, payload));
            let _ = read(&kind, &request.finish(0));
        }
    }
}
