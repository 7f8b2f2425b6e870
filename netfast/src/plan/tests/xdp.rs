//! At which uplinks there is XDP, and which containers take frames.

use std::path::PathBuf;

use super::{reasons::after, *};
use crate::{
    config::XdpMode,
    plan::{Foreign, Xdp, XdpFacts},
};

/// A driver that can do all, and a veth whose other end takes frames.
const NATIVE: u64 = 7;

/// What is planned for the host of containers web and db, whose uplink's driver has XDP.
fn planned(change: impl FnOnce(&mut Host, &mut Config, &mut Facts)) -> Xdp {
    let desired = after(|host, config, facts| {
        config.xdp = XdpMode::Auto;
        let links = &host.served().links;
        facts.xdp = XdpFacts {
            features: links.keys().map(|ifindex| (*ifindex, NATIVE)).collect(),
            ..XdpFacts::default()
        };
        for link in host.served_mut().links.values_mut() {
            link.lower_up = true;
            if let LinkKind::Veth {
                peer_netns: Some(nsid), ..
            } = link.kind
            {
                facts.xdp.namespaces.insert(nsid, (77, PathBuf::from("/run/netns/one")));
            }
        }
        change(host, config, facts);
    });
    desired.xdp
}

fn uplink(host: &mut Host) -> &mut Link {
    host.served_mut().links.get_mut(&UPLINK).expect("an uplink")
}

#[test]
fn nobody_asked_and_nothing_is_done() {
    assert_eq!(planned(|_, config, _| config.xdp = XdpMode::Off), Xdp::default());
}

#[test]
fn a_card_that_can_is_taken_and_containers_take_frames() {
    let xdp = planned(|_, _, _| ());
    assert_eq!(xdp.uplinks.len(), 1, "{xdp:?}");
    assert!(xdp.reports.iter().all(|report| report.why.is_none()));
    assert!(
        !xdp.ends.is_empty() && xdp.ends.values().all(|wish| !wish.gro),
        "{xdp:?}"
    );
    // Where the other end has none, it is to be switched on.
    let xdp = planned(|_, _, facts| facts.xdp.features.values_mut().for_each(|has| *has = 3));
    assert!(
        !xdp.ends.is_empty() && xdp.ends.values().all(|wish| wish.gro),
        "{xdp:?}"
    );
}

#[test]
fn each_thing_in_the_way_is_said() {
    let check = |words: &str, change: &dyn Fn(&mut Host, &mut Config, &mut Facts)| {
        let xdp = planned(change);
        let why = xdp
            .reports
            .iter()
            .find_map(|report| report.why.clone())
            .unwrap_or_default();
        assert!(
            why.contains(words) && xdp.uplinks.is_empty() && xdp.ends.is_empty(),
            "{words:?}: {xdp:?}"
        );
    };
    check("no XDP that sends frames on", &|_, _, facts| facts.xdp.features.clear());
    check("no XDP that sends frames on", &|_, _, facts| {
        facts.xdp.features.insert(UPLINK, 1);
    });
    check("another XDP program", &|host, _, _| uplink(host).xdp.native = Some(9));
    check("another XDP program", &|host, _, facts| {
        facts.xdp.own.insert(9);
        uplink(host).xdp.generic = Some(9);
    });
    check("more than a page", &|host, _, _| uplink(host).mtu = 9000);
    check("takes VLAN tags off", &|_, _, facts| {
        facts.xdp.untagging.insert(UPLINK);
    });
    check("the driver said no", &|_, _, facts| {
        facts.xdp.refused.insert(UPLINK, "the driver said no".into());
    });
    check("not here", &|_, _, facts| facts.xdp.off = Some("not here".into()));
    check("on its ingress must see every packet", &|host, _, facts| {
        let foreign = Foreign {
            ingress: vec!["judge".into()],
            ..Foreign::default()
        };
        facts.foreign.insert(host.served().key(UPLINK), foreign);
    });
    check("it is a veth", &|host, _, _| {
        uplink(host).kind = LinkKind::Veth {
            peer_ifindex: Some(7),
            peer_netns: Some(3),
        };
    });
}

#[test]
fn ours_is_nobody_elses_and_a_veth_is_taken_by_the_operators_word() {
    let xdp = planned(|host, config, facts| {
        config.xdp = XdpMode::On;
        facts.xdp.own.insert(9);
        let uplink = uplink(host);
        uplink.xdp.native = Some(9);
        uplink.kind = LinkKind::Veth {
            peer_ifindex: Some(7),
            peer_netns: Some(3),
        };
    });
    assert_eq!(xdp.uplinks.len(), 1, "{xdp:?}");
}

#[test]
fn a_container_that_cannot_take_frames_is_left_out() {
    let ends = |change: &dyn Fn(&mut Host, &mut Facts)| planned(|host, _, facts| change(host, facts)).ends.len();
    let all = ends(&|_, _| ());
    assert_eq!(ends(&|_, facts| facts.xdp.namespaces.clear()), 0);
    let xdp = planned(|host, _, _| host.served_mut().links.get_mut(&VETH_WEB).expect("a veth").lower_up = false);
    assert_eq!(
        (xdp.ends.len(), xdp.ends.values().filter(|wish| wish.up).count()),
        (all, all - 1)
    );
    assert_eq!(
        ends(&|_, facts| drop(facts.xdp.refused.insert(VETH_WEB, "GRO was switched off".into()))),
        all - 1
    );
}
