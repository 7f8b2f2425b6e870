//! Start, restart, kill, detach.

use std::{fs, time::Duration};

use aya::programs::links::{FdLink, PinnedLink};
use netfast_tests::{
    netfast_proc::{NetfastProc, Options},
    require::{Need, needs},
    topo,
};
use nix::sys::signal::Signal;

use super::{Marks, fast_endpoints, heard, names, names_below, programs, start, state, wait_for};

const NEEDS: [Need; 3] = [Need::Root, Need::Kernel(6, 6), Need::Program("bpftool")];
/// A change is picked up within this time. What is promised is a second; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn attaches_to_endpoints_bridges_and_uplinks_and_leaves_the_host_as_found() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let before = Marks::of(topo.host());
    let netfast = start(topo.host());
    assert_eq!(
        programs(topo.host()),
        [
            "br-0 in netfast_br_in",
            "br-0 out netfast_br_out",
            "eth0 in netfast_up_in",
            "eth0 out netfast_up_out",
            "veth0x0 in netfast_ep_in",
            "veth0x0 out netfast_ep_out",
            "veth0x1 in netfast_ep_in",
            "veth0x1 out netfast_ep_out",
        ]
    );
    assert_eq!(fast_endpoints(&state(&netfast)), names(&["veth0x0", "veth0x1"]));
    assert_eq!(
        Marks::of(topo.host()).be_liberal,
        before.be_liberal,
        "the host's own choice"
    );

    // It stops the daemon by itself, and can be done again.
    let said = netfast.verb(&["detach"]).expect("detach");
    assert!(
        said.contains("Stopped the daemon") && said.contains("Removed 8 links"),
        "{said}"
    );
    assert_eq!(Marks::of(topo.host()), before);
    assert!(!netfast.pin_dir().exists());
    let left = names_below(netfast.run_dir());
    assert!(left.iter().all(|name| name.ends_with("netfast.log")), "{left:?}");
    let said = netfast.verb(&["detach"]).expect("detach again");
    assert_eq!(said, "Nothing of netfast is attached.");
}

#[test]
fn killed_it_stays_attached_and_the_next_one_takes_over() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let before = Marks::of(topo.host());
    let mut netfast = start(topo.host());
    let (attached, found) = (programs(topo.host()), state(&netfast));
    let netfast_pins = netfast.abi_dir().join("links");
    let ids = || -> Vec<u32> {
        let pins = names_below(&netfast_pins);
        let id = |pin: &String| {
            PinnedLink::from_pin(pin)
                .map(FdLink::from)
                .expect("a link")
                .info()
                .expect("its number")
                .id()
        };
        pins.iter().map(id).collect()
    };
    netfast.stop(Signal::SIGKILL).expect("killed");
    assert_eq!(programs(topo.host()), attached);
    let old = ids();
    assert_eq!(old.len(), 8);

    netfast.launch().expect("the next one starts");
    assert_eq!(programs(topo.host()), attached);
    // The same links with new programs in them: there was no moment without.
    assert_eq!(ids(), old);
    let now = state(&netfast);
    assert_eq!(now["devices"], found["devices"]);

    let ended = netfast.stop(Signal::SIGTERM).expect("stopped");
    assert!(ended.success(), "{ended}");
    assert_eq!(programs(topo.host()), attached);
    netfast.detach().expect("detach without a daemon");
    assert_eq!(Marks::of(topo.host()), before);
}

#[test]
fn another_flow_table_size_replaces_the_table_only() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let options = Options {
        config: Some("flows = 4096\n".into()),
        ..Options::no_runtime()
    };
    let mut netfast = NetfastProc::start(topo.host(), options).expect("netfast starts");
    let attached = programs(topo.host());
    netfast.stop(Signal::SIGKILL).expect("killed");
    fs::write(netfast.run_dir().join("netfast.toml"), "flows = 8192\n").expect("another configuration");
    netfast.launch().expect("the next one starts");
    assert!(
        netfast.log().contains("netfast_flows4 has another form or size"),
        "{}",
        netfast.log()
    );
    assert_eq!(programs(topo.host()), attached);
    let info = netfast.abi_dir().join("maps/netfast_flows4");
    let info = topo
        .host()
        .sh(&format!("bpftool map show pinned {}", info.display()))
        .expect("bpftool");
    assert!(info.contains("max_entries 8192"), "{info}");
}

#[test]
fn foreign_programs_pins_and_sysctls_stay() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    // clsact with a filter on the uplink's egress, which our redirects pass.
    host.sh("tc qdisc add dev eth0 clsact").expect("clsact");
    host.sh("tc filter add dev eth0 egress prio 7 bpf da bytecode '1,6 0 0 4294967295,'")
        .expect("a filter");
    let filters = || host.sh("tc filter show dev eth0 egress").expect("tc");
    host.set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1")
        .expect("the administrator's own choice");
    let before = (Marks::of(host), filters());
    let mut netfast = start(host);
    assert!(programs(host).iter().any(|program| program == "eth0 in netfast_up_in"));
    // Somebody else pins something in our directory.
    let foreign = netfast.abi_dir().join("links/somebody");
    let map = netfast.abi_dir().join("maps/netfast_control");
    let pin = format!("bpftool map pin pinned {} {}", map.display(), foreign.display());
    host.sh(&pin).expect("a foreign pin");
    netfast.stop(Signal::SIGTERM).expect("stopped");
    netfast.detach().expect("detach");
    assert!(foreign.exists(), "a pin that is not ours stays");
    assert_eq!((Marks::of(host), filters()), before);
    fs::remove_file(foreign).expect("our test's own pin");
}

