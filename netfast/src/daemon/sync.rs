//! One pass of plan, diff and apply, and what is told of it in the state file.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use netfast_common::{
    abi::{ABI_VERSION, MAX_DEVICES},
    device::{DeviceKey, Kind},
};
use tracing::{debug, info, warn};

use crate::{
    abilities::Grounds,
    apply::{Datapath, Failure, Mode, Outcome},
    config::Config,
    daemon::{history::History, inside::Memory, localhost, older},
    diff::{Action, XdpStep, diff},
    host::{Host, InsideRules, ResolverRules, RuntimeState},
    plan::{
        Client, Desired, Inside, Loopback, SegmentEnd, Vips, Way, Xdp, XdpEnd, plan,
        report::{Slow, Why},
        report_failure, report_waiting, resolver_reports, wanted_resolvers,
    },
    state::{DeviceReport, LocalState, RuntimeReport, SavedSysctl, State, StateError, VipState, boot, unix_ms},
};

/// What keeps what is attached in sync with the host.
pub struct Sync {
    datapath: Datapath,
    run_dir: PathBuf,
    started: SystemTime,
    /// Sysctls that an older version has set, and that are still to be restored.
    older: Vec<SavedSysctl>,
    /// clsact qdiscs that were added.
    clsact: BTreeMap<DeviceKey, String>,
    /// Failures that the log has.
    told: BTreeSet<String>,
    written: Option<State>,
    /// No daemon had written a state before, since the machine was booted.
    first: bool,
    /// Pins are gone that could not be made again.
    mending: bool,
    /// The rules in containers, as last seen.
    inside: Memory,
    /// The rules for the host's own packets, as last seen.
    localhost: localhost::Memory,
    /// What the host let netfast do before.
    history: History,
    /// Whether the kernel counts in containers what is redirected to them.
    counts_redirected: bool,
}

/// What a pass came to.
#[derive(Debug, Default)]
pub struct Pass {
    /// What was done, in order.
    pub done: Vec<Action>,
    /// Whether all that is wanted is done.
    pub in_sync: bool,
    /// Whether the time was up before everything was done.
    pub unfinished: bool,
    /// What could not be done, in words: the first of it.
    pub trouble: Option<String>,
    /// Failures that are about no device: at the start they are reason to give up.
    pub failures: Vec<Failure>,
    /// Endpoints that both programs are attached to.
    pub endpoints: usize,
    /// Uplinks that both programs are attached to.
    pub uplinks: usize,
    /// Devices that should be attached to, and are not.
    pub waiting: usize,
    /// Why nothing is learned, if nothing is.
    pub learning_off: Option<String>,
    /// What is said of ports is what was planned of them: packets may be forwarded directly.
    pub ports_hold: bool,
}

impl Sync {
    /// Takes over what an earlier daemon wrote down about the host.
    pub fn new(
        mut datapath: Datapath,
        run_dir: &Path,
        before: Option<State>,
        history: History,
        counts_redirected: bool,
    ) -> Self {
        let (mut older, mut clsact) = (Vec::new(), BTreeMap::new());
        let before = before.filter(State::is_of_this_boot);
        let first = before.is_none();
        if let Some(before) = before {
            older = before.sysctls;
            clsact = before.clsact;
            datapath.remember_segments(before.segments);
            datapath.remember_xdp(before.xdp_gro);
            datapath.remember_vips(before.vips.given, &before.vips.ways.into_iter().collect());
            datapath.remember_resolvers(before.resolver_rules);
        }
        Self {
            datapath,
            run_dir: run_dir.into(),
            started: SystemTime::now(),
            older,
            clsact,
            told: BTreeSet::new(),
            written: None,
            first,
            mending: false,
            inside: Memory::default(),
            localhost: localhost::Memory::default(),
            history,
            counts_redirected,
        }
    }

