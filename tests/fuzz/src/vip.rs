//! The programs of virtual addresses on a faked kernel, and what must hold of whatever they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use netfast_common::{
    alias::{MemberKey, address},
    device::{Device, DeviceKey},
    net::AnyIp,
    vip::{Backend, BackendStats, Member, Service, SlotKey, VERDICTS},
};
use netfast_ebpf::{
    ctx::fake::{self, FakeSkb, Sent, TC_ACT_REDIRECT},
    lb,
    state::maps,
};
use netfast_tests::{packet::Mac, scene::Dev};

use crate::programs::BPF_F_INGRESS;

mod judge;
pub mod script;
mod six;

pub use six::Six;

use judge::{Judge, Passed};
use script::{Event, Hook, MEMBERS, Odds, Script, Step, VIPS, member};

/// Something that runs the programs: the faked kernel, or the real one.
pub trait Machine {
    /// The number of an interface of the scene.
    fn ifindex(&self, dev: Dev) -> u32;
    /// Sets what the programs know of an interface.
    fn set_device(&mut self, dev: Dev, device: Option<Device>);
    /// Writes a service, or removes it.
    fn set_service(&mut self, vip: AnyIp, service: Option<Service>);
    /// Writes a slot, or removes it.
    fn set_slot(&mut self, key: SlotKey, backend: Option<Backend>);
    /// Writes a member, or removes it.
    fn set_member(&mut self, key: MemberKey, member: Option<Member>);
    /// Sets a service's turn, or removes it.
    fn set_turn(&mut self, id: u64, turn: Option<u64>);
    /// Begins to count what a member is given.
    fn count(&mut self, key: MemberKey);
    /// What it was given.
    fn stats(&self, key: MemberKey) -> Option<BackendStats>;
    /// Runs a program; returns its verdict and the frame afterwards.
    fn run(&mut self, hook: Hook, dev: Dev, frame: &[u8], odds: Odds) -> (i32, Vec<u8>);
    /// Packets by verdict.
    fn verdicts(&self) -> Vec<u64>;
    /// Time passes, in nanoseconds.
    fn pass(&mut self, ns: u64);
}

/// A script on the faked kernel.
pub fn fuzz(bytes: &[u8]) {
    let script = Script::of(bytes);
    play(&mut Host::new(), &script);
    play(&mut Six(Host::new()), &script.for_kernel());
}

/// When a script begins, in nanoseconds: no time may be before zero.
const BEGIN: u64 = 1 << 50;

/// The faked kernel of this thread.
#[derive(Debug)]
pub struct Host {
    now: u64,
    /// The interfaces' numbers.
    indexes: [u32; Dev::ALL.len()],
}

impl Host {
    /// With empty maps.
    #[expect(clippy::new_without_default, reason = "it empties the thread's maps")]
    pub fn new() -> Self {
        Self::with(Dev::ALL.map(|dev| u32::from(dev.slot()) + 11))
    }

    /// The same, with interfaces of these numbers.
    pub fn with(indexes: [u32; Dev::ALL.len()]) -> Self {
        fake::reset();
        fake::set_ns(BEGIN);
        Self { now: BEGIN, indexes }
    }

    /// Sets the clock, in nanoseconds.
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
        fake::set_ns(now);
    }

    /// Makes all connections older, where the clock is another's.
    pub fn grow_older(&mut self, ns: u64) {
        for map in [&maps::VIP_CONNECTIONS, &maps::VIP_WAITING] {
            for (key, _) in map.entries() {
                let place = map.get_ptr_mut(key).expect("it is there");
                // SAFETY: an element of this thread's, and no program runs.
                unsafe { (*place).used_ns = (*place).used_ns.wrapping_sub(ns) };
            }
        }
    }
}

/// Writes an element, or removes it: it may be gone already.
macro_rules! set {
    ($map:ident, $key:expr, $value:expr) => {
        match $value {
            Some(value) => maps::$map.insert($key, value, 0).expect("room"),
            None => {
                let _ = maps::$map.remove($key);
            }
        }
    };
}

impl Machine for Host {
    fn ifindex(&self, dev: Dev) -> u32 {
        self.indexes[dev as usize]
    }

    fn set_device(&mut self, dev: Dev, device: Option<Device>) {
        set!(DEVICES, DeviceKey::served(self.indexes[dev as usize]), device);
    }

    fn set_service(&mut self, vip: AnyIp, service: Option<Service>) {
        set!(VIPS, vip, service);
    }

    fn set_slot(&mut self, key: SlotKey, backend: Option<Backend>) {
        set!(VIP_SLOTS, key, backend);
    }

    fn set_member(&mut self, key: MemberKey, member: Option<Member>) {
        set!(VIP_MEMBERS, key, member);
    }

