//! docker-proxy's processes and the sockets that they listen on. Their command lines say what they listen on and where they
//! connect to (moby, `cmd/docker-proxy`); since Docker 28 the engine may make the socket and hand it to them.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
};

use nix::sys::socket::{SockaddrStorage, getpeername, getsockname, getsockopt, sockopt};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use crate::host::{Protocol, Proxy};

/// What the program is called.
const PROGRAM: &str = "docker-proxy";

/// Why a process' socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot get a socket of process {pid} ({what})")]
pub struct ProxyError {
    /// The process.
    pub pid: u32,
    /// What the kernel refused.
    pub what: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The sockets that docker-proxy's processes listen on in the calling thread's network namespace.
pub fn proxies() -> io::Result<Vec<Proxy>> {
    let own = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // What has ended meanwhile listens nowhere.
        let is_one = || {
            let comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
            if comm.trim_ascii_end() != PROGRAM.as_bytes()
                || fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino() != own
            {
                return None;
            }
            asked(&fs::read(format!("/proc/{pid}/cmdline")).ok()?)
        };
        if let Some(asked) = is_one() {
            found.extend(listener(pid, &asked).map(|inode| Proxy {
                pid,
                inode,
                protocol: asked.protocol,
                listens: asked.listens,
                target: asked.target,
            }));
        }
    }
    found.sort();
    Ok(found)
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    protocol: Protocol,
    listens: SocketAddr,
    target: SocketAddr,
}

fn asked(command: &[u8]) -> Option<Asked> {
    let words: Vec<&str> = command
        .split(|byte| *byte == 0)
        .map(str::from_utf8)
        .collect::<Result<_, _>>()
        .ok()?;
    let mut options = BTreeMap::new();
    let mut words = words.into_iter().skip(1);
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            continue;
        };
        match name.split_once('=') {
            Some((name, value)) => options.insert(name, value),
            // A switch has no value.
            None if name == "use-listen-fd" => None,
            None => options.insert(name, words.next()?),
        };
    }
    let protocol = match *options.get("proto")? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let at = |ip: &str, port: &str| -> Option<SocketAddr> {
        let ip: IpAddr = options.get(ip)?.parse().ok()?;
        Some(SocketAddr::new(ip, options.get(port)?.parse().ok()?))
    };
    Some(Asked {
        protocol,
        listens: at("host-ip", "host-port")?,
        target: at("container-ip", "container-port")?,
    })
}

/// The inode of the socket on which a process listens as it was asked to.
fn listener(pid: u32, asked: &Asked) -> Option<u64> {
    let sockets = sockets(pid).ok()?;
    sockets.into_iter().find_map(|(fd, inode)| {
        let socket = take(pid, fd).ok()?;
        let own: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
        if address(&own)? != asked.listens {
            return None;
        }
        let listens = match asked.protocol {
            Protocol::Tcp => getsockopt(&socket, sockopt::AcceptConn).ok()?,
            Protocol::Udp => getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_err(),
            Protocol::Sctp => false,
        };
        listens.then_some(inode)
    })
}

fn address(name: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(name) = name.as_sockaddr_in() {
        return Some(SocketAddr::new(name.ip().into(), name.port()));
    }
    let name = name.as_sockaddr_in6()?;
    Some(SocketAddr::new(name.ip().into(), name.port()))
}

/// The sockets of a process: its numbers for them, and their inodes.
fn sockets(pid: u32) -> io::Result<Vec<(RawFd, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let inode = target.to_str().and_then(|target| {
            let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        });
        found.extend(fd.zip(inode));
    }
    Ok(found)
}

/// A descriptor of a socket of another process (`pidfd_open`, Linux 5.3; `pidfd_getfd`, Linux 5.6).
fn take(pid: u32, fd: RawFd) -> Result<OwnedFd, ProxyError> {
    let failed = |what| {
        move |error: Errno| ProxyError {
            pid,
            what,
            source: error.into(),
        }
    };
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
    let process = process
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(failed("pidfd_open"))?;
    pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).map_err(failed("pidfd_getfd"))
}

/// The socket with this inode of a process.
pub fn socket_of(pid: u32, inode: u64) -> Result<OwnedFd, ProxyError> {
    let gone = |source| ProxyError {
        pid,
        what: "it has ended, or does not listen any more",
        source,
    };
    let sockets = sockets(pid).map_err(gone)?;
    let fd = sockets.into_iter().find(|(_, found)| *found == inode);
    let (fd, _) = fd.ok_or_else(|| gone(io::ErrorKind::NotFound.into()))?;
    let socket = take(pid, fd)?;
    // Another process may have the number by now.
    let file = fs::File::from(socket);
    let found = file.metadata().map_err(gone)?.ino();
    if found != inode {
        return Err(gone(io::ErrorKind::NotFound.into()));
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Option<Asked> {
        let mut command = Vec::new();
        for word in words {
            command.extend(word.bytes());
            command.push(0);
        }
        asked(&command)
    }

    #[test]
    fn command_lines_of_engines_old_and_new() {
        let old = [
            "/usr/sbin/docker-proxy",
            "-proto",
            "tcp",
            "-host-ip",
            "0.0.0.0",
            "-host-port",
            "8080",
            "-container-ip",
            "172.17.0.2",
            "-container-port",
            "80",
        ];
        let wanted = Asked {
            protocol: Protocol::Tcp,
            listens: "0.0.0.0:8080".parse().expect("an address"),
            target: "172.17.0.2:80".parse().expect("an address"),
        };
        assert_eq!(read(&old), Some(wanted.clone()));
        let new: Vec<&str> = old.iter().copied().chain(["-use-listen-fd"]).collect();
        assert_eq!(read(&new), Some(wanted));
        let six = read(&[
            "p",
            "-proto=udp",
            "--host-ip=::",
            "-host-port=53",
            "-container-ip=fd00::2",
            "-container-port=53",
        ]);
        assert_eq!(six.map(|asked| asked.listens), "[::]:53".parse().ok());
        assert_eq!(read(&old[..9]), None, "half of it");
        assert_eq!(read(&["p", "-proto", "sctp"]), None);
    }

    #[test]
    fn a_socket_of_a_process_is_found_by_its_inode() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let at = listener.local_addr().expect("an address");
        let pid = std::process::id();
        let asked = Asked {
            protocol: Protocol::Tcp,
            listens: at,
            target: at,
        };
        let Some(inode) = super::listener(pid, &asked) else {
            // Where processes may not look at each other there is nothing to find.
            return;
        };
        let same = socket_of(pid, inode).expect("the same socket");
        let own: SockaddrStorage = getsockname(same.as_raw_fd()).expect("its name");
        assert_eq!(address(&own), Some(at));
        drop((same, listener));
        assert!(socket_of(pid, inode).is_err());
    }
}
