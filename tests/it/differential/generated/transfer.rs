//! A TCP connection between real sockets: what each end got, in which order, and how it ended.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    netns::NsHandle,
    seeds::{
        family::Family,
        names,
        scenario::{CONTAINER_PORT, PUBLISHED_PORT, Place, REAL_PORTS, Way},
        step::Close,
    },
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
        sockopt::{Linger, ReuseAddr, SocketError},
    },
};

use super::{
    arena::{REAL_CLIENTS, REAL_SERVER},
    packets::bytes,
    play::Play,
};

/// Real sockets on the way of a conversation.
pub struct Ends {
    pub client: NsHandle,
    pub from: SocketAddr,
    /// What the client sends to.
    pub to: SocketAddr,
    pub server: NsHandle,
    /// The port that the server has itself.
    pub port: u16,
}

/// What a transfer is.
#[derive(Clone, Copy)]
struct Plan {
    bytes: usize,
    close: Close,
    limit: Duration,
}

impl Play<'_> {
    /// Tries it where the conversation has got through; elsewhere it would only wait.
    pub fn transfer(&mut self, number: usize, kib: u16, close: Close) {
        let ends = match self.real_ends(number) {
            Ok(ends) => ends,
            Err(why) => return self.note(why.to_owned()),
        };
        let plan = Plan {
            bytes: usize::from(kib) * 1024,
            close,
            limit: self.patience.sockets,
        };
        let said = converse(&ends, plan);
        // Who gives up resets it as well, see `leave`.
        let gave_up = said.iter().any(|line| !line.contains(" bytes"));
        if gave_up || close == Close::ResetByClient {
            self.note_reset(ends.from.port());
        }
        for line in said {
            self.note(line);
        }
        self.arena.drain();
    }

    /// Where real sockets belong that go the way of a conversation, or why there are none. Each time a client's port that
    /// the last ones have not had.
    pub fn real_ends(&mut self, number: usize) -> Result<Ends, &'static str> {
        let live = &self.live[number];
        let talk = live.talk;
        let server = match talk.way {
            Way::Host => self.arena.host.handle(),
            Way::Behind => return Err("nobody has that address"),
            Way::Direct(_) | Way::Published(..) => match live.server {
                Some(place) if self.is_there(place) => self.arena.spaces[&place].handle(),
                _ => return Err("the server is gone"),
            },
        };
        if !live.is_open || !self.is_there(talk.client) {
            return Err("not tried");
        }
        let (to, port) = if let Way::Published(number, uplink) = talk.way {
            let number = u16::try_from(number).expect("few") + REAL_PORTS;
            let to = SocketAddr::new(names::uplink_ip(uplink, talk.family), PUBLISHED_PORT + number);
            (to, CONTAINER_PORT + number)
        } else {
            (SocketAddr::new(live.raw.to.ip(), REAL_SERVER), REAL_SERVER)
        };
        let client = self.arena.spaces[&talk.client].handle();
        let from = SocketAddr::new(names::ip(talk.client, talk.family), self.next_real_port());
        for port in [from.port(), to.port(), port] {
            self.note_port(port);
        }
        Ok(Ends {
            client,
            from,
            to,
            server,
            port,
        })
    }

    fn is_there(&self, place: Place) -> bool {
        self.arena.stations.contains_key(&place)
    }

    /// Another one each time, as far as that goes: the last connection of a port may still be in `TIME_WAIT`.
    fn next_real_port(&mut self) -> u16 {
        let count = u16::try_from(REAL_CLIENTS.len()).expect("few");
        self.arena.real_clients = (self.arena.real_clients + 1) % count;
        REAL_CLIENTS.start() + self.arena.real_clients
    }
}

/// Both ends, and what each says of it.
fn converse(ends: &Ends, plan: Plan) -> [String; 2] {
    let Ends {
        client,
        from,
        to,
        server,
        port,
    } = ends;
    let any = SocketAddr::new(Family::of(to.ip()).unspecified(), *port);
    let listener = match server.run(|| once_free(|| TcpListener::bind(any))) {
        Ok(Ok(listener)) => listener,
        other => return [format!("no listener: {other:?}"), String::new()],
    };
    let socket = match client.run(|| client_socket(*from)) {
        Ok(Ok(socket)) => socket,
        other => return [format!("no socket: {other:?}"), String::new()],
    };
    thread::scope(|scope| {
        let server = scope.spawn(move || serve(&listener, plan));
        let client = scope.spawn(move || call(socket, *to, plan));
        let said = |result: io::Result<String>| result.unwrap_or_else(|error| error.kind().to_string());
        let client = said(client.join().expect("the client"));
        let server = said(server.join().expect("the server"));
        [format!("client: {client}"), format!("server: {server}")]
    })
}

