//! Container engines of other Debian releases, each in a root of its own: nothing of the machine's is changed.
//!
//! A root is made by debootstrap from the machine's own source of Debian packages, checked with its keys, and kept in
//! target/engines: the next run finds it. Delete it there to have the release's newest packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use netfast_tests::{cmd, docker_host::Release, programs};

use crate::{
    setup::{Lacking, apt},
    workspace::{show, target_dir},
};

/// The machine's own Docker, as the command line calls it.
pub const INSTALLED: &str = "installed";
/// Where Debian's archive is, for machines whose apt does not know.
const MIRROR: &str = "NETFAST_DEBIAN_MIRROR";

/// An engine that can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// What the command line calls it: the beginning of its version, with podman's name before it.
    pub name: &'static str,
    /// The Debian release that has it.
    suite: &'static str,
    /// The packages of the root, beyond a minimal Debian and what they depend on.
    packages: &'static str,
}

/// All of them, from the oldest to the newest.
pub const ENGINES: [Engine; 3] = [
    Engine {
        name: "26.1",
        suite: "trixie",
        packages: "docker.io,docker-cli,iptables",
    },
    Engine {
        name: "28.5",
        suite: "forky",
        packages: "docker.io,docker-cli,iptables",
    },
    Engine {
        name: "podman-5",
        suite: "forky",
        packages: "podman,netavark,aardvark-dns,crun,catatonit,nftables,iptables,docker-cli",
    },
];

/// Understands a name on the command line.
pub fn parse(name: &str) -> Result<String, String> {
    if name == INSTALLED || ENGINES.iter().any(|engine| engine.name == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = ENGINES.iter().map(|engine| engine.name).collect();
    Err(format!("one of {INSTALLED}, {}", names.join(", ")))
}

/// The engine of that name, its root made if it is not there yet.
pub fn release(name: &str) -> Result<Release> {
    let Some(engine) = ENGINES.iter().find(|engine| engine.name == name) else {
        return Ok(Release::installed());
    };
    let release = Release::in_root(&engine.root()?);
    let found = release.name()?.to_lowercase().replace("docker ", "").replace(' ', "-");
    if found != engine.name && !found.starts_with(&format!("{}.", engine.name)) {
        bail!(
            "Debian's {} has {found} now, and not {}: change the table in xtask/src/engines.rs",
            engine.suite,
            engine.name
        );
    }
    Ok(release)
}

impl Engine {
    fn root(&self) -> Result<PathBuf> {
        let name = format!("{}-{}", self.suite, self.packages.replace(',', "-"));
        let dir = target_dir()?.join("engines").join(name);
        if !dir.is_dir() {
            self.make(&dir)?;
        }
        Ok(dir)
    }

    fn make(&self, dir: &Path) -> Result<()> {
        if programs::find("debootstrap").is_none() {
            apt::update()?;
            apt::install(&["debootstrap"])?;
        }
        let mirror = mirror()?;
        println!(
            "Making a Debian {} with {} in {}, once: about 600 MB",
            self.suite,
            self.packages,
            dir.display()
        );
        let part = dir.with_extension("part");
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir_all(&part)?;
        let mut debootstrap = Command::new("debootstrap");
        debootstrap
            .args(["--variant=minbase", &format!("--include={}", self.packages), self.suite])
            .arg(&part)
            .arg(&mirror);
        // An old debootstrap has no script for a release that is newer than it; all of late are made as sid is.
        let scripts = Path::new("/usr/share/debootstrap/scripts");
        if !scripts.join(self.suite).exists() {
            debootstrap.arg(scripts.join("sid"));
        }
        show(&mut debootstrap).with_context(|| {
            format!(
                "no Debian {} from {mirror}: set {MIRROR} to another archive",
                self.suite
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
}

/// Debian's archive: where the machine's own packages come from.
fn mirror() -> Result<String> {
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

    #[test]
    fn an_engine_is_named_by_its_version() {
        assert_eq!(parse("28.5"), Ok("28.5".to_owned()));
        assert_eq!(parse("installed"), Ok("installed".to_owned()));
        assert!(parse("28").is_err_and(|said| said.contains("podman-5")));
    }
}
