//! Which published ports are led past docker-proxy, and why others are not.

use std::net::SocketAddr;

use super::{rules::judge, *};
use crate::{
    host::{
        Attachment, BaseChain, ContainerId, Effect, Field, HostRules, LinkKind, Match, NftChain, PolicyRules, Qdisc,
        Rule,
    },
    plan::tests::build::{self, net},
};

const OUTPUT: u32 = 3;
const INPUT: u32 = 1;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn proxy() -> Proxy {
    Proxy {
        pid: 7,
        inode: 70,
        protocol: Protocol::Tcp,
        listens: at("0.0.0.0:8080"),
        target: at("172.17.0.2:80"),
    }
}

fn is(field: Field) -> Match {
    Match { field, negated: false }
}

fn not(field: Field) -> Match {
    Match { field, negated: true }
}

fn rule(matches: Vec<Match>, effect: Effect) -> Rule {
    Rule {
        matches,
        effect,
        number: 1,
    }
}

fn drop_it() -> Effect {
    Effect::Acts("drop".into())
}

fn iif(name: &str) -> Field {
    Field::Incoming {
        name: name.into(),
        is_prefix: false,
    }
}

fn oif(name: &str) -> Field {
    Field::Outgoing {
        name: name.into(),
        is_prefix: false,
    }
}

/// These rules in a chain of the hook, and more chains by name.
fn rules(hook: u32, is_nat: bool, drops: bool, base: Vec<Rule>, more: Vec<(&str, Vec<Rule>)>) -> HostRules {
    let name = |chain: &str| ("ip".to_owned(), "filter".to_owned(), chain.to_owned());
    HostRules {
        bases: vec![BaseChain {
            name: name("BASE"),
            hook,
            is_nat,
            drops,
        }],
        chains: more
            .into_iter()
            .map(|(chain, rules)| (name(chain), rules))
            .chain([(name("BASE"), base)])
            .collect(),
    }
}

/// Whether the port is led past docker-proxy under these rules of a hook.
fn passes(hook: u32, base: Vec<Rule>) -> bool {
    judge(&rules(hook, false, false, base, vec![]), &proxy()).is_none()
}

#[test]
fn rules_that_do_not_concern_it_are_none() {
    for hook in [0, INPUT, OUTPUT, 4] {
        assert!(passes(hook, vec![]));
        assert!(!passes(hook, vec![rule(vec![], drop_it())]), "{hook}");
        for matches in [
            vec![is(Field::Protocol(17))],
            vec![not(Field::Protocol(6))],
            vec![is(Field::DestinationPort(22, 22)), is(Field::SourcePort(22, 22))],
            vec![is(Field::Source(net("10.0.0.0/8")))],
            vec![not(Field::Destination(net("127.0.0.0/8")))],
            vec![is(Field::IsV4(false))],
            vec![is(iif("eth0"))],
        ] {
            assert!(
                passes(hook, vec![rule(matches.clone(), drop_it())]),
                "{hook} {matches:?}"
            );
        }
        for matches in [
            vec![is(Field::Other("-m string".into()))],
            vec![not(Field::Other("-m string".into()))],
            vec![is(Field::DestinationPort(8000, 8999))],
            vec![is(Field::SourcePort(8080, 8080))],
            vec![is(Field::Destination(net("127.0.0.1/32")))],
            vec![not(Field::Destination(net("127.0.0.1/32")))],
            vec![is(Field::Source(net("0.0.0.0/0")))],
        ] {
            assert!(
                !passes(hook, vec![rule(matches.clone(), drop_it())]),
                "{hook} {matches:?}"
            );
        }
    }
    assert!(!passes(INPUT, vec![rule(vec![is(iif("lo"))], drop_it())]));
    assert!(passes(INPUT, vec![rule(vec![not(iif("lo"))], drop_it())]));
    assert!(!passes(OUTPUT, vec![rule(vec![is(oif("lo"))], drop_it())]));
    assert!(
        !passes(OUTPUT, vec![rule(vec![not(iif("lo"))], drop_it())]),
        "iptables: none is not lo"
    );
    let wild = |name: &str| Field::Outgoing {
        name: name.into(),
        is_prefix: true,
    };
    assert!(!passes(OUTPUT, vec![rule(vec![is(wild("l"))], drop_it())]));
    assert!(passes(OUTPUT, vec![rule(vec![is(wild("br-"))], drop_it())]));
}

