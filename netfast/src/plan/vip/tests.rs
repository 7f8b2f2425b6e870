use super::*;
use crate::{
    config::{AliasMode, Config},
    host::{IpamPool, LinkKind, RouteType},
    plan::{
        AliasReport, Desired, Facts, plan,
        tests::build::{BRIDGE, add, address, container, docker_host, mac, route},
    },
};

/// br-app.
const APP: u32 = 4;

/// A host whose network `app` has three members of `web`, and one who asks.
fn app() -> Host {
    let mut host = docker_host();
    host.containers.clear();
    for (number, name) in ["a", "b", "c", "asks"].into_iter().enumerate() {
        let number = u32::try_from(number).expect("small") + 2;
        let mut one = container(name, "app", &format!("172.18.0.{number}/16"), 20 + number);
        if name != "asks" {
            one.attachments[0].aliases = vec!["web".into()];
        }
        add(&mut host, one, APP);
    }
    label(&mut host, LABEL, "vip");
    host
}

const LABEL: &str = crate::plan::aliases::LABEL;

fn label(host: &mut Host, label: &str, value: &str) {
    let mut networks = host.networks.values_mut();
    let app = networks.find(|network| network.name == "app").expect("it is there");
    app.labels.insert(label.into(), value.into());
}

fn one<'a>(host: &'a mut Host, name: &str) -> &'a mut Container {
    let mut containers = host.containers.values_mut();
    containers.find(|one| one.name == name).expect("it is there")
}

fn planned(host: &Host) -> Desired {
    plan(host, &Config::default(), &Facts::default())
}

/// The alias `web`.
fn web(desired: &Desired) -> &AliasReport {
    let mut reports = desired.aliases.reports.iter();
    reports.find(|report| report.alias == "web").expect("it is reported")
}

fn service(desired: &Desired) -> &VipService {
    let vip = web(desired)
        .vip
        .unwrap_or_else(|| panic!("no address: {:?}", web(desired)));
    &desired.aliases.vips.table.services[&IpAddr::from(vip)]
}

/// The last bytes of the addresses in the slots.
fn order(desired: &Desired) -> Vec<u8> {
    service(desired)
        .slots
        .iter()
        .map(|slot| slot.address.to_v4().bytes()[3])
        .collect()
}

fn why_not(desired: &Desired) -> &str {
    let report = web(desired);
    assert_eq!(
        (report.mode, report.vip),
        (AliasMode::Rr, None),
        "it is rotated instead"
    );
    let vips = &desired.aliases.vips;
    assert!(vips.table.services.is_empty() && vips.clients.is_empty() && vips.pools.is_empty());
    report.why.as_deref().expect("a reason")
}

#[test]
fn a_label_on_the_network_gives_its_aliases_an_address() {
    let desired = planned(&app());
    let (vips, report) = (&desired.aliases.vips, web(&desired));
    let vip = report.vip.expect("an address");
    assert_eq!((report.mode, &report.why), (AliasMode::Vip, &None));
    assert!(VipPool::DEFAULT.contains(vip.into()));
    assert_eq!(order(&desired), [2, 3, 4]);
    let service = service(&desired);
    assert_eq!((service.bridge, service.affinity), (APP, false));
    assert_eq!(service.slots[1].mac, mac(23).0);
    assert!(vips.table.members.len() == 3 && vips.table.members.values().all(|eligible| *eligible));
    assert_eq!(desired.aliases.table.services.iter().collect::<Vec<_>>(), [&service.id]);
    // The answer is the address, for both families and both spellings.
    let told = desired
        .aliases
        .table
        .entries
        .values()
        .filter(|alias| alias.members == 3);
    let told: Vec<IpAddr> = told.map(|alias| alias.vip.into()).collect();
    assert_eq!(told, [IpAddr::from(vip); 2]);
    // All four may ask, members among them.
    assert_eq!(
        vips.endpoints.keys().map(|device| device.ifindex).collect::<Vec<_>>(),
        [22, 23, 24, 25]
    );
    assert_eq!(vips.pools, BTreeSet::from([VipPool::DEFAULT]));
    for (client, (way, name)) in &vips.clients {
        assert_eq!(
            (client.ifindex, way.mac),
            (2, mac(u8::try_from(APP).expect("small"))),
            "{name}"
        );
        assert_eq!(way.blocks.len(), 1);
    }
    assert_eq!(desired.aliases.loopbacks.len(), 4);
    assert!(
        desired.devices[&DeviceKey::served(22)].device(0).bridge == APP
            && desired.devices[&DeviceKey::served(APP)].device(0).bridge == 0
    );
}

