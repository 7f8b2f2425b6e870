//! What a kernel lacks of what netfast can use: said in a line each by `check`, `run` and `status`, and the fast path does
//! without. `cargo xtask vm` asks other kernels; what this one has is taken away by pretence.

use std::{collections::BTreeMap, time::Duration};

use netfast::apply::read::Tables;
use netfast_common::reason::FAST;
use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    require::{Need, kernel_version, needs},
    topo::Topo,
};
use serde_json::Value;

use super::lab::{Echo, ask, at, introduce, topology, udp, until_answered};

/// The verifier takes its time for programs that it refuses, in an emulated machine above all.
const START: Duration = Duration::from_mins(2);

const LOST: &str =
    "Docker's resolver answers for aliases as it does without netfast, and aliases get no virtual addresses";

/// What was said of a kernel.
struct Said {
    /// Level, detail and remedy of each of `check`'s lines about the kernel, by its subject.
    check: BTreeMap<String, (String, String, String)>,
    /// What the daemon has to do without, in its state.
    lacks: Vec<String>,
    /// `status`.
    status: String,
    /// What the daemon logged.
    log: String,
}

/// Runs netfast with this environment, lets packets go fast, and asks.
fn said(environment: &[(&str, &str)]) -> Said {
    let topo = Topo::new(&topology()).expect("a topology");
    introduce(&topo);
    let netfast = NetfastProc::prepare(topo.host(), Options::no_runtime()).expect("directories");
    let command = |arguments: &[&str]| {
        let mut command = netfast.command(arguments);
        command.envs(environment.iter().copied());
        command
    };
    let done = cmd::finish(&mut command(&["check", "--runtime", "none", "--json"]), START).expect("it ends");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let lines = report["lines"].as_array().expect("lines").iter();
    let check = lines
        .filter(|line| line["area"] == "kernel")
        .map(|line| {
            let told = (text(line, "level"), text(line, "detail"), text(line, "remedy"));
            (text(line, "subject"), told)
        })
        .collect();

    let daemon = cmd::Background::start(&mut command(&["run", "--runtime", "none"])).expect("it starts");
    let state = cmd::poll("it is ready", START, || {
        let state = std::fs::read_to_string(netfast.run_dir().join("state.json")).ok()?;
        let state: Value = serde_json::from_str(&state).ok()?;
        (state["in_sync"] == true).then_some(state)
    })
    .expect("netfast starts");
    let (one, two) = (topo.container(0, 0), topo.container(0, 1));
    let _echo = Echo::start(&two.ns, 7001);
    let socket = udp(&one.ns, 42_310, at(two.ip, 7001));
    until_answered(&socket, "the first answer");
    cmd::poll("fast packets", START, || {
        let answered = (0..20).filter(|_| ask(&socket)).count();
        let tables = Tables::open(netfast.pin_dir()).expect("the maps are pinned");
        let fast = tables.reasons().expect("the counts")[FAST as usize].packets;
        (answered == 20 && fast > 20).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {state:#}"));
    let status = netfast.verb(&["status"]).expect("a report");
    let log = daemon.stop().expect("it ends").stderr;
    netfast.detach().expect("detach");
    let lacks = state["lacks"].as_array().expect("a list").iter();
    Said {
        check,
        lacks: lacks.map(|lack| lack.as_str().unwrap_or_default().to_owned()).collect(),
        status,
        log,
    }
}

impl Said {
    /// One line says that, in the log and in `status`.
    fn is_told(&self, lack: &str) {
        let logged: Vec<&str> = self.log.lines().filter(|line| line.contains(lack)).collect();
        assert_eq!(logged.len(), 1, "{lack:?} in {}", self.log);
        let shown = format!("Not here: {lack}");
        assert!(
            self.status.lines().any(|line| line == shown),
            "{lack:?} in {}",
            self.status
        );
        assert!(
            !self.log.contains("processed"),
            "the verifier's log is there: {}",
            self.log
        );
    }

    fn line(&self, subject: &str) -> (&str, &str, &str) {
        let (level, detail, remedy) = self
            .check
            .get(subject)
            .unwrap_or_else(|| panic!("no {subject:?} in {:#?}", self.check));
        (level, detail, remedy)
    }
}

/// No tcx, as before Linux 6.6.
fn has_no_tcx(said: &Said) {
    let [lack] = said.lacks.as_slice() else {
        panic!("{:?}", said.lacks)
    };
    assert_eq!(
        *lack,
        format!("the kernel has no tcx (Linux 6.6); without it, {LOST}. A newer kernel has it.")
    );
    said.is_told(lack);
    let (level, detail, remedy) = said.line("tcx");
    assert!(
        level == "note" && detail.ends_with(&format!("as classic tc filters (clsact), {LOST}")),
        "{detail}"
    );
    assert_eq!(remedy, "It is in Linux 6.6 and later.");
    let (level, detail, _) = said.line("netfast's programs");
    assert_eq!(level, "ok", "what has no place is not tried: {detail}");
    assert!(detail.ends_with("that this kernel has a place for"), "{detail}");
    assert!(!said.check.contains_key("netfast_answer"));
}

#[test]
fn what_this_kernel_lacks_is_said_and_packets_go_fast_without_it() {
    if !needs(&[Need::Root]) {
        return;
    }
    let said = said(&[]);
    if kernel_version().0 < (6, 6) {
        has_no_tcx(&said);
    } else {
        assert_eq!(said.lacks, Vec::<String>::new());
        assert_eq!(said.line("tcx").0, "ok");
        assert!(!said.status.contains("Not here"), "{}", said.status);
        assert!(
            said.line("netfast's programs")
                .1
                .starts_with("the verifier accepts all "),
            "{:?}",
            said.check
        );
    }
}

#[test]
fn a_kernel_without_tcx_is_one_line() {
    if !needs(&[Need::Root]) {
        return;
    }
    has_no_tcx(&said(&[("NETFAST_WITHOUT_TCX", "1")]));
}

/// As 5.15's verifier does with `netfast_answer`.
#[test]
fn a_program_that_the_verifier_gives_up_on_is_one_line_and_the_rest_goes_on() {
    if !needs(&[Need::Root]) {
        return;
    }
    let said = said(&[("NETFAST_WITHOUT_PROGRAMS", "netfast_answer")]);
    if kernel_version().0 < (6, 6) {
        // It has no place there, and so it is not missed a second time.
        return has_no_tcx(&said);
    }
    let [lack] = said.lacks.as_slice() else {
        panic!("{:?}", said.lacks)
    };
    let why = "the kernel does not take the BPF program netfast_answer: it is too complex for this kernel's verifier";
    assert!(
        lack.starts_with(why) && lack.contains(LOST) && lack.ends_with("Linux 6.1 and later."),
        "{lack}"
    );
    said.is_told(lack);
    let (level, detail, remedy) = said.line("netfast_answer");
    assert!(
        level == "note" && detail.starts_with(why) && detail.ends_with(LOST),
        "{detail}"
    );
    assert!(remedy.contains("Linux 6.1"), "{remedy}");
    let (level, detail, _) = said.line("netfast's programs");
    assert!(level == "ok" && detail.contains(" of "), "{detail}");
}
