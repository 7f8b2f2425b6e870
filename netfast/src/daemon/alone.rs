//! One daemon per network namespace, whatever its directories are: two would attach to the same interfaces, and each
//! would take the other's programs for somebody else's.
//!
//! An abstract Unix socket is the mark (`unix(7)`): its name belongs to the network namespace, and goes with the process.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tracing::warn;

/// The socket's name, after the zero that makes it abstract.
const NAME: &[u8] = b"netfast/daemon";

/// The mark, held. It ends with the process, however that ends.
#[derive(Debug)]
pub struct Alone {
    _socket: Option<UnixListener>,
}

impl Alone {
    /// Takes the mark of this network namespace.
    pub fn take() -> Result<Self, AloneError> {
        Self::take_name(NAME)
    }

    fn take_name(name: &[u8]) -> Result<Self, AloneError> {
        let name = SocketAddr::from_abstract_name(name).map_err(AloneError::Io)?;
        match UnixListener::bind_addr(&name) {
            Ok(socket) => Ok(Self { _socket: Some(socket) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let stream = UnixStream::connect_addr(&name).map_err(AloneError::Io)?;
                let holder = getsockopt(&stream, PeerCredentials).map_err(|errno| AloneError::Io(errno.into()))?;
                // Anybody may take a name; netfast's holder has privileges, or is this one's user.
                if holder.uid() == 0 || holder.uid() == geteuid().as_raw() {
                    let pid = holder.pid();
                    return Err(AloneError::Other {
                        pid,
                        command: command_of(pid),
                    });
                }
                warn!(
                    "process {} without privileges holds the name that netfast knows itself by, so it cannot be told whether \
                     another netfast works on these interfaces",
                    holder.pid()
                );
                Ok(Self { _socket: None })
            }
            Err(error) => Err(AloneError::Io(error)),
        }
    }
}

/// How a process was started: that tells its directories.
fn command_of(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    words.join(" ")
}

/// Why the mark cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// Another daemon has it.
    #[error("another netfast works on the interfaces of this network namespace (process {pid}: {command})")]
    Other {
        /// Its process.
        pid: i32,
        /// How it was started.
        command: String,
    },
    /// The kernel refused.
    #[error("cannot tell whether another netfast works in this network namespace")]
    Io(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let name = format!("netfast/test/{}", std::process::id());
        let held = Alone::take_name(name.as_bytes()).expect("free");
        let error = Alone::take_name(name.as_bytes()).expect_err("held");
        let pid = i32::try_from(std::process::id()).expect("a process");
        assert!(
            matches!(&error, AloneError::Other { pid: found, command } if *found == pid && !command.is_empty()),
            "{error}"
        );
        drop(held);
        Alone::take_name(name.as_bytes()).expect("free again");
    }
}