    /// Whether no daemon has written a state before, since the machine was booted.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// The data path.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Brings what is attached in sync with the host. `thorough`: also look at what nobody announces. After `budget`, what
    /// would come anew is left to the next pass.
    pub fn pass(
        &mut self,
        host: &Host,
        config: &Config,
        thorough: bool,
        budget: Option<Duration>,
    ) -> Result<Pass, StateError> {
        let unmended = self.repin(thorough);
        self.look_inside(host, config, thorough);
        self.datapath.set_localhost(self.localhost.look(host, config));
        self.datapath.look_at_xdp(host, config);
        self.datapath.watch_datapaths(host);
        let facts = self.datapath.facts(host, thorough);
        let desired = plan(host, config, facts);
        let actions = diff(&desired, self.datapath.realized());
        self.save(&actions, &desired, host, config)?;
        self.datapath.set_vip_memory(desired.aliases.vips.memory.clone());
        let outcome = self.datapath.execute(actions, budget);
        let is_lost = self.datapath.confirm_xdp();
        self.datapath.unwatch_datapaths(host);
        self.inside.note(&outcome);
        self.datapath.look_at_cgroups();
        self.tell(&outcome);
        self.clsact.extend(self.datapath.added_clsact().clone());
        self.clsact.retain(|device, _| host.link(*device).is_some());
        self.restore_older(&outcome);
        let in_sync =
            !outcome.unfinished && !is_lost && unmended.is_none() && outcome.failures.iter().all(Failure::is_late);
        self.history.look(&self.grounds(host, config), &host.runtime);
        let state = self.state(desired, host, config, &outcome.failures, in_sync);
        let devices = || state.devices.values();
        let count = |kind: Kind| {
            devices()
                .filter(|device| device.attached && device.kind == kind.name())
                .count()
        };
        let pass = Pass {
            in_sync,
            unfinished: outcome.unfinished,
            trouble: unmended.or_else(|| {
                let mut failures = outcome.failures.iter();
                failures.find(|failure| !failure.is_late()).map(Failure::text)
            }),
            endpoints: count(Kind::Endpoint),
            uplinks: count(Kind::Uplink),
            // One that is gone is not waited for.
            waiting: devices().filter(|device| !in_sync && !device.attached).count(),
            learning_off: state.learning_off.clone(),
            ports_hold: !outcome
                .failures
                .iter()
                .any(|f| matches!(f.action, Action::SetPort { .. })),
            failures: outcome
                .failures
                .into_iter()
                .filter(|f| f.action.device().is_none() && !f.action.is_about_aliases())
                .collect(),
            done: outcome.done,
        };
        self.write(state)?;
        // After one that fails for good all is as it was.
        if pass.failures.is_empty() {
            self.history.save();
        }
        Ok(pass)
    }

    /// Once all programs are this version's, what an older one did to the host goes. What fails is left to detach.
    fn restore_older(&mut self, outcome: &Outcome) {
        if self.older.is_empty() || outcome.unfinished {
            return;
        }
        match older::restore(&self.older) {
            Ok(restored) => {
                for (name, value) in restored.sysctls {
                    info!("restored {name} = {value}, which an older version had changed");
                }
            }
            Err(error) => {
                warn!("{:#}", anyhow::Error::new(error));
                return;
            }
        }
        self.older.clear();
    }

    /// Takes back the first pass.
    pub fn undo(&mut self, done: &[Action]) {
        let outcome = self.datapath.undo(done);
        self.tell(&outcome);
    }

    /// The daemon ends: says so in the state, so that it is not taken for in sync.
    pub fn stopped(&mut self) -> Result<(), StateError> {
        let Some(mut state) = self.written.clone() else {
            return Ok(());
        };
        state.in_sync = false;
        self.write(state)
    }

    /// Puts back pins that somebody removed, if it is time to look for that; returns why that is not possible.
    fn repin(&mut self, thorough: bool) -> Option<String> {
        if !thorough && !self.mending && self.datapath.has_pins() {
            return None;
        }
        let failed = self.datapath.repin(&self.run_dir).err();
        self.mending = failed.is_some();
        let text = format!("{:#}", anyhow::Error::new(failed?));
        warn!("{text}");
        Some(text)
    }

