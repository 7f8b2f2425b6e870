//! `netfast status`.

use crate::{
    cli::{CliError, Exit, Fail as _, ReportArgs, instance::Instance, output},
    snapshot,
};

/// Reads state and counters and prints them.
pub fn run(args: &ReportArgs) -> Result<(), CliError> {
    let instance = Instance::open(&args.dirs)?;
    let status = snapshot::status(
        instance.state.as_ref(),
        instance.running,
        &instance.tables,
        &instance.flows,
    )
    .or_exit(Exit::Failed)?;
    output::print_report(args.json, &status, |style| status.render(style))
}
