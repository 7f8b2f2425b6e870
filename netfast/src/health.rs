//! Whether the daemon is in sync with the host, for whoever asks meanwhile (`/healthz`, metrics).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// What the daemon says of itself; clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Vitals>>);

/// What is known at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Why the daemon is not in sync with the host; `None`: it is.
    pub behind: Option<String>,
    /// When it was started.
    pub started: SystemTime,
    /// When it was in sync last.
    pub synced: Option<SystemTime>,
    /// Passes of observe, plan, diff and apply so far.
    pub passes: u64,
    /// Those of them that left something undone which is tried again.
    pub failed_passes: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Vitals {
            behind: Some("the daemon is starting".into()),
            started: SystemTime::now(),
            synced: None,
            passes: 0,
            failed_passes: 0,
        })))
    }
}

impl Health {
    /// A pass ended, and everything is as it should be.
    pub fn in_sync(&self) {
        self.change(|vitals| {
            vitals.passes += 1;
            vitals.synced = Some(SystemTime::now());
            vitals.behind = None;
        });
    }

    /// A pass ended before everything was done; the next one goes on.
    pub fn busy(&self, why: &str) {
        self.change(|vitals| {
            vitals.passes += 1;
            vitals.behind = Some(why.into());
        });
    }

    /// A pass failed, wholly or in part.
    pub fn failed(&self, why: String) {
        self.change(|vitals| {
            vitals.passes += 1;
            vitals.failed_passes += 1;
            vitals.behind = Some(why);
        });
    }

    /// What is known now.
    pub fn vitals(&self) -> Vitals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vitals)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_what_is_known() {
        let health = Health::default();
        let seen = health.clone();
        assert_eq!(seen.vitals().behind.as_deref(), Some("the daemon is starting"));
        health.in_sync();
        assert!(seen.vitals().behind.is_none() && seen.vitals().synced.is_some());
        health.failed("no memory".into());
        let vitals = seen.vitals();
        assert_eq!((vitals.passes, vitals.failed_passes), (2, 1));
        assert_eq!(vitals.behind.as_deref(), Some("no memory"));
        // When it was in sync last is not forgotten.
        assert!(vitals.synced.is_some());
    }
}
