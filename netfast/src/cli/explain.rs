//! `netfast explain`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Context as _;
use netfast_common::{
    control::Control,
    device::{Device, DeviceKey},
    flow::{Exit, Flow, FlowKey, Origin},
    net::Port,
};

use crate::{
    cli::{
        CliError, Exit as Ends, ExplainArgs, Global,
        instance::{self, Instance},
        output,
    },
    host::RouteType,
    observe::netlink,
    report::{
        explain::{Destination, Explanation, Facts, Flows, Route, reasons::Reasons},
        localhost,
    },
    snapshot,
};

/// Explains a container's way, or a reason.
pub fn run(args: &ExplainArgs, global: &Global) -> Result<(), CliError> {
    if let Some(name) = &args.reason {
        let Some(reasons) = Reasons::named(name) else {
            return Err(CliError::message(Ends::Failed, format!("there is no reason {name:?}"))
                .remedy("`netfast explain --reason all` lists them."));
        };
        return output::print_report(global.json, &reasons, |style| reasons.render(style));
    }
    let container = args.container.as_deref().unwrap_or_default();
    let dirs = &global.dirs;
    let instance = Instance::open(dirs)?;
    instance::must_be_here(dirs)?;
    let state = instance.known_state(dirs)?;
    if let (Some(asked), None) = (localhost::Explanation::asked(container), &args.destination) {
        let explanation = localhost::Explanation::of(asked, state);
        return output::print_report(global.json, &explanation, |_| explanation.render());
    }
    let destination = args
        .destination
        .as_deref()
        .map(|text| Destination::parse(text, container, &state.networks, &state.aliases))
        .transpose()
        .map_err(|error| {
            let remedy = error.remedy();
            CliError::new(Ends::Failed, error).remedy(remedy)
        })?;
    let known = Known::read(&instance)?;
    let heard = Heard::read();
    let facts = Facts {
        state,
        running: instance.running,
        control: known.control,
        devices: &known.devices,
        route: &route,
        stand_in: &|bridge, like| heard.stand_in(bridge, like),
        is_on_link: &|bridge, ip| heard.is_on_link(bridge, ip),
        behind: &|ip| heard.behind(ip),
        flows: &|ifindex, to| known.flows(ifindex, to),
    };
    let Some(explanation) = Explanation::of(container, destination, &facts) else {
        let message = format!("no container {container:?} has an endpoint");
        return Err(CliError::message(Ends::Failed, message).remedy("`netfast status` lists them."));
    };
    output::print_report(global.json, &explanation, |style| explanation.render(style))
}

/// Asks the kernel.
fn route(iif: u32, from: IpAddr, to: IpAddr) -> Route {
    match netlink::route(iif, from, to) {
        Ok(route) => match (route.kind, route.oif) {
            (RouteType::Local, _) => Route::Host,
            (RouteType::Broadcast | RouteType::Multicast, _) => Route::Many,
            (RouteType::Unicast, Some(oif)) => {
                let name = snapshot::interface_name(oif).unwrap_or_else(|| format!("#{oif}"));
                Route::Out(oif, name)
            }
            (kind, _) => Route::None(format!("a route of the kind {kind:?}")),
        },
        Err(error) => Route::None(error.to_string()),
    }
}

/// What the kernel has heard of who is where; nothing, if it does not tell.
#[derive(Default)]
struct Heard(netlink::Snapshot);

impl Heard {
    fn read() -> Self {
        netlink::snapshot().map(Self).unwrap_or_default()
    }

    /// Another address than the host's own in the network of a bridge, of the family of this one.
    fn stand_in(&self, bridge: u32, like: IpAddr) -> Option<IpAddr> {
        let is_own = |ip: IpAddr| self.0.addresses.iter().any(|address| address.net.addr == ip);
        let of_bridge = self.0.addresses.iter().filter(|address| address.ifindex == bridge);
        of_bridge.map(|address| address.net).find_map(|net| {
            let (own, bits) = match (net.addr, like) {
                (IpAddr::V4(own), IpAddr::V4(_)) => (u128::from(u32::from(own)), 32),
                (IpAddr::V6(own), IpAddr::V6(_)) if !own.is_unicast_link_local() => (u128::from(own), 128),
                _ => return None,
            };
            // Not the last one, which is for all in IPv4.
            let all = u128::MAX.checked_shr(128 - (bits - u32::from(net.prefix))).unwrap_or(0);
            let first = own & !all;
            let mut others = (first + 1..first | all).map(|ip| match like {
                IpAddr::V4(_) => u32::try_from(ip).map_or(like, |ip| Ipv4Addr::from(ip).into()),
                IpAddr::V6(_) => Ipv6Addr::from(ip).into(),
            });
            others.find(|ip| !is_own(*ip))
        })
    }

