//! `send-hash` and `recv-hash`: bulk data over one TCP connection that both ends can prove to be bit-exact.
//!
//! The client first sends a header with the byte counts of both directions; then each side sends its pseudo-random data
//! followed by the SHA-256 of it, and compares what it receives with the hash that came along. At the end both close,
//! and the client reports how long the close took: a connection that hangs there is a bug that this verb is for.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{stop, tcp};

/// Bytes sent at once.
const CHUNK: usize = 128 << 10;
/// Bytes of the header: seed, client's byte count, server's byte count.
const HEADER: usize = 24;
/// Nothing moved for this long: the connection hangs.
const STALL: Duration = Duration::from_secs(10);

/// What to exchange.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The server, ADDRESS:PORT.
    pub to: SocketAddr,
    /// Bytes to send.
    #[arg(long, default_value_t = 64 << 20)]
    pub bytes: u64,
    /// Bytes that the server is to send at the same time.
    #[arg(long, default_value_t = 0)]
    pub back: u64,
    /// Start of the pseudo-random sequence.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Where to receive.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// TCP port, on all addresses, IPv4 and IPv6.
    pub port: u16,
    /// End after this many connections; 0: at SIGTERM.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
}

/// One end's view of one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Bytes sent, and their SHA-256.
    pub sent: u64,
    /// SHA-256 of what was sent, hexadecimal.
    pub sent_sha256: String,
    /// Bytes received.
    pub received: u64,
    /// SHA-256 of what was received, hexadecimal.
    pub received_sha256: String,
    /// What was received is what the other end had sent.
    pub exact: bool,
    /// From the first byte to the last in both directions, seconds.
    pub seconds: f64,
    /// From our close to the other end's, seconds.
    pub close_seconds: f64,
}

/// What the server saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    /// One report per connection.
    pub connections: Vec<Report>,
    /// Connections that broke, with the reason.
    pub errors: Vec<String>,
}

/// Exchanges the data and reports; an error if it stalls or breaks.
pub fn run(args: &Args) -> Result<Report> {
    let mut stream = tcp::connect(args.to, STALL).with_context(|| format!("cannot connect to {}", args.to))?;
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&args.seed.to_be_bytes());
    header[8..16].copy_from_slice(&args.bytes.to_be_bytes());
    header[16..].copy_from_slice(&args.back.to_be_bytes());
    stream.write_all(&header).context("cannot send the header")?;
    exchange(&stream, args.seed, args.bytes, args.back)
}

/// Receives (and sends back) until the given number of connections is done or the program is asked to stop.
pub fn serve(args: &ServerArgs) -> Result<ServerReport> {
    let listener = tcp::listen(args.port)?;
    let mut report = ServerReport {
        connections: Vec::new(),
        errors: Vec::new(),
    };
    while !stop::requested() {
        let Some(stream) = tcp::accept(&listener, STALL).context("cannot accept a connection")? else {
            continue;
        };
        match serve_one(stream) {
            Ok(one) => report.connections.push(one),
            Err(error) => report.errors.push(format!("{error:#}")),
        }
        if args.connections > 0 && report.connections.len() + report.errors.len() >= args.connections {
            break;
        }
    }
    Ok(report)
}

fn serve_one(mut stream: TcpStream) -> Result<Report> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).context("no header")?;
    let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    exchange(&stream, !number(0), number(16), number(8))
}

fn exchange(stream: &TcpStream, seed: u64, bytes: u64, expected: u64) -> Result<Report> {
    stream.set_write_timeout(Some(STALL))?;
    stream.set_read_timeout(Some(STALL))?;
    let start = Instant::now();
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, seed, bytes));
        let received = receive(stream, expected);
        (sender.join().expect("the sender panicked"), received)
    });
    let seconds = start.elapsed().as_secs_f64();
    let sent_hash = sent.with_context(|| format!("sending {bytes} bytes stalled or broke"))?;
    let (received_hash, told_hash) =
        received.with_context(|| format!("receiving {expected} bytes stalled or broke"))?;

    let closing = Instant::now();
    stream.shutdown(Shutdown::Write).context("cannot close")?;
    match (&mut &*stream).read(&mut [0]).context("the other end did not close")? {
        0 => {}
        _ => bail!("more than {expected} bytes came"),
    }
    Ok(Report {
        sent: bytes,
        sent_sha256: hex(&sent_hash),
        received: expected,
        received_sha256: hex(&received_hash),
        exact: received_hash == told_hash,
        seconds,
        close_seconds: closing.elapsed().as_secs_f64(),
    })
}

type Hash = [u8; 32];

fn send(mut stream: &TcpStream, seed: u64, bytes: u64) -> io::Result<Hash> {
    let mut numbers = SplitMix64(seed);
    let mut chunk = vec![0; CHUNK];
    let mut hash = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&numbers.next().to_le_bytes());
        }
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        hash.update(&chunk[..length]);
        stream.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    let hash: Hash = hash.finalize().into();
    stream.write_all(&hash)?;
    Ok(hash)
}

/// The hash of what came, and the hash that the sender says it has.
fn receive(mut stream: &TcpStream, bytes: u64) -> io::Result<(Hash, Hash)> {
    let mut chunk = vec![0; CHUNK];
    let mut hash = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        match stream.read(&mut chunk[..want])? {
            0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{left} bytes are missing"),
                ));
            }
            got => {
                hash.update(&chunk[..got]);
                left -= got as u64;
            }
        }
    }
    let mut told = Hash::default();
    stream.read_exact(&mut told)?;
    Ok((hash.finalize().into(), told))
}

fn hex(hash: &Hash) -> String {
    hash.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Sebastiano Vigna's splitmix64: fast, and without short cycles.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn both_ends_agree_on_both_directions() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("bound");
        let server = thread::spawn(move || serve_one(listener.accept().expect("a connection").0));
        let client = run(&Args {
            to,
            bytes: 300_001,
            back: 70_007,
            seed: 7,
        })
        .expect("the client's end");
        let server = server.join().expect("no panic").expect("the server's end");
        assert!(client.exact && server.exact);
        assert_eq!((client.sent, client.received), (300_001, 70_007));
        assert_eq!(client.sent_sha256, server.received_sha256);
        assert_eq!(client.received_sha256, server.sent_sha256);
        assert_ne!(client.sent_sha256, client.received_sha256);
    }
}
