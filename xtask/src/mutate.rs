//! `cargo xtask mutate`: breaks the data path on purpose, in one line at a time, and shows which tests of the packet ring
//! notice. A fault that none notices is a line that nothing tests.
//!
//! Only the BPF object is built anew for each fault, from a scratch copy; the tests are those of the workspace, with the
//! object handed to them. So what they expect comes from the sound sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netfast_tests::{cmd, netfast_proc::ensure_bpffs};
use serde::Deserialize;

use crate::{
    build::{self, Built},
    setup::{self, Scope},
    test::{self, Ring},
    workspace::{cargo, root, target_dir},
};

/// Options of `mutate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only faults whose name or file contains one of these; all of them if none is given.
    #[arg(value_name = "TEXT")]
    only: Vec<String>,
    /// Only those that come after this one in the list: to go on with a run that was cut off.
    #[arg(long, value_name = "NAME")]
    after: Option<String>,
    /// Run all tests of each fault, and not only until one notices.
    #[arg(long)]
    all_tests: bool,
    /// Only list the faults.
    #[arg(long)]
    list: bool,
}

/// Where the faults are listed.
const FAULTS: &str = "tests/mutations.toml";
/// What the scratch copy is made of.
const SOURCES: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
    ".cargo",
    "netfast",
    "netfast-common",
    "netfast-ebpf",
    "tests",
    "xtask",
    "README.md",
];
/// The variable by which the packet ring is told which object to load.
const OBJECT_VARIABLE: &str = "NETFAST_BPF_OBJECT";
/// Tests that are not asked. The first three any change of the programs fails, whatever it means: they compare them with the
/// host build, or measure. The others are about programs of their own, and take most of the ring's time: a fault in these names
/// its tests.
const LEFT_OUT: [&str; 6] = [
    "packet::twin",
    "packet::verifier",
    "abi",
    "packet::answers",
    "packet::vip",
    "packet::trace",
];
/// Longest build of one object, and run of the tests on it.
const BUILD_LIMIT: Duration = Duration::from_mins(20);
const TEST_LIMIT: Duration = Duration::from_mins(5);
/// How the harness ends the line of a test that failed.
const FAILED: &str = " ... FAILED";
/// What the harness says when the kernel refuses a program.
const REFUSED: [&str; 2] = ["the program loads", "the object loads"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    fault: Vec<Fault>,
}

/// A change of the sources.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    /// What is wrong with it, in words.
    name: String,
    /// The file, from the workspace's root.
    file: PathBuf,
    /// What is taken out; it is there once.
    find: String,
    /// What is put in its place.
    replace: String,
    /// Only tests whose names begin so are asked, whether they are [left out](LEFT_OUT) or not.
    tests: Option<String>,
}

/// What came of a fault.
enum Found {
    /// These tests failed.
    By(BTreeSet<String>),
    /// None did.
    Never,
    /// It is none: it does not compile, or the kernel refuses it. The end of what was said about it.
    Invalid(String),
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    let mut faults = read(&args.only)?;
    if let Some(name) = &args.after {
        let place = faults.iter().position(|fault| fault.name == *name);
        let place = place.with_context(|| format!("--after {name:?}: no fault has that name"))?;
        faults.drain(..=place);
    }
    if args.list {
        for fault in &faults {
            println!("{}: {}", fault.file.display(), fault.name);
        }
        return Ok(());
    }
    setup::ensure(Scope::All)?;
    ensure_bpffs()?;
    let scratch = Scratch::new()?;
    let built = build::build(false)?;
    let tests = test::tests_of(&built, Ring::Packet)?;
    let ring = |object: &Path, asked: Option<&str>| {
        let tests = asked_of(&tests, asked)?;
        if args.all_tests {
            tests_that_fail(&built, &tests, object)
        } else {
            first_that_fails(&built, &tests, object)
        }
    };
    let sound = scratch
        .build()
        .map_err(|text| anyhow::anyhow!("the sound sources do not build:\n{text}"))?;
    let asked: BTreeSet<_> = faults.iter().map(|fault| fault.tests.as_deref()).collect();
    for asked in asked {
        match ring(&sound, asked)? {
            Found::Never => {}
            Found::By(tests) => bail!("without a fault these tests fail: {}", list(&tests)),
            Found::Invalid(text) => bail!("the kernel refuses the sound object:\n{text}"),
        }
    }
    println!("| fault | where | found by |\n| --- | --- | --- |");
    let (mut missed, mut invalid) = (0, 0);
    for fault in &faults {
        let start = Instant::now();
        let found = scratch.with(fault, || match scratch.build() {
            Ok(object) => ring(&object, fault.tests.as_deref()),
            Err(text) => Ok(Found::Invalid(text)),
        })?;
        let by = match &found {
            Found::By(tests) => list(tests),
            Found::Never => {
                missed += 1;
                "**no test**".to_owned()
            }
            Found::Invalid(text) => {
                invalid += 1;
                eprintln!("{text}");
                "**it does not build or load**".to_owned()
            }
        };
        let file = fault.file.file_name().unwrap_or_default().to_string_lossy();
        println!("| {} | `{file}` | {by} |", fault.name);
        eprintln!("({:.0} s)", start.elapsed().as_secs_f64());
    }
    println!("\n{} faults, {missed} not found, {invalid} of no use", faults.len());
    ensure!(
        missed + invalid == 0,
        "a fault was not found, or is none: see the table above, and {FAULTS}"
    );
    Ok(())
}

