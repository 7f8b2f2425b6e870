//! Which run directory belongs to which pins: a command that is given one instance's pins and another's state would
//! undo the one with the memory of the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{apply::pins::Pins, daemon::lock, state::State};

/// Directories that are of different instances, or cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A daemon runs with these pins.
    #[error("the pins in {} are in use by the netfast with --run-dir {} (process {pid})", pins.display(), run_dir.display())]
    PinsInUse {
        /// The pins.
        pins: PathBuf,
        /// The other instance's run directory.
        run_dir: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// The pins are of an instance with another run directory.
    #[error("the pins in {} are of the instance with --run-dir {}", pins.display(), run_dir.display())]
    OtherRunDir {
        /// The pins.
        pins: PathBuf,
        /// The other instance's run directory.
        run_dir: PathBuf,
    },
    /// The state is of an instance with other pins.
    #[error("the state in {} is of the instance with --pin-dir {}", run_dir.display(), pin_dir.display())]
    OtherPinDir {
        /// The run directory.
        run_dir: PathBuf,
        /// The other instance's pin directory.
        pin_dir: PathBuf,
    },
    /// The mark cannot be read.
    #[error("cannot tell whose pins are in {}", pins.display())]
    Mark {
        /// The pins.
        pins: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// For a daemon that starts: nobody else may be using these pins.
pub fn check_free(pin_dir: &Path, run_dir: &Path) -> Result<(), InstanceError> {
    let pins = Pins::new(pin_dir);
    if let Some(other) = other_owner(&pins, run_dir)?
        && let Some(pid) = lock::holder(&other)
    {
        return Err(InstanceError::PinsInUse {
            pins: pins.root().into(),
            run_dir: other,
            pid,
        });
    }
    Ok(())
}

/// Pins that an instance with other directories has left beside these in this network namespace, with its run directory:
/// its programs are attached to the same interfaces.
pub fn left_beside(pin_dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = pin_dir.parent().map(fs::read_dir);
    let entries = entries.into_iter().flatten().flatten().flatten();
    let others = entries.map(|entry| entry.path()).filter(|other| other != pin_dir);
    others
        .filter_map(|other| {
            let pins = Pins::new(&other);
            // Whoever cannot be asked is not accused.
            let is_here = pins.exist() && !pins.of_other_namespace().ok()?;
            let run_dir = pins.run_dir().ok()??;
            is_here.then_some((other, run_dir))
        })
        .collect()
}

/// For who undoes things: both directories must be of one instance.
pub fn check(pin_dir: &Path, run_dir: &Path, state: Option<&State>) -> Result<(), InstanceError> {
    let pins = Pins::new(pin_dir);
    if let Some(other) = other_owner(&pins, run_dir)?.filter(|other| other.exists()) {
        return Err(InstanceError::OtherRunDir {
            pins: pins.root().into(),
            run_dir: other,
        });
    }
    match state.map(|state| &state.pin_dir) {
        Some(other) if other != pin_dir && Pins::new(other).exist() => Err(InstanceError::OtherPinDir {
            run_dir: run_dir.into(),
            pin_dir: other.clone(),
        }),
        _ => Ok(()),
    }
}

/// The run directory that the pins are marked with, if it is another one.
fn other_owner(pins: &Pins, run_dir: &Path) -> Result<Option<PathBuf>, InstanceError> {
    let owner = pins.run_dir().map_err(|source| InstanceError::Mark {
        pins: pins.root().into(),
        source,
    })?;
    Ok(owner.filter(|owner| owner != run_dir))
}
