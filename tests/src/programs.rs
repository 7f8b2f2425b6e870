//! Finding the programs that the laboratory runs.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result};

static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// From here on [`netfast`] and [`traffic`] are those in `dir`, where nothing else was set: a program that has just
/// built them, of another profile than its own, knows better than the default. The first call counts.
pub fn use_built(dir: &Path) {
    BUILT.get_or_init(|| dir.to_owned());
}

/// The `netfast` binary: `NETFAST_BIN`, or the one beside the running program in cargo's target directory.
pub fn netfast() -> Result<PathBuf> {
    built("NETFAST_BIN", "netfast")
}

/// The `netfast-traffic` binary: `NETFAST_TRAFFIC`, or the one beside the running program in cargo's target directory.
pub fn traffic() -> Result<PathBuf> {
    built("NETFAST_TRAFFIC", "netfast-traffic")
}

/// Where `program` is in PATH, or in the directories of system programs that a user's PATH may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn built(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable).map(PathBuf::from) {
        return path
            .is_file()
            .then_some(path.clone())
            .with_context(|| format!("{variable}={} is not a file", path.display()));
    }
    if let Some(dir) = BUILT.get() {
        return Ok(dir.join(name));
    }
    // A test runs from target/PROFILE/deps, another program of the workspace from target/PROFILE.
    let exe = env::current_exe().context("cannot tell where the running program is")?;
    exe.ancestors()
        .skip(1)
        .take(2)
        .map(|dir: &Path| dir.join(name))
        .find(|file| file.is_file())
        .with_context(|| {
            format!(
                "no `{name}` beside {}: build it (`cargo xtask build`), or set {variable} to its path",
                exe.display()
            )
        })
}
