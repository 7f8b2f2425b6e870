//! The report as text.

use std::{fmt::Write as _, time::Duration};

use netfast_common::device::Kind;

use super::{Daemon, Device, Network, Status, Traffic};
use crate::{
    abilities::Update,
    report::{
        Style, Table, localhost,
        path::PathState,
        resolver,
        table::{Cell, Paint, wrap},
        tunnels,
        units::{bytes, count, duration, share},
    },
};

/// Reasons that are shown; the others are summed up.
const TOP: usize = 8;
/// Updates that are shown, of those of the last 30 days.
const UPDATES: usize = 3;

impl Status {
    /// The text; `verbose` with what became of candidates for learning, and with old updates.
    pub fn render(&self, style: Style, verbose: bool) -> String {
        let mut text = String::new();
        let paint = if self.verdict.ok { Paint::Green } else { Paint::Yellow };
        let verdict = style.width.map_or_else(
            || vec![self.verdict.text.as_str()],
            |width| wrap(&self.verdict.text, width),
        );
        for part in verdict {
            push_line(&mut text, &paint.on(part, style));
        }
        for line in self.headlines(verbose) {
            for part in style
                .width
                .map_or_else(|| vec![line.as_str()], |width| wrap(&line, width))
            {
                push_line(&mut text, part);
            }
        }
        text.push('\n');
        text.push_str(&self.totals(style));
        for network in &self.networks {
            text.push('\n');
            push_line(&mut text, &title(network, style));
            text.push_str(&endpoints(network).render(style));
        }
        let suspects = suspects(&self.networks);
        if !suspects.is_empty() {
            text.push_str("\nENDPOINTS THAT SENT FROM ADDRESSES NOT THEIR OWN, OR BROKEN PACKETS\n");
            text.push_str(&suspects.render(style));
        }
        let devices = devices(&self.devices);
        if !devices.is_empty() {
            text.push_str("\nHOST INTERFACES\n");
            text.push_str(&devices.render(style));
        }
        if !self.tunnels.is_empty() {
            let packets = count(self.totals.tunnel_packets);
            let _ = writeln!(text, "\nTUNNELS ({packets} packets left with a repeated outer header)");
            text.push_str(&tunnels::table(&self.tunnels).render(style));
        }
        text.push_str(&self.xdp.render());
        text.push_str(&self.counted(style, verbose));
        text
    }

    /// Of one network or one container: the verdict, and its endpoints.
    pub fn render_part(&self, style: Style) -> String {
        let paint = if self.verdict.ok { Paint::Green } else { Paint::Yellow };
        let mut text = paint.on(&self.verdict.text, style) + "\n";
        for network in &self.networks {
            text.push('\n');
            push_line(&mut text, &title(network, style));
            text.push_str(&endpoints(network).render(style));
        }
        text
    }

    /// Packets by their reasons.
    fn counted(&self, style: Style, verbose: bool) -> String {
        let mut text = String::new();
        for (heading, counts) in [
            ("WHY PACKETS TOOK THE SLOW PATH", &self.reasons),
            ("WHAT BECAME OF CANDIDATES FOR LEARNING", &self.learning),
        ]
        .into_iter()
        .take(if verbose { 2 } else { 1 })
        {
            if counts.is_empty() {
                continue;
            }
            let mut table = Table::new(&[">PACKETS", ">BYTES", "REASON", "MEANING"]).indent(2);
            for reason in counts.iter().take(TOP) {
                table.row([
                    count(reason.packets).into(),
                    bytes(reason.bytes).into(),
                    reason.name.into(),
                    reason.text.into(),
                ]);
            }
            let rest = counts.get(TOP..).unwrap_or_default();
            if !rest.is_empty() {
                let (packets, octets) = rest.iter().fold((0, 0), |(p, b), r| (p + r.packets, b + r.bytes));
                let others = format!("{} others", rest.len());
                table.row([
                    count(packets).into(),
                    bytes(octets).into(),
                    others.into(),
                    "see --json".into(),
                ]);
            }
            let _ = writeln!(text, "\n{heading}");
            text.push_str(&table.render(style));
        }
        text
    }

