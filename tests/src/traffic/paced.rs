//! `paced`: numbered UDP requests at a fixed rate; which were answered, and for how long there was silence.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    latency::{Latencies, LatencySummary},
    stop, udp,
};

/// An answer that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(1);

/// What to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// An `rr-server`, ADDRESS:PORT.
    pub to: SocketAddr,
    /// Requests per second.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// For how long; SIGTERM ends it before.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// Requests that were answered, each once.
    pub answered: u64,
    /// Requests that were not.
    pub lost: u64,
    /// The longest time from one answer to the next while requests were sent, in milliseconds.
    pub longest_silence_ms: f64,
    /// From request to answer.
    #[serde(flatten)]
    pub latency: LatencySummary,
}

/// Asks, and reports.
pub fn run(args: &Args) -> Result<Report> {
    anyhow::ensure!(args.rate > 0.0, "--rate {}: must be more than 0", args.rate);
    let socket = udp::bind_for(args.to, 0)?;
    socket.connect(args.to)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let start = Instant::now();
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(&socket, args, start));
        let mut answers = Answers::new(start);
        let mut ended: Option<Instant> = None;
        while ended.is_none_or(|ended| ended.elapsed() < LIMIT) {
            answers.take_one(&socket);
            if ended.is_none() && sender.is_finished() {
                ended = Some(Instant::now());
            }
            if ended.is_some() && sender.is_finished() && answers.quiet() {
                break;
            }
        }
        let sent = sender.join().expect("the sender panicked").context("cannot send")?;
        Ok(answers.report(sent))
    })
}

/// Sends on schedule until the end; returns when each request was sent.
fn send(socket: &UdpSocket, args: &Args, start: Instant) -> Result<Sent> {
    let mut number = 0_u64;
    loop {
        let at = Duration::from_secs_f64(number as f64 / args.rate);
        if at.as_secs_f64() >= args.seconds || stop::requested() {
            return Ok(Sent {
                requests: number,
                until: Instant::now(),
            });
        }
        thread::sleep((start + at).saturating_duration_since(Instant::now()));
        let now = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut request = [0; 16];
        request[..8].copy_from_slice(&number.to_be_bytes());
        request[8..].copy_from_slice(&now.to_be_bytes());
        // Nobody listens, or a queue is full: it is a lost one.
        let _lost = socket.send(&request);
        number += 1;
    }
}

#[derive(Clone, Copy)]
struct Sent {
    requests: u64,
    until: Instant,
}

struct Answers {
    start: Instant,
    seen: Vec<bool>,
    latencies: Latencies,
    last: Instant,
    longest: Duration,
}

impl Answers {
    fn new(start: Instant) -> Self {
        Self {
            start,
            seen: Vec::new(),
            latencies: Latencies::default(),
            last: start,
            longest: Duration::ZERO,
        }
    }

    fn take_one(&mut self, socket: &UdpSocket) {
        let mut answer = [0; 64];
        let Ok(16) = socket.recv(&mut answer) else { return };
        let word = |at: usize| u64::from_be_bytes(answer[at..at + 8].try_into().expect("eight bytes"));
        let now = Instant::now();
        self.note(word(0), Duration::from_nanos(word(8)), now);
    }

    fn note(&mut self, number: u64, sent: Duration, now: Instant) {
        let Ok(number) = usize::try_from(number) else { return };
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        if !self.seen[number] {
            self.seen[number] = true;
            self.latencies.record((now - self.start).saturating_sub(sent));
        }
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }

    /// Whether nothing has come for a while.
    fn quiet(&self) -> bool {
        self.last.elapsed() > LIMIT / 2
    }

    fn report(self, sent: Sent) -> Report {
        let answered = self.latencies.count();
        let silence = self.longest.max(sent.until.saturating_duration_since(self.last));
        Report {
            sent: sent.requests,
            answered,
            lost: sent.requests.saturating_sub(answered),
            longest_silence_ms: silence.as_secs_f64() * 1e3,
            latency: self.latencies.summary(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_once_and_silence_is_measured() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut answers = Answers::new(start);
        answers.note(0, ms(0), start + ms(1));
        answers.note(2, ms(2), start + ms(41));
        answers.note(2, ms(2), start + ms(42));
        let report = answers.report(Sent {
            requests: 4,
            until: start + ms(60),
        });
        assert_eq!((report.sent, report.answered, report.lost), (4, 2, 2));
        assert!((report.longest_silence_ms - 40.0).abs() < 0.01, "{report:?}");
    }
}