#[test]
fn what_is_accepted_for_certain_meets_nothing_further_down() {
    let drops = || rule(vec![], drop_it());
    let accept = |matches| rule(matches, Effect::Accept);
    assert!(passes(INPUT, vec![accept(vec![is(iif("lo"))]), drops()]));
    assert!(!passes(
        INPUT,
        vec![accept(vec![is(Field::Other("state".into()))]), drops()]
    ));
    assert!(!passes(INPUT, vec![rule(vec![], Effect::None), drops()]));
    let with = |drops: bool, first: Effect, more: Vec<(&str, Vec<Rule>)>| {
        let rules = rules(INPUT, false, drops, vec![rule(vec![], first)], more);
        judge(&rules, &proxy()).is_none()
    };
    assert!(!with(true, Effect::None, vec![]), "the policy");
    assert!(with(true, Effect::Accept, vec![]));
    let chain = |rules| vec![("CHAIN", rules)];
    assert!(with(true, Effect::Jump("CHAIN".into()), chain(vec![accept(vec![])])));
    assert!(!with(
        true,
        Effect::Jump("CHAIN".into()),
        chain(vec![rule(vec![], Effect::Return), accept(vec![])])
    ));
    assert!(!with(false, Effect::Jump("CHAIN".into()), chain(vec![drops()])));
    assert!(!with(false, Effect::Goto("CHAIN".into()), chain(vec![drops()])));
    assert!(!with(
        false,
        Effect::Jump("CHAIN".into()),
        chain(vec![rule(vec![], Effect::Jump("CHAIN".into()))])
    ));
}

#[test]
fn who_may_have_left_a_chain_has_not_been_accepted_by_it() {
    let maybe = || vec![is(Field::Other("state".into()))];
    let all = |effect| rule(vec![], effect);
    let jump = || all(Effect::Jump("CHAIN".into()));
    let passes = |base: Vec<Rule>, chain: Vec<Rule>, drops| {
        judge(
            &rules(INPUT, false, drops, base, vec![("CHAIN", chain), ("OTHER", vec![])]),
            &proxy(),
        )
        .is_none()
    };
    let accept = || all(Effect::Accept);
    assert!(passes(vec![jump(), all(drop_it())], vec![accept()], false));
    assert!(!passes(
        vec![jump(), all(drop_it())],
        vec![rule(maybe(), Effect::Return), accept()],
        false
    ));
    assert!(!passes(
        vec![jump(), all(drop_it())],
        vec![rule(maybe(), Effect::Goto("OTHER".into())), accept()],
        false
    ));
    assert!(passes(
        vec![jump(), all(drop_it())],
        vec![rule(maybe(), Effect::Accept), accept()],
        false
    ));
    // In the hook's own chain the policy decides, which in legacy tables is the last rule.
    assert!(!passes(vec![rule(maybe(), Effect::Return), accept()], vec![], true));
    assert!(!passes(vec![all(Effect::Return), accept()], vec![], true));
    assert!(!passes(
        vec![rule(maybe(), Effect::Return), accept(), all(drop_it())],
        vec![],
        false
    ));
    assert!(!passes(vec![all(Effect::Goto("CHAIN".into())), accept()], vec![], true));
    assert!(passes(vec![rule(maybe(), Effect::Return), accept()], vec![], false));
}

#[test]
fn nat_is_asked_about_the_first_packet_where_it_is_sent() {
    let nat = |hook, field| {
        let redirect = rule(vec![is(field)], Effect::Acts("REDIRECT".into()));
        judge(&rules(hook, true, false, vec![redirect], vec![]), &proxy()).is_none()
    };
    let port = || Field::DestinationPort(8080, 8080);
    assert!(!nat(OUTPUT, port()) && !nat(4, port()));
    assert!(nat(0, port()) && nat(INPUT, port()));
    assert!(
        !nat(OUTPUT, Field::SourcePort(8080, 8080)),
        "the request's own port may be any"
    );
    assert!(nat(2, port()), "forwarded packets are none of it");
}

#[test]
fn who_sends_must_not_matter_on_the_way_to_the_container() {
    let sender = || is(Field::Sender("owner".into()));
    let to = |matches: Vec<Match>, effect| passes(OUTPUT, vec![rule(matches, effect)]);
    let container = || is(Field::Destination(net("172.17.0.2/32")));
    assert!(!to(vec![sender(), container()], drop_it()));
    assert!(
        !to(vec![sender(), container()], Effect::Accept),
        "others are not accepted by it"
    );
    assert!(to(
        vec![sender(), is(Field::Destination(net("172.17.0.3/32")))],
        drop_it()
    ));
    assert!(to(vec![container()], drop_it()), "docker-proxy's would be dropped, too");
    assert!(to(vec![sender(), container()], Effect::None), "it counts");
}

