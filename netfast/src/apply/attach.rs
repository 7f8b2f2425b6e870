//! Programs on hooks: tcx links that are pinned, or classic filters in clsact where tcx does not exist.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
    },
    sys::SyscallError,
};
use nix::{
    net::if_::{if_indextoname, if_nametoindex},
    sched::{CloneFlags, setns},
};

use crate::{
    apply::pins::{Pins, remove_file},
    diff::{Attachment, Hook},
    observe::NetlinkError,
    plan::Loopback,
};

/// The place of our classic filters among others: after what people number by hand, before what the kernel numbers
/// by itself (49152 and down, `tcf_auto_prio`).
const PRIORITY: u16 = 49_000;
/// The index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`, `net/flow.h`).
const LOOPBACK_IFINDEX: u32 = 1;
/// Their handle within that.
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// How programs are attached on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// tcx links (Linux 6.6).
    Tcx,
    /// Classic filters.
    Clsact,
}

impl Mode {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Where to attach.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The interface.
    pub ifindex: u32,
    /// Its name, as last seen: the kernel is asked by name.
    pub name: &'a str,
    /// Which of its hooks.
    pub hook: Hook,
}

impl Place<'_> {
    fn attach_type(self) -> TcAttachType {
        match self.hook {
            Hook::Ingress => TcAttachType::Ingress,
            Hook::Egress => TcAttachType::Egress,
        }
    }

    /// Whether the name still is that interface's.
    pub(super) fn check(self) -> Result<(), AttachError> {
        if if_nametoindex(self.name) == Ok(self.ifindex) {
            Ok(())
        } else {
            Err(AttachError::Gone)
        }
    }
}

/// Attaches a program to an interface, last on its hook: programs that others attached before see all packets that we
/// see. Behind it is only our own that it must run before.
pub fn attach(
    program: &mut SchedClassifier,
    pins: &Pins,
    mode: Mode,
    attachment: &Attachment,
    place: Place<'_>,
) -> Result<(), AttachError> {
    place.check()?;
    match mode {
        Mode::Tcx => {
            let behind = attachment.runs_before().map(|behind| pins.link(&behind));
            let behind = behind.filter(|behind| behind.exists());
            attach_tcx(program, place, behind.as_deref(), pins.link(attachment))
        }
        Mode::Clsact => attach_filter(program, place),
    }
}

/// Attaches a program before the pinned link `behind`, or else last on its hook, and pins it.
fn attach_tcx(
    program: &mut SchedClassifier,
    place: Place<'_>,
    behind: Option<&Path>,
    path: PathBuf,
) -> Result<(), AttachError> {
    // The order holds the number of its descriptor, so it must stay open meanwhile.
    let behind = match behind {
        Some(behind) => Some(SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(
            behind,
        )?))?),
        None => None,
    };
    let order = match &behind {
        Some(behind) => LinkOrder::before_link(behind)?,
        None => LinkOrder::last(),
    };
    let id = program.attach_with_options(place.name, place.attach_type(), TcAttachOptions::TcxOrder(order))?;
    // Dropped before it is pinned, it detaches.
    let link = FdLink::try_from(program.take_link(id)?)?;
    place.check()?;
    pin(link, path)
}

/// Attaches a program to the egress of the loopback interface in another network namespace. The kernel looks for an
/// interface in the namespace of the thread that asks.
pub fn attach_inside(
    program: &mut SchedClassifier,
    pins: &Pins,
    attachment: &Attachment,
    loopback: Loopback,
) -> Result<(), AttachError> {
    let behind = attachment.runs_before().map(|behind| pins.link(&behind));
    let behind = behind.filter(|behind| behind.exists());
    in_namespace(loopback.pid, loopback.netns, || {
        let name = if_indextoname(LOOPBACK_IFINDEX).map_err(|_| AttachError::Gone)?;
        let place = Place {
            ifindex: LOOPBACK_IFINDEX,
            name: &name.to_string_lossy(),
            hook: Hook::Egress,
        };
        attach_tcx(program, place, behind.as_deref(), pins.link(attachment))
    })
}

/// Does something in the network namespace of a process, on a thread that ends there. `netns` is the namespace's inode: if
/// the process has another one by now, or is gone, so is who was meant.
pub(super) fn in_namespace<T: Send, E: From<AttachError> + Send>(
    pid: u32,
    netns: u64,
    act: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    in_namespace_at(Path::new(&format!("/proc/{pid}/ns/net")), netns, act)
}

