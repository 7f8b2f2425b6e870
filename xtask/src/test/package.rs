//! What the ring `package` needs: two Debian packages, and a clean Debian to install them in.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use netfast_tests::programs;

use crate::{
    build,
    dist::Parts,
    setup::apt,
    survival::next_abi,
    workspace::{show, target_dir},
};

/// What the package's dependencies and the tests need beyond a minimal Debian.
const INCLUDE: &str = "systemd,procps,iproute2,prometheus";
const MIRROR: &str = "http://deb.debian.org/debian";

/// The variables that the test reads.
pub fn environment() -> Result<[(&'static str, PathBuf); 5]> {
    // First, for the real build takes its place.
    let next_abi = next_abi::build()?;
    let parts = Parts::make(&build::build(true)?.netfast)?;
    let version = env!("CARGO_PKG_VERSION");
    Ok([
        // `~` sorts before the end of a version.
        ("NETFAST_DEB_OLD", parts.deb(&format!("{version}~previous"))?),
        ("NETFAST_DEB_NEW", parts.deb(version)?),
        (
            "NETFAST_DEB_NEXT",
            parts.with_program(&next_abi)?.deb(&format!("{version}+next"))?,
        ),
        ("NETFAST_TARBALL", parts.tarball(version)?),
        ("NETFAST_DEBIAN_ROOT", debian()?),
    ])
}

/// A minimal Debian of this machine's release, made once for each list of packages.
fn debian() -> Result<PathBuf> {
    let dir = target_dir()?.join(format!("debian-{}", INCLUDE.replace(',', "-")));
    if dir.is_dir() {
        return Ok(dir);
    }
    if programs::find("debootstrap").is_none() {
        apt::update()?;
        apt::install(&["debootstrap"])?;
    }
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.context("/etc/os-release has no VERSION_CODENAME")?;
    let part = dir.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    show(
        Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={INCLUDE}"), suite])
            .arg(&part)
            .arg(MIRROR),
    )?;
    // Only a whole one is found by its name.
    fs::rename(&part, &dir)?;
    Ok(dir)
}
