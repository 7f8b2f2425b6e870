//! bpf-linker: it reads the compiler's LLVM bitcode, so its own LLVM must not be older than the compiler's.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use netfast_tests::{cmd, programs};

use super::{Lacking, Row, State, apt, compiler};
use crate::workspace::{self, show};

/// The version that setup installs; one that is there already is used whatever its version.
const VERSION: &str = "0.13.0";

/// The row of the table.
pub fn row() -> Row {
    let state = find().map_or_else(
        || {
            State::Otherwise(format!(
                "`cargo install bpf-linker` {VERSION}, with the LLVM of that compiler"
            ))
        },
        |path| {
            let version = cmd::run(Command::new(&path).arg("--version")).unwrap_or_else(|error| error.to_string());
            State::Found(format!("{version}: {}", path.display()))
        },
    );
    Row {
        name: "bpf-linker".to_owned(),
        purpose: "linking the BPF programs",
        state,
    }
}

/// Builds and installs it, unless there is one.
pub fn install() -> Result<()> {
    if find().is_some() {
        return Ok(());
    }
    let llvm = compiler::required()?.llvm;
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let package = format!("llvm-{llvm}-dev");
    if !prefix.join("bin/llvm-config").exists() {
        if apt::candidate(&package).is_none() {
            return Err(Lacking(format!(
                "bpf-linker is built with {package}, which apt does not have here: install LLVM {llvm} from \
                 https://apt.llvm.org, or put a bpf-linker from https://github.com/aya-rs/bpf-linker/releases into \
                 PATH; then run `cargo xtask setup` again"
            ))
            .into());
        }
        apt::install(&[&package])?;
    }
    println!("Installing bpf-linker {VERSION} with LLVM {llvm}, by cargo; this takes a minute or two");
    // LLVM_PREFIX is for bpf-linker itself, the other for llvm-sys; without them another llvm-config in PATH, of
    // another version, would be asked.
    show(
        workspace::cargo()
            .args([
                "install",
                "bpf-linker",
                "--version",
                VERSION,
                "--locked",
                "--no-default-features",
            ])
            .args(["--features", &format!("llvm-{llvm}")])
            .env("LLVM_PREFIX", &prefix)
            .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix),
    )
}

fn find() -> Option<PathBuf> {
    programs::find("bpf-linker").or_else(|| {
        workspace::cargo_bin()
            .map(|bin| bin.join("bpf-linker"))
            .filter(|path| path.is_file())
    })
}