#[test]
fn nothing_of_it_is_there_by_default() {
    let mut host = app();
    label(&mut host, LABEL, "");
    let desired = planned(&host);
    assert_eq!(web(&desired).mode, AliasMode::Rr);
    assert_eq!(desired.aliases.vips, Vips::default());
    assert!(desired.aliases.table.services.is_empty());
}

#[test]
fn a_label_on_a_container_is_for_its_aliases_and_the_network_has_the_last_word() {
    let mut host = app();
    one(&mut host, "b").labels.insert(LABEL.into(), "VIP".into());
    label(&mut host, LABEL, "");
    for name in ["a", "b", "asks"] {
        one(&mut host, name).attachments[0].aliases.push("api".into());
    }
    for name in ["a", "asks"] {
        one(&mut host, name).attachments[0].aliases.push("plain".into());
    }
    let mode_of = |host: &Host, config: &Config, alias: &str| {
        let desired = plan(host, config, &Facts::default());
        let mut reports = desired.aliases.reports.iter();
        reports.find(|report| report.alias == alias).map(|report| report.mode)
    };
    let by_default = Config::default();
    assert_eq!(mode_of(&host, &by_default, "web"), Some(AliasMode::Vip));
    assert_eq!(mode_of(&host, &by_default, "api"), Some(AliasMode::Vip));
    assert_eq!(mode_of(&host, &by_default, "plain"), Some(AliasMode::Rr));
    let all = Config {
        alias_mode: AliasMode::Vip,
        ..Config::default()
    };
    assert_eq!(mode_of(&host, &all, "plain"), Some(AliasMode::Vip));
    label(&mut host, LABEL, "rr");
    assert_eq!(mode_of(&host, &all, "web"), Some(AliasMode::Rr));
    label(&mut host, LABEL, "off");
    assert_eq!(mode_of(&host, &all, "web"), Some(AliasMode::Off));
    label(&mut host, LABEL, "vip");
    let off = Config {
        alias_mode: AliasMode::Off,
        ..Config::default()
    };
    assert_eq!(mode_of(&host, &off, "web"), Some(AliasMode::Off));
}

#[test]
fn weights_and_affinity_are_labels() {
    let mut host = app();
    for (name, weight) in [("a", "1"), ("b", "2"), ("c", "3")] {
        one(&mut host, name)
            .labels
            .insert("netfast.alias.weight".into(), weight.into());
    }
    assert_eq!(order(&planned(&host)), [4, 3, 2, 4, 3, 4]);
    one(&mut host, "c")
        .labels
        .insert("netfast.alias.weight".into(), "0".into());
    assert_eq!(order(&planned(&host)), [3, 2, 3], "it is given no more");
    one(&mut host, "c")
        .labels
        .insert("netfast.alias.weight".into(), "many".into());
    assert_eq!(order(&planned(&host)).len(), 4, "what is no number is 1");
    label(&mut host, "netfast.alias.affinity", "source");
    let desired = planned(&host);
    assert!(service(&desired).affinity && web(&desired).affinity);
    assert_eq!(service(&desired).slots.len(), 1021);
    let share = |last: u8| order(&desired).into_iter().filter(|slot| *slot == last).count();
    assert!(share(3).abs_diff(2 * share(2)) <= 4, "b has twice the weight");
}

