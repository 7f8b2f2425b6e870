//! The only writer: takes the diff's actions to the kernel, and knows what is there.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, xdp::DevMapHash},
};
use netfast_common::{
    abi::{DEFAULT_UNREPLIED, HookKind, Program, map},
    control::Control,
    device::{Device, DeviceKey, Traffic},
    direct::{Port, PortKey},
    resolver::Ports,
    tunnel::{End, Tunnel},
};
use tracing::{info, warn};

pub mod aliases;
mod attach;
#[cfg(feature = "bpf-log")]
mod bpf_log;
pub mod clsact;
pub mod conntrack;
mod direct;
#[cfg(test)]
mod document;
mod error;
mod executor;
mod facts;
pub mod flows;
pub mod handoff;
pub mod lacks;
mod lease;
mod localhost;
mod macvlan;
mod mount;
mod object;
mod openvswitch;
pub mod pinned;
pub mod pins;
pub mod quiet;
pub mod read;
mod remove;
mod repin;
pub mod resolver;
pub mod routes;
pub mod segments;
pub mod trace;
mod tunnels;
pub mod verify;
pub mod vet;
mod vip_links;
pub mod vips;
pub mod xdp;

pub use attach::{AttachError, Mode};
pub use error::ApplyError;
pub use executor::{Failure, Outcome};
pub use facts::foreign;
pub use object::OBJECT;
pub use remove::{
    Remains, answers, find, find_elsewhere, other_abis, remove, remove_elsewhere, remove_own, switch_flows_off,
};

use crate::{
    diff::{Attachment, Hook, Realized, RealizedDevice},
    plan::Facts,
};
use lacks::{Lack, Without};
use pins::Pins;

/// The loaded programs and maps, and what is attached.
pub struct Datapath {
    pins: Pins,
    mode: Mode,
    ebpf: Ebpf,
    control: Array<MapData, Control>,
    devices: HashMap<MapData, DeviceKey, Device>,
    generations: Array<MapData, u32>,
    ports: HashMap<MapData, PortKey, Port>,
    tunnels: HashMap<MapData, DeviceKey, Tunnel>,
    ends: HashMap<MapData, End, u32>,
    /// Mapped when there is first something to lease: a map that is mapped cannot be frozen, for instance. `None`: that failed.
    lease: OnceCell<Option<lease::Leases>>,
    traffic: PerCpuArray<MapData, Traffic>,
    realized: Realized,
    facts: Facts,
    aliases: aliases::AliasMaps,
    vips: vips::VipMaps,
    macvlan: macvlan::MacvlanMaps,
    localhost: localhost::LocalMaps,
    resolvers: HashMap<MapData, u64, Ports>,
    /// The interfaces that frames are sent to, and what could have changed them.
    xdp_ends: DevMapHash<MapData>,
    xdp_state: xdp::State,
    /// Who listens whether they have.
    xdp_watch: Option<xdp::Watch>,
    /// What the kernel calls the namespaces that are known there, by their inodes.
    cookies: BTreeMap<u64, u64>,
    queue_watch_error: Option<String>,
    /// Why the kernel does not take the program that watches datapaths of Open vSwitch, if it does not.
    ovs_refused: Option<String>,
    /// That program is attached.
    watches_ovs: bool,
    lacks: Vec<Lack>,
    /// Vets flows for as long as this lives.
    _vetter: vet::Vetter,
    /// Looks after quiet connections; `None` until all is pinned.
    keeper: Option<quiet::Keeper>,
    table_bytes: u64,
    /// Interfaces that a clsact qdisc was added to, with their names.
    added_clsact: BTreeMap<DeviceKey, String>,
    /// Where the pins were made.
    place: Option<mount::Place>,
    /// The kernel's number of each pinned map.
    map_ids: Vec<(&'static str, u32)>,
    /// Nothing was pinned before: a failed start takes everything away again.
    fresh: bool,
}

impl Datapath {
    /// Loads the programs, takes over what is pinned, and pins the rest, marked as the instance's with this run
    /// directory. Nothing new is attached to an interface.
    pub fn open(pin_dir: &Path, run_dir: &Path, flows: u32, mode: Mode, without: &Without) -> Result<Self, ApplyError> {
        let pins = Pins::new(pin_dir);
        let fresh = !pins.exist();
        pins.create()?;
        let marked = pins.mark_run_dir(run_dir).map_err(|source| ApplyError::Io {
            path: pins.root().into(),
            source,
        });
        let opened = marked.and_then(|()| Self::load(pins.clone(), flows, mode, fresh, without));
        if opened.is_err() && fresh {
            // The error to report is the first one.
            let _ = remove::links(&pins).and_then(|()| pins.remove_maps());
        }
        opened
    }

