//! The host and its containers on a macvlan network.

use netfast_common::macvlan::{AddressKey, Station, StationKey};

use super::{reasons::after, *};
use crate::plan::{
    MacvlanTable,
    report::{Path, Why},
};

/// The network `lan`, whose container `printer` has 192.168.1.99; `edit` changes both.
fn lan(edit: impl FnOnce(&mut Network, &mut Container)) -> Desired {
    after(|host, _, _| edit_lan(host, edit))
}

fn edit_lan(host: &mut Host, edit: impl FnOnce(&mut Network, &mut Container)) {
    let network = host
        .networks
        .get_mut(&NetworkId("id-of-lan".into()))
        .expect("a network");
    network.options.insert("parent".into(), "eth0".into());
    network.labels.insert("netfast.macvlan-host".into(), "true".into());
    let container = host
        .containers
        .get_mut(&ContainerId("id-of-printer".into()))
        .expect("a container");
    container.attachments[0].ipv4 = Some(net("192.168.1.99/24"));
    edit(network, container);
}

/// A change of the network.
type Edit = Box<dyn FnOnce(&mut Network)>;

/// What is said of it.
fn said(desired: &Desired) -> &str {
    let report = desired.networks.iter().find(|report| report.name == "lan");
    let Path::Slow(slow) = &report.expect("a network").path else {
        panic!("it is fast");
    };
    assert_eq!(slow.why, Why::Macvlan);
    &slow.text
}

#[test]
fn without_the_label_nothing_is_done() {
    for value in [None, Some("false"), Some("")] {
        let desired = lan(|network, _| match value {
            Some(value) => drop(network.labels.insert("netfast.macvlan-host".into(), value.into())),
            None => network.labels.clear(),
        });
        assert_eq!(desired.macvlans, Macvlans::default());
        assert_eq!(said(&desired), Why::Macvlan.text());
    }
}

#[test]
fn with_it_the_host_and_the_container_know_each_other_by_the_parent() {
    let desired = lan(|_, container| {
        container.interfaces.push(ContainerInterface {
            name: "eth0".into(),
            mac: container.attachments[0].mac,
            kind: "macvlan".into(),
            addresses: vec![net("192.168.1.99/24"), net("fd00::99/64"), net("fe80::99/64")],
            ..ContainerInterface::default()
        });
    });
    let parent = key(UPLINK);
    let host = mac(2).0;
    let container = mac(20).0;
    let station = |who| Station { who, host };
    let address = |text| {
        let address = ip(text).into();
        (AddressKey { parent, address }, container)
    };
    assert_eq!(
        desired.macvlans.table,
        MacvlanTable {
            stations: [
                (StationKey::new(parent, host), station(Station::HOST)),
                (StationKey::new(parent, container), station(Station::CONTAINER)),
            ]
            .into(),
            addresses: ["192.168.1.99", "fd00::99", "fe80::99"].map(address).into(),
        }
    );
    assert_eq!(desired.macvlans.parents, [(parent, "eth0".to_owned())].into());
    assert!(said(&desired).ends_with("its containers and the host reach each other by eth0"));
    let report = desired.networks.iter().find(|report| report.name == "lan");
    assert_eq!(report.expect("a network").parent.as_deref(), Some("eth0"));
}

#[test]
fn what_the_interface_has_counts_more_than_what_was_given() {
    let desired = lan(|_, container| {
        container.interfaces.push(ContainerInterface {
            mac: Some(mac(77)),
            kind: "macvlan".into(),
            addresses: vec![net("192.168.1.99/24")],
            ..ContainerInterface::default()
        });
    });
    let stations = &desired.macvlans.table.stations;
    assert!(stations.contains_key(&StationKey::new(key(UPLINK), mac(77).0)));
    assert!(!stations.contains_key(&StationKey::new(key(UPLINK), mac(20).0)));
}

#[test]
fn a_network_without_containers_needs_no_program() {
    let desired = lan(|_, container| container.attachments.clear());
    assert_eq!(desired.macvlans, Macvlans::default());
}

#[test]
fn a_container_that_is_switched_off_is_left_out() {
    let desired = lan(|_, container| drop(container.labels.insert("netfast.enable".into(), "false".into())));
    assert_eq!(desired.macvlans, Macvlans::default());
}

#[test]
fn a_container_with_the_host_s_own_address_is_left_out() {
    let desired = lan(|_, container| container.attachments[0].mac = Some(mac(2)));
    assert_eq!(desired.macvlans, Macvlans::default());
}

#[test]
fn where_the_wish_cannot_be_met_it_is_said_why() {
    let option = |name: &'static str, value: &'static str| {
        move |network: &mut Network| drop(network.options.insert(name.into(), value.into()))
    };
    let off = |network: &mut Network| drop(network.labels.insert("netfast.enable".into(), "no".into()));
    let cases: [(Edit, &str); 6] = [
        (Box::new(off), "switched off"),
        (Box::new(|network| network.internal = true), "internal"),
        (Box::new(option("macvlan_mode", "private")), "its mode is private"),
        (Box::new(option("macvlan_mode", "passthru")), "its mode is passthru"),
        (Box::new(option("parent", "eth9")), "eth9 does not exist"),
        (Box::new(|network| network.options.clear()), "does not tell its parent"),
    ];
    for (edit, why) in cases {
        let desired = lan(|network, _| edit(network));
        assert_eq!(desired.macvlans, Macvlans::default(), "{why}");
        let said = said(&desired);
        assert!(said.contains("has no effect") && said.contains(why), "{said}");
    }
    let desired = after(|host, _, facts| {
        edit_lan(host, |_, _| ());
        facts.macvlan_off = Some("no tcx".into());
    });
    assert!(said(&desired).ends_with("no tcx") && desired.macvlans == Macvlans::default());
    let desired = lan(|network, _| drop(network.options.insert("macvlan_mode".into(), "bridge".into())));
    assert!(!desired.macvlans.parents.is_empty());
}
