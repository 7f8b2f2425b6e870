//! `netfast top`: rates, from two looks at the same instance. Pure; how it is drawn is in [`draw`].

use std::{collections::HashMap, time::Duration};

use crate::report::{
    flows::{FlowReport, Flows},
    path::PathState,
    status::{Daemon, ReasonCount, Runtime, Status, Totals, Traffic},
};

pub mod draw;

/// One look at an instance.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// When, on any clock that does not jump.
    pub at: Duration,
    /// State and counters.
    pub status: Status,
    /// Flows that were used lately.
    pub flows: Flows,
}

/// Packets and bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets a second; GSO packets count as one.
    pub packets: f64,
    /// Bits a second, network layer and up.
    pub bits: f64,
}

/// What happened between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Top {
    /// The daemon.
    pub daemon: Daemon,
    /// The container runtime.
    pub runtime: Runtime,
    /// Counters since netfast was attached.
    pub totals: Totals,
    /// All packets on the fast path.
    pub fast: Rate,
    /// All packets on the slow path.
    pub slow: Rate,
    /// Endpoints, busiest first.
    pub endpoints: Vec<Endpoint>,
    /// Flows, busiest first.
    pub flows: Vec<(FlowReport, Rate)>,
    /// Reasons for the slow path that occurred between the looks, most frequent first.
    pub reasons: Vec<(ReasonCount, Rate)>,
    /// Why the last look failed, if it did: then everything else is of the one before.
    pub problem: Option<String>,
}

/// An endpoint or a host interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoint {
    /// The container, or the interface.
    pub name: String,
    /// The network, or `host`.
    pub network: String,
    /// Which path its packets may take, and why.
    pub path: PathState,
    /// Came in from it on the fast path.
    pub sent_fast: Rate,
    /// Came in from it on the slow path.
    pub sent_slow: Rate,
    /// Went out to it on the fast path.
    pub received_fast: Rate,
}

impl Top {
    /// Compares two looks. What is new in the second has a rate of zero, and so has what began to count anew.
    pub fn between(before: &Look, after: &Look) -> Self {
        let seconds = after.at.saturating_sub(before.at).as_secs_f64();
        let (old, new) = (&before.status, &after.status);
        let totals = |packets: fn(&Totals) -> u64, bytes: fn(&Totals) -> u64| {
            rate(
                seconds,
                [packets(&old.totals), packets(&new.totals)],
                [bytes(&old.totals), bytes(&new.totals)],
            )
        };
        Self {
            daemon: new.daemon.clone(),
            runtime: new.runtime.clone(),
            totals: new.totals.clone(),
            fast: totals(|t| t.fast_packets, |t| t.fast_bytes),
            slow: totals(|t| t.slow_packets, |t| t.slow_bytes),
            endpoints: endpoints(seconds, old, new),
            flows: flows(seconds, &before.flows, &after.flows),
            reasons: reasons(seconds, old, new),
            problem: None,
        }
    }
}

fn rate(seconds: f64, packets: [u64; 2], bytes: [u64; 2]) -> Rate {
    if seconds <= 0.0 {
        return Rate::default();
    }
    let grown = |[before, after]: [u64; 2]| after.saturating_sub(before) as f64 / seconds;
    Rate {
        packets: grown(packets),
        bits: grown(bytes) * 8.0,
    }
}

/// All that may have traffic: by network and name, its path and its counters.
fn counted(status: &Status) -> impl Iterator<Item = (&str, &str, PathState, Option<Traffic>)> {
    let endpoints = status.networks.iter().flat_map(|network| {
        let of = move |endpoint: &'_ crate::report::status::Endpoint| (endpoint.path.clone(), endpoint.traffic);
        network.endpoints.iter().map(move |endpoint| {
            let (path, traffic) = of(endpoint);
            (network.name.as_str(), endpoint.container.as_str(), path, traffic)
        })
    });
    let devices = status.devices.iter().map(|device| {
        let path = match &device.error {
            Some(error) => PathState::slow("not-attached", error.clone()),
            None => PathState::fast(),
        };
        ("host", device.name.as_str(), path, device.traffic)
    });
    endpoints.chain(devices)
}

fn endpoints(seconds: f64, old: &Status, new: &Status) -> Vec<Endpoint> {
    let before: HashMap<(&str, &str), Traffic> = counted(old)
        .filter_map(|(network, name, _, traffic)| Some(((network, name), traffic?)))
        .collect();
    let mut all: Vec<Endpoint> = counted(new)
        .map(|(network, name, path, traffic)| {
            let after = traffic.unwrap_or_default();
            let before = before.get(&(network, name)).copied().unwrap_or(after);
            let rate = |of: fn(&Traffic) -> [u64; 2]| {
                let ([old_packets, old_bytes], [new_packets, new_bytes]) = (of(&before), of(&after));
                rate(seconds, [old_packets, new_packets], [old_bytes, new_bytes])
            };
            Endpoint {
                name: name.into(),
                network: network.into(),
                path,
                sent_fast: rate(|t| [t.in_fast_packets, t.in_fast_bytes]),
                sent_slow: rate(|t| [t.in_slow_packets, t.in_slow_bytes]),
                received_fast: rate(|t| [t.out_fast_packets, t.out_fast_bytes]),
            }
        })
        .collect();
    // The sort is stable: the idle stay in the order of their networks.
    all.sort_by(|a, b| b.packets().total_cmp(&a.packets()));
    all
}

impl Endpoint {
    fn packets(&self) -> f64 {
        self.sent_fast.packets + self.sent_slow.packets + self.received_fast.packets
    }
}

fn flows(seconds: f64, before: &Flows, after: &Flows) -> Vec<(FlowReport, Rate)> {
    let before: HashMap<_, _> = before
        .flows
        .iter()
        .map(|flow| (identity(flow), (flow.packets, flow.bytes)))
        .collect();
    let mut all: Vec<_> = after
        .flows
        .iter()
        .map(|flow| {
            let now = (flow.packets, flow.bytes);
            // A new flow began between the looks; one that began anew has counted from zero.
            let then = before.get(&identity(flow)).copied().filter(|then| then.0 <= now.0);
            let then = then.unwrap_or_default();
            (flow.clone(), rate(seconds, [then.0, now.0], [then.1, now.1]))
        })
        .filter(|(_, rate)| rate.packets > 0.0)
        .collect();
    all.sort_by(|(_, a), (_, b)| b.bits.total_cmp(&a.bits));
    all
}

fn identity(flow: &FlowReport) -> impl std::hash::Hash + Eq + use<'_> {
    (
        flow.enters.ifindex,
        flow.enters.host,
        &flow.protocol,
        flow.enters.source,
        flow.enters.destination,
    )
}

fn reasons(seconds: f64, old: &Status, new: &Status) -> Vec<(ReasonCount, Rate)> {
    let mut all: Vec<_> = new
        .reasons
        .iter()
        .map(|count| {
            let before = old.reasons.iter().find(|before| before.number == count.number);
            let (packets, bytes) = before.map_or((0, 0), |before| (before.packets, before.bytes));
            let rate = rate(seconds, [packets, count.packets], [bytes, count.bytes]);
            (count.clone(), rate)
        })
        .filter(|(_, rate)| rate.packets > 0.0)
        .collect();
    all.sort_by(|(_, a), (_, b)| b.packets.total_cmp(&a.packets));
    all
}

#[cfg(test)]
mod tests;
