//! What versions before 0.2 did to the host, and this one does not: it is undone at an upgrade, or by `netfast detach`.
//!
//! They set `nf_conntrack_tcp_be_liberal` for the whole host; now each connection is marked by itself.

use std::{fs, io, path::PathBuf};

use crate::{apply::conntrack, observe::NetlinkError, state::SavedSysctl};

/// The only sysctl that they set.
const BE_LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Connections that conntrack was told to go on with.
    pub connections: usize,
    /// Sysctls with their values.
    pub sysctls: Vec<(String, u32)>,
}

/// Restores sysctls that still are what netfast made them; what somebody else has set since is theirs. Connections that
/// conntrack has not seen all of are marked first.
pub fn restore(saved: &[SavedSysctl]) -> Result<Restored, OlderError> {
    let mut restored = Restored::default();
    for SavedSysctl { name, found, set } in saved.iter().filter(|saved| saved.name == BE_LIBERAL) {
        let failed = |source| OlderError::Sysctl { source };
        let (Ok(found), Ok(set)) = (found.parse::<u32>(), set.parse::<u32>()) else {
            continue;
        };
        if found == set || read().map_err(failed)? != Some(set) {
            continue;
        }
        restored.connections = conntrack::mark_liberal().map_err(OlderError::Connections)?;
        fs::write(path(), found.to_string()).map_err(failed)?;
        restored.sysctls.push((name.clone(), found));
    }
    Ok(restored)
}

/// The file: `/proc/sys/net` shows the namespace of the thread that opens it.
fn path() -> PathBuf {
    PathBuf::from("/proc/sys").join(BE_LIBERAL.replace('.', "/"))
}

/// Its value; `None` while conntrack is not loaded.
fn read() -> io::Result<Option<u32>> {
    match fs::read_to_string(path()) {
        Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why the host cannot be left as it was found.
#[derive(Debug, thiserror::Error)]
pub enum OlderError {
    /// Conntrack cannot be told to go on with the connections; the sysctl stays as it is.
    #[error("cannot let living connections go on, so {BE_LIBERAL} stays at 1")]
    Connections(#[source] NetlinkError),
    /// The sysctl cannot be restored.
    #[error("cannot restore {BE_LIBERAL}")]
    Sysctl {
        /// Why.
        source: io::Error,
    },
}
