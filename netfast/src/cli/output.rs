//! Standard output: a reader that goes away early (`netfast flows | head`) is no failure.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{cli::CliError, report::Style};

/// Prints a report as JSON, or as text made for whoever reads.
pub fn print_report(json: bool, report: &impl Serialize, render: impl FnOnce(Style) -> String) -> Result<(), CliError> {
    print(&text(json, report, render)?).map(drop)
}

/// A report as JSON, or as text made for whoever reads.
pub fn text(json: bool, report: &impl Serialize, render: impl FnOnce(Style) -> String) -> Result<String, CliError> {
    if !json {
        return Ok(render(style()));
    }
    let mut text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    text.push('\n');
    Ok(text)
}

/// Says something that is not the output itself, to stderr. A reader that is gone is no failure (`2>&1 | head`).
pub fn note(text: &str) {
    let _gone = writeln!(io::stderr(), "{text}");
}

/// Prints text as it is; false if the reader is gone.
pub fn print(text: &str) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error)
            .context("cannot write to standard output")
            .into()),
    }
}

/// At a terminal: its width, and colours unless `NO_COLOR` is set (no-color.org). Elsewhere neither.
fn style() -> Style {
    if !io::stdout().is_terminal() {
        return Style::default();
    }
    Style {
        width: terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)),
        color: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}
