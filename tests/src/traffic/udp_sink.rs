//! `udp-sink`: counts datagrams, and answers the handshakes of `udp-send`.

use std::{
    io, mem,
    net::{Ipv6Addr, UdpSocket},
    os::fd::AsRawFd as _,
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    CpuTime, stop, tcp,
    udp_send::{HELLO, set_option},
};

/// Datagrams per recvmmsg call.
const BATCH: usize = 64;
/// Bytes of each datagram that are looked at; the rest is cut off, which costs the sink nothing.
const LOOK: usize = 64;

/// Where to listen.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// UDP port, on all addresses, IPv4 and IPv6.
    pub port: u16,
    /// Send every datagram back (up to 2048 bytes of it) besides counting it.
    #[arg(long)]
    pub echo: bool,
    /// Look for the next datagram for a while before sleeping, as a receiver under load does: then it is the path that
    /// limits the rate, and not how long it takes to wake a sleeping process.
    #[arg(long, conflicts_with = "echo")]
    pub eager: bool,
}

/// How long an eager sink looks.
const EAGER: Duration = Duration::from_millis(1);

/// What arrived, handshakes not counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Datagrams read.
    pub received: u64,
    /// Datagrams that reached the socket when its buffer (8 MiB) was full.
    pub dropped: u64,
    /// From the first datagram to the last, seconds.
    pub span_s: f64,
    /// `received` per second of the span.
    pub pps: f64,
    /// CPU of the sink's process.
    pub cpu: CpuTime,
}

/// Counts until the program is asked to stop.
pub fn run(args: &Args) -> Result<Report> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, args.port))
        .with_context(|| format!("cannot bind UDP port {}", args.port))?;
    // Forcing it past rmem_max needs CAP_NET_ADMIN, which a container lacks; the plain option then gives what it can.
    set_option(&socket, libc::SO_RCVBUFFORCE, 8 << 20).or_else(|_| set_option(&socket, libc::SO_RCVBUF, 8 << 20))?;
    set_option(&socket, libc::SO_RXQ_OVFL, 1)?;
    socket.set_read_timeout(Some(tcp::TICK))?;
    eprintln!("listening on UDP port {}", args.port);
    if args.echo {
        Ok(echo(&socket))
    } else {
        count(&socket, args.eager)
    }
}

/// Bytes of room for one control message with a u32 in it.
const CONTROL: usize = 64;

fn count(socket: &UdpSocket, eager: bool) -> Result<Report> {
    let mut data = [[0_u8; LOOK]; BATCH];
    let mut names = [const { mem::MaybeUninit::<libc::sockaddr_storage>::zeroed() }; BATCH];
    let mut control = [[0_u64; CONTROL / 8]; BATCH];
    // SAFETY: iovec and mmsghdr are plain data, for which zeroes are valid.
    let mut parts: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut batch: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut counter = Counter::default();
    while !stop::requested() {
        for i in 0..BATCH {
            parts[i] = libc::iovec {
                iov_base: data[i].as_mut_ptr().cast(),
                iov_len: LOOK,
            };
            let header = &mut batch[i].msg_hdr;
            header.msg_name = names[i].as_mut_ptr().cast();
            header.msg_namelen = u32::try_from(size_of::<libc::sockaddr_storage>())?;
            header.msg_iov = &raw mut parts[i];
            header.msg_iovlen = 1;
            header.msg_control = control[i].as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        let looks = eager && counter.first_and_last.is_some_and(|(_, last)| last.elapsed() < EAGER);
        // SAFETY: all of `batch` was just set up to point into arrays that outlive the call, with their sizes.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                batch.as_mut_ptr(),
                u32::try_from(BATCH)?,
                if looks {
                    libc::MSG_DONTWAIT
                } else {
                    libc::MSG_WAITFORONE
                },
                ptr::null_mut(),
            )
        };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            // An ICMP error for an answer to a peer that is gone is no reason to stop counting.
            if tcp::is_timeout(&error) || error.kind() == io::ErrorKind::ConnectionRefused {
                continue;
            }
            return Err(error).context("cannot receive");
        };
        if got == 0 {
            continue;
        }
        let mut data_count = 0;
        for i in 0..got {
            let length = usize::try_from(batch[i].msg_len)?.min(LOOK);
            if data[i][..length].starts_with(HELLO) {
                answer(socket, &batch[i].msg_hdr, &data[i][..length]);
            } else {
                data_count += 1;
            }
        }
        if let Some(dropped) = overflow(&batch[got - 1].msg_hdr) {
            counter.dropped = dropped;
        }
        counter.add(data_count);
    }
    Ok(counter.report())
}

#[derive(Debug, Default)]
struct Counter {
    received: u64,
    dropped: u64,
    first_and_last: Option<(Instant, Instant)>,
}

impl Counter {
    fn add(&mut self, datagrams: u64) {
        if datagrams > 0 {
            let now = Instant::now();
            self.received += datagrams;
            self.first_and_last = Some((self.first_and_last.map_or(now, |(first, _)| first), now));
        }
    }

    fn report(&self) -> Report {
        let span_s = self
            .first_and_last
            .map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Report {
            received: self.received,
            dropped: self.dropped,
            span_s,
            pps: if span_s > 0.0 {
                self.received as f64 / span_s
            } else {
                0.0
            },
            cpu: CpuTime::now(),
        }
    }
}

/// Sends a handshake back to where it came from.
fn answer(socket: &UdpSocket, from: &libc::msghdr, hello: &[u8]) {
    // SAFETY: `msg_name` is the sender's address, `msg_namelen` bytes long, as recvmmsg wrote it; `hello` is a slice.
    let _lost = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            hello.as_ptr().cast(),
            hello.len(),
            0,
            from.msg_name.cast(),
            from.msg_namelen,
        )
    };
}

/// The count of datagrams that the full socket has dropped so far, if the message carries it.
fn overflow(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: `header` was filled by recvmmsg, and its control buffer, aligned for cmsghdr, still lives.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header within the control buffer.
    while let Some(control) = unsafe { message.as_ref() } {
        if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
            // SAFETY: the data of SO_RXQ_OVFL is a u32; the read does not ask for alignment.
            return Some(u64::from(unsafe {
                libc::CMSG_DATA(message).cast::<u32>().read_unaligned()
            }));
        }
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// One datagram at a time, whole, back to its sender.
fn echo(socket: &UdpSocket) -> Report {
    let mut counter = Counter::default();
    let mut data = [0; 2048];
    while !stop::requested() {
        let Ok((length, peer)) = socket.recv_from(&mut data) else {
            continue;
        };
        // A full queue or an unreachable peer: the peer sees the loss.
        let _lost = socket.send_to(&data[..length], peer);
        if !data[..length].starts_with(HELLO) {
            counter.add(1);
        }
    }
    counter.report()
}
