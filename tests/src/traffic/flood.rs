//! `flood`: frames that a container should not send, as fast as it is told to.

use std::{
    io, mem,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::stop;
use crate::{
    packet::{Mac, Packet, flag},
    seeds::rng::Rng,
};

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// UDP of random ports, eight of each.
    Udp,
    /// SYNs to random ports.
    Syn,
    /// Acknowledgements of no connection.
    Ack,
    /// UDP from a neighbour's IP address.
    Address,
    /// UDP from a neighbour's IP and MAC address, which moves the neighbour to another port of the bridge.
    Mac,
    /// ARP: a neighbour is here.
    Arp,
    /// Frames cut short, with a bit off, with bytes too many, or of noise.
    Broken,
}

/// Who sends what to whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What to send.
    #[arg(value_enum)]
    pub kind: Kind,
    /// The interface to send on.
    #[arg(long, default_value = "eth0")]
    pub device: String,
    /// The sender's address.
    #[arg(long)]
    pub from: Ipv4Addr,
    /// The sender's MAC address.
    #[arg(long, value_parser = mac)]
    pub from_mac: Mac,
    /// Whom it is sent to.
    #[arg(long)]
    pub to: Ipv4Addr,
    /// Its MAC address.
    #[arg(long, value_parser = mac)]
    pub to_mac: Mac,
    /// The neighbour that is played.
    #[arg(long)]
    pub victim: Ipv4Addr,
    /// Its MAC address.
    #[arg(long, value_parser = mac)]
    pub victim_mac: Mac,
    /// Frames per second; 0: as many as go.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// For how long; SIGTERM ends it before.
    #[arg(long, default_value_t = 3600.0)]
    pub seconds: f64,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Frames that the kernel took.
    pub sent: u64,
    /// `sent` per second.
    pub pps: f64,
}

/// A MAC address from text.
fn mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let mac = bytes.and_then(|bytes| bytes.try_into().ok());
    mac.ok_or_else(|| format!("{text}: expected six bytes, as in 02:00:00:00:00:01"))
}

/// Frames between two looks at the clock.
const BATCH: u32 = 32;

/// Sends, and reports.
pub fn run(args: &Args) -> Result<Report> {
    let socket = open(&args.device)?;
    let mut rng = Rng::new(1);
    let (start, limit) = (Instant::now(), Duration::from_secs_f64(args.seconds));
    let (mut number, mut sent) = (0_u64, 0_u64);
    while !stop::requested() && start.elapsed() < limit {
        for _ in 0..BATCH {
            let frame = args.frame(number, &mut rng);
            number += 1;
            // SAFETY: pointer and length are those of a vector.
            let done = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            // A full queue and a frame that the kernel refuses are no reason to give up.
            sent += u64::from(done > 0);
        }
        if args.rate > 0 {
            let due = Duration::from_secs_f64(number as f64 / args.rate as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    Ok(Report {
        sent,
        pps: sent as f64 / start.elapsed().as_secs_f64(),
    })
}

/// Sends one frame on a device.
pub fn send_one(device: &str, frame: &[u8]) -> Result<()> {
    let socket = open(device)?;
    // SAFETY: pointer and length are those of a slice.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
    ensure!(sent > 0, "cannot send on {device}: {}", io::Error::last_os_error());
    Ok(())
}

impl Args {
    /// The frame of this number.
    fn frame(&self, number: u64, rng: &mut Rng) -> Vec<u8> {
        let port = |number: u64| Rng::new(number).bits().to_le_bytes();
        let port = |number: u64| u16::from_le_bytes([port(number)[0], port(number)[1]]) | 1;
        // Each tuple several times, which is what it takes to be learned.
        let (source, destination) = (port(number / 8), port(number / 8 + 1_000_000));
        let (own, to) = ((self.from, source), (self.to, destination));
        let ordinary = |packet: Packet| packet.macs(self.to_mac, self.from_mac);
        match self.kind {
            Kind::Udp => ordinary(Packet::udp(own, to)).bytes(),
            Kind::Syn => ordinary(Packet::tcp((self.from, port(number)), to))
                .with(|packet| packet.flags = flag::SYN)
                .bytes(),
            Kind::Ack => ordinary(Packet::tcp(own, to)).bytes(),
            Kind::Address => ordinary(Packet::udp((self.victim, source), to)).bytes(),
            Kind::Mac => Packet::udp((self.victim, source), to)
                .macs(self.to_mac, self.victim_mac)
                .bytes(),
            Kind::Arp => {
                let mut frame = [[0xff; 6], self.from_mac].concat();
                frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
                frame.extend(self.from_mac);
                frame.extend(self.victim.octets());
                frame.extend([0xff; 6]);
                frame.extend(self.victim.octets());
                frame
            }
            Kind::Broken => {
                let mut frame = ordinary(Packet::tcp(own, to)).bytes();
                let place = 14 + rng.below(frame.len() - 14);
                match number % 4 {
                    0 => frame.truncate(place),
                    1 => frame[place] ^= 1 << rng.below(8),
                    2 => frame.resize(1514, 0),
                    _ => frame[12..].fill_with(|| rng.bits().to_le_bytes()[0]),
                }
                frame
            }
        }
    }
}

/// A socket that sends frames on a device, and hears nothing.
fn open(device: &str) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(socket >= 0, "no raw socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor was just made and is nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let index = nix::net::if_::if_nametoindex(device).with_context(|| format!("no interface {device}"))?;
    // SAFETY: plain data, for which zeroes are valid.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_ifindex = i32::try_from(index)?;
    let size = u32::try_from(size_of_val(&address))?;
    // SAFETY: pointer and size are those of `address`, which outlives the call.
    let done = unsafe { libc::bind(socket.as_raw_fd(), ptr::from_ref(&address).cast(), size) };
    ensure!(done == 0, "cannot send on {device}: {}", io::Error::last_os_error());
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_what_it_says() {
        let frame = |kind, number| {
            let args = Args {
                kind,
                device: String::new(),
                from: Ipv4Addr::new(10, 0, 0, 2),
                from_mac: [2; 6],
                to: Ipv4Addr::new(10, 0, 0, 3),
                to_mac: [4; 6],
                victim: Ipv4Addr::new(10, 0, 0, 4),
                victim_mac: [6; 6],
                rate: 0,
                seconds: 0.0,
            };
            args.frame(number, &mut Rng::new(1))
        };
        assert_eq!(frame(Kind::Udp, 0), frame(Kind::Udp, 7));
        assert_ne!(frame(Kind::Udp, 0), frame(Kind::Udp, 8));
        assert_eq!(
            (frame(Kind::Syn, 0)[47], frame(Kind::Ack, 0)[47] & 0x12),
            (flag::SYN, flag::ACK)
        );
        let address = frame(Kind::Address, 0);
        assert_eq!((&address[6..12], &address[26..30]), (&[2; 6][..], &[10, 0, 0, 4][..]));
        assert_eq!(frame(Kind::Mac, 0)[6..12], [6; 6]);
        assert_eq!(frame(Kind::Arp, 0)[28..32], [10, 0, 0, 4]);
        assert_ne!(frame(Kind::Broken, 1), frame(Kind::Ack, 1));
    }

    #[test]
    fn mac_addresses() {
        assert_eq!(mac("02:00:00:00:00:0a"), Ok([2, 0, 0, 0, 0, 10]));
        assert!(mac("02:00").is_err() && mac("x").is_err());
    }
}
