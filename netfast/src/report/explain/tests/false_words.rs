//! What `explain` once said and packets contradicted, each with what it says now.

use netfast_common::net::Ip4;

use super::*;
use crate::plan::report::{Deciders, Published, Why};

pub fn with(change: impl FnOnce(&mut State)) -> State {
    let mut state = state();
    change(&mut state);
    state
}

pub fn network_of<'a>(state: &'a mut State, name: &str) -> &'a mut NetworkReport {
    let mut networks = state.networks.iter_mut();
    networks.find(|network| network.name == name).expect("the network")
}

pub fn endpoint_of<'a>(state: &'a mut State, network: &str, name: &str) -> &'a mut EndpointReport {
    let mut endpoints = network_of(state, network).endpoints.iter_mut();
    endpoints
        .find(|endpoint| endpoint.container == name)
        .expect("the endpoint")
}

/// Where the host has heard of nobody and no flow has been learned.
pub fn facts_of<'a>(state: &'a State, devices: &'a BTreeMap<DeviceKey, Device>) -> Facts<'a> {
    Facts {
        state,
        running: true,
        control: on(),
        devices,
        route: &route,
        stand_in: &|_, _| None,
        is_on_link: &|_, _| false,
        behind: &|_| None,
        flows: &|_, _| Flows::default(),
    }
}

/// Rules everywhere, as an engine makes them.
fn ruled(state: &mut State) {
    for network in &mut state.networks {
        network.deciders = Deciders {
            within: Some("the rules within".into()),
            routed: Some("the rules for what is routed".into()),
            host: Some("the rules of the host".into()),
            bridged: true,
        };
    }
}

/// The verdict, the causes, and the text.
fn said(state: &State, live: u64, from: &str, to: &str) -> (Verdict, Vec<String>, String) {
    let explained = explain_with(state, on(), live, from, Some(to));
    let causes = why(&explained).into_iter().map(Into::into).collect();
    (explained.verdict, causes, explained.render(Style::default()))
}

#[test]
fn an_internal_network_is_not_fast_to_the_outside() {
    let state = with(|state| {
        network_of(state, "backend").deciders.routed = Some("the engine's rules for an internal network".into());
    });
    let (verdict, causes, text) = said(&state, 0, "database", "203.0.113.9");
    assert_eq!((verdict, causes), (Verdict::KernelDecides, vec![]));
    assert!(text.contains("internal network") && !text.contains(": fast"), "{text}");
    assert_eq!(
        said(&state, 0, "database", "web").0,
        Verdict::Fast,
        "within it nobody decides"
    );
}

#[test]
fn two_containers_of_an_icc_false_network_are_not_fast() {
    let state = with(|state| network_of(state, "backend").deciders.within = Some("the rules for icc=false".into()));
    let (verdict, _, text) = said(&state, 0, "database", "web");
    assert_eq!(verdict, Verdict::KernelDecides);
    assert!(
        text.contains("icc=false") && text.starts_with("database to web (172.30.0.2): the host's rules decide"),
        "{text}"
    );
}

#[test]
fn what_the_host_sends_to_a_published_port_under_br_netfilter_and_bridge_tables_is_not_fast() {
    let (verdict, causes, text) = said(&with(ruled), 0, "web", "172.17.0.1");
    assert_eq!((verdict, causes), (Verdict::KernelDecides, vec!["no-flow".to_owned()]));
    assert!(
        text.contains("stays slow while bridge-nf-call-iptables is on"),
        "{text}"
    );
    let routed_only = with(|state| {
        ruled(state);
        network_of(state, "bridge").deciders.bridged = false;
    });
    assert_eq!(said(&routed_only, 0, "web", "172.17.0.1").1, Vec::<String>::new());
}

