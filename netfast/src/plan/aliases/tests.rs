use netfast_common::alias::{address4, digest, part};

use super::{table::wire, *};
use crate::{
    config::Runtime,
    host::{ContainerId, IpNet, NetworkId},
};

fn network(name: &str) -> Network {
    Network {
        id: NetworkId(format!("id-of-{name}")),
        name: name.into(),
        driver: "bridge".into(),
        ..Network::default()
    }
}

/// A container with a place on each of these networks: its name, the address there, the aliases there.
fn container(name: &str, on: &[(&str, &str, &[&str])]) -> Container {
    Container {
        id: ContainerId(format!("{name:0>12}{:0>52}", "")),
        name: name.into(),
        pid: 100 + name.bytes().map(u32::from).sum::<u32>(),
        network_mode: NetworkMode::Network(on[0].0.into()),
        netns: Some(NetnsId {
            dev: 4,
            ino: name.bytes().map(u64::from).sum(),
        }),
        attachments: on
            .iter()
            .map(|(network, address, aliases)| {
                let net: IpNet = address.parse().expect("an address");
                Attachment {
                    network: NetworkId(format!("id-of-{network}")),
                    network_name: (*network).into(),
                    ipv4: net.addr.is_ipv4().then_some(net),
                    ipv6: net.addr.is_ipv6().then_some(net),
                    aliases: aliases.iter().map(ToString::to_string).collect(),
                    ..Attachment::default()
                }
            })
            .collect(),
        ..Container::default()
    }
}

fn host_of(networks: Vec<Network>, containers: Vec<Container>) -> Host {
    Host {
        networks: networks
            .into_iter()
            .map(|network| (network.id.clone(), network))
            .collect(),
        containers: containers.into_iter().map(|one| (one.id.clone(), one)).collect(),
        ..Host::default()
    }
}

/// Two members of `web`, and one who asks.
fn shop() -> Host {
    host_of(
        vec![network("shop")],
        vec![
            container("a", &[("shop", "172.18.0.3/16", &["web"])]),
            container("b", &[("shop", "172.18.0.2/16", &["WEB"])]),
            container("c", &[("shop", "172.18.0.9/16", &["asks"])]),
        ],
    )
}

fn planned(host: &Host) -> Aliases {
    with(host, &Config::default(), &Facts::default())
}

fn with(host: &Host, config: &Config, facts: &Facts) -> Aliases {
    let index = Index::of(host, host.served());
    aliases(host, &index, config, facts, &[], &BTreeMap::new())
}

fn key(name: &str, addresses: &[[u8; 4]]) -> AliasKey {
    let sum = addresses
        .iter()
        .fold(0, |sum: u64, ip| sum.wrapping_add(part(address4(*ip))));
    AliasKey {
        digest: if addresses.is_empty() { 0 } else { digest(sum) },
        record_type: 1,
        reserved: 0,
        name: wire(name).expect("a name"),
    }
}

/// The name, the network, the mode and the members of every alias.
fn lines(aliases: &Aliases) -> Vec<String> {
    let line = |report: &AliasReport| {
        let members = report.members.iter().map(|member| {
            let mark = if member.eligible { "" } else { "!" };
            format!("{mark}{}", member.container)
        });
        let members: Vec<_> = members.collect();
        format!(
            "{}@{} {} {}",
            report.alias,
            report.network,
            report.mode.name(),
            members.join(" ")
        )
    };
    aliases.reports.iter().map(line).collect()
}