    fn load(pins: Pins, flows: u32, mode: Mode, fresh: bool, without: &Without) -> Result<Self, ApplyError> {
        let mut ebpf = object::load(&pins, flows)?;
        let control: Array<MapData, Control> = take(&mut ebpf, map::CONTROL)?;
        let mut datapath = Self {
            lease: OnceCell::new(),
            ports: take(&mut ebpf, map::PORTS)?,
            tunnels: take(&mut ebpf, map::TUNNELS)?,
            ends: take(&mut ebpf, map::ENDS)?,
            aliases: aliases::AliasMaps::take(&mut ebpf)?,
            vips: vips::VipMaps::take(&mut ebpf)?,
            macvlan: macvlan::MacvlanMaps::take(&mut ebpf)?,
            localhost: localhost::LocalMaps::take(&mut ebpf)?,
            resolvers: take(&mut ebpf, map::RESOLVERS)?,
            xdp_ends: take(&mut ebpf, map::XDP_ENDS)?,
            xdp_state: xdp::State::new(take(&mut ebpf, map::XDP_STATE)?),
            xdp_watch: None,
            cookies: BTreeMap::new(),
            control,
            devices: take(&mut ebpf, map::DEVICES)?,
            generations: take(&mut ebpf, map::GENERATIONS)?,
            traffic: take(&mut ebpf, map::TRAFFIC)?,
            realized: Realized::default(),
            facts: Facts::default(),
            queue_watch_error: None,
            ovs_refused: None,
            watches_ovs: false,
            lacks: Vec::new(),
            _vetter: vetter(&mut ebpf)?,
            keeper: None,
            table_bytes: object::table_bytes(flows, DEFAULT_UNREPLIED),
            added_clsact: BTreeMap::new(),
            place: mount::Place::of(pins.root()),
            map_ids: repin::map_ids(&pins)?,
            ebpf,
            pins,
            mode,
            fresh,
        };
        datapath.load_aliases(without);
        datapath.adopt()?;
        let watched = without.refuse(Program::Queued).and_then(|()| datapath.watch_queues());
        if let Err(error) = watched {
            let text = lacks::one_line(&error);
            warn!("{}", lacks::without_queue_watch(&text));
            datapath.queue_watch_error = Some(text);
        }
        datapath.facts.queue_watch = datapath.queue_watch_error.is_none();
        match quiet::Keeper::start(&datapath.pins) {
            Ok(keeper) => datapath.keeper = Some(keeper),
            Err(error) => warn!("{}: {:#}", quiet::LOST, anyhow::Error::new(error)),
        }
        Ok(datapath)
    }

