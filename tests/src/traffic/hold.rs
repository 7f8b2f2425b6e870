//! `hold`: many idle TCP connections, and the proof at the end that each still works.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::{stop, tcp};

/// A connection that does not answer within this is dead.
const LIMIT: Duration = Duration::from_secs(2);

/// What to hold.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// An `rr-server`, ADDRESS:PORT.
    pub to: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// For how long at most; SIGTERM ends it before.
    #[arg(long, default_value_t = 3600.0)]
    pub seconds: f64,
    /// Seconds of idleness between keep-alive probes of the kernel; 0: no probes.
    #[arg(long, default_value_t = 1)]
    pub keepalive: u32,
}

/// How many were alive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Connections opened.
    pub opened: usize,
    /// Connections that answered at the end.
    pub alive: usize,
    /// Connections that did not.
    pub dead: usize,
}

/// Opens, waits, asks, and reports.
pub fn run(args: &Args) -> Result<Report> {
    let mut streams = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        let mut stream = tcp::connect(args.to, LIMIT)
            .with_context(|| format!("cannot open connection {} to {}", streams.len() + 1, args.to))?;
        if args.keepalive > 0 {
            keep_alive(&stream, args.keepalive)?;
        }
        // Established at both ends, and seen by conntrack in both directions.
        anyhow::ensure!(answers(&mut stream), "{} does not answer: is it an rr-server?", args.to);
        streams.push(stream);
    }
    eprintln!("holding {} connections", streams.len());
    let end = Instant::now() + Duration::from_secs_f64(args.seconds);
    while Instant::now() < end && !stop::requested() {
        thread::sleep(Duration::from_millis(20));
    }
    let alive = streams
        .iter_mut()
        .filter_map(|stream| answers(stream).then_some(()))
        .count();
    Ok(Report {
        opened: streams.len(),
        alive,
        dead: streams.len() - alive,
    })
}

fn answers(stream: &mut TcpStream) -> bool {
    let mut answer = [0];
    stream
        .write_all(b"?")
        .and_then(|()| stream.read_exact(&mut answer))
        .is_ok()
        && &answer == b"?"
}

fn keep_alive(stream: &TcpStream, seconds: u32) -> Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &seconds)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &seconds)?;
    Ok(())
}
