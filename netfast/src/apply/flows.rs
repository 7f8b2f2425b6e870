//! The pinned flow tables, walked whole.

use std::{io, path::Path};

use aya::maps::{HashMap, MapData};
use netfast_common::{
    abi::map,
    flow::{Flow, FlowKey},
    net::Ip4,
};

use crate::{
    apply::{
        pinned::{self, ReadError},
        pins::Pins,
    },
    bpf,
};

/// The tables, opened for reading.
pub struct FlowTables {
    in_use: HashMap<MapData, FlowKey<Ip4>, Flow<Ip4>>,
    unreplied: HashMap<MapData, FlowKey<Ip4>, Flow<Ip4>>,
}

impl FlowTables {
    /// Opens the tables that are pinned under this pin directory.
    pub fn open(pin_dir: &Path) -> Result<Self, ReadError> {
        let pins = Pins::new(pin_dir);
        Ok(Self {
            in_use: pinned::open(&pins, map::FLOWS4)?,
            unreplied: pinned::open(&pins, map::UNREPLIED4)?,
        })
    }

    /// Shows every flow, with whether it may be used (or waits for its reverse, or to be vetted). Flows that come or go meanwhile may be
    /// missed; elements that were given to another flow while they were read are left out.
    pub fn for_each(&self, mut each: impl FnMut(&FlowKey<Ip4>, &Flow<Ip4>, bool)) -> io::Result<()> {
        let mut whole = |key: &FlowKey<Ip4>, flow: &Flow<Ip4>, usable| {
            if flow.tag == key.tag() && flow.tag_end == flow.tag {
                each(key, flow, usable);
            }
        };
        bpf::for_each(&self.in_use, |key, flow| whole(key, flow, flow.learned_ns != 0))?;
        bpf::for_each(&self.unreplied, |key, flow| whole(key, flow, false))
    }
}
