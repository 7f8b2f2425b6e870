//! Many seeds: played in arenas that seeds of one shape share, compared, and told.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
    sync::{Mutex, RwLock},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::seeds::{
    coverage::Coverage,
    generate::{SEEDS_OF_A_SHAPE, scenario},
    keep::{Keep, Part},
    scenario::Shape,
    shrink::shrink,
};

use super::{
    super::world::Mode,
    arena::Arena,
    compare::{Difference, compare},
    play::{Record, play},
    settle::{HASTY, PATIENT, Patience},
};

/// How long a seed that fails is made smaller.
const SHRINKING: Duration = Duration::from_mins(1);
/// So many failures are enough to see what is wrong.
const ENOUGH: usize = 8;

/// Set: so many seeds that differ end the run, one if it is no number, and none is made smaller.
const BRIEF: &str = "NETFAST_SEEDS_BRIEF";

/// Set: only seeds are played that have a rule, a step or a packet of a kind that has this in its name, as the coverage
/// table prints it: set by `--with`.
const WITH: &str = "NETFAST_SEEDS_WITH";

/// The table must show each reason so often, in a run of so many seeds.
const LEAST: u64 = 20;
const MANY: u64 = 2000;
/// And each kind of judge as often in so many seeds.
const EACH: u64 = 3000;

/// So many batches are played at the same time: most of the time netfast is waited for. On two CPUs a seed takes 0.5 s
/// then, of 1.2 s for one after the other.
const LANES: usize = 3;

/// A seed that failed.
struct Failure {
    seed: u64,
    text: String,
}

/// What has come of the seeds so far.
#[derive(Default)]
struct Tally {
    played: u64,
    coverage: Coverage,
    failures: Vec<Failure>,
    hasty: Vec<(u64, Difference)>,
}

/// Seeds that are played in lanes.
struct Run {
    from: u64,
    count: u64,
    start: Instant,
    next: Mutex<u64>,
    tally: Mutex<Tally>,
    /// Held for writing by who plays with patience: nobody else is to make the machine busy then.
    quiet: RwLock<()>,
}

/// Plays them all and panics, at the end, if any differs.
pub fn seeds(from: u64, count: u64, json: Option<PathBuf>) {
    let run = Run {
        from,
        count,
        start: Instant::now(),
        next: Mutex::new(from),
        tally: Mutex::default(),
        quiet: RwLock::new(()),
    };
    thread::scope(|scope| {
        for lane in 0..LANES {
            let run = &run;
            scope.spawn(move || run.lane(lane));
        }
    });
    let seconds = run.start.elapsed().as_secs_f64();
    let Tally {
        played,
        coverage,
        failures,
        hasty,
    } = run.tally.into_inner().expect("no lane panicked");
    for (seed, difference) in &hasty {
        eprintln!(
            "seed {seed} differed once, and not again with more patience:\n{}",
            difference.text
        );
    }
    eprintln!("{coverage}\n{:.2} s for each seed", seconds / played as f64);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&coverage).expect("numbers");
        fs::write(&path, text).expect("the coverage table is written");
        eprintln!("the same as JSON: {}", path.display());
    }
    let mut seeds: Vec<u64> = failures.iter().map(|failure| failure.seed).collect();
    seeds.sort_unstable();
    assert!(failures.is_empty(), "seeds {seeds:?} differ: see above");
    assert!(played > 0, "no seed is like that");
    assert!(
        coverage.fast_packets * 10 > coverage.seeds * 100,
        "hardly anything took the fast path: {} packets of {} seeds",
        coverage.fast_packets,
        coverage.seeds
    );
    assert!(
        played < MANY || coverage.xdp_packets > played,
        "{played} seeds, and {} datagrams went by XDP",
        coverage.xdp_packets
    );
    let rare = coverage.rare(LEAST);
    assert!(
        played < MANY || rare.is_empty(),
        "{played} seeds, and yet these reasons were hit fewer than {LEAST} times: {rare:?}"
    );
    let least = LEAST * played / EACH;
    let seldom = coverage.seldom(least);
    assert!(
        played < MANY || seldom.is_empty(),
        "{played} seeds, and yet these judges occurred fewer than {least} times: {seldom:?}"
    );
}

impl Run {
    /// Plays batches until none is left.
    fn lane(&self, lane: usize) {
        let enough = env::var(BRIEF).map_or(ENOUGH, |text| text.parse().unwrap_or(1));
        while let Some(batch) = self.next_batch() {
            if self.tally.lock().expect("the tally").failures.len() >= enough {
                return;
            }
            let different = {
                let _shared = self.quiet.read().expect("quiet");
                let (coverage, different) = batch_of(&batch, lane);
                let mut tally = self.tally.lock().expect("the tally");
                tally.coverage.add(&coverage);
                tally.played += coverage.seeds;
                different
            };
            for (seed, difference) in different {
                let failure = {
                    let _alone = self.quiet.write().expect("quiet");
                    confirm(seed, &difference, lane)
                };
                let mut tally = self.tally.lock().expect("the tally");
                match failure {
                    Some(failure) => {
                        eprintln!("{}", failure.text);
                        tally.failures.push(failure);
                        if tally.failures.len() >= enough {
                            return;
                        }
                    }
                    None => tally.hasty.push((seed, difference)),
                }
            }
            let tally = self.tally.lock().expect("the tally");
            eprintln!(
                "{} of {} seeds from {}: {} differ, {} only in haste; {:.0} s",
                tally.played,
                self.count,
                self.from,
                tally.failures.len(),
                tally.hasty.len(),
                self.start.elapsed().as_secs_f32()
            );
        }
    }

