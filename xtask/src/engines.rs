//! Container engines of other Debian releases, each in a root of its own: nothing of the machine's is changed.
//!
//! A root is made by debootstrap from the machine's own source of Debian packages, checked with its keys, and kept in
//! target/engines: the next run finds it. Delete it there to have the release's newest packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use netfast_tests::{docker_host::Release, programs};

use crate::{
    setup::apt,
    workspace::{show, target_dir},
};

/// The machine's own Docker, as the command line calls it.
pub const INSTALLED: &str = "installed";

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
        let mirror = apt::debian_mirror()?;
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
                "no Debian {} from {mirror}: set {} to another archive",
                self.suite,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_named_by_its_version() {
        assert_eq!(parse("28.5"), Ok("28.5".to_owned()));
        assert_eq!(parse("installed"), Ok("installed".to_owned()));
        assert!(parse("28").is_err_and(|said| said.contains("podman-5")));
    }
}
