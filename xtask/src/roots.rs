//! Roots of Debian releases: directories with a minimal Debian, in which engines and packages are tried. Nothing of the
//! machine's is changed.
//!
//! A root is made by debootstrap from the machine's own source of Debian packages, checked with its keys, and kept in
//! target/engines: the next run finds it. Delete it there to have the release's newest packages.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
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
    let dir = target_dir()?.join("engines").join(name(suite, packages));
    if !dir.is_dir() {
        make(suite, packages, &dir)?;
    }
    Ok(dir)
}

/// What the directory of a root is called: after its packages; where these are too many for a name, after their number and a hash of
/// them.
fn name(suite: &str, packages: &str) -> String {
    /// A file's name has 255 bytes, and the unfinished root's has five more than this.
    const LONGEST: usize = 128;
    let name = format!("{suite}-{}", packages.replace(',', "-"));
    if name.len() <= LONGEST {
        return name;
    }
    let mut hasher = DefaultHasher::new();
    packages.hash(&mut hasher);
    format!(
        "{suite}-{}-packages-{:016x}",
        packages.split(',').count(),
        hasher.finish()
    )
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
    // What it mounts in the root goes with it, also when it is killed.
    let mut debootstrap = Command::new("unshare");
    debootstrap
        .args(["--mount", "--propagation", "private", "debootstrap"])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_root_fits_and_tells_its_packages_from_others() {
        assert_eq!(name("trixie", "systemd,procps"), "trixie-systemd-procps");
        let [many, others] = ["jq", "socat"].map(|last| name("trixie", &format!("{}{last}", "iproute2,".repeat(40))));
        assert!(many.len() < 128 && many.starts_with("trixie-41-packages-"), "{many}");
        assert_ne!(many, others);
    }
}
