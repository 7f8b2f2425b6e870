//! `cargo xtask matrix`: the tests of paths on each container engine, and a table of engines and paths.
//!
//! What a run has seen is kept by engine in target/matrix, so that a table of all can be printed when only one engine was
//! run again.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::{
    docker_host::{Release, release},
    matrix,
    netfast_proc::ensure_bpffs,
};

use crate::{
    build::{self, Built},
    engines,
    setup::{self, Scope},
    test, vm,
    workspace::{show, target_dir},
};

mod table;

/// Those of [`TESTS`] that are played in an emulated machine: the others ask the engine rather than the kernel.
const EMULATED: [&str; 2] = [test::PATHS, "docker::six::every_path_of_ipv6_is_exact_and_fast"];

/// The tests that tell of paths, and whether the engine's rules are kept; of these each engine is asked what it is about.
const TESTS: [&str; 13] = [
    test::PATHS,
    "docker::paths::every_path_is_exact_and_fast_without_the_userland_proxy",
    "docker::six::every_path_of_ipv6_is_exact_and_fast",
    "docker::six::every_path_of_ipv6_is_exact_and_fast_without_the_userland_proxy",
    "docker::ports::ranges_and_single_addresses_are_fast_where_they_are_published_and_nowhere_else",
    "docker::gateways::every_gateway_mode_is_kept_and_fast_where_it_allows",
    "docker::policy::rules_hold_with_iptables_nft",
    "docker::policy::rules_hold_with_iptables_legacy",
    "docker::six::what_ipv6_may_reach_is_what_the_engine_lets_it",
    "docker::six::a_rule_of_ip6tables_ends_a_published_flow",
    "docker::life::dockerd_goes_and_comes_back",
    "docker::podman::pods_names_and_aliases_are_what_they_are",
    "docker::podman::containers_that_come_and_go_are_not_the_end_of_the_runtime",
];

/// Options of `matrix`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The engines, separated by commas: installed, 26.1, 28.5, podman-5. Those of other Debian releases are fetched the
    /// first time.
    #[arg(long = "engine", value_name = "NAME", value_delimiter = ',', value_parser = engines::parse,
        default_values_t = all())]
    engines: Vec<String>,
    /// Kernels other than this machine's, in an emulated one (5.15, 6.1, 6.12, 6.18, 7.2): only the paths, and slowly.
    #[arg(long = "kernel", value_name = "SERIES", value_delimiter = ',', value_parser = vm::kernels::parse)]
    kernels: Vec<String>,
    /// Mebibytes that a transfer carries in each direction; 1024, or 16 in an emulated machine.
    #[arg(long)]
    mebibytes: Option<u64>,
    /// Minutes that an emulated machine may take for each engine.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Only tests whose name contains this, again: what the others have seen last is kept.
    #[arg(long, value_name = "TEXT", conflicts_with = "kernels")]
    only: Option<String>,
    /// Only print the table of what was seen last.
    #[arg(long)]
    table: bool,
}

fn all() -> Vec<String> {
    let others = engines::ENGINES.iter().map(|engine| engine.name);
    [engines::INSTALLED].into_iter().chain(others).map(Into::into).collect()
}

