//! IPv6 is explained as IPv4 is.

use std::net::Ipv6Addr;

use netfast_common::net::Ip6;

use super::{
    false_words::{endpoint_of, facts_of, network_of, with},
    *,
};
use crate::plan::report::{Deciders, Published};

const WEB: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 2);

/// The state of [`super::state`], its networks with IPv6 as well.
fn dual(change: impl FnOnce(&mut State)) -> State {
    with(|state| {
        for network in &mut state.networks {
            let prefix = if network.name == "backend" { "fd30::" } else { "fd17::" };
            network.pools.push(PoolReport {
                subnet: Some(format!("{prefix}/64")),
                ..PoolReport::default()
            });
            for endpoint in &mut network.endpoints {
                let last = endpoint.addresses[0]
                    .split(['.', '/'])
                    .nth(3)
                    .unwrap_or_default()
                    .to_owned();
                endpoint.addresses.push(format!("{prefix}{last}/64"));
            }
        }
        change(state);
    })
}

/// The verdict and the causes.
fn said(state: &State, devices: &BTreeMap<DeviceKey, Device>, from: &str, to: &str) -> (Verdict, Vec<String>) {
    let to = Destination::parse(to, from, &state.networks, &[]).expect("a destination");
    let explanation = Explanation::of(from, Some(to), &facts_of(state, devices)).expect("a container");
    let causes = why(&explanation).into_iter().map(Into::into).collect();
    (explanation.verdict, causes)
}

/// What is said of each destination by IPv4 and by IPv6.
fn both(state: &State, from: &str) -> Vec<[(Verdict, Vec<String>); 2]> {
    let devices = told(state);
    [
        ("172.30.0.3", "fd30::3"),
        ("172.30.0.1", "fd30::1"),
        ("172.17.0.1", "fd17::1"),
        ("172.30.0.1:8080", "[fd30::1]:8080"),
        ("172.17.0.10", "fd17::10"),
        ("172.17.0.9", "fd17::9"),
        ("198.51.100.7:443", "[2001:db8::7]:443"),
        ("192.0.2.1", "fdff::1"),
        ("10.0.0.1", "fd10::1"),
        ("224.0.0.1", "ff02::1"),
    ]
    .map(|(four, six)| [four, six].map(|to| said(state, &devices, from, to)))
    .into()
}

#[test]
fn a_destination_is_what_its_counterpart_in_ipv4_is() {
    let ruled = |deciders: &mut Deciders| {
        let who = Some("the host's packet-filter rules".to_owned());
        *deciders = Deciders {
            within: who.clone(),
            routed: who.clone(),
            host: who,
            bridged: true,
        };
    };
    let states = [
        dual(|_| {}),
        dual(|state| {
            for network in &mut state.networks {
                ruled(&mut network.deciders);
                ruled(&mut network.deciders6);
            }
            endpoint_of(state, "backend", "database").published = ["0.0.0.0", "::"]
                .map(|ip| Published {
                    host_ip: ip.parse().expect("an address"),
                    host_port: 8080,
                    port: 80,
                })
                .into();
        }),
        dual(|state| endpoint_of(state, "backend", "database").is_cut_off = true),
        dual(|state| network_of(state, "backend").host = Path::slow(Why::RateRules)),
    ];
    let mut verdicts = Vec::new();
    for state in states {
        for [four, six] in both(&state, "web") {
            assert_eq!(four, six);
            verdicts.push(four.0);
        }
    }
    for verdict in [Verdict::Fast, Verdict::Slow, Verdict::KernelDecides] {
        assert!(verdicts.contains(&verdict), "{verdict:?} is among them: {verdicts:?}");
    }
}