    /// Seeds of one shape.
    fn next_batch(&self) -> Option<Vec<u64>> {
        let kind = env::var(WITH).ok();
        let mut next = self.next.lock().expect("the next seed");
        let last = self.from + self.count;
        while *next < last {
            let first = *next;
            let end = (first / SEEDS_OF_A_SHAPE + 1) * SEEDS_OF_A_SHAPE;
            *next = end.min(last);
            let seeds = (first..*next).filter(|seed| kind.as_ref().is_none_or(|kind| has(*seed, kind)));
            let seeds: Vec<u64> = seeds.collect();
            if !seeds.is_empty() {
                return Some(seeds);
            }
        }
        None
    }
}

/// Whether something of that kind is in a seed's scenario.
fn has(seed: u64, kind: &str) -> bool {
    let mut coverage = Coverage::default();
    coverage.note(&Part::whole(&scenario(seed)));
    let mut kinds = coverage.rules.keys().chain(coverage.steps.keys());
    kinds.any(|name| name.contains(kind))
}

/// Plays seeds of one shape: what was hit, and those that differ, with what differs.
fn batch_of(seeds: &[u64], lane: usize) -> (Coverage, Vec<(u64, Difference)>) {
    let parts: Vec<Part> = seeds.iter().map(|seed| Part::whole(&scenario(*seed))).collect();
    let (off, on) = both(&parts[0].scenario.shape, &parts, &HASTY, lane);
    let mut coverage = Coverage::default();
    let mut different = Vec::new();
    for ((seed, off), on) in seeds.iter().zip(&off).zip(&on) {
        coverage.add(&on.coverage);
        if let Some(difference) = compare(off, on) {
            different.push((*seed, difference));
        }
    }
    (coverage, different)
}

/// The same with netfast off and on, at the same time on different CPUs if there are two.
fn both(shape: &Shape, parts: &[Part], patience: &Patience, lane: usize) -> (Vec<Record>, Vec<Record>) {
    let all = |mode| {
        let mut arena = Arena::new(shape, mode, lane).expect("an arena");
        let played = parts.iter().map(|part| play(&mut arena, part, patience));
        played.collect::<Vec<Record>>()
    };
    thread::scope(|scope| {
        let off = scope.spawn(|| all(Mode::Off));
        let on = scope.spawn(|| all(Mode::On));
        (off.join().expect("netfast off"), on.join().expect("netfast on"))
    })
}

/// Whether a part of a scenario differs in arenas of its own, and how.
fn differs(part: &Part, patience: &Patience, lane: usize) -> Option<Difference> {
    let (off, on) = both(&part.scenario.shape, std::slice::from_ref(part), patience, lane);
    compare(&off[0], &on[0])
}

/// Whether the kernel by itself does the same twice.
fn is_certain(part: &Part, lane: usize) -> bool {
    let once = || {
        let off = || {
            let mut arena = Arena::new(&part.scenario.shape, Mode::Off, lane).expect("an arena");
            play(&mut arena, part, &PATIENT)
        };
        thread::scope(|scope| scope.spawn(off).join().expect("netfast off"))
    };
    compare(&once(), &once()).is_none()
}

/// Plays a seed that has differed again, alone and with patience, and makes it smaller.
fn confirm(seed: u64, first: &Difference, lane: usize) -> Option<Failure> {
    let whole = scenario(seed);
    let part = Part::whole(&whole);
    let difference = differs(&part, &PATIENT, lane)?;
    if !is_certain(&part, lane) {
        return None;
    }
    // For trials of faults: which seed finds one is all that is asked.
    if env::var_os(BRIEF).is_some() {
        let text = format!("\nseed {seed} differs:\n{}", difference.text);
        return Some(Failure { seed, text });
    }
    let mut text = format!("\nseed {seed} differs:\n{}", difference.text);
    if first.text != difference.text {
        let _ = writeln!(text, "together with others, and in haste, it had been:\n{}", first.text);
    }
    let first_title = difference
        .titles
        .iter()
        .min_by_key(|title| place(title))
        .expect("a step");
    let deadline = Instant::now() + SHRINKING;
    // Without patience a part may differ that does not differ with it.
    let keep = shrink(&whole, deadline, |keep| {
        let part = keep.of(&whole);
        // In the same step, or it would be something else that is found.
        let found = differs(&part, &HASTY, lane);
        found.is_some_and(|found| found.titles.contains(first_title))
    });
    let _ = writeln!(text, "{}", small(seed, &keep, lane));
    Some(Failure { seed, text })
}

/// Where a step stands; what conntrack knows comes last.
fn place(title: &str) -> usize {
    let number = title.split(':').next().and_then(|number| number.parse().ok());
    number.unwrap_or(usize::MAX)
}

/// The smallest part of a scenario that differs, and how to play it.
fn small(seed: u64, keep: &Keep, lane: usize) -> String {
    let whole = scenario(seed);
    let part = keep.of(&whole);
    let difference = differs(&part, &PATIENT, lane);
    let note = difference.map_or_else(
        || "it does not differ with more patience".to_owned(),
        |difference| difference.text,
    );
    format!("this much of it is enough:\n{part}{note}\ncargo xtask test differential --seed {seed} --keep '{keep}'")
}

/// One seed, or a part of it, told whole.
pub fn replay(seed: u64, keep: Option<&Keep>) {
    let whole = scenario(seed);
    let part = keep.map_or_else(|| Part::whole(&whole), |keep| keep.of(&whole));
    println!("{part}");
    let (off, on) = both(&part.scenario.shape, std::slice::from_ref(&part), &PATIENT, 0);
    for step in &on[0].steps {
        println!("{}", step.title);
        for line in &step.lines {
            println!("    {line}");
        }
    }
    println!("{}", on[0].coverage);
    if let Some(difference) = compare(&off[0], &on[0]) {
        panic!("seed {seed} differs:\n{}", difference.text);
    }
}
