//! The traffic that must not notice: bulk TCP, idle TCP, UDP requests, on every path.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context as _, Result};
use netfast_tests::{
    cmd::{self, Background},
    netns::NsHandle,
    traffic::{hold, paced},
};
use nix::sys::signal::Signal;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    bed::{Bed, ECHO, IPERF, IPERF_PUBLISHED},
    event::Event,
    kinds,
};

/// iperf3's streams on each path.
const STREAMS: usize = 4;
/// Idle connections on each path.
const IDLE: usize = 50;
/// Longer than any event.
const LONG: &str = "3600";
const LIMIT: Duration = Duration::from_mins(1);
/// Seconds between iperf3's reports.
const STEP: f64 = 0.1;

/// What became of it, all paths together.
pub struct Outcome {
    /// TCP connections.
    pub connections: usize,
    /// TCP connections that were lost.
    pub lost: usize,
    /// UDP requests.
    pub asked: u64,
    /// UDP requests without an answer.
    pub unanswered: u64,
    /// The longest time from one UDP answer to the next on one path.
    pub silence_ms: f64,
    /// The longest time in which one TCP stream carried nothing.
    pub stall_ms: f64,
}

/// The traffic, going.
pub struct Load {
    bulk: Vec<(&'static str, Background)>,
    idle: Vec<(&'static str, Background)>,
    paced: Vec<(&'static str, Background)>,
    _servers: Vec<Background>,
}

impl Load {
    /// Starts it and waits until it flows.
    pub fn start(bed: &Bed, event: Event, traffic: &Path, megabits: u32) -> Result<Self> {
        let traffic = traffic.display().to_string();
        let (server, lan) = (bed.host.container_netns("server")?, bed.host.lan().handle());
        let echo = ECHO.to_string();
        let iperf = |ns: &NsHandle, port: u16| ns.spawn(&["iperf3", "--server", "--port", &port.to_string()]);
        let mut servers = vec![
            iperf(&server, IPERF)?,
            iperf(&server, IPERF_PUBLISHED)?,
            iperf(&lan, IPERF)?,
            server.spawn(&[&traffic, "rr-server", &echo])?,
            lan.spawn(&[&traffic, "rr-server", &echo])?,
        ];
        let mut listening = vec![
            (server.clone(), vec![IPERF, IPERF_PUBLISHED, ECHO]),
            (lan.clone(), vec![IPERF, ECHO]),
        ];
        if bed.kinds {
            let own = bed.host.container_netns(kinds::OWN)?;
            servers.push(iperf(&lan, kinds::IPERF_TUNNEL)?);
            servers.push(iperf(&own, IPERF)?);
            servers.push(own.spawn(&[&traffic, "rr-server", &echo])?);
            listening.extend([(lan.clone(), vec![kinds::IPERF_TUNNEL]), (own, vec![IPERF, ECHO])]);
        }
        for (ns, ports) in &listening {
            for port in ports {
                cmd::poll("the servers listen", LIMIT, || {
                    let found = ns.sh(&format!("ss -ltnH sport = :{port}"));
                    found.is_ok_and(|found| !found.is_empty()).then_some(())
                })?;
            }
        }
        let mut load = Self {
            bulk: Vec::new(),
            idle: Vec::new(),
            paced: Vec::new(),
            _servers: servers,
        };
        let (streams, idle, rate) = (STREAMS.to_string(), IDLE.to_string(), format!("{megabits}M"));
        let step = STEP.to_string();
        for path in bed.paths(event)? {
            let (address, port) = (path.address.to_string(), path.iperf.to_string());
            let bulk = ["iperf3", "--client", &address, "--port", &port, "--parallel", &streams];
            let more = ["--bitrate", &rate, "--time", LONG, "--interval", &step, "--json"];
            load.bulk
                .push((path.name, path.client.spawn(&[&bulk[..], &more].concat())?));
            let to = format!("{address}:{ECHO}");
            let hold = [traffic.as_str(), "hold", &to, "--connections", &idle];
            load.idle.push((path.name, path.client.spawn(&hold)?));
            let paced = [traffic.as_str(), "paced", &to, "--rate", "1000", "--seconds", LONG];
            load.paced.push((path.name, path.client.spawn(&paced)?));
        }
        thread::sleep(Duration::from_secs(3));
        Ok(load)
    }

    /// Ends it and says what became of it.
    pub fn end(self) -> Result<Outcome> {
        let mut outcome = Outcome {
            connections: 0,
            lost: 0,
            asked: 0,
            unanswered: 0,
            silence_ms: 0.0,
            stall_ms: 0.0,
        };
        for (path, bulk) in self.bulk {
            let said = ended(bulk, Signal::SIGINT)?;
            let bulk: Bulk = serde_json::from_str(&said).with_context(|| format!("iperf3, {path}: {said}"))?;
            let judged = bulk.judge();
            if let Some(error) = &judged.error {
                eprintln!("survival: iperf3, {path}: {error}");
            }
            outcome.connections += STREAMS;
            outcome.lost += judged.lost;
            outcome.stall_ms = outcome.stall_ms.max(judged.stall_ms);
        }
        for (path, idle) in self.idle {
            let report: hold::Report = report(path, idle)?;
            outcome.connections += report.opened;
            outcome.lost += report.dead;
        }
        for (path, paced) in self.paced {
            let report: paced::Report = report(path, paced)?;
            outcome.asked += report.sent;
            outcome.unanswered += report.lost;
            outcome.silence_ms = outcome.silence_ms.max(report.longest_silence_ms);
        }
        Ok(outcome)
    }
}

fn ended(process: Background, signal: Signal) -> Result<String> {
    process.signal(signal)?;
    let done = process.wait(LIMIT)?;
    Ok(if done.stdout.is_empty() {
        done.stderr
    } else {
        done.stdout
    })
}

fn report<T: DeserializeOwned>(path: &str, process: Background) -> Result<T> {
    let said = ended(process, Signal::SIGTERM)?;
    serde_json::from_str(&said).with_context(|| format!("{path}: {said}"))
}

/// What iperf3 prints.
#[derive(Deserialize)]
struct Bulk {
    #[serde(default)]
    intervals: Vec<Interval>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Interval {
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    socket: u32,
    bytes: u64,
    seconds: f64,
}

struct Judged {
    lost: usize,
    stall_ms: f64,
    error: Option<String>,
}

impl Bulk {
    /// Streams that broke or carried nothing in the end, and the longest time in which one carried nothing.
    fn judge(self) -> Judged {
        // We end it ourselves, which it calls an error.
        let error = self.error.filter(|error| !error.contains("interrupt"));
        let mut empty: std::collections::BTreeMap<u32, f64> = std::collections::BTreeMap::new();
        let mut longest: f64 = 0.0;
        // The last one is cut short.
        let whole = self.intervals.len().saturating_sub(1);
        for stream in self
            .intervals
            .into_iter()
            .take(whole)
            .flat_map(|interval| interval.streams)
        {
            let seconds = empty.entry(stream.socket).or_default();
            if stream.bytes == 0 {
                *seconds += stream.seconds;
                longest = longest.max(*seconds);
            } else {
                *seconds = 0.0;
            }
        }
        let dead = empty.values().filter(|seconds| **seconds > 1.0).count();
        Judged {
            lost: if error.is_some() || empty.is_empty() {
                STREAMS
            } else {
                dead
            },
            stall_ms: longest * 1e3,
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(error: Option<&str>, intervals: &[[u64; 2]]) -> (usize, f64) {
        let stream = |socket: usize, bytes: u64| Stream {
            socket: u32::try_from(socket).expect("small"),
            bytes,
            seconds: 0.5,
        };
        let intervals = intervals.iter().map(|bytes| Interval {
            streams: bytes
                .iter()
                .enumerate()
                .map(|(socket, bytes)| stream(socket, *bytes))
                .collect(),
        });
        let bulk = Bulk {
            intervals: intervals.collect(),
            error: error.map(Into::into),
        };
        let judged = bulk.judge();
        (judged.lost, judged.stall_ms)
    }

    #[test]
    fn broken_and_stalled_streams_are_found() {
        let fine = Some("interrupt - the client has terminated");
        assert_eq!(judge(fine, &[[1, 1], [0, 1], [1, 1], [0, 0]]), (0, 500.0));
        assert_eq!(judge(fine, &[[1, 1], [1, 0], [1, 0], [1, 0], [1, 1]]), (1, 1500.0));
        assert_eq!(judge(Some("control socket has closed"), &[[1, 1], [1, 1]]), (4, 0.0));
        assert_eq!(judge(fine, &[]), (4, 0.0));
    }
}
