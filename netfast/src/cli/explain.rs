//! `netfast explain`.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use netfast_common::{
    flow::{Flow, FlowKey},
    net::Ip4,
};

use crate::{
    cli::{CliError, Exit, ExplainArgs, instance::Instance, output},
    observe::netlink,
    plan::report::{EndpointReport, NetworkReport},
    report::explain::{Destination, Explanation, Facts, Flows, Route, addresses, reasons::Reasons},
    snapshot,
    world::RouteType,
};

/// Explains a container's way, or a reason.
pub fn run(args: &ExplainArgs) -> Result<(), CliError> {
    if let Some(name) = &args.reason {
        let Some(reasons) = Reasons::named(name) else {
            return Err(CliError::message(Exit::Failed, format!("there is no reason {name:?}"))
                .remedy("`netfast explain --reason all` lists them."));
        };
        return output::print_report(args.report.json, &reasons, |style| reasons.render(style));
    }
    let container = args.container.as_deref().unwrap_or_default();
    let dirs = &args.report.dirs;
    let instance = Instance::open(dirs)?;
    let state = instance.known_state(dirs)?;
    let destination = args
        .destination
        .as_deref()
        .map(|text| Destination::parse(text, container, &state.networks, &state.aliases))
        .transpose()
        .map_err(|error| {
            CliError::new(Exit::Failed, error)
                .remedy("Give an address, or a container that `netfast networks NAME` lists; names are not looked up.")
        })?;
    let mut known = Vec::new();
    instance
        .flows
        .for_each(|key, flow, usable| known.push((*key, *flow, usable)))
        .context("cannot read the flow table")?;
    let facts = Facts {
        state,
        running: instance.running,
        control: instance.tables.control().context("cannot read the switches")?,
        route: &route,
        flows: &|ifindex, to| flows(&known, ifindex, to),
    };
    let Some(explanation) = Explanation::of(container, destination, &facts) else {
        let message = format!("no container {container:?} has an endpoint");
        return Err(CliError::message(Exit::Failed, message).remedy("`netfast status` lists them."));
    };
    output::print_report(args.report.json, &explanation, |style| explanation.render(style))
}

/// Asks the kernel.
fn route(network: &NetworkReport, endpoint: &EndpointReport, to: IpAddr) -> Route {
    let (Some(bridge), Some(from)) = (
        network.bridge_ifindex,
        addresses(endpoint).find(|ip| ip.is_ipv4() == to.is_ipv4()),
    ) else {
        return Route::None("the container has no address or no bridge".into());
    };
    match netlink::route(bridge, from, to) {
        Ok(route) => match (route.kind, route.oif) {
            (RouteType::Local, _) => Route::Host,
            (RouteType::Unicast, Some(oif)) => {
                let name = snapshot::interface_name(oif).unwrap_or_else(|| format!("#{oif}"));
                Route::Out(oif, name)
            }
            (kind, _) => Route::None(format!("a route of the kind {kind:?}")),
        },
        Err(error) => Route::None(error.to_string()),
    }
}

/// The flows that enter or leave by an interface, to the destination or back from it.
fn flows(known: &[(FlowKey<Ip4>, Flow<Ip4>, bool)], ifindex: u32, to: Option<&Destination>) -> Flows {
    let is = |ip: Ip4, port: netfast_common::net::Port| {
        to.is_none_or(|to| to.is(Ipv4Addr::from(ip.bytes()).into(), port.number()))
    };
    let mut sum = Flows::default();
    for (key, flow, usable) in known {
        let leaves = key.ifindex == ifindex && is(key.destination, key.destination_port);
        let comes = flow.out_ifindex == ifindex && is(flow.source, flow.source_port);
        if !leaves && !comes {
            continue;
        }
        if *usable {
            sum.usable += 1;
        } else {
            sum.waiting += 1;
        }
        sum.packets += flow.packets;
        sum.bytes += flow.bytes;
    }
    sum
}