#[test]
fn who_is_not_well_is_given_nothing_new_and_nobody_well_is_nobody() {
    let mut host = app();
    one(&mut host, "a").health = Health::Unhealthy;
    one(&mut host, "b").health = Health::Starting;
    let desired = planned(&host);
    assert_eq!(order(&desired), [4], "a check that has not said yes is waited for");
    let eligible: Vec<bool> = web(&desired).members.iter().map(|member| member.eligible).collect();
    assert_eq!(eligible, [false, false, true]);
    assert_eq!(desired.aliases.vips.table.members.len(), 3, "they keep what they have");
    one(&mut host, "c").state = ContainerState::Paused;
    assert_eq!(order(&planned(&host)), [3], "unless all have to be waited for");
    one(&mut host, "b").health = Health::Unhealthy;
    let desired = planned(&host);
    assert_eq!(order(&desired), [0; 0]);
    assert!(
        web(&desired).vip.is_some() && !desired.aliases.vips.clients.is_empty(),
        "clients are refused"
    );
    // One whose veth is not there yet.
    let mut host = app();
    one(&mut host, "a").interfaces.clear();
    assert_eq!(order(&planned(&host)), [3, 4]);
}

#[test]
fn an_address_stays_while_its_network_does() {
    let mut host = app();
    let first = planned(&host);
    let vip = web(&first).vip;
    let remembering = Facts {
        vips: first.aliases.vips.memory.clone(),
        ..Facts::default()
    };
    let again = |host: &Host| plan(host, &Config::default(), &remembering);
    for name in ["a", "b"] {
        host.containers.retain(|_, one| one.name != name);
    }
    // One member, and none: Docker says so, and who kept the address is told.
    assert_eq!((web(&again(&host)).vip, order(&again(&host))), (vip, vec![4]));
    assert!(
        again(&host)
            .aliases
            .table
            .entries
            .values()
            .any(|alias| alias.members == 1)
    );
    host.containers.retain(|_, one| one.name != "c");
    let none = again(&host);
    assert_eq!((web(&none).vip, order(&none)), (vip, vec![]));
    assert_eq!(none.aliases.vips.clients.len(), 1);
    assert_eq!(none.aliases.vips.memory, remembering.vips);
    // Where it was never told, one member is nothing to be shared.
    assert!(planned(&host).aliases.reports.is_empty());
    host.networks.retain(|_, network| network.name != "app");
    assert_eq!(again(&host).aliases.vips.memory, VipMemory::default());
}

/// `app` with IPv6: everybody has `fd00::` with the last byte of the IPv4 address.
fn dual_stack() -> Host {
    let mut host = app();
    for one in host.containers.values_mut() {
        let IpAddr::V4(v4) = one.attachments[0].ipv4.expect("it has one").addr else {
            continue;
        };
        let net: IpNet = format!("fd00::{}/64", v4.octets()[3]).parse().expect("a network");
        one.attachments[0].ipv6 = Some(net);
        one.interfaces[0].addresses.push(net);
    }
    host
}

