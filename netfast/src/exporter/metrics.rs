//! The metrics: a pure function from what is known to text.
//!
//! Names and labels are an interface; CHANGELOG tells when one changes. The number of series is bounded by networks,
//! endpoints, names that endpoints share, devices and reasons: no label holds an address, a port or a flow.

use std::{collections::BTreeMap, fmt, fmt::Write as _, time::SystemTime};

use netfast_common::reason::Reason;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    health::Vitals,
    report::{
        aliases::Aliases,
        status::{Interface, ReasonCount, Status, Traffic},
    },
};

mod abilities;
mod aliases;
mod localhost;
mod sums;
mod tunnels;
mod xdp;

/// What the text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// Prometheus's own text format, version 0.0.4, which everything understands.
    Prometheus,
}

impl Format {
    /// What a client that sent this `Accept` header wants.
    pub fn accepted(accept: Option<&str>) -> Self {
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics, as text.
pub fn encode(status: &Status, aliases: &Aliases, vitals: &Vitals, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Collected {
        status: status.clone(),
        aliases: aliases.clone(),
        vitals: vitals.clone(),
    }));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode(&mut text, &registry);
    match format {
        Format::OpenMetrics => text,
        Format::Prometheus => to_prometheus(&text),
    }
}

/// In the older format HELP and TYPE of a counter name the sample (`…_total`), in `OpenMetrics` the family.
fn to_prometheus(text: &str) -> String {
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut converted = String::with_capacity(text.len() + counters.len() * 12);
    for line in text.lines().filter(|line| *line != "# EOF") {
        let comment = line.strip_prefix("# ").and_then(|rest| {
            let (keyword, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            counters.contains(&name).then_some((keyword, name, rest))
        });
        let _ = match comment {
            Some((keyword, name, rest)) => writeln!(converted, "# {keyword} {name}_total {rest}"),
            None => writeln!(converted, "{line}"),
        };
    }
    converted
}

/// Labels of a sample, by name.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// What is known, as the registry takes it.
#[derive(Debug)]
struct Collected {
    status: Status,
    aliases: Aliases,
    vitals: Vitals,
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.daemon(encoder)?;
        self.paths(encoder)?;
        self.tables(encoder)?;
        self.endpoints(encoder)?;
        self.devices(encoder)?;
        abilities::encode(&self.status.host, encoder)?;
        tunnels::encode(&self.status, encoder)?;
        localhost::encode(&self.status, encoder)?;
        xdp::encode(&self.status, encoder)?;
        aliases::encode(&self.aliases, encoder)
    }
}

impl Collected {
    fn daemon(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (daemon, vitals) = (&self.status.daemon, &self.vitals);
        gauges(
            encoder,
            "netfast_build_info",
            "Always 1; the version of the daemon and how its programs are attached.",
            [(
                vec![
                    ("version", daemon.version.as_str()),
                    ("attached_by", daemon.attached_by.as_str()),
                ],
                1.0,
            )],
        )?;
        gauge(
            encoder,
            "netfast_start_time_seconds",
            "When the daemon was started, since the epoch of Unix.",
            seconds(vitals.started),
        )?;
        gauge(
            encoder,
            "netfast_in_sync",
            "1 if the daemon has done all that Docker and the kernel ask for, else 0 (/healthz says why).",
            truth(vitals.behind.is_none()),
        )?;
        gauge(
            encoder,
            "netfast_last_sync_timestamp_seconds",
            "When the daemon was in sync with Docker and the kernel last, since the epoch of Unix; 0 if never.",
            vitals.synced.map_or(0.0, seconds),
        )?;
        counter(
            encoder,
            "netfast_sync_passes",
            "Times that the daemon has compared what is with what should be.",
            vitals.passes,
        )?;
        counter(
            encoder,
            "netfast_sync_failures",
            "Those of them that left something undone, which is tried again.",
            vitals.failed_passes,
        )?;
        // Without a runtime there is nothing to be connected to.
        let runtime = &self.status.runtime.state;
        gauges(
            encoder,
            "netfast_runtime_connected",
            "1 if the container runtime answers, else 0; absent if none is followed.",
            (runtime != "none").then(|| (Labels::new(), truth(runtime == "connected"))),
        )?;
        gauge(
            encoder,
            "netfast_use_enabled",
            "1 if learned flows may be used, else 0: then every packet takes the slow path.",
            truth(daemon.using),
        )?;
        gauge(
            encoder,
            "netfast_learning_enabled",
            "1 if flows may be learned, else 0.",
            truth(daemon.learning),
        )?;
        gauge(
            encoder,
            "netfast_epoch",
            "Changes whenever rules, routes, addresses or neighbours changed and every flow has to ask the kernel anew.",
            f64::from(daemon.epoch),
        )
    }