/// The tests that are asked: those of a name, or all that are not left out.
fn asked_of(tests: &[String], asked: Option<&str>) -> Result<Vec<String>> {
    let is_asked = |test: &&String| match asked {
        Some(name) => test.starts_with(name),
        None => !LEFT_OUT.iter().any(|name| test.starts_with(name)),
    };
    let tests: Vec<String> = tests.iter().filter(is_asked).cloned().collect();
    ensure!(
        !tests.is_empty(),
        "{FAULTS}: no test is named like {}",
        asked.unwrap_or_default()
    );
    Ok(tests)
}

/// Reads the faults, and looks whether each is in the sources as it says.
fn read(only: &[String]) -> Result<Vec<Fault>> {
    let text = fs::read_to_string(root().join(FAULTS)).with_context(|| format!("cannot read {FAULTS}"))?;
    let Faults { fault: mut faults } = toml::from_str(&text).with_context(|| format!("{FAULTS} is not right"))?;
    for fault in &faults {
        let text = fs::read_to_string(root().join(&fault.file))
            .with_context(|| format!("{FAULTS}: {:?}: cannot read {}", fault.name, fault.file.display()))?;
        fault.put(&text)?;
    }
    faults.retain(|fault| {
        let file = fault.file.to_string_lossy();
        only.is_empty() || only.iter().any(|text| fault.name.contains(text) || file.contains(text))
    });
    ensure!(!faults.is_empty(), "no fault in {FAULTS} is named like that");
    Ok(faults)
}

impl Fault {
    /// The source with the fault.
    fn put(&self, text: &str) -> Result<String> {
        let times = text.matches(&self.find).count();
        ensure!(
            times == 1,
            "{FAULTS}: {:?}: what it takes out is {times} times in {}, not once; it is to follow the sources",
            self.name,
            self.file.display()
        );
        Ok(text.replacen(&self.find, &self.replace, 1))
    }
}