#[test]
fn an_alias_of_a_dual_stack_network_has_an_address_of_each_family() {
    let desired = planned(&dual_stack());
    let report = web(&desired);
    let (vip, of_six) = (report.vip.expect("of IPv4"), report.vip6.expect("of IPv6"));
    assert_eq!((report.mode, &report.why), (AliasMode::Vip, &None));
    assert!(VipPool::DEFAULT6.contains(of_six.into()));
    let vips = &desired.aliases.vips;
    let six = &vips.table.services[&IpAddr::from(of_six)];
    let members: Vec<IpAddr> = six.slots.iter().map(|slot| slot.address.into()).collect();
    let wanted = ["fd00::2", "fd00::3", "fd00::4"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    assert_eq!(members, wanted);
    assert_eq!(six.slots[1].mac, mac(23).0);
    assert_ne!(six.id, service(&desired).id, "each takes turns of its own");
    assert_eq!(desired.aliases.table.services.len(), 2);
    assert_eq!(vips.pools, BTreeSet::from([VipPool::DEFAULT, VipPool::DEFAULT6]));
    // Each answer is the address of its family.
    for record_type in netfast_common::alias::RecordType::ALL {
        let mut entries = desired.aliases.table.entries.iter();
        let told = entries.find(|(key, alias)| key.record_type == record_type as u32 && alias.members == 3);
        let told = IpAddr::from(told.expect("it is known").1.vip);
        assert!(
            report.vips().any(|vip| vip == told) && told.is_ipv4() == (record_type as u32 == 1),
            "{told}"
        );
    }
    for (way, name) in vips.clients.values() {
        let blocks: Vec<bool> = way.blocks.iter().map(IpAddr::is_ipv4).collect();
        assert_eq!(blocks, [true, false], "{name}");
    }
    // Health is the same of both.
    let mut host = dual_stack();
    one(&mut host, "a").health = Health::Unhealthy;
    let desired = planned(&host);
    let slots = &desired.aliases.vips.table.services[&IpAddr::from(of_six)].slots;
    assert_eq!((order(&desired).len(), slots.len()), (2, 2));
    assert_eq!(web(&desired).vip, Some(vip), "the addresses stay");
}

#[test]
fn who_has_no_ipv6_is_a_client_of_the_other_address() {
    let mut host = dual_stack();
    let asks = one(&mut host, "asks");
    asks.attachments[0].ipv6 = None;
    asks.interfaces[0].addresses.retain(|net| net.addr.is_ipv4());
    let desired = planned(&host);
    assert_eq!(desired.aliases.loopbacks.len(), 4);
    let mut ways = desired.aliases.vips.clients.values();
    let (way, _) = ways.find(|(_, name)| name == "asks").expect("it has a way");
    assert!(way.blocks.iter().all(IpAddr::is_ipv4));
}

#[test]
fn a_pool_of_ipv6_that_is_in_use_leaves_the_address_of_ipv4() {
    let mut host = dual_stack();
    host.served_mut().routes.insert(route(2, "fd6e:6574:6661::/48"));
    let desired = planned(&host);
    let conflict = "vip_pool6 = fd6e:6574:6661:7374::/112 overlaps the route to fd6e:6574:6661::/48";
    assert_eq!(desired.aliases.vips.conflicts[&VipPool::DEFAULT6], conflict);
    let report = web(&desired);
    assert_eq!((report.mode, report.vip6), (AliasMode::Vip, None));
    let why = report.why.as_deref();
    assert_eq!(why, Some(&*format!("no virtual address of IPv6: {conflict}")));
    // Then answers of IPv6 have no records: that is what an address of the other family is told for.
    let vip = IpAddr::from(report.vip.expect("of IPv4"));
    let entries = desired
        .aliases
        .table
        .entries
        .values()
        .filter(|alias| alias.members == 3);
    assert!(entries.map(|alias| IpAddr::from(alias.vip)).all(|told| told == vip));
    assert!(
        desired
            .aliases
            .vips
            .clients
            .values()
            .all(|(way, _)| way.blocks.len() == 1)
    );
}

#[test]
fn a_pool_that_is_in_use_gives_no_address() {
    let conflict = |change: &dyn Fn(&mut Host)| {
        let mut host = app();
        change(&mut host);
        let desired = planned(&host);
        let conflict = desired.aliases.vips.conflicts[&VipPool::DEFAULT].clone();
        assert_eq!(why_not(&desired), format!("no virtual address: {conflict}"));
        conflict
    };
    let said = conflict(&|host| {
        host.served_mut().addresses.insert(address(BRIDGE, "198.19.7.1/24"));
    });
    assert_eq!(
        said,
        "vip_pool = 198.19.0.0/16 overlaps the address 198.19.7.1/24 of docker0"
    );
    let said = conflict(&|host| {
        host.served_mut().routes.insert(route(2, "198.18.0.0/15"));
    });
    assert_eq!(said, "vip_pool = 198.19.0.0/16 overlaps the route to 198.18.0.0/15");
    let said = conflict(&|host| {
        let pool = IpamPool {
            subnet: "198.19.3.0/24".parse().ok(),
            ..IpamPool::default()
        };
        host.networks
            .values_mut()
            .find(|network| network.name == "lan")
            .expect("it is there")
            .ipam = vec![pool];
    });
    assert_eq!(
        said,
        "vip_pool = 198.19.0.0/16 overlaps 198.19.3.0/24 of the Docker network lan"
    );
    // Its own route, a default route and the halves of one are none.
    let mut host = app();
    for dst in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "198.20.0.0/16"] {
        host.served_mut().routes.insert(route(2, dst));
    }
    host.served_mut().routes.insert(crate::host::Route {
        kind: RouteType::Prohibit,
        protocol: OUR_PROTOCOL,
        ..route(0, "198.19.0.0/16")
    });
    assert!(web(&planned(&host)).vip.is_some());
}

