//! What users see of a real Docker host: `status`, `networks`, `flows` and `check` beside what Docker tells.

use std::{thread, time::Duration};

use netfast::config::DEFAULT_METRICS;
use netfast_tests::{
    cmd::{self, Background},
    docker_host::{self, DockerHost},
    netfast_proc::{NetfastProc, Options},
    netns::NsHandle,
    programs,
    require::{Need, needs},
    site::HOST_IP,
    topo::{self, Topo},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::metrics;

/// How long the daemon may take to see a change.
const TIMEOUT: Duration = Duration::from_secs(3);

struct Lab {
    host: DockerHost,
    netfast: NetfastProc,
    traffic: String,
}

/// A host with a container of every sort, and netfast on it.
fn lab() -> Lab {
    let host = DockerHost::start(docker_host::Options::default()).expect("a Docker host");
    host.create_network("backend", &["--subnet", "172.30.0.0/16", "--ip-range", "172.30.5.0/24"])
        .expect("a network");
    host.run_container("web", "bridge", &["-p", "8080:7000"], &[])
        .expect("web");
    host.run_container("client", "bridge", &[], &[]).expect("client");
    host.run_container("database", "backend", &[], &[]).expect("database");
    host.run_container("legacy", "bridge", &["--label", "netfast.enable=false"], &[])
        .expect("legacy");
    host.run_container("monitor", "host", &[], &[]).expect("monitor");
    host.run_container("batch", "none", &[], &[]).expect("batch");
    host.run_container("sidecar", "container:web", &[], &[])
        .expect("sidecar");
    let netfast = NetfastProc::start(host.host(), Options::docker(host.docker_host())).expect("netfast");
    let traffic = programs::traffic().expect("the traffic tool").display().to_string();
    Lab { host, netfast, traffic }
}

impl Lab {
    fn json(&self, args: &[&str]) -> Value {
        let text = self.netfast.verb(&[args, &["--json"]].concat()).expect("a report");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn netns(&self, container: &str) -> NsHandle {
        self.host.container_netns(container).expect("it runs")
    }

    fn serve(&self, container: &str, verb: &str) -> Background {
        let server = self
            .netns(container)
            .spawn(&[&self.traffic, verb, "7000"])
            .expect("the server starts");
        thread::sleep(Duration::from_millis(200));
        server
    }
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = list.as_array().expect("a list").iter().find(|item| item[key] == value);
    found.unwrap_or_else(|| panic!("no {key} {value} in {list:#}"))
}

#[test]
fn reports_of_a_docker_host() {
    if !needs(&[Need::Root, Need::Docker, Need::Kernel(6, 6)]) {
        return;
    }
    let mut lab = lab();
    networks_are_what_docker_tells(&lab);
    status_says_who_is_fast_and_why_not(&lab);
    traces_choose_by_containers_names(&lab);
    flows_are_listed_with_both_tuples(&lab);
    check_agrees(&lab);
    metrics_name_networks_and_containers(&lab);
    reports_go_on_without_the_daemon(&mut lab);
    health_says_that_docker_is_gone(&mut lab);
}

fn networks_are_what_docker_tells(lab: &Lab) {
    let networks = lab.json(&["networks"]);
    println!("{}", lab.netfast.verb(&["networks"]).expect("a list"));
    let backend = find(&networks["networks"], "name", "backend");
    assert_eq!(backend["driver"], "bridge");
    assert_eq!(backend["pools"][0]["subnet"], "172.30.0.0/16");
    assert_eq!(backend["pools"][0]["ip_range"], "172.30.5.0/24");
    assert_eq!(
        backend["bridge"],
        lab.host.bridge_device("backend").expect("its bridge")
    );
    assert_eq!(backend["path"], "fast");
    let id = lab
        .host
        .docker(&["network", "inspect", "--format", "{{.Id}}", "backend"])
        .expect("its identifier");
    assert_eq!(backend["id"], id);

    let database = find(&backend["endpoints"], "container", "database");
    let attachment = lab.host.attachment("database", "backend").expect("attached");
    assert_eq!(database["addresses"][0], format!("{}/16", attachment.ip));
    assert_eq!(
        database["veth"],
        lab.host.container_veth("database", "eth0").expect("its veth")
    );
    assert_eq!(
        (&database["interface"], &database["path"]),
        (&"eth0".into(), &"fast".into())
    );

    let bridge = find(&networks["networks"], "name", "bridge");
    let legacy = find(&bridge["endpoints"], "container", "legacy");
    assert_eq!(
        (&legacy["path"], &legacy["why"]),
        (&"slow".into(), &"disabled-by-label".into()),
        "{legacy:#}"
    );
    for (network, container, why) in [
        ("host", "monitor", "host-network"),
        ("none", "batch", "no-network"),
        ("container:web", "sidecar", "shared-namespace"),
    ] {
        let network = find(&networks["networks"], "name", network);
        assert_eq!(
            (&network["path"], &network["why"]),
            (&"slow".into(), &why.into()),
            "{network:#}"
        );
        assert_eq!(find(&network["endpoints"], "container", container)["path"], "slow");
    }

    let one = lab.netfast.verb(&["networks", "backend"]).expect("details");
    println!("{one}");
    let format = "{{.NetworkSettings.Networks.backend.Gateway}}";
    let gateway = lab
        .host
        .docker(&["inspect", "--format", format, "database"])
        .expect("its gateway");
    let said = format!("172.30.0.0/16, containers from 172.30.5.0/24, gateway {gateway}\n");
    assert!(one.contains(&said), "{one}");
    assert_eq!(
        lab.json(&["networks", &id[..12]])["networks"],
        Value::from(vec![backend.clone()])
    );
    let none = lab.netfast.try_verb(&["networks", "nobody"]).expect("it ends");
    assert_eq!(none.status.code(), Some(1));
    assert!(
        none.stderr.contains("there is no network \"nobody\""),
        "{}",
        none.stderr
    );
}

fn status_says_who_is_fast_and_why_not(lab: &Lab) {
    let before = lab.json(&["status"]);
    assert_eq!(before["daemon"]["running"], true);
    assert_eq!(before["daemon"]["pid"], lab.netfast.pid().expect("it runs"));
    assert_eq!(
        (&before["daemon"]["attached"], &before["daemon"]["in_sync"]),
        (&true.into(), &true.into())
    );
    assert_eq!(before["runtime"]["state"], "connected");

    let server = lab.serve("web", "recv-hash");
    let web = lab.host.container_ip("web", "bridge").expect("an address");
    let line = format!("{} send-hash {web}:7000 --bytes 100000000 --back 1000000", lab.traffic);
    lab.netns("client").sh(&line).expect("a transfer");
    drop(server);

    let after = lab.json(&["status"]);
    println!("{}", lab.netfast.verb(&["status"]).expect("text"));
    let number = |status: &Value, key: &str| status["totals"][key].as_u64().unwrap_or_else(|| panic!("no {key}"));
    let fast = number(&after, "fast_bytes") - number(&before, "fast_bytes");
    assert!(fast > 95_000_000, "{fast} of 100 MB on the fast path: {after:#}");
    let sum = |key: &str| -> u64 {
        let reasons = after["reasons"].as_array().expect("reasons");
        reasons
            .iter()
            .map(|reason| reason[key].as_u64().expect("a number"))
            .sum()
    };
    assert_eq!(
        (sum("packets"), sum("bytes")),
        (number(&after, "slow_packets"), number(&after, "slow_bytes"))
    );
    find(&after["reasons"], "name", "tcp-syn");
    let bridge = find(&after["networks"], "name", "bridge");
    let client = &find(&bridge["endpoints"], "container", "client")["traffic"];
    assert!(
        client["in_fast_bytes"].as_u64().expect("bytes") > 95_000_000,
        "{client:#}"
    );
    assert_eq!(
        find(&bridge["endpoints"], "container", "legacy")["traffic"],
        Value::Null
    );
}

/// By their addresses, as Docker tells them.
fn traces_choose_by_containers_names(lab: &Lab) {
    let server = lab.serve("web", "recv-hash");
    let web = lab.host.container_ip("web", "bridge").expect("an address");
    let words = [
        "trace", "--json", "-c", "20", "src", "client", "and", "dst", "host", "web",
    ];
    let tracer = Background::start(&mut lab.netfast.command(&words)).expect("it starts");
    thread::sleep(Duration::from_millis(500));
    let line = format!("{} send-hash {web}:7000 --bytes 10000000 --back 1000000", lab.traffic);
    lab.netns("client").sh(&line).expect("a transfer");
    drop(server);
    let done = tracer.wait(TIMEOUT).expect("it ends by itself");
    let packets: Vec<Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(packets.len(), 20, "{}", done.stderr);
    for packet in &packets {
        assert_eq!(packet["destination"], format!("{web}:7000"), "{packet}");
        assert_eq!(packet["enters"]["container"], "client", "{packet}");
    }
}

fn flows_are_listed_with_both_tuples(lab: &Lab) {
    let sink = lab.serve("web", "udp-sink");
    let hash = lab.serve("web", "recv-hash");
    // A connection through the published port that stays busy while we look.
    let line = format!(
        "{} send-hash {HOST_IP}:8080 --bytes 3000000000 --back 1000",
        lab.traffic
    );
    let sender = lab.host.lan().handle().spawn(&["sh", "-c", &line]).expect("a sender");
    thread::sleep(Duration::from_secs(1));
    let flows = lab.json(&["flows", "--container", "web"]);
    println!("{}", lab.netfast.verb(&["flows"]).expect("text"));
    let list = flows["flows"].as_array().expect("flows");
    let web = lab.host.container_ip("web", "bridge").expect("an address");
    let inward = list
        .iter()
        .find(|flow| flow["enters"]["destination"] == format!("{HOST_IP}:8080"));
    let inward = inward.unwrap_or_else(|| panic!("no flow to the published port: {flows:#}"));
    assert_eq!(inward["leaves"]["destination"], format!("{web}:7000"));
    assert_eq!(
        (&inward["leaves"]["container"], &inward["protocol"]),
        (&"web".into(), &"tcp".into())
    );
    assert_eq!((&inward["exit"], &inward["usable"]), (&"peer".into(), &true.into()));
    assert!(
        inward["packets"].as_u64() > Some(100) && inward["age_ms"].as_u64() < Some(60_000),
        "{inward:#}"
    );
    assert!(inward["idle_ms"].as_u64() < Some(1_000), "{inward:#}");
    assert_eq!(
        lab.json(&["flows", "--limit", "1"])["flows"]
            .as_array()
            .expect("flows")
            .len(),
        1
    );
    assert_eq!(lab.json(&["flows", "--container", "database"])["total"], 0);
    let unknown = lab
        .netfast
        .try_verb(&["flows", "--container", "nobody"])
        .expect("it ends");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("no container \"nobody\""), "{}", unknown.stderr);
    drop((sender, sink, hash));
}

fn check_agrees(lab: &Lab) {
    let docker = lab.host.docker_host();
    let text = lab
        .netfast
        .verb(&["check", "--docker-host", &docker])
        .expect("it can run");
    println!("{text}");
    let check = lab.json(&["check", "--docker-host", &docker]);
    assert_eq!(check["can_run"], true);
}

fn metrics_name_networks_and_containers(lab: &Lab) {
    let host = lab.host.host().handle();
    let answer = metrics::get(&host, DEFAULT_METRICS, "/metrics", "").expect("it is served");
    let samples = metrics::samples(&answer.body);
    let endpoints = |network: &str, path: &str| {
        let name = format!("netfast_endpoints{{\"network\": {network:?}, \"path\": {path:?}}}");
        samples.get(&name).copied()
    };
    assert_eq!(endpoints("bridge", "fast"), Some(2.0), "{samples:#?}");
    assert_eq!(
        (endpoints("bridge", "slow"), endpoints("backend", "fast")),
        (Some(1.0), Some(1.0))
    );
    let why = "netfast_endpoint_slow{\"container\": \"legacy\", \"network\": \"bridge\", \"why\": \
               \"disabled-by-label\"}";
    assert_eq!(samples.get(why), Some(&1.0), "{samples:#?}");
    assert_eq!(samples.get("netfast_runtime_connected{}"), Some(&1.0));
}

fn health_says_that_docker_is_gone(lab: &mut Lab) {
    lab.host.stop_dockerd(Signal::SIGKILL).expect("it ends");
    let host = lab.host.host().handle();
    let said = cmd::poll("the daemon notices", Duration::from_mins(1), || {
        let answer = metrics::get(&host, DEFAULT_METRICS, "/healthz", "").ok()?;
        (answer.status == 503).then_some(answer.body)
    });
    let said = said.expect("it is not in sync any more");
    assert!(
        said.starts_with("not in sync: the container runtime does not answer: "),
        "{said}"
    );
}

fn reports_go_on_without_the_daemon(lab: &mut Lab) {
    lab.netfast.stop(Signal::SIGKILL).expect("it ends");
    let status = lab.json(&["status"]);
    assert_eq!(
        (&status["daemon"]["running"], &status["daemon"]["attached"]),
        (&false.into(), &true.into())
    );
    let text = lab.netfast.verb(&["status"]).expect("text");
    assert!(text.starts_with("attention: daemon not running; "), "{text}");
    assert!(text.contains("\nnetfast is not running, but its fast path"), "{text}");
    assert!(lab.netfast.verb(&["networks"]).expect("networks").contains("backend"));
    lab.netfast.launch().expect("it takes over");
    let again = cmd::poll("in sync", TIMEOUT, || {
        Some(lab.json(&["status"])).filter(|status| status["daemon"]["in_sync"] == true)
    });
    assert_eq!(again.expect("in sync")["daemon"]["running"], true);
}

#[test]
fn check_finds_what_stands_in_the_way() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = Topo::new(&topo::Options {
        bridges: vec![2, 1],
        ..topo::Options::default()
    })
    .expect("a topology");
    for bridge in &topo.bridges {
        for container in &bridge.containers {
            let ping = format!("busybox ping -c1 -W2 {}", bridge.gateway);
            container.ns.sh(&ping).expect("the bridge hears it");
        }
    }
    let host = topo.host();
    host.sh("tc qdisc add dev veth0x0 clsact").expect("clsact");
    host.sh("tc filter add dev veth0x0 ingress bpf da bytecode '1,6 0 0 4294967295,'")
        .expect("a filter");
    host.sh("tc qdisc add dev veth0x1 root tbf rate 1gbit burst 1mb latency 10ms")
        .expect("a shaper");
    topo.iptables("-I FORWARD -i br-1 -o eth0 -m limit --limit 5/second -j ACCEPT")
        .expect("a rule");

    let netfast = NetfastProc::prepare(host, Options::no_runtime()).expect("directories");
    let text = netfast.verb(&["check", "--runtime", "none"]).expect("it can run");
    println!("{text}");
    let check: Value =
        serde_json::from_str(&netfast.verb(&["check", "--runtime", "none", "--json"]).expect("JSON")).expect("JSON");
    let line = |subject: &str, said: &str| {
        let lines = check["lines"].as_array().expect("lines");
        let found = lines.iter().find(|line| {
            line["subject"] == subject && line["detail"].as_str().is_some_and(|detail| detail.contains(said))
        });
        found.unwrap_or_else(|| panic!("no line of {subject} says {said:?}:\n{text}"))["level"].clone()
    };
    assert_eq!(line("br-0", "1 of 2 endpoints"), "ok");
    assert_eq!(line("br-0: veth0x0", "bpf filter"), "slow");
    assert_eq!(line("veth0x1", "tbf"), "note");
    assert_eq!(line("br-1", "limit"), "slow");
    assert_eq!(line("limit", "FORWARD"), "slow");
    assert_eq!(line("netfast's programs", "accepts all"), "ok");

    for (args, code, said) in [
        (&["--runtime", "none", "--uplink", "nosuch0"][..], 2, "nosuch0"),
        (
            &["--docker-host", "unix:///nowhere/docker.sock"],
            6,
            "/nowhere/docker.sock",
        ),
        (&["--config", "/nowhere/netfast.toml"], 3, "/nowhere/netfast.toml"),
    ] {
        let done = netfast.try_verb(&[&["check"], args].concat()).expect("it ends");
        assert_eq!(
            done.status.code(),
            Some(code),
            "{args:?}: {}{}",
            done.stdout,
            done.stderr
        );
        assert!(
            done.stdout.contains(said) || done.stderr.contains(said),
            "{}{}",
            done.stdout,
            done.stderr
        );
    }
    assert!(!netfast.pin_dir().exists());
}
