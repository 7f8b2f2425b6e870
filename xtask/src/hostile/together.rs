//! All attacks at once, for long: what becomes of the daemon, and of the flows of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::{
    cmd::Background,
    netfast_proc::{NetfastProc, Options},
    traffic::{flood, paced::Report},
};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::{EVIL, Kind, PEER, STANDING, Scene, all_flows, lost, standing_of, word};
use crate::measure::process::{cpu_ms, resident_mib};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// The daemon's memory is compared with what it is by then: it has read the host and answered what is asked of it.
const SETTLED: Duration = Duration::from_mins(1);
/// By how much it may be more at any later time, MiB: the allocator's own ups and downs are below it.
const GROWN_MIB: f64 = 4.0;
/// Files that may be open besides, while somebody asks it.
const FILES: usize = 8;
/// Who talks with the outside: a neighbour of the attacker's, whom it also floods, and a container of another network.
const OTHERS: [(usize, usize); 2] = [(0, PEER), (1, 0)];
/// Programs end within this.
const ENDS: Duration = Duration::from_secs(30);

/// What was seen, over all looks.
#[derive(Default)]
struct Seen {
    looks: usize,
    /// Others' flows that were lost, from one look to the next.
    lost: usize,
    /// Flows in use by the attacker's interface from addresses that are not its own.
    stolen: BTreeSet<String>,
    /// Flows, those of the attacker included.
    most_flows: usize,
    /// After the first minute.
    settled_mib: Option<f64>,
    /// The most since then.
    most_mib: f64,
    last_mib: f64,
}

/// What the daemon has taken so far.
struct Taken {
    files: usize,
    cpu_ms: f64,
    log_lines: usize,
}

impl Taken {
    fn by(netfast: &NetfastProc, pid: u32) -> Result<Self> {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon is gone")?;
        Ok(Self {
            files: files.count(),
            cpu_ms: cpu_ms(pid)?,
            log_lines: netfast.log().lines().count(),
        })
    }
}

/// Runs it; fails if a flow of others was lost, or the daemon died or grew.
pub fn run(scene: &Scene<'_>, attacks: &[Kind], length: Duration) -> Result<()> {
    let mut netfast = NetfastProc::start(scene.topo.host(), Options::no_runtime())?;
    let pid = netfast.pid().context("the daemon is gone")?;
    let standing = scene.standing(&OTHERS)?;
    // All of them on the fast path.
    thread::sleep(Duration::from_secs(2));
    let stood = standing_of(&all_flows(&netfast)?);
    let expected = 2 * usize::from(STANDING) * OTHERS.len();
    ensure!(
        stood.len() == expected,
        "{} flows of others and not {expected}: {stood:?}",
        stood.len()
    );
    let before = Taken::by(&netfast, pid)?;
    let floods = attacks
        .iter()
        .map(|kind| Ok((word(*kind), scene.attack(*kind)?)))
        .collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let seen = watch(scene, &netfast, pid, stood, start, length)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut sent = Vec::new();
    for (name, attack) in floods {
        sent.push((name, ended::<flood::Report>(attack)?.sent));
    }
    let after = Taken::by(&netfast, pid)?;
    let talks = conversations(standing)?;
    report(&sent, seconds);
    println!(
        "Flows of others: {expected} stood, {} lost in {} looks. Flows from addresses not the attacker's own: {}. At most {} \
         flows in the table.\nOthers' requests: {} asked, {} answered.",
        seen.lost,
        seen.looks,
        seen.stolen.len(),
        seen.most_flows,
        talks.0,
        talks.1
    );
    let settled = seen.settled_mib.unwrap_or(seen.last_mib);
    println!(
        "The daemon: {settled:.1} MiB after a minute, {:.1} at the most since, {:.1} at the end; {} open files, {} at the end; \
         {:.1} % of one CPU; {} lines in its log since the start of the attacks.",
        seen.most_mib,
        seen.last_mib,
        before.files,
        after.files,
        (after.cpu_ms - before.cpu_ms) / 10.0 / seconds,
        after.log_lines - before.log_lines,
    );
    netfast.stop(Signal::SIGTERM)?;
    netfast.detach()?;
    ensure!(seen.lost == 0, "{} flows of others were lost", seen.lost);
    ensure!(
        seen.stolen.is_empty(),
        "flows in use from addresses that are not the attacker's: {:?}",
        seen.stolen
    );
    ensure!(
        seen.most_mib <= settled + GROWN_MIB,
        "the daemon grew from {settled:.1} to {:.1} MiB",
        seen.most_mib
    );
    ensure!(
        after.files <= before.files + FILES,
        "the daemon has {} files open, and had {}",
        after.files,
        before.files
    );
    Ok(())
}

/// Says what was sent.
fn report(sent: &[(String, u64)], seconds: f64) {
    let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("\nAll at once, for {:.1} minutes, on {cpus} CPUs:", seconds / 60.0);
    let sum: u64 = sent.iter().map(|(_, sent)| sent).sum();
    let all = sent.iter().map(|(name, sent)| (name.as_str(), *sent));
    for (name, sent) in all.chain([("sum", sum)]) {
        println!("  {name:<8} {sent:>12} frames, {:>8.0}/s", sent as f64 / seconds);
    }
}

/// Looks again and again.
fn watch(
    scene: &Scene<'_>,
    netfast: &NetfastProc,
    pid: u32,
    mut stood: BTreeMap<String, u64>,
    start: Instant,
    length: Duration,
) -> Result<Seen> {
    let evil = scene.topo.container(0, EVIL);
    let mut seen = Seen::default();
    while start.elapsed() < length {
        thread::sleep(LOOK.min(length.saturating_sub(start.elapsed())));
        let flows = all_flows(netfast)?;
        let now = standing_of(&flows);
        let lost = lost(&stood, &now);
        let stolen = flows
            .iter()
            .filter(|flow| flow.usable && flow.enters.device == evil.veth && flow.enters.source.ip() != evil.ip);
        seen.stolen
            .extend(stolen.map(|flow| format!("{} > {}", flow.enters.source, flow.enters.destination)));
        seen.looks += 1;
        seen.lost += lost;
        seen.most_flows = seen.most_flows.max(flows.len());
        seen.last_mib = resident_mib(pid)?;
        if start.elapsed() >= SETTLED {
            seen.settled_mib.get_or_insert(seen.last_mib);
            seen.most_mib = seen.most_mib.max(seen.last_mib);
        }
        if lost > 0 || seen.looks.is_multiple_of(6) {
            eprintln!(
                "hostile: {:.1} minutes: {} flows of others, {lost} lost since the last look; the daemon has {:.1} MiB",
                start.elapsed().as_secs_f64() / 60.0,
                now.len(),
                seen.last_mib
            );
        }
        stood = now;
    }
    Ok(seen)
}

/// Ends the conversations, the server last: requests and answers.
fn conversations(standing: Vec<Background>) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    let mut standing = standing.into_iter();
    let server = standing.next();
    for client in standing {
        let report: Report = ended(client)?;
        sum = (sum.0 + report.sent, sum.1 + report.answered);
    }
    if let Some(server) = server {
        server.stop()?;
    }
    Ok(sum)
}

fn ended<T: DeserializeOwned>(process: Background) -> Result<T> {
    process.signal(Signal::SIGTERM)?;
    let done = process.wait(ENDS)?;
    serde_json::from_str(&done.stdout).with_context(|| format!("{done:?}"))
}
