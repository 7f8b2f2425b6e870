#![expect(clippy::float_cmp, reason = "whole numbers, and halves of them, are exact")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prometheus_parse::{Scrape, Value};

use super::*;
use crate::report::{
    aliases::{Aliases, tests::example as aliases},
    golden::assert_golden,
    path::PathState,
    status::tests::example,
    tunnels::{
        self,
        tests::{planned, told},
    },
};

fn vitals() -> Vitals {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Vitals {
        behind: None,
        started: start,
        synced: Some(start + Duration::from_millis(1_500)),
        passes: 17,
        failed_passes: 2,
    }
}

/// What a scraper makes of it: each sample by name and labels, and the help texts.
fn scraped(text: &str) -> (BTreeMap<String, f64>, Scrape) {
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("the text parses");
    let mut samples = BTreeMap::new();
    for sample in &scrape.samples {
        let labels: BTreeMap<_, _> = sample.labels.iter().collect();
        let value = match sample.value {
            Value::Counter(value) | Value::Gauge(value) => value,
            Value::Untyped(_) | Value::Histogram(_) | Value::Summary(_) => {
                panic!("{} has no type", sample.metric)
            }
        };
        let name = format!("{}{labels:?}", sample.metric);
        assert_eq!(samples.insert(name.clone(), value), None, "{name} is there twice");
    }
    (samples, scrape)
}

#[test]
fn both_formats_are_as_before() {
    assert_golden(
        "metrics.txt",
        &encode(&example(), &aliases(), &vitals(), Format::Prometheus),
    );
    let open = encode(&example(), &aliases(), &vitals(), Format::OpenMetrics);
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("\n# TYPE netfast_packets counter\nnetfast_packets_total{path=\"fast\"} 12345666\n"));
}

#[test]
fn every_metric_has_a_type_and_a_help() {
    let (samples, scrape) = scraped(&encode(&example(), &aliases(), &vitals(), Format::Prometheus));
    assert!(samples.len() > 60, "{}", samples.len());
    for sample in &scrape.samples {
        let help = scrape.docs.get(&sample.metric);
        assert!(
            help.is_some_and(|help| help.ends_with('.')),
            "{}: {help:?}",
            sample.metric
        );
        // promtool's rule: counters end in _total, and nothing else does.
        assert_eq!(
            sample.metric.ends_with("_total"),
            matches!(sample.value, Value::Counter(_)),
            "{}",
            sample.metric
        );
    }
}

#[test]
fn the_figures_are_those_of_status() {
    let status = example();
    let (samples, _) = scraped(&encode(&status, &aliases(), &vitals(), Format::Prometheus));
    let slow: f64 = samples
        .iter()
        .filter(|(name, _)| name.starts_with("netfast_slow_packets_total"))
        .map(|(_, value)| value)
        .sum();
    assert_eq!(slow, status.totals.slow_packets as f64);
    assert_eq!(samples["netfast_packets_total{\"path\": \"slow\"}"], slow);
    assert_eq!(samples["netfast_in_sync{}"], 1.0);
    assert_eq!(samples["netfast_runtime_connected{}"], 1.0);
    let web = "netfast_endpoint_packets_total{\"container\": \"web\", \"direction\": \"sent\", \
               \"network\": \"bridge\", \"path\": \"fast\"}";
    assert_eq!(samples[web], 8_123_456.0);
}

#[test]
fn every_reason_is_there_before_it_occurs() {
    let (samples, _) = scraped(&encode(
        &Status::default(),
        &Aliases::default(),
        &vitals(),
        Format::Prometheus,
    ));
    for reason in Reason::ALL {
        let name = if *reason == Reason::Encapsulated {
            "netfast_tunnel_packets_total{}".to_owned()
        } else if *reason == Reason::Decapsulated {
            "netfast_tunnel_received_packets_total{}".to_owned()
        } else if reason.is_slow() {
            format!("netfast_slow_packets_total{{\"reason\": {:?}}}", reason.name())
        } else {
            format!("netfast_candidates_total{{\"outcome\": {:?}}}", reason.name())
        };
        assert_eq!(samples.get(&name), Some(&0.0), "{name}");
    }
}

#[test]
fn tunnels_are_named_and_their_packets_counted() {
    let mut status = example();
    status.tunnels = tunnels::gather(&planned(), &told());
    (status.totals.tunnel_packets, status.totals.tunnel_bytes) = (40_000, 100_000_000);
    let (samples, _) = scraped(&encode(&status, &aliases(), &vitals(), Format::Prometheus));
    let of = |name: &str, device: &str| samples[&format!("netfast_tunnel_{name}{{\"device\": {device:?}}}")];
    assert_eq!((of("repeated", "flannel.1"), of("headers", "flannel.1")), (1.0, 12.0));
    assert_eq!((of("repeated", "vxlan1"), of("headers", "vxlan1")), (0.0, 0.0));
    assert_eq!(samples["netfast_tunnel_packets_total{}"], 40_000.0);
    assert_eq!(samples["netfast_tunnel_bytes_total{}"], 100_000_000.0);
}

