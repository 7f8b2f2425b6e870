//! What the kernel and the host let netfast do: a change since the last daemon, and one while it runs, is told everywhere.

use std::{fs, path::Path, time::Duration};

use netfast::{
    abilities::{Grounds, Look, Part, Record},
    config::DEFAULT_METRICS,
    host::Sysctls,
};
use netfast_common::abi::Program;
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    require::{Need, needs},
    topo,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{heard, wait_for};
use crate::metrics::{get, samples};

const SOON: Duration = Duration::from_secs(45);
/// A kernel that nobody runs any more.
const OLD: &str = "4.99.0-earlier";

/// What a daemon on an older kernel, with `br_netfilter`, has left.
fn leave_earlier(dir: &Path) {
    let grounds = Grounds {
        missing: [Program::Resolver].into(),
        tcx: true,
        counts_redirected: true,
        sysctls: Sysctls {
            bridge_nf_call_iptables: Some(true),
            ..Sysctls::default()
        },
        allow_accounting: false,
    };
    let record = Record {
        last: Some(Look {
            versions: [
                (Part::Kernel, OLD.to_owned()),
                (Part::Netfast, env!("CARGO_PKG_VERSION").to_owned()),
            ]
            .into(),
            boot: "another".into(),
            abilities: grounds.abilities(),
        }),
        updates: Vec::new(),
    };
    fs::create_dir_all(dir).expect("a directory");
    let text = serde_json::to_string(&record).expect("JSON");
    fs::write(dir.join("abilities.json"), text).expect("a record");
}

#[test]
fn what_a_kernel_and_a_switch_give_and_take_is_told_by_status_metrics_and_log() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = heard(&topo::Options {
        br_netfilter: false,
        ..topo::Options::default()
    });
    let host = topo.host();
    let mut netfast = NetfastProc::prepare(host, Options::no_runtime()).expect("directories");
    let dir = netfast.run_dir().join("lib");
    leave_earlier(&dir);
    let options = Options {
        args: vec!["--state-dir".into(), dir.display().to_string()],
        ..Options::no_runtime()
    };
    netfast.set_options(options);
    netfast.launch().expect("netfast starts");

    // Since the other kernel.
    let said = |netfast: &NetfastProc| netfast.verb(&["status"]).expect("status").replace('\n', " ");
    let text = said(&netfast);
    let since = format!("Since the update kernel {OLD} -> ");
    assert!(
        text.contains(&since) && text.contains("now possible: direct ("),
        "{text}"
    );
    assert_eq!(netfast.log().matches(&since).count(), 1, "{}", netfast.log());
    let status: Value = netfast.status().expect("JSON");
    let update = &status["host"]["updates"][0];
    assert_eq!(
        (update["updated"][0]["from"].as_str(), &update["rebooted"]),
        (Some(OLD), &Value::Bool(true)),
        "{update}"
    );
    assert_eq!(update["gained"]["direct"]["possible"], true, "{update}");
    let scrape = || {
        samples(
            &get(&host.handle(), DEFAULT_METRICS, "/metrics", "")
                .expect("served")
                .body,
        )
    };
    let now = scrape();
    assert!(now["netfast_ability{\"ability\": \"direct\"}"] > 0.5);
    let told = now
        .iter()
        .find(|(name, _)| name.starts_with("netfast_update_timestamp_seconds"));
    let (name, seconds) = told.expect("an update");
    assert!(
        name.contains(OLD) && name.contains("\"part\": \"kernel\"") && *seconds > 1e9,
        "{name} {seconds}"
    );

    // A switch, without an update.
    host.set_sysctl("net/bridge/bridge-nf-call-iptables", "1")
        .expect("br_netfilter");
    wait_for(&netfast, "the switch is noticed", SOON, |state| {
        state["record"]["updates"][1]["lost"]["direct"].is_object()
    });
    let text = said(&netfast);
    assert!(
        text.contains("without an update: no longer possible: direct ("),
        "{text}"
    );
    cmd::poll("the metric", SOON, || {
        (scrape()["netfast_ability{\"ability\": \"direct\"}"] < 0.5).then_some(())
    })
    .expect("it follows");

    // The next daemon finds nothing new, and tells what it was told.
    netfast.stop(Signal::SIGKILL).expect("killed");
    netfast.launch().expect("the next one starts");
    let status: Value = netfast.status().expect("JSON");
    assert_eq!(status["host"]["updates"].as_array().map(Vec::len), Some(2), "{status}");
    assert_eq!(netfast.log().matches(&since).count(), 1, "{}", netfast.log());

    let record = dir.join("abilities.json");
    assert!(record.exists());
    netfast.detach().expect("detach");
    assert!(!record.exists(), "detach leaves the host as it was");
}

#[test]
fn the_state_directory_is_the_first_of_systemd_s_list_and_without_it_the_run_directory() {
    if !needs(&[Need::Root, Need::Kernel(6, 6)]) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let mut netfast = NetfastProc::start(topo.host(), Options::no_runtime()).expect("netfast starts");
    assert!(netfast.run_dir().join("abilities.json").exists());
    netfast.stop(Signal::SIGTERM).expect("stopped");
    let first = netfast.run_dir().join("first");
    let list = format!("{}:/nowhere/else", first.display());
    let options = Options {
        args: vec!["--state-dir".into(), list],
        ..Options::no_runtime()
    };
    netfast.set_options(options);
    netfast.launch().expect("the next one starts");
    assert!(first.join("abilities.json").exists());
    netfast.detach().expect("detach");
}
