//! Releases of Debian as apt sees them, for any processor, beside what this machine's apt knows: nothing is installed.
//!
//! apt has lists and sources of our own, so that a release that this machine does not have is looked at with its signature
//! checked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::cmd;

use crate::{
    setup::apt,
    workspace::{show, target_dir},
};

/// What checks the signatures of all of Debian's archives.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release, for one processor.
pub struct Archive {
    dir: PathBuf,
    /// Debian's name of the processor: `amd64`.
    architecture: &'static str,
}

impl Archive {
    /// The release of that name.
    pub fn of_release(suite: &str, architecture: &'static str) -> Result<Self> {
        let line = format!(
            "deb [arch={architecture} signed-by={KEYS}] {} {suite} main\n",
            apt::debian_mirror()?
        );
        Self::of(&format!("{suite}-{architecture}"), &line, architecture)
    }

    /// This machine's own release with its updates, for another processor.
    pub fn of_this_release(architecture: &'static str) -> Result<Self> {
        let line =
            |(uri, suite): (String, String)| format!("deb [arch={architecture} signed-by={KEYS}] {uri} {suite} main\n");
        let lines: String = apt::debian_sources()?.into_iter().map(line).collect();
        Self::of(&format!("own-{architecture}"), &lines, architecture)
    }

    fn of(name: &str, sources: &str, architecture: &'static str) -> Result<Self> {
        let dir = target_dir()?.join("vm").join("apt").join(name);
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        fs::write(dir.join("sources.list"), sources)?;
        // Nothing is installed there, so that whatever is needed is found among the packages.
        fs::write(dir.join("status"), "")?;
        let this = Self { dir, architecture };
        show(this.apt("apt-get").args(["update", "--quiet"]))?;
        Ok(this)
    }

    /// One of apt's programs, with this release and no other.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, path) in [
            ("Dir::Etc::SourceList", self.dir.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::State::Lists", self.dir.join("lists")),
            ("Dir::State::status", self.dir.join("status")),
            ("Dir::Cache", self.dir.join("cache")),
            ("Dir::Etc::Preferences", PathBuf::from("/dev/null")),
        ] {
            command.arg("-o").arg(option(name, &path));
        }
        let architecture = self.architecture;
        command
            // Without root's sandbox user, who may not write here.
            .args(["-o", "APT::Sandbox::User=root"])
            .args(["-o", &format!("APT::Architecture={architecture}")])
            .args(["-o", &format!("APT::Architectures={architecture}")]);
        command
    }

    /// The names of the packages that begin so, a line each.
    pub fn names(&self, start: &str) -> Result<String> {
        cmd::run(self.apt("apt-cache").args(["pkgnames", start]))
    }

    /// Unpacks packages (`NAME`, or `NAME=VERSION`) below a directory.
    pub fn unpack(&self, packages: &[String], to: &Path) -> Result<()> {
        let parts = to.with_extension("packages");
        empty(&parts)?;
        let mut download = self.apt("apt-get");
        download.args(["download", "--quiet"]).args(packages);
        show(download.current_dir(&parts))?;
        unpack_all(&parts, to)?;
        fs::remove_dir_all(&parts).context("the packages are in the way")
    }

    /// The same with all that they depend on.
    pub fn unpack_with_dependencies(&self, packages: &[&str], to: &Path) -> Result<()> {
        let parts = self.dir.join("cache/archives");
        let mut download = self.apt("apt-get");
        download
            .args([
                "install",
                "--download-only",
                "--yes",
                "--quiet",
                "--no-install-recommends",
            ])
            .args(packages);
        show(&mut download)?;
        unpack_all(&parts, to)?;
        empty(&parts)
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Unpacks every package in a directory. Where the root has links in directories' places (`/lib`), they stay.
pub fn unpack_all(packages: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(packages)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let mut files = Command::new("dpkg-deb")
            .arg("--fsys-tarfile")
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run dpkg-deb")?;
        let from = files.stdout.take().context("no output of dpkg-deb")?;
        let status = Command::new("tar")
            .args([
                "--extract",
                "--keep-directory-symlink",
                "--no-same-owner",
                "--directory",
            ])
            .arg(to)
            .stdin(from)
            .status()
            .context("cannot run tar")?;
        ensure!(
            files.wait()?.success() && status.success(),
            "cannot unpack {}",
            path.display()
        );
    }
    Ok(())
}
