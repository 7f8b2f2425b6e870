//! What the programs of a debugging build say (feature `bpf-log`), as events of the daemon's own log.

use aya::Ebpf;
use aya_log::{EbpfLogger, Level};
use tokio::io::unix::AsyncFd;
use tracing::level_filters::LevelFilter;
use tracing_log::LogTracer;

use crate::apply::ApplyError;

/// The level to which the programs speak: the daemon's own. Above it the kernel takes the code for dead.
pub fn level() -> u8 {
    match LevelFilter::current().into_level() {
        None => 0,
        Some(tracing::Level::ERROR) => Level::Error as u8,
        Some(tracing::Level::WARN) => Level::Warn as u8,
        Some(tracing::Level::INFO) => Level::Info as u8,
        Some(tracing::Level::DEBUG) => Level::Debug as u8,
        Some(tracing::Level::TRACE) => Level::Trace as u8,
    }
}

/// Passes on what the loaded programs say, for as long as the runtime lives. Must be called inside one.
pub fn follow(ebpf: &mut Ebpf) -> Result<(), ApplyError> {
    let logger = EbpfLogger::init_with_logger(ebpf, LogTracer::new()).map_err(|source| ApplyError::Log {
        source: Box::new(source),
    })?;
    // SAFETY: the logger owns the ring buffer's descriptor, always gives that one, and is never taken out of here.
    let logger = unsafe { AsyncFd::register(logger) };
    let mut logger = logger.map_err(|source| ApplyError::Io {
        path: "the programs' log".into(),
        source: source.into(),
    })?;
    tokio::spawn(async move {
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}
