//! One daemon per run directory: a file that is locked as long as the daemon lives, with its process number in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// The name of the file in the run directory.
pub(super) const FILE: &str = "lock";

/// The lock, held. It ends with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock; makes the run directory if there is none.
    pub fn take(run_dir: &Path) -> Result<Self, LockError> {
        let path = run_dir.join(FILE);
        let io_error = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(run_dir).map_err(io_error)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(io_error)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(io_error)?;
                writeln!(file, "{}", std::process::id()).map_err(io_error)?;
                Ok(Self { _file: file })
            }
            Err((_, Errno::EWOULDBLOCK)) => Err(LockError::Held {
                run_dir: run_dir.into(),
                pid: holder(run_dir),
            }),
            Err((_, errno)) => Err(io_error(errno.into())),
        }
    }
}

/// The process that holds the lock, if one does.
pub fn holder(run_dir: &Path) -> Option<u32> {
    let path = run_dir.join(FILE);
    let pid = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    // The number may be of a daemon that is gone and belong to anybody by now: it counts if that process has the file
    // open.
    has_open(pid, &path).ok()?.then_some(pid)
}

fn has_open(pid: u32, path: &Path) -> io::Result<bool> {
    let wanted = fs::metadata(path)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor may be closed while we look.
        if let Ok(found) = fs::metadata(entry?.path())
            && (found.dev(), found.ino()) == (wanted.dev(), wanted.ino())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Why the lock cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon runs.
    #[error("another netfast runs with the run directory {}{}", run_dir.display(),
        pid.map_or(String::new(), |pid| format!(" (process {pid})")))]
    Held {
        /// The run directory.
        run_dir: PathBuf,
        /// Its process, if that can be seen.
        pid: Option<u32>,
    },
    /// The file system refused.
    #[error("cannot use the lock {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run_dir = dir.path().join("run");
        assert_eq!(holder(&run_dir), None);
        let lock = Lock::take(&run_dir).expect("free");
        assert_eq!(holder(&run_dir), Some(std::process::id()));
        let error = Lock::take(&run_dir).expect_err("held");
        assert!(
            matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        drop(lock);
        assert_eq!(holder(&run_dir), None);
        Lock::take(&run_dir).expect("free again");
    }
}
