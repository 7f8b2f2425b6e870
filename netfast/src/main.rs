//! The netfast command: parse, run, say what went wrong.

use std::process::ExitCode;

use netfast::cli;

fn main() -> ExitCode {
    // Asked by a shell what could be typed next, it answers and ends.
    cli::complete::answer();
    let (command, global) = match cli::parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(said) => return said.print(),
    };
    match cli::run(&command, &global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.print(),
    }
}
