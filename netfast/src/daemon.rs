//! The daemon: observe, plan, diff, apply, and again whenever something changed.
//!
//! It may be stopped or killed at any time: programs, maps and links stay pinned, each live flow asks the kernel again
//! by itself, and the next daemon takes over what is there. Only `netfast detach` takes the fast path away.

use std::{collections::BTreeSet, future::pending, path::PathBuf, time::Duration};

use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{error, info, warn};

pub mod alone;
mod configure;
pub mod detach;
mod error;
pub mod history;
mod inside;
pub mod instance;
pub mod localhost;
pub mod lock;
pub mod older;
mod on_hint;
pub mod parent;
mod retry;
mod sandboxes;
mod service;
mod signals;
mod sync;
mod wait;
mod words;

pub use error::DaemonError;

use crate::{
    apply::{self, Datapath, Mode, lacks::Without},
    config::{AliasMode, Config, ConfigError, RawConfig, VipPool},
    exporter::{Exporter, Source},
    health::Health,
    host::{Host, RuntimeState},
    observe::{Change, Observer},
    plan::{Facts, plan},
    probe,
    state::State,
};
use alone::Alone;
use history::History;
use lock::Lock;
use parent::Parent;
use retry::Backoff;
use sandboxes::Sandboxes;
use service::Service;
use signals::{Order, Signals};
use sync::{Pass, Sync};
use wait::Waiting;

/// After a hint, more are waited for: a container's start makes dozens within a few milliseconds.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// Passes are at least this far apart, so that a storm of changes (many containers at once) is read in few passes.
const SPACING: Duration = Duration::from_millis(80);
/// And at least as many times the time that the last one took: whoever makes much to read must not keep the daemon busy.
const BACKOFF_FACTOR: u32 = 4;
/// But no more than this.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// The same where members of virtual addresses may have ended: new connections wait for it.
const URGENT_DEBOUNCE: Duration = Duration::from_millis(1);
/// Such passes are at least this far apart.
const URGENT_SPACING: Duration = Duration::from_millis(20);
/// For this long a pass may attach, before hints are heeded again.
const BUDGET: Duration = Duration::from_millis(100);
/// What nobody announces is looked for this often.
const THOROUGH: Duration = Duration::from_secs(30);
/// Whether the pins are still there is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// The lease of direct forwarding is renewed this often, if there is nothing that is still to be looked at.
const RENEW: Duration = Duration::from_millis(200);
/// Ready means in sync. One interface that cannot be attached to must not keep a host from being up, so after this
/// time it is said nonetheless, with what is missing.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// What was typed; it overrides the file.
    pub typed: RawConfig,
    /// Where the pins are.
    pub pin_dir: PathBuf,
    /// Where lock and state are.
    pub run_dir: PathBuf,
    /// Where what outlives a restart of the machine is kept; `None`: in the run directory, and nothing does.
    pub state_dir: Option<PathBuf>,
    /// What is to be missed although the kernel has it: as on other kernels.
    pub without: Without,
    /// Wait for a container runtime that does not answer at the start.
    pub wait: bool,
    /// The configuration that the daemon of the host's namespace has given, for one that serves an overlay network's. It counts
    /// alone.
    pub given: Option<Config>,
}

impl Settings {
    fn config(&self) -> Result<Config, ConfigError> {
        if let Some(given) = &self.given {
            return Ok(given.clone());
        }
        Config::load(self.file.as_deref(), self.typed.clone())
    }
}

