//! The command line of `netfast-traffic`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

use super::{crr, flood, hash, hold, paced, rr, stop, udp_send, udp_sink};

/// The measuring traffic generator of netfast's laboratory. Reports are one line of JSON on standard output.
#[derive(Debug, Parser)]
#[command(name = "netfast-traffic", version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send as many small datagrams as go, after a handshake with the sink.
    UdpSend(udp_send::Args),
    /// Count datagrams until SIGTERM, and answer the handshakes of udp-send.
    UdpSink(udp_sink::Args),
    /// Send a request, await its response, again and again; latencies.
    Rr(rr::Args),
    /// Send what a container should not: floods, others' addresses, broken frames.
    Flood(flood::Args),
    /// Send numbered UDP requests to an rr-server at a fixed rate; lost answers and the longest silence.
    Paced(paced::Args),
    /// Send back what comes over TCP and UDP.
    RrServer(rr::ServerArgs),
    /// Connect, request, response, close, again and again; connections per second.
    Crr(crr::Args),
    /// The server for crr; closes first.
    CrrServer(crr::ServerArgs),
    /// Send (and receive) pseudo-random data over TCP, and check that it is bit-exact.
    SendHash(hash::Args),
    /// The server for send-hash.
    RecvHash(hash::ServerArgs),
    /// Open idle TCP connections to an rr-server; at SIGTERM check that each still answers.
    Hold(hold::Args),
}

impl Cli {
    /// Does what the verb says and prints its report.
    pub fn run(self) -> Result<()> {
        stop::install()?;
        match self.verb {
            Verb::UdpSend(args) => print(&udp_send::run(&args)?),
            Verb::UdpSink(args) => print(&udp_sink::run(&args)?),
            Verb::Rr(args) => print(&rr::run(&args)?),
            Verb::Flood(args) => print(&flood::run(&args)?),
            Verb::Paced(args) => print(&paced::run(&args)?),
            Verb::RrServer(args) => print(&rr::serve(&args)?),
            Verb::Crr(args) => print(&crr::run(&args)?),
            Verb::CrrServer(args) => print(&crr::serve(&args)?),
            Verb::SendHash(args) => print(&hash::run(&args)?),
            Verb::RecvHash(args) => print(&hash::serve(&args)?),
            Verb::Hold(args) => print(&hold::run(&args)?),
        }
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
