//! What is a hint, and what is not.

use super::*;
use crate::host::FdbState;
use crate::sys::netlink::{Messages, Request};

const REACHABLE: u16 = 2;
const STALE: u16 = 4;
const FAILED: u16 = 32;

fn try_note(memory: &mut Memory, request: &Request) -> Result<Option<Change>, Malformed> {
    let bytes = request.finish(0);
    memory.note(Messages(&bytes).next().expect("one message")?)
}

fn note(memory: &mut Memory, request: &Request) -> Option<Change> {
    try_note(memory, request).expect("a message that can be read")
}

fn neighbour(memory: &mut Memory, kind: u16, state: u16, mac: Option<u8>) -> Option<Change> {
    let mut header = [0; 12];
    header[0] = 2;
    header[4] = 3;
    header[8] = state.to_le_bytes()[0];
    let mut request = Request::new(kind, 0, &header).attr(1, &[172, 17, 0, 2]);
    if let Some(mac) = mac {
        request = request.attr(2, &[2, 0, 0, 0, 0, mac]);
    }
    note(memory, &request)
}

#[test]
#[cfg(target_endian = "little")]
fn a_neighbour_matters_when_it_can_no_longer_be_used_as_before() {
    let mut memory = Memory::default();
    let m = &mut memory;
    assert_eq!(neighbour(m, 28, 1, None), None, "asked for");
    assert_eq!(
        neighbour(m, 28, REACHABLE, Some(1)),
        None,
        "new: no flow can have used it"
    );
    assert_eq!(neighbour(m, 28, STALE, Some(1)), None, "a mere state flip");
    assert_eq!(neighbour(m, 28, REACHABLE, Some(1)), None, "and back");
    let of = |mac| {
        let mac = Some(Mac([2, 0, 0, 0, 0, mac]));
        Some(Change::Neighbours { device: 3, mac })
    };
    assert_eq!(neighbour(m, 28, REACHABLE, Some(2)), of(1), "another station");
    assert_eq!(neighbour(m, 28, FAILED, Some(2)), of(2), "no answer");
    assert_eq!(neighbour(m, 28, FAILED, None), None, "still no answer");
    assert_eq!(neighbour(m, 29, FAILED, None), None, "an unusable one goes");
    assert_eq!(neighbour(m, 28, REACHABLE, Some(2)), None, "back again");
    assert_eq!(neighbour(m, 29, STALE, Some(2)), of(2), "a usable one goes");
}

#[test]
#[cfg(target_endian = "little")]
fn what_a_bridge_and_its_ports_announce_names_the_device() {
    let mut memory = Memory::default();
    let about = |kind: u16, family: u8, name: &str| {
        let mut header = [0; 16];
        header[0] = family;
        header[4] = 7;
        Request::new(kind, 0, &header).attr(3, name.as_bytes())
    };
    let changed = Some(Change::Device { device: 7 });
    let m = &mut memory;
    assert_eq!(note(m, &about(link::RTM_NEWLINK, AF_BRIDGE, "v1")), changed);
    assert_eq!(note(m, &about(link::RTM_NEWLINK, AF_BRIDGE, "v1")), None, "again");
    assert_eq!(note(m, &about(link::RTM_DELLINK, AF_BRIDGE, "v1")), changed);
    assert_eq!(note(m, &about(RTM_NEWVLAN, AF_BRIDGE, "")), changed);
    assert_eq!(note(m, &about(RTM_DELVLAN, AF_BRIDGE, "")), changed);
    assert_eq!(note(m, &about(RTM_NEWNEXTHOP, 0, "")), Some(Change::Routes));
    assert_eq!(
        note(m, &about(link::RTM_NEWLINK, 0, "v1")),
        Some(Change::Links { device: 7 }),
        "it is new"
    );
    assert_eq!(note(m, &about(link::RTM_NEWLINK, 0, "v1")), None, "again");
    assert_eq!(
        note(m, &about(link::RTM_NEWLINK, 0, "v2")),
        Some(Change::Links { device: 7 }),
        "a name"
    );
    assert_eq!(
        note(m, &about(link::RTM_NEWLINK, 0, "v2").attr(4, &1400_u32.to_ne_bytes())),
        changed
    );
}

fn station(memory: &mut Memory, kind: u16, port: u8) -> Option<Change> {
    let mut header = [0; 12];
    header[0] = AF_BRIDGE;
    header[4] = port;
    header[8] = REACHABLE.to_le_bytes()[0];
    note(
        memory,
        &Request::new(kind, 0, &header)
            .attr(2, &[2, 0, 0, 0, 0, 1])
            .attr(9, &7u32.to_ne_bytes()),
    )
}