/// One engine on one kernel.
struct Column<'a> {
    engine: &'a str,
    /// Not this machine's.
    kernel: Option<&'a str>,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    let kernels: Vec<Option<&str>> = match args.kernels.as_slice() {
        [] => vec![None],
        some => some.iter().map(|kernel| Some(kernel.as_str())).collect(),
    };
    let columns: Vec<Column> = kernels
        .iter()
        .flat_map(|kernel| {
            args.engines.iter().map(|engine| Column {
                engine,
                kernel: *kernel,
            })
        })
        .collect();
    let failed = if args.table { Vec::new() } else { play(&columns, args)? };
    let mut cells = Vec::new();
    for column in &columns {
        cells.extend(matrix::read(&column.file()?)?);
    }
    println!("\n{}", table::of(&cells));
    println!(
        "\nThe part of the packets on the fast path; the MiB arrived in each direction as they were sent (SHA-256)."
    );
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Runs the tests of each; returns what failed.
fn play(columns: &[Column], args: &Args) -> Result<Vec<String>> {
    setup::ensure(Scope::All)?;
    ensure_bpffs()?;
    let built = build::build(false)?;
    let mut failed = Vec::new();
    for column in columns {
        let release = engines::release(column.engine)?;
        let file = column.file()?;
        fs::create_dir_all(file.parent().context("target/matrix")?)?;
        if args.only.is_none() && file.exists() {
            fs::remove_file(&file)?;
        }
        let name = column.name(&release)?;
        println!("\n{name}");
        let done = match column.kernel {
            None => column.here(&release, &built, args),
            Some(kernel) => column.emulated(kernel, &release, args),
        };
        if let Err(error) = done {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    Ok(failed)
}

impl Column<'_> {
    fn file(&self) -> Result<PathBuf> {
        let kernel = self.kernel.map(|kernel| format!("-linux-{kernel}")).unwrap_or_default();
        Ok(target_dir()?
            .join("matrix")
            .join(format!("{}{kernel}.jsonl", self.engine)))
    }

    fn name(&self, release: &Release) -> Result<String> {
        let kernel = self
            .kernel
            .map(|kernel| format!(", Linux {kernel}"))
            .unwrap_or_default();
        Ok(format!("{}{kernel}", release.name()?))
    }

    /// On this machine's kernel.
    fn here(&self, release: &Release, built: &Built, args: &Args) -> Result<()> {
        let mut tests = tests_for(&TESTS, release)?;
        tests.retain(|test| args.only.as_ref().is_none_or(|only| test.contains(only)));
        // Without a name every test there is would be run.
        ensure!(!tests.is_empty(), "no test of the matrix is named like that");
        let mut command = test::it(built);
        command
            .args(["--exact", "--nocapture", "--test-threads", "1"])
            .args(tests)
            .env(matrix::FILE, self.file()?)
            .env(matrix::MEBIBYTES, args.mebibytes.unwrap_or(1024).to_string());
        match release.root() {
            Some(root) => command.env(release::VARIABLE, root),
            None => command.env_remove(release::VARIABLE),
        };
        show(&mut command)
    }

    /// On another kernel: what the tests have seen comes by the machine's console.
    fn emulated(&self, kernel: &str, release: &Release, args: &Args) -> Result<()> {
        let mut environment = vec![
            // On the console: a run that takes too long has told what it has seen until then.
            (matrix::FILE, "/proc/self/fd/1".to_owned()),
            (matrix::MEBIBYTES, args.mebibytes.unwrap_or(16).to_string()),
            (matrix::EMULATED, "1".to_owned()),
        ];
        environment.extend(
            release
                .root()
                .map(|root| (release::VARIABLE, root.display().to_string())),
        );
        let limit = Duration::from_mins(args.minutes);
        let done = vm::run_on(kernel, &tests_for(&EMULATED, release)?, environment, limit)?;
        fs::write(self.file()?, cells_on(&done.said))?;
        done.result
    }
}

/// The lines of cells among what tests print, which may not have ended their own line.
fn cells_on(console: &str) -> String {
    let cells = console.lines().filter_map(|line| {
        let (_, cell) = line.split_once("{\"engine\":")?;
        Some(format!("{{\"engine\":{}\n", cell.trim_end()))
    });
    cells.collect()
}

/// Those of the tests that are about this engine.
fn tests_for(tests: &[&'static str], release: &Release) -> Result<Vec<&'static str>> {
    let mut chosen = Vec::new();
    for test in tests {
        if test::is_about(test, release)? {
            chosen.push(*test);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_among_what_tests_print() {
        let said =
            "test a ... {\"engine\":\"Docker\",\"path\":\"docker0\"}\r\ndocker0: 99 %\r\n{\"engine\":1}\r\nok\r\n";
        let cells = "{\"engine\":\"Docker\",\"path\":\"docker0\"}\n{\"engine\":1}\n";
        assert_eq!(cells_on(said), cells);
    }

    #[test]
    fn every_test_of_the_matrix_is_there() {
        let sources = ["paths", "six", "ports", "gateways", "policy", "life", "podman"];
        for test in TESTS.iter().chain(&EMULATED) {
            let (module, name) = test
                .strip_prefix("docker::")
                .and_then(|path| path.split_once("::"))
                .expect("a test of the docker ring");
            assert!(sources.contains(&module), "{test}");
            let source = crate::workspace::root().join(format!("tests/it/docker/{module}.rs"));
            let text = fs::read_to_string(source).expect("the tests' source");
            assert!(text.contains(&format!("fn {name}()")), "{test}");
        }
    }
}
