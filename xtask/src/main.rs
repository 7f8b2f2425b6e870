//! netfast's automation. `cargo xtask help` lists the verbs; CI calls these and nothing else.
//!
//! Exit codes: 0, done; 1, it failed (a test, a lint finding, a program that was run: the message says which);
//! 2, wrong usage; 3, the machine lacks something, and it was not to be, or could not be, installed; 130, interrupted.

mod abi;
mod balance;
mod bench;
mod build;
mod cross;
mod debian;
mod demo;
mod dist;
mod engines;
mod foreign;
mod fuzz;
mod growth;
mod hostile;
mod interrupt;
mod layers;
mod lint;
mod matrix;
mod measure;
mod mutate;
mod numbers;
mod roots;
mod setup;
mod survival;
mod test;
mod tidy;
mod vm;
mod workspace;
mod xdp;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// netfast's automation: set-up, build, lint, test, demo, bench.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what netfast's development needs of this machine, and install what is missing.
    Setup(setup::Args),
    /// Build netfast, with its BPF programs, and the traffic generator.
    Build(build::Args),
    /// Check formatting, clippy, and the project's own rules.
    Lint(lint::Args),
    /// Fuzz the BPF programs on a faked kernel, and every parser of foreign bytes.
    Fuzz(fuzz::Args),
    /// Run the tests: one ring or all, after installing what is missing.
    Test(test::Args),
    /// Break the data path on purpose, one line at a time, and show which tests fail.
    Mutate(mutate::Args),
    /// Compare netfast with the kernel's own path on a Docker host in a network namespace, in a few minutes.
    Demo(demo::Args),
    /// Make a Debian package and a tarball, with man pages and completions, in target/dist.
    Dist(dist::Args),
    /// Crash, upgrade and restart things on a host under load, and measure the effect on its traffic.
    Survival(survival::Args),
    /// Measure netfast against the kernel's path and a direct veth pair, in interleaved rounds.
    Bench(bench::Args),
    /// Write the README's tables of measurements from the samples in docs/numbers, or measure these anew first.
    Numbers(numbers::Args),
    /// Measure virtual addresses of aliases against members without one, and against proxies, in interleaved rounds.
    Balance(balance::Args),
    /// Measure packets, connections and the daemon as a host gets more networks, ports, containers and flows.
    Growth(growth::Args),
    /// Measure what a hostile container does to its neighbours, without and with netfast.
    Hostile(hostile::Args),
    /// Run the tests of paths on each container engine, and print a table of engines and paths.
    Matrix(matrix::Args),
    /// Run tests that others wrote, the kernel's own among them, without and with netfast.
    Foreign(foreign::Args),
    /// Run the namespace tests under other kernels, in a virtual machine.
    Vm(vm::Args),
    /// Measure datagrams that come in as a network card hands them over: the kernel's path, tc and XDP, in interleaved rounds.
    Xdp(xdp::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            if error.is::<setup::Lacking>() {
                ExitCode::from(3)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Setup(args) => setup::run(&args),
        Verb::Build(args) => build::run(&args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Mutate(args) => mutate::run(&args),
        Verb::Dist(args) => dist::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Survival(args) => survival::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Numbers(args) => numbers::run(&args),
        Verb::Balance(args) => balance::run(&args),
        Verb::Growth(args) => growth::run(&args),
        Verb::Hostile(args) => hostile::run(&args),
        Verb::Matrix(args) => matrix::run(&args),
        Verb::Foreign(args) => foreign::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Xdp(args) => xdp::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use netfast_tests::documents::{all, is_placeholder, misunderstood};

    use super::*;

    #[test]
    fn verbs_in_documents_are_understood() {
        let parse = |words: &[String]| Cli::try_parse_from(words).map(drop);
        let is_fine = |kind: ErrorKind, words: &[String]| {
            let has_placeholder = words.iter().any(|word| is_placeholder(word));
            let is_help = matches!(
                kind,
                ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            let is_value = matches!(kind, ErrorKind::InvalidValue | ErrorKind::ValueValidation);
            is_help || (is_value && has_placeholder)
        };
        let (seen, wrong) = misunderstood("cargo xtask", parse, is_fine).expect("documents");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn packages_in_documents_are_of_this_version() {
        let mut seen = 0;
        for (name, text) in all().expect("documents") {
            for rest in text.split("netfast_").skip(1) {
                let Some((version, _)) = rest.split_once("_amd64.deb") else {
                    continue;
                };
                let is_version =
                    version.starts_with(|c: char| c.is_ascii_digit()) && !version.contains(char::is_whitespace);
                if is_version {
                    seen += 1;
                    assert_eq!(version, env!("CARGO_PKG_VERSION"), "{name}");
                }
            }
        }
        assert!(seen > 0, "Ansible's example has one");
    }
}