    /// Loads the programs of aliases, of virtual addresses, of tunnels, of macvlan and of resolvers; the fast path does without
    /// those that cannot be used.
    fn load_aliases(&mut self, without: &Without) {
        let localhost = self.load_localhost(without);
        let ovs = self.load_optional(Program::OvsAction, without);
        self.ovs_refused = ovs.as_ref().map(|lack| lack.why.clone());
        let mut lacks = match self.mode {
            Mode::Clsact => {
                let lack = Lack::no_tcx();
                let why = Some(lack.why.clone());
                (self.facts.aliases_off, self.facts.vip_off) = (why.clone(), why.clone());
                (self.facts.tunnels_off, self.facts.macvlan_off) = (why.clone(), why.clone());
                self.facts.way_in_off = why.clone();
                self.facts.resolver_off.clone_from(&why);
                self.facts.xdp.off = why;
                vec![lack]
            }
            Mode::Tcx => {
                let answer = self.load_optional(Program::Answer, without);
                let vips = self.load_vip(without);
                let why = |lack: &Lack| lack.why.clone();
                self.facts.aliases_off = answer.as_ref().map(why);
                self.facts.vip_off = vips.as_ref().map(why);
                let (tunnels, way_in) = self.load_tunnels(without);
                let macvlan = self.load_optional(Program::Macvlan, without);
                self.facts.macvlan_off = macvlan.as_ref().map(why);
                let resolver = self.load_optional(Program::Resolver, without);
                self.facts.resolver_off = resolver.as_ref().map(why);
                let xdp = self.load_optional(Program::UplinkXdp, without);
                self.facts.xdp.off = xdp.as_ref().map(why);
                let all = [answer, vips, tunnels, way_in, macvlan, resolver, xdp];
                all.into_iter().flatten().collect()
            }
        };
        lacks.extend(localhost);
        lacks.extend(ovs);
        for lack in &lacks {
            warn!("{lack}");
        }
        self.lacks = lacks;
    }

    /// Loads a program that netfast can do without; returns why it cannot be used.
    fn load_optional(&mut self, program: Program, without: &Without) -> Option<Lack> {
        let loaded = without.refuse(program);
        let loaded = loaded.and_then(|()| object::load_program(&mut self.ebpf, program));
        Some(Lack::refused(program, &loaded.err()?))
    }

    /// Takes over what another daemon left: its devices, and its links with our programs in them.
    fn adopt(&mut self) -> Result<(), ApplyError> {
        self.realized.aliases = self.aliases.read()?;
        self.adopt_vips()?;
        self.adopt_tunnels()?;
        self.realized.macvlans = self.macvlan.read()?;
        self.realized.control = self
            .control
            .get(&0, 0)
            .map_err(|source| map_error(map::CONTROL, source))?;
        for entry in &self.devices {
            let (key, device) = entry.map_err(|source| map_error(map::DEVICES, source))?;
            let entry = RealizedDevice { device, identity: None };
            self.realized.devices.insert(key, entry);
        }
        let attachments = self.pins.attachments().map_err(|source| ApplyError::Io {
            path: self.pins.root().into(),
            source,
        })?;
        for found in attachments {
            // A tracing link cannot be given another program, see `watch_queues` and `watch_datapaths`.
            if !found.is_watch() {
                self.adopt_link(found)?;
            }
        }
        if !self.realized.attachments.is_empty() {
            info!("took over {} links", self.realized.attachments.len());
        }
        Ok(())
    }

    /// Takes over a link of ours, with a new program in it. One that has an old program and cannot be given another is
    /// detached: it is attached again if it is wanted.
    fn adopt_link(&mut self, attachment: Attachment) -> Result<(), ApplyError> {
        let at = attachment.at;
        let failed = |source| ApplyError::Attach { at, source };
        let detach = |pins| attach::detach(pins, &attachment).map_err(failed);
        if let Some((device, kind)) = attachment.device_of_kind() {
            let entry = self.realized.devices.get(&device);
            if entry.and_then(|entry| entry.device.kind()) != Some(kind) {
                return detach(&self.pins);
            }
        }
        let adopted = match attachment.program.hook() {
            HookKind::Xdp => xdp::adopt(
                object::get(&mut self.ebpf, attachment.program)?,
                &self.pins,
                &attachment,
            ),
            HookKind::SockAddr(_) => {
                let program = object::get(&mut self.ebpf, attachment.program)?;
                localhost::adopt(program, &self.pins, &attachment).map(|()| true)
            }
            HookKind::Tcx(_) | HookKind::Fentry(_) | HookKind::RawTracepoint(_) => attach::adopt(
                object::get(&mut self.ebpf, attachment.program)?,
                &self.pins,
                &attachment,
            ),
        };
        match adopted {
            Ok(true) => {
                self.realized.attachments.insert(attachment);
                Ok(())
            }
            Ok(false) => {
                info!("{at} is gone, and so is its link");
                Ok(())
            }
            Err(error) => {
                warn!("cannot take over a link: {:#}", anyhow::Error::new(failed(error)));
                detach(&self.pins)
            }
        }
    }

