//! The embedded BPF object, loaded: with the maps that are pinned already, if they fit.

use std::path::Path;

use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{MapInfo, MapType},
    programs::{CgroupSockAddr, FEntry, ProgramError, RawTracePoint, SchedClassifier, Xdp},
};
use netfast_common::{
    abi::{DEFAULT_FLOWS, DEFAULT_FLOWS6, DEFAULT_UNREPLIED6, HookKind, NETNS_VARIABLE, Program, map},
    device::NetnsNumber,
};
use tracing::{debug, info, warn};

use crate::apply::{
    ApplyError,
    pins::{Pins, remove_file},
};

/// What `build.rs` made; empty if it was told to make nothing.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netfast-ebpf"));

/// What the verifier is to say of a program that it refuses: its complaint. With each instruction that it has looked at, the
/// log outgrows every buffer for the programs that are too complex for it, and they are tried a dozen times.
pub const COMPLAINTS: VerifierLogLevel = VerifierLogLevel::STATS;

/// Loads maps and programs. Maps come from their pins where those are as this build would make them.
pub fn load(pins: &Pins, flows: u32) -> Result<Ebpf, ApplyError> {
    if OBJECT.is_empty() {
        return Err(ApplyError::NoObject);
    }
    drop_unfit_maps(pins, flows)?;
    match load_all(pins, flows, COMPLAINTS) {
        // netfast ends with this: with all that the verifier can say, for who is to find out why.
        Err(ApplyError::Program { .. }) => load_all(pins, flows, VerifierLogLevel::default()),
        done => done,
    }
}

fn load_all(pins: &Pins, flows: u32, log: VerifierLogLevel) -> Result<Ebpf, ApplyError> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(log);
    for name in map::pinned() {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.map_max_entries(map::FLOWS4, flows);
    loader.map_max_entries(map::FLOWS6, flows6(flows));
    loader.override_global(NETNS_VARIABLE, &NetnsNumber::SERVED.0, true);
    #[cfg(feature = "bpf-log")]
    let level = crate::apply::bpf_log::level();
    #[cfg(feature = "bpf-log")]
    loader.override_global(aya_log::LEVEL, &level, true);
    let mut ebpf = loader.load(OBJECT).map_err(|source| ApplyError::Load {
        what: "the maps",
        source: Box::new(source),
    })?;
    let required = Program::ALL.iter().filter(|program| program.without().is_none());
    required
        .copied()
        .try_for_each(|program| load_program(&mut ebpf, program))?;
    Ok(ebpf)
}

/// Loads a program: lets the verifier judge it.
pub fn load_program(ebpf: &mut Ebpf, program: Program) -> Result<(), ApplyError> {
    let loaded = match program.hook() {
        HookKind::Tcx(_) => get::<SchedClassifier>(ebpf, program)?.load(),
        HookKind::SockAddr(_) => get::<CgroupSockAddr>(ebpf, program)?.load(),
        HookKind::Xdp => get::<Xdp>(ebpf, program)?.load(),
        HookKind::RawTracepoint(_) => get::<RawTracePoint>(ebpf, program)?.load(),
        HookKind::Fentry(function) => {
            let btf = Btf::from_sys_fs().map_err(|source| ApplyError::Btf(Box::new(source)))?;
            get::<FEntry>(ebpf, program)?.load(function, &btf)
        }
    };
    loaded.map_err(|source| program_error(program, source))
}

/// A program of the object as its type.
pub fn get<P>(ebpf: &mut Ebpf, program: Program) -> Result<&mut P, ApplyError>
where
    for<'a> &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let name = program.name();
    let found = ebpf.program_mut(name).ok_or(ApplyError::NotInObject { name })?;
    found.try_into().map_err(|source| program_error(program, source))
}

/// The kernel's refusal of a program.
pub fn program_error(program: Program, source: ProgramError) -> ApplyError {
    ApplyError::Program {
        name: program.name(),
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
    let mut fit = 0_usize;
    for name in map::pinned() {
        let path = pins.map(name);
        if !path.exists() {
            continue;
        }
        let made = object.maps.get(name).ok_or(ApplyError::NotInObject { name })?;
        let made = Form {
            map_type: Some(made.map_type()),
            key: made.key_size(),
            value: made.value_size(),
            entries: match name {
                map::FLOWS4 => flows,
                map::FLOWS6 => flows6(flows),
                _ => made.max_entries(),
            },
        };
        if form(&path) == Some(made) {
            debug!("taking over the pinned map {name}");
            fit += 1;
        } else {
            warn!("the pinned map {name} has another form or size: it is replaced");
            remove_file(&path).map_err(|source| ApplyError::Io { path, source })?;
        }
    }
    if fit > 0 {
        info!("took over {fit} pinned maps");
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

/// Places in the table of IPv6 flows, by those of IPv4's.
const fn flows6(flows: u32) -> u32 {
    let share = flows / (DEFAULT_FLOWS / DEFAULT_FLOWS6);
    if share == 0 { 1 } else { share }
}

/// Kernel memory of the flow tables in bytes, without the CPUs' free lists: a preallocated element of an LRU hash is
/// key and value, each rounded up to 8, behind a header of 48 bytes (`struct htab_elem`), and a bucket takes 16 per
/// element, rounded up to a power of two.
pub fn table_bytes(flows: u32, unreplied: u32) -> u64 {
    use netfast_common::{
        flow::{Flow, FlowKey},
        net::{Ip4, Ip6},
    };
    let table = |entries: u32, key: usize, value: usize| {
        let element = 48 + key.next_multiple_of(8) + value.next_multiple_of(8);
        u64::from(entries) * element as u64 + u64::from(entries.next_power_of_two()) * 16
    };
    let v4 = |entries| table(entries, size_of::<FlowKey<Ip4>>(), size_of::<Flow<Ip4>>());
    let v6 = |entries| table(entries, size_of::<FlowKey<Ip6>>(), size_of::<Flow<Ip6>>());
    v4(flows) + v4(unreplied) + v6(flows6(flows)) + v6(DEFAULT_UNREPLIED6)
}
