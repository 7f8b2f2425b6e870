//! Plays a script on a machine that runs the programs: the faked kernel, or the real one.

use netfast_common::{
    control::Control,
    device::{Device, Kind, Traffic},
    flow::Flow,
    net::Ip4,
    reason::Count,
    trace::Filter,
};
use netfast_tests::{
    packet::Packet,
    scene::{Dev, Way},
};

use crate::{
    scene::passes_bridge,
    script::{Edit, Event, Hook, Mangle, Odds, Script, Step, TraceFilter, Which, edited},
};

/// The epoch in the beginning.
const EPOCH: u32 = 7;
/// Time that a flow may be used in a script.
const REVALIDATE_NS: u64 = 1_000_000_000;

/// A frame at a hook.
#[derive(Clone, Debug)]
pub struct Run {
    /// The program.
    pub hook: Hook,
    /// The interface whose hook it is.
    pub dev: Dev,
    /// The interface that it was received by last.
    pub from: Option<Dev>,
    /// The bytes.
    pub frame: Vec<u8>,
    /// The rest.
    pub odds: Odds,
    /// It comes out on another stack than it went in.
    pub other_stack: bool,
}

impl Run {
    /// Whether the kernel takes it for somebody else's (`eth_type_trans`): the veths of endpoints have addresses of their own,
    /// which nobody sends to.
    pub fn is_for_another_mac(&self) -> bool {
        let is_known = matches!(self.dev, Dev::Uplink | Dev::Uplink2 | Dev::Stranger);
        let is_own = is_known && self.frame.starts_with(&self.dev.mac());
        !is_own && self.frame.first().is_some_and(|byte| byte & 1 == 0)
    }
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned.
    pub verdict: i32,
    /// The packet afterwards.
    pub frame: Vec<u8>,
    /// `skb->mark` afterwards.
    pub mark: u32,
    /// `skb->priority` afterwards.
    pub priority: u32,
}

/// Something that runs the programs on the scene's host.
pub trait Machine {
    /// Runs a program.
    fn run(&mut self, run: &Run) -> Outcome;
    /// Sets the switches; the lease of a tracer is the machine's own matter: `is_traced`.
    fn set_control(&mut self, control: Control, is_traced: bool);
    /// Sets what a tracer wants; interfaces in it are their numbers in the scene, from 1 on.
    fn set_filter(&mut self, filter: Filter);
    /// Sets what the programs know of an interface.
    fn set_device(&mut self, dev: Dev, device: Option<Device>);
    /// Sets a device's generation.
    fn set_generation(&mut self, slot: u16, generation: u32);
    /// Time passes: all that is stored gets older.
    fn pass(&mut self, ns: u64);
    /// Changes the flow in use that packets of this way have, if there is one.
    fn edit_flow(&mut self, way: &Way, edit: fn(&mut Flow<Ip4>));
    /// The kernel hands a packet to user space.
    fn queued(&mut self);
    /// Counts by reason.
    fn counts(&mut self) -> Vec<Count>;
    /// Traffic by slot.
    fn traffic(&mut self) -> Vec<Traffic>;
}

/// Watches what becomes of frames.
pub trait Watch<M> {
    /// After each run; `of` is the way and the packet, as it entered, if it is one of a conversation.
    fn ran(&mut self, machine: &mut M, run: &Run, outcome: &Outcome, of: Option<(&Way, &Packet)>);
}

/// `TCX_NEXT`.
pub const NEXT: i32 = -1;

/// A script that is being played.
pub struct Player<'a, M, W> {
    machine: &'a mut M,
    watch: &'a mut W,
    control: Control,
    is_traced: bool,
    generations: [u32; Dev::ALL.len()],
}

