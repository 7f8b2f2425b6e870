//! Whose engine a Docker host runs: the machine's own, or that of a Debian release in a directory of its own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{cmd, programs};

/// The variable with the directory of the release; unset or empty: the machine's own engine.
pub const VARIABLE: &str = "NETFAST_ENGINE_ROOT";

/// What answers at the engine's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// dockerd.
    Docker,
    /// podman's service, which speaks Docker's API.
    Podman,
}

/// An engine, and where its programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    root: Option<PathBuf>,
    kind: Kind,
}

impl Release {
    /// The machine's own Docker.
    pub fn installed() -> Self {
        Self {
            root: None,
            kind: Kind::Docker,
        }
    }

    /// The engine in the directory of a release: podman's, if there is one.
    pub fn in_root(root: &Path) -> Self {
        let is_podman = root.join("usr/bin/podman").is_file();
        Self {
            root: Some(root.to_owned()),
            kind: if is_podman { Kind::Podman } else { Kind::Docker },
        }
    }

    /// What [`VARIABLE`] says.
    pub fn of_environment() -> Self {
        match env::var_os(VARIABLE).filter(|root| !root.is_empty()) {
            Some(root) => Self::in_root(Path::new(&root)),
            None => Self::installed(),
        }
    }

    /// The directory of the release, if it is not the machine's.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it is called: `Docker 28.5.2` for instance.
    pub fn name(&self) -> Result<String> {
        let name = match self.kind {
            Kind::Docker => "Docker",
            Kind::Podman => "podman",
        };
        Ok(format!("{name} {}", self.version()?))
    }

    /// Its version, without what Debian adds.
    pub fn version(&self) -> Result<String> {
        let (program, package) = match self.kind {
            Kind::Docker => ("dockerd", "docker.io"),
            Kind::Podman => ("podman", "podman"),
        };
        let said = match &self.root {
            None => {
                let program = programs::find(program).with_context(|| format!("`{program}` is not in PATH"))?;
                cmd::run(Command::new(program).arg("--version"))?
            }
            // Not by running it, for which podman needs a /proc.
            Some(root) => cmd::run(
                Command::new("dpkg-query")
                    .arg("--admindir")
                    .arg(root.join("var/lib/dpkg"))
                    .args(["--show", "--showformat", "${Version}", package]),
            )?,
        };
        version_in(&said).with_context(|| format!("no version in {said:?}"))
    }

    /// Whether it is Docker of at least this version (major, minor).
    pub fn is_docker_since(&self, major: u32, minor: u32) -> Result<bool> {
        let version = self.version()?;
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0_u32));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(self.kind == Kind::Docker && version >= (major, minor))
    }

    /// Whether the engine wants frames within a bridge to be judged by the rules for IP (`br_netfilter`): Docker before
    /// 27.3 loads that module at its start, and newer ones and podman leave it to who needs it.
    pub fn loads_bridge_netfilter(&self) -> Result<bool> {
        Ok(self.kind == Kind::Docker && !self.is_docker_since(27, 3)?)
    }

    /// Whether the engine lets the outside straight to a published port's container: since 28 it drops that in the table
    /// raw; before, such a port is open by either address.
    pub fn opens_published_containers(&self) -> Result<bool> {
        Ok(!self.is_docker_since(28, 0)?)
    }

    /// Why it cannot be started; `Ok` if all that is needed seems to be there.
    pub(super) fn available(&self) -> Result<(), String> {
        let own: &[&str] = match &self.root {
            None => &["iptables", "dockerd", "docker", "containerd", "runc"],
            Some(_) => &["dpkg-query"],
        };
        let all = ["ip", "busybox", "nsenter", "unshare"];
        let missing: Vec<&str> = all
            .into_iter()
            .chain(own.iter().copied())
            .filter(|name| programs::find(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "a Docker host needs {}: `cargo xtask setup` installs them",
                missing.join(", ")
            ));
        }
        match &self.root {
            Some(root) if !root.is_dir() => Err(format!("{VARIABLE}={} is not a directory", root.display())),
            _ => Ok(()),
        }
    }
}

/// The directories of a release's programs.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The first version in what a program says of itself.
fn version_in(said: &str) -> Option<String> {
    // A package's version may have an epoch before it.
    let mut words = said.split([' ', ',', ':']);
    let word = words.find(|word| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit()))?;
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.');
    Some(word.get(..end.unwrap_or(word.len()))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_engines_tell_them() {
        for (said, version) in [
            (
                "Docker version 28.5.2+dfsg4, build 3ef3c07c883be49a2e8097bcf6d2952fce1d70eb",
                "28.5.2",
            ),
            ("Docker version 20.10.24+dfsg1, build 5d6db84", "20.10.24"),
            ("podman version 5.8.2", "5.8.2"),
            ("28.5.2+dfsg4-2", "28.5.2"),
            ("5:26.1.5~1", "26.1.5"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version), "{said}");
        }
        assert_eq!(version_in("dockerd: command not found"), None);
    }
}