/// Binds a socket. The last one of that port may not quite be closed: a process that another thread is starting has a copy
/// of it until it is what it is to be.
pub fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
}

fn client_socket(from: SocketAddr) -> io::Result<OwnedFd> {
    let family = match Family::of(from.ip()) {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let socket = socket(
        family,
        SockType::Stream,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&socket, ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    Ok(socket)
}

/// Whether something can be done with a descriptor in time.
fn is_ready(fd: &impl std::os::fd::AsFd, flags: PollFlags, limit: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut [PollFd::new(fd.as_fd(), flags)], timeout)? > 0)
}

fn call(socket: OwnedFd, to: SocketAddr, plan: Plan) -> io::Result<String> {
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    if !is_ready(&socket, PollFlags::POLLOUT, plan.limit)? {
        return Ok("no connection".to_owned());
    }
    let error = nix::sys::socket::getsockopt(&socket, SocketError)?;
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let stream = TcpStream::from(socket);
    let result = Limited::new(&stream, plan.patience()).and_then(|mut limited| match plan.close {
        Close::HalfByClient => {
            limited.write_all(&bytes(plan.bytes))?;
            stream.shutdown(Shutdown::Write)?;
            read_all(&mut limited)
        }
        Close::HalfByServer => {
            let got = read_all(&mut limited)?;
            limited.write_all(&bytes(plan.bytes))?;
            Ok(got)
        }
        Close::ResetByClient => {
            limited.write_all(&bytes(plan.bytes))?;
            let got = read_some(&mut limited, plan.bytes)?;
            reset(&stream)?;
            Ok(got)
        }
    });
    leave(&stream, result)
}

fn serve(listener: &TcpListener, plan: Plan) -> io::Result<String> {
    listener.set_nonblocking(true)?;
    if !is_ready(&listener.as_fd(), PollFlags::POLLIN, plan.limit)? {
        return Ok("nobody came".to_owned());
    }
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    let result = Limited::new(&stream, SERVER_WAITS * plan.patience()).and_then(|mut limited| match plan.close {
        Close::HalfByClient => {
            let got = read_all(&mut limited)?;
            limited.write_all(&bytes(plan.bytes))?;
            Ok(got)
        }
        Close::HalfByServer => {
            limited.write_all(&bytes(plan.bytes))?;
            stream.shutdown(Shutdown::Write)?;
            read_all(&mut limited)
        }
        Close::ResetByClient => {
            let got = read_some(&mut limited, plan.bytes)?;
            limited.write_all(&bytes(plan.bytes))?;
            let end = match limited.read(&mut [0; 16]) {
                Ok(0) => "then the end".to_owned(),
                Ok(_) => "then more".to_owned(),
                Err(error) => format!("then {}", error.kind()),
            };
            Ok(format!("{got}, {end}"))
        }
    });
    leave(&stream, result)
}

/// Who gives up first when a connection stands still: the client, so that it is always the same.
const SERVER_WAITS: u32 = 3;

impl Plan {
    /// How long the client tries, all in all: what is sent again takes 200 ms at least, and twice as long each time.
    fn patience(self) -> Duration {
        2 * self.limit.max(Duration::from_secs(2))
    }
}

/// A stream that gives up at a time. One that goes on in small steps would outlast what conntrack remembers of others.
struct Limited<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Limited<'a> {
    fn new(stream: &'a TcpStream, limit: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let deadline = Instant::now() + limit;
        Ok(Self { stream, deadline })
    }

    /// What is left of it.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Some(left))
    }
}

impl io::Read for Limited<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(to)
    }
}

impl io::Write for Limited<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What went wrong must not go on by itself after the step.
fn leave(stream: &TcpStream, result: io::Result<String>) -> io::Result<String> {
    if result.is_err() {
        reset(stream)?;
    }
    result
}

fn reset(stream: &TcpStream) -> io::Result<()> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    Ok(setsockopt(stream, Linger, &linger)?)
}

fn read_all(stream: &mut Limited<'_>) -> io::Result<String> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    Ok(in_words(&got))
}

fn read_some(stream: &mut Limited<'_>, length: usize) -> io::Result<String> {
    let mut got = vec![0; length];
    stream.read_exact(&mut got)?;
    Ok(in_words(&got))
}

fn in_words(got: &[u8]) -> String {
    let is_whole = got == bytes(got.len());
    format!("{} bytes{}", got.len(), if is_whole { "" } else { ", but others" })
}
