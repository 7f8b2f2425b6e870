//! The pinned flow tables, walked whole.

use std::{io, net::IpAddr, path::Path};

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use netfast_common::{
    abi::map,
    flow::{Flow, FlowKey},
    net::{Address, Ip4, Ip6},
};

use crate::{
    apply::{
        pinned::{self, ReadError},
        pins::Pins,
    },
    bpf,
};

/// A table of one family.
type Table<A> = HashMap<MapData, FlowKey<A>, Flow<A>>;

/// The tables, opened for reading.
pub struct FlowTables {
    in_use: Table<Ip4>,
    unreplied: Table<Ip4>,
    in_use6: Table<Ip6>,
    unreplied6: Table<Ip6>,
}

impl FlowTables {
    /// Opens the tables that are pinned under this pin directory.
    pub fn open(pin_dir: &Path) -> Result<Self, ReadError> {
        Self::of(&Pins::new(pin_dir))
    }

    /// The same of these pins.
    pub fn of(pins: &Pins) -> Result<Self, ReadError> {
        Ok(Self {
            in_use: pinned::open(pins, map::FLOWS4)?,
            unreplied: pinned::open(pins, map::UNREPLIED4)?,
            in_use6: pinned::open(pins, map::FLOWS6)?,
            unreplied6: pinned::open(pins, map::UNREPLIED6)?,
        })
    }

    /// Shows every flow of both families, with whether it may be used (or waits for its reverse, if it is none that goes one way, or
    /// to be vetted). Flows that come or go meanwhile may be missed; elements that were given to another flow while they were read
    /// are left out.
    pub fn for_each(&self, mut each: impl FnMut(&FlowKey<IpAddr>, &Flow<IpAddr>, bool)) -> io::Result<()> {
        let v4 = |ip: Ip4| IpAddr::from(ip.bytes());
        walk(&self.in_use, true, v4, &mut each)?;
        walk(&self.unreplied, false, v4, &mut each)?;
        let v6 = |ip: Ip6| IpAddr::from(ip.bytes());
        walk(&self.in_use6, true, v6, &mut each)?;
        walk(&self.unreplied6, false, v6, &mut each)
    }
}

fn walk<A: Address>(
    table: &Table<A>,
    is_replied: bool,
    ip: fn(A) -> IpAddr,
    mut each: impl FnMut(&FlowKey<IpAddr>, &Flow<IpAddr>, bool),
) -> io::Result<()>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    bpf::for_each(table, |key, flow| {
        if flow.tag == key.tag() && flow.tag_end == flow.tag {
            let usable = (is_replied || flow.flags & Flow::<A>::ONE_WAY != 0) && flow.learned_ns != 0;
            each(&key.with_addresses(ip), &flow.with_addresses(ip), usable);
        }
    })
}
