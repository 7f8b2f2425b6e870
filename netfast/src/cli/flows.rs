//! `netfast flows`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use netfast_common::flow::{Flow, FlowKey};

use crate::{
    cli::{
        CliError, Dirs, Exit, FlowsArgs, Global,
        instance::{self, Instance},
        output,
    },
    report::flows::{
        Busiest, DeviceName,
        follow::{Event, Follower, Now},
    },
    state::unix_ms,
};

/// Walks the flow tables and prints the busiest flows.
pub fn run(args: &FlowsArgs, global: &Global) -> Result<(), CliError> {
    if let Some(seconds) = args.follow {
        return follow(
            args.container.as_deref(),
            Duration::from_secs_f64(seconds),
            &global.dirs,
        );
    }
    let instance = Instance::open(&global.dirs)?;
    let names = instance.names();
    let wanted = args
        .container
        .as_deref()
        .map(|container| interfaces_of(container, &names))
        .transpose()?;

    let mut busiest = Busiest::new(args.limit);
    let walked = instance.flows.for_each(|key, flow, usable| {
        if is_wanted(wanted.as_ref(), key, flow) {
            busiest.push(*key, *flow, usable);
        }
    });
    walked.context("cannot read the flow table")?;

    let flows = busiest.report(instance::monotonic_ns(), |ifindex| {
        names.get(&ifindex).cloned().or_else(|| instance::stranger(ifindex))
    });
    output::print_report(global.json, &flows, |style| flows.render(style))
}

fn is_wanted(wanted: Option<&BTreeSet<u32>>, key: &FlowKey<IpAddr>, flow: &Flow<IpAddr>) -> bool {
    wanted.is_none_or(|wanted| wanted.contains(&key.ifindex) || wanted.contains(&flow.out_ifindex))
}

/// Walks the tables again and again, and prints what is new, until nobody reads it or netfast is gone. What is attached and
/// named is looked up each time: containers come and go, and a daemon with another version has other tables.
fn follow(container: Option<&str>, every: Duration, dirs: &Dirs) -> Result<(), CliError> {
    let mut follower = Follower::default();
    let mut is_first = true;
    loop {
        let instance = Instance::open(dirs)?;
        let names = instance.names();
        let wanted = match container.map(|container| interfaces_of(container, &names)) {
            // One that has gone since may come back.
            Some(Err(_)) if !is_first => Some(BTreeSet::new()),
            other => other.transpose()?,
        };
        let name = |ifindex| names.get(&ifindex).cloned().or_else(|| instance::stranger(ifindex));
        let now = Now {
            unix_ms: unix_ms(SystemTime::now()),
            monotonic_ns: instance::monotonic_ns(),
        };
        let mut lines = String::new();
        let mut wrong = None;
        let mut tell = |event: &Event| match serde_json::to_string(event) {
            Ok(line) => {
                lines.push_str(&line);
                lines.push('\n');
            }
            Err(error) => wrong = Some(error),
        };
        follower.begin();
        let walked = instance.flows.for_each(|key, flow, usable| {
            if is_wanted(wanted.as_ref(), key, flow)
                && let Some(event) = follower.see(*key, *flow, usable, now, name)
            {
                tell(&event);
            }
        });
        walked.context("cannot read the flow table")?;
        follower.end(now, name).iter().for_each(&mut tell);
        if let Some(error) = wrong {
            return Err(anyhow::Error::new(error).context("cannot write a flow as JSON").into());
        }
        if !output::print(&lines)? {
            return Ok(());
        }
        is_first = false;
        std::thread::sleep(every);
    }
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
