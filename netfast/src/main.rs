//! The netfast command: parse, run, say what went wrong.

use std::process::ExitCode;

use netfast::cli;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(said) => return said.print(),
    };
    match cli::run(&command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.print(),
    }
}
