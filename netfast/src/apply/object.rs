//! The embedded BPF object, loaded: with the maps that are pinned already, if they fit.

use std::path::Path;

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{MapInfo, MapType},
    programs::{FEntry, ProgramError, SchedClassifier},
};
use netfast_common::{
    abi::{map, program},
    device::Kind,
};
use tracing::{info, warn};

use crate::{
    apply::{
        ApplyError,
        pins::{MAPS, Pins, remove_file},
    },
    diff::Hook,
};

/// What `build.rs` made; empty if it was told to make nothing.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netfast-ebpf"));

/// The kernel's function that hands a packet to user space.
const NF_QUEUE: &str = "nf_queue";

/// Which program goes where.
pub const fn program_name(kind: Kind, hook: Hook) -> &'static str {
    match (kind, hook) {
        (Kind::Endpoint, Hook::Ingress) => program::ENDPOINT_INGRESS,
        (Kind::Endpoint, Hook::Egress) => program::ENDPOINT_EGRESS,
        (Kind::Bridge, Hook::Ingress) => program::BRIDGE_INGRESS,
        (Kind::Bridge, Hook::Egress) => program::BRIDGE_EGRESS,
        (Kind::Uplink, Hook::Ingress) => program::UPLINK_INGRESS,
        (Kind::Uplink, Hook::Egress) => program::UPLINK_EGRESS,
    }
}

/// Loads maps and programs. Maps come from their pins where those are as this build would make them.
pub fn load(pins: &Pins, flows: u32) -> Result<Ebpf, ApplyError> {
    if OBJECT.is_empty() {
        return Err(ApplyError::NoObject);
    }
    drop_unfit_maps(pins, flows)?;
    let mut loader = EbpfLoader::new();
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.map_max_entries(map::FLOWS4, flows);
    #[cfg(feature = "bpf-log")]
    let level = crate::apply::bpf_log::level();
    #[cfg(feature = "bpf-log")]
    loader.override_global(aya_log::LEVEL, &level, true);
    let mut ebpf = loader.load(OBJECT).map_err(|source| ApplyError::Load {
        what: "the maps",
        source: Box::new(source),
    })?;
    for kind in [Kind::Endpoint, Kind::Bridge, Kind::Uplink] {
        for hook in Hook::BOTH {
            load_classifier(&mut ebpf, kind, hook)?;
        }
    }
    Ok(ebpf)
}

/// Loads the program for a hook of a kind of device.
pub fn load_classifier(ebpf: &mut Ebpf, kind: Kind, hook: Hook) -> Result<(), ApplyError> {
    let program = classifier(ebpf, kind, hook)?;
    program
        .load()
        .map_err(|source| program_error(program_name(kind, hook), source))
}

/// The program for a hook of a kind of device.
pub fn classifier(ebpf: &mut Ebpf, kind: Kind, hook: Hook) -> Result<&mut SchedClassifier, ApplyError> {
    let name = program_name(kind, hook);
    let program = ebpf.program_mut(name).ok_or(ApplyError::NotInObject { name })?;
    program.try_into().map_err(|source| program_error(name, source))
}

/// Loads the program that sees resolvers' answers.
pub fn load_answer(ebpf: &mut Ebpf) -> Result<(), ApplyError> {
    answer(ebpf)?
        .load()
        .map_err(|source| program_error(program::ANSWER, source))
}

/// The program that sees resolvers' answers.
pub fn answer(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, ApplyError> {
    let name = program::ANSWER;
    let program = ebpf.program_mut(name).ok_or(ApplyError::NotInObject { name })?;
    program.try_into().map_err(|source| program_error(name, source))
}

/// Which program for virtual addresses goes where.
const fn vip_program_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => program::VIP_INGRESS,
        Hook::Egress => program::VIP_EGRESS,
    }
}

/// Loads the programs that translate virtual addresses.
pub fn load_vip(ebpf: &mut Ebpf) -> Result<(), ApplyError> {
    Hook::BOTH.into_iter().try_for_each(|hook| {
        let loaded = vip(ebpf, hook)?.load();
        loaded.map_err(|source| program_error(vip_program_name(hook), source))
    })
}

/// The program that translates virtual addresses on a hook of an endpoint.
pub fn vip(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier, ApplyError> {
    let name = vip_program_name(hook);
    let program = ebpf.program_mut(name).ok_or(ApplyError::NotInObject { name })?;
    program.try_into().map_err(|source| program_error(name, source))
}

/// Loads the program that watches `nf_queue`.
pub fn load_queue_watch(ebpf: &mut Ebpf) -> Result<(), ApplyError> {
    let btf = Btf::from_sys_fs().map_err(|source| ApplyError::Btf(Box::new(source)))?;
    queue_watch(ebpf)?
        .load(NF_QUEUE, &btf)
        .map_err(|source| program_error(program::QUEUED, source))
}

/// The program that watches `nf_queue`.
pub fn queue_watch(ebpf: &mut Ebpf) -> Result<&mut FEntry, ApplyError> {
    let name = program::QUEUED;
    let program = ebpf.program_mut(name).ok_or(ApplyError::NotInObject { name })?;
    program.try_into().map_err(|source| program_error(name, source))
}

fn program_error(name: &'static str, source: ProgramError) -> ApplyError {
    ApplyError::Program {
        name,
        source: Box::new(source),
    }
}

/// The form of a map: what the kernel does not let a program assume wrongly, and what the configuration sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    map_type: Option<u32>,
    key: u32,
    value: u32,
    entries: u32,
}

/// Unpins maps that have another form than this build makes, so that new ones take their place. The programs that
/// still use the old ones go on until they are replaced.
fn drop_unfit_maps(pins: &Pins, flows: u32) -> Result<(), ApplyError> {
    let object = aya_obj::Object::parse(OBJECT).map_err(|source| ApplyError::Load {
        what: "the object",
        source: Box::new(aya::EbpfError::ParseError(source)),
    })?;
    for name in MAPS {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let made = object.maps.get(name).ok_or(ApplyError::NotInObject { name })?;
        let made = Form {
            map_type: Some(made.map_type()),
            key: made.key_size(),
            value: made.value_size(),
            entries: if name == map::FLOWS4 { flows } else { made.max_entries() },
        };
        if form(&path) == Some(made) {
            info!("taking over the pinned map {name}");
        } else {
            warn!("the pinned map {name} has another form or size: it is replaced");
            remove_file(&path).map_err(|source| ApplyError::Io { path, source })?;
        }
    }
    Ok(())
}

fn form(path: &Path) -> Option<Form> {
    let info = MapInfo::from_pin(path).ok()?;
    Some(Form {
        map_type: info.map_type().ok().map(|map_type: MapType| map_type as u32),
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
    })
}

/// Kernel memory of the flow tables in bytes, without the CPUs' free lists: a preallocated element of an LRU hash is
/// key and value, each rounded up to 8, behind a header of 48 bytes (`struct htab_elem`), and a bucket takes 16 per
/// element, rounded up to a power of two.
pub fn table_bytes(flows: u32, fresh: u32) -> u64 {
    use netfast_common::{
        flow::{Flow, FlowKey},
        net::Ip4,
    };
    let element = 48 + size_of::<FlowKey<Ip4>>().next_multiple_of(8) + size_of::<Flow<Ip4>>().next_multiple_of(8);
    [flows, fresh]
        .into_iter()
        .map(|entries| u64::from(entries) * element as u64 + u64::from(entries.next_power_of_two()) * 16)
        .sum()
}
