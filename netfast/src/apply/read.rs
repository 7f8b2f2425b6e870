//! The pinned maps, read: for reports, with and without a daemon. Flow tables are in [`super::flows`].

use std::{collections::BTreeMap, path::Path};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use netfast_common::{
    abi::{MAX_DEVICES, map},
    control::Control,
    device::{Device, DeviceKey, NetnsNumber, Traffic},
    flow::FlowKey,
    localhost::Outcome,
    net::Ip4,
    reason::{Count, SLOTS},
    tunnel::{Decap, Encap, OUTER, Tunnel},
};

use crate::{
    apply::{
        aliases::{AnswerMaps, Answers},
        pinned::{ReadError, open, read_error},
        pins::Pins,
        vips::{Shared, SharedMaps},
    },
    bpf,
};

/// The maps of an instance, opened for reading.
pub struct Tables {
    control: Array<MapData, Control>,
    devices: HashMap<MapData, DeviceKey, Device>,
    generations: Array<MapData, u32>,
    traffic: PerCpuArray<MapData, Traffic>,
    reasons: PerCpuArray<MapData, Count>,
    answers: AnswerMaps,
    shared: SharedMaps,
    tunnels: HashMap<MapData, DeviceKey, Tunnel>,
    encapsulations: HashMap<MapData, FlowKey<Ip4>, Encap>,
    outcomes: PerCpuArray<MapData, u64>,
    decapsulations: HashMap<MapData, FlowKey<Ip4>, Decap>,
    xdp: PerCpuArray<MapData, Count>,
}

/// A conversation inside a tunnel, and the outer header of what comes in of it.
pub type HeaderIn = (FlowKey<Ip4>, [u8; OUTER as usize]);

/// Outer headers of one tunnel that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterHeaders {
    /// How many, one for each direction of a conversation that leaves.
    pub known: u64,
    /// Packets that got one of them.
    pub packets: u64,
    /// Bytes of them as they left, network layer and up.
    pub bytes: u64,
    /// How many of packets that come in.
    pub known_in: u64,
    /// Packets that one of these was taken off from.
    pub packets_in: u64,
}

impl Tables {
    /// Opens the maps that are pinned under this pin directory.
    pub fn open(pin_dir: &Path) -> Result<Self, ReadError> {
        let pins = Pins::new(pin_dir);
        if !pins.exist() {
            return Err(ReadError::NothingPinned(pins.root().display().to_string()));
        }
        Ok(Self {
            control: open(&pins, map::CONTROL)?,
            devices: open(&pins, map::DEVICES)?,
            generations: open(&pins, map::GENERATIONS)?,
            traffic: open(&pins, map::TRAFFIC)?,
            reasons: open(&pins, map::REASONS)?,
            answers: AnswerMaps::open(&pins)?,
            shared: SharedMaps::open(&pins)?,
            tunnels: open(&pins, map::TUNNELS)?,
            encapsulations: open(&pins, map::ENCAP4)?,
            outcomes: open(&pins, map::OUTCOMES)?,
            decapsulations: open(&pins, map::DECAP4)?,
            xdp: open(&pins, map::XDP_DONE)?,
        })
    }

    /// The switches.
    pub fn control(&self) -> Result<Control, ReadError> {
        self.control
            .get(&0, 0)
            .map_err(|source| read_error(map::CONTROL, source))
    }