#[test]
fn a_filter_that_a_redirect_would_skip_keeps_its_container_slow() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    let netfast = start(host);
    host.sh("tc qdisc add dev veth0x0 clsact").expect("clsact");
    host.sh("tc filter add dev veth0x0 ingress bpf da bytecode '1,6 0 0 4294967295,'")
        .expect("a filter");
    let state = wait_for(&netfast, "the filter is seen", SOON, |state| {
        fast_endpoints(state) == names(&["veth0x1"])
    });
    let endpoint = &state["networks"][0]["endpoints"][0];
    assert_eq!(endpoint["path"]["slow"]["why"], "foreign-programs", "{state:#}");
    assert!(!programs(host).iter().any(|program| program.starts_with("veth0x0 ")));

    host.sh("tc qdisc del dev veth0x0 clsact").expect("clsact");
    wait_for(&netfast, "it is gone", SOON, |state| {
        fast_endpoints(state) == names(&["veth0x0", "veth0x1"])
    });
}

#[test]
fn containers_that_come_and_go_are_picked_up_within_a_second_and_leave_others_alone() {
    if !needs(&NEEDS) {
        return;
    }
    let mut topo = heard(&topo::Options::default());
    let netfast = start(topo.host());
    let generation = |slot: u16| {
        let tables = netfast::apply::read::Tables::open(netfast.pin_dir()).expect("tables");
        tables.generation(slot).expect("a generation")
    };
    let slot_of = |state: &serde_json::Value, veth: &str| -> u16 {
        let devices = state["devices"].as_object().expect("devices");
        let device = devices
            .values()
            .find(|device| device["name"] == veth)
            .expect("a device");
        u16::try_from(device["slot"].as_u64().expect("a slot")).expect("16 bits")
    };
    let first = slot_of(&state(&netfast), "veth0x0");
    let before = generation(first);

    let gateway = topo.bridges[0].gateway;
    let new = topo.add_container(0).expect("one more");
    new.ns
        .sh(&format!("busybox ping -c1 -W2 {gateway}"))
        .expect("it is heard from");
    let three = names(&["veth0x0", "veth0x1", "veth0x2"]);
    let state = wait_for(&netfast, "it is attached to", SOON, |state| {
        fast_endpoints(state) == three
    });
    let slot = slot_of(&state, "veth0x2");
    let appeared = generation(slot);
    // Let what follows from it (neighbour and FDB entries) settle, so that only the going is seen.
    std::thread::sleep(Duration::from_millis(300));

    let gone = topo.bridges[0].containers.pop().expect("the new one");
    drop(gone);
    let two = names(&["veth0x0", "veth0x1"]);
    wait_for(&netfast, "it is gone", SOON, |state| fast_endpoints(state) == two);
    assert!(generation(slot) > appeared, "its flows are misses");
    assert_eq!(generation(first), before, "flows of others are not\n{}", netfast.log());
    let links = names_below(&netfast.abi_dir().join("links"));
    assert_eq!(links.len(), 8, "{links:?}");
}

#[test]
fn two_instances_in_two_namespaces_do_not_touch_each_other() {
    if !needs(&NEEDS) {
        return;
    }
    let (one, two) = (heard(&topo::Options::default()), heard(&topo::Options::default()));
    let first = start(one.host());
    let second = start(two.host());
    let attached = programs(two.host());
    assert_eq!(programs(one.host()), attached);
    first.detach().expect("detach");
    assert_eq!(programs(one.host()), Vec::<String>::new());
    assert_eq!(programs(two.host()), attached);

    // With the directories of the other it refuses, and the other goes on.
    let (pins, run) = (second.pin_dir().display(), second.run_dir().display());
    let program = netfast_tests::programs::netfast().expect("the binary");
    let detach = format!("{} detach --pin-dir {pins} --run-dir {run}", program.display());
    let error = one.host().sh(&detach).expect_err("another namespace's pins");
    assert!(format!("{error:#}").contains("another network namespace"), "{error:#}");
    assert_eq!(programs(two.host()), attached);
}

#[test]
fn rules_and_routes_make_a_new_epoch_and_reading_does_not() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let netfast = start(topo.host());
    let epoch = || {
        let tables = netfast::apply::read::Tables::open(netfast.pin_dir()).expect("tables");
        tables.control().expect("the switches").epoch
    };
    std::thread::sleep(Duration::from_millis(500));
    let before = epoch();
    topo.host()
        .sh("iptables -S; ip route; ip neigh; nft list ruleset")
        .expect("reading");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(epoch(), before, "{}", netfast.log());
    for change in [
        "iptables -I DOCKER-USER -p tcp --dport 9 -j DROP",
        "ip route add 203.0.113.0/24 dev eth0",
        "ip rule add from 203.0.113.7 lookup main",
        "ip addr add 198.51.100.1/32 dev eth0",
        "ip link set br-0 type bridge nf_call_iptables 1",
    ] {
        let before = epoch();
        topo.host().sh(change).expect("a change");
        netfast_tests::cmd::poll(change, Duration::from_millis(250), || (epoch() != before).then_some(()))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", netfast.log()));
        std::thread::sleep(Duration::from_millis(300));
    }
}