#[test]
#[cfg(target_endian = "little")]
fn a_station_comes_moves_and_goes() {
    let mut memory = Memory::default();
    assert_eq!(station(&mut memory, 28, 3), Some(Change::FdbAdded { port: 3 }));
    assert_eq!(station(&mut memory, 28, 3), None);
    assert_eq!(station(&mut memory, 28, 4), Some(Change::FdbMoved { port: 3 }));
    // The bridge's own: what was sent to the port is now handed to the host.
    let own = FdbEntry {
        bridge: Some(7),
        ifindex: 4,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        vlan: None,
        remote: None,
        state: FdbState::Local,
    };
    assert_eq!(memory.note_fdb_entry(&own, false), Some(Change::FdbMoved { port: 4 }));
    assert_eq!(memory.note_fdb_entry(&own, false), None);
    assert_eq!(station(&mut memory, 29, 4), Some(Change::FdbMoved { port: 4 }));
    assert_eq!(station(&mut memory, 29, 4), None);
    assert!(memory.crowds.is_empty() && memory.stations.is_empty());
}

/// Where a VXLAN device sends frames to unknown stations: one entry for each end, and none takes the place of another.
#[test]
fn each_end_that_unknown_stations_are_looked_for_at_is_news() {
    let mut memory = Memory::default();
    let to = |last: u8| FdbEntry {
        bridge: None,
        mac: Mac([0; 6]),
        remote: Some([198, 18, 0, last].into()),
        ..entry(3, 0)
    };
    for (end, deleted) in [(1, false), (2, false), (2, true)] {
        assert_eq!(
            memory.note_fdb_entry(&to(end), deleted),
            Some(Change::FdbAdded { port: 3 })
        );
    }
}

fn entry(port: u32, number: usize) -> FdbEntry {
    let [a, b] = u16::try_from(number).expect("small").to_be_bytes();
    FdbEntry {
        bridge: Some(7),
        ifindex: port,
        mac: Mac([2, 0, 0, 0, a, b]),
        vlan: None,
        remote: None,
        state: FdbState::Learned,
    }
}

#[test]
fn a_port_with_invented_stations_is_remembered_in_part() {
    let mut memory = Memory::default();
    assert_eq!(
        memory.note_fdb_entry(&entry(3, 0), false),
        Some(Change::FdbAdded { port: 3 })
    );
    let hints = (1..5000).filter_map(|number| memory.note_fdb_entry(&entry(4, number), false));
    assert_eq!(hints.count(), MAX_STATIONS);
    assert_eq!(memory.stations.len(), MAX_STATIONS + 1);
    // One that is remembered moves all the same, to wherever.
    assert_eq!(
        memory.note_fdb_entry(&entry(4, 0), false),
        Some(Change::FdbMoved { port: 3 })
    );
    assert_eq!(
        memory.note_fdb_entry(&entry(3, 0), false),
        Some(Change::FdbAdded { port: 3 }),
        "it is back"
    );
    assert_eq!(memory.note_fdb_entry(&entry(4, 4999), true), None, "never heard of");
}

#[test]
fn what_was_missed_is_found_by_comparing() {
    let key = NeighbourKey {
        ifindex: 7,
        ip: [10, 0, 0, 1].into(),
    };
    let mac = |number| Some(Mac([2, 0, 0, 0, 0, number]));
    let (mut before, mut now) = (Memory::default(), Memory::default());
    before.neighbours.insert(key, mac(1));
    now.neighbours.insert(key, mac(1));
    before.note_fdb_entry(&entry(3, 0), false);
    now.note_fdb_entry(&entry(3, 0), false);
    assert_eq!(before.changes(&now).count(), 0);
    now.neighbours.insert(key, mac(2));
    now.note_fdb_entry(&entry(4, 0), false);
    let found: Vec<_> = before.changes(&now).collect();
    let neighbours = Change::Neighbours { device: 7, mac: mac(1) };
    assert_eq!(
        found,
        [neighbours, Change::FdbMoved { port: 3 }, Change::FdbAdded { port: 4 }]
    );
}

#[test]
fn routes_that_forward_nothing_do_not_matter() {
    let route = |family: u8, len: u8, dst: &[u8], flags: u32| {
        let mut header = vec![family, len, 0, 0, 254, 2, 0, 1];
        header.extend_from_slice(&flags.to_ne_bytes());
        Request::new(24, 0, &header).attr(1, dst)
    };
    let mut memory = Memory::default();
    let ula = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let multicast = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        note(&mut memory, &route(2, 24, &[10, 0, 0, 0], 0)),
        Some(Change::Routes)
    );
    assert_eq!(
        note(&mut memory, &route(2, 32, &[10, 0, 0, 1], 0x200)),
        None,
        "a path MTU exception"
    );
    assert_eq!(note(&mut memory, &route(10, 64, &ula, 0)), Some(Change::Routes));
    assert_eq!(note(&mut memory, &route(10, 64, &link_local, 0)), None);
    assert_eq!(note(&mut memory, &route(10, 8, &multicast, 0)), None);
}

