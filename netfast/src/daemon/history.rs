//! What this host let netfast do when it was last looked at: a file that outlives the daemon, and in systemd's state directory the
//! machine's restarts, which is when kernels change.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tracing::{info, warn};

use crate::{
    abilities::{Grounds, Look, Part, Record},
    host::RuntimeState,
    probe,
    state::{boot, replace, unix_ms},
};

/// The name of the file.
pub const FILE: &str = "abilities.json";

/// The record, and where it is kept.
#[derive(Debug, Default)]
pub struct History {
    path: Option<PathBuf>,
    /// The versions of what cannot become another one while the daemon runs.
    versions: BTreeMap<Part, String>,
    /// The boot of the machine.
    boot: String,
    record: Record,
    /// It is still to be written.
    changed: bool,
    /// That it cannot be written has been said.
    said: bool,
}

impl History {
    /// Reads what an earlier daemon has left there. What cannot be read is as if there were none.
    pub fn open(dir: &Path) -> Self {
        let path = dir.join(FILE);
        let read = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error),
        };
        let record = read.unwrap_or_else(|error| {
            warn!(
                "cannot read {} ({error}): what an update has changed since then is not known; it is written anew",
                path.display()
            );
            Record::default()
        });
        let mut versions = BTreeMap::from([(Part::Netfast, env!("CARGO_PKG_VERSION").to_owned())]);
        versions.extend(probe::full_release().map(|release| (Part::Kernel, release)));
        Self {
            path: Some(path),
            versions,
            boot: boot(),
            record,
            ..Self::default()
        }
    }

    /// Nothing is kept: the daemon of the host's namespace does that.
    pub fn none() -> Self {
        Self::default()
    }

    /// Compares with the last look. What is different is logged, once.
    pub fn look(&mut self, grounds: &Grounds, runtime: &RuntimeState) {
        if self.path.is_none() {
            return;
        }
        let mut versions = self.versions.clone();
        if let RuntimeState::Connected { engine, version, .. } = runtime {
            versions.insert(Part::Engine, format!("{engine} {version}"));
        }
        let look = Look {
            versions,
            boot: self.boot.clone(),
            abilities: grounds.abilities(),
        };
        let (update, changed) = self.record.add(look, unix_ms(SystemTime::now()));
        if let Some(update) = update {
            let text = update.text();
            if update.lost.is_empty() {
                info!("{text}");
            } else {
                warn!("{text}");
            }
        }
        self.changed |= changed;
    }

    /// What is known.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where it is kept.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Writes what is new. The fast path does not need it: what does not work is said once, and tried again with the next pass.
    pub fn save(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| self.changed) else {
            return;
        };
        let write = || {
            let text = serde_json::to_vec(&self.record)?;
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            replace(path, &text)
        };
        match write() {
            Ok(()) => self.changed = false,
            Err(error) if !self.said => {
                warn!(
                    "cannot write {} ({error}): the next daemon will not know what an update has changed",
                    path.display()
                );
                self.said = true;
            }
            Err(_) => {}
        }
    }
}

/// Removes the file; none is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker(version: &str) -> RuntimeState {
        RuntimeState::Connected {
            engine: "Docker".into(),
            version: version.into(),
            api: "1.51".into(),
        }
    }

    #[test]
    fn the_next_daemon_knows_what_the_last_one_could() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path().join("made");
        let mut first = History::open(&dir);
        first.look(&Grounds::with_br_netfilter(true), &docker("26.1.5"));
        first.save();
        let mut next = History::open(&dir);
        next.look(&Grounds::with_br_netfilter(false), &docker("29.0.0"));
        let update = next.record().updates.last().expect("an update");
        assert_eq!(update.updated.len(), 1, "{update:?}");
        assert_eq!(update.gained.keys().collect::<Vec<_>>(), ["direct"]);
        // One that was killed before it had written tells it again.
        assert!(History::open(&dir).record().updates.is_empty());
        next.save();
        assert_eq!(History::open(&dir).record(), next.record());
        let path = next.path().expect("a path").to_owned();
        remove(&path).expect("removed");
        remove(&path).expect("none is fine");
        assert_eq!(History::open(&dir).record(), &Record::default());
    }

    #[test]
    fn what_cannot_be_read_or_written_does_no_harm() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(FILE), "{").expect("a file");
        let mut history = History::open(dir.path());
        assert_eq!(history.record(), &Record::default());
        history.look(&Grounds::with_br_netfilter(true), &docker("26.1.5"));
        history.save();
        assert!(History::open(dir.path()).record().last.is_some(), "it is written anew");
        // A file where the directory should be.
        let mut nowhere = History::open(&dir.path().join(FILE));
        nowhere.look(&Grounds::with_br_netfilter(true), &docker("26.1.5"));
        nowhere.save();
        assert!(nowhere.record().last.is_some());
    }

    #[test]
    fn who_keeps_nothing_says_nothing() {
        let mut none = History::none();
        none.look(&Grounds::with_br_netfilter(true), &RuntimeState::None);
        none.save();
        assert_eq!((none.record(), none.path()), (&Record::default(), None));
    }
}
