//! Ctrl-C while a laboratory is up: destructors will not run, so a thread removes what this process has made.

use std::{process, thread, time::Duration};

use anyhow::Result;
use netfast_tests::{leftovers, traffic::stop};

/// From here on SIGINT and SIGTERM remove this process's laboratories and end it with exit code 130.
///
/// By a handler and not by a blocked mask: programs that are started would inherit the mask, and be deaf to SIGTERM.
pub fn handle() -> Result<()> {
    stop::install()?;
    thread::Builder::new().name("interrupt".to_owned()).spawn(|| {
        while !stop::requested() {
            thread::sleep(Duration::from_millis(50));
        }
        eprintln!("\nxtask: interrupted, cleaning up");
        leftovers::sweep_own();
        process::exit(130);
    })?;
    Ok(())
}