/// The same for one that a file leads to.
pub(super) fn in_namespace_at<T: Send, E: From<AttachError> + Send>(
    path: &Path,
    netns: u64,
    act: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    let enter = || {
        let namespace = File::open(path).map_err(|_| AttachError::Gone)?;
        if namespace.metadata().map_err(|_| AttachError::Gone)?.ino() != netns {
            return Err(AttachError::Gone);
        }
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| AttachError::Enter(errno.into()))
    };
    let enter_and_act = || {
        enter()?;
        act()
    };
    thread::scope(|scope| scope.spawn(enter_and_act).join()).unwrap_or_else(|_| {
        let error = io::Error::other("the thread that went there has panicked");
        Err(AttachError::Enter(error).into())
    })
}

/// Pins a link, in place of what may be left of an earlier one.
pub fn pin(link: FdLink, path: PathBuf) -> Result<(), AttachError> {
    remove_file(&path).map_err(|source| AttachError::Pin {
        path: path.clone(),
        source,
    })?;
    link.pin(&path).map_err(|source| AttachError::Pin {
        path,
        source: io::Error::other(source),
    })?;
    Ok(())
}

/// Puts a new program into the pinned link of an interface, at once and without a gap. `false`: the interface is
/// gone, and so is the pin now.
pub fn adopt(program: &mut SchedClassifier, pins: &Pins, attachment: &Attachment) -> Result<bool, AttachError> {
    let path = pins.link(attachment);
    let link = FdLink::from(PinnedLink::from_pin(&path)?);
    match program.attach_to_link(SchedClassifierLink::try_from(link)?) {
        Ok(id) => {
            // The pin keeps it attached; our descriptor is not needed.
            drop(program.take_link(id)?);
            Ok(true)
        }
        Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
            if io_error.raw_os_error() == Some(libc::ENOLINK) =>
        {
            detach(pins, attachment)?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes the pin of a link, which detaches its program.
pub fn detach(pins: &Pins, attachment: &Attachment) -> Result<(), AttachError> {
    let path = pins.link(attachment);
    remove_file(&path).map_err(|source| AttachError::Pin { path, source })
}

/// Makes or replaces our filter; clsact must be there.
fn attach_filter(program: &mut SchedClassifier, place: Place<'_>) -> Result<(), AttachError> {
    let options = NlOptions {
        priority: PRIORITY,
        handle: HANDLE,
        classid: None,
    };
    let id = match program.attach_with_options(place.name, place.attach_type(), TcAttachOptions::Netlink(options)) {
        Err(ProgramError::TcError(TcError::NetlinkError(_))) => {
            let link = SchedClassifierLink::attached(place.name, place.attach_type(), PRIORITY, HANDLE, None)
                .map_err(|_| AttachError::Gone)?;
            program.attach_to_link(link)?
        }
        done => done?,
    };
    // A filter stays until it is removed by name; dropped, the link would remove it.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Removes our filter, found by the name of its program.
pub fn detach_filter(place: Place<'_>, program: &str) -> Result<(), AttachError> {
    match tc::qdisc_detach_program(place.name, place.attach_type(), program) {
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // The interface is gone, and with it the filter.
        Err(_) if place.check().is_err() => Ok(()),
        done => done.map_err(|error| AttachError::Program(Box::new(error.into()))),
    }
}

/// Why a program cannot be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The interface went away meanwhile, or has another name now.
    #[error("the interface is gone")]
    Gone,
    /// The namespace cannot be entered.
    #[error("cannot enter the network namespace")]
    Enter(#[source] io::Error),
    /// The kernel refused.
    #[error("the kernel refused")]
    Program(#[source] Box<ProgramError>),
    /// The driver refused, with these words.
    #[error("the driver refused: {0}")]
    Refused(String),
    /// The kernel refused the clsact qdisc.
    #[error(transparent)]
    Clsact(NetlinkError),
    /// The kernel refused to handle the link.
    #[error("the link cannot be used")]
    Link(#[source] Box<LinkError>),
    /// The link cannot be pinned or unpinned.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<ProgramError> for AttachError {
    fn from(error: ProgramError) -> Self {
        Self::Program(Box::new(error))
    }
}

impl From<LinkError> for AttachError {
    fn from(error: LinkError) -> Self {
        Self::Link(Box::new(error))
    }
}
