//! Loading for a try: what only the kernel's verifier can tell.

use aya::EbpfLoader;
use netfast_common::{abi::map, device::Kind};

use super::{ApplyError, object};
use crate::diff::Hook;

/// Places in the flow table of a trial: programs do not depend on it.
const FLOWS: u32 = 1024;

/// Loads maps and programs as `netfast run` does, but pins and attaches nothing: all is gone when this returns. How
/// many programs the verifier has accepted.
pub fn load() -> Result<usize, ApplyError> {
    if object::OBJECT.is_empty() {
        return Err(ApplyError::NoObject);
    }
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(map::FLOWS4, FLOWS);
    let mut ebpf = loader.load(object::OBJECT).map_err(|source| ApplyError::Load {
        what: "the maps",
        source: Box::new(source),
    })?;
    let mut accepted = 0;
    for kind in [Kind::Endpoint, Kind::Bridge, Kind::Uplink] {
        for hook in Hook::BOTH {
            object::load_classifier(&mut ebpf, kind, hook)?;
            accepted += 1;
        }
    }
    Ok(accepted)
}