#[test]
fn a_name_that_two_share_is_an_alias() {
    let plan = planned(&shop());
    assert_eq!(lines(&plan), ["web@shop rr a b"]);
    let members = [[172, 18, 0, 2], [172, 18, 0, 3]];
    for name in ["web", "web.shop"] {
        let alias = plan.table.entries[&key(name, &members)];
        assert_eq!((alias.members, alias.eligible, alias.ttl), (2, 0b11, 0), "{name}");
        assert_eq!(plan.table.entries[&key(name, &[])], Alias::default(), "{name} is known");
    }
    assert_eq!(plan.table.entries.len(), 4);
    assert_eq!((plan.table.members.len(), plan.table.cursors().len()), (2, 1));
    // All three may ask.
    assert_eq!(plan.loopbacks.values().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn one_member_is_no_alias_and_needs_no_program() {
    let mut host = shop();
    host.containers.retain(|_, container| container.name != "b");
    assert_eq!(planned(&host), Aliases::default());
}

#[test]
fn who_is_unhealthy_or_paused_is_not_given() {
    let health = |health, state| {
        let mut host = shop();
        let b = host
            .containers
            .values_mut()
            .find(|one| one.name == "b")
            .expect("it is there");
        (b.health, b.state) = (health, state);
        let plan = planned(&host);
        plan.table.entries[&key("web", &[[172, 18, 0, 2], [172, 18, 0, 3]])].eligible
    };
    let running = ContainerState::Running;
    assert_eq!(health(Health::None, running), 0b11);
    assert_eq!(health(Health::Starting, running), 0b11);
    assert_eq!(health(Health::Healthy, running), 0b11);
    // b has the lower address.
    assert_eq!(health(Health::Unhealthy, running), 0b10);
    assert_eq!(health(Health::Healthy, ContainerState::Paused), 0b10);
}

#[test]
fn names_and_short_identifiers_count_with_aliases() {
    let mut host = shop();
    let c = host
        .containers
        .values_mut()
        .find(|one| one.name == "c")
        .expect("it is there");
    c.name = "Web".into();
    assert_eq!(lines(&planned(&host)), ["web@shop rr Web a b"]);
    let other = container("d", &[("shop", "172.18.0.4/16", &["00000000000a"])]);
    host.containers.insert(other.id.clone(), other);
    assert_eq!(
        lines(&planned(&host)),
        ["00000000000a@shop rr a d", "web@shop rr Web a b"]
    );
}

#[test]
fn networks_are_told_apart_by_their_addresses() {
    let two = |second: &str| {
        host_of(
            vec![network("shop"), network("mall")],
            vec![
                container(
                    "a",
                    &[("shop", "10.1.0.2/16", &["web"]), ("mall", "10.2.0.2/16", &["web"])],
                ),
                container("b", &[("shop", "10.1.0.3/16", &["web"]), ("mall", second, &["web"])]),
            ],
        )
    };
    let plan = planned(&two("10.2.0.3/16"));
    assert_eq!(lines(&plan), ["web@mall rr a b", "web@shop rr a b"]);
    let (shop, mall) = (
        key("web", &[[10, 1, 0, 2], [10, 1, 0, 3]]),
        key("web", &[[10, 2, 0, 2], [10, 2, 0, 3]]),
    );
    assert_ne!(plan.table.entries[&shop].id, plan.table.entries[&mall].id);
    // Networks of the same addresses, as plug-ins may make them: only with the network's name it is clear.
    let mut same = two("10.2.0.3/16");
    for container in same.containers.values_mut() {
        container.attachments[1].ipv4 = container.attachments[0].ipv4;
    }
    let plan = planned(&same);
    assert!(!plan.table.entries.contains_key(&shop));
    let named = |name| key(name, &[[10, 1, 0, 2], [10, 1, 0, 3]]);
    assert!(plan.table.entries.contains_key(&named("web.shop")) && plan.table.entries.contains_key(&named("web.mall")));
}

#[test]
fn both_families_take_turns_of_their_own() {
    let mut host = shop();
    for (last, container) in host.containers.values_mut().enumerate() {
        container.attachments[0].ipv6 = format!("fd00::{}/64", last + 1).parse().ok();
    }
    let plan = planned(&host);
    assert_eq!(
        (
            plan.table.cursors().len(),
            plan.table.members.len(),
            plan.table.entries.len()
        ),
        (2, 4, 8)
    );
    assert!(
        plan.reports[0]
            .members
            .iter()
            .all(|member| member.counted_by.len() == 2)
    );
}

/// Clients sort addresses of IPv6, so an answer with all of them would lead each client to the same member for ever.
#[test]
fn answers_of_ipv6_name_one_member_where_those_of_ipv4_name_all() {
    let with_ipv6 = |keep: &dyn Fn(&mut Attachment)| {
        let mut host = shop();
        for (last, container) in host.containers.values_mut().enumerate() {
            let on = &mut container.attachments[0];
            on.ipv6 = format!("fd00::{}/64", last + 1).parse().ok();
            keep(on);
        }
        let plan = planned(&host);
        let flags_of = |record_type| {
            let mut entries = plan.table.entries.iter();
            let found = entries.find(|(key, _)| key.record_type == record_type as u32 && key.digest != 0);
            found.map(|(_, alias)| alias.flags)
        };
        assert_eq!(plan.reports[0].one6, flags_of(RecordType::Aaaa) == Some(Alias::ONE));
        (flags_of(RecordType::A), flags_of(RecordType::Aaaa))
    };
    assert_eq!(with_ipv6(&|_| ()), (Some(0), Some(Alias::ONE)));
    assert_eq!(
        with_ipv6(&|on| on.ipv4 = None),
        (None, Some(0)),
        "nobody else would name the others"
    );
    assert_eq!(with_ipv6(&|on| on.ipv6 = None), (Some(0), None));
}

#[test]
fn what_is_switched_off_stays_as_it_is() {
    let off = Config {
        alias_mode: AliasMode::Off,
        ..Config::default()
    };
    let plan = with(&shop(), &off, &Facts::default());
    assert_eq!(lines(&plan), ["web@shop off a b"]);
    assert!(plan.loopbacks.is_empty() && plan.table == AliasTable::default());

    let facts = Facts {
        aliases_off: Some("no tcx".into()),
        ..Facts::default()
    };
    let plan = with(&shop(), &Config::default(), &facts);
    assert_eq!(plan.reports[0].why.as_deref(), Some("no tcx"));
    assert!(plan.loopbacks.is_empty());

    let mut host = shop();
    let network = host.networks.values_mut().next().expect("one");
    network.labels.insert(LABEL.into(), "off".into());
    assert_eq!(lines(&planned(&host)), ["web@shop off a b"]);

    let mut host = shop();
    let asks = host
        .containers
        .values_mut()
        .find(|one| one.name == "c")
        .expect("it is there");
    asks.labels.insert(LABEL.into(), "Off".into());
    let plan = planned(&host);
    assert_eq!(lines(&plan), ["web@shop rr a b"]);
    assert_eq!(plan.loopbacks.values().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn docker_s_default_bridge_and_the_host_s_network_have_no_resolver() {
    let bridge = |name: &str| {
        let containers = ["a", "b"].map(|one| container(one, &[(name, "172.17.0.2/16", &["web"])]));
        lines(&planned(&host_of(vec![network(name)], containers.into())))
    };
    assert!(bridge("bridge").is_empty());
    assert_eq!(bridge("other"), ["web@other rr a b"]);
    let config = Config {
        runtime: Runtime::None,
        ..Config::default()
    };
    assert_eq!(with(&Host::default(), &config, &Facts::default()), Aliases::default());
}

/// As podman's: the answers come over the veth, in an order of the resolver's own.
#[test]
fn where_the_resolver_is_at_the_gateway_no_turns_are_taken_and_that_is_said() {
    let mut host = shop();
    for mode in [AliasMode::Rr, AliasMode::Vip] {
        let network = host.networks.values_mut().next().expect("shop");
        network.resolved_at_gateway = true;
        network.labels.insert(LABEL.into(), mode.name().into());
        let config = Config::default();
        let plan = with(&host, &config, &Facts::default());
        assert_eq!(plan.table, AliasTable::default());
        assert!(plan.loopbacks.is_empty() && plan.vips.table.services.is_empty());
        assert!(networks_with_vips(&host, &Index::of(&host, host.served()), &config).is_empty());
        let [report] = &plan.reports[..] else {
            panic!("one alias: {:?}", plan.reports);
        };
        assert_eq!(
            (report.mode, report.vip, report.members.len()),
            (AliasMode::Off, None, 2)
        );
        assert_eq!(report.why.as_deref(), Some(AT_GATEWAY));
    }
}

#[test]
fn what_does_not_fit_is_left_out_with_the_reason() {
    let long = "x".repeat(63);
    let mut host = shop();
    for container in host.containers.values_mut() {
        container.attachments[0].aliases = vec![long.clone(), format!("{long}y"), format!("{long}.{long}")];
    }
    let plan = planned(&host);
    let modes: Vec<_> = plan.reports.iter().map(|report| report.mode.name()).collect();
    assert_eq!(modes, ["rr", "off", "off"]);

    let many = (0..65).map(|last| {
        let address = format!("172.18.1.{last}/16");
        container(&format!("m{last}"), &[("shop", address.as_str(), &["web"])])
    });
    let plan = planned(&host_of(vec![network("shop")], many.collect()));
    assert_eq!(plan.reports[0].why.as_deref(), Some("it has more than 64 members"));
    assert!(plan.table.entries.is_empty() && plan.loopbacks.is_empty());
}

#[test]
fn names_are_written_as_on_the_wire() {
    assert_eq!(&wire("web.my_net").expect("it fits")[..12], b"\x03web\x06my_net\0");
    for name in ["", "a..b", ".a", "a."] {
        assert_eq!(wire(name), None, "{name:?}");
    }
    let longest = format!("{}.{}", "a".repeat(63), "b".repeat(30));
    assert!(wire(&longest).is_some() && wire(&format!("{longest}b")).is_none());
}