    fn set_turn(&mut self, id: u64, turn: Option<u64>) {
        set!(CURSORS, id, turn);
    }

    fn count(&mut self, key: MemberKey) {
        maps::VIP_STATS.insert(key, BackendStats::default(), 0).expect("room");
    }

    fn stats(&self, key: MemberKey) -> Option<BackendStats> {
        // SAFETY: copied at once, and no program runs.
        unsafe { maps::VIP_STATS.get(key) }.copied()
    }

    fn run(&mut self, hook: Hook, dev: Dev, frame: &[u8], odds: Odds) -> (i32, Vec<u8>) {
        let mut skb = FakeSkb::new(frame);
        if let Some(odds) = odds.host() {
            skb = skb.with_linear(odds.linear.into());
            (skb.no_memory, skb.vlan, skb.partial) = (odds.no_memory, odds.vlan, odds.partial);
        }
        skb.ifindex = self.indexes[dev as usize];
        skb.received_by = self.indexes[dev as usize];
        let verdict = match hook {
            Hook::In => lb::from_client(&skb),
            Hook::Out => lb::to_client(&skb),
        };
        assert_eq!(skb.sent.get().is_some(), verdict == TC_ACT_REDIRECT);
        // In again as the client's own, back to who sent it, or into the container that did.
        let (index, again) = (self.indexes[dev as usize], BPF_F_INGRESS);
        let ways: &[Sent] = match hook {
            Hook::In => &[Sent::To(index, again), Sent::To(index, 0), Sent::ToPeer(index)],
            Hook::Out => &[Sent::To(index, again)],
        };
        assert!(skb.sent.get().is_none_or(|sent| ways.contains(&sent)));
        assert_eq!((skb.mark.get(), skb.priority.get()), (0, 0));
        let tables = [maps::VIP_CONNECTIONS.entries(), maps::VIP_WAITING.entries()];
        for (key, conn) in tables.iter().flatten() {
            assert!(
                conn.tag == key.tag() && conn.tag_end == key.tag(),
                "a connection is where its key is"
            );
        }
        (verdict, skb.bytes())
    }

    fn verdicts(&self) -> Vec<u64> {
        (0..VERDICTS)
            .map(|number| *maps::VIP_VERDICTS.get(number).expect("an element"))
            .collect()
    }

    fn pass(&mut self, ns: u64) {
        self.set_now(self.now + ns);
    }
}

/// Plays a script; returns the verdicts and frames that came out.
pub fn play(machine: &mut impl Machine, script: &Script) -> Vec<(i32, Vec<u8>)> {
    let mut player = Player {
        services: Services::default(),
        judge: Judge::default(),
        now: BEGIN,
        machine,
    };
    player.begin();
    script.steps.iter().filter_map(|step| player.step(step)).collect()
}

/// What the daemon has written.
#[derive(Default)]
pub struct Services {
    service: [Option<Service>; 2],
    /// Slots of the version that is in force.
    slots: [Vec<u8>; 2],
    /// Whether a member may be given.
    members: [BTreeMap<u8, bool>; 2],
    /// Members that there ever were.
    ever: [BTreeSet<u8>; 2],
    version: u32,
}

fn of_address(address: Ipv4Addr) -> Option<u8> {
    (0..MEMBERS).find(|number| member(*number).0 == address)
}

impl Services {
    fn key(service: usize, number: u8) -> MemberKey {
        MemberKey {
            alias: service as u64 + 1,
            address: address(&ip(member(number).0)),
        }
    }

    /// The MAC address of who is or was a member.
    fn mac_of(&self, service: usize, address: Ipv4Addr) -> Option<Mac> {
        let number = of_address(address).filter(|number| self.ever[service].contains(number))?;
        Some(member(number).1)
    }

    /// Whether it has a slot.
    fn is_given(&self, service: usize, address: Ipv4Addr) -> bool {
        of_address(address).is_some_and(|number| self.slots[service].contains(&number))
    }

    /// Whether it may be given; `None`: it is no member.
    fn is_well(&self, service: usize, address: Ipv4Addr) -> Option<bool> {
        self.members[service].get(&of_address(address)?).copied()
    }

    /// What all members were given.
    fn stats(machine: &impl Machine) -> BTreeMap<(usize, u8), BackendStats> {
        let keys = (0..2).flat_map(|service| (0..MEMBERS).map(move |number| (service, number)));
        let found = keys.filter_map(|key| Some((key, machine.stats(Self::key(key.0, key.1))?)));
        found.collect()
    }
}

struct Player<'a, M> {
    machine: &'a mut M,
    services: Services,
    judge: Judge,
    now: u64,
}

fn ip(address: Ipv4Addr) -> AnyIp {
    IpAddr::from(address).into()
}