#[test]
fn a_container_s_own_published_port_is_slow_because_of_the_same_device() {
    let state = with(|state| {
        ruled(state);
        for (container, host_port) in [("web", 8080), ("legacy", 8081), ("new", 8082)] {
            endpoint_of(state, "bridge", container).published = vec![Published {
                host_ip: [0, 0, 0, 0].into(),
                host_port,
                port: 80,
            }];
        }
        state.devices.get_mut(&DeviceKey::served(16)).expect("new").attached = true;
    });
    let (verdict, causes, text) = said(&state, 0, "web", "172.17.0.1:8080");
    assert_eq!(
        (verdict, causes),
        (Verdict::KernelDecides, vec!["same-device".to_owned()])
    );
    assert!(text.contains("its own published port"), "{text}");
    // Of somebody who is slow, and of somebody who is fast.
    let (_, causes, text) = said(&state, 0, "web", "172.17.0.1:8081");
    assert!(causes == ["no-flow"] && text.contains("netfast.enable=false"), "{text}");
    assert_eq!(said(&state, 0, "web", "172.17.0.1:8082").1, Vec::<String>::new());
}

#[test]
fn a_bridge_that_is_not_accelerated_is_told_to_whoever_asks_for_the_host() {
    let state = with(|state| network_of(state, "bridge").host = Path::slow_since(Why::RateRules, "ufw's limit"));
    let (verdict, causes, text) = said(&state, 9, "web", "172.17.0.1");
    assert_eq!(
        (verdict, causes),
        (Verdict::Slow, vec!["rate-rules".to_owned()]),
        "flows or not"
    );
    assert!(text.contains("ufw's limit"), "{text}");
    let general = explain_in(&state, on(), "web", None);
    assert_eq!(general.verdict, Verdict::Depends);
    assert!(
        general
            .render(Style::default())
            .contains("from and to the host (docker0)")
    );
    // The programs' own table goes before what the daemon has written down.
    let state = with(|_| {});
    let mut devices = told(&state);
    devices.insert(DeviceKey::served(5), Device::new(Kind::Bridge, 0, 1));
    let facts = facts_of(&state, &devices);
    let to = Destination::parse("172.17.0.1", "web", &state.networks, &[]).expect("an address");
    let explained = Explanation::of("web", Some(to), &facts).expect("it is there");
    assert_eq!(
        (explained.verdict, why(&explained)),
        (Verdict::Slow, vec!["egress-unknown"])
    );
}

/// Without a runtime, addresses are those that the host has heard of.
fn bare(state: &mut State) {
    state.runtime.state = "none".into();
    endpoint_of(state, "bridge", "web").addresses.clear();
    endpoint_of(state, "backend", "database").addresses.clear();
}

#[test]
fn a_container_whose_address_is_not_known_has_routes_all_the_same() {
    let state = with(bare);
    // Any address of its network does for the question.
    assert_eq!(said(&state, 0, "web", "203.0.113.9").0, Verdict::KernelDecides);
    assert_eq!(
        said(&state, 0, "web", "192.0.2.1").0,
        Verdict::Slow,
        "nobody has a route to it"
    );
    // Where there is none, nothing is claimed.
    let (verdict, causes, text) = said(&state, 0, "database", "203.0.113.9");
    assert_eq!((verdict, causes), (Verdict::KernelDecides, vec![]));
    assert!(text.contains("not known yet") && !text.contains("no route"), "{text}");
    // Nor of who has an address that nobody was heard by.
    assert_eq!(
        said(&state, 0, "new", "172.17.3.3").0,
        Verdict::Slow,
        "it is not attached to itself"
    );
    assert_eq!(said(&state, 0, "web", "172.17.3.3").0, Verdict::KernelDecides);
}

/// The flows of the scene are usable, and the kernel was not asked about them lately.
#[test]
fn flows_that_are_left_do_not_contradict_a_missing_route() {
    let state = with(bare);
    let (verdict, _, text) = said(&state, 0, "web", "192.0.2.1");
    assert_eq!(verdict, Verdict::Slow);
    assert!(
        text.contains("no route") && text.contains("4 on the fast path"),
        "{text}"
    );
    assert!(text.contains("the next packet of each asks the kernel"), "{text}");
    // Where nothing is contradicted, nothing is added.
    assert!(!said(&state, 0, "web", "203.0.113.9").2.contains("are left"));
}

