//! The measurements: a server and a client, for some seconds, between two namespaces.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use netfast_tests::{
    cmd::{self, Background, Finished},
    netns::NsHandle,
    traffic::{crr, rr, udp_send, udp_sink},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    congestion,
    cpu::{Idle, Meter},
    lab::{CRR, Ends, IPERF, RR, SINK},
};

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Metric {
    /// iperf3, one TCP stream.
    Tcp1,
    /// iperf3, four TCP streams.
    Tcp4,
    /// CPU time of one TCP stream of iperf3 at 5 Gb/s, which every path carries with ease: the same work, at saturation
    /// it depends on which CPU happens to do what.
    Paced,
    /// 64-byte UDP packets per second.
    Udp,
    /// 64-byte UDP packets per second that nobody ever answers: logs, metrics, media.
    OneWay,
    /// TCP request/response.
    Rr,
    /// New TCP connections.
    Crr,
    /// New UDP conversations: one request, one response, as a resolver's.
    UdpNew,
}

impl Metric {
    /// In words, for progress.
    pub fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, one stream",
            Self::Tcp4 => "TCP, four streams",
            Self::Paced => "TCP, 5 Gb/s",
            Self::Udp => "64-byte UDP",
            Self::OneWay => "one-way UDP",
            Self::Rr => "TCP request/response",
            Self::Crr => "new TCP connections",
            Self::UdpNew => "new UDP conversations",
        }
    }
}

/// The figures that measurements yield: name, title, unit.
pub const FIGURES: [Figure; 23] = [
    Figure::new("tcp1_gbps", "TCP, 1 stream", "Gb/s"),
    Figure::new("tcp1_retransmits", "  retransmits", ""),
    Figure::new("tcp1_retransmits_per_gib", "  retransmits", "/GiB"),
    Figure::new("tcp1_cpu", "  CPU", "ns/KiB"),
    Figure::new("tcp4_gbps", "TCP, 4 streams", "Gb/s"),
    Figure::new("tcp4_retransmits", "  retransmits", ""),
    Figure::new("tcp4_retransmits_per_gib", "  retransmits", "/GiB"),
    Figure::new("tcp4_cpu", "  CPU", "ns/KiB"),
    Figure::new("paced_gbps", "TCP, paced", "Gb/s"),
    Figure::new("paced_cpu", "  CPU", "ns/KiB"),
    Figure::new("udp_pps", "64-byte UDP", "packets/s"),
    Figure::new("udp_cpu", "  CPU but the receiver's", "ns/packet"),
    Figure::new("one_way_pps", "64-byte UDP, one way", "packets/s"),
    Figure::new("one_way_cpu", "  CPU but the receiver's", "ns/packet"),
    Figure::new("rr_p50", "TCP request/response p50", "µs"),
    Figure::new("rr_p99", "  p99", "µs"),
    Figure::new("rr_rate", "  rate", "/s"),
    Figure::new("crr_rate", "new TCP connections", "/s"),
    Figure::new("crr_p99", "  p99", "µs"),
    Figure::new("crr_errors", "  errors", ""),
    Figure::new("udp_new_rate", "new UDP conversations", "/s"),
    Figure::new("udp_new_p99", "  p99", "µs"),
    Figure::new("fast_share", "packets on the fast path", "%"),
];

/// One figure of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its key in samples and in the JSON file.
    pub name: &'static str,
    /// What tables call it.
    pub title: &'static str,
    /// Unit, may be empty.
    pub unit: &'static str,
}

impl Figure {
    const fn new(name: &'static str, title: &'static str, unit: &'static str) -> Self {
        Self { name, title, unit }
    }

    /// The one with this name.
    pub fn named(name: &str) -> &'static Self {
        let found = FIGURES.iter().find(|figure| figure.name == name);
        found.expect("one of the figures that are measured")
    }
}

/// Figures of one measurement, by name.
pub type Values = BTreeMap<String, f64>;

