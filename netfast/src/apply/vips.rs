//! The maps of virtual addresses: written by the daemon, read by reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, PerCpuArray, PerCpuValues},
};
use netfast_common::{
    abi::map,
    alias::MemberKey,
    net::AnyIp,
    vip::{Backend, BackendStats, Member, Service, SlotKey, Verdict},
};

use crate::{
    apply::{
        ApplyError,
        aliases::{create, remove},
        map_error,
        pinned::{self, ReadError},
        pins::Pins,
        take,
    },
    plan::{VipService, VipTable},
};

/// The maps, for the daemon.
pub struct VipMaps {
    services: HashMap<MapData, AnyIp, Service>,
    slots: HashMap<MapData, SlotKey, Backend>,
    members: HashMap<MapData, MemberKey, Member>,
    stats: HashMap<MapData, MemberKey, BackendStats>,
}

impl VipMaps {
    /// Takes them out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, ApplyError> {
        Ok(Self {
            services: take(ebpf, map::VIPS)?,
            slots: take(ebpf, map::VIP_SLOTS)?,
            members: take(ebpf, map::VIP_MEMBERS)?,
            stats: take(ebpf, map::VIP_STATS)?,
        })
    }

    /// What is in them. Slots of no service are removed: a daemon was killed in the middle of a change.
    pub fn read(&mut self) -> Result<VipTable, ApplyError> {
        let failed = |name| move |source| map_error(name, source);
        let services: Vec<(AnyIp, Service)> = self
            .services
            .iter()
            .collect::<Result<_, _>>()
            .map_err(failed(map::VIPS))?;
        let mut known = BTreeSet::new();
        let mut table = VipTable::default();
        for (vip, service) in services {
            let mut read = VipService {
                id: service.id,
                bridge: service.bridge,
                affinity: service.flags & Service::AFFINITY != 0,
                slots: Vec::new(),
            };
            for key in keys(&service) {
                match self.slots.get(&key, 0) {
                    Ok(backend) => read.slots.push(backend),
                    // Then it differs from what is wanted and is written anew.
                    Err(MapError::KeyNotFound) => {}
                    Err(source) => return Err(map_error(map::VIP_SLOTS, source)),
                }
                known.insert(key);
            }
            table.services.insert(vip.into(), read);
        }
        let slots: Vec<SlotKey> = self
            .slots
            .keys()
            .collect::<Result<_, _>>()
            .map_err(failed(map::VIP_SLOTS))?;
        for key in slots.iter().filter(|key| !known.contains(key)) {
            remove(&mut self.slots, map::VIP_SLOTS, key)?;
        }
        for entry in &self.members {
            let (key, member) = entry.map_err(failed(map::VIP_MEMBERS))?;
            table.members.insert(key, member.eligible != 0);
        }
        Ok(table)
    }

    /// Brings them from one state to another. A service's slots are there before it names them and go after it, members
    /// and their counts likewise.
    pub fn change(&mut self, from: &VipTable, to: &VipTable) -> Result<(), ApplyError> {
        for (key, eligible) in &to.members {
            if !from.members.contains_key(key) {
                create(&mut self.stats, map::VIP_STATS, key)?;
                self.set_member(key, *eligible)?;
            }
        }
        for (vip, service) in &to.services {
            if from.services.get(vip) != Some(service) {
                self.set_service(*vip, service)?;
            }
        }
        for (key, eligible) in &to.members {
            if from.members.get(key).is_some_and(|before| before != eligible) {
                self.set_member(key, *eligible)?;
            }
        }
        for vip in from.services.keys().filter(|vip| !to.services.contains_key(vip)) {
            self.remove_service(*vip)?;
        }
        for key in from.members.keys().filter(|key| !to.members.contains_key(key)) {
            remove(&mut self.members, map::VIP_MEMBERS, key)?;
            remove(&mut self.stats, map::VIP_STATS, key)?;
        }
        Ok(())
    }

    fn set_member(&mut self, key: &MemberKey, eligible: bool) -> Result<(), ApplyError> {
        let member = Member {
            eligible: eligible.into(),
            reserved: 0,
        };
        let written = self.members.insert(key, member, 0);
        written.map_err(|source| map_error(map::VIP_MEMBERS, source))
    }

    fn service(&self, vip: IpAddr) -> Result<Option<Service>, ApplyError> {
        match self.services.get(&AnyIp::from(vip), 0) {
            Ok(service) => Ok(Some(service)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(map_error(map::VIPS, source)),
        }
    }

    fn set_service(&mut self, vip: IpAddr, wanted: &VipService) -> Result<(), ApplyError> {
        let before = self.service(vip)?;
        let service = Service {
            id: wanted.id,
            bridge: wanted.bridge,
            version: self.next_version(wanted.id)?,
            slots: u32::try_from(wanted.slots.len()).unwrap_or(u32::MAX),
            flags: if wanted.affinity { Service::AFFINITY } else { 0 },
        };
        for (key, backend) in keys(&service).zip(&wanted.slots) {
            let written = self.slots.insert(key, backend, 0);
            written.map_err(|source| map_error(map::VIP_SLOTS, source))?;
        }
        let written = self.services.insert(AnyIp::from(vip), service, 0);
        written.map_err(|source| map_error(map::VIPS, source))?;
        before.map_or(Ok(()), |before| self.remove_slots(&before))
    }

    /// A version that no service of this identifier has: slots are told apart by both, and a name that gets another address
    /// has two services for a moment.
    fn next_version(&self, id: u64) -> Result<u32, ApplyError> {
        let mut next = 0;
        for entry in &self.services {
            let (_, service) = entry.map_err(|source| map_error(map::VIPS, source))?;
            if service.id == id {
                next = next.max(service.version.wrapping_add(1));
            }
        }
        Ok(next)
    }

    fn remove_service(&mut self, vip: IpAddr) -> Result<(), ApplyError> {
        let before = self.service(vip)?;
        remove(&mut self.services, map::VIPS, &vip.into())?;
        before.map_or(Ok(()), |before| self.remove_slots(&before))
    }

    fn remove_slots(&mut self, service: &Service) -> Result<(), ApplyError> {
        keys(service).try_for_each(|key| remove(&mut self.slots, map::VIP_SLOTS, &key))
    }
}

