//! Runs a case with netfast off and on, and compares.

use std::{fmt::Write as _, mem};

use netfast_tests::{
    require::{Need, needs},
    topo::{Options, Topo},
};

use super::world::{CONNTRACK, Mode, Step, World};

/// A topology, a rule set and a script.
pub struct Case {
    pub topology: Options,
    /// netfast's configuration file.
    pub config: Option<&'static str>,
    /// What is done to the host before netfast starts.
    pub prepare: fn(&mut World),
    pub script: fn(&mut World),
    /// What netfast changes by design, written down here: why, and what is equal but for it.
    pub inherent: Option<Inherent>,
}

/// A documented effect.
pub struct Inherent {
    /// The reason.
    pub why: &'static str,
    /// What makes the oracle show it too.
    pub without_netfast: fn(&World),
    /// What a noted line is for the comparison.
    pub reading: fn(String) -> String,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            topology: Options::default(),
            config: None,
            prepare: |_| {},
            script: |_| {},
            inherent: None,
        }
    }
}

/// The daemon tells conntrack of each connection that netfast carries not to judge its windows, so it no longer calls
/// segments outside of them INVALID. Without netfast the sysctl does the same to all.
pub const LIBERAL: Inherent = Inherent {
    why: "conntrack is told of each connection that netfast carries not to judge its windows, without which it would \
          break those whose segments it does not see",
    without_netfast: |world| {
        world.sh("sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1");
    },
    reading: |line| line,
};

/// conntrack takes a RST at once only if its number is exactly the last acknowledged one; else the connection keeps its
/// name, and the entry goes after the same 10 s (`tcp_timeouts[TCP_CONNTRACK_CLOSE]`, `nf_conntrack_proto_tcp.c`).
pub const RESETS: Inherent = Inherent {
    why: "conntrack has not seen the last acknowledgement, so after a RST it calls the connection ESTABLISHED, not \
          CLOSE; its entry goes as soon",
    without_netfast: |_| {},
    reading: |line| {
        let is_tcp = line.starts_with("tcp 6 ");
        let old = if is_tcp { ["ESTABLISHED", "CLOSE"] } else { [""; 2] };
        let found = old.iter().find(|state| line.split(' ').nth(2) == Some(state));
        found.map_or(line.clone(), |state| line.replacen(state, "CLOSE or ESTABLISHED", 1))
    },
};

/// Both runs give the same, or the test fails and shows the difference.
pub fn check(case: &Case) {
    if !needs(&[Need::Root, Need::Program("conntrack"), Need::Program("iptables")]) {
        return;
    }
    compare(case, Mode::On);
}

/// The oracle agrees with itself: what differs otherwise is not netfast's doing.
pub fn check_oracle(case: &Case) {
    if !needs(&[Need::Root, Need::Program("conntrack"), Need::Program("iptables")]) {
        return;
    }
    compare(case, Mode::Off);
}

fn compare(case: &Case, mode: Mode) {
    let off = run(case, Mode::Off);
    let on = run(case, mode);
    assert!(
        !off.is_empty() && off.iter().any(|step| !step.lines.is_empty()),
        "the script did nothing"
    );
    assert!(
        off == on,
        "netfast {mode:?} differs from netfast off:\n{}",
        difference(&off, &on)
    );
}

fn run(case: &Case, mode: Mode) -> Vec<Step> {
    let topo = Topo::new(&case.topology).expect("a topology");
    let mut world = World::new(topo, mode).expect("stations");
    if mode == Mode::Off
        && let Some(inherent) = &case.inherent
    {
        eprintln!("inherent: {}", inherent.why);
        (inherent.without_netfast)(&world);
    }
    (case.prepare)(&mut world);
    world.start(case.config.map(str::to_owned)).expect("netfast starts");
    (case.script)(&mut world);
    world.note_conntrack();
    let mut steps = world.into_steps();
    if let Some(inherent) = &case.inherent {
        for line in steps.iter_mut().flat_map(|step| &mut step.lines) {
            *line = (inherent.reading)(mem::take(line));
        }
        let known = steps.iter_mut().filter(|step| step.title == CONNTRACK);
        known.for_each(|step| step.lines.sort());
    }
    steps
}

/// Step by step; what is only with netfast off is marked `-`, what is only with netfast on `+`.
pub fn difference(off: &[Step], on: &[Step]) -> String {
    let mut text = String::new();
    for number in 0..off.len().max(on.len()) {
        let empty = Vec::new();
        let title = |steps: &[Step]| steps.get(number).map_or("no step", |step| &step.title).to_owned();
        let (a, b) = (off.get(number), on.get(number));
        let (a, b) = (
            a.map_or(&empty, |step| &step.lines),
            b.map_or(&empty, |step| &step.lines),
        );
        let same = title(off) == title(on) && a == b;
        let _ = writeln!(text, "{} {}", if same { "    " } else { "!!! " }, title(off));
        if title(off) != title(on) {
            let _ = writeln!(text, "     with netfast on it is: {}", title(on));
        }
        for line in a {
            let _ = writeln!(text, "  {} {line}", if b.contains(line) { ' ' } else { '-' });
        }
        for line in b.iter().filter(|line| !a.contains(line)) {
            let _ = writeln!(text, "  + {line}");
        }
        if !same && a.len() != b.len() {
            let _ = writeln!(text, "  {} lines with netfast off, {} with it on", a.len(), b.len());
        }
    }
    text
}
