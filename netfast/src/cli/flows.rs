//! `netfast flows`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;

use crate::{
    cli::{
        CliError, Exit, FlowsArgs, Global,
        instance::{self, Instance},
        output,
    },
    report::flows::{Busiest, DeviceName},
};

/// Walks the flow tables and prints the busiest flows.
pub fn run(args: &FlowsArgs, global: &Global) -> Result<(), CliError> {
    let instance = Instance::open(&global.dirs)?;
    let names = instance.names();
    let wanted = args
        .container
        .as_deref()
        .map(|container| interfaces_of(container, &names))
        .transpose()?;

    let mut busiest = Busiest::new(args.limit);
    let walked = instance.flows.for_each(|key, flow, usable| {
        let concerned = |wanted: &BTreeSet<u32>| wanted.contains(&key.ifindex) || wanted.contains(&flow.out_ifindex);
        if wanted.as_ref().is_none_or(concerned) {
            busiest.push(*key, *flow, usable);
        }
    });
    walked.context("cannot read the flow table")?;

    let flows = busiest.report(instance::monotonic_ns(), |ifindex| {
        names.get(&ifindex).cloned().or_else(|| instance::stranger(ifindex))
    });
    output::print_report(global.json, &flows, |style| flows.render(style))
}

/// The interfaces of a container, or the one that is called that.
pub fn interfaces_of(container: &str, names: &BTreeMap<u32, DeviceName>) -> Result<BTreeSet<u32>, CliError> {
    let found: BTreeSet<_> = names
        .iter()
        .filter(|(_, name)| name.container.as_deref() == Some(container) || name.device == container)
        .map(|(ifindex, _)| *ifindex)
        .collect();
    if found.is_empty() {
        return Err(
            CliError::message(Exit::Failed, format!("no container {container:?} has an endpoint"))
                .remedy("`netfast status` lists them."),
        );
    }
    Ok(found)
}
