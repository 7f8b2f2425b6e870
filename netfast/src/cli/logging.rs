//! What is logged, and how: to stderr, made for a person at a terminal or for journald.

use std::{env, fmt, io};

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format},
    registry::LookupSpan,
};

use crate::cli::{CliError, Exit};

/// The variable with the filter.
pub const FILTER_VARIABLE: &str = "NETFAST_LOG";

/// Starts logging: the daemon's level is `info`, other commands say only what they are asked for.
pub fn init(daemon: bool) -> Result<(), CliError> {
    let default = if daemon { LevelFilter::INFO } else { LevelFilter::OFF };
    let filter = EnvFilter::builder().with_default_directive(default.into());
    let filter = match env::var(FILTER_VARIABLE) {
        Ok(directives) => filter.parse(&directives).map_err(|error| {
            CliError::message(
                Exit::Usage,
                format!("{FILTER_VARIABLE}={directives:?} is not a filter: {error}"),
            )
            .remedy("Examples: info, debug, netfast::observe=trace")
        })?,
        Err(_) => filter.parse_lossy(""),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let done = if stderr_is_the_journal() {
        builder.with_ansi(false).event_format(Journal).try_init()
    } else {
        builder
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .with_target(false)
            .try_init()
    };
    // A test that runs two commands in one process has a subscriber already: that one stays.
    drop(done);
    Ok(())
}

/// systemd names the stream that it connected to the journal as `device:inode` (systemd.exec(5), `$JOURNAL_STREAM`);
/// the variable alone is inherited by whatever the service starts.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// One line per event with its priority in front (sd-daemon(3)); the journal knows the time itself.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(to, "<{priority}>")?;
        context.field_format().format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_gets_priorities_and_no_times() {
        let written = Written::default();
        let to = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(Journal)
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(endpoints = 3, "in sync");
            tracing::error!("gone");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<6>in sync endpoints=3\n<3>gone\n");
    }
}
