//! What is there before a packet comes, and what the packet changes in the maps.

use netfast_common::{
    control::Control,
    device::{Device, DeviceKey},
    direct::{self, Pace, Port, PortKey},
    flow::{Exit, Flow},
    net::Ip4,
    vet::Answer,
};

use super::{
    harness::{Lab, now_ns},
    state::{self, NOW, State},
    way::InLab as _,
};
use netfast_ebpf::state::candidate::Candidates;
use netfast_tests::scene::{Dev, Way};

/// Which flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// Flows in use.
    Flows,
    /// Flows that wait for their reverse.
    Unreplied,
}

type Edit<T> = Box<dyn Fn(&mut T) + Send + Sync>;
type EditPace = Box<dyn Fn(&mut Pace, u64) + Send + Sync>;

/// What is there before a packet comes.
pub enum Given {
    /// The daemon's switches are changed.
    Control(Edit<Control>),
    /// A device is changed.
    Device(Dev, Edit<Device>),
    /// A device is not in the map.
    NoDevice(Dev),
    /// The generation of a device's slot.
    Generation(Dev, u32),
    /// A flow is in a table: learned 60 ms ago, used 1 ms ago, for packets up to 1500 bytes, then changed.
    Flow(In, Way, Edit<Flow<Ip4>>),
    /// Packets are forwarded directly from and to a port of this bridge, as changed.
    Port(Dev, Dev, Edit<Port>),
    /// When packets went from one port to another, changed at this time in nanoseconds.
    Pace(Dev, Dev, EditPace),
    /// The daemon has answered a question about a flow that was asked at this time.
    Answered(Way, u64, u32),
    /// The candidate was left this many nanoseconds earlier.
    CandidateAged(u64),
    /// The candidate was left on another stack.
    OtherStack,
}

/// A change of the maps that a packet makes.
pub enum Change {
    /// One packet more of a reason, with these network-layer bytes.
    Count(u32, usize),
    /// One packet more in from a device on the fast path.
    InFast(Dev, usize),
    /// One packet more in from a device on the slow path.
    InSlow(Dev, usize),
    /// One frame more from an endpoint that was sent from an address not its own.
    Spoofed(Dev),
    /// One packet more from an endpoint with broken headers.
    Malformed(Dev),
    /// One packet more out to a device on the fast path.
    OutFast(Dev, usize),
    /// A new flow, learned now from a packet of this network-layer length, then changed.
    Stored(In, Way, usize, Edit<Flow<Ip4>>),
    /// A flow moved from those that wait to those in use.
    Moved(Way),
    /// A flow changed.
    Changed(In, Way, Edit<Flow<Ip4>>),
    /// A flow is gone.
    Gone(In, Way),
}

/// A flow in use.
pub fn in_use(way: &Way) -> Given {
    Given::Flow(In::Flows, *way, Box::new(|_| ()))
}

/// A flow in use, changed.
pub fn in_use_but(way: &Way, edit: impl Fn(&mut Flow<Ip4>) + Send + Sync + 'static) -> Given {
    Given::Flow(In::Flows, *way, Box::new(edit))
}

/// A flow that waits for its reverse.
pub fn waiting(way: &Way) -> Given {
    Given::Flow(In::Unreplied, *way, Box::new(|_| ()))
}

/// The switches, changed.
pub fn control(edit: impl Fn(&mut Control) + Send + Sync + 'static) -> Given {
    Given::Control(Box::new(edit))
}

/// A device, changed.
pub fn device(dev: Dev, edit: impl Fn(&mut Device) + Send + Sync + 'static) -> Given {
    Given::Device(dev, Box::new(edit))
}

/// Packets are forwarded directly from and to a port, as changed.
pub fn port(dev: Dev, edit: impl Fn(&mut Port) + Send + Sync + 'static) -> Given {
    Given::Port(dev, Dev::Bridge, Box::new(edit))
}

/// The same of another bridge.
pub fn port_of(dev: Dev, bridge: Dev) -> Given {
    Given::Port(dev, bridge, Box::new(|_| ()))
}

/// When packets went from one port to another, changed at this time in nanoseconds.
pub fn pace(from: Dev, to: Dev, edit: impl Fn(&mut Pace, u64) + Send + Sync + 'static) -> Given {
    Given::Pace(from, to, Box::new(edit))
}

/// A flow in a table changes.
pub fn changed(table: In, way: &Way, edit: impl Fn(&mut Flow<Ip4>) + Send + Sync + 'static) -> Change {
    Change::Changed(table, *way, Box::new(edit))
}

/// A flow is stored in a table.
pub fn stored(table: In, way: &Way, length: usize, edit: impl Fn(&mut Flow<Ip4>) + Send + Sync + 'static) -> Change {
    Change::Stored(table, *way, length, Box::new(edit))
}

