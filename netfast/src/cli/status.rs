//! `netfast status`.

use std::{io::IsTerminal as _, time::Duration};

use crate::{
    cli::{CliError, Dirs, Exit, Fail as _, Global, StatusArgs, instance::Instance, output},
    report::status::{NoSuchName, Status},
    snapshot,
};

/// The cursor to the upper left corner, and nothing below it (ECMA-48 CUP and ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Reads state and counters and prints them; with --watch again and again.
pub fn run(args: &StatusArgs, global: &Global) -> Result<(), CliError> {
    let Some(seconds) = args.watch else {
        return show(args, global, "").map(drop);
    };
    let is_screen = std::io::stdout().is_terminal() && !global.json;
    while show(args, global, if is_screen { CLEAR } else { "" })? {
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
    Ok(())
}

/// Prints it once; false if the reader is gone.
fn show(args: &StatusArgs, global: &Global, before: &str) -> Result<bool, CliError> {
    let mut status = gather(&global.dirs)?;
    if let Some(name) = &args.name {
        status = status.select(name).map_err(|error| {
            let remedy = match &error {
                NoSuchName::Unknown(_) => "`netfast status` lists them.",
                NoSuchName::NotYet(_) => "Try again in a moment.",
            };
            CliError::new(Exit::Failed, error).remedy(remedy)
        })?;
    }
    let text = output::text(global.json, &status, |style| match args.name {
        Some(_) => status.render_part(style),
        None => status.render(style, args.verbose),
    })?;
    output::print(&format!("{before}{text}"))
}

/// Reads state and counters.
pub fn gather(dirs: &Dirs) -> Result<Status, CliError> {
    let instance = Instance::open(dirs)?;
    let (state, running) = (instance.state.as_ref(), instance.running);
    snapshot::status(state, running, &instance.tables, &instance.flows, &instance.sandboxes).or_exit(Exit::Failed)
}