/// Runs until SIGINT or SIGTERM. On an error at the start, nothing stays attached that was not before.
pub async fn run(settings: Settings, parent: Option<Parent>) -> Result<(), DaemonError> {
    let mut config = settings.config()?;
    let version = env!("CARGO_PKG_VERSION");
    info!(
        "netfast {version} starts; configuration: {}",
        words::configuration(&config)
    );
    let features = probe::required(&settings.pin_dir, &settings.run_dir)?;
    let _lock = Lock::take(&settings.run_dir)?;
    instance::check_free(&settings.pin_dir, &settings.run_dir)?;
    let _alone = Alone::take()?;
    for (pins, run) in instance::left_beside(&settings.pin_dir) {
        let (pins, run) = (pins.display(), run.display());
        warn!(
            "what a netfast with other directories has left is attached to these interfaces, too: `netfast detach --pin-dir \
             {pins} --run-dir {run}` removes it"
        );
    }
    let mut signals = Signals::new(parent).map_err(DaemonError::Signals)?;
    let before = State::read(&settings.run_dir).unwrap_or_else(|error| {
        warn!("{:#}; it is written anew", anyhow::Error::new(error));
        None
    });
    let mut service = Service::new();
    let waiting = Waiting::new(&settings, &mut config, &mut signals, &mut service);
    let Some((observer, hints)) = waiting.observer().await? else {
        info!("stopped before the container runtime answered; what is attached stays attached");
        return Ok(());
    };
    let host = observer.snapshot().await?;
    let first = plan(&host, &config, &Facts::default());
    // With another pool, or virtual addresses for all, the operator has asked for it.
    let is_asked =
        |pool: VipPool| config.alias_mode == AliasMode::Vip || ![VipPool::DEFAULT, VipPool::DEFAULT6].contains(&pool);
    let conflicts = first.aliases.vips.conflicts.into_iter();
    if let Some((pool, conflict)) = conflicts.into_iter().find(|(pool, _)| is_asked(*pool)) {
        return Err(DaemonError::PoolInUse {
            conflict,
            key: pool.key(),
        });
    }
    let missing = first.missing_uplinks;
    if !missing.is_empty() {
        return Err(DaemonError::UnknownUplinks {
            names: missing,
            typed: settings.typed.uplinks.is_some(),
        });
    }
    let tcx = features.tcx && !settings.without.tcx;
    let mode = if tcx { Mode::Tcx } else { Mode::Clsact };
    let datapath = Datapath::open(
        &settings.pin_dir,
        &settings.run_dir,
        config.flows,
        mode,
        &settings.without,
    )?;
    info!(
        "the flow table has {} places and takes {} MiB of kernel memory; programs are attached by {}",
        config.flows,
        datapath.table_bytes() >> 20,
        mode.name()
    );
    let mut daemon = Daemon {
        sync: Sync::new(
            datapath,
            &settings.run_dir,
            before,
            history(&settings),
            features.counts_redirected,
        ),
        config,
        observer,
        hints,
        host,
        backoff: Backoff::default(),
        sandboxes: Sandboxes::new(&settings.pin_dir, &settings.run_dir, mode),
        deserted: None,
        health: Health::default(),
        exporter: None,
        service,
        has_looked: false,
        settings,
        phase: Phase::Starting(Instant::now() + READY_TIMEOUT),
    };
    #[cfg(feature = "bpf-log")]
    daemon.sync.datapath().follow_programs()?;
    let again = daemon.start()?;
    daemon.serve_metrics().await;
    let ended = daemon.keep(&mut signals, again).await;
    daemon.stop();
    ended
}

/// What the host let netfast do before. The daemon of an overlay network's namespace is of the same host.
fn history(settings: &Settings) -> History {
    if settings.given.is_some() {
        return History::none();
    }
    History::open(settings.state_dir.as_ref().unwrap_or(&settings.run_dir))
}

/// The daemon, in sync or on its way there.
struct Daemon {
    settings: Settings,
    config: Config,
    observer: Observer,
    hints: Receiver<Change>,
    host: Host,
    sync: Sync,
    backoff: Backoff,
    sandboxes: Sandboxes,
    /// Since when the namespace of an overlay network has no VXLAN device.
    deserted: Option<Instant>,
    health: Health,
    exporter: Option<Exporter>,
    service: Service,
    /// The last pass has read everything that had been heard of, and has done what follows for ports.
    has_looked: bool,
    phase: Phase,
}

/// What the service manager is waiting for.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// For the start to be done, which is said at this time at the latest.
    Starting(Instant),
    /// For the configuration to be in force.
    Reloading,
    /// For nothing.
    Running,
}

