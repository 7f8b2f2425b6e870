//! Sysctls of the calling thread's network namespace.

use std::{fs, io, path::PathBuf};

use crate::plan::Sysctl;

/// The file of a sysctl: `/proc/sys/net` shows the namespace of the thread that opens it.
fn path(sysctl: Sysctl) -> PathBuf {
    PathBuf::from("/proc/sys").join(sysctl.name().replace('.', "/"))
}

/// Its value; `None` while what it belongs to (conntrack) is not loaded.
pub fn read(sysctl: Sysctl) -> io::Result<Option<u32>> {
    match fs::read_to_string(path(sysctl)) {
        Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets it.
pub fn write(sysctl: Sysctl, value: u32) -> io::Result<()> {
    fs::write(path(sysctl), value.to_string())
}