/// The programs and the time of every measurement.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `netfast-traffic`.
    pub traffic: PathBuf,
    /// Seconds of traffic per measurement.
    pub seconds: f64,
    /// Both ends on one CPU.
    pub one_cpu: bool,
    /// What CPUs do that have nothing to do.
    pub idle: Idle,
    /// TCP's congestion control of bulk transfers, by the kernel's name for it.
    pub congestion: String,
    /// Conversations of a UDP flood, each with a source port of its own.
    pub flows: usize,
    /// How long a client may take beyond its time.
    pub patience: Duration,
}

impl Tools {
    /// The patience where nothing is expected to fail.
    const TIMEOUT: Duration = Duration::from_secs(20);

    /// As it is measured unless somebody wants it otherwise.
    pub fn new(traffic: PathBuf, seconds: f64) -> Result<Self> {
        Ok(Self {
            traffic,
            seconds,
            one_cpu: false,
            idle: Idle::Poll,
            congestion: congestion::choose(None)?,
            flows: 1,
            patience: Self::TIMEOUT,
        })
    }

    /// Measures once.
    pub fn measure(&self, metric: Metric, ends: &Ends) -> Result<Values> {
        let context = || format!("measuring {} to {}", metric.title(), ends.address);
        match metric {
            Metric::Tcp1 => self.bulk(1, ends),
            Metric::Tcp4 => self.bulk(4, ends),
            Metric::Paced => self.paced(ends),
            Metric::Udp => self.udp("udp", &[], ends),
            Metric::OneWay => self.udp("one_way", &["--no-handshake"], ends),
            Metric::Rr => self.rr(ends),
            Metric::Crr => self.crr(ends),
            Metric::UdpNew => self.udp_new(ends),
        }
        .with_context(context)
    }

    fn bulk(&self, streams: u32, ends: &Ends) -> Result<Values> {
        let bulk = self.iperf(streams, "0", ends)?;
        Ok(values(&[
            (&format!("tcp{streams}_gbps"), bulk.gbps),
            (&format!("tcp{streams}_retransmits"), bulk.retransmits),
            (&format!("tcp{streams}_retransmits_per_gib"), bulk.retransmits_per_gib),
            (&format!("tcp{streams}_cpu"), bulk.cpu),
        ]))
    }

    fn paced(&self, ends: &Ends) -> Result<Values> {
        let paced = self.iperf(1, "5G", ends)?;
        Ok(values(&[("paced_gbps", paced.gbps), ("paced_cpu", paced.cpu)]))
    }

    /// Runs iperf3 with so many streams, as fast as it goes or at this rate of each, as iperf3 writes it.
    fn iperf(&self, streams: u32, rate: &str, ends: &Ends) -> Result<Bulk> {
        let servers = Servers::start(
            ends,
            IPERF,
            &self.on_cpu(
                SERVER_CPU,
                &["iperf3", "--server", "--one-off", "--port", &IPERF.to_string()],
            ),
        )?;
        let meter = Meter::start(self.idle)?;
        let client = self.finish(
            &ends.client,
            &self.on_cpu(
                CLIENT_CPU,
                &[
                    "iperf3",
                    "--client",
                    &ends.address.to_string(),
                    "--port",
                    &IPERF.to_string(),
                    "--time",
                    &format!("{:.0}", self.seconds.max(1.0)),
                    "--parallel",
                    &streams.to_string(),
                    "--bitrate",
                    rate,
                    "--congestion",
                    &self.congestion,
                    "--json",
                ],
            ),
        )?;
        let busy = meter.busy_seconds()?;
        drop(servers);
        let report: Iperf = parse(&client.stdout)?;
        if let Some(error) = report.error {
            bail!("iperf3: {error}");
        }
        let end = report.end.context("iperf3 reported no end")?;
        ensure!(end.sum_received.bytes > 0.0, "iperf3 moved nothing");
        Ok(Bulk {
            gbps: end.sum_received.bits_per_second / 1e9,
            retransmits: end.sum_sent.retransmits,
            retransmits_per_gib: end.sum_sent.retransmits / (end.sum_received.bytes / f64::from(1 << 30)),
            cpu: busy * 1e9 / (end.sum_received.bytes / 1024.0),
        })
    }

