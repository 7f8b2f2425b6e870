//! What happens to netfast itself while packets pass, by way of its pinned maps: moments that no script can hit by waiting
//! for them.

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use netfast::apply::pins::Pins;
use netfast_common::{
    abi::map,
    control::Control,
    flow::{Flow, FlowKey},
    net::{Address, Ip4, Ip6},
};
use netfast_tests::seeds::step::Part;

use super::{arena::Arena, play::Play};

impl Play<'_> {
    /// Packets of a conversation with parts of netfast switched off; then it is as it was.
    pub fn switched_off(&mut self, number: usize, part: Part) {
        let mask = match part {
            Part::All => 0,
            // What is learned meanwhile is used afterwards, so it is vetted all the same.
            Part::Use => Control::LEARN | Control::VET,
            Part::Learn => Control::USE | Control::VET,
        };
        let before = mask_switches(self.arena, mask).expect("the switches");
        self.exchange(number, 2);
        if let Some(switches) = before {
            set_switches(self.arena, switches).expect("the switches");
        }
    }

    /// Every flow's element looks as if it was being given to another flow, and packets of a conversation come.
    pub fn torn(&mut self, number: usize) {
        tear(self.arena, true).expect("the flows");
        self.exchange(number, 2);
        // It has been given to nobody.
        tear(self.arena, false).expect("the flows");
    }
}

/// Switches off all that is not in the mask; what was on, with netfast on.
fn mask_switches(arena: &Arena, mask: u32) -> Result<Option<u32>> {
    let Some(maps) = &arena.maps else { return Ok(None) };
    let before = maps.control()?.switches;
    set_switches(arena, before & mask)?;
    Ok(Some(before))
}

fn set_switches(arena: &Arena, switches: u32) -> Result<()> {
    let mut map: Array<MapData, Control> = open(arena, map::CONTROL)?;
    let control = map.get(&0, 0)?;
    map.set(0, Control { switches, ..control }, 0)?;
    Ok(())
}

/// Makes each flow in use look as if it was being given to another, or not.
fn tear(arena: &Arena, is_torn: bool) -> Result<()> {
    if arena.maps.is_none() {
        return Ok(());
    }
    tear_all::<Ip4>(arena, map::FLOWS4, is_torn)?;
    tear_all::<Ip6>(arena, map::FLOWS6, is_torn)
}

/// Sets the last field of each flow of a table.
fn tear_all<A: Address>(arena: &Arena, name: &str, is_torn: bool) -> Result<()>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let mut map: HashMap<MapData, FlowKey<A>, Flow<A>> = open(arena, name)?;
    let flows: Vec<_> = map.iter().collect::<Result<_, _>>()?;
    for (key, flow) in flows {
        let tag_end = if is_torn { flow.tag ^ 2 } else { flow.tag };
        map.insert(key, Flow { tag_end, ..flow }, 0)?;
    }
    Ok(())
}

fn open<M: TryFrom<Map, Error = MapError>>(arena: &Arena, name: &str) -> Result<M> {
    let netfast = arena.netfast.as_ref().context("netfast is on")?;
    let data = MapData::from_pin(Pins::new(netfast.pin_dir()).map(name))?;
    Ok(M::try_from(Map::from_map_data(data)?)?)
}
