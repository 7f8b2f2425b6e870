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
    turns: HashMap<MapData, u64, u64>,
    given: HashMap<MapData, MemberKey, u64>,
}

impl AliasMaps {
    /// Takes them out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, ApplyError> {
        Ok(Self {
            entries: take(ebpf, map::ALIASES)?,
            turns: take(ebpf, map::TURNS)?,
            given: take(ebpf, map::GIVEN)?,
        })
    }

    /// What is in them.
    pub fn read(&self) -> Result<AliasTable, ApplyError> {
        let members: BTreeSet<MemberKey> = self
            .given
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|source| map_error(map::GIVEN, source))?;
        let entries = self.entries.iter().collect::<Result<_, _>>();
        let turns: BTreeSet<u64> = self
            .turns
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|source| map_error(map::TURNS, source))?;
        let is_members = |turn: &u64| members.iter().any(|member| member.alias == *turn);
        Ok(AliasTable {
            services: turns.into_iter().filter(|turn| !is_members(turn)).collect(),
            members,
            entries: entries.map_err(|source| map_error(map::ALIASES, source))?,
        })
    }

    /// Lets an alias take turns that nobody is told of yet.
    pub fn begin_turns(&mut self, aliases: impl IntoIterator<Item = u64>) -> Result<(), ApplyError> {
        aliases
            .into_iter()
            .try_for_each(|alias| create(&mut self.turns, map::TURNS, &alias))
    }

    /// Brings them from one state to another. What an entry needs is there before it and goes after it, and an alias keeps
    /// its turn while it has members.
    pub fn change(&mut self, from: &AliasTable, to: &AliasTable) -> Result<(), ApplyError> {
        let (turns_before, turns) = (from.turns(), to.turns());
        for turn in &turns {
            create(&mut self.turns, map::TURNS, turn)?;
        }
        for member in to.members.difference(&from.members) {
            create(&mut self.given, map::GIVEN, member)?;
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
            remove(&mut self.given, map::GIVEN, member)?;
        }
        for turn in turns_before.difference(&turns) {
            remove(&mut self.turns, map::TURNS, turn)?;
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
    pub given: BTreeMap<MemberKey, u64>,
    /// Answers by what became of them.
    pub verdicts: BTreeMap<Verdict, u64>,
}

/// The maps, for reports.
pub struct AnswerMaps {
    given: HashMap<MapData, MemberKey, u64>,
    counts: PerCpuArray<MapData, u64>,
}

impl AnswerMaps {
    /// Opens them.
    pub fn open(pins: &Pins) -> Result<Self, ReadError> {
        Ok(Self {
            given: pinned::open(pins, map::GIVEN)?,
            counts: pinned::open(pins, map::ANSWERS)?,
        })
    }

    /// What the program has counted.
    pub fn read(&self) -> Result<Answers, ReadError> {
        let failed = |name| move |source| pinned::read_error(name, source);
        let sum = |values: PerCpuValues<u64>| values.iter().fold(0, |sum: u64, part| sum.wrapping_add(*part));
        let count = |verdict: &Verdict| Ok((*verdict, self.counts.get(&verdict.number(), 0).map(sum)?));
        Ok(Answers {
            given: self
                .given
                .iter()
                .collect::<Result<_, _>>()
                .map_err(failed(map::GIVEN))?,
            verdicts: Verdict::ALL
                .iter()
                .map(count)
                .collect::<Result<_, MapError>>()
                .map_err(failed(map::ANSWERS))?,
        })
    }
}
