//! The kernel's BPF, tried piece by piece.

use std::{fmt, io};

use aya::{
    programs::{ProgramError, ProgramType, SchedClassifier, TcAttachType},
    sys::{BpfHelper, SyscallError, is_helper_supported, is_map_supported, is_program_supported},
};

use super::{ProbeError, Tried};

/// What [`try_all`] calls tcx.
pub const TCX: &str = "tcx";

const TCX_PURPOSE: &str = "attach beside other software's programs";
const TCX_FOUND_IN: &str = "Linux 6.6 and later";
/// What is lost without it.
const WITHOUT_TCX: &str = "programs are attached as classic tc filters (clsact), Docker's resolver answers for aliases as it does \
                           without netfast, and aliases get no virtual addresses";

/// A kernel version, as far as comparisons need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Release {
    /// Reads what uname(2) tells: `6.12.43+deb12-cloud-amd64`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

/// The running kernel's; zeros if it cannot be told.
pub(super) fn release() -> Release {
    full_release()
        .and_then(|text| Release::parse(&text))
        .unwrap_or_default()
}

/// The running kernel's whole release, `6.12.43+deb12-cloud-amd64` for instance (uname(2)).
pub fn full_release() -> Option<String> {
    Some(nix::sys::utsname::uname().ok()?.release().to_str()?.to_owned())
}

/// Helpers whose absence says that the kernel is too old; the programs use more, which came earlier.
const HELPERS: [(BpfHelper, &str, &str, &str); 3] = [
    (
        BpfHelper::BPF_FUNC_redirect_peer,
        "bpf_redirect_peer",
        "enter a container in one hop",
        "Linux 5.10 and later",
    ),
    (
        BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
        "bpf_ktime_get_coarse_ns",
        "know a flow's age",
        "Linux 5.11 and later",
    ),
    (
        BpfHelper::BPF_FUNC_csum_diff,
        "bpf_csum_diff",
        "correct checksums",
        "Linux 4.6 and later",
    ),
];

/// Tries program type, helpers, tables and attachment.
pub(super) fn try_all(release: Release) -> Vec<Tried> {
    let mut tried = vec![Tried {
        what: "kernel",
        without: None,
        outcome: Ok(format!(
            "Linux {}",
            full_release().as_deref().unwrap_or("of unknown version")
        )),
    }];
    tried.push(required(
        "BPF programs for tc",
        is_program_supported(ProgramType::SchedClassifier).map_err(io_error),
        ("load a program", "see packets"),
        (
            release,
            "Linux 4.1 and later, built with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF",
        ),
    ));
    for (helper, name, purpose, found_in) in HELPERS {
        let supported = is_helper_supported(ProgramType::SchedClassifier, helper).map_err(io_error);
        tried.push(required(
            name,
            supported,
            ("load a program", purpose),
            (release, found_in),
        ));
    }
    tried.push(required(
        "BPF tables (LRU hash)",
        is_map_supported(aya::maps::MapType::LruHash).map_err(|error| error.io_error),
        ("create a table", "remember flows"),
        (release, "Linux 4.10 and later"),
    ));
    tried.push(Tried {
        what: TCX,
        without: Some(WITHOUT_TCX),
        outcome: tcx(release),
    });
    tried
}

/// tcx where the kernel does not have it, for who is to do without although it does.
pub fn no_tcx() -> Tried {
    Tried {
        what: TCX,
        without: Some(WITHOUT_TCX),
        outcome: Err(ProbeError::Kernel {
            release: release(),
            what: TCX,
            purpose: TCX_PURPOSE,
            found_in: TCX_FOUND_IN,
        }),
    }
}

/// Asks what is attached to the loopback device: kernels without tcx do not know the question (`EINVAL`).
fn tcx(release: Release) -> Result<String, ProbeError> {
    let purpose = TCX_PURPOSE;
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Ok(format!("to {purpose}")),
        Err(error) => match io_error(error) {
            error if refused(&error) => Err(ProbeError::Refused {
                what: "tell what is attached",
                purpose,
                source: error,
            }),
            _ => Err(ProbeError::Kernel {
                release,
                what: TCX,
                purpose,
                found_in: TCX_FOUND_IN,
            }),
        },
    }
}

fn required(
    what: &'static str,
    supported: Result<bool, io::Error>,
    (action, purpose): (&'static str, &'static str),
    (release, found_in): (Release, &'static str),
) -> Tried {
    let outcome = match supported {
        Ok(true) => Ok(format!("to {purpose}")),
        Err(source) if refused(&source) => Err(ProbeError::Refused {
            what: action,
            purpose,
            source,
        }),
        Ok(false) | Err(_) => Err(ProbeError::Kernel {
            release,
            what,
            purpose,
            found_in,
        }),
    };
    Tried {
        what,
        without: None,
        outcome,
    }
}

/// Whether the kernel said no to us, not to the call.
pub(super) fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// What the system call said.
fn io_error(error: ProgramError) -> io::Error {
    if let ProgramError::SyscallError(SyscallError { io_error, .. }) = error {
        io_error
    } else {
        io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use netfast_common::abi::Program;

    use super::*;

    #[test]
    fn what_is_lost_without_tcx_is_what_its_programs_are_for() {
        let lost = Program::Answer.without().unwrap();
        assert!(WITHOUT_TCX.ends_with(lost), "{WITHOUT_TCX}");
        let tried = no_tcx();
        assert_eq!(tried.outcome.unwrap_err().remedy(), "It is in Linux 6.6 and later.");
    }

    #[test]
    fn releases_are_read_and_compared() {
        let debian = Release::parse("6.1.0-37-cloud-amd64").unwrap();
        assert_eq!(debian, Release { major: 6, minor: 1 });
        assert_eq!(Release::parse("6.18-rc1").unwrap(), Release { major: 6, minor: 18 });
        assert!(debian < Release { major: 6, minor: 6 } && Release { major: 5, minor: 15 } < debian);
        assert_eq!(Release::parse("mainline"), None);
    }
}