    /// Attaches the program that watches `nf_queue`. A tracing link cannot be given another program: the new one is
    /// attached before the old one goes.
    fn watch_queues(&mut self) -> Result<(), ApplyError> {
        object::load_program(&mut self.ebpf, Program::Queued)?;
        self.attach(Attachment::QUEUE_WATCH, "")
    }

    /// What is netfast's on the host.
    pub fn realized(&self) -> &Realized {
        &self.realized
    }

    /// Passes on what the programs of this debugging build say, in the asynchronous runtime that this is called in.
    #[cfg(feature = "bpf-log")]
    pub fn follow_programs(&mut self) -> Result<(), ApplyError> {
        bpf_log::follow(&mut self.ebpf)
    }

    /// How programs are attached.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Why packets handed to user space cannot be told apart, if they cannot.
    pub fn queue_watch_error(&self) -> Option<&str> {
        self.queue_watch_error.as_deref()
    }

    /// What this kernel does not do, besides that.
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// The programs that are not there on this kernel.
    pub fn missing(&self) -> BTreeSet<Program> {
        let no_place = Program::ALL
            .iter()
            .copied()
            .filter(|program| self.mode == Mode::Clsact && program.needs_tcx());
        let refused = self.lacks.iter().filter_map(|lack| lack.program);
        let unwatched = self.queue_watch_error.is_some().then_some(Program::Queued);
        no_place.chain(refused).chain(unwatched).collect()
    }

    /// Kernel memory of the flow tables, in bytes.
    pub fn table_bytes(&self) -> u64 {
        self.table_bytes
    }

    /// Interfaces that a clsact qdisc was added to by this daemon, with their names.
    pub fn added_clsact(&self) -> &BTreeMap<DeviceKey, String> {
        &self.added_clsact
    }

    /// Where the pins are.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Whether nothing was pinned before.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Devices that have both programs attached.
    pub fn attached(&self) -> BTreeSet<DeviceKey> {
        let attachments = &self.realized.attachments;
        let devices = attachments.iter().filter_map(Attachment::device_of_kind);
        devices
            .filter(|(device, kind)| {
                let on = |hook| Attachment::of_device(*device, *kind, hook);
                Hook::BOTH.into_iter().all(|hook| attachments.contains(&on(hook)))
            })
            .map(|(device, _)| device)
            .collect()
    }

    /// The slot of a device.
    pub fn slot(&self, device: DeviceKey) -> Option<u16> {
        Some(self.realized.devices.get(&device)?.device.slot)
    }
}

/// A map of the loaded object as its type.
fn take<M: TryFrom<aya::maps::Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, ApplyError> {
    let map = ebpf.take_map(name).ok_or(ApplyError::NotInObject { name })?;
    M::try_from(map).map_err(|source| map_error(name, source))
}

fn vetter(ebpf: &mut Ebpf) -> Result<vet::Vetter, ApplyError> {
    let v4 = vet::Queue {
        requests: take(ebpf, map::VET4)?,
        answers: take(ebpf, map::VETTED4)?,
    };
    let v6 = vet::Queue {
        requests: take(ebpf, map::VET6)?,
        answers: take(ebpf, map::VETTED6)?,
    };
    vet::Vetter::start(v4, v6).map_err(ApplyError::Vet)
}

fn map_error(name: &'static str, source: MapError) -> ApplyError {
    ApplyError::Map {
        name,
        source: Box::new(source),
    }
}
