//! `cargo xtask fuzz`: the fuzz targets of tests/fuzz under libFuzzer, with coverage counters and, where the compiler
//! has it, the address sanitizer.
//!
//! The engine comes with the libfuzzer-sys crate and is compiled by the C++ compiler; the compiler's part (LLVM's
//! sancov) is asked for by flags, as cargo-fuzz does it, and needs no nightly. The sanitizer's flag is not for stable
//! compilers, so `RUSTC_BOOTSTRAP` is set for it.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use netfast_tests::{
    cmd,
    corpus::{self, Input},
    programs,
};

use crate::{
    measure::table::Table,
    setup::{self, Lacking, Scope},
    workspace::{cargo, root, show, target_dir},
};

/// Options of `fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which targets; all of them if none is named.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long for each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Put the smallest inputs that cover what was covered into tests/corpus, in place of what is there.
    #[arg(long)]
    keep: bool,
    /// Run one input, and show what comes of it: a file's, or one that is kept, by its name or number.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keep", "seconds"])]
    input: Option<PathBuf>,
    /// Add a file to the target's corpus, under the file's name, so that it stays whatever it covers.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keep", "seconds", "input"])]
    add: Option<PathBuf>,
}

/// The targets, by name: those of `netfast_fuzz::TARGETS`.
const TARGETS: [&str; 11] = [
    "parse",
    "programs",
    "dns",
    "vip",
    "config",
    "engine",
    "rtnetlink",
    "nftables",
    "conntrack",
    "iptables",
    "ebtables",
];
/// The longest input.
const MAX_LENGTH: u32 = 2048;
/// Bytes that are kept of a target's corpus, besides inputs with a name.
const KEPT: usize = 48 * 1024;
/// LLVM's coverage for libFuzzer: counters of each edge, their places, and operands of comparisons.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// What a run told.
#[derive(Default)]
struct Run {
    executions: u64,
    edges: u64,
    features: u64,
    inputs: u64,
    /// Why it ended, if by a finding, and the input that did it.
    finding: Option<(String, PathBuf)>,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    let targets: Vec<&str> = TARGETS
        .into_iter()
        .filter(|target| args.targets.is_empty() || args.targets.iter().any(|name| name == target))
        .collect();
    for name in &args.targets {
        ensure!(
            TARGETS.contains(&name.as_str()),
            "there is no fuzz target {name}: {}",
            TARGETS.join(", ")
        );
    }
    if let Some(input) = &args.add {
        return add(one(&targets)?, input);
    }
    setup::ensure(Scope::Build)?;
    if programs::find("c++").is_none() {
        return Err(Lacking::new("a C++ compiler, for libFuzzer: apt-get install g++").into());
    }
    let fuzzer = build()?;
    if let Some(input) = &args.input {
        let target = one(&targets)?;
        let (_, kept) = corpora(target)?;
        let input = found(input, &kept)?;
        return show(Command::new(&fuzzer).env(TARGET, target).arg(input));
    }
    let mut table = Table::default();
    table.row([
        "target",
        "seconds",
        "executions",
        "per second",
        "edges",
        "features",
        "inputs",
        "findings",
    ]);
    let mut findings = Vec::new();
    for target in targets {
        let start = Instant::now();
        let run = fuzz(&fuzzer, target, args.seconds)?;
        let seconds = start.elapsed().as_secs_f64();
        table.row([
            target.to_owned(),
            format!("{seconds:.0}"),
            run.executions.to_string(),
            format!("{:.0}", run.executions as f64 / seconds),
            run.edges.to_string(),
            run.features.to_string(),
            run.inputs.to_string(),
            u8::from(run.finding.is_some()).to_string(),
        ]);
        if args.keep {
            keep(&fuzzer, target)?;
        }
        if let Some((why, input)) = run.finding {
            findings.push(format!(
                "{target}: {why}\n  cargo xtask fuzz {target} --input {}",
                input.display()
            ));
        }
    }
    print!("\n{}", table.render());
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} findings:\n{}", findings.len(), findings.join("\n"))
}

/// The variable that tells the fuzzer its target.
const TARGET: &str = "NETFAST_FUZZ_TARGET";

