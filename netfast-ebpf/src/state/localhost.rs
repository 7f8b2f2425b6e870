//! The maps of published ports at loopback addresses. Those of sockets are described by types, which the kernel asks for
//! (`bpf_local_storage_map_alloc_check`, `kernel/bpf/bpf_local_storage.c`).

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray},
};
use netfast_common::localhost::{self, Asked, Published, Switch};

/// Whether anybody is led past docker-proxy.
#[map(name = "netfast_local")]
pub static LOCALHOST: Array<Switch> = Array::with_max_entries(1, 0);

/// What the daemon knows of sockets that docker-proxy listens on.
#[btf_map(name = "netfast_locpub")]
pub static PUBLISHED: SkStorage<Published> = SkStorage::new();

/// What is known of sockets that were led past it.
#[btf_map(name = "netfast_locsock")]
pub static LED_SOCKETS: SkStorage<Asked> = SkStorage::new();

/// The cgroups without programs of others.
#[map(name = "netfast_loccgrp")]
pub static CGROUPS: HashMap<u64, u64> = HashMap::with_max_entries(localhost::CGROUPS, BPF_F_NO_PREALLOC);

/// What became of programs' wishes.
#[map(name = "netfast_locdone")]
pub static OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(localhost::Outcome::ALL.len() as u32, 0);
