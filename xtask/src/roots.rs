//! Roots of Debian releases: directories with a minimal Debian, in which engines and packages are tried. Nothing of the
//! machine's is changed.
//!
//! A root is made by debootstrap from the machine's own source of Debian packages, checked with its keys, and kept in
//! target/engines: the next run finds it. Delete it there to have the release's newest packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use netfast_tests::programs;

use crate::{
    setup::apt,
    workspace::{show, target_dir},
};

/// The root of a release, by its code name, with these packages (separated by commas) and what they depend on.
pub fn debian(suite: &str, packages: &str) -> Result<PathBuf> {
    let name = format!("{suite}-{}", packages.replace(',', "-"));
    let dir = target_dir()?.join("engines").join(name);
    if !dir.is_dir() {
        make(suite, packages, &dir)?;
    }
    Ok(dir)
}

fn make(suite: &str, packages: &str, dir: &Path) -> Result<()> {
    if programs::find("debootstrap").is_none() {
        apt::update()?;
        apt::install(&["debootstrap"])?;
    }
    let mirror = apt::debian_mirror()?;
    println!("Making a Debian {suite} with {packages} in {}, once", dir.display());
    let part = dir.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={packages}"), suite])
        .arg(&part)
        .arg(&mirror);
    // An old debootstrap has no script for a release that is newer than it; all of late are made as sid is.
    let scripts = Path::new("/usr/share/debootstrap/scripts");
    if !scripts.join(suite).exists() {
        debootstrap.arg(scripts.join("sid"));
    }
    show(&mut debootstrap).with_context(|| {
        format!(
            "no Debian {suite} from {mirror}: set {} to another archive",
            apt::MIRROR
        )
    })?;
    let packages = part.join("var/cache/apt/archives");
    for entry in fs::read_dir(&packages).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            fs::remove_file(entry.path())?;
        }
    }
    // Only a whole one is found by its name.
    fs::rename(&part, dir)?;
    Ok(())
}
