//! The alias maps: written by the daemon, read by reports.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError, PerCpuArray, PerCpuValues},
};
use netfast_common::{
    abi::map,
    alias::{Alias, AliasKey, MemberKey, Verdict},
};

use crate::{
    apply::{
        ApplyError, map_error,
        pinned::{self, ReadError},
        pins::Pins,
        take,
    },
    plan::AliasTable,
};

/// `BPF_NOEXIST` of linux/bpf.h: a count that is there stays.
const NO_EXIST: u64 = 1;

/// The maps, for the daemon.
pub struct AliasMaps {
    entries: HashMap<MapData, AliasKey, Alias>,
    cursors: HashMap<MapData, u64, u64>,
    first_named: HashMap<MapData, MemberKey, u64>,
}

impl AliasMaps {
    /// Takes them out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, ApplyError> {
        Ok(Self {
            entries: take(ebpf, map::ALIASES)?,
            cursors: take(ebpf, map::CURSORS)?,
            first_named: take(ebpf, map::FIRST_NAMED)?,
        })
    }

    /// What is in them.
    pub fn read(&self) -> Result<AliasTable, ApplyError> {
        let members: BTreeSet<MemberKey> = self
            .first_named
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|source| map_error(map::FIRST_NAMED, source))?;
        let entries = self.entries.iter().collect::<Result<_, _>>();
        let cursors: BTreeSet<u64> = self
            .cursors
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|source| map_error(map::CURSORS, source))?;
        let is_members = |turn: &u64| members.iter().any(|member| member.alias == *turn);
        Ok(AliasTable {
            services: cursors.into_iter().filter(|turn| !is_members(turn)).collect(),
            members,
            entries: entries.map_err(|source| map_error(map::ALIASES, source))?,
        })
    }

    /// Creates the round-robin cursors of aliases whose answers are not changed yet.
    pub fn begin_cursors(&mut self, aliases: impl IntoIterator<Item = u64>) -> Result<(), ApplyError> {
        aliases
            .into_iter()
            .try_for_each(|alias| create(&mut self.cursors, map::CURSORS, &alias))
    }

    /// Brings them from one state to another. What an entry needs is there before it and goes after it, and an alias keeps
    /// its turn while it has members.
    pub fn change(&mut self, from: &AliasTable, to: &AliasTable) -> Result<(), ApplyError> {
        let (cursors_before, cursors) = (from.cursors(), to.cursors());
        for turn in &cursors {
            create(&mut self.cursors, map::CURSORS, turn)?;
        }
        for member in to.members.difference(&from.members) {
            create(&mut self.first_named, map::FIRST_NAMED, member)?;
        }
        for (key, alias) in &to.entries {
            if from.entries.get(key) != Some(alias) {
                let written = self.entries.insert(key, alias, 0);
                written.map_err(|source| map_error(map::ALIASES, source))?;
            }
        }
        for key in from.entries.keys().filter(|key| !to.entries.contains_key(key)) {
            remove(&mut self.entries, map::ALIASES, key)?;
        }
        for member in from.members.difference(&to.members) {
            remove(&mut self.first_named, map::FIRST_NAMED, member)?;
        }
        for turn in cursors_before.difference(&cursors) {
            remove(&mut self.cursors, map::CURSORS, turn)?;
        }
        Ok(())
    }
}

/// A count of 0, unless there is one.
pub(super) fn create<K: Pod, V: Pod + Default>(
    counts: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<(), ApplyError> {
    match counts.insert(key, V::default(), NO_EXIST) {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        done => done.map_err(|source| map_error(name, source)),
    }
}

/// Removes an entry; none is fine.
pub(super) fn remove<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<(), ApplyError> {
    match map.remove(key) {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done.map_err(|source| map_error(name, source)),
    }
}

/// What the program has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Answers that named a member first.
    pub first_named: BTreeMap<MemberKey, u64>,
    /// Answers by what became of them.
    pub verdicts: BTreeMap<Verdict, u64>,
}

/// The maps, for reports.
pub struct AnswerMaps {
    first_named: HashMap<MapData, MemberKey, u64>,
    counts: PerCpuArray<MapData, u64>,
}

impl AnswerMaps {
    /// Opens them.
    pub fn open(pins: &Pins) -> Result<Self, ReadError> {
        Ok(Self {
            first_named: pinned::open(pins, map::FIRST_NAMED)?,
            counts: pinned::open(pins, map::ANSWERS)?,
        })
    }

    /// What the program has counted.
    pub fn read(&self) -> Result<Answers, ReadError> {
        let failed = |name| move |source| pinned::read_error(name, source);
        let sum = |values: PerCpuValues<u64>| values.iter().fold(0, |sum: u64, part| sum.wrapping_add(*part));
        let count = |verdict: &Verdict| Ok((*verdict, self.counts.get(&verdict.number(), 0).map(sum)?));
        Ok(Answers {
            first_named: self
                .first_named
                .iter()
                .collect::<Result<_, _>>()
                .map_err(failed(map::FIRST_NAMED))?,
            verdicts: Verdict::ALL
                .iter()
                .map(count)
                .collect::<Result<_, MapError>>()
                .map_err(failed(map::ANSWERS))?,
        })
    }
}