    /// What must be read even by those who read no more.
    fn headlines(&self, verbose: bool) -> Vec<String> {
        let mut lines = vec![self.daemon.headline()];
        match (self.runtime.state.as_str(), &self.runtime.engine, &self.runtime.error) {
            ("none", _, _) => {
                lines.push("No container runtime is followed: every bridge port with a veth is an endpoint.".into());
            }
            ("disconnected", _, Some(error)) => {
                lines.push(format!(
                    "Docker does not answer ({error}): containers are as last known."
                ));
            }
            (_, Some(engine), _) => lines.push(format!("Follows the container runtime: {engine}.")),
            _ => {}
        }
        if self.daemon.attached && !self.daemon.using {
            lines.push("No flow is used at the moment: every packet takes the slow path.".into());
        }
        if let Some(why) = &self.daemon.learning_off {
            lines.push(format!("No flow is learned at the moment: {why}."));
        }
        if let Some(text) = resolver::summary(&self.resolvers) {
            lines.push(format!("Docker's rules for its resolver: {text}."));
        }
        if let Some(text) = localhost::summary(&self.localhost) {
            lines.push(format!("Published ports at loopback addresses: {text}."));
        }
        if self.daemon.running {
            lines.extend(self.daemon.lacks.iter().map(|lack| format!("Not here: {lack}")));
            // The newest is what may explain what is seen now.
            let (updates, most) = if verbose {
                (&self.host.updates, usize::MAX)
            } else {
                (&self.host.recent, UPDATES)
            };
            lines.extend(updates.iter().rev().take(most).map(Update::text));
        }
        lines
    }

    fn totals(&self, style: Style) -> String {
        let totals = &self.totals;
        let packets = totals.fast_packets + totals.slow_packets;
        let octets = totals.fast_bytes + totals.slow_bytes;
        let mut table = Table::new(&["PATH", ">PACKETS", ">SHARE", ">BYTES", ">SHARE"]).indent(2);
        for (path, some_packets, some_bytes) in [
            ("fast", totals.fast_packets, totals.fast_bytes),
            ("slow", totals.slow_packets, totals.slow_bytes),
        ] {
            table.row([
                path.into(),
                count(some_packets).into(),
                share(some_packets, packets).into(),
                bytes(some_bytes).into(),
                share(some_bytes, octets).into(),
            ]);
        }
        let mut text = table.render(style);
        let _ = writeln!(
            text,
            "  {} of {} flows in use; tables take {}",
            count(totals.flows),
            count(totals.flow_capacity),
            bytes(totals.table_bytes)
        );
        text
    }
}