/// Builds the fuzzer in a target directory of its own, since its flags are for all crates.
fn build() -> Result<PathBuf> {
    let triple = rustc(&["-vV"])?
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc does not tell its host")?;
    let mut flags: Vec<&str> = COVERAGE.to_vec();
    flags.extend(["--cfg", "fuzzing"]);
    let libraries = Path::new(&rustc(&["--print", "sysroot"])?)
        .join("lib/rustlib")
        .join(&triple)
        .join("lib");
    let has_sanitizer = fs::read_dir(&libraries).is_ok_and(|mut files| {
        files.any(|file| file.is_ok_and(|file| file.file_name().to_string_lossy().ends_with("_rt.asan.a")))
    });
    if has_sanitizer {
        flags.push("-Zsanitizer=address");
    } else {
        eprintln!("without the address sanitizer: {} has none", libraries.display());
    }
    let target_dir = target_dir()?.join("fuzz");
    let mut command = cargo();
    command
        .args([
            "build",
            "--package",
            "netfast-fuzz",
            "--features",
            "engine",
            "--profile",
            "fuzz",
        ])
        // Then build scripts and macros are built without the flags.
        .args(["--target", &triple])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // The programs are fuzzed as they are built for the host.
        .env("AYA_BUILD_SKIP", "1")
        .env("RUSTC_BOOTSTRAP", "1");
    show(&mut command)?;
    Ok(target_dir.join(triple).join("fuzz/netfast-fuzz"))
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(cmd::run(Command::new(rustc).current_dir(root()).args(arguments))?
        .trim()
        .to_owned())
}

/// The target that an input is for.
fn one<'a>(targets: &[&'a str]) -> Result<&'a str> {
    let [target] = targets else {
        bail!("--input and --add are about one target: name it");
    };
    Ok(target)
}

/// Where inputs are collected, and where those that are kept are unpacked, anew each time.
fn corpora(target: &str) -> Result<(PathBuf, PathBuf)> {
    let working = target_dir()?.join("fuzz/corpus").join(target);
    fs::create_dir_all(&working).with_context(|| format!("cannot make {}", working.display()))?;
    let kept = emptied(target_dir()?.join("fuzz/kept").join(target))?;
    for (name, input) in corpus::read(target)? {
        let path = kept.join(name);
        fs::write(&path, input.bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok((working, kept))
}

/// A directory with nothing in it.
fn emptied(dir: PathBuf) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// The file that is meant: itself, or one that is kept, by its name or number.
fn found(input: &Path, kept: &Path) -> Result<PathBuf> {
    let by_number = input.to_str().and_then(|text| text.parse::<u32>().ok());
    let candidates = [Some(input.to_owned()), Some(kept.join(input))];
    let numbered = by_number.map(|number| kept.join(format!("{number:04}")));
    let mut candidates = candidates.into_iter().chain([numbered]).flatten();
    candidates.find(|path| path.is_file()).with_context(|| {
        format!(
            "--input {}: neither a file nor an input that is kept; those are in {}",
            input.display(),
            kept.display()
        )
    })
}

/// Puts an input into a target's corpus by hand.
fn add(target: &str, path: &Path) -> Result<()> {
    let name = path
        .file_name()
        .context("a file has a name")?
        .to_string_lossy()
        .into_owned();
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut inputs: Vec<Input> = corpus::read(target)?.into_iter().map(|(_, input)| input).collect();
    inputs.retain(|input| input.name.as_ref() != Some(&name));
    inputs.push(Input {
        name: Some(name),
        bytes,
    });
    corpus::write(target, inputs)
}

fn fuzz(fuzzer: &Path, target: &str, seconds: u64) -> Result<Run> {
    let (working, kept) = corpora(target)?;
    let log = target_dir()?.join("fuzz").join(format!("{target}.log"));
    let found = target_dir()?.join("fuzz/found").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    eprintln!("fuzzing {target} for {seconds} s; what it says is in {}", log.display());
    let status = Command::new(fuzzer)
        .env(TARGET, target)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_LENGTH}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-timeout=10", "-use_value_profile=1"])
        .args([&working, &kept])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
        .status()
        .with_context(|| format!("cannot start {}", fuzzer.display()))?;
    let mut run = read(&log)?;
    if status.success() {
        run.finding = None;
    } else if run.finding.is_none() {
        bail!(
            "the fuzzer ended with {}: see {}",
            cmd::how_it_ended(status),
            log.display()
        );
    }
    Ok(run)
}

/// What the engine told.
fn read(log: &Path) -> Result<Run> {
    let file = File::open(log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut run = Run::default();
    let mut why = String::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line.with_context(|| format!("cannot read {}", log.display()))?;
        run.line(&String::from_utf8_lossy(&line), &mut why);
    }
    Ok(run)
}

impl Run {
    /// `#12345 NEW cov: 812 ft: 2034 corp: 310/24Kb …`, `stat::number_of_executed_units: 12345`,
    /// `Test unit written to PATH`.
    fn line(&mut self, line: &str, why: &mut String) {
        if line.contains(" panicked at ") || line.contains("ERROR: ") {
            why.push_str(line.trim());
            why.push(' ');
        } else if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number.trim().parse().unwrap_or(0);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.finding = Some((why.trim().to_owned(), path.trim().into()));
        } else if line.starts_with('#') {
            let mut words = line.split_whitespace();
            while let Some(word) = words.next() {
                let mut number = || {
                    let word = words.next()?;
                    word.split('/').next()?.parse().ok()
                };
                match word {
                    "cov:" => self.edges = number().unwrap_or(self.edges),
                    "ft:" => self.features = number().unwrap_or(self.features),
                    "corp:" => self.inputs = number().unwrap_or(self.inputs),
                    _ => {}
                }
            }
        }
    }
}