#[test]
fn two_networks_of_one_name_make_one_series() {
    let mut status = example();
    let again = status.networks[0].clone();
    status.networks.push(again);
    // `scraped` refuses a series that is there twice.
    let (samples, _) = scraped(&encode(&status, &aliases(), &vitals(), Format::Prometheus));
    let web = "netfast_endpoint_packets_total{\"container\": \"web\", \"direction\": \"sent\", \
               \"network\": \"bridge\", \"path\": \"slow\"}";
    assert_eq!(samples[web], 2.0 * 1_204.0);
}

#[test]
fn names_cannot_break_the_text() {
    let mut status = example();
    status.networks[0].name = "a\"b\\c\nd".into();
    status.networks[0].endpoints[2].path = PathState::slow("why", "reason");
    let text = encode(&status, &aliases(), &vitals(), Format::Prometheus);
    assert!(text.contains(r#"network="a\"b\\c\nd",container="web""#), "{text}");
}

#[test]
fn the_daemon_may_be_behind_and_without_docker() {
    let mut status = example();
    let mut vitals = vitals();
    vitals.behind = Some("no memory".into());
    vitals.synced = None;
    status.runtime.state = "disconnected".into();
    let (samples, _) = scraped(&encode(&status, &aliases(), &vitals, Format::Prometheus));
    assert_eq!(samples["netfast_in_sync{}"], 0.0);
    assert_eq!(samples["netfast_last_sync_timestamp_seconds{}"], 0.0);
    assert_eq!(samples["netfast_runtime_connected{}"], 0.0);
    status.runtime.state = "none".into();
    let (samples, _) = scraped(&encode(&status, &aliases(), &vitals, Format::Prometheus));
    assert!(!samples.contains_key("netfast_runtime_connected{}"));
}

#[test]
fn formats_are_negotiated() {
    // What Prometheus 2.42 sends.
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
    for other in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
        assert_eq!(Format::accepted(other), Format::Prometheus);
    }
}

/// What the dashboard and the alerts ask for must exist, with the labels that they select and group by.
#[test]
fn dashboard_and_alerts_name_what_exists() {
    let (_, scrape) = scraped(&encode(&example(), &aliases(), &vitals(), Format::Prometheus));
    let exists: BTreeSet<&str> = scrape.samples.iter().map(|sample| sample.metric.as_str()).collect();
    for (file, text) in [
        ("the dashboard", include_str!("../../../dist/grafana/netfast.json")),
        (
            "the alert rules",
            include_str!("../../../dist/prometheus/netfast.rules.yml"),
        ),
        (
            "their tests",
            include_str!("../../../dist/prometheus/netfast.rules.test.yml"),
        ),
    ] {
        let named: BTreeSet<&str> = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|word| word.starts_with("netfast_"))
            .collect();
        assert!(named.len() > 4, "{file} names {named:?}");
        for name in named {
            assert!(exists.contains(name), "{file}: there is no metric {name}");
        }
    }
}

#[test]
fn the_dashboard_is_one() {
    let text = include_str!("../../../dist/grafana/netfast.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(dashboard["uid"], "netfast");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel:#}");
        let place = &panel["gridPos"];
        let number = |key: &str| place[key].as_u64().expect("a number");
        assert!(number("x") + number("w") <= 24 && number("h") > 0, "{panel:#}");
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel:#}");
        assert!(
            panel["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{panel:#}"
        );
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            assert_eq!(query.matches('(').count(), query.matches(')').count(), "{query}");
            assert!(query.contains("$instance"), "{query}");
        }
    }
    assert!(panels.len() > 8);
    // Grafana's own types (`VariableModel` of @grafana/schema): what is selected has a text and a value.
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        assert!(
            variable["name"].is_string() && variable["type"].is_string(),
            "{variable:#}"
        );
        if let Some(current) = variable.get("current") {
            assert!(
                !current["text"].is_null() && !current["value"].is_null(),
                "{variable:#}"
            );
        }
    }
}

/// Grafana reads two files of YAML to have the dashboard without a hand. There is no Grafana here to read them: their keys are those of
/// its documentation (Provision Grafana), and what they name is where the package puts it.
#[test]
fn the_files_for_grafana_s_provisioning_name_what_is_installed() {
    let dashboards = include_str!("../../../dist/grafana/provisioning-dashboards.yml");
    let datasource = include_str!("../../../dist/grafana/provisioning-datasource.yml");
    for text in [dashboards, datasource] {
        assert!(!text.contains('\t') && text.contains("\napiVersion: 1\n"), "{text}");
    }
    let setting = |text: &str, key: &str| {
        let mut lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": ").map(str::to_owned))
    };
    let path = setting(dashboards, "path").expect("a path");
    let installed = include_str!("../../../Cargo.toml");
    assert!(installed.contains(&format!("dest = \"{path}/\"")), "{path}");
    assert_eq!(setting(dashboards, "type").as_deref(), Some("file"));
    assert_eq!(setting(datasource, "type").as_deref(), Some("prometheus"));
    assert_eq!(setting(datasource, "access").as_deref(), Some("proxy"));
    let url = setting(datasource, "url").expect("an address");
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
}