/// The keys of a service's slots.
fn keys(service: &Service) -> impl Iterator<Item = SlotKey> + use<> {
    let Service { id, version, .. } = *service;
    (0..service.slots).map(move |slot| SlotKey {
        service: id,
        version,
        slot,
    })
}

/// What the programs have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// What each member was given.
    pub stats: BTreeMap<MemberKey, BackendStats>,
    /// Packets by what became of them.
    pub verdicts: BTreeMap<Verdict, u64>,
}

/// The maps, for reports.
pub struct SharedMaps {
    stats: HashMap<MapData, MemberKey, BackendStats>,
    counts: PerCpuArray<MapData, u64>,
}

impl SharedMaps {
    /// Opens them.
    pub fn open(pins: &Pins) -> Result<Self, ReadError> {
        Ok(Self {
            stats: pinned::open(pins, map::VIP_STATS)?,
            counts: pinned::open(pins, map::VIP_VERDICTS)?,
        })
    }

    /// What the programs have counted.
    pub fn read(&self) -> Result<Shared, ReadError> {
        let failed = |name| move |source| pinned::read_error(name, source);
        let sum = |values: PerCpuValues<u64>| values.iter().fold(0, |sum: u64, part| sum.wrapping_add(*part));
        let count = |verdict: &Verdict| Ok((*verdict, self.counts.get(&verdict.number(), 0).map(sum)?));
        Ok(Shared {
            stats: self
                .stats
                .iter()
                .collect::<Result<_, _>>()
                .map_err(failed(map::VIP_STATS))?,
            verdicts: Verdict::ALL
                .iter()
                .map(count)
                .collect::<Result<_, MapError>>()
                .map_err(failed(map::VIP_VERDICTS))?,
        })
    }
}
