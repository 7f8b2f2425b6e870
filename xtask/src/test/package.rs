//! What the ring `package` needs: packages of three versions, tarballs, and clean Debians to install them in.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::previous;
use crate::{build, dist::Parts, roots, survival::next_abi, workspace::target_dir};

/// What the package's dependencies and the tests need beyond a minimal Debian.
const INCLUDE: &str = "systemd,procps,iproute2";
/// The tests of those.
const LIFE: &str = "package::life::";
/// The tests of the RPM.
const RPM: &str = "package::rpm::";
/// The tests that the program linked with musl is for.
const MUSL: [&str; 2] = ["package::empty::", "package::container::"];
/// The test that upgrades with all that is off by default.
const OPT_INS: &str = "package::opt_ins::";
/// The releases that the package is for: code names, each with the variable of its root.
const RELEASES: [(&str, &str); 3] = [
    ("bookworm", "NETFAST_ROOT_BOOKWORM"),
    ("trixie", "NETFAST_ROOT_TRIXIE"),
    ("forky", "NETFAST_ROOT_FORKY"),
];

const HEAD: &str = "\
| Debian | its libc6 | its systemd | the package depends on | connections over all upgrades | longest wait for an answer |
| --- | --- | --- | --- | --- | --- |
";

/// Where the tests say what they saw of each release.
fn seen() -> Result<PathBuf> {
    Ok(target_dir()?.join("releases.md"))
}

/// What these tests saw, as a table; empty if none of them looks at releases.
pub fn table(tests: &[String]) -> Result<String> {
    if !tests.iter().any(|test| test.starts_with(LIFE)) {
        return Ok(String::new());
    }
    let lines = fs::read_to_string(seen()?).unwrap_or_default();
    Ok(format!("\n{HEAD}{lines}"))
}

/// The variables that these tests read. What takes long to build, and only others need, is left out.
pub fn environment(tests: &[String]) -> Result<Vec<(&'static str, PathBuf)>> {
    let is_wanted = |module: &str| tests.iter().any(|test| test.starts_with(module));
    let mut variables = Vec::new();
    let mut next_abi = None;
    if is_wanted(LIFE) {
        variables.push(("NETFAST_DEB_PREVIOUS", previous::deb()?));
    }
    if [LIFE, OPT_INS, RPM].into_iter().any(is_wanted) {
        next_abi = Some(next_abi::build(false)?);
    }
    // Both have taken the place of what the tests use.
    build::build(false)?;
    let parts = Parts::make(&build::build_for_packages()?)?;
    let version = env!("CARGO_PKG_VERSION");
    if let Some(next_abi) = next_abi {
        let next = parts.with_program(&next_abi)?;
        let version = format!("{version}+next");
        variables.push(("NETFAST_DEB_NEXT", next.deb(&version)?));
        if is_wanted(RPM) {
            variables.push(("NETFAST_RPM_NEXT", next.rpm(&version)?));
            variables.push(("NETFAST_RPM", parts.rpm(env!("CARGO_PKG_VERSION"))?));
        }
    }
    if is_wanted(LIFE) {
        // `~` sorts before the end of a version.
        variables.push(("NETFAST_DEB_OLD", parts.deb(&format!("{version}~rc"))?));
        for (suite, variable) in RELEASES {
            variables.push((variable, roots::debian(suite, INCLUDE)?));
        }
        let seen = seen()?;
        if seen.exists() {
            fs::remove_file(&seen)?;
        }
        variables.push(("NETFAST_RELEASES", seen));
    }
    if MUSL.into_iter().any(is_wanted) {
        variables.push(("NETFAST_TARBALL_MUSL", parts.with_musl()?.tarball(version)?));
    }
    variables.push(("NETFAST_DEB_NEW", parts.deb(version)?));
    variables.push(("NETFAST_TARBALL", parts.tarball(version)?));
    variables.push(("NETFAST_DEBIAN_ROOT", own()?));
    Ok(variables)
}

/// This machine's release, with a Prometheus, and with rpm, which Debian has for other distributions' packages.
fn own() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite = suite.context("/etc/os-release has no VERSION_CODENAME")?;
    roots::debian(suite, &format!("{INCLUDE},prometheus,rpm"))
}