impl Daemon {
    fn headline(&self) -> String {
        let version = &self.version;
        if !self.running && version.is_empty() {
            return "netfast is not running and its state is gone, but programs are attached. `netfast run` takes them \
                    over, `netfast detach` removes them."
                .into();
        }
        if !self.running {
            return format!(
                "netfast is not running, but its fast path (left by {version}) is attached and works. \
                 `netfast run` takes it over, `netfast detach` removes it."
            );
        }
        let pid = self.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
        let uptime = self.uptime_ms.map_or_else(String::new, |ms| {
            format!(" for {}", duration(Duration::from_millis(ms)))
        });
        let state = match (self.attached, self.in_sync) {
            (false, _) => "nothing is attached yet".into(),
            (true, true) => format!("in sync, attached by {}", self.attached_by),
            (true, false) => format!("attached by {}, catching up with changes", self.attached_by),
        };
        format!("netfast {version} has been running{uptime}{pid}: {state}.")
    }
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn title(network: &Network, style: Style) -> String {
    let device = match &network.bridge {
        Some(bridge) => format!(", {bridge}"),
        None => String::new(),
    };
    let path = match (network.path.is_fast(), network.host.is_fast()) {
        (true, false) => Paint::Yellow.on("fast, but slow from and to the host", style),
        _ => network.path.paint().on(network.path.path, style),
    };
    let is_direct = network.direct.as_ref().is_some_and(PathState::is_fast);
    let direct = if is_direct { ", direct within the bridge" } else { "" };
    format!("NETWORK {} ({}{device}): {path}{direct}", network.name, network.driver)
}

fn endpoints(network: &Network) -> Table {
    let headings = [
        "CONTAINER",
        "PATH",
        ">SENT FAST",
        ">SENT SLOW",
        ">SHARE",
        ">RECEIVED FAST",
        "REASON",
    ];
    let mut table = Table::new(&headings).indent(2);
    // On the slow path nothing is counted: reason and names are all there is to say.
    if network.endpoints.is_empty() || !network.path.is_fast() {
        let names: Vec<_> = network
            .endpoints
            .iter()
            .map(|endpoint| endpoint.container.as_str())
            .collect();
        let mut list = Table::bare(1).indent(2);
        if let Some(reason) = &network.path.reason {
            list.row([reason.clone().into()]);
        }
        list.row([if names.is_empty() {
            "no endpoints".into()
        } else {
            names.join(", ").into()
        }]);
        return list;
    }
    for endpoint in &network.endpoints {
        let mut row = vec![endpoint.container.clone().into(), endpoint.path.cell()];
        row.extend(traffic_cells(endpoint.traffic));
        // What is said of the whole network is not repeated.
        let reason = endpoint
            .path
            .reason
            .clone()
            .filter(|reason| Some(reason) != network.path.reason.as_ref());
        row.push(reason.unwrap_or_default().into());
        table.row(row);
    }
    table
}

/// Endpoints that a container's owner should look at.
fn suspects(networks: &[Network]) -> Table {
    let mut table = Table::new(&["CONTAINER", "NETWORK", ">SPOOFED", ">MALFORMED"]).indent(2);
    for network in networks {
        for endpoint in &network.endpoints {
            let traffic = endpoint.traffic.unwrap_or_default();
            if traffic.in_spoofed_packets + traffic.in_malformed_packets > 0 {
                table.row([
                    endpoint.container.clone().into(),
                    network.name.clone().into(),
                    count(traffic.in_spoofed_packets).into(),
                    count(traffic.in_malformed_packets).into(),
                ]);
            }
        }
    }
    table
}

fn devices(devices: &[Device]) -> Table {
    let mut table = Table::new(&["DEVICE", "KIND", ">IN FAST", ">IN SLOW", ">SHARE", ">OUT FAST", "STATE"]).indent(2);
    for device in devices {
        let mut row = vec![device.name.clone().into(), device.kind.clone().into()];
        row.extend(traffic_cells(device.traffic));
        row.push(match (&device.error, device.attached) {
            (Some(error), _) => Cell::painted(error.clone(), Paint::Yellow),
            (None, true) => match &device.path.reason {
                None => "attached".into(),
                Some(reason) if device.kind == Kind::Bridge.name() => {
                    Cell::painted(format!("attached; slow from and to the host: {reason}"), Paint::Yellow)
                }
                Some(reason) => Cell::painted(format!("attached; slow: {reason}"), Paint::Yellow),
            },
            (None, false) => Cell::painted("not attached", Paint::Yellow),
        });
        table.row(row);
    }
    table
}

fn traffic_cells(traffic: Option<Traffic>) -> [Cell; 4] {
    let Some(traffic) = traffic else {
        return ["-".into(), "-".into(), "-".into(), "-".into()];
    };
    let all = traffic.in_fast_packets + traffic.in_slow_packets;
    [
        count(traffic.in_fast_packets).into(),
        count(traffic.in_slow_packets).into(),
        share(traffic.in_fast_packets, all).into(),
        count(traffic.out_fast_packets).into(),
    ]
}
