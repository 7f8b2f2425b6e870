//! Loading for a try: what only the kernel's verifier can tell.

use aya::EbpfLoader;
use netfast_common::abi::{Program, map};

use super::{ApplyError, object};

/// Places in the flow table of a trial: programs do not depend on it.
const FLOWS: u32 = 1024;

/// What the kernel said to each program.
pub type Verdicts = Vec<(Program, Result<(), ApplyError>)>;

/// Loads maps and every program, as `netfast run` does, but pins and attaches nothing: all is gone when this returns.
/// What the kernel said to each program.
pub fn load() -> Result<Verdicts, ApplyError> {
    if object::OBJECT.is_empty() {
        return Err(ApplyError::NoObject);
    }
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(map::FLOWS4, FLOWS);
    loader.map_max_entries(map::FLOWS6, FLOWS);
    let mut ebpf = loader.load(object::OBJECT).map_err(|source| ApplyError::Load {
        what: "the maps",
        source: Box::new(source),
    })?;
    let programs = Program::ALL.iter().copied();
    Ok(programs
        .map(|program| (program, object::load_program(&mut ebpf, program)))
        .collect())
}