/// A host with a container `web` that has the port published; `edit` changes it and what was seen.
fn planned(edit: impl FnOnce(&mut Host, &mut host::Localhost, &mut Config)) -> Localhost {
    let mut host = build::docker_host();
    host.containers.clear();
    host.served_mut().ruleset.nft_chains.clear();
    host.served_mut().policy_rules = PolicyRules { v4: 3, v6: 2, hash: 0 };
    let container = Container {
        id: ContainerId("web".into()),
        name: "web".into(),
        attachments: vec![Attachment {
            ipv4: Some(net("172.17.0.2/16")),
            ..Attachment::default()
        }],
        ports: vec![PublishedPort {
            protocol: Protocol::Tcp,
            host_ip: at("0.0.0.0:1").ip(),
            host_port: 8080,
            container_port: 80,
        }],
        ..Container::default()
    };
    host.containers.insert(container.id.clone(), container);
    let mut seen = host::Localhost {
        proxies: vec![proxy()],
        ..host::Localhost::default()
    };
    let mut config = Config {
        localhost: true,
        ..Config::default()
    };
    edit(&mut host, &mut seen, &mut config);
    let facts = Facts {
        localhost: Some(Box::new(seen)),
        ..Facts::default()
    };
    plan(&host, &config, &facts)
}

fn web(host: &mut Host) -> &mut Container {
    host.containers.values_mut().next().expect("web")
}

#[test]
fn a_published_port_of_docker_proxy_is_led_and_nothing_else() {
    let led = planned(|_, _, _| ());
    assert_eq!((led.is_on, led.led.len()), (true, 1), "{led:?}");
    assert_eq!(led.reports[0].target, "172.17.0.2:80");
    let why = |edit: fn(&mut Host, &mut host::Localhost, &mut Config)| {
        let plan = planned(edit);
        assert!(plan.led.is_empty(), "{plan:?}");
        plan.reports[0].why.clone().expect("a reason")
    };
    let no_proxy = "no docker-proxy listens for it";
    assert_eq!(why(|_, seen, _| seen.proxies.clear()), no_proxy);
    assert_eq!(
        why(|_, seen, _| seen.proxies[0].target = at("172.17.0.9:80")),
        no_proxy,
        "not its address"
    );
    assert_eq!(
        why(|_, seen, _| seen.proxies[0].target = at("172.17.0.2:81")),
        no_proxy,
        "not its port"
    );
    assert_eq!(
        why(|_, seen, _| seen.proxies[0].listens = at("127.0.0.1:8080")),
        no_proxy
    );
    assert_eq!(why(|_, seen, _| seen.proxies[0].protocol = Protocol::Udp), no_proxy);
    assert!(why(|host, _, _| web(host).ports[0].host_ip = at("192.0.2.1:1").ip()).contains("192.0.2.1 only"));
    assert!(why(|host, _, _| web(host).ports[0].protocol = Protocol::Sctp).contains("SCTP"));
    assert!(
        why(|host, _, _| drop(web(host).labels.insert("netfast.enable".into(), "false".into())))
            .contains("switched off")
    );
    assert!(why(|_, seen, _| seen.rules = Err("EPERM".into())).contains("EPERM"));
    assert!(why(|_, seen, _| seen.on_loopback = Some("watch".into())).contains("the program watch"));
    assert!(why(|host, _, _| host.served_mut().policy_rules.v4 = 4).contains("ip rule"));
    assert!(why(|host, _, _| host.served_mut().ruleset.unreadable = Some("x".into())).contains("could not be read"));
    assert!(why(|host, _, _| host.served_mut().netfilter_programs = [3].into()).contains("link 3"));
    let off = planned(|_, seen, _| seen.off = Some("cgroup version 2 is not mounted here".into()));
    assert!(!off.is_on && off.led.is_empty() && off.off.is_some());
    let unasked = planned(|_, _, config| config.localhost = false);
    assert_eq!(unasked, Localhost::default());
}

#[test]
fn chains_of_devices_and_queues_on_the_loopback_interface_judge() {
    let chain = |family: &str, hook, device: Option<&str>| {
        let chain = NftChain {
            device: device.map(Into::into),
            ..build::chain(family, hook, None)
        };
        planned(|host, _, _| host.served_mut().ruleset.nft_chains = [chain].into())
            .led
            .is_empty()
    };
    assert!(chain("netdev", 0, Some("lo")) && chain("netdev", 1, None) && chain("inet", INET_INGRESS, Some("lo")));
    assert!(!chain("netdev", 0, Some("eth0")) && !chain("bridge", 1, None));
    let shaped = planned(|host, _, _| {
        let netns = host.served_mut();
        netns.links.insert(1, build::link(1, "lo", LinkKind::Loopback));
        let qdisc = Qdisc {
            kind: "netem".into(),
            handle: 0,
            parent: u32::MAX,
        };
        netns.qdiscs.insert(1, vec![qdisc]);
    });
    assert!(shaped.led.is_empty(), "{shaped:?}");
    assert!(shaped.reports[0].why.as_ref().is_some_and(|why| why.contains("netem")));
}
