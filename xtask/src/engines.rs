//! Container engines of other Debian releases, each in a root of its own: nothing of the machine's is changed.

use anyhow::{Result, bail};
use netfast_tests::docker_host::Release;

use crate::roots;

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
    let release = Release::in_root(&roots::debian(engine.suite, engine.packages)?);
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
