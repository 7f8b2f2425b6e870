//! Why something cannot be done to the host.

use std::{io, path::PathBuf};

use aya::{BtfError, EbpfError, maps::MapError, pin::PinError, programs::ProgramError};

use super::{AttachError, pins::PinsError, resolver, routes, vet, xdp};
use crate::diff::Target;

/// Why something cannot be done to the host.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It was built without.
    #[error("this build of netfast has no BPF programs in it (it was built with AYA_BUILD_SKIP)")]
    NoObject,
    /// It was built from other sources.
    #[error("the BPF object has no {name}")]
    NotInObject {
        /// The program or map.
        name: &'static str,
    },
    /// The kernel or the parser refused.
    #[error("cannot load {what}")]
    Load {
        /// What.
        what: &'static str,
        /// Why.
        source: Box<EbpfError>,
    },
    /// The verifier refused, or the kernel did.
    #[error("the kernel does not take the BPF program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The kernel has no type information.
    #[error("cannot read the kernel's BTF")]
    Btf(#[source] Box<BtfError>),
    /// What the programs say cannot be read.
    #[cfg(feature = "bpf-log")]
    #[error("cannot read what the BPF programs say")]
    Log {
        /// Why.
        source: Box<aya_log::Error>,
    },
    /// A map cannot be read or written.
    #[error("cannot access the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// A program cannot be attached or detached.
    #[error("{at}")]
    Attach {
        /// Where.
        at: Target,
        /// Why.
        source: AttachError,
    },
    /// A client's way to virtual addresses cannot be made or taken away.
    #[error("the network namespace of process {pid}")]
    Way {
        /// A process of the container.
        pid: u32,
        /// Why.
        source: routes::WayError,
    },
    /// Docker's rules for its resolver cannot be taken out of a container, or put back.
    #[error("the network namespace of process {pid}")]
    Resolver {
        /// A process of the container.
        pid: u32,
        /// Why.
        source: resolver::ResolverError,
    },
    /// A container's interface does not take frames.
    #[error("XDP")]
    Xdp(#[source] xdp::XdpError),
    /// The host's programs cannot be led past docker-proxy, or cannot be left to it again.
    #[error("the host's cgroups and docker-proxy")]
    Localhost(#[source] io::Error),
    /// An interface does not take other segments.
    #[error("the size of segments")]
    Segments(#[source] routes::WayError),
    /// The host's route for the pool of virtual addresses cannot be made or taken away.
    #[error("the host's route for virtual addresses")]
    Pool(#[source] routes::WayError),
    /// The pins cannot be made.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Flows cannot be vetted.
    #[error("conntrack cannot be asked about flows")]
    Vet(#[source] vet::VetError),
    /// A map cannot be pinned.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: Box<PinError>,
    },
    /// The file system refused.
    #[error("cannot access {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