impl<'a, M: Machine, W: Watch<M>> Player<'a, M, W> {
    /// A host whose devices are all known, and nothing is learned. The machine's tables must be empty.
    pub fn new(machine: &'a mut M, watch: &'a mut W) -> Self {
        let control = Control {
            epoch: EPOCH,
            switches: Control::USE | Control::LEARN,
            revalidate_ns: REVALIDATE_NS,
            ..Control::default()
        };
        machine.set_control(control, false);
        for dev in Dev::ALL {
            machine.set_device(dev, dev.device());
            machine.set_generation(dev.slot(), dev.generation());
        }
        Self {
            machine,
            watch,
            control,
            is_traced: false,
            generations: Dev::ALL.map(Dev::generation),
        }
    }

    /// Plays it.
    pub fn play(&mut self, script: &Script) {
        for step in &script.steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Talk(which, times) => {
                for _ in 0..=times % 4 {
                    self.pass(*which, &[], Odds::default(), None);
                    self.pass(which.turned(), &[], Odds::default(), None);
                }
            }
            Step::Pass(which, edits, odds) => self.pass(*which, edits, *odds, None),
            Step::Mangled(which, edits, odds, mangle) => self.pass(*which, edits, *odds, Some(*mangle)),
            Step::Dropped(which, edits, odds) => {
                self.enter(*which, &edited(which.packet(), edits), *odds);
            }
            Step::Frame(hook, dev, from, frame, odds) => {
                let run = Run {
                    hook: *hook,
                    dev: at(*hook, dev.dev()),
                    from: Some(from.dev()),
                    frame: frame.clone(),
                    odds: *odds,
                    other_stack: false,
                };
                self.run(&run, None);
            }
            Step::Event(event) => self.event(*event),
        }
    }

    fn run(&mut self, run: &Run, of: Option<(&Way, &Packet)>) -> Outcome {
        let outcome = self.machine.run(run);
        self.watch.ran(self.machine, run, &outcome, of);
        outcome
    }

    /// A packet where it enters; false if it is on the fast path.
    fn enter(&mut self, which: Which, packet: &Packet, odds: Odds) -> bool {
        let way = which.way();
        let run = Run {
            hook: entry(&way),
            dev: way.enters,
            from: (!way.is_hosts()).then_some(way.enters),
            frame: packet.bytes(),
            odds,
            other_stack: false,
        };
        self.run(&run, Some((&way, packet))).verdict == NEXT
    }

    /// The kernel's way of a packet.
    fn pass(&mut self, which: Which, edits: &[Edit], odds: Odds, mangle: Option<Mangle>) {
        let way = which.way();
        let packet = edited(which.packet(), edits);
        if !self.enter(which, &packet, odds) {
            return;
        }
        let mut from = (!way.is_hosts()).then_some(way.enters);
        if passes_bridge(&way) {
            let run = Run {
                hook: Hook::BridgeIn,
                dev: Dev::Bridge,
                from: Some(Dev::Bridge),
                frame: packet.bytes(),
                odds,
                other_stack: false,
            };
            self.run(&run, Some((&way, &packet)));
            from = Some(Dev::Bridge);
        }
        if way.routed && way.leaves.kind() == Some(Kind::Endpoint) {
            let run = Run {
                hook: Hook::BridgeOut,
                dev: Dev::Bridge,
                from,
                frame: way.leaving(&packet).bytes(),
                odds,
                other_stack: false,
            };
            self.run(&run, None);
        }
        let mut leaving = way.leaving(&packet);
        let mut run = Run {
            hook: exit(way.leaves),
            dev: way.leaves,
            from: if way.leaves == Dev::Bridge {
                Some(Dev::Bridge)
            } else {
                from
            },
            frame: Vec::new(),
            odds,
            other_stack: false,
        };
        match mangle {
            Some(Mangle::Ttl(ttl)) => leaving.ttl = ttl,
            Some(Mangle::Tos(tos)) => leaving.tos = tos,
            Some(Mangle::ToMac(place)) => leaving.to_mac = place.dev().mac(),
            Some(Mangle::Leaves(place)) => {
                run.dev = place.dev();
                run.hook = exit(run.dev);
            }
            Some(Mangle::Waits(ms)) => self.machine.pass(u64::from(ms) * 1_000_000),
            Some(Mangle::OtherStack) => run.other_stack = true,
            Some(Mangle::SentByProgram) => run.from = None,
            Some(Mangle::Queued) => self.machine.queued(),
            Some(Mangle::Byte(..)) | None => {}
        }
        run.frame = leaving.bytes();
        if let Some(Mangle::Byte(place, value)) = mangle {
            let place = usize::from(place) % run.frame.len();
            run.frame[place] = value;
        }
        self.run(&run, Some((&way, &packet)));
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Epoch => self.control.epoch += 1,
            Event::Generation(place) => self.outdate(place.dev()),
            Event::Flags(place, flags) => {
                let device = place.dev().device().map(|mut device| {
                    // Ordinary flags changed in one or two bits, more often than any.
                    device.flags ^= flags & (0xf | Device::ECHO);
                    device
                });
                self.machine.set_device(place.dev(), device);
                self.outdate(place.dev());
            }
            Event::Gone(place) => {
                self.machine.set_device(place.dev(), None);
                self.outdate(place.dev());
            }
            Event::Back(place) => {
                self.machine.set_device(place.dev(), place.dev().device());
                self.outdate(place.dev());
            }
            Event::Switches(switches) => {
                self.control.switches = if switches & 1 == 1 {
                    3
                } else {
                    u32::from(switches >> 1) & 3
                };
            }
            Event::LearnAfter(count) => self.control.learn_after = u32::from(count) & 3,
            Event::Pause(ms) => self.machine.pass(u64::from(ms) * 1_000_000),
            Event::Torn(which) => {
                self.machine.edit_flow(&which.way(), |flow| flow.tag_end ^= 2);
            }
            Event::Trace(filter) => {
                self.is_traced = filter.is_some();
                self.machine.set_filter(filter.map(filter_of).unwrap_or_default());
            }
        }
        self.machine.set_control(self.control, self.is_traced);
    }

    /// As the daemon does when something about a device changes.
    fn outdate(&mut self, dev: Dev) {
        let generation = &mut self.generations[dev as usize];
        *generation += 1000;
        self.machine.set_generation(dev.slot(), *generation);
    }
}