impl Given {
    /// Brings it about.
    pub fn make(&self, lab: &mut Lab) {
        match self {
            Self::Control(edit) => {
                let mut control = lab.control.get(&0, 0).expect("control");
                edit(&mut control);
                lab.set_control(control);
            }
            Self::Device(dev, edit) => {
                let index = lab.ifindex(*dev);
                let mut device = lab.devices.get(&DeviceKey::new(lab.netns, index), 0).expect("a device");
                edit(&mut device);
                lab.devices
                    .insert(DeviceKey::new(lab.netns, index), device, 0)
                    .expect("a device");
            }
            Self::NoDevice(dev) => {
                let index = lab.ifindex(*dev);
                lab.devices.remove(&DeviceKey::new(lab.netns, index)).expect("a device");
            }
            Self::Generation(dev, generation) => lab
                .generations
                .set(dev.slot().into(), generation, 0)
                .expect("a generation"),
            Self::Flow(table, way, edit) => {
                let now = now_ns();
                let mut flow = way.flow(lab, 1500);
                flow.created_ns = now - 5_000_000_000;
                flow.learned_ns = now - 60_000_000;
                flow.used_ns = now - 1_000_000;
                edit(&mut flow);
                let key = way.key(lab);
                lab.put_flow(*table == In::Flows, key, flow);
            }
            Self::Port(dev, bridge, edit) => {
                let (ifindex, bridge) = (lab.ifindex(*dev), lab.ifindex(*bridge));
                for at in [ifindex, bridge] {
                    let key = PortKey::new(lab.netns, at, dev.mac());
                    let mut port = Port {
                        tag: key.tag(),
                        bridge,
                        ifindex,
                        generation: dev.generation(),
                        max_length: 1500,
                        slot: dev.slot(),
                        exit: Exit::Peer as u8,
                        reserved: 0,
                        tag_end: key.tag(),
                    };
                    edit(&mut port);
                    lab.set_port(key, port);
                }
            }
            Self::Pace(from, to, edit) => {
                let at = direct::pair(from.slot(), to.slot());
                let mut pace = lab.paces.get(&at, 0).expect("a pace");
                edit(&mut pace, now_ns());
                lab.paces.set(at, pace, 0).expect("a pace");
            }
            Self::Answered(way, asked_ns, verdict) => {
                let answer = Answer {
                    asked_ns: *asked_ns,
                    verdict: *verdict,
                    ..Answer::default()
                };
                lab.answer(way.key(lab), answer);
            }
            Self::CandidateAged(by) => lab.edit_candidates(|all| all.grow_older(*by)),
            Self::OtherStack => lab.edit_candidates(Candidates::change_stack),
        }
    }
}

impl Change {
    /// Makes it in what is wanted.
    pub fn make(&self, lab: &Lab, state: &mut State) -> Result<(), String> {
        fn in_table(state: &mut State, table: In) -> &mut state::Flows {
            match table {
                In::Flows => &mut state.flows,
                In::Unreplied => &mut state.unreplied,
            }
        }
        let none = |what: &str, way: &Way| format!("  the row {what} a flow that is not there: {way:?}");
        match self {
            Self::Count(number, bytes) => {
                let count = &mut state.counts[*number as usize];
                count.packets += 1;
                count.bytes += *bytes as u64;
            }
            Self::InFast(dev, bytes) => {
                let traffic = &mut state.traffic[usize::from(dev.slot())];
                traffic.in_fast_packets += 1;
                traffic.in_fast_bytes += *bytes as u64;
            }
            Self::InSlow(dev, bytes) => {
                let traffic = &mut state.traffic[usize::from(dev.slot())];
                traffic.in_slow_packets += 1;
                traffic.in_slow_bytes += *bytes as u64;
            }
            Self::Spoofed(dev) => state.traffic[usize::from(dev.slot())].in_spoofed_packets += 1,
            Self::Malformed(dev) => state.traffic[usize::from(dev.slot())].in_malformed_packets += 1,
            Self::OutFast(dev, bytes) => {
                let traffic = &mut state.traffic[usize::from(dev.slot())];
                traffic.out_fast_packets += 1;
                traffic.out_fast_bytes += *bytes as u64;
            }
            Self::Stored(table, way, length, edit) => {
                // RFC 791: what every link carries.
                let length = (*length).max(576).try_into().expect("a packet is short");
                let mut flow = way.flow(lab, length);
                flow.created_ns = NOW;
                flow.learned_ns = NOW;
                flow.used_ns = NOW;
                edit(&mut flow);
                in_table(state, *table).insert(state::name(&way.key(lab)), flow);
            }
            Self::Moved(way) => {
                let key = state::name(&way.key(lab));
                let mut flow = state.unreplied.remove(&key).ok_or_else(|| none("moves", way))?;
                // It was judged before there was an answer, and asks with its next packet.
                flow.learned_ns = 0;
                flow.flags &= !Flow::<Ip4>::ONE_WAY;
                state.flows.insert(key, flow);
            }
            Self::Changed(table, way, edit) => {
                let key = state::name(&way.key(lab));
                let flow = in_table(state, *table).get_mut(&key);
                edit(flow.ok_or_else(|| none("changes", way))?);
            }
            Self::Gone(table, way) => {
                let key = state::name(&way.key(lab));
                in_table(state, *table)
                    .remove(&key)
                    .ok_or_else(|| none("removes", way))?;
            }
        }
        Ok(())
    }
}
