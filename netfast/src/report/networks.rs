//! `netfast networks`: as `docker network` tells it, with what netfast does.

use std::fmt::Write as _;

use netfast_common::control::Control;
use serde::Serialize;

use crate::{
    plan::{
        LocalReport, ResolverReport, XdpReport,
        report::{EndpointReport, NetworkReport, PoolReport},
    },
    report::{Style, Table, localhost, path::PathState, resolver, table::Cell, tunnels::Tunnel, xdp},
};

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Networks {
    /// What keeps every packet slow at the moment, whatever is said of networks.
    pub notes: Vec<String>,
    /// The networks, by name.
    pub networks: Vec<Network>,
    /// VXLAN devices that packets of containers leave by, of whichever network.
    pub tunnels: Vec<Tunnel>,
    /// The uplinks, if XDP is asked for.
    pub xdp: Vec<XdpReport>,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Network {
    /// The runtime's identifier; empty without a runtime.
    pub id: String,
    /// Its name; without a runtime that of the bridge.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// `local`, `swarm` or `global`.
    pub scope: String,
    /// Whether it has no way out.
    pub internal: bool,
    /// Its address pools.
    pub pools: Vec<Pool>,
    /// The name of its bridge device.
    pub bridge: Option<String>,
    /// The interface that its containers send by, if it is one of macvlan or ipvlan.
    pub parent: Option<String>,
    /// The index of its bridge device, if that exists.
    pub bridge_ifindex: Option<u32>,
    /// Which path its packets take, and why.
    #[serde(flatten)]
    pub path: PathState,
    /// Which path the packets between its containers and the host take, and why.
    pub host: PathState,
    /// Which path its IPv6 packets take, and why.
    pub ipv6: PathState,
    /// Whether packets between its containers are forwarded directly, or what keeps them from it; `None`: it has no bridge.
    pub direct: Option<PathState>,
    /// Its containers in which Docker's rules for its resolver should be replaced.
    pub resolvers: Vec<ResolverReport>,
    /// Its containers' published ports at loopback addresses.
    pub localhost: Vec<LocalReport>,
    /// How big its containers' segments of TCP may be, in words; `None`: as the kernel has it.
    pub segments: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An address pool of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pool {
    /// The subnet.
    pub subnet: Option<String>,
    /// The part of it that containers get addresses from.
    pub ip_range: Option<String>,
    /// The host's address on it.
    pub gateway: Option<String>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Endpoint {
    /// The container's identifier; empty without a runtime.
    pub container_id: String,
    /// The container's name.
    pub container: String,
    /// The interface's name in the container.
    pub interface: Option<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its MAC address.
    pub mac: Option<String>,
    /// The host's side of its veth.
    pub veth: Option<String>,
    /// The index of the host's side of its veth.
    pub ifindex: Option<u32>,
    /// Which path its packets take, and why.
    #[serde(flatten)]
    pub path: PathState,
    /// Whether those between it and other containers of its bridge are forwarded directly, or what keeps them from it.
    pub direct: Option<PathState>,
}

impl From<&[NetworkReport]> for Networks {
    fn from(reports: &[NetworkReport]) -> Self {
        Self {
            notes: Vec::new(),
            tunnels: Vec::new(),
            xdp: Vec::new(),
            networks: reports.iter().map(Network::from).collect(),
        }
    }
}

impl From<&NetworkReport> for Network {
    fn from(report: &NetworkReport) -> Self {
        Self {
            id: report.id.clone(),
            name: report.name.clone(),
            driver: report.driver.clone(),
            scope: report.scope.clone(),
            internal: report.internal,
            pools: report.pools.iter().map(Pool::from).collect(),
            bridge: report.bridge.clone(),
            parent: report.parent.clone(),
            bridge_ifindex: report.bridge_ifindex,
            path: PathState::from(&report.path),
            host: PathState::from(&report.host),
            ipv6: PathState::from(&report.ipv6),
            direct: report.direct.as_ref().map(PathState::from),
            resolvers: Vec::new(),
            localhost: Vec::new(),
            segments: report.segments.clone(),
            endpoints: report.endpoints.iter().map(Endpoint::from).collect(),
        }
    }
}

impl From<&PoolReport> for Pool {
    fn from(report: &PoolReport) -> Self {
        let PoolReport {
            subnet,
            ip_range,
            gateway,
        } = report.clone();
        Self {
            subnet,
            ip_range,
            gateway,
        }
    }
}

impl From<&EndpointReport> for Endpoint {
    fn from(report: &EndpointReport) -> Self {
        let path = PathState::from(&report.path);
        let EndpointReport {
            container_id,
            container,
            interface,
            addresses,
            mac,
            veth,
            ifindex,
            isolated: _,
            is_cut_off: _,
            published: _,
            path: _,
            direct,
            sandbox: _,
        } = report.clone();
        Self {
            container_id,
            container,
            interface,
            addresses,
            mac,
            veth,
            ifindex,
            path,
            direct: direct.as_ref().map(PathState::from),
        }
    }
}

/// Digits of an identifier that are shown, as Docker does.
const SHORT_ID: usize = 12;

impl Networks {
    /// Adds what the switches mean for all networks.
    #[must_use]
    pub fn under(mut self, control: Control, learning_off: Option<&str>) -> Self {
        if !control.may_use() {
            self.notes
                .push("No flow is used at the moment: every packet takes the slow path.".into());
        } else if !control.may_learn() {
            let why = learning_off.unwrap_or("switched off");
            self.notes.push(format!("No flow is learned at the moment: {why}."));
        }
        self
    }

    /// Adds what became of Docker's rules for its resolver.
    #[must_use]
    pub fn with_resolvers(mut self, reports: &[ResolverReport]) -> Self {
        for network in &mut self.networks {
            let on = |report: &&ResolverReport| report.networks.contains(&network.name);
            network.resolvers = reports.iter().filter(on).cloned().collect();
        }
        self
    }

    /// Adds what becomes of the host's own connections to published ports.
    #[must_use]
    pub fn with_localhost(mut self, reports: &[LocalReport]) -> Self {
        for network in &mut self.networks {
            let is_here = |report: &&LocalReport| network.endpoints.iter().any(|end| end.container == report.container);
            network.localhost = reports.iter().filter(is_here).cloned().collect();
        }
        self
    }

    /// Adds the tunnels.
    #[must_use]
    pub fn with_tunnels(mut self, tunnels: Vec<Tunnel>) -> Self {
        self.tunnels = tunnels;
        self
    }

    /// Adds what becomes of XDP.
    #[must_use]
    pub fn with_xdp(mut self, reports: &[XdpReport]) -> Self {
        self.xdp = reports.to_vec();
        self
    }

    /// What is said of tunnels and uplinks, below all else.
    fn beyond(&self) -> String {
        let tunnels = self.tunnels.iter().map(|tunnel| format!("\n{}", tunnel.line()));
        let xdp = self.xdp.iter();
        let xdp = xdp.map(|report| format!("\nXDP at {}: {}", report.name, xdp::state(report)));
        let text: String = tunnels.chain(xdp).collect();
        if text.is_empty() { text } else { text + "\n" }
    }

    fn notes(&self) -> String {
        let lines = self.notes.iter().map(|note| format!("{note}\n"));
        lines.collect()
    }

    /// Those that a name means: the one of this name, else those whose identifiers begin with it, as Docker resolves.
    #[must_use]
    pub fn select(self, name: &str) -> Self {
        let named = |network: &Network| network.name == name;
        let by_name = self.networks.iter().any(named);
        let means = |network: &Network| {
            if by_name {
                named(network)
            } else {
                network.id.starts_with(name)
            }
        };
        Self {
            notes: self.notes,
            tunnels: self.tunnels,
            xdp: self.xdp,
            networks: self.networks.into_iter().filter(means).collect(),
        }
    }

    /// One line per network.
    pub fn render_list(&self, style: Style) -> String {
        let headings = [
            "NETWORK ID",
            "NAME",
            "DRIVER",
            "SCOPE",
            "SUBNET",
            ">FAST/ALL",
            "PATH",
            "REASON",
        ];
        let mut table = Table::new(&headings);
        for network in &self.networks {
            let fast = network
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.path.is_fast())
                .count();
            table.row([
                short(&network.id).into(),
                network.name.clone().into(),
                network.driver.clone().into(),
                network.scope.clone().into(),
                network.subnets().into(),
                format!("{fast}/{}", network.endpoints.len()).into(),
                network.path.cell(),
                network.reason().into(),
            ]);
        }
        self.notes() + &table.without_empty().render(style) + &self.beyond()
    }

    /// Everything that is known of each.
    pub fn render_details(&self, style: Style) -> String {
        let texts: Vec<_> = self.networks.iter().map(|network| network.render(style)).collect();
        self.notes() + &texts.join("\n") + &self.beyond()
    }
}

impl Network {
    fn subnets(&self) -> String {
        let subnets: Vec<_> = self.pools.iter().filter_map(|pool| pool.subnet.as_deref()).collect();
        subnets.join(" ")
    }

    /// Why its packets are slow, or only those from and to the host, or those of IPv6.
    fn reason(&self) -> String {
        match (&self.path.reason, &self.host.reason, &self.ipv6.reason) {
            (Some(reason), ..) => reason.clone(),
            (None, Some(reason), _) => format!("slow from and to the host: {reason}"),
            (None, None, Some(reason)) => format!("slow of IPv6: {reason}"),
            (None, None, None) => String::new(),
        }
    }

    fn render(&self, style: Style) -> String {
        let mut text = self.name.clone();
        if !self.id.is_empty() {
            let _ = write!(text, " ({})", self.id);
        }
        text.push('\n');

        let mut facts = Table::bare(2).indent(2);
        let internal = if self.internal { ", internal" } else { "" };
        // Without a runtime nobody tells a scope.
        let scope = Some(&self.scope).filter(|scope| !scope.is_empty());
        let scope = scope.map_or_else(String::new, |scope| format!(", scope {scope}"));
        facts.row(["driver".into(), format!("{}{scope}{internal}", self.driver).into()]);
        for pool in &self.pools {
            facts.row(["subnet".into(), pool.text().into()]);
        }
        if let Some(bridge) = &self.bridge {
            let found = self
                .bridge_ifindex
                .map_or("does not exist".into(), |ifindex| format!("ifindex {ifindex}"));
            facts.row(["bridge".into(), format!("{bridge} ({found})").into()]);
        }
        if let Some(parent) = &self.parent {
            facts.row(["parent".into(), parent.as_str().into()]);
        }
        facts.row(["path".into(), self.path.cell()]);
        if !self.reason().is_empty() {
            facts.row(["reason".into(), self.reason().into()]);
        }
        // Where its packets are slow there is no more to say.
        if let Some(direct) = self.direct.as_ref().filter(|_| self.path.is_fast()) {
            facts.row(["direct".into(), direct_cell(direct)]);
        }
        if let Some(resolver) = resolver::summary(&self.resolvers) {
            facts.row(["resolver".into(), format!("Docker's rules {resolver}").into()]);
        }
        if let Some(ports) = localhost::ports(&self.localhost) {
            facts.row(["localhost".into(), format!("published ports: {ports}").into()]);
        }
        if let Some(segments) = &self.segments {
            facts.row(["segments".into(), segments.as_str().into()]);
        }
        text.push_str(&facts.render(style));
        text.push('\n');
        text.push_str(&self.endpoints_table().render(style));
        text
    }

    fn endpoints_table(&self) -> Table {
        if self.endpoints.is_empty() {
            let mut none = Table::bare(1).indent(2);
            none.row(["no endpoints".into()]);
            return none;
        }
        let headings = ["CONTAINER", "INTERFACE", "ADDRESSES", "MAC", "VETH", "PATH", "REASON"];
        let mut table = Table::new(&headings).indent(2);
        for endpoint in &self.endpoints {
            let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into()).into();
            table.row([
                endpoint.container.clone().into(),
                known(&endpoint.interface),
                if endpoint.addresses.is_empty() {
                    "-".into()
                } else {
                    endpoint.addresses.join(" ").into()
                },
                known(&endpoint.mac),
                known(&endpoint.veth),
                endpoint.path.cell(),
                self.reason_of(endpoint).into(),
            ]);
        }
        table
    }

    /// Why an endpoint is slow, or only not forwarded to directly, where the network is not.
    fn reason_of(&self, endpoint: &Endpoint) -> String {
        let own = |reason: &Option<String>, all: &Option<String>| reason.clone().filter(|_| reason != all);
        let of = |path: &Option<PathState>| path.as_ref().and_then(|path| path.reason.clone());
        own(&endpoint.path.reason, &self.path.reason)
            .or_else(|| {
                let why = own(&of(&endpoint.direct), &of(&self.direct)).filter(|_| endpoint.path.is_fast())?;
                Some(format!("not direct: {why}"))
            })
            .unwrap_or_default()
    }
}

/// Whether packets within a bridge are forwarded directly.
fn direct_cell(direct: &PathState) -> Cell {
    let text = match &direct.reason {
        None => "nobody judges what its containers send to each other".to_owned(),
        Some(reason) => format!("no: {reason}"),
    };
    Cell::painted(text, direct.paint())
}

impl Pool {
    fn text(&self) -> String {
        let mut text = self.subnet.clone().unwrap_or_else(|| "-".into());
        if let Some(range) = &self.ip_range {
            let _ = write!(text, ", containers from {range}");
        }
        if let Some(gateway) = &self.gateway {
            let _ = write!(text, ", gateway {gateway}");
        }
        text
    }
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

#[cfg(test)]
mod tests;
