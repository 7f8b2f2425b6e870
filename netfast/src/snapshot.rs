//! One look at an instance: what its daemon left in the state file, and what the pinned tables say.

use std::{collections::BTreeMap, io, path::Path, time::SystemTime};

use netfast_common::reason::Count;

use crate::{
    apply::{flows::FlowTables, pinned::ReadError, read::Tables},
    observe::netlink::counters,
    report::{
        aliases::{Aliases, Counted},
        status::{self, Status},
    },
    state::{State, sandboxes::directories, unix_ms},
};

/// Puts the report of `netfast status` together, at this moment. `running`: the daemon that wrote the state lives.
///
/// The flow table is walked whole: a few milliseconds of processor time for a hundred thousand flows.
pub fn status(
    state: Option<&State>,
    running: bool,
    tables: &Tables,
    flows: &FlowTables,
    sandboxes: &[InSandbox],
) -> Result<Status, SnapshotError> {
    let ports = ports(tables)?;
    let mut said = status::Tables {
        control: tables.control()?,
        counts: tables.reasons()?,
        traffic: ports.traffic,
        devices: ports.devices,
        interfaces: interfaces(state),
        flows: count(flows).map_err(SnapshotError::Flows)?,
        tunnels: tables.tunnels()?,
        outcomes: tables.outcomes()?,
        xdp: tables.xdp()?,
        sandboxes: BTreeMap::new(),
    };
    for sandbox in sandboxes {
        // It may be going away.
        let Ok((ports, counts, flows)) = sandbox.read() else {
            continue;
        };
        for (sum, count) in said.counts.iter_mut().zip(counts) {
            sum.packets += count.packets;
            sum.bytes += count.bytes;
        }
        said.flows += flows;
        said.sandboxes.insert(sandbox.directory.clone(), ports);
    }
    let now = unix_ms(SystemTime::now());
    Ok(Status::gather(state, &said, running, now, interface_name))
}

/// The tables of who serves an overlay network's namespace.
pub struct InSandbox {
    directory: String,
    tables: Tables,
    flows: FlowTables,
}

/// Opens those that are pinned below this pin directory.
pub fn sandboxes(pin_dir: &Path) -> Vec<InSandbox> {
    let directories = directories(pin_dir).into_iter();
    // One that comes or goes has not all of them.
    let opened = directories.filter_map(|(directory, pins)| {
        Some(InSandbox {
            directory,
            tables: Tables::open(&pins).ok()?,
            flows: FlowTables::open(&pins).ok()?,
        })
    });
    opened.collect()
}

impl InSandbox {
    fn read(&self) -> Result<(status::Ports, Vec<Count>, u64), SnapshotError> {
        let flows = count(&self.flows).map_err(SnapshotError::Flows)?;
        Ok((ports(&self.tables)?, self.tables.reasons()?, flows))
    }
}

fn ports(tables: &Tables) -> Result<status::Ports, ReadError> {
    let devices = tables.devices()?;
    let traffic = devices
        .values()
        .map(|device| Ok((device.slot, tables.traffic(device.slot)?.into())));
    Ok(status::Ports {
        traffic: traffic.collect::<Result<_, ReadError>>()?,
        devices,
    })
}

fn count(flows: &FlowTables) -> io::Result<u64> {
    let mut sum = 0;
    flows.for_each(|_, _, _| sum += 1)?;
    Ok(sum)
}

/// What the kernel counts in the containers; nothing where it does not tell, which is no reason to tell nothing else.
fn interfaces(state: Option<&State>) -> BTreeMap<u32, status::Interface> {
    let networks = state.map(|state| state.networks.as_slice()).unwrap_or_default();
    let endpoints = networks.iter().flat_map(|network| &network.endpoints);
    let found = counters::of_other_ends(endpoints.filter_map(|endpoint| endpoint.ifindex)).unwrap_or_default();
    let report = |of: counters::Counters| status::Interface {
        sent_packets: of.sent_packets,
        sent_bytes: of.sent_bytes,
        received_packets: of.received_packets,
        received_bytes: of.received_bytes,
    };
    found.into_iter().map(|(ifindex, of)| (ifindex, report(of))).collect()
}

/// Puts the report of `netfast aliases` together, at this moment; it walks the flow table, too.
pub fn aliases(state: Option<&State>, tables: &Tables, flows: &FlowTables) -> Result<Aliases, SnapshotError> {
    let mut counted = Counted {
        answers: tables.answers()?,
        shared: tables.shared()?,
        ..Counted::default()
    };
    flows
        .for_each(|key, flow, _| counted.add_flow(key, flow))
        .map_err(SnapshotError::Flows)?;
    let reports = state.map(|state| state.aliases.as_slice());
    Ok(Aliases::gather(reports.unwrap_or_default(), &counted))
}

/// The name of an interface of this network namespace.
pub fn interface_name(ifindex: u32) -> Option<String> {
    nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A table cannot be read.
    #[error("cannot read the counters")]
    Tables(#[from] ReadError),
    /// The flow table cannot be walked.
    #[error("cannot read the flow table")]
    Flows(#[source] io::Error),
}
