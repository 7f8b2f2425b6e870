//! A conversation that goes on beside a test.

use std::{
    net::SocketAddrV4,
    thread,
    time::{Duration, Instant},
};

use netfast_tests::{
    cmd::{self, Background},
    netns::NsHandle,
    traffic::rr,
};
use serde_json::Value;

use super::{Bed, TIMEOUT, ended, run};

/// A conversation that goes on beside whatever the test does, and must not be disturbed by it.
pub struct Steady {
    what: &'static str,
    flow: Background,
    udp: bool,
    to: SocketAddrV4,
    started: Instant,
    /// How long it took until it was seen to be fast.
    slow: Duration,
    /// The client's endpoint, if it is one, with its packets on the fast path before.
    client: Option<(Value, u64)>,
    /// Whether its packets are forwarded directly: then there is no flow, and the client's endpoint counts.
    is_direct: bool,
}

impl Steady {
    /// Starts it, towards an echo server, and waits until it is fast.
    pub fn start(bed: &Bed, what: &'static str, client: &NsHandle, to: SocketAddrV4, more: &[&str]) -> Self {
        let server = to.to_string();
        let line = [&["rr", &server, "--seconds", "300", "--size", "200"], more].concat();
        let started = Instant::now();
        // Ages of flows are by the kernel's coarse clock, which is up to a tick behind: 10 ms with CONFIG_HZ=100.
        thread::sleep(Duration::from_millis(10));
        let asked = Instant::now();
        let mut steady = Self {
            what,
            slow: Duration::ZERO,
            started,
            flow: run(client, &line),
            udp: more.contains(&"--udp"),
            to,
            client: endpoint_of(bed, client),
            is_direct: false,
        };
        let fast = cmd::poll("a steady flow is fast", TIMEOUT, || {
            let is_fast = |packets: Option<u64>| packets.is_some_and(|packets| packets > 1000);
            steady.is_direct = !is_fast(steady.of_flow(bed)) && is_fast(steady.of_client(bed));
            is_fast(steady.fast_packets(bed)).then_some(())
        });
        if let Err(error) = fast {
            panic!(
                "{what}: {error}; {:?}\n{}\n{}",
                steady.flow.stop(),
                bed.netfast.verb(&["status"]).unwrap_or_default(),
                bed.netfast.verb(&["flows"]).unwrap_or_default()
            );
        }
        steady.slow = asked.elapsed();
        steady
    }

    /// Packets of the client's direction on the fast path.
    pub fn fast_packets(&self, bed: &Bed) -> Option<u64> {
        if self.is_direct {
            self.of_client(bed)
        } else {
            self.of_flow(bed)
        }
    }

    /// All that the client's endpoint has sent since then, as `netfast status` has it.
    fn of_client(&self, bed: &Bed) -> Option<u64> {
        let (client, before) = self.client.as_ref()?;
        let now = fast_of(&endpoints(bed).find(|end| end["veth"] == client["veth"])?)?;
        Some(now.saturating_sub(*before))
    }

    /// As `netfast flows` has them.
    fn of_flow(&self, bed: &Bed) -> Option<u64> {
        let json = bed.netfast.verb(&["flows", "--json"]).expect("netfast flows");
        let report: Value = serde_json::from_str(&json).expect("JSON");
        let to = self.to.to_string();
        let protocol = if self.udp { "udp" } else { "tcp" };
        // Not one of an earlier conversation with the same server.
        let age = u64::try_from(self.started.elapsed().as_millis()).expect("a short time");
        let own = report["flows"].as_array().expect("flows").iter().filter(|flow| {
            flow["protocol"] == protocol
                && flow["enters"]["destination"] == to.as_str()
                && flow["age_ms"].as_u64().is_some_and(|its| its <= age)
        });
        own.filter_map(|flow| flow["packets"].as_u64()).max()
    }

    /// Ends it: every request was answered, and nearly all of them were fast once one was.
    pub fn end(self, bed: &Bed) {
        self.end_with(bed, 0);
    }

    /// The same, where up to so many requests are lost by what others do.
    pub fn end_with(self, bed: &Bed, lost: u64) {
        let start = Instant::now();
        let fast = self.fast_packets(bed);
        let report: rr::Report = ended(self.flow);
        // Requests answered since its packets were counted, and before the first ones were fast.
        let uncounted = (start.elapsed() + self.slow).as_secs_f64() * report.rate;
        let (what, done, errors) = (self.what, report.transactions, report.errors);
        let fast = fast.unwrap_or_else(|| panic!("{what}: its flow is gone; {report:?}"));
        println!("{what}: {fast} fast packets in {done} transactions, {errors} errors");
        assert!(errors <= lost, "{what}: {report:?}");
        assert!(
            fast as f64 > 0.95 * (done as f64 - uncounted),
            "{what}: {fast} fast packets in {report:?}"
        );
    }

    /// Ends it after netfast has gone: every request was answered.
    pub fn end_alive(self) {
        let report: rr::Report = ended(self.flow);
        assert_eq!(report.errors, 0, "{}: {report:?}", self.what);
    }
}

/// All endpoints, as `netfast status` has them.
fn endpoints(bed: &Bed) -> impl Iterator<Item = Value> + use<> {
    let status = bed.status();
    let networks = status["networks"].as_array().cloned().unwrap_or_default();
    networks
        .into_iter()
        .flat_map(|network| network["endpoints"].as_array().cloned().unwrap_or_default())
}

/// What it sent on the fast path.
fn fast_of(endpoint: &Value) -> Option<u64> {
    endpoint["traffic"]["in_fast_packets"].as_u64()
}

/// The endpoint whose namespace this is, on its only network.
fn endpoint_of(bed: &Bed, ns: &NsHandle) -> Option<(Value, u64)> {
    let inode = ns.inode().expect("a namespace");
    let is_its = |end: &Value| {
        let name = end["container"].as_str()?;
        bed.host.container_netns(name).ok()?.inode().ok()
    };
    let client = endpoints(bed).find(|end| is_its(end) == Some(inode))?;
    let before = fast_of(&client)?;
    Some((client, before))
}