    /// Floods, with more options for the sender; the figures have names that begin with `name`.
    fn udp(&self, name: &str, how: &[&str], ends: &Ends) -> Result<Values> {
        let traffic = self.traffic_path();
        let port = SINK.to_string();
        let mut sink = vec![&traffic, "udp-sink", &port];
        // On one CPU it would take the sender's time.
        if has_two_cpus() && !self.one_cpu {
            sink.push("--eager");
        }
        let sinks = Servers::start(ends, SINK, &self.on_cpu(SERVER_CPU, &sink))?;
        let meter = Meter::start(self.idle)?;
        let (to, seconds, flows) = (ends.to(SINK), self.seconds.to_string(), self.flows.to_string());
        let mut send = vec![&*traffic, "udp-send", &to, "--seconds", &seconds, "--flows", &flows];
        send.extend(how);
        self.finish(&ends.client, &self.on_cpu(CLIENT_CPU, &send))
            .and_then(|client| parse::<udp_send::Report>(&client.stdout))?;
        // What is still in queues.
        thread::sleep(Duration::from_millis(100));
        let busy = meter.busy_seconds()?;
        let reports: Vec<udp_sink::Report> = sinks
            .stop()?
            .iter()
            .map(|sink| parse(&sink.stdout))
            .collect::<Result<_>>()?;
        // Eager sinks look for datagrams all the time; what costs something is to send and to carry.
        let looking: f64 = reports.iter().map(|sink| sink.cpu.user_s + sink.cpu.system_s).sum();
        // One conversation, so one of them.
        let report = reports.iter().max_by_key(|report| report.received);
        let report = report.filter(|report| report.received > 0);
        let report = report.context("the sink received nothing")?;
        Ok(values(&[
            (&format!("{name}_pps"), report.pps),
            (
                &format!("{name}_cpu"),
                (busy - looking).max(0.0) * 1e9 / report.received as f64,
            ),
        ]))
    }

    fn rr(&self, ends: &Ends) -> Result<Values> {
        let report = self.rr_without_errors(ends, &[])?;
        Ok(values(&[
            ("rr_p50", report.latency.p50_us),
            ("rr_p99", report.latency.p99_us),
            ("rr_rate", report.rate),
        ]))
    }

    fn udp_new(&self, ends: &Ends) -> Result<Values> {
        let report = self.rr_without_errors(ends, &["--udp", "--new-port", "--connections", "2"])?;
        Ok(values(&[
            ("udp_new_rate", report.rate),
            ("udp_new_p99", report.latency.p99_us),
        ]))
    }

    fn rr_without_errors(&self, ends: &Ends, how: &[&str]) -> Result<rr::Report> {
        let report: rr::Report = self.ask(ends, "rr", RR, how)?;
        ensure!(
            report.errors == 0,
            "{} of {} requests failed",
            report.errors,
            report.transactions
        );
        Ok(report)
    }

    fn crr(&self, ends: &Ends) -> Result<Values> {
        let report: crr::Report = self.ask(ends, "crr", CRR, &[])?;
        ensure!(
            report.connections > 0,
            "no connection succeeded, {} failed",
            report.errors
        );
        Ok(values(&[
            ("crr_rate", report.rate),
            ("crr_p99", report.latency.p99_us),
            ("crr_errors", report.errors as f64),
        ]))
    }

    /// What the client of `verb` reports of its server, which is the verb `<verb>-server`.
    fn ask<R: DeserializeOwned>(&self, ends: &Ends, verb: &str, port: u16, how: &[&str]) -> Result<R> {
        let traffic = self.traffic_path();
        let _awake = self.idle.keep()?;
        let servers = Servers::start(
            ends,
            port,
            &self.on_cpu(SERVER_CPU, &[&traffic, &format!("{verb}-server"), &port.to_string()]),
        )?;
        let (to, seconds) = (ends.to(port), self.seconds.to_string());
        let mut command_line = vec![&*traffic, verb, &to, "--seconds", &seconds];
        command_line.extend(how);
        let client = self.finish(&ends.client, &self.on_cpu(CLIENT_CPU, &command_line))?;
        servers.stop()?;
        parse(&client.stdout)
    }