#[test]
fn rules_of_one_family_decide_about_that_one() {
    let rules = Some("the host's packet-filter rules".to_owned());
    let devices = told(&state());
    let only6 = dual(|state| network_of(state, "backend").deciders6.within = rules.clone());
    assert_eq!(said(&only6, &devices, "web", "172.30.0.3").0, Verdict::Fast);
    assert_eq!(said(&only6, &devices, "web", "fd30::3").0, Verdict::KernelDecides);
    let only4 = dual(|state| network_of(state, "backend").deciders.within = rules);
    assert_eq!(said(&only4, &devices, "web", "172.30.0.3").0, Verdict::KernelDecides);
    assert_eq!(said(&only4, &devices, "web", "fd30::3").0, Verdict::Fast);
}

#[test]
fn what_the_programs_leave_to_the_kernel_is_said() {
    let state = dual(|state| network_of(state, "backend").ipv6 = Path::slow(Why::RateRules));
    let devices = told(&state);
    for to in ["fd30::2", "fd17::2", "2001:db8::7", "fd30::1"] {
        let (verdict, causes) = said(&state, &devices, "database", to);
        assert_eq!((verdict, causes), (Verdict::Slow, vec!["ipv6-off".to_owned()]), "{to}");
    }
    assert_eq!(said(&state, &devices, "database", "172.30.0.2").0, Verdict::Fast);
    // Of single interfaces: the other end, the bridge, the way out.
    for (from, ifindex, to) in [
        ("web", 14, "fd30::3"),
        ("web", 5, "fd17::1"),
        ("database", 2, "2001:db8::7"),
    ] {
        let state = dual(|_| {});
        let mut devices = told(&state);
        devices.get_mut(&DeviceKey::served(ifindex)).expect("it is there").flags &= !Device::IPV6;
        let (verdict, causes) = said(&state, &devices, from, to);
        assert_eq!((verdict, causes), (Verdict::Slow, vec!["ipv6-off".to_owned()]), "{to}");
    }
}

/// Found: a container with an IPv4 address only was said to be fast by IPv6, too, which its packets are not.
#[test]
fn a_container_without_an_address_of_the_family_is_not_fast_in_it() {
    let state = dual(|_| {});
    let mut devices = told(&state);
    let device = devices.get_mut(&DeviceKey::served(13)).expect("web");
    device.flags &= !Device::ANY_SOURCE;
    device.address6 = Ip6::from_bytes(WEB.octets());
    let (verdict, causes) = said(&state, &devices, "web", "172.30.0.3");
    assert_eq!((verdict, causes), (Verdict::Slow, vec!["spoofed".to_owned()]));
    assert_eq!(said(&state, &devices, "web", "fd30::3").0, Verdict::Fast);
    // As a receiver it answers from there.
    let (verdict, causes) = said(&state, &devices, "database", "172.30.0.2");
    assert_eq!((verdict, causes), (Verdict::Slow, vec!["spoofed".to_owned()]));
    assert_eq!(said(&state, &devices, "database", "fd30::2").0, Verdict::Fast);
}

/// What is forwarded by MAC addresses does not depend on those of IP.
#[test]
fn direct_forwarding_does_not_ask_for_addresses() {
    let state = dual(|state| {
        network_of(state, "backend").ipv6 = Path::slow(Why::RateRules);
        for name in ["web", "database"] {
            endpoint_of(state, "backend", name).direct = Some(Path::Fast);
        }
    });
    let mut devices = told(&state);
    for ifindex in [13, 14] {
        let device = devices.get_mut(&DeviceKey::served(ifindex)).expect("an endpoint");
        device.flags &= !(Device::ANY_SOURCE | Device::IPV6);
    }
    let facts = Facts {
        control: Control {
            direct_until_ns: u64::MAX,
            ..on()
        },
        ..facts_of(&state, &devices)
    };
    for to in ["172.30.0.3", "fd30::3"] {
        let to = Destination::parse(to, "web", &state.networks, &[]).expect("a destination");
        let explained = Explanation::of("web", Some(to), &facts).expect("a container");
        assert_eq!(explained.verdict, Verdict::Direct);
    }
}