    /// Ways to virtual addresses and sizes of segments, which only the state tells of, must be on disk before they are made: a
    /// daemon that is killed in between could not remove them. The same with the addresses themselves, and with rules that are
    /// taken out.
    fn save(&mut self, actions: &[Action], desired: &Desired, host: &Host, config: &Config) -> Result<(), StateError> {
        let new = actions.iter().any(|action| {
            matches!(
                action,
                Action::SetWay { to: Some(_), .. }
                    | Action::SetSegments { bigger: true, .. }
                    | Action::TakeOut { .. }
                    | Action::Xdp(XdpStep::Gro { on: true, .. })
            )
        });
        if new {
            let state = self.state(desired.clone(), host, config, &[], false);
            self.write(state)?;
        }
        Ok(())
    }

    /// Logs failures that are new.
    fn tell(&mut self, outcome: &Outcome) {
        let mut told = BTreeSet::new();
        for failure in &outcome.failures {
            let text = failure.text();
            if failure.is_late() || self.told.contains(&text) {
                debug!("{text}");
            } else {
                warn!("{text}");
            }
            told.insert(text);
        }
        self.told = told;
    }

    fn write(&mut self, state: State) -> Result<(), StateError> {
        let unchanged = self.written.as_mut().is_some_and(|written| {
            // Not by a copy: it has every network and endpoint of the host.
            let time = mem::replace(&mut written.synced_ms, state.synced_ms);
            let is_same = *written == state;
            written.synced_ms = time;
            is_same
        });
        // A minute's worth of precision is enough for a time that nothing depends on.
        let old = |written: &State| state.synced_ms.unwrap_or(0) > written.synced_ms.unwrap_or(0) + 60_000;
        if !unchanged || self.written.as_ref().is_none_or(old) {
            state.write(&self.run_dir)?;
            self.written = Some(state);
        }
        Ok(())
    }

    fn state(&self, desired: Desired, host: &Host, config: &Config, failures: &[Failure], in_sync: bool) -> State {
        let mut errors: BTreeMap<DeviceKey, String> = BTreeMap::new();
        for failure in failures {
            if let Some(device) = failure.action.device() {
                errors.entry(device).or_insert_with(|| failure.text());
            }
        }
        let inside_errors = failures
            .iter()
            .filter_map(|failure| Some((failure.action.inside()?, failure.text())));
        let inside_errors = inside_errors.collect();
        let attached = self.datapath.attached();
        let mut tunnels = desired.tunnel_reports;
        for tunnel in &mut tunnels {
            let error = errors.get(&DeviceKey::served(tunnel.ifindex));
            tunnel.why = tunnel.why.take().or_else(|| error.cloned());
        }
        let mut networks = desired.networks;
        let mut devices = BTreeMap::new();
        for (key, spec) in desired.devices {
            let error = errors.get(&key);
            if let Some(text) = error {
                report_failure(&mut networks, key, text);
            }
            let report = DeviceReport {
                name: spec.name,
                kind: spec.kind.name().into(),
                slot: self.datapath.slot(key),
                attached: attached.contains(&key),
                error: error.map(|text| Slow::new(Why::NotAttached, text)),
            };
            devices.insert(key, report);
        }
        report_waiting(&mut networks, |key| {
            devices.get(&key).is_some_and(|device| device.attached)
        });
        debug_assert!(devices.len() <= MAX_DEVICES as usize, "the plan asks for no more");
        State {
            version: env!("CARGO_PKG_VERSION").into(),
            abi: ABI_VERSION,
            pid: std::process::id(),
            boot: boot(),
            started_ms: unix_ms(self.started),
            synced_ms: if in_sync {
                Some(unix_ms(SystemTime::now()))
            } else {
                self.written.as_ref().and_then(|written| written.synced_ms)
            },
            in_sync,
            pin_dir: self.datapath.pins().root().parent().unwrap_or(Path::new("/")).into(),
            config: config.clone(),
            attached_by: self.datapath.mode().name().into(),
            queue_watch_error: self.datapath.queue_watch_error().map(Into::into),
            lacks: self.datapath.lacks().iter().map(ToString::to_string).collect(),
            record: self.history.record().clone(),
            record_file: self.history.path().map(Into::into),
            learning_off: desired.learning_off,
            runtime: runtime_report(&host.runtime),
            networks,
            devices,
            tunnels,
            not_uplinks: desired.not_uplinks,
            sysctls: self.older.clone(),
            clsact: self.clsact.clone(),
            table_bytes: self.datapath.table_bytes(),
            segments: self.segments(&desired.segments, in_sync),
            xdp_gro: self.xdp_gro(&desired.xdp, in_sync),
            xdp: desired.xdp.reports,
            xdp_ends: self.datapath.xdp_ends(),
            aliases: desired.aliases.reports,
            resolvers: resolver_reports(
                host,
                config,
                self.datapath.known_facts(),
                self.datapath.resolvers(),
                &inside_errors,
            ),
            localhost: LocalState {
                ports: desired.localhost.reports,
                off: desired.localhost.off,
                watched: self.datapath.watched_cgroups().clone(),
                outcomes: BTreeMap::new(),
            },
            resolver_rules: self.resolver_rules(desired.resolvers, in_sync),
            vips: VipState {
                ways: self.ways(&desired.aliases.vips, in_sync),
                given: desired.aliases.vips.memory,
                conflict: desired.aliases.vips.conflicts.into_values().next(),
            },
        }
    }
}

