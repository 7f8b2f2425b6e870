//! `netfast-traffic`: the laboratory's traffic generator; see `netfast_tests::traffic`.

use std::process::ExitCode;

use clap::Parser as _;
use netfast_tests::traffic::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netfast-traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}
