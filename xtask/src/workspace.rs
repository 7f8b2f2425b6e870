//! Where the workspace is, and cargo in it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};
use netfast_tests::cmd;
use serde::Deserialize;

/// The workspace's root directory.
pub fn root() -> PathBuf {
    // Cargo sets the variable when it runs us; the other is where we were compiled.
    let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask)
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Cargo's target directory, as the environment and the configuration have it.
pub fn target_dir() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    if let Some(dir) = DIR.get() {
        return Ok(dir.clone());
    }
    let json = cmd::run(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let Metadata { target_directory } = serde_json::from_str(&json).context("`cargo metadata` printed other JSON")?;
    Ok(DIR.get_or_init(|| target_directory).clone())
}

/// How cargo compiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// In the shortest time.
    Debug,
    /// As fast as it gets.
    Release,
    /// As small as it gets: what packages have.
    Packaged,
}

impl Profile {
    /// Its name, which is that of its directory in cargo's target directory, too, but for the first.
    const fn name(self) -> &'static str {
        match self {
            Self::Debug => "dev",
            Self::Release => "release",
            Self::Packaged => "packaged",
        }
    }

    /// What says so on cargo's command line.
    pub fn arguments(self) -> [&'static str; 2] {
        ["--profile", self.name()]
    }

    /// Where cargo leaves what it has built so, below the target directory.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release | Self::Packaged => self.name(),
        }
    }
}

/// The cargo that runs us, in the workspace's root.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("PATH", path());
    command
}

/// PATH with the directory that `cargo install` fills: a distribution's cargo has it nowhere.
pub fn path() -> OsString {
    let old = env::var_os("PATH").unwrap_or_default();
    let Some(bin) = cargo_bin() else { return old };
    let mut dirs: Vec<PathBuf> = env::split_paths(&old).collect();
    if !dirs.contains(&bin) {
        dirs.push(bin);
    }
    env::join_paths(dirs).unwrap_or(old)
}

/// Where `cargo install` puts programs.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .map(|dir| dir.join("bin"))
}

/// Runs `command` with our own standard output and error; an error if it fails.
pub fn show(command: &mut Command) -> Result<()> {
    let line = cmd::line_of(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({})", cmd::how_it_ended(status));
    }
    Ok(())
}