    /// The command line, bound to a CPU if the machine has more than one.
    fn on_cpu<'a>(&self, cpu: &'a str, command_line: &[&'a str]) -> Vec<&'a str> {
        let mut bound = Vec::new();
        if has_two_cpus() {
            let cpu = if self.one_cpu { CLIENT_CPU } else { cpu };
            bound.extend(["taskset", "--cpu-list", cpu]);
        }
        bound.extend(command_line);
        bound
    }

    fn traffic_path(&self) -> String {
        self.traffic.display().to_string()
    }

    /// Runs a client to its end.
    fn finish(&self, ns: &NsHandle, command_line: &[&str]) -> Result<Finished> {
        let done = ns
            .spawn(command_line)?
            .wait(Duration::from_secs_f64(self.seconds) + self.patience)?;
        if !done.status.success() {
            let said = if done.stderr.trim().is_empty() {
                done.stdout.trim()
            } else {
                done.stderr.trim()
            };
            bail!(
                "`{}` failed ({}): {said}",
                command_line.join(" "),
                cmd::how_it_ended(done.status)
            );
        }
        Ok(done)
    }
}

/// Where clients run. Whether the scheduler puts both ends on one CPU or on two changes a round trip by a factor of
/// three, and a sender that moves between CPUs overtakes itself (a direct veth pair then retransmits thousands of
/// segments per GB), so it is settled: on two, as on two hosts.
const CLIENT_CPU: &str = "0";
/// Where servers run.
const SERVER_CPU: &str = "1";

fn has_two_cpus() -> bool {
    thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1)
}

impl Ends {
    fn to(&self, port: u16) -> String {
        SocketAddr::new(self.address, port).to_string()
    }
}

/// Servers that are ready, one at each end that serves.
struct Servers(Vec<Background>);

impl Servers {
    /// Starts them and waits until something is bound to `port` in each namespace.
    fn start(ends: &Ends, port: u16, command_line: &[&str]) -> Result<Self> {
        let what = format!("`{}` on port {port}", command_line.join(" "));
        let mut servers = Vec::new();
        for ns in &ends.servers {
            let mut server = ns.spawn(command_line)?;
            let bound = cmd::poll(&what, Duration::from_secs(5), || {
                (!server.is_running() || is_bound(ns, port)).then_some(())
            });
            if !server.is_running() {
                let done = server.stop()?;
                bail!(
                    "{what} ended ({}): {}",
                    cmd::how_it_ended(done.status),
                    done.stderr.trim()
                );
            }
            bound?;
            servers.push(server);
        }
        Ok(Self(servers))
    }

    fn stop(self) -> Result<Vec<Finished>> {
        self.0.into_iter().map(Background::stop).collect()
    }
}

/// Whether a listening TCP socket or a UDP socket has the local `port`.
pub fn is_bound(ns: &NsHandle, port: u16) -> bool {
    let has = |file: &str, state: &str| {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let port = format!(":{port:04X}");
        table.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.len() > 3 && fields[1].ends_with(&port) && fields[3] == state
        })
    };
    // proc(5): state 0A is LISTEN; UDP sockets that are bound and not connected are in 07.
    ns.run(|| {
        [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")]
            .iter()
            .any(|(file, state)| has(file, state))
    })
    .unwrap_or(false)
}

/// What a run of iperf3 was like.
struct Bulk {
    gbps: f64,
    retransmits: f64,
    retransmits_per_gib: f64,
    /// CPU nanoseconds per KiB, of the whole machine.
    cpu: f64,
}

#[derive(Deserialize)]
struct Iperf {
    error: Option<String>,
    end: Option<IperfEnd>,
}

#[derive(Deserialize)]
struct IperfEnd {
    sum_sent: IperfSum,
    sum_received: IperfSum,
}

#[derive(Deserialize)]
struct IperfSum {
    bytes: f64,
    bits_per_second: f64,
    #[serde(default)]
    retransmits: f64,
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).with_context(|| format!("not the expected report: {}", json.trim()))
}

fn values(pairs: &[(&str, f64)]) -> Values {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}