/// The fewest and shortest inputs that cover what all of them cover, as many as there is room for.
fn keep(fuzzer: &Path, target: &str) -> Result<()> {
    let (working, kept) = corpora(target)?;
    let small = emptied(target_dir()?.join("fuzz/small").join(target))?;
    show(
        Command::new(fuzzer)
            .env(TARGET, target)
            .args(["-merge=1", "-verbosity=0"])
            .arg(format!("-max_len={MAX_LENGTH}"))
            .args([&small, &working, &kept])
            .stderr(Stdio::null()),
    )?;
    let mut found = Vec::new();
    for file in fs::read_dir(&small).with_context(|| format!("cannot list {}", small.display()))? {
        let path = file?.path();
        found.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let inputs = corpus::read(target)?.into_iter().map(|(_, input)| input).collect();
    let (count, bytes, inputs) = replaced(inputs, found);
    corpus::write(target, inputs)?;
    eprintln!("{target}: {count} inputs kept, {bytes} bytes");
    Ok(())
}

/// A corpus after a merge: what has a name stays, and the rest is replaced by the shortest of what was found, as many as
/// there is room for. How many those are, and of how many bytes, comes first.
fn replaced(mut inputs: Vec<Input>, mut found: Vec<Vec<u8>>) -> (usize, usize, Vec<Input>) {
    inputs.retain(|input| input.name.is_some());
    found.retain(|bytes| inputs.iter().all(|input| input.bytes != *bytes));
    found.sort_by_key(|bytes| (bytes.len(), bytes.clone()));
    let (mut count, mut total) = (0, 0);
    for bytes in found {
        if total + bytes.len() > KEPT {
            break;
        }
        (count, total) = (count + 1, total + bytes.len());
        inputs.push(Input { name: None, bytes });
    }
    (count, total, inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_file_a_name_or_a_number() {
        let dir = env::temp_dir().join(format!("netfast-fuzz-input-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        for name in ["0007", "a-name"] {
            fs::write(dir.join(name), "x").expect("a file");
        }
        let of = |text: &str| found(Path::new(text), &dir);
        for (text, name) in [("7", "0007"), ("0007", "0007"), ("a-name", "a-name")] {
            assert_eq!(of(text).expect(text), dir.join(name));
        }
        assert!(of("8").is_err_and(|error| error.to_string().contains("--input 8: neither a file")));
        fs::remove_dir_all(&dir).expect("it goes");
    }

    #[test]
    fn a_merge_leaves_what_has_a_name_and_replaces_the_rest_as_far_as_there_is_room() {
        let named = Input {
            name: Some("found-1".to_owned()),
            bytes: vec![1; KEPT],
        };
        let covering = |bytes: Vec<u8>| Input { name: None, bytes };
        let (count, bytes, inputs) = replaced(
            vec![named.clone(), covering(vec![2])],
            vec![vec![3; KEPT - 1], vec![4; 2], vec![1; KEPT], vec![5; 1]],
        );
        assert_eq!((count, bytes), (2, 3));
        assert_eq!(inputs, [named, covering(vec![5]), covering(vec![4; 2])]);
    }

    #[test]
    fn the_engines_words_are_understood() {
        let mut run = Run::default();
        let mut why = String::new();
        for line in [
            "INFO: Seed: 1",
            "#2	INITED cov: 7 ft: 8 corp: 1/1b exec/s: 0 rss: 30Mb",
            "#4096	pulse  cov: 812 ft: 2034 corp: 310/24Kb lim: 80 exec/s: 2048 rss: 61Mb",
            "thread '<unnamed>' panicked at tests/fuzz/src/programs.rs:7:9:",
            "Test unit written to found/crash-12",
            "stat::number_of_executed_units: 5000",
        ] {
            run.line(line, &mut why);
        }
        assert_eq!(
            (run.executions, run.edges, run.features, run.inputs),
            (5000, 812, 2034, 310)
        );
        let (why, input) = run.finding.expect("a finding");
        assert!(why.contains("programs.rs:7"), "{why}");
        assert_eq!(input, Path::new("found/crash-12"));
    }
}