    fn paths(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = &self.status.totals;
        let path = |path| vec![("path", path)];
        counters(
            encoder,
            "netfast_packets",
            "Packets by the path they took, each counted once, where it enters; GSO and GRO packets count as one.",
            [(path("fast"), totals.fast_packets), (path("slow"), totals.slow_packets)],
        )?;
        counters(
            encoder,
            "netfast_bytes",
            "Bytes of them, network layer and up.",
            [(path("fast"), totals.fast_bytes), (path("slow"), totals.slow_bytes)],
        )?;
        counters(
            encoder,
            "netfast_slow_packets",
            "Packets on the slow path by reason (netfast status explains each).",
            by_reason("reason", true, &self.status.reasons, |count| count.packets),
        )?;
        counters(
            encoder,
            "netfast_slow_bytes",
            "Bytes of them, network layer and up.",
            by_reason("reason", true, &self.status.reasons, |count| count.bytes),
        )?;
        counters(
            encoder,
            "netfast_candidates",
            "Packets that were looked at for learning, by what became of it.",
            by_reason("outcome", false, &self.status.learning, |count| count.packets),
        )
    }

    fn tables(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let totals = &self.status.totals;
        gauge(
            encoder,
            "netfast_flows",
            "Learned flows, those that wait for their reverse included; a conversation has two.",
            totals.flows as f64,
        )?;
        gauge(
            encoder,
            "netfast_flows_limit",
            "Places in the flow table.",
            totals.flow_capacity as f64,
        )?;
        gauge(
            encoder,
            "netfast_flow_tables_bytes",
            "Kernel memory of the flow tables.",
            totals.table_bytes as f64,
        )
    }

    fn endpoints(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // Docker once allowed two networks of one name: a series must not appear twice.
        let mut count: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let mut slow = BTreeMap::new();
        let mut traffic: BTreeMap<(&str, &str), Traffic> = BTreeMap::new();
        let mut inside: BTreeMap<(&str, &str), Interface> = BTreeMap::new();
        for network in &self.status.networks {
            for path in ["fast", "slow"] {
                count.entry((&network.name, path)).or_default();
            }
            for endpoint in &network.endpoints {
                *count.entry((&network.name, endpoint.path.path)).or_default() += 1;
                let key = (network.name.as_str(), endpoint.container.as_str());
                if let Some(why) = &endpoint.path.why {
                    slow.insert(key, why.as_str());
                }
                if let Some(more) = endpoint.interface {
                    let sum = inside.entry(key).or_default();
                    *sum = sum.plus(more);
                }
                if let Some(more) = endpoint.traffic {
                    let sum = traffic.entry(key).or_default();
                    *sum = sum.plus(more);
                }
            }
        }
        gauges(
            encoder,
            "netfast_endpoints",
            "Endpoints (interfaces of containers) of each network by the path their packets take.",
            count
                .iter()
                .map(|((network, path), count)| (vec![("network", *network), ("path", *path)], f64::from(*count))),
        )?;
        gauges(
            encoder,
            "netfast_endpoint_slow",
            "Always 1; an endpoint that stays on the slow path, and why.",
            slow.iter().map(|((network, container), why)| {
                let labels = vec![("network", *network), ("container", *container), ("why", *why)];
                (labels, 1.0)
            }),
        )?;
        let named = || {
            traffic.iter().map(|((network, container), traffic)| {
                let labels = vec![("network", *network), ("container", *container)];
                (labels, traffic)
            })
        };
        counters(
            encoder,
            "netfast_endpoint_packets",
            "Packets that a container has sent by either path, and received on the fast path.",
            named().flat_map(|(labels, traffic)| by_path(&labels, ["sent", "received"], traffic.packets())),
        )?;
        counters(
            encoder,
            "netfast_endpoint_bytes",
            "Bytes of them, network layer and up.",
            named().flat_map(|(labels, traffic)| by_path(&labels, ["sent", "received"], traffic.bytes())),
        )?;
        let of_interfaces = |counts: fn(&Interface) -> [u64; 2]| {
            inside.iter().flat_map(move |((network, container), interface)| {
                let with = |direction| {
                    vec![
                        ("network", *network),
                        ("container", *container),
                        ("direction", direction),
                    ]
                };
                let [sent, received] = counts(interface);
                [(with("sent"), sent), (with("received"), received)]
            })
        };
        counters(
            encoder,
            "netfast_endpoint_interface_packets",
            "Packets of the interface in the container by either path, as the kernel counts them there; GSO packets count \
             as one.",
            of_interfaces(|interface| [interface.sent_packets, interface.received_packets]),
        )?;
        counters(
            encoder,
            "netfast_endpoint_interface_bytes",
            "Bytes of them, with the Ethernet header.",
            of_interfaces(|interface| [interface.sent_bytes, interface.received_bytes]),
        )?;
        counters(
            encoder,
            "netfast_endpoint_suspect_packets",
            "Packets that a container has sent from a MAC, IPv4 or ARP address not its own, or with broken headers.",
            named().flat_map(|(labels, traffic)| {
                let with = |what| [labels.clone(), vec![("what", what)]].concat();
                [
                    (with("spoofed"), traffic.in_spoofed_packets),
                    (with("malformed"), traffic.in_malformed_packets),
                ]
            }),
        )
    }

