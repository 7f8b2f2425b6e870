//! Whether a program can watch `nf_queue`: loaded and attached for a moment, doing nothing.
//!
//! Loading alone proves little: whether the function can be entered through a trampoline depends on how the kernel was
//! built, and only attaching tells.

use std::{io, os::fd::AsFd as _};

use aya::Btf;
use aya_obj::btf::BtfKind;

use super::{ProbeError, Tried, kernel::Release, kernel::refused};
use crate::bpf;

/// What tracing of `nf_queue` is called among the things tried.
pub const WATCH: &str = "tracing of nf_queue";

const PURPOSE: &str = "know the packets that user space holds (NFQUEUE)";
const FOUND_IN: &str = "Linux 5.5 and later (arm64: 6.4), built with CONFIG_DEBUG_INFO_BTF and CONFIG_FUNCTION_TRACER";

/// Tries it.
pub(super) fn try_watch(release: Release, types: Option<&Btf>) -> Tried {
    let outcome = match watch(types) {
        Ok(()) => Ok(format!("to {PURPOSE}")),
        Err(source) if refused(&source) => Err(ProbeError::Refused {
            what: "trace a function",
            purpose: PURPOSE,
            source,
        }),
        Err(_) => Err(ProbeError::Kernel {
            release,
            what: WATCH,
            purpose: PURPOSE,
            found_in: FOUND_IN,
        }),
    };
    Tried {
        what: WATCH,
        without: Some("no flow is learned while a program listens on NFQUEUE; it matters only then"),
        outcome,
    }
}

fn watch(types: Option<&Btf>) -> io::Result<()> {
    let types = types.ok_or(io::ErrorKind::NotFound)?;
    // The function's number in the kernel's own type information.
    let function = types.id_by_type_name_kind("nf_queue", BtfKind::Func);
    let program = bpf::load_idle_fentry(function.map_err(io::Error::other)?)?;
    bpf::attach_tracing(program.as_fd()).map(drop)
}