impl Daemon {
    /// The first pass; returns when to try again, if something could not be attached to. If flows may not be used
    /// after it, everything is taken back.
    fn start(&mut self) -> Result<Option<Duration>, DaemonError> {
        let pass = self.sync.pass(&self.host, &self.config, true, None);
        let failed = match pass {
            Ok(mut pass) => match pass.failures.pop() {
                None => {
                    self.has_looked = pass.ports_hold;
                    self.note(&pass);
                    self.tell(&pass);
                    return Ok((!pass.in_sync).then(|| self.backoff.failed()));
                }
                Some(failure) => {
                    self.sync.undo(&pass.done);
                    failure.error.into()
                }
            },
            Err(error) => error.into(),
        };
        if self.sync.datapath().is_fresh() {
            // What another version has attached goes on.
            if let Err(error) = apply::remove_own(&self.settings.pin_dir) {
                error!("cannot remove the pins in {}: {error}", self.settings.pin_dir.display());
            }
            // An earlier daemon's state says what its changes to the host replaced.
            if self.sync.is_first()
                && let Err(error) = State::remove(&self.settings.run_dir)
            {
                error!("{:#}", anyhow::Error::new(error));
            }
        }
        Err(failed)
    }

    /// Tells the log and the service manager what a pass came to.
    fn tell(&mut self, pass: &Pass) {
        let status = service::line(pass, &self.host.runtime);
        match self.phase {
            Phase::Starting(latest) if pass.in_sync || Instant::now() >= latest => {
                // Now that ours are attached, what another version left is in the way only.
                if let Err(error) = apply::other_abis(&self.settings.pin_dir) {
                    warn!("cannot remove what another version left: {error}");
                }
                info!("ready: {status}");
                self.service.ready(status);
                self.phase = Phase::Running;
            }
            Phase::Reloading => {
                self.service.ready(status);
                self.phase = Phase::Running;
            }
            Phase::Starting(_) | Phase::Running => self.service.status(status),
        }
    }

