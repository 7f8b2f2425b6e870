//! What the service manager is told (`sd_notify(3)`); without one, nothing is sent.

use std::{future::pending, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::{daemon::sync::Pass, host::RuntimeState};

/// Heartbeats come this many times as often as the manager wants one, so that a late one is still in time.
const BEATS: u32 = 3;

/// The service manager, as the main loop sees it.
///
/// The heartbeat is the main loop's own: [`Service::beat`] is called at its head, so a loop that hangs sends none.
pub struct Service {
    /// Time between two heartbeats; `None` if the manager wants none.
    every: Option<Duration>,
    next: Instant,
    /// The status that it was told last.
    status: String,
}

impl Service {
    /// The manager that this process was started by, as the environment tells.
    pub fn new() -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|limit| limit / BEATS),
            next: Instant::now(),
            status: String::new(),
        }
    }

    /// The start, or a reload, is done.
    pub fn ready(&mut self, status: String) {
        self.status = status;
        notify(&[NotifyState::Ready, NotifyState::Status(&self.status)]);
    }

    /// Says how things are, if that is news.
    pub fn status(&mut self, status: String) {
        if status != self.status {
            self.status = status;
            notify(&[NotifyState::Status(&self.status)]);
        }
    }

    /// A sign of life, if one is due.
    pub fn beat(&mut self) {
        if let Some(every) = self.every
            && Instant::now() >= self.next
        {
            notify(&[NotifyState::Watchdog]);
            self.next = Instant::now() + every;
        }
    }

    /// Waits until the next sign of life is due; for ever, if none is wanted.
    pub async fn beat_due(&self) {
        match self.every {
            Some(_) => sleep_until(self.next).await,
            None => pending().await,
        }
    }
}

/// The configuration is being read anew; [`Service::ready`] says that it is done.
pub fn reloading() {
    // Its time tells a manager of version 253 or later which reload this is.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => debug!("no clock: {error}"),
    }
}

/// The daemon ends.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot notify systemd: {error}");
    }
}

/// How things are, in one line for `systemctl status`.
pub fn line(pass: &Pass, runtime: &RuntimeState) -> String {
    let mut parts = vec![format!(
        "{} endpoints and {} uplinks on the fast path",
        pass.endpoints, pass.uplinks
    )];
    if pass.waiting > 0 {
        let waiting = pass.waiting;
        parts.push(format!(
            "{waiting} interfaces could not be attached to and are tried again"
        ));
    }
    if let Some(why) = &pass.learning_off {
        parts.push(format!("learning is off: {why}"));
    }
    if let RuntimeState::Disconnected { .. } = runtime {
        parts.push("the container runtime does not answer, its last state is kept".into());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_status_line_says_what_is_wrong() {
        let mut pass = Pass {
            endpoints: 3,
            uplinks: 1,
            ..Pass::default()
        };
        let fine = "3 endpoints and 1 uplinks on the fast path";
        assert_eq!(line(&pass, &RuntimeState::None), fine);
        pass.waiting = 2;
        pass.learning_off = Some("a queue".into());
        let gone = RuntimeState::Disconnected {
            since: SystemTime::UNIX_EPOCH,
            error: "refused".into(),
        };
        assert_eq!(
            line(&pass, &gone),
            format!(
                "{fine}; 2 interfaces could not be attached to and are tried again; learning is off: a queue; \
                 the container runtime does not answer, its last state is kept"
            )
        );
    }
}