#[test]
fn what_cannot_be_had_is_rotated_and_the_reason_said() {
    let mut host = app();
    host.networks
        .values_mut()
        .find(|network| network.name == "app")
        .expect("it is there")
        .driver = "macvlan".into();
    assert_eq!(
        why_not(&planned(&host)),
        "no virtual address: the network's driver is macvlan, not bridge"
    );
    let mut host = app();
    label(&mut host, "netfast.enable", "false");
    assert!(why_not(&planned(&host)).contains("netfast.enable"));
    let mut host = app();
    host.served_mut().links.remove(&APP);
    assert!(why_not(&planned(&host)).contains("br-app"));
    let old = Facts {
        vip_off: Some("the kernel has no tcx".into()),
        ..Facts::default()
    };
    assert_eq!(
        why_not(&plan(&app(), &Config::default(), &old)),
        "no virtual address: the kernel has no tcx"
    );
    let mut host = app();
    for one in host.containers.values_mut() {
        one.attachments[0].ipv4 = None;
        one.attachments[0].ipv6 = "fd00::1/64".parse().ok();
    }
    let desired = planned(&host);
    assert_eq!(web(&desired).vip, None);
    assert_eq!(
        web(&desired).vip6.map(|vip| VipPool::DEFAULT6.contains(vip.into())),
        Some(true),
        "IPv6 alone"
    );
}

#[test]
fn what_keeps_packets_slow_for_a_while_does_not_end_connections() {
    let mut host = app();
    host.served_mut().qdiscs.insert(
        APP,
        vec![crate::host::Qdisc {
            kind: "tbf".into(),
            handle: 0,
            parent: 0xffff_ffff,
        }],
    );
    let desired = planned(&host);
    assert!(web(&desired).vip.is_some());
    let device = &desired.devices[&DeviceKey::served(22)];
    assert_eq!(
        device.flags & netfast_common::device::Device::ACCELERATED,
        0,
        "all packets stay slow"
    );
    assert_eq!(desired.aliases.vips.endpoints.len(), 4);
    let network = desired
        .networks
        .iter()
        .find(|network| network.name == "app")
        .expect("it is there");
    assert!(!network.path.is_fast() && network.endpoints.iter().all(|endpoint| !endpoint.path.is_fast()));
}

#[test]
fn who_cannot_reach_an_address_is_not_told_of_it() {
    let mut host = app();
    one(&mut host, "asks")
        .labels
        .insert("netfast.enable".into(), "false".into());
    let own: IpNet = "198.19.200.1/24".parse().expect("a network");
    one(&mut host, "a").interfaces[0].addresses.push(own);
    let desired = planned(&host);
    let told: Vec<&str> = desired.aliases.loopbacks.values().map(String::as_str).collect();
    assert_eq!(told, ["b", "c"]);
    let endpoints = desired.aliases.vips.endpoints.keys();
    assert_eq!(endpoints.map(|device| device.ifindex).collect::<Vec<_>>(), [23, 24]);
    assert_eq!(order(&desired), [2, 3, 4], "to be given it needs no way");
    assert!(matches!(host.served().links[&APP].kind, LinkKind::Bridge(_)));
}
