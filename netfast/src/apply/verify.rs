//! Loading for a try: what only the kernel's verifier can tell.

use aya::EbpfLoader;
use netfast_common::abi::{Program, map};

use super::{
    ApplyError, Mode,
    lacks::{Lack, Without, loadable},
    object,
};

/// Places in the flow table of a trial: programs do not depend on it.
const FLOWS: u32 = 1024;

/// What the kernel said to each program.
pub type Verdicts = Vec<(Program, Result<(), Lack>)>;

/// Loads maps and every program that `netfast run` loads where it attaches in this way, but pins and attaches nothing: all
/// is gone when this returns. What the kernel said to each program.
pub fn load(mode: Mode, without: &Without) -> Result<Verdicts, ApplyError> {
    if object::OBJECT.is_empty() {
        return Err(ApplyError::NoObject);
    }
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(object::COMPLAINTS);
    loader.map_max_entries(map::FLOWS4, FLOWS);
    loader.map_max_entries(map::FLOWS6, FLOWS);
    let mut ebpf = loader.load(object::OBJECT).map_err(|source| ApplyError::Load {
        what: "the maps",
        source: Box::new(source),
    })?;
    let mut verdict = |program| {
        let done = without.refuse(program);
        let done = done.and_then(|()| object::load_program(&mut ebpf, program));
        (program, done.map_err(|error| Lack::refused(program, &error)))
    };
    Ok(loadable(mode).map(&mut verdict).collect())
}