#[test]
fn flows_that_there_are_go_before_predictions_and_not_before_the_plan() {
    let state = with(bare);
    assert_eq!(said(&state, 2, "web", "172.17.3.3:80").0, Verdict::Fast);
    let odd = said(&state, 2, "web", "192.0.2.1:80/udp");
    assert_eq!(
        odd.0,
        Verdict::Fast,
        "the question was another than the packets': {}",
        odd.2
    );
    assert_eq!(said(&with(ruled), 2, "database", "web:80").0, Verdict::Fast);
    // They speak for their own port: without one, another conversation may be dropped.
    assert_eq!(said(&state, 2, "web", "192.0.2.1").0, Verdict::KernelDecides);
    assert_eq!(said(&with(ruled), 2, "database", "web").0, Verdict::KernelDecides);
    assert_eq!(said(&with(ruled), 2, "web", "legacy").0, Verdict::Slow);
    let off = explain_with(&with(ruled), Control::default(), 2, "database", Some("web"));
    assert_eq!(off.verdict, Verdict::Slow);
}

#[test]
fn a_virtual_address_is_not_without_a_route() {
    let state = with_alias(Some([192, 0, 2, 2]), [true; 2]);
    let (verdict, _, text) = said(&state, 0, "web", "192.0.2.2:80");
    assert_eq!(verdict, Verdict::Fast, "{text}");
    assert!(text.contains("virtual address 192.0.2.2"), "{text}");
}

#[test]
fn an_alias_with_a_slow_member_depends_on_the_turn() {
    let mut state = with_alias(Some([198, 19, 7, 2]), [true; 2]);
    endpoint_of(&mut state, "backend", "database").path = Path::slow(Why::SeveralMacs);
    let (verdict, causes, _) = said(&state, 0, "web", "pair");
    assert_eq!((verdict, causes), (Verdict::Depends, vec!["several-macs".to_owned()]));
}

#[test]
fn isolated_ports_are_not_fast_to_each_other() {
    let state = with(|state| {
        endpoint_of(state, "backend", "web").isolated = true;
        endpoint_of(state, "backend", "database").isolated = true;
    });
    assert_eq!(said(&state, 0, "database", "web").0, Verdict::Slow);
    let one = with(|state| endpoint_of(state, "backend", "web").isolated = true);
    assert_eq!(said(&one, 0, "database", "web").0, Verdict::Fast);
}

#[test]
fn another_network_is_asked_for_by_its_route() {
    // database (backend) to new (docker0), once that is attached.
    let mut state = with(|state| state.devices.get_mut(&DeviceKey::served(16)).expect("new").attached = true);
    assert_eq!(
        said(&state, 0, "database", "172.17.0.10").0,
        Verdict::Fast,
        "no rule at all"
    );
    network_of(&mut state, "bridge").deciders.routed = Some("the engine's rules".into());
    let (verdict, _, text) = said(&state, 0, "database", "172.17.0.10");
    assert_eq!(verdict, Verdict::KernelDecides, "{text}");
    // An address that the kernel routes elsewhere is not that container, whoever else has it.
    endpoint_of(&mut state, "bridge", "new").addresses = vec!["10.0.0.1/8".into()];
    assert_eq!(said(&state, 0, "database", "10.0.0.1").1, ["egress-unknown"]);
    endpoint_of(&mut state, "bridge", "new").addresses = vec!["192.0.2.9/24".into()];
    assert_eq!(said(&state, 0, "database", "192.0.2.9").1, ["other-packet"]);
}

#[test]
fn a_container_whose_side_of_the_veth_is_down_is_not_fast() {
    let state = with(|state| endpoint_of(state, "backend", "web").is_cut_off = true);
    assert_eq!(said(&state, 0, "database", "web").0, Verdict::Slow);
    assert_eq!(said(&state, 0, "web", "database").0, Verdict::Slow);
}