    /// Keeps in sync until a signal says to stop.
    async fn keep(&mut self, signals: &mut Signals, again: Option<Duration>) -> Result<(), DaemonError> {
        let mut thorough = interval(THOROUGH);
        thorough.set_missed_tick_behavior(MissedTickBehavior::Delay);
        thorough.reset();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renew = interval(RENEW);
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        let mut due = again.map(|wait| last + wait);
        let mut spacing = SPACING;
        let mut changes = BTreeSet::new();
        loop {
            // Whatever woke it: branches further down in the selection may not have their turn for a while.
            self.service.beat();
            let wake = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // Hints before work: what they make old must not be used while the work goes on.
                biased;
                order = signals.next() => match order {
                    Order::Stop => return Ok(()),
                    Order::Reload => {
                        service::reloading();
                        self.reload();
                        self.serve_metrics().await;
                        if let Phase::Running = self.phase {
                            self.phase = Phase::Reloading;
                        }
                        due = Some(Instant::now());
                    }
                    Order::Configure(new) => {
                        self.configure(*new);
                        due = Some(Instant::now());
                    }
                },
                hint = self.hints.recv() => {
                    let Some(hint) = hint else {
                        return Err(DaemonError::NoObservers);
                    };
                    self.on_hint(hint, &mut changes);
                    if changes.is_empty() {
                        continue;
                    }
                    // Somebody may still be given who has ended.
                    let urgent = changes.contains(&Change::Containers) && self.sync.datapath().has_vips();
                    let (gather, spacing) = if urgent { (URGENT_DEBOUNCE, URGENT_SPACING) } else { (DEBOUNCE, spacing) };
                    let soon = (Instant::now() + gather).max(last + spacing);
                    due = Some(due.map_or(soon, |due| due.min(soon)));
                }
                () = wake => {
                    last = Instant::now();
                    due = self.catch_up(&mut changes, false).await.map(|wait| last + wait);
                    spacing = (last.elapsed() * BACKOFF_FACTOR).clamp(SPACING, MAX_BACKOFF);
                }
                _ = thorough.tick() => {
                    last = Instant::now();
                    changes.insert(Change::Overflow);
                    due = self.catch_up(&mut changes, true).await.map(|wait| last + wait);
                    self.serve_metrics().await;
                    if self.sync.datapath().is_out_of_sight() {
                        return Err(DaemonError::PinsOutOfSight(self.settings.pin_dir.clone()));
                    }
                }
                _ = renew.tick() => {
                    // Some interface may take no frames any more.
                    if self.sync.datapath().confirm_xdp() {
                        due = Some(Instant::now());
                    }
                    // What was heard since may be that somebody judges.
                    if changes.is_empty() && self.has_looked {
                        self.sync.datapath().renew_leases();
                    }
                }
                _ = look.tick() => {
                    // What is tried again already needs no second reason.
                    if due.is_none() && !self.sync.datapath().has_pins() {
                        due = Some(Instant::now());
                    }
                    if self.is_deserted() {
                        info!("the network has left this namespace");
                        return Ok(());
                    }
                    self.sandboxes.keep(&self.host, &self.config);
                    if self.sync.datapath().look_at_cgroups() && due.is_none() {
                        due = Some(Instant::now());
                    }
                }
                () = self.observer.ended() => return Err(DaemonError::NoObservers),
                () = self.service.beat_due() => {}
            }
        }
    }

    /// Reads what changed and brings what is attached in sync; returns when to try again, if something failed.
    async fn catch_up(&mut self, changes: &mut BTreeSet<Change>, thorough: bool) -> Option<Duration> {
        self.has_looked = false;
        let read = if thorough {
            self.observer.snapshot().await.map(|host| self.host = host)
        } else {
            self.observer.refresh(&mut self.host, changes).await
        };
        if let Err(error) = read {
            // What changed is still to be read.
            let wait = self.backoff.failed();
            let error = format!("{:#}", anyhow::Error::new(error));
            warn!("{error}; trying again in {wait:?}");
            self.health.failed(error);
            changes.insert(Change::Overflow);
            return Some(wait);
        }
        changes.clear();
        let pass = match self.sync.pass(&self.host, &self.config, thorough, Some(BUDGET)) {
            Ok(pass) => pass,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                warn!("{error}");
                self.health.failed(error);
                return Some(self.backoff.failed());
            }
        };
        self.has_looked = pass.ports_hold;
        if self.has_looked {
            self.sync.datapath().renew_leases();
        }
        self.note(&pass);
        // Hints that came meanwhile go first.
        if pass.unfinished {
            return Some(Duration::ZERO);
        }
        self.tell(&pass);
        if pass.in_sync {
            self.backoff.succeeded();
            None
        } else {
            Some(self.backoff.failed())
        }
    }

    /// Lets those who ask know what a pass came to.
    fn note(&self, pass: &Pass) {
        if let RuntimeState::Disconnected { error, .. } = &self.host.runtime {
            self.health
                .failed(format!("the container runtime does not answer: {error}"));
        } else if let Some(trouble) = &pass.trouble {
            self.health.failed(trouble.clone());
        } else if pass.unfinished {
            self.health.busy("many changes at once are still being made");
        } else {
            self.health.in_sync();
        }
    }

    /// Serves metrics where the configuration says, if that is possible. It matters less than the fast path: what does
    /// not work now is tried again with each thorough pass.
    async fn serve_metrics(&mut self) {
        let wanted = self.config.metrics;
        if self.exporter.as_ref().map(Exporter::address) == wanted {
            return;
        }
        // The old one first: the new one may be the same port on more addresses.
        self.exporter = None;
        let Some(address) = wanted else {
            return;
        };
        let source = Source::new(&self.settings.pin_dir, &self.settings.run_dir, self.health.clone());
        match Exporter::start(address, source).await {
            Ok(exporter) => {
                info!("serving metrics on http://{address}/metrics");
                self.exporter = Some(exporter);
            }
            Err(error) => warn!("{:#}; trying again in {THOROUGH:?}", anyhow::Error::new(error)),
        }
    }

    fn stop(&mut self) {
        service::stopping();
        self.sandboxes.stop();
        self.sync.datapath().end_leases();
        if let Err(error) = self.sync.stopped() {
            warn!("{:#}", anyhow::Error::new(error));
        }
        info!("stopped; what is attached stays attached (`netfast detach` removes it)");
    }
}
