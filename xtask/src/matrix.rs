//! `cargo xtask matrix`: the tests of paths on each container engine, and a table of engines and paths.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Result, ensure};
use netfast_tests::{
    docker_host::{Kind, Release, release},
    matrix::{self, Cell},
    netfast_proc::ensure_bpffs,
};

use crate::{
    build, engines,
    setup::{self, Scope},
    test,
    workspace::{show, target_dir},
};

/// The tests that tell of paths.
const PATHS: [&str; 2] = [
    test::PATHS,
    "docker::paths::every_path_is_exact_and_fast_without_the_userland_proxy",
];
/// Those that tell whether the engine's rules are kept. podman has other rules.
const RULES: [&str; 2] = [
    "docker::policy::rules_hold_with_iptables_nft",
    "docker::policy::rules_hold_with_iptables_legacy",
];

/// Those about podman alone.
const PODMAN: [&str; 2] = [
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
    /// Mebibytes that a transfer carries in each direction.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
}

fn all() -> Vec<String> {
    let others = engines::ENGINES.iter().map(|engine| engine.name);
    [engines::INSTALLED].into_iter().chain(others).map(Into::into).collect()
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(Scope::All)?;
    ensure_bpffs()?;
    let built = build::build(false)?;
    let file = target_dir()?.join("matrix.jsonl");
    if file.exists() {
        fs::remove_file(&file)?;
    }
    let mut failed = Vec::new();
    let mut names = Vec::new();
    for engine in &args.engines {
        let release = engines::release(engine)?;
        let name = release.name()?;
        println!("\n{name}");
        let mut command = test::it(&built);
        command
            .args(["--exact", "--nocapture", "--test-threads", "1"])
            .args(tests_for(&release))
            .env(matrix::FILE, &file)
            .env(matrix::MEBIBYTES, args.mebibytes.to_string());
        set(&mut command, &release);
        if let Err(error) = show(&mut command) {
            failed.push(format!("{name}: {error:#}"));
        }
        names.push(name);
    }
    println!("\n{}", table(&names, &matrix::read(&file)?));
    println!(
        "\nThe part of the packets on the fast path. exact: {} MiB arrived in each direction as they were sent (SHA-256).",
        args.mebibytes
    );
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn tests_for(release: &Release) -> Vec<&'static str> {
    let (paths, rules) = match release.kind() {
        Kind::Docker => (&PATHS[..], &RULES[..]),
        // It has no proxy of its own that could be switched off.
        Kind::Podman => (&PATHS[..1], &PODMAN[..]),
    };
    paths.iter().chain(rules).copied().collect()
}

/// Lets the tests' Docker hosts run this engine.
fn set(command: &mut Command, release: &Release) {
    match release.root() {
        Some(root) => command.env(release::VARIABLE, root),
        None => command.env_remove(release::VARIABLE),
    };
}

/// The table, in Markdown: a line for each path, a column for each engine as it was set up.
fn table(engines: &[String], cells: &[Cell]) -> String {
    let mut columns: Vec<(&str, &str)> = Vec::new();
    for engine in engines {
        let settings: BTreeSet<&str> = cells
            .iter()
            .filter(|cell| &cell.engine == engine)
            .map(|cell| cell.setting.as_str())
            .collect();
        columns.extend(settings.into_iter().map(|setting| (engine.as_str(), setting)));
    }
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for cell in cells {
        let row = (cell.path.as_str(), cell.protocol.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let names = columns.iter().map(|(engine, setting)| format!("{engine}, {setting}"));
    let mut lines = vec![line("path".to_owned(), names)];
    lines.push(line("---".to_owned(), columns.iter().map(|_| "---".to_owned())));
    lines.extend(rows.into_iter().map(|(path, protocol)| {
        let said = columns.iter().map(|(engine, setting)| {
            let mut found = cells.iter().filter(|cell| {
                (cell.engine.as_str(), cell.setting.as_str()) == (*engine, *setting)
                    && (cell.path.as_str(), cell.protocol.as_str()) == (path, protocol)
            });
            // Of several the last: a test that was repeated has repeated them all.
            found.next_back().map_or_else(|| "-".to_owned(), told)
        });
        line(format!("{path}, {protocol}"), said)
    }));
    lines.join("\n")
}

fn line(first: String, others: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = [first].into_iter().chain(others).collect();
    format!("| {} |", all.join(" | "))
}

fn told(cell: &Cell) -> String {
    let Some(share) = cell.fast_share else {
        return "kept".to_owned();
    };
    let fast = format!("{:.2} %", share * 100.0);
    if cell.exact_bytes > 0 {
        format!("{fast}, exact")
    } else {
        fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(engine: &str, setting: &str, protocol: &str, fast_share: Option<f64>) -> Cell {
        Cell {
            engine: engine.into(),
            setting: setting.into(),
            path: "docker0".into(),
            protocol: protocol.into(),
            fast_share,
            exact_bytes: if protocol == "TCP" { 1 << 20 } else { 0 },
        }
    }

    #[test]
    fn what_was_not_run_is_a_gap_and_not_a_success() {
        let cells = [
            cell("Docker 28.5.2", "a", "TCP", Some(0.998)),
            cell("Docker 28.5.2", "b", "UDP", Some(1.0)),
            cell("podman 5.8.2", "a", "rules", None),
        ];
        let engines = ["Docker 28.5.2".to_owned(), "podman 5.8.2".to_owned()];
        assert_eq!(
            table(&engines, &cells),
            "| path | Docker 28.5.2, a | Docker 28.5.2, b | podman 5.8.2, a |\n\
             | --- | --- | --- | --- |\n\
             | docker0, TCP | 99.80 %, exact | - | - |\n\
             | docker0, UDP | - | 100.00 % | - |\n\
             | docker0, rules | - | - | kept |"
        );
    }
}