#[test]
fn a_destination_may_name_its_transport() {
    let state = state();
    let parse = |text: &str| Destination::parse(text, "web", &state.networks, &[]).expect("a destination");
    let ip = IpAddr::from([203, 0, 113, 9]);
    let udp = parse("203.0.113.9:443/udp");
    assert_eq!((udp.ip, udp.port, udp.transport), (ip, Some(443), Some(Transport::Udp)));
    assert!(udp.is(ip, 443, 17) && !udp.is(ip, 443, 6) && !udp.is(ip, 80, 17));
    let any = parse("database:5432");
    assert!(any.is(any.ip, 5432, 6) && any.is(any.ip, 5432, 17));
    assert!(!any.is(any.ip, 5432, 1), "an identifier is no port");
    let echo = parse("database/icmp");
    assert!(echo.is(echo.ip, 0, 1) && echo.is(echo.ip, 7, 58) && !echo.is(echo.ip, 0, 17));
}

/// Found: ports that are none were ignored in brackets, or taken for a part of a name.
#[test]
fn what_is_no_port_or_transport_is_said_to_be_none() {
    let state = state();
    let parse = |text: &str| Destination::parse(text, "web", &state.networks, &[]);
    for (text, part) in [
        ("[2001:db8::b]:99999", "\"99999\" is no port"),
        ("[2001:db8::b]xyz", "\"xyz\" is no port"),
        ("[203.0.113.9]:abc", "\"abc\" is no port"),
        ("database:0", "\"0\" is no port"),
        ("database:99999", "\"99999\" is no port"),
        ("database:80/TCP", "\"TCP\" is no transport"),
        ("database:80/sctp", "\"sctp\" is no transport"),
        ("database:80/icmp", "ICMP has no ports"),
    ] {
        let said = parse(text).expect_err(text).to_string();
        assert!(said.contains(part), "{text}: {said}");
    }
    assert_eq!(parse("[2001:db8::b]").map(|to| to.port), Ok(None));
    assert_eq!(parse("[2001:db8::b]:65535").map(|to| to.port), Ok(Some(65535)));
}

/// Found: a container that `networks` lists was said to be none, where nobody tells its address.
#[test]
fn a_container_without_an_address_is_a_container() {
    let state = with(|state| endpoint_of(state, "backend", "database").addresses.clear());
    let said = Destination::parse("database:80", "web", &state.networks, &[]).expect_err("no address");
    assert_eq!(said, NoDestination::Unheard("database".into()));
}

/// Found: what is fast from the first packet on was said to be fast once both directions were seen.
#[test]
fn what_is_forwarded_directly_is_said_to_be_in_every_line() {
    let state = with(|state| {
        for name in ["web", "database"] {
            endpoint_of(state, "backend", name).direct = Some(Path::Fast);
        }
    });
    let devices = told(&state);
    let facts = Facts {
        control: Control {
            direct_until_ns: u64::MAX,
            ..on()
        },
        ..facts_of(&state, &devices)
    };
    let to = Destination::parse("database", "web", &state.networks, &[]).expect("a destination");
    let said = Explanation::of("web", Some(to), &facts).expect("a container");
    assert_eq!(said.verdict, Verdict::Direct);
    let text = said.render(Style::default());
    assert!(text.contains("fast from the first packet on"), "{text}");
    for false_words in ["once both directions", "Always on the kernel's path", "no flows"] {
        assert!(!text.contains(false_words), "{text}");
    }
}

/// Found: asked about two containers of one bridge, it did not say why packets between them are not forwarded directly.
#[test]
fn what_keeps_two_containers_from_direct_forwarding_is_said_of_the_pair() {
    for judged in ["web", "database"] {
        let state = with(|state| {
            for name in ["web", "database"] {
                endpoint_of(state, "backend", name).direct = Some(Path::Fast);
            }
            endpoint_of(state, "backend", judged).direct = Some(Path::slow(Why::BridgeNetfilter));
        });
        let devices = told(&state);
        let facts = facts_of(&state, &devices);
        let to = Destination::parse("database", "web", &state.networks, &[]).expect("a destination");
        let said = Explanation::of("web", Some(to), &facts).expect("a container");
        assert_eq!(said.verdict, Verdict::Fast);
        let text = said.render(Style::default());
        assert!(text.contains("no, flows are learned"), "{judged}: {text}");
    }
}

