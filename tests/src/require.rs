//! What a test needs of the machine. A missing need fails the test, loudly, so that a green run has tested what it
//! claims; with `NETFAST_TEST_ALLOW_SKIP=1` it is a loud SKIP instead.

use std::{env, path::Path};

use nix::{sys::utsname::uname, unistd::geteuid};

use crate::{docker_host::DockerHost, programs};

/// The variable that turns failures for missing needs into skips.
pub const ALLOW_SKIP: &str = "NETFAST_TEST_ALLOW_SKIP";

/// One thing that a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Effective user 0: namespaces, BPF.
    Root,
    /// At least this kernel (major, minor).
    Kernel(u32, u32),
    /// A machine on which a [`DockerHost`] can be started.
    Docker,
    /// A program in PATH.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

impl Need {
    /// Why the machine lacks it; `Ok` if it does not.
    pub fn met(self) -> Result<(), String> {
        match self {
            Self::Root if geteuid().is_root() => Ok(()),
            Self::Root => Err("root is needed: run it by `cargo xtask test` as root".to_owned()),
            Self::Kernel(major, minor) => {
                let (have, release) = kernel_version();
                if have >= (major, minor) {
                    return Ok(());
                }
                Err(format!(
                    "kernel {major}.{minor} or newer is needed, this one is {release}"
                ))
            }
            Self::Docker => DockerHost::available(),
            Self::Program(name) if programs::find(name).is_some() => Ok(()),
            Self::File(path) if Path::new(path).exists() => Ok(()),
            Self::File(path) => Err(format!("{path} is missing: `cargo xtask setup` installs it")),
            Self::Program(name) => Err(format!("`{name}` is not in PATH: `cargo xtask setup` installs it")),
        }
    }
}

/// Whether all `needs` are met. If not: panics, or, where skips are allowed, says SKIP and why and returns `false`,
/// upon which the test returns.
#[must_use = "a test whose needs are not met must return"]
pub fn needs(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.met().err()).collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join("; ");
    assert!(
        env::var(ALLOW_SKIP).is_ok_and(|value| value == "1"),
        "this test cannot run here: {missing} (set {ALLOW_SKIP}=1 to skip such tests)"
    );
    eprintln!("SKIP: {missing}");
    false
}

/// Version of the running kernel as (major, minor), and its whole release text.
pub fn kernel_version() -> ((u32, u32), String) {
    let release = uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    ((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)), release)
}
