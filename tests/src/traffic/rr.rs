//! `rr` and `rr-server`: one request, one response, again and again, over TCP or UDP.

use std::{
    io::{self, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    CpuTime,
    latency::{Latencies, LatencySummary},
    stop, tcp, udp,
};

/// A request or response longer than this is refused.
const MAX_SIZE: usize = 65_000;
/// The first port of `--new-port`: those below want privilege, and masquerade keeps the two sorts apart.
const FIRST_PORT: u16 = 1024;
/// A response that takes longer is an error, and ends its connection.
const LIMIT: Duration = Duration::from_secs(2);

/// What to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The server, ADDRESS:PORT.
    pub to: SocketAddr,
    /// Over UDP instead of TCP; a lost datagram is an error, and the next request follows.
    #[arg(long)]
    pub udp: bool,
    /// Each request from the next port, upwards from 1024, as a resolver asks: a conversation of its own.
    #[arg(long, requires = "udp")]
    pub new_port: bool,
    /// Bytes of each request (and of its response: the server sends it back).
    #[arg(long, default_value_t = 1)]
    pub size: usize,
    /// For how long.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Connections at the same time, a thread each.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Responses received.
    pub transactions: u64,
    /// `transactions` per second.
    pub rate: f64,
    /// Requests without a (right) response, and connections that failed.
    pub errors: u64,
    /// From request to response.
    #[serde(flatten)]
    pub latency: LatencySummary,
    /// CPU of the asking process.
    pub cpu: CpuTime,
}

/// Asks, and reports.
pub fn run(args: &Args) -> Result<Report> {
    anyhow::ensure!(
        (1..=MAX_SIZE).contains(&args.size),
        "--size {}: must be 1 to {MAX_SIZE}",
        args.size
    );
    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(args.seconds);
    let results = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.connections)
            .map(|index| {
                scope.spawn(move || {
                    if args.udp {
                        ask_udp(args, index, deadline)
                    } else {
                        ask_tcp(args, deadline)
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread panicked"))
            .collect::<Vec<_>>()
    });
    let seconds = start.elapsed().as_secs_f64();
    let (mut all, mut errors) = (Latencies::default(), 0);
    for result in results {
        let (latencies, failed) = result?;
        all.merge(&latencies);
        errors += failed;
    }
    Ok(Report {
        transactions: all.count(),
        rate: all.count() as f64 / seconds,
        errors,
        latency: all.summary(),
        cpu: CpuTime::now(),
    })
}

fn ask_tcp(args: &Args, deadline: Instant) -> Result<(Latencies, u64)> {
    let mut stream = tcp::connect(args.to, LIMIT).with_context(|| format!("cannot connect to {}", args.to))?;
    let (request, mut response) = (vec![b'q'; args.size], vec![0; args.size]);
    let mut latencies = Latencies::default();
    while Instant::now() < deadline && !stop::requested() {
        let sent = Instant::now();
        let done = stream
            .write_all(&request)
            .and_then(|()| io::Read::read_exact(&mut stream, &mut response));
        if done.is_err() || response != request {
            return Ok((latencies, 1));
        }
        latencies.record(sent.elapsed());
    }
    Ok((latencies, 0))
}

fn ask_udp(args: &Args, index: usize, deadline: Instant) -> Result<(Latencies, u64)> {
    // No two threads ask from one port.
    let mut ports = (FIRST_PORT..=u16::MAX).skip(index).step_by(args.connections).cycle();
    let mut socket = udp_socket(args.to, 0)?;
    let (request, mut response) = (vec![b'q'; args.size], vec![0; MAX_SIZE]);
    let (mut latencies, mut errors) = (Latencies::default(), 0);
    while Instant::now() < deadline && !stop::requested() {
        if args.new_port {
            socket = next_socket(args.to, &mut ports)?;
        }
        let sent = Instant::now();
        match socket.send(&request).and_then(|_| socket.recv(&mut response)) {
            Ok(length) if length == args.size => latencies.record(sent.elapsed()),
            Ok(_) | Err(_) => errors += 1,
        }
    }
    Ok((latencies, errors))
}

/// A socket with the next port that is free.
fn next_socket(to: SocketAddr, ports: &mut impl Iterator<Item = u16>) -> Result<UdpSocket> {
    for port in ports.take(usize::from(u16::MAX)) {
        match udp_socket(to, port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other.with_context(|| format!("cannot ask {to} from port {port}")),
        }
    }
    bail!("no port is free to ask {to} from")
}

/// A socket that sends to `to` from `port` (0: any) and hears only it.
fn udp_socket(to: SocketAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = udp::bind_for(to, port)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

/// Where to answer.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// TCP and UDP port, on all addresses, IPv4 and IPv6.
    pub port: u16,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    /// TCP connections served.
    pub connections: usize,
    /// Datagrams answered.
    pub datagrams: u64,
}

/// Sends back what comes, over TCP and UDP, until the program is asked to stop.
pub fn serve(args: &ServerArgs) -> Result<ServerReport> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, args.port))
        .with_context(|| format!("cannot bind UDP port {}", args.port))?;
    socket.set_read_timeout(Some(tcp::TICK))?;
    thread::scope(|scope| {
        let datagrams = scope.spawn(|| echo_datagrams(&socket));
        let connections = tcp::serve(args.port, echo_stream)?.len();
        Ok(ServerReport {
            connections,
            datagrams: datagrams.join().expect("the UDP thread panicked"),
        })
    })
}

fn echo_datagrams(socket: &UdpSocket) -> u64 {
    let mut data = vec![0; MAX_SIZE];
    let mut answered = 0;
    while !stop::requested() {
        let Ok((length, peer)) = socket.recv_from(&mut data) else {
            continue;
        };
        if socket.send_to(&data[..length], peer).is_ok() {
            answered += 1;
        }
    }
    answered
}

fn echo_stream(mut stream: TcpStream) {
    let mut data = vec![0; MAX_SIZE];
    while !stop::requested() {
        match io::Read::read(&mut stream, &mut data) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&data[..length]).is_err() => return,
            Ok(_) => {}
            Err(error) if tcp::is_timeout(&error) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::Ipv4Addr};

    use super::*;

    #[test]
    fn each_request_is_from_a_port_of_its_own_if_so_wanted() {
        for new_port in [false, true] {
            let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
            server.set_read_timeout(Some(tcp::TICK)).expect("an option");
            let args = Args {
                to: server.local_addr().expect("bound"),
                udp: true,
                new_port,
                size: 1,
                seconds: 0.2,
                connections: 2,
            };
            let (asked, report) = thread::scope(|scope| {
                let client = scope.spawn(|| run(&args).expect("the client's end"));
                let mut asked = Vec::new();
                let mut data = [0];
                while !client.is_finished() {
                    if let Ok((_, peer)) = server.recv_from(&mut data) {
                        server.send_to(&data, peer).expect("sent");
                        asked.push(peer.port());
                    }
                }
                (asked, client.join().expect("no panic"))
            });
            let ports: HashSet<u16> = asked.iter().copied().collect();
            assert!(report.errors == 0 && asked.len() > 2, "{report:?}");
            assert_eq!(ports.len(), if new_port { asked.len() } else { 2 });
        }
    }
}
