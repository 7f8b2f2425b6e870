//! A real Prometheus, Debian's, beside a real netfast in the clean Debian: it scrapes, its lint has nothing to say, and
//! the shipped rules are right for it.

use std::{path::Path, time::Duration};

use netfast_tests::{
    cmd,
    require::{Need, needs},
    systemd::{Base, Machine},
    topo,
};
use serde_json::Value;

use super::{CONFIG, OWN_CONFIG, UNIT, install, named};
use crate::metrics::get;

const TIMEOUT: Duration = Duration::from_mins(1);
const RULES: &str = "/usr/share/netfast/prometheus/netfast.rules.yml";
const SERVER: &str = "http://127.0.0.1:9090";
/// Scrapes often, so that nobody waits.
const SCRAPE: &str = "global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [/usr/share/netfast/prometheus/netfast.rules.yml]
scrape_configs:
  - job_name: netfast
    static_configs: [{targets: ['127.0.0.1:9669']}]
";

/// What Prometheus answers to a query: each sample's labels and value.
fn ask(machine: &Machine, query: &str) -> Option<Vec<(Value, String)>> {
    let said = machine
        .run(&["promtool", "query", "instant", "--format=json", SERVER, query])
        .ok()?;
    let samples: Vec<Value> = serde_json::from_str(&said).ok()?;
    let sample = |sample: &Value| Some((sample["metric"].clone(), sample["value"][1].as_str()?.to_owned()));
    samples.iter().map(sample).collect()
}

#[test]
fn prometheus_scrapes_it_and_has_no_complaint() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = topo::Topo::new(&topo::Options::default()).expect("a topology");
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    let ping = format!("busybox ping -c3 -W2 {}", two.ip);
    one.ns.sh(&ping).expect("they reach each other");
    topo.host().ip("link set lo up").expect("loopback");
    let machine = Machine::boot(topo.host(), Base::Root(&named("NETFAST_DEBIAN_ROOT"))).expect("a Debian");
    machine.copy(&named("NETFAST_DEB_NEW"), "/tmp/new.deb").expect("copied");
    install(&machine, "/tmp/new.deb");
    machine.write(CONFIG, OWN_CONFIG).expect("a configuration");
    machine.run(&["systemctl", "start", UNIT]).expect("netfast starts");
    one.ns.sh(&ping).expect("there is something to count");

    // The lint: of what is served in both formats' names, of the rules, and their unit tests.
    let address = netfast::config::DEFAULT_METRICS;
    let served = get(&topo.host().handle(), address, "/metrics", "")
        .expect("served")
        .body;
    machine.write("/tmp/metrics", &served).expect("written");
    let lint = machine
        .try_run(&["sh", "-c", "promtool check metrics </tmp/metrics"])
        .expect("it ends");
    assert!(
        lint.status.success() && lint.stdout.is_empty() && lint.stderr.is_empty(),
        "{lint:?}"
    );
    let rules = machine.run(&["promtool", "check", "rules", RULES]).expect("right");
    assert!(rules.contains("SUCCESS"), "{rules}");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../netfast/dist/prometheus/netfast.rules.test.yml");
    machine
        .copy(&source, "/tmp/rules/netfast.rules.test.yml")
        .expect("copied");
    machine
        .run(&["cp", RULES, "/tmp/rules/netfast.rules.yml"])
        .expect("beside it");
    let tested = machine
        .run(&["promtool", "test", "rules", "/tmp/rules/netfast.rules.test.yml"])
        .expect("they hold");
    assert!(tested.contains("SUCCESS"), "{tested}");

    // The server itself.
    machine
        .write("/etc/prometheus/prometheus.yml", SCRAPE)
        .expect("a configuration");
    machine
        .run(&["promtool", "check", "config", "/etc/prometheus/prometheus.yml"])
        .expect("right");
    machine.run(&["systemctl", "start", "prometheus"]).expect("it starts");
    let poll = |what: &str, is_so: &dyn Fn() -> Option<()>| {
        cmd::poll(what, TIMEOUT, is_so).unwrap_or_else(|error| panic!("{error:#}\n{}", machine.journal()));
    };
    poll("it scrapes", &|| {
        let up = ask(&machine, "up{job=\"netfast\"}")?;
        (up.len() == 1 && up[0].1 == "1").then_some(())
    });
    // Three requests and their answers, one a second: each asks the kernel.
    let reason = "sum(netfast_slow_packets_total{reason=~\"no-flow|unreplied|unvetted|revalidate\"})";
    poll("it has counted the echo requests", &|| {
        let found = ask(&machine, reason)?;
        (found.first()?.1.parse::<u64>().ok()? >= 6).then_some(())
    });
    let fast = ask(&machine, "netfast_endpoints{path=\"fast\"}").expect("an answer");
    assert_eq!(fast.len(), 1, "{fast:?}");
    assert_eq!((&fast[0].0["network"], fast[0].1.as_str()), (&"br-0".into(), "2"));
    let firing = ask(&machine, "ALERTS{alertstate=\"firing\"}").expect("an answer");
    assert!(firing.is_empty(), "all is well: {firing:?}");
    let loaded = get(
        &topo.host().handle(),
        "127.0.0.1:9090".parse().expect("an address"),
        "/api/v1/rules",
        "",
    )
    .expect("it answers");
    let health: Vec<&str> = loaded.body.split("\"health\":\"").skip(1).collect();
    assert!(health.len() > 4, "{}", loaded.body);
    poll("all rules have been evaluated", &|| {
        let rules = get(
            &topo.host().handle(),
            "127.0.0.1:9090".parse().ok()?,
            "/api/v1/rules",
            "",
        )
        .ok()?;
        let mut health = rules.body.split("\"health\":\"").skip(1);
        health.all(|rest| rest.starts_with("ok\"")).then_some(())
    });
    machine
        .run(&["systemctl", "stop", "prometheus", UNIT])
        .expect("they stop");
    machine.run(&["netfast", "detach"]).expect("detach");
}