    /// The devices.
    pub fn devices(&self) -> Result<BTreeMap<DeviceKey, Device>, ReadError> {
        self.devices
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|source| read_error(map::DEVICES, source))
    }

    /// The generation of a slot.
    pub fn generation(&self, slot: u16) -> Result<u32, ReadError> {
        self.generations
            .get(&slot.into(), 0)
            .map_err(|source| read_error(map::GENERATIONS, source))
    }

    /// The traffic of a slot.
    pub fn traffic(&self, slot: u16) -> Result<Traffic, ReadError> {
        debug_assert!(u32::from(slot) < MAX_DEVICES, "slots are given out by diff");
        let values = self
            .traffic
            .get(&slot.into(), 0)
            .map_err(|source| read_error(map::TRAFFIC, source))?;
        Ok(values.iter().fold(Traffic::default(), |sum, part| Traffic {
            in_fast_packets: sum.in_fast_packets.wrapping_add(part.in_fast_packets),
            in_fast_bytes: sum.in_fast_bytes.wrapping_add(part.in_fast_bytes),
            in_slow_packets: sum.in_slow_packets.wrapping_add(part.in_slow_packets),
            in_slow_bytes: sum.in_slow_bytes.wrapping_add(part.in_slow_bytes),
            out_fast_packets: sum.out_fast_packets.wrapping_add(part.out_fast_packets),
            out_fast_bytes: sum.out_fast_bytes.wrapping_add(part.out_fast_bytes),
            in_spoofed_packets: sum.in_spoofed_packets.wrapping_add(part.in_spoofed_packets),
            in_malformed_packets: sum.in_malformed_packets.wrapping_add(part.in_malformed_packets),
        }))
    }

    /// What became of resolvers' answers.
    pub fn answers(&self) -> Result<Answers, ReadError> {
        self.answers.read()
    }

    /// What members of aliases were given for virtual addresses, on the slow path.
    pub fn shared(&self) -> Result<Shared, ReadError> {
        self.shared.read()
    }

    /// The tunnels whose outer headers are repeated, with those that are known and not outdated.
    pub fn tunnels(&self) -> Result<BTreeMap<DeviceKey, OuterHeaders>, ReadError> {
        let mut tunnels = BTreeMap::new();
        for key in self.tunnels.keys() {
            let key = key.map_err(|source| read_error(map::TUNNELS, source))?;
            tunnels.insert(key, OuterHeaders::default());
        }
        if tunnels.is_empty() {
            return Ok(tunnels);
        }
        let epoch = self.control()?.epoch;
        bpf::for_each(&self.encapsulations, |key, known| {
            let is_whole = known.tag == key.tag() && known.tag_end == known.tag;
            let tunnel = tunnels.get_mut(&DeviceKey::new(NetnsNumber(key.netns), key.ifindex));
            if let Some(tunnel) = tunnel.filter(|_| is_whole && known.epoch == epoch) {
                tunnel.known += 1;
                tunnel.packets += known.packets;
                tunnel.bytes += known.bytes;
            }
        })
        .map_err(|error| read_error(map::ENCAP4, error.into()))?;
        bpf::for_each(&self.decapsulations, |key, known| {
            let is_whole = known.tag == key.tag() && known.tag_end == known.tag;
            let tunnel = tunnels.get_mut(&DeviceKey::new(NetnsNumber(key.netns), key.ifindex));
            if let Some(tunnel) = tunnel.filter(|_| is_whole && known.epoch == epoch) {
                tunnel.known_in += 1;
                tunnel.packets_in += known.packets;
            }
        })
        .map_err(|error| read_error(map::DECAP4, error.into()))?;
        Ok(tunnels)
    }

    /// What became of programs that asked for published ports at loopback addresses, by name.
    pub fn outcomes(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        let count = |outcome: Outcome| {
            let values = self.outcomes.get(&(outcome as u32), 0)?;
            Ok((outcome.name().to_owned(), values.iter().sum()))
        };
        let counts: Result<_, MapError> = Outcome::ALL.into_iter().map(count).collect();
        counts.map_err(|source| read_error(map::OUTCOMES, source))
    }

    /// The outer headers that may be taken off, by the conversation inside: all bytes before the network header inside, zero where
    /// packets differ.
    pub fn headers_in(&self) -> Result<Vec<HeaderIn>, ReadError> {
        let mut headers = Vec::new();
        bpf::for_each(&self.decapsulations, |key, known| {
            let halves = known.header.iter().flat_map(|half| half.to_ne_bytes());
            let mut header = [0; OUTER as usize];
            header.iter_mut().zip(halves).for_each(|(to, byte)| *to = byte);
            headers.push((*key, header));
        })
        .map_err(|error| read_error(map::DECAP4, error.into()))?;
        Ok(headers)
    }

    /// The counts by reason number; entry 0 is the fast path.
    pub fn reasons(&self) -> Result<Vec<Count>, ReadError> {
        (0..SLOTS)
            .map(|number| self.reasons.get(&number, 0).map(|values| sum(&values)))
            .collect::<Result<_, _>>()
            .map_err(|source| read_error(map::REASONS, source))
    }

    /// What the fast path has sent by XDP; it is in its count, too.
    pub fn xdp(&self) -> Result<Count, ReadError> {
        let count = self.xdp.get(&0, 0).map(|values| sum(&values));
        count.map_err(|source| read_error(map::XDP_DONE, source))
    }
}

/// The counts of all CPUs together.
fn sum(values: &PerCpuValues<Count>) -> Count {
    values.iter().fold(Count::default(), |sum, part| Count {
        packets: sum.packets.wrapping_add(part.packets),
        bytes: sum.bytes.wrapping_add(part.bytes),
    })
}
