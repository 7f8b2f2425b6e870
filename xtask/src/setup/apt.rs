//! Debian packages: named, installed without questions, and without starting the services that come with them.

use std::{env, fs, io::ErrorKind, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};
use netfast_tests::{cmd, programs};
use nix::unistd::geteuid;

use super::Lacking;
use crate::workspace::show;

/// Asked by invoke-rc.d whether a package may start its service; 101 is "no".
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// What we write there.
const FORBID: &str = "#!/bin/sh\n# netfast's set-up: no service may start while it installs packages.\nexit 101\n";

/// Where Debian's archive is, for machines whose apt does not know.
pub const MIRROR: &str = "NETFAST_DEBIAN_MIRROR";

/// Packages that come with services.
const SERVICES: [(&str, &[&str]); 3] = [
    ("docker.io", &["docker.service", "docker.socket", "containerd.service"]),
    ("nginx-light", &["nginx.service"]),
    ("haproxy", &["haproxy.service"]),
];

/// The package that has what `package` has on this release of the distribution.
pub fn real_package(package: &'static str) -> &'static str {
    // Debian 13 split the client off; before, it came with the engine.
    if package == "docker-cli" && candidate("docker-cli").is_none() {
        "docker.io"
    } else {
        package
    }
}

/// The version that apt would install; `None` if it has none, or there is no apt.
pub fn candidate(package: &str) -> Option<String> {
    let policy = cmd::run(Command::new("apt-cache").args(["policy", package])).ok()?;
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Whether packages can be installed: by root, with apt.
pub fn usable() -> bool {
    geteuid().is_root() && programs::find("apt-get").is_some()
}

/// Refreshes apt's lists, once per run: a fresh machine has none, or old ones.
pub fn update() -> Result<()> {
    static DONE: std::sync::Once = std::sync::Once::new();
    let mut result = Ok(());
    DONE.call_once(|| result = show(apt_get().arg("update")));
    result.context("apt cannot fetch its lists")
}

/// Installs `packages`, saying which.
pub fn install(packages: &[&str]) -> Result<()> {
    if !usable() {
        advise(packages);
        return Err(Lacking(format!(
            "packages to be installed by hand, as shown: {}",
            packages.join(" ")
        ))
        .into());
    }
    println!("Installing the Debian packages {}", packages.join(", "));
    let _no_services = ServicesForbidden::new()?;
    show(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )?;
    // Nor at the next boot: the laboratory starts its own engines, in network namespaces.
    for (package, services) in SERVICES {
        if packages.contains(&package) && Path::new("/run/systemd/system").exists() {
            show(Command::new("systemctl").arg("disable").args(services))?;
        }
    }
    Ok(())
}

/// Says how to install `packages` by hand.
pub fn advise(packages: &[&str]) {
    if !packages.is_empty() {
        println!("Run as root, on Debian or Ubuntu:");
        println!(
            "  apt-get update && apt-get install --yes --no-install-recommends {}",
            packages.join(" ")
        );
        println!("Other distributions name them alike; then run `cargo xtask setup` again.");
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Somebody else's apt run, unattended upgrades for instance, holds the lock for a while.
    command
        .args(["-o", "DPkg::Lock::Timeout=300", "--quiet"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives no package starts its service: docker.io's would run an engine in the machine's own network.
struct ServicesForbidden {
    before: Option<(Vec<u8>, fs::Permissions)>,
}

impl ServicesForbidden {
    fn new() -> Result<Self> {
        let before = match fs::read(POLICY) {
            Ok(text) => Some((text, fs::metadata(POLICY)?.permissions())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {POLICY}")),
        };
        let this = Self { before };
        fs::write(POLICY, FORBID).with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(this)
    }
}

impl Drop for ServicesForbidden {
    fn drop(&mut self) {
        let restored = match &self.before {
            Some((text, permissions)) => {
                fs::write(POLICY, text).and_then(|()| fs::set_permissions(POLICY, permissions.clone()))
            }
            None => fs::remove_file(POLICY),
        };
        if let Err(error) = restored {
            eprintln!("xtask: cannot restore {POLICY}: {error}");
        }
    }
}

/// Debian's archives that this machine's packages come from, with their suites: the release, its updates, those for security.
pub fn debian_sources() -> Result<Vec<(String, String)>> {
    let targets = cmd::run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))?;
    let found = sources(&targets);
    if found.is_empty() {
        return Err(
            Lacking::new("apt has no source of Debian's main archive: run `apt-get update` if it has one").into(),
        );
    }
    Ok(found)
}

/// Those of Debian's in `apt-get indextargets`: origin, component, address, suite.
fn sources(targets: &str) -> Vec<(String, String)> {
    let lines = targets.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut found: Vec<_> = lines
        .filter_map(|line| match line.as_slice() {
            ["Debian", "main", uri, suite] => Some(((*uri).to_owned(), (*suite).to_owned())),
            _ => None,
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Debian's archive: where the machine's own packages come from.
pub fn debian_mirror() -> Result<String> {
    if let Some(mirror) = env::var(MIRROR).ok().filter(|mirror| !mirror.is_empty()) {
        return Ok(mirror);
    }
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let targets = cmd::run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)",
        "Created-By: Packages",
    ]))
    .unwrap_or_default();
    match archive(&targets, suite.unwrap_or_default()) {
        Some(mirror) => Ok(mirror),
        None => Err(Lacking::new(format!(
            "apt has no source of Debian's main archive (run `apt-get update` if it has one), and {MIRROR} is not set"
        ))
        .into()),
    }
}

/// The address of the archive of this release in `apt-get indextargets`: origin, code name, component, address.
fn archive(targets: &str, suite: &str) -> Option<String> {
    let mut lines = targets.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|line| line.starts_with(&["Debian", suite, "main"]))?;
    line.get(3).map(|uri| (*uri).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_debian_s_own_once_each() {
        let targets = "Node main https://deb.example.net/node/ nodistro\n\
                       Debian main http://mirror.example.net/debian/ bookworm\n\
                       Debian main http://mirror.example.net/debian/ bookworm\n\
                       Debian contrib http://mirror.example.net/debian/ bookworm\n\
                       Debian main http://mirror.example.net/security/ bookworm-security\n";
        let own = |path: &str, suite: &str| (format!("http://mirror.example.net/{path}/"), suite.to_owned());
        assert_eq!(
            sources(targets),
            [own("debian", "bookworm"), own("security", "bookworm-security")]
        );
        assert!(sources("").is_empty());
    }

    #[test]
    fn the_archive_is_the_one_of_the_machine_s_own_release() {
        let targets = "Node nodistro main https://deb.example.net/node/\n\
                       Debian bookworm-security main http://security.example.net/\n\
                       Debian bookworm-updates main http://updates.example.net/\n\
                       Debian bookworm contrib http://contrib.example.net/\n\
                       Debian bookworm main http://mirror.example.net/debian/\n";
        assert_eq!(
            archive(targets, "bookworm").as_deref(),
            Some("http://mirror.example.net/debian/")
        );
        assert_eq!(archive(targets, "noble"), None);
    }
}
