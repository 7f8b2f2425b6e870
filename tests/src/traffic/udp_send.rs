//! `udp-send`: a flood of small datagrams.
//!
//! Each flow is one connected socket and begins with a handshake, a few datagrams that the sink answers, so that
//! conntrack has the conversation as replied before the flood. The default payload of 18 bytes makes the smallest
//! Ethernet frame: 14 + 20 (IPv4) + 8 (UDP) + 18 + 4 (check sequence) = 64 bytes.

use std::{
    io, mem,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{CpuTime, stop, tcp::is_timeout, udp};

/// What a handshake datagram begins with; the sink answers these with the same bytes and does not count them.
pub const HELLO: &[u8] = b"netfast-hello";
/// Exchanges in one handshake: the first makes the conntrack entry, the others pass as established.
const EXCHANGES: usize = 4;

/// What to send.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to, ADDRESS:PORT.
    pub to: SocketAddr,
    /// UDP payload of each datagram, bytes (18 makes a 64-byte Ethernet frame, check sequence included).
    #[arg(long, default_value_t = 18)]
    pub size: usize,
    /// For how long.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Sockets, each with its own source port, used in turn.
    #[arg(long, default_value_t = 1)]
    pub flows: usize,
    /// Datagrams per sendmmsg call.
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// Datagrams per second over all flows; 0: as many as go.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Send without the handshake: the conversation stays unreplied.
    #[arg(long)]
    pub no_handshake: bool,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// `sent` per second.
    pub pps: f64,
    /// sendmmsg calls that failed (a full queue, a port unreachable).
    pub errors: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// CPU of the sending process.
    pub cpu: CpuTime,
}

/// Sends, and reports.
pub fn run(args: &Args) -> Result<Report> {
    if args.flows == 0 || args.batch == 0 {
        bail!("--flows and --batch must be at least 1");
    }
    let sockets = (0..args.flows).map(|_| open(args)).collect::<Result<Vec<_>>>()?;
    let mut payload = vec![0_u8; args.size.max(1)];
    let mut data = libc::iovec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: args.size,
    };
    // SAFETY: mmsghdr is plain data, for which zeroes are valid: no name, no control data.
    let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_iov = &raw mut data;
    header.msg_hdr.msg_iovlen = 1;
    let mut batch = vec![header; args.batch];

    let (mut sent, mut errors) = (0, 0);
    let start = Instant::now();
    let limit = Duration::from_secs_f64(args.seconds);
    for socket in sockets.iter().cycle() {
        let elapsed = start.elapsed();
        if elapsed >= limit || stop::requested() {
            break;
        }
        if args.rate > 0 && sent as f64 > args.rate as f64 * elapsed.as_secs_f64() {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let count = u32::try_from(batch.len()).context("--batch is too large")?;
        // SAFETY: `batch` has `count` headers; each points to `data`, and it to `payload`, which outlive the call.
        match unsafe { libc::sendmmsg(socket.as_raw_fd(), batch.as_mut_ptr(), count, 0) } {
            taken @ 0.. => sent += u64::from(taken.unsigned_abs()),
            _ => errors += 1,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Report {
        sent,
        pps: sent as f64 / seconds,
        errors,
        seconds,
        cpu: CpuTime::now(),
    })
}

fn open(args: &Args) -> Result<UdpSocket> {
    let socket = udp::bind_for(args.to, 0).context("cannot make a UDP socket")?;
    set_option(&socket, libc::SO_SNDBUF, 4 << 20)?;
    socket
        .connect(args.to)
        .with_context(|| format!("cannot connect to {}", args.to))?;
    if !args.no_handshake {
        shake(&socket).with_context(|| format!("no handshake with the sink at {}", args.to))?;
    }
    Ok(socket)
}

/// [`EXCHANGES`] datagrams there and back; each is tried for up to 3 s, since the sink may still be starting.
fn shake(socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    for _ in 0..EXCHANGES {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            // Port unreachable comes back as an error of the next call: as good as no answer.
            let _refused = socket.send(HELLO);
            let mut answer = [0; 64];
            match socket.recv(&mut answer) {
                Ok(n) if &answer[..n] == HELLO => break,
                Ok(_) => {}
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(error) if is_timeout(&error) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    Ok(())
}

/// Sets an integer option of level `SOL_SOCKET`.
pub fn set_option(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of_val(&value)).expect("an int is small");
    // SAFETY: the pointer and the size are those of `value`, which lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            ptr::from_ref(&value).cast(),
            size,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