#[test]
fn what_is_sent_from_another_address_is_not_fast() {
    let state = with(|state| state.runtime.state = "none".into());
    let mut devices = told(&state);
    for (ifindex, last) in [(13, 2), (14, 3)] {
        let device = devices.get_mut(&DeviceKey::served(ifindex)).expect("an endpoint");
        device.flags &= !Device::ANY_SOURCE;
        device.address4 = Ip4::from_bytes([172, 30, 0, last]);
    }
    let explained = |to: &str| {
        let facts = Facts {
            state: &state,
            running: true,
            control: on(),
            devices: &devices,
            route: &route,
            stand_in: &|_, _| None,
            is_on_link: &|_, _| false,
            behind: &|ip| (ip == IpAddr::from([172, 30, 0, 99])).then_some(14),
            flows: &|_, _| Flows::default(),
        };
        let to = Destination::parse(to, "web", &state.networks, &[]).expect("an address");
        Explanation::of("web", Some(to), &facts).expect("it is there")
    };
    let known = explained("172.30.0.3");
    assert_eq!(
        (known.verdict, known.ways[0].source),
        (Verdict::Fast, Some([172, 30, 0, 2].into()))
    );
    assert!(
        known
            .render(Style::default())
            .contains("packets from 172.30.0.2 may be fast, packets from other source addresses not")
    );
    let other = explained("172.30.0.99");
    assert_eq!((other.verdict, why(&other)), (Verdict::Slow, vec!["spoofed"]));
    // Nobody has been heard by this one, and all are known by others.
    let nobody = explained("172.30.0.77");
    assert_eq!((nobody.verdict, why(&nobody)), (Verdict::Slow, vec!["spoofed"]));
}

#[test]
fn without_a_daemon_new_conversations_are_not_fast() {
    let state = state();
    let devices = told(&state);
    let explained = |live| {
        let facts = Facts {
            state: &state,
            running: false,
            control: on(),
            devices: &devices,
            route: &route,
            stand_in: &|_, _| None,
            is_on_link: &|_, _| false,
            behind: &|_| None,
            flows: &|_, _| Flows {
                live,
                ..Flows::default()
            },
        };
        let to = Destination::parse("database:5432", "web", &state.networks, &[]).expect("a container");
        Explanation::of("web", Some(to), &facts).expect("it is there")
    };
    let dead = explained(0);
    assert_eq!((dead.verdict, why(&dead)), (Verdict::Slow, vec!["unvetted"]));
    let text = dead.render(Style::default());
    assert!(
        text.contains("not running: existing fast conversations stay fast") && text.contains("systemctl start netfast"),
        "{text}"
    );
    assert!(
        !text.contains(advice::of_reason(Reason::Unvetted).text),
        "what the reason means else is unrelated: {text}"
    );
    assert_eq!(explained(2).verdict, Verdict::Fast, "those that there are go on");
}

#[test]
fn who_shares_a_namespace_is_told_whom_to_ask_for_and_nothing_false() {
    let path = Path::slow_since(
        Why::SharedNamespace,
        "shares the namespace of web: its packets are those of web",
    );
    let sidecar = EndpointReport {
        container_id: "sidecar-id".into(),
        container: "sidecar".into(),
        path: path.clone(),
        ..EndpointReport::default()
    };
    let state = with(|state| {
        state.networks.push(NetworkReport {
            name: "container:web".into(),
            driver: "container".into(),
            path,
            endpoints: vec![sidecar],
            ..NetworkReport::default()
        });
    });
    let (verdict, causes, text) = said(&state, 0, "sidecar", "database:5432");
    assert_eq!((verdict, causes), (Verdict::Slow, vec!["shared-namespace".to_owned()]));
    assert!(text.contains("Run `netfast explain web database:5432`."), "{text}");
    assert!(
        !text.contains("no bridge device") && !text.contains("destination"),
        "{text}"
    );
    let general = explain_in(&state, on(), "sidecar", None).render(Style::default());
    assert!(general.contains("Run `netfast explain web`."), "{general}");
}
