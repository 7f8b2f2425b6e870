//! What netfast needs of the kernel and of its own privileges, found out by trying.
//!
//! Versions lie (distributions backport, kernels are configured), so each thing is tried by a harmless form of the real
//! call: a program of two instructions, a query, a look. `netfast run` starts only when [`required`] says so;
//! `netfast check` shows every line of [`try_all`]. Nothing here changes anything.

use std::path::Path;

use aya::Btf;

mod attached;
mod counters;
mod filesystem;
mod kernel;
mod privileges;
mod tracing_program;

pub use attached::{Attached, Hook, attached, program_name};
pub use kernel::{Release, TCX, full_release, no_tcx};
pub use tracing_program::WATCH;

/// What this kernel can do beyond what is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one answer to one question each")]
pub struct Features {
    /// The kernel's version.
    pub release: Release,
    /// Programs are attached by tcx links (6.6), else as classic filters in clsact.
    pub tcx: bool,
    /// A program can watch `nf_queue`, so that a packet handed to user space is known not to be a candidate any more.
    pub watch_nf_queue: bool,
    /// Containers' own counters count what is redirected to them.
    pub counts_redirected: bool,
    /// Namespaces of containers can be entered, to see their interfaces and addresses.
    pub enter_namespaces: bool,
}

/// Why netfast cannot start, or cannot do one thing.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A capability(7) is missing.
    #[error("missing capability {name}, needed to {purpose}")]
    Capability {
        /// Its name.
        name: &'static str,
        /// What for.
        purpose: &'static str,
    },
    /// The kernel refuses although the capability is there.
    #[error(
        "the kernel does not permit netfast to {what}, although it has the capability; needed to {purpose}: {source}"
    )]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What for.
        purpose: &'static str,
        /// How it refused.
        source: std::io::Error,
    },
    /// The kernel is too old, or built without it.
    #[error("kernel {release} has no {what}, needed to {purpose}")]
    Kernel {
        /// The kernel.
        release: Release,
        /// What it lacks.
        what: &'static str,
        /// What for.
        purpose: &'static str,
        /// What kernels have it, for the remedy.
        found_in: &'static str,
    },
    /// The place for pins is not in a bpffs.
    #[error("{} is not in a BPF filesystem, needed to pin programs and tables", dir.display())]
    NotBpffs {
        /// `--pin-dir`.
        dir: std::path::PathBuf,
        /// Where one is usually mounted, nearest to `dir`.
        mount_point: std::path::PathBuf,
    },
    /// A directory cannot be used.
    #[error("cannot write to {}, needed to {purpose}: {source}", dir.display())]
    Directory {
        /// The directory.
        dir: std::path::PathBuf,
        /// What for.
        purpose: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl ProbeError {
    /// Whether it is about who asks, not about what the kernel can do.
    pub fn is_about_privileges(&self) -> bool {
        match self {
            Self::Capability { .. } | Self::Refused { .. } | Self::Directory { .. } => true,
            Self::Kernel { .. } | Self::NotBpffs { .. } => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Capability { name, .. } => format!("Run netfast as root, or with {name}."),
            Self::Refused { .. } => {
                "A kernel setting, kernel lockdown, a security module, seccomp or a user namespace forbids it. If \
                netfast runs in a container, run it on the host."
                    .into()
            }
            Self::Kernel { found_in, .. } => format!("It is in {found_in}."),
            Self::NotBpffs { mount_point, .. } => {
                format!("Mount one: mount -t bpf bpf {}", mount_point.display())
            }
            Self::Directory { dir, .. } => {
                format!(
                    "Run it as a user who may write to {}, or name another directory.",
                    dir.display()
                )
            }
        }
    }
}

/// One thing that was tried.
#[derive(Debug)]
pub struct Tried {
    /// What.
    pub what: &'static str,
    /// What is lost without it; `None` if netfast cannot run without it.
    pub without: Option<&'static str>,
    /// What was found, in words, or why it is not there.
    pub outcome: Result<String, ProbeError>,
}

/// Tries everything that `netfast run` needs; the error is the first thing missing.
pub fn required(pin_dir: &Path, run_dir: &Path) -> Result<Features, ProbeError> {
    let mut features = Features {
        release: kernel::release(),
        tcx: false,
        watch_nf_queue: false,
        counts_redirected: false,
        enter_namespaces: false,
    };
    for tried in try_all(pin_dir, run_dir) {
        match (tried.outcome, tried.without) {
            (Err(error), None) => return Err(error),
            (outcome, _) => match tried.what {
                TCX => features.tcx = outcome.is_ok(),
                WATCH => features.watch_nf_queue = outcome.is_ok(),
                counters::WHAT => features.counts_redirected = outcome.is_ok(),
                privileges::ENTER => features.enter_namespaces = outcome.is_ok(),
                _ => {}
            },
        }
    }
    Ok(features)
}

/// Tries everything. Without the privileges that are needed, the kernel would refuse all the rest for that reason
/// alone: then it is not tried.
pub fn try_all(pin_dir: &Path, run_dir: &Path) -> Vec<Tried> {
    let release = kernel::release();
    let mut tried = privileges::try_all();
    if tried
        .iter()
        .all(|tried| tried.outcome.is_ok() || tried.without.is_some())
    {
        let types = Btf::from_sys_fs().ok();
        tried.extend(kernel::try_all(release));
        tried.push(counters::try_redirected(release, types.as_ref()));
        tried.push(tracing_program::try_watch(release, types.as_ref()));
    }
    tried.extend(filesystem::try_all(pin_dir, run_dir));
    tried
}