fn filter_of(filter: TraceFilter) -> Filter {
    let mut devices = [0; netfast_common::trace::DEVICES];
    devices[0] = filter.device.map_or(0, |place| place.dev().slot().into());
    Filter {
        devices,
        protocol: filter.protocol,
        paths: filter.paths & 3,
        reason: filter.reason.into(),
        sample: filter.sample.into(),
        limit: 1000,
        ..Filter::default()
    }
}

/// The hook where packets of a way enter.
fn entry(way: &Way) -> Hook {
    match way.enters.kind() {
        Some(Kind::Endpoint) => Hook::EndpointIn,
        Some(Kind::Bridge) => Hook::BridgeOut,
        Some(Kind::Uplink) | None => Hook::UplinkIn,
    }
}

/// A device that has such a hook.
fn at(hook: Hook, dev: Dev) -> Dev {
    let kind = match hook {
        Hook::EndpointIn | Hook::EndpointOut => Kind::Endpoint,
        Hook::BridgeIn | Hook::BridgeOut => Kind::Bridge,
        Hook::UplinkIn | Hook::UplinkOut => Kind::Uplink,
    };
    let fitting = Dev::ALL.into_iter().filter(|dev| dev.kind() == Some(kind));
    let fitting: Vec<Dev> = fitting.collect();
    fitting[dev as usize % fitting.len()]
}

/// The hook where packets leave by a device.
fn exit(dev: Dev) -> Hook {
    match dev.kind() {
        Some(Kind::Endpoint) => Hook::EndpointOut,
        Some(Kind::Bridge) => Hook::BridgeIn,
        Some(Kind::Uplink) | None => Hook::UplinkOut,
    }
}
