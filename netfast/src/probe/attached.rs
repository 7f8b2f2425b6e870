//! Programs on an interface, ours and others'.

use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
pub use netfast_common::abi::Hook;
use netfast_common::abi::PREFIX;

/// A program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where.
    pub hook: Hook,
    /// The kernel's number for it.
    pub id: u32,
    /// Its name, as far as the kernel keeps it; may be empty.
    pub name: String,
}

impl Attached {
    /// Whether it is netfast's: all of its programs, and nobody else's, have this prefix.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with(PREFIX)
    }
}

/// The tcx programs of an interface of the calling thread's network namespace, in the order in which they run.
pub fn attached(interface: &str) -> Result<Vec<Attached>, ProgramError> {
    let mut found = Vec::new();
    for (hook, attach_type) in [
        (Hook::Ingress, TcAttachType::Ingress),
        (Hook::Egress, TcAttachType::Egress),
    ] {
        let (_, programs) = SchedClassifier::query_tcx(interface, attach_type)?;
        found.extend(programs.iter().map(|program| Attached {
            hook,
            id: program.id(),
            name: name(program),
        }));
    }
    Ok(found)
}

/// The name of a loaded program, such as the XDP program that a link names by its number.
pub fn program_name(id: u32) -> Option<String> {
    let found = loaded_programs().flatten().find(|program| program.id() == id)?;
    Some(name(&found))
}

fn name(program: &ProgramInfo) -> String {
    program
        .name_as_str()
        .map_or_else(|| String::from_utf8_lossy(program.name()).into_owned(), str::to_owned)
}
