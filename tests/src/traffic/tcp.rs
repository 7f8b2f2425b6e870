//! What the TCP verbs share: listening, accepting until asked to stop, and streams with time limits.

use std::{
    io::{self, ErrorKind, Read as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::stop;

/// How long a blocked call waits before it looks at the stop flag.
pub const TICK: Duration = Duration::from_millis(200);

/// Connects within `limit`; the stream then sends without delay, and its reads and writes give up after `limit`.
pub fn connect(to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// Listens on `port` of all addresses, IPv4 and IPv6, and says so.
pub fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .with_context(|| format!("cannot listen on TCP port {port}"))?;
    listener.set_nonblocking(true)?;
    eprintln!("listening on TCP port {port}");
    Ok(listener)
}

/// The next connection, with reads that give up after `read_limit`; `None` if none came within [`TICK`].
pub fn accept(listener: &TcpListener, read_limit: Duration) -> io::Result<Option<TcpStream>> {
    let accepted = match listener.accept() {
        Err(error) if is_timeout(&error) => {
            let tick = PollTimeout::try_from(TICK).expect("a tick is short");
            // Interrupted by a signal: the caller looks at the stop flag.
            let _ready = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], tick);
            listener.accept()
        }
        other => other,
    };
    match accepted {
        Ok((stream, _)) => {
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(read_limit))?;
            Ok(Some(stream))
        }
        Err(error) if is_timeout(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives each connection to `port` to `serve`, on a thread of its own, until the program is asked to stop. Reads of
/// the stream give up after [`TICK`]; `serve` returns when its connection is done or [`stop::requested`].
pub fn serve<T: Send>(port: u16, serve: impl Fn(TcpStream) -> T + Sync) -> Result<Vec<T>> {
    let listener = listen(port)?;
    thread::scope(|scope| {
        let mut connections = Vec::new();
        while !stop::requested() {
            if let Some(stream) = accept(&listener, TICK).context("cannot accept a connection")? {
                let serve = &serve;
                connections.push(scope.spawn(move || serve(stream)));
            }
        }
        Ok(connections
            .into_iter()
            .filter_map(|connection| connection.join().ok())
            .collect())
    })
}

/// Reads until `buffer` is full. `Ok(false)` if the peer closed before the first byte, or the program is to stop.
pub fn read_full(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    let mut have = 0;
    while have < buffer.len() {
        match stream.read(&mut buffer[have..]) {
            Ok(0) if have == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(error) if is_timeout(&error) => {
                if stop::requested() {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// A call that waited for nothing, or was interrupted by a signal.
pub fn is_timeout(error: &io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].contains(&error.kind())
}
