//! Exit codes.

/// What the process exits with, besides 0. The numbers are part of the interface (`netfast --help`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Failed, for a reason without a code of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration file is wrong.
    BadConfig = 3,
    /// Privileges are missing.
    Privileges = 4,
    /// The kernel lacks something that netfast needs.
    Unsupported = 5,
    /// Docker is not reachable at start.
    RuntimeUnavailable = 6,
    /// netfast is not running here and nothing of it is attached.
    NotRunning = 7,
    /// Another netfast runs with the same `--run-dir`, or works on the same interfaces with others.
    AlreadyRunning = 8,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Failed,
        Self::Usage,
        Self::BadConfig,
        Self::Privileges,
        Self::Unsupported,
        Self::RuntimeUnavailable,
        Self::NotRunning,
        Self::AlreadyRunning,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}