impl<M: Machine> Player<'_, M> {
    /// Devices that are known, and members of the first service.
    fn begin(&mut self) {
        for dev in Dev::ALL {
            self.set_device(dev, true);
        }
        self.members(0, &[2, 3, 0], false);
        self.members(1, &[3, 4], false);
    }

    fn set_device(&mut self, dev: Dev, is_known: bool) {
        let device = dev.device().filter(|_| is_known).map(|mut device| {
            if script::CLIENTS.contains(&dev) {
                // C is on another bridge.
                device.bridge = self.machine.ifindex(Dev::Bridge) + u32::from(dev == Dev::C);
            }
            device
        });
        self.machine.set_device(dev, device);
    }

    fn step(&mut self, step: &Step) -> Option<(i32, Vec<u8>)> {
        match step {
            Step::Ask(ask) => Some(self.pass(Hook::In, ask.who(), &ask.frame(), ask.odds)),
            Step::Answer(answer) => {
                let between = self.judge.between(answer.which)?;
                Some(self.pass(Hook::Out, between.who, &answer.frame(&between), answer.odds))
            }
            Step::Frame(hook, who, frame, odds) => Some(self.pass(*hook, script::client(*who), frame, *odds)),
            Step::Daemon(event) => {
                self.event(event);
                None
            }
        }
    }

    fn pass(&mut self, hook: Hook, who: Dev, frame: &[u8], odds: Odds) -> (i32, Vec<u8>) {
        let stats = Services::stats(self.machine);
        let before = self.machine.verdicts();
        let (verdict, after) = self.machine.run(hook, who, frame, odds);
        let passed = Passed {
            hook,
            who,
            before: frame,
            after: &after,
            verdict,
            odds,
            now: self.now,
            counts: [before, self.machine.verdicts()],
            stats,
        };
        self.judge.passed(self.machine, &self.services, &passed);
        (verdict, after)
    }

    /// As the daemon does it: slots of a new version, then the service that names them, then the old slots go.
    fn members(&mut self, service: usize, members: &[u8], by_affinity: bool) {
        self.services.version += 1;
        let version = self.services.version;
        let members: Vec<u8> = members.iter().take(20).map(|number| number % MEMBERS).collect();
        let id = service as u64 + 1;
        let key = |version, slot| SlotKey {
            service: id,
            version,
            slot,
        };
        for (slot, number) in (0..).zip(&members) {
            let (address, mac) = member(*number);
            let backend = Backend {
                address: ip(address),
                mac,
                reserved: [0; 2],
            };
            self.machine.set_slot(key(version, slot), Some(backend));
            self.set_member(service, *number, Some(true));
            if self.services.ever[service].insert(*number) {
                self.machine.count(Services::key(service, *number));
            }
        }
        let now = Service {
            id,
            bridge: self.machine.ifindex(Dev::Bridge),
            version,
            slots: members.len().try_into().expect("few"),
            flags: if by_affinity { Service::AFFINITY } else { 0 },
        };
        self.machine.set_service(ip(VIPS[service]), Some(now));
        self.machine.set_turn(id, Some(u64::MAX - 5));
        if let Some(old) = self.services.service[service].replace(now) {
            for slot in 0..old.slots {
                self.machine.set_slot(key(old.version, slot), None);
            }
        }
        self.services.slots[service] = members;
    }

    fn set_member(&mut self, service: usize, number: u8, is_well: Option<bool>) {
        let value = is_well.map(|is_well| Member {
            eligible: is_well.into(),
            reserved: 0,
        });
        self.machine.set_member(Services::key(service, number), value);
        match is_well {
            Some(is_well) => self.services.members[service].insert(number, is_well),
            None => self.services.members[service].remove(&number),
        };
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Members(service, members, by_affinity) => self.members((*service).into(), members, *by_affinity),
            Event::Well(service, number, is_well) => {
                self.set_member((*service).into(), number % MEMBERS, Some(*is_well));
            }
            Event::Gone(service, number) => self.set_member((*service).into(), number % MEMBERS, None),
            Event::Slotless(service, slot) => {
                if let Some(now) = self.services.service[usize::from(*service)] {
                    let key = SlotKey {
                        service: now.id,
                        version: now.version,
                        slot: u32::from(*slot) % now.slots.max(1),
                    };
                    self.machine.set_slot(key, None);
                }
            }
            Event::NoService(service) => {
                self.machine.set_service(ip(VIPS[usize::from(*service)]), None);
            }
            Event::NoTurn(service) => self.machine.set_turn(u64::from(*service) + 1, None),
            Event::Pause(seconds) => {
                let ns = u64::from(*seconds) * 1_000_000_000;
                self.now += ns;
                self.machine.pass(ns);
            }
            Event::Device(who, is_known) => self.set_device(script::client(*who), *is_known),
        }
    }
}

#[cfg(test)]
mod tests;