    /// Whether an address is of a bridge's own subnet.
    fn is_on_link(&self, bridge: u32, ip: IpAddr) -> bool {
        let mut of_bridge = self.0.addresses.iter().filter(|address| address.ifindex == bridge);
        of_bridge.any(|address| address.net.contains(ip))
    }

    /// The port of the bridge that the neighbour with this address is behind.
    fn behind(&self, ip: IpAddr) -> Option<u32> {
        let mut neighbours = self.0.neighbours.iter().filter(|(key, _)| key.ip == ip);
        neighbours.find_map(|(key, neighbour)| {
            let mac = neighbour.mac.filter(|_| neighbour.state.is_valid())?;
            let mut stations = self.0.fdb.iter().filter(|entry| entry.bridge == Some(key.ifindex));
            Some(stations.find(|entry| entry.mac == mac)?.ifindex)
        })
    }
}

/// What the programs know.
struct Known {
    control: Control,
    devices: BTreeMap<DeviceKey, Device>,
    flows: Vec<Learned>,
}

/// A flow that was learned.
struct Learned {
    key: FlowKey<IpAddr>,
    flow: Flow<IpAddr>,
    /// It has its reverse, and the daemon has looked at its conntrack entry.
    is_paired: bool,
    /// Nothing has changed since that it depends on.
    is_fresh: bool,
    /// When the kernel was asked last.
    asked: Duration,
}

/// A flow that the kernel was asked about longer ago tells little of now.
const RECENT: Duration = Duration::from_secs(10);

impl Known {
    fn read(instance: &Instance) -> Result<Self, CliError> {
        let tables = &instance.tables;
        let control = tables.control().context("cannot read the switches")?;
        let devices = tables.devices().context("cannot read the devices")?;
        let now = instance::monotonic_ns();
        let mut flows = Vec::new();
        let slots = devices
            .values()
            .map(|device| (device.slot, tables.generation(device.slot).ok()));
        let generations: BTreeMap<u16, Option<u32>> = slots.collect();
        let is_fresh = |slot, generation| generations.get(&slot) == Some(&Some(generation));
        instance
            .flows
            .for_each(|key, flow, is_paired| {
                flows.push(Learned {
                    key: *key,
                    flow: *flow,
                    is_paired: is_paired
                        && flow.flags & Flow::<IpAddr>::VETTED != 0
                        && flow.flags & Flow::<IpAddr>::HELPED == 0,
                    is_fresh: flow.epoch == control.epoch
                        && is_fresh(flow.in_slot, flow.in_generation)
                        && is_fresh(flow.out_slot, flow.out_generation),
                    asked: Duration::from_nanos(now.saturating_sub(flow.learned_ns)),
                });
            })
            .context("cannot read the flow table")?;
        Ok(Self {
            control,
            devices,
            flows,
        })
    }

    /// The flows that enter or leave by an interface, to the destination or back from it.
    fn flows(&self, ifindex: u32, to: Option<&Destination>) -> Flows {
        let mut sum = Flows::default();
        for Learned {
            key,
            flow,
            is_paired,
            is_fresh,
            asked,
        } in &self.flows
        {
            let is = |ip: IpAddr, port: Port| to.is_none_or(|to| to.is(ip, port.number(), key.protocol));
            let leaves = key.ifindex == ifindex && key.origin == Origin::Wire as u8;
            let is_meant = if leaves {
                is(key.destination, key.destination_port)
            } else {
                flow.out_ifindex == ifindex && flow.exit != Exit::Host as u8 && is(flow.source, flow.source_port)
            };
            if leaves && to.is_none_or(|to| to.ip.is_ipv4() == key.source.is_ipv4()) {
                sum.source = Some(key.source);
            }
            if !is_meant {
                continue;
            }
            match (is_paired, is_fresh) {
                (true, true) => sum.usable += 1,
                (true, false) => sum.stale += 1,
                (false, _) => sum.waiting += 1,
            }
            sum.live += u64::from(*is_paired && *is_fresh && *asked < RECENT);
            sum.packets += flow.packets;
            sum.bytes += flow.bytes;
        }
        sum
    }
}
