//! Which interfaces take bigger segments.

use super::{reasons::after, *};
use crate::{
    config::Segments,
    plan::{BIGGER, Client, SegmentEnd, USUAL},
};

/// The host of containers web (docker0) and db (app), whose devices take the usual segments.
fn after_all(change: impl FnOnce(&mut Host, &mut Config)) -> Desired {
    after(|host, config, _| {
        for link in host.served_mut().links.values_mut() {
            link.offload.gso_ipv4_max_size = Some(USUAL);
        }
        change(host, config);
    })
}

fn network_of<'a>(host: &'a mut Host, name: &str) -> &'a mut Network {
    let id = NetworkId(format!("id-of-{name}"));
    host.networks.get_mut(&id).expect("a network")
}

fn said(desired: &Desired, network: &str) -> Option<String> {
    let mut networks = desired.networks.iter();
    let network = networks.find(|report| report.name == network).expect("a network");
    network.segments.clone()
}

fn client(veth: u32) -> SegmentEnd {
    SegmentEnd::Container(Client {
        netns: veth.into(),
        pid: 1000 + veth,
        ifindex: 2,
    })
}

#[test]
fn nobody_asked_and_nothing_is_done() {
    let desired = after_all(|_, _| ());
    assert!(desired.segments.is_empty());
    assert_eq!(said(&desired, "bridge"), None);
}

#[test]
fn a_network_that_wants_them_has_them_on_its_bridge_and_both_ends_of_its_veths() {
    for value in ["on", "true", "On"] {
        let desired = after_all(|host, _| {
            let labels = &mut network_of(host, "bridge").labels;
            labels.insert("netfast.segments".into(), value.into());
        });
        let ends: Vec<_> = desired.segments.keys().copied().collect();
        let wanted = [SegmentEnd::Host(BRIDGE), SegmentEnd::Host(VETH_WEB), client(VETH_WEB)];
        assert_eq!(
            ends, wanted,
            "the host's first, since they must take what containers send"
        );
        assert_eq!(said(&desired, "bridge").as_deref(), Some("up to 128 KiB"));
        assert_eq!(said(&desired, "app"), None);
    }
}

#[test]
fn by_itself_only_where_nothing_leaves_the_host_or_every_uplink_takes_them() {
    let auto = |change: fn(&mut Host)| {
        after_all(|host, config| {
            config.segments = Segments::Auto;
            change(host);
        })
    };
    let desired = auto(|_| ());
    assert!(desired.segments.is_empty(), "{:?}", desired.segments);
    let why = "up to 64 KiB: what leaves by eth0 would have to be cut up";
    assert_eq!(said(&desired, "bridge").as_deref(), Some(why));

    let desired = auto(|host| network_of(host, "app").internal = true);
    assert!(desired.segments.contains_key(&client(11)) && !desired.segments.contains_key(&client(VETH_WEB)));
    assert_eq!(said(&desired, "app").as_deref(), Some("up to 128 KiB"));

    let desired = auto(|host| {
        let uplink = host.served_mut().links.get_mut(&UPLINK).expect("eth0");
        uplink.offload.gso_ipv4_max_size = Some(BIGGER);
    });
    assert!(desired.segments.contains_key(&client(11)) && desired.segments.contains_key(&client(VETH_WEB)));
}

#[test]
fn who_is_switched_off_or_cannot_has_none() {
    let on = |change: fn(&mut Host)| {
        after_all(|host, config| {
            config.segments = Segments::On;
            change(host);
        })
    };
    // The container quiet of app (veth 13) is switched off.
    let desired = on(|_| ());
    assert!(desired.segments.contains_key(&client(11)) && !desired.segments.contains_key(&client(13)));
    let desired = on(|host| {
        network_of(host, "app")
            .labels
            .insert("netfast.segments".into(), "off".into());
        network_of(host, "bridge")
            .labels
            .insert("netfast.enable".into(), "false".into());
    });
    assert!(desired.segments.is_empty(), "{:?}", desired.segments);
    let desired = on(|host| {
        for link in host.served_mut().links.values_mut() {
            link.offload.gso_ipv4_max_size = None;
        }
    });
    assert!(desired.segments.is_empty());
    let said = said(&desired, "bridge").expect("it was asked for");
    assert!(said.contains("Linux 6.3"), "{said}");
}
