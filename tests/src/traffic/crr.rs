//! `crr` and `crr-server`: connect, request, response, close; the rate of whole TCP connections.
//!
//! The server closes first, so the TIME-WAIT state stays with it and the client's ports can be used again at once.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    CpuTime,
    latency::{Latencies, LatencySummary},
    stop, tcp,
};

/// A connection that takes longer is an error.
const LIMIT: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The server, ADDRESS:PORT.
    pub to: SocketAddr,
    /// For how long.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Threads, each with one connection at a time.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Bytes of each request (at most 4096, and so few that they fit one segment); the response has as many.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub size: u16,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Connections opened, used and closed.
    pub connections: u64,
    /// `connections` per second.
    pub rate: f64,
    /// Connections that failed or took longer than 2 s.
    pub errors: u64,
    /// From connect to the server's close.
    #[serde(flatten)]
    pub latency: LatencySummary,
    /// CPU of the connecting process.
    pub cpu: CpuTime,
}

/// Connects, and reports.
pub fn run(args: &Args) -> Result<Report> {
    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(args.seconds);
    let results = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|_| scope.spawn(|| client(args, deadline)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread panicked"))
            .collect::<Vec<_>>()
    });
    let seconds = start.elapsed().as_secs_f64();
    let (mut all, mut errors) = (Latencies::default(), 0);
    for (latencies, failed) in results {
        all.merge(&latencies);
        errors += failed;
    }
    Ok(Report {
        connections: all.count(),
        rate: all.count() as f64 / seconds,
        errors,
        latency: all.summary(),
        cpu: CpuTime::now(),
    })
}

fn client(args: &Args, deadline: Instant) -> (Latencies, u64) {
    let (mut latencies, mut errors) = (Latencies::default(), 0);
    while Instant::now() < deadline && !stop::requested() {
        let start = Instant::now();
        if one_connection(args).is_ok() {
            latencies.record(start.elapsed());
        } else {
            errors += 1;
            // A refused connection fails at once: do not spin on it.
            thread::sleep(Duration::from_millis(1));
        }
    }
    (latencies, errors)
}

fn one_connection(args: &Args) -> io::Result<()> {
    let mut stream = tcp::connect(args.to, LIMIT)?;
    let mut request = vec![b'q'; usize::from(args.size)];
    stream.write_all(&request)?;
    stream.read_exact(&mut request)?;
    // The server's close.
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more than the response came")),
    }
}

/// Where to answer.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// TCP port, on all addresses, IPv4 and IPv6.
    pub port: u16,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Connections that were given their response.
    pub connections: u64,
}

/// Answers the first read of each connection and closes it, until the program is asked to stop.
pub fn serve(args: &ServerArgs) -> Result<ServerReport> {
    let listener = tcp::listen(args.port)?;
    // As many as can run at once: a thread per connection would measure the making of threads.
    let threads = thread::available_parallelism().map_or(2, usize::from).min(8);
    let connections = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !stop::requested() {
                        if let Ok(Some(stream)) = tcp::accept(&listener, LIMIT)
                            && answer(stream).is_ok()
                        {
                            served += 1;
                        }
                    }
                    served
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread panicked"))
            .sum()
    });
    Ok(ServerReport { connections })
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    let length = stream.read(&mut request)?;
    stream.write_all(&request[..length])
}
