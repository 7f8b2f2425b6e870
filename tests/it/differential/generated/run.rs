//! Many seeds: played in arenas that seeds of one shape share, compared, and told.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
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

/// Set: the first seed that differs ends the run, and is not made smaller.
const BRIEF: &str = "NETFAST_SEEDS_BRIEF";

/// A seed that failed.
struct Failure {
    seed: u64,
    text: String,
}

/// Plays them all and panics, at the end, if any differs.
pub fn seeds(from: u64, count: u64, json: Option<PathBuf>) {
    let start = Instant::now();
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    let mut hasty = Vec::new();
    let mut seed = from;
    while seed < from + count && failures.len() < if env::var_os(BRIEF).is_some() { 1 } else { ENOUGH } {
        let end = (seed / SEEDS_OF_A_SHAPE + 1) * SEEDS_OF_A_SHAPE;
        let batch: Vec<u64> = (seed..end.min(from + count)).collect();
        seed = end;
        for (seed, difference) in batch_of(&batch, &mut coverage) {
            if env::var_os(BRIEF).is_some() && !failures.is_empty() {
                break;
            }
            match confirm(seed, &difference) {
                Some(failure) => {
                    eprintln!("{}", failure.text);
                    failures.push(failure);
                }
                None => hasty.push((seed, difference)),
            }
        }
        eprintln!(
            "seeds {from} to {}: {} differ, {} only in haste; {:.0} s",
            end.min(from + count) - 1,
            failures.len(),
            hasty.len(),
            start.elapsed().as_secs_f32()
        );
    }
    let seconds = start.elapsed().as_secs_f64();
    for (seed, difference) in &hasty {
        eprintln!(
            "seed {seed} differed once, and not again with more patience:\n{}",
            difference.text
        );
    }
    eprintln!("{coverage}\n{:.2} s for each seed", seconds / count as f64);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&coverage).expect("numbers");
        fs::write(&path, text).expect("the coverage table is written");
        eprintln!("the same as JSON: {}", path.display());
    }
    let seeds: Vec<u64> = failures.iter().map(|failure| failure.seed).collect();
    assert!(failures.is_empty(), "seeds {seeds:?} differ: see above");
    assert!(
        coverage.fast_packets * 10 > coverage.seeds * 100,
        "hardly anything took the fast path: {} packets of {} seeds",
        coverage.fast_packets,
        coverage.seeds
    );
}

/// Seeds of one shape; those that differ, with what differs.
fn batch_of(seeds: &[u64], coverage: &mut Coverage) -> Vec<(u64, Difference)> {
    let parts: Vec<Part> = seeds.iter().map(|seed| Part::whole(&scenario(*seed))).collect();
    let (off, on) = both(&parts[0].scenario.shape, &parts, &HASTY);
    let mut different = Vec::new();
    for ((seed, off), on) in seeds.iter().zip(&off).zip(&on) {
        coverage.add(&on.coverage);
        if let Some(difference) = compare(off, on) {
            different.push((*seed, difference));
        }
    }
    different
}

/// The same with netfast off and on, at the same time on different CPUs if there are two.
fn both(shape: &Shape, parts: &[Part], patience: &Patience) -> (Vec<Record>, Vec<Record>) {
    let all = |mode| {
        let mut arena = Arena::new(shape, mode).expect("an arena");
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
fn differs(part: &Part, patience: &Patience) -> Option<Difference> {
    let (off, on) = both(&part.scenario.shape, std::slice::from_ref(part), patience);
    compare(&off[0], &on[0])
}

/// Whether the kernel by itself does the same twice.
fn is_certain(part: &Part) -> bool {
    let once = || {
        let off = || {
            let mut arena = Arena::new(&part.scenario.shape, Mode::Off).expect("an arena");
            play(&mut arena, part, &PATIENT)
        };
        thread::scope(|scope| scope.spawn(off).join().expect("netfast off"))
    };
    compare(&once(), &once()).is_none()
}

/// Plays a seed that has differed again, alone and with patience, and makes it smaller.
fn confirm(seed: u64, first: &Difference) -> Option<Failure> {
    let whole = scenario(seed);
    let part = Part::whole(&whole);
    let difference = differs(&part, &PATIENT)?;
    if !is_certain(&part) {
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
        let found = differs(&part, &HASTY);
        found.is_some_and(|found| found.titles.contains(first_title))
    });
    let _ = writeln!(text, "{}", small(seed, &keep));
    Some(Failure { seed, text })
}

/// Where a step stands; what conntrack knows comes last.
fn place(title: &str) -> usize {
    let number = title.split(':').next().and_then(|number| number.parse().ok());
    number.unwrap_or(usize::MAX)
}

/// The smallest part of a scenario that differs, and how to play it.
fn small(seed: u64, keep: &Keep) -> String {
    let whole = scenario(seed);
    let part = keep.of(&whole);
    let difference = differs(&part, &PATIENT);
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
    let (off, on) = both(&part.scenario.shape, std::slice::from_ref(&part), &PATIENT);
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
