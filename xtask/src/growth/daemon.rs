//! What netfast's daemon costs, and how soon a new container is fast.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::{docker_host::DockerHost, netfast_proc::NetfastProc, netns::NsHandle, traffic::udp_send::HELLO};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::measure::{
    lab::{Lab, SINK},
    process::{cpu_ms, resident_mib},
};

/// How long the daemon is watched doing nothing, seconds.
const IDLE: Duration = Duration::from_secs(10);
/// Within this time after its start a container's share of the daemon's work is done.
const SETTLED: Duration = Duration::from_secs(3);
/// A container that is not fast by then never will be.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What one run of the daemon was like.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    /// From its start until all is attached, milliseconds.
    pub start_ms: f64,
    /// Of one CPU, with no traffic and no change, per cent.
    pub idle_percent: f64,
    /// Resident memory, MiB; the maps are the kernel's and not in it.
    pub memory_mib: f64,
    /// From `docker run`'s return to the first packet of the new container that is fast, milliseconds.
    pub container_fast_ms: f64,
    /// CPU time for one container's start, milliseconds, what it would have needed idle taken off.
    pub container_cpu_ms: f64,
}

impl Figures {
    /// Starts netfast in the laboratory, with a container that comes then, and takes both away.
    pub fn measure(lab: &Lab, traffic: &Path, round: usize) -> Result<Self> {
        let host = lab.docker().context("containers are started by an engine")?;
        let mut netfast = NetfastProc::prepare(lab.host_ns(), lab.netfast_options())?;
        let start = Instant::now();
        netfast.launch()?;
        let start_ms = milliseconds(start.elapsed());
        let pid = netfast.pid().context("the daemon is gone")?;
        // What is done once after the start is not its idleness.
        thread::sleep(SETTLED);
        let before = cpu_ms(pid)?;
        thread::sleep(IDLE);
        let idle_percent = (cpu_ms(pid)? - before) * 100.0 / milliseconds(IDLE);

        let name = format!("new-{round}");
        let (begin, before) = (Instant::now(), cpu_ms(pid)?);
        host.run_container(&name, "user", &[], &[])?;
        let container_fast_ms = until_fast(host, &netfast, traffic, &name)?;
        thread::sleep(SETTLED);
        let idle = idle_percent / 100.0 * milliseconds(begin.elapsed());
        let container_cpu_ms = (cpu_ms(pid)? - before - idle).max(0.0);
        let memory_mib = resident_mib(pid)?;

        host.remove_container(&name)?;
        netfast.stop(Signal::SIGTERM)?;
        netfast.detach()?;
        Ok(Self {
            start_ms,
            idle_percent,
            memory_mib,
            container_fast_ms,
            container_cpu_ms,
        })
    }
}

/// Sends to the server of the user-defined network and back until a packet is fast: no other traffic is there.
fn until_fast(host: &DockerHost, netfast: &NetfastProc, traffic: &Path, name: &str) -> Result<f64> {
    let start = Instant::now();
    let server = host.container_netns("user-server")?;
    let port = SINK.to_string();
    let sink = server.spawn(&[&traffic.display().to_string(), "udp-sink", &port])?;
    let to = SocketAddr::new(IpAddr::V4(host.container_ip("user-server", "user")?), SINK);
    let socket = socket_in(&host.container_netns(name)?)?;
    let before = netfast.totals()?.fast_packets;
    let elapsed = loop {
        // Refused while the sink is starting; lost packets are sent again.
        let _refused = socket.send_to(HELLO, to);
        let mut answer = [0; 64];
        if socket.recv(&mut answer).is_ok() && netfast.totals()?.fast_packets > before {
            break start.elapsed();
        }
        ensure!(
            start.elapsed() < TIMEOUT,
            "{name} is not fast {TIMEOUT:?} after its start"
        );
    };
    sink.stop()?;
    Ok(milliseconds(elapsed))
}

fn socket_in(ns: &NsHandle) -> Result<UdpSocket> {
    let socket = ns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    Ok(socket)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