impl Sync {
    /// What decides what is possible on this host.
    fn grounds(&self, host: &Host, config: &Config) -> Grounds {
        Grounds {
            missing: self.datapath.missing(),
            tcx: self.datapath.mode() == Mode::Tcx,
            counts_redirected: self.counts_redirected,
            sysctls: host.served().sysctls,
            allow_accounting: config.allow_accounting,
        }
    }

    /// Looks at the rules in containers where that matters.
    fn look_inside(&mut self, host: &Host, config: &Config, thorough: bool) {
        let wanted = wanted_resolvers(host, config);
        let namespaces = wanted.keys().map(|loopback| (loopback.netns, loopback.pid)).collect();
        let inside = self.inside.get(namespaces, thorough);
        self.datapath.set_inside(inside);
    }

    /// The rules that are taken out, and those that may be.
    fn resolver_rules(&self, wanted: BTreeMap<Loopback, Inside>, in_sync: bool) -> Vec<(Loopback, ResolverRules)> {
        let mut taken = self.datapath.resolvers().clone();
        if !in_sync {
            for (loopback, inside) in wanted {
                if let InsideRules::Resolver(rules) = inside.rules {
                    taken.entry(loopback).or_insert(rules);
                }
            }
        }
        taken.into_iter().collect()
    }

    /// The interfaces that take bigger segments, and those that may.
    fn segments(&self, wanted: &BTreeMap<SegmentEnd, String>, in_sync: bool) -> Vec<SegmentEnd> {
        let mut ends: BTreeSet<SegmentEnd> = self.datapath.segments().collect();
        if !in_sync {
            ends.extend(wanted.keys());
        }
        ends.into_iter().collect()
    }

    /// The interfaces whose GRO is on by netfast's doing, and those that may be.
    fn xdp_gro(&self, wanted: &Xdp, in_sync: bool) -> Vec<XdpEnd> {
        let mut ends = self.datapath.xdp_gro().clone();
        if !in_sync {
            let wanted = wanted.ends.iter().filter(|(_, wish)| wish.gro);
            ends.extend(wanted.map(|(end, _)| end.clone()));
        }
        ends.into_iter().collect()
    }

    /// The ways that there are, and those that there may be.
    fn ways(&self, wanted: &Vips, in_sync: bool) -> Vec<(Client, Way)> {
        let mut ways = self.datapath.ways().clone();
        if !in_sync {
            for (client, (way, _)) in &wanted.clients {
                let blocks = ways.entry(*client).or_default();
                blocks.blocks.extend(&way.blocks);
            }
        }
        ways.into_iter().collect()
    }
}

fn runtime_report(runtime: &RuntimeState) -> RuntimeReport {
    match runtime {
        RuntimeState::None => RuntimeReport {
            state: "none".into(),
            ..RuntimeReport::default()
        },
        RuntimeState::Connected { engine, version, .. } => RuntimeReport {
            state: "connected".into(),
            engine: Some(format!("{engine} {version}")),
            error: None,
        },
        RuntimeState::Disconnected { error, .. } => RuntimeReport {
            state: "disconnected".into(),
            engine: None,
            error: Some(error.clone()),
        },
    }
}