#[test]
fn an_address_matters_once() {
    let address = |kind: u16, ip: &[u8]| {
        let header = [if ip.len() == 4 { 2 } else { 10 }, 24, 0, 0, 3, 0, 0, 0];
        Request::new(kind, 0, &header).attr(1, ip)
    };
    let mut memory = Memory::default();
    assert_eq!(note(&mut memory, &address(20, &[10, 0, 0, 1])), Some(Change::Addresses));
    assert_eq!(note(&mut memory, &address(20, &[10, 0, 0, 1])), None, "renewed");
    assert_eq!(note(&mut memory, &address(21, &[10, 0, 0, 1])), Some(Change::Addresses));
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(note(&mut memory, &address(20, &link_local)), None);
}

#[test]
fn a_switch_matters_when_it_is_flipped() {
    let forwarding = |kind: u16, ifindex: i32, value: i32| {
        Request::new(kind, 0, &[2, 0, 0, 0])
            .attr(1, &ifindex.to_ne_bytes())
            .attr(2, &value.to_ne_bytes())
    };
    let mut memory = Memory::default();
    assert_eq!(note(&mut memory, &forwarding(80, 7, 1)), None, "a link comes");
    assert_eq!(note(&mut memory, &forwarding(80, 7, 1)), None, "and says so again");
    assert_eq!(note(&mut memory, &forwarding(80, 7, 0)), Some(Change::Sysctls));
    assert_eq!(note(&mut memory, &forwarding(81, 7, 0)), None, "it goes");
}

/// All that the kernel announces of a bridge's port, from its coming to its end, in its order.
#[test]
fn a_link_that_goes_leaves_nothing_behind() {
    let link = |kind: u16, family: u8| {
        let mut header = [0; 16];
        (header[0], header[4]) = (family, 7);
        Request::new(kind, 0, &header).attr(3, b"v1\0")
    };
    let switches = |kind: u16, family: u8| Request::new(kind, 0, &[family, 0, 0, 0]).attr(1, &7_i32.to_ne_bytes());
    let station = |kind: u16| {
        let mut header = [0; 12];
        (header[0], header[4], header[8]) = (AF_BRIDGE, 7, 2);
        Request::new(kind, 0, &header)
            .attr(2, &[2, 0, 0, 0, 0, 1])
            .attr(9, &[3, 0, 0, 0])
    };
    let neighbour = |kind: u16| {
        let mut header = [0; 12];
        (header[0], header[4], header[8]) = (2, 7, 2);
        Request::new(kind, 0, &header)
            .attr(1, &[10, 0, 0, 2])
            .attr(2, &[2, 0, 0, 0, 0, 1])
    };
    let address = |kind: u16| Request::new(kind, 0, &[2, 24, 0, 0, 7, 0, 0, 0]).attr(1, &[10, 0, 0, 1]);
    let mut memory = Memory::default();
    memory.peers.insert(7, None);
    for message in [
        switches(80, 2),
        switches(80, 10),
        link(16, 0),
        link(16, AF_BRIDGE),
        station(28),
        address(20),
        neighbour(28),
        station(29),
        neighbour(29),
        address(21),
        switches(81, 2),
        switches(81, 10),
        link(16, AF_BRIDGE),
        link(17, AF_BRIDGE),
        link(17, 0),
    ] {
        note(&mut memory, &message);
    }
    let Memory {
        links,
        peers,
        ports,
        addresses,
        neighbours,
        stations,
        crowds,
        switches,
    } = memory;
    assert!(links.is_empty() && peers.is_empty() && ports.is_empty() && addresses.is_empty());
    assert!(
        neighbours.is_empty() && stations.is_empty() && switches.is_empty(),
        "{neighbours:?} {switches:?}"
    );
    assert!(crowds.is_empty(), "{crowds:?}");
}

#[test]
fn a_notification_without_what_is_needed_is_an_error() {
    let mut memory = Memory::default();
    for kind in [16, 17, 20, 21, 24, 25, 28, 29, 80, 81, 112, 113] {
        for len in 0..4 {
            let cut = Request::new(kind, 0, &vec![7; len]);
            assert!(try_note(&mut memory, &cut).is_err(), "{kind} of {len} bytes");
        }
    }
    // Of these it is news enough that there is one.
    for kind in [32, 33, 36, 37, 44, 45, 104, 105] {
        let cut = Request::new(kind, 0, &[]);
        assert!(
            try_note(&mut memory, &cut).is_ok_and(|change| change.is_some()),
            "{kind}"
        );
    }
}
