//! The directories that the daemon writes to.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::{
    sys::statfs::{FsType, statfs},
    unistd::{AccessFlags, eaccess},
};

use super::{ProbeError, Tried};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);

/// Where every distribution mounts bpffs.
const USUAL_MOUNT_POINT: &str = "/sys/fs/bpf";

/// Looks at both directories, or at what they would be made in.
pub(super) fn try_all(pin_dir: &Path, run_dir: &Path) -> Vec<Tried> {
    vec![
        Tried {
            what: "BPF filesystem",
            without: None,
            outcome: pins(pin_dir),
        },
        Tried {
            what: "run directory",
            without: None,
            outcome: writable(run_dir, "keep lock and state").map(|()| run_dir.display().to_string()),
        },
    ]
}

fn pins(dir: &Path) -> Result<String, ProbeError> {
    let found = nearest(dir);
    if !statfs(&found).is_ok_and(|stat| stat.filesystem_type() == BPF_FS) {
        let usual = Path::new(USUAL_MOUNT_POINT);
        let mount_point = if dir.starts_with(usual) {
            usual
        } else {
            dir.parent().unwrap_or(dir)
        };
        return Err(ProbeError::NotBpffs {
            dir: dir.into(),
            mount_point: mount_point.into(),
        });
    }
    writable(dir, "pin programs and tables")?;
    Ok(dir.display().to_string())
}

/// Whether the directory, or where it would be made, can be written to.
fn writable(dir: &Path, purpose: &'static str) -> Result<(), ProbeError> {
    let found = nearest(dir);
    eaccess(&found, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| ProbeError::Directory {
        dir: found,
        purpose,
        source: io::Error::from(errno),
    })
}

/// The directory itself, or the nearest one above it that exists.
fn nearest(dir: &Path) -> PathBuf {
    let existing = dir.ancestors().find(|dir| dir.exists());
    existing
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_directory_is_not_a_bpffs() {
        let dir = tempfile::tempdir().unwrap();
        let error = pins(&dir.path().join("a/netfast")).unwrap_err();
        let ProbeError::NotBpffs { mount_point, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*mount_point, dir.path().join("a"));
        assert!(
            error
                .to_string()
                .ends_with("/a/netfast is not in a BPF filesystem, needed to pin programs and tables")
        );
    }

    #[test]
    fn what_is_not_there_yet_is_judged_by_where_it_would_be() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&dir.path().join("a/b/c")), dir.path());
        assert_eq!(nearest(Path::new("no-such-directory/here")), Path::new("."));
    }
}