/// A copy of the sources, and what is built from it.
struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self> {
        let dir = target_dir()?.join("mutate");
        let (tree, target) = (dir.join("tree"), dir.join("target"));
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
        }
        fs::create_dir_all(&tree).with_context(|| format!("cannot make {}", tree.display()))?;
        let root = root();
        let sources = SOURCES.iter().filter(|name| root.join(name).exists());
        // With the times of now: what is built there may be of a fault, when the last run was interrupted.
        cmd::run(
            Command::new("cp")
                .args(["--recursive", "--target-directory"])
                .arg(&tree)
                .args(sources)
                .current_dir(&root),
        )?;
        Ok(Self { tree, target })
    }

    /// Runs `body` with the fault in the copy.
    fn with<T>(&self, fault: &Fault, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let file = self.tree.join(&fault.file);
        let sound = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let write = |text: &str| fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()));
        write(&fault.put(&sound)?)?;
        let result = body();
        write(&sound)?;
        result
    }

    /// Builds the object, which netfast's build script leaves in the target directory; what the compiler says if it
    /// does not compile.
    fn build(&self) -> Result<PathBuf, String> {
        let output = cmd::finish(
            cargo()
                .args(["check", "--package", "netfast", "--lib"])
                .current_dir(&self.tree)
                .env("CARGO_TARGET_DIR", &self.target)
                // Ours is the workspace's.
                .env_remove("CARGO_MANIFEST_DIR"),
            BUILD_LIMIT,
        )
        .map_err(|error| format!("{error:#}"))?;
        if !output.status.success() {
            return Err(output.stderr);
        }
        Ok(self.target.join("bpf/netfast-ebpf"))
    }
}

fn tests_that_fail(built: &Built, tests: &[String], object: &Path) -> Result<Found> {
    let output = cmd::finish(
        test::it(built)
            .args(["--exact", "--test-threads", "2"])
            .args(tests)
            .env(OBJECT_VARIABLE, object),
        TEST_LIMIT,
    )?;
    if output.status.success() {
        return Ok(Found::Never);
    }
    if REFUSED.iter().any(|text| output.stdout.contains(text)) {
        return Ok(Found::Invalid(output.stdout));
    }
    let failed: BTreeSet<String> = output
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .map(str::to_owned)
        .collect();
    ensure!(
        !failed.is_empty(),
        "the tests ended with {} and named none that failed:\n{}",
        cmd::how_it_ended(output.status),
        output.stderr
    );
    Ok(Found::By(failed))
}

/// The first test that fails; the others are not waited for.
fn first_that_fails(built: &Built, tests: &[String], object: &Path) -> Result<Found> {
    let mut command = test::it(built);
    command
        .args(["--exact", "--test-threads", "2", "--nocapture"])
        .args(tests)
        .env(OBJECT_VARIABLE, object);
    let lines = cmd::until_line(&mut command, TEST_LIMIT, |line| line.ends_with(FAILED))?;
    if REFUSED.iter().any(|text| lines.stderr.contains(text)) {
        return Ok(Found::Invalid(lines.stderr));
    }
    let failed = lines
        .found
        .as_deref()
        .and_then(|line| Some(line.strip_suffix(FAILED)?.rsplit_once("test ")?.1));
    match (failed, lines.status) {
        (Some(test), _) => Ok(Found::By([test.to_owned()].into())),
        (None, Some(status)) if status.success() => Ok(Found::Never),
        (None, _) => bail!("the tests ended and named none that failed:\n{}", lines.stderr),
    }
}

fn list(tests: &BTreeSet<String>) -> String {
    let names: Vec<String> = tests
        .iter()
        .map(|test| format!("`{}`", test.trim_start_matches("packet::")))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_where_the_list_says() {
        let faults = read(&[]).expect("the list follows the sources");
        let names: BTreeSet<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
        assert_eq!(names.len(), faults.len(), "two faults have one name");
        for fault in &faults {
            assert_ne!(fault.find, fault.replace, "{}", fault.name);
        }
    }

    #[test]
    fn a_fault_s_own_tests_are_asked_though_others_leave_them_out() {
        let all = ["packet::vip::icmp::a", "packet::vip::six::b", "packet::six::c"].map(str::to_owned);
        assert_eq!(asked_of(&all, None).expect("one"), ["packet::six::c"]);
        assert_eq!(
            asked_of(&all, Some("packet::vip::six")).expect("one"),
            ["packet::vip::six::b"]
        );
        asked_of(&all, Some("packet::vap")).expect_err("there is none");
    }

    #[test]
    fn a_fault_that_is_there_twice_is_refused() {
        let fault = Fault {
            name: "x".into(),
            file: "a.rs".into(),
            find: "one".into(),
            replace: "two".into(),
            tests: None,
        };
        assert_eq!(fault.put("one, three").expect("it is there once"), "two, three");
        assert!(fault.put("one, one").is_err() && fault.put("three").is_err());
    }
}
