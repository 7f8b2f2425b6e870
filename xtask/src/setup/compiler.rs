//! The compiler of the BPF programs: any that has the source of `core`. netfast/build.rs looks for it in the same order.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use netfast_tests::{cmd, programs};

use super::{Lacking, Row, State, apt};
use crate::workspace::{self, show};

/// The name that a distribution's compiler is linked as where rustup is in use.
const LINKED: &str = "netfast-bpf";
/// The variable that names another toolchain.
const VARIABLE: &str = "NETFAST_BPF_TOOLCHAIN";
/// Debian's newest compiler, its cargo and its source; updated with the browsers that need it.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A compiler that can build the BPF programs.
#[derive(Debug)]
pub struct Compiler {
    /// What rustup calls it, or the path of rustc.
    pub name: String,
    /// `rustc --version`.
    pub version: String,
    /// Major version of its LLVM.
    pub llvm: u32,
}

/// The first compiler that has its source.
pub fn find() -> Option<Compiler> {
    if programs::find("rustup").is_none() {
        return probe("rustc in PATH", || Command::new("rustc"));
    }
    let chosen = env::var(VARIABLE).ok();
    let pinned = env::var("RUSTUP_TOOLCHAIN").ok().or_else(pinned_channel);
    let names = match chosen {
        Some(name) => vec![name],
        None => [LINKED, "nightly"]
            .into_iter()
            .map(str::to_owned)
            .chain(pinned)
            .collect(),
    };
    names.into_iter().find_map(|name| {
        probe(&name, || {
            let mut command = Command::new("rustup");
            command.args(["run", &name, "rustc"]);
            command
        })
    })
}

/// The row of the table.
pub fn row() -> Row {
    let state = match find() {
        Some(Compiler { name, version, llvm }) => State::Found(format!("{name}: {version}, LLVM {llvm}")),
        // Before apt has fetched its lists it cannot be told whether it has them.
        None if apt::usable() && apt::candidate("gcc").is_none() => State::Otherwise(format!(
            "{}, if apt turns out to have them, or by rustup",
            Way::Debian.told()
        )),
        None => State::Otherwise(how().map_or_else(|how| how, |way| way.told())),
    };
    Row {
        name: "rustc with rust-src".to_owned(),
        purpose: "building the BPF programs",
        state,
    }
}

/// Installs one, unless there is one.
pub fn install() -> Result<()> {
    if find().is_some() {
        return Ok(());
    }
    match how() {
        Ok(Way::Link) => link(),
        Ok(Way::Debian) => {
            apt::install(&PACKAGES)?;
            link()
        }
        Ok(Way::Rustup(toolchain)) => {
            println!("Adding rust-src to the toolchain {toolchain}");
            show(Command::new("rustup").args(["component", "add", "rust-src", "--toolchain", &toolchain]))
        }
        Err(advice) => Err(Lacking(advice).into()),
    }
}

/// How a missing compiler is got.
enum Way {
    /// Debian's is installed and rustup does not know of it.
    Link,
    /// By Debian's packages.
    Debian,
    /// By rustup, for this toolchain.
    Rustup(String),
}

impl Way {
    fn told(&self) -> String {
        match self {
            Self::Link => format!("`rustup toolchain link {LINKED} /usr` (the compiler of Debian is there)"),
            Self::Debian => format!("Debian packages {}", PACKAGES.join(", ")),
            Self::Rustup(toolchain) => format!("`rustup component add rust-src --toolchain {toolchain}`"),
        }
    }
}

/// The way that this machine allows, or the advice to give.
fn how() -> Result<Way, String> {
    if core_source(Path::new("/usr")).exists() && Path::new("/usr/bin/rustc").exists() {
        return Ok(Way::Link);
    }
    // The sources of aya want a compiler not older than that of the workspace.
    let wanted = env!("CARGO_PKG_RUST_VERSION");
    if apt::candidate(PACKAGES[0]).is_some_and(|version| at_least(&version, wanted)) {
        return Ok(Way::Debian);
    }
    let rustup = programs::find("rustup").and(env::var("RUSTUP_TOOLCHAIN").ok().or_else(pinned_channel));
    rustup.map(Way::Rustup).ok_or_else(|| {
        format!(
            "install rustup and run `rustup component add rust-src`, or a distribution's rustc {wanted} with its source"
        )
    })
}

fn link() -> Result<()> {
    if programs::find("rustup").is_none() {
        return Ok(());
    }
    println!("Making Debian's compiler known to rustup as the toolchain {LINKED}");
    show(Command::new("rustup").args(["toolchain", "link", LINKED, "/usr"]))
}

fn probe(name: &str, rustc: impl Fn() -> Command) -> Option<Compiler> {
    let ask = |args: &[&str]| {
        // Cargo and rustup tell us about the toolchain that built us.
        cmd::run(
            rustc()
                .args(args)
                .env_remove("RUSTC")
                .env_remove("RUSTUP_TOOLCHAIN")
                .current_dir("/"),
        )
        .ok()
    };
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
    core_source(&sysroot).exists().then_some(())?;
    let about = ask(&["-vV"])?;
    let llvm = about.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    Some(Compiler {
        name: name.to_owned(),
        version: about.lines().next()?.to_owned(),
        llvm: llvm.split('.').next()?.parse().ok()?,
    })
}

fn core_source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml")
}

/// The channel of rust-toolchain.toml.
fn pinned_channel() -> Option<String> {
    let text = std::fs::read_to_string(workspace::root().join("rust-toolchain.toml")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("channel"))?;
    Some(line.trim_matches([' ', '=', '"']).to_owned())
}

/// Whether a version, with whatever follows its first two numbers, is not older than `wanted`.
fn at_least(version: &str, wanted: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    numbers(version)
        .zip(numbers(wanted))
        .is_some_and(|(version, wanted)| version >= wanted)
}

/// The compiler, or why there is none.
pub fn required() -> Result<Compiler> {
    find().context("no compiler with the source of `core`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(at_least("1.96.0+dfsg1-1~deb12u2", "1.95"));
        assert!(at_least("1.95.0", "1.95"));
        assert!(at_least("2.0", "1.95"));
        assert!(!at_least("1.85.0+dfsg3-1", "1.95"));
        assert!(!at_least("1.9", "1.10"));
        assert!(!at_least("", "1.95"));
    }
}