    fn devices(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // By name: while interfaces are renamed, two may have had the same.
        let devices: BTreeMap<_, _> = self
            .status
            .devices
            .iter()
            .map(|device| (device.name.as_str(), device))
            .collect();
        let labels = |name, kind| vec![("device", name), ("kind", kind)];
        gauges(
            encoder,
            "netfast_device_attached",
            "1 if programs are attached to a bridge device or an uplink, else 0.",
            devices
                .iter()
                .map(|(name, device)| (labels(*name, device.kind.as_str()), truth(device.attached))),
        )?;
        let named = || {
            let counted = devices
                .iter()
                .filter_map(|(name, device)| Some((name, device, device.traffic?)));
            counted.map(|(name, device, traffic)| (labels(*name, device.kind.as_str()), traffic))
        };
        counters(
            encoder,
            "netfast_device_packets",
            "Packets that came in from a bridge device (the host itself) or an uplink, and that left by it on the fast \
             path.",
            named().flat_map(|(labels, traffic)| by_path(&labels, ["in", "out"], traffic.packets())),
        )?;
        counters(
            encoder,
            "netfast_device_bytes",
            "Bytes of them, network layer and up.",
            named().flat_map(|(labels, traffic)| by_path(&labels, ["in", "out"], traffic.bytes())),
        )
    }
}

/// The samples of [`Traffic::packets`] or [`Traffic::bytes`], with the words for in and out.
fn by_path<'a>(
    labels: &Labels<'a>,
    [inward, outward]: [&'static str; 2],
    [in_fast, in_slow, out_fast]: [u64; 3],
) -> [(Labels<'a>, u64); 3] {
    let with = |direction, path| {
        let mut labels = labels.clone();
        labels.extend([("direction", direction), ("path", path)]);
        labels
    };
    [
        (with(inward, "fast"), in_fast),
        (with(inward, "slow"), in_slow),
        (with(outward, "fast"), out_fast),
    ]
}

/// A sample for every reason of a group, also for those that never occurred: a rate needs a beginning.
fn by_reason(
    label: &'static str,
    is_slow: bool,
    counts: &[ReasonCount],
    value: impl Fn(&ReasonCount) -> u64,
) -> impl Iterator<Item = (Labels<'static>, u64)> {
    // What had a known outer header was no candidate for anything.
    let group = Reason::ALL
        .iter()
        .filter(move |reason| reason.is_slow() == is_slow && !reason.is_of_header());
    group.map(move |reason| {
        let count = counts.iter().find(|count| count.number == reason.number());
        (vec![(label, reason.name())], count.map_or(0, &value))
    })
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    gauges(encoder, name, help, [(Labels::new(), value)])
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    counters(encoder, name, help, [(Labels::new(), value)])
}

fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            return ConstGauge::new(value).encode(family);
        }
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The encoder adds `_total` to the name.
fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            return ConstCounter::new(value).encode(family);
        }
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests;
