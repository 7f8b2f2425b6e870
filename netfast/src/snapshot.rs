//! One look at an instance: what its daemon left in the state file, and what the pinned tables say.

use std::{collections::BTreeMap, io, time::SystemTime};

use crate::{
    apply::{flows::FlowTables, pinned::ReadError, read::Tables},
    observe::netlink::counters,
    report::{
        aliases::{Aliases, Counted},
        status::{self, Status},
    },
    state::{State, unix_ms},
};

/// Puts the report of `netfast status` together, at this moment. `running`: the daemon that wrote the state lives.
///
/// The flow table is walked whole: a few milliseconds of processor time for a hundred thousand flows.
pub fn status(
    state: Option<&State>,
    running: bool,
    tables: &Tables,
    flows: &FlowTables,
) -> Result<Status, SnapshotError> {
    let devices = tables.devices()?;
    let traffic = devices
        .values()
        .map(|device| Ok((device.slot, tables.traffic(device.slot)?.into())));
    let mut said = status::Tables {
        control: tables.control()?,
        counts: tables.reasons()?,
        traffic: traffic.collect::<Result<_, ReadError>>()?,
        devices,
        interfaces: interfaces(state),
        flows: 0,
        tunnels: tables.tunnels()?,
    };
    flows
        .for_each(|_, _, _| said.flows += 1)
        .map_err(SnapshotError::Flows)?;
    let now = unix_ms(SystemTime::now());
    Ok(Status::gather(state, &said, running, now, interface_name))
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
