//! The program linked statically with musl: it needs no C library, so it runs on every distribution, or on none.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use netfast_tests::{cmd, programs};

use crate::{
    setup::Lacking,
    workspace::{Profile, cargo, root, show, target_dir},
};

/// What the names of its files end in.
pub const SUFFIX: &str = "-musl";

/// What the licences of the libraries that are linked into it want to be said, in the sources.
pub const NOTICE: &str = "netfast/dist/musl-notice";

/// Rust's target for this machine's processor.
fn triple() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// Builds it, as for a release, and returns the program.
pub fn build() -> Result<PathBuf> {
    let triple = triple();
    if !has_library(&triple) {
        fetch_library(&triple)?;
    }
    let mut build = cargo();
    build
        .args(["build", "--bins", "--package", "netfast", "--target", &triple])
        .args(Profile::Packaged.arguments());
    show(&mut build)?;
    Ok(target_dir()?.join(triple).join(Profile::Packaged.dir()).join("netfast"))
}

/// Whether the toolchain in use has the standard library for it.
fn has_library(triple: &str) -> bool {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "target-libdir", "--target", triple]);
    let dir = cmd::run(rustc.current_dir(root()));
    dir.is_ok_and(|dir| PathBuf::from(dir).is_dir())
}

fn fetch_library(triple: &str) -> Result<()> {
    let lacking = || {
        Lacking::new(format!(
            "the toolchain has no standard library for {triple}: `rustup target add {triple}`"
        ))
    };
    if programs::find("rustup").is_none() {
        return Err(lacking().into());
    }
    show(
        Command::new("rustup")
            .args(["target", "add", triple])
            .current_dir(root()),
    )
    .with_context(lacking)
}
