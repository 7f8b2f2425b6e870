//! Kernels of distributions, fetched from their archives and unpacked; nothing is installed.
//!
//! Debian's come by [`Archive`]. A kernel that no Debian release has is named with its files and their checksums: those
//! of a release's first packages stay in its archive.

use std::{env, fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    cross::Processor,
    debian::{self, Archive},
    workspace::{show, target_dir},
};

/// Where Ubuntu's archive is, for machines that cannot reach its own address.
const UBUNTU: &str = "NETFAST_UBUNTU_MIRROR";

/// A series of kernels that can be had.
#[derive(Debug)]
pub struct Series {
    /// What the command line calls it: the beginning of its version.
    pub name: &'static str,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The newest package of the series in this Debian release.
    Debian { suite: &'static str },
    /// These files of Ubuntu's archive, with their SHA-256; for amd64 only.
    Ubuntu {
        version: &'static str,
        files: &'static [(&'static str, &'static str)],
    },
}

/// All of them, from the oldest to the newest. 6.18 and what is newer come and go with the backports of Debian's release.
pub const SERIES: [Series; 5] = [
    Series {
        name: "5.15",
        source: Source::Ubuntu {
            version: "5.15.0-25-generic",
            files: &[
                (
                    "pool/main/l/linux-signed/linux-image-5.15.0-25-generic_5.15.0-25.25_amd64.deb",
                    "ad56f8c442a54d4f5ff2dff010d00321d53e32b543f3a92f3ba4e042d20a71da",
                ),
                (
                    "pool/main/l/linux/linux-modules-5.15.0-25-generic_5.15.0-25.25_amd64.deb",
                    "d0ba4087d9e1d497925b3481d3531fba6c2a852855f8019d73b0b1385aa4da1f",
                ),
            ],
        },
    },
    Series {
        name: "6.1",
        source: Source::Debian { suite: "bookworm" },
    },
    Series {
        name: "6.12",
        source: Source::Debian { suite: "trixie" },
    },
    Series {
        name: "6.18",
        source: Source::Debian {
            suite: "trixie-backports",
        },
    },
    Series {
        name: "7.2",
        source: Source::Debian { suite: "forky" },
    },
];

/// Where a kernel comes from.
enum Found {
    Package(Archive),
    /// As in [`Source::Ubuntu`].
    Files(&'static [(&'static str, &'static str)]),
}

/// The names of all.
pub fn names() -> Vec<String> {
    SERIES.iter().map(|series| series.name.to_owned()).collect()
}

/// The names of those that can be had for a processor.
pub fn names_for(processor: Processor) -> Vec<String> {
    let is_had = |series: &&Series| processor == Processor::X86_64 || matches!(series.source, Source::Debian { .. });
    SERIES
        .iter()
        .filter(is_had)
        .map(|series| series.name.to_owned())
        .collect()
}

/// Understands a name on the command line.
pub fn parse(name: &str) -> Result<String, String> {
    if SERIES.iter().any(|series| series.name == name) {
        return Ok(name.to_owned());
    }
    Err(format!("one of {}", names().join(", ")))
}

/// A kernel on this machine's disk.
pub struct Kernel {
    /// As `uname -r` says.
    pub version: String,
    /// Where it is unpacked, and where what is made of it may be put.
    pub dir: PathBuf,
}

impl Kernel {
    /// The newest of the series of that name, fetched if it is not there yet.
    pub fn find(name: &str, processor: Processor) -> Result<Self> {
        let series = SERIES.iter().find(|series| series.name == name);
        let source = &series.with_context(|| format!("no kernel {name} is known"))?.source;
        let (version, found) = match source {
            Source::Ubuntu { version, files } => {
                if processor != Processor::X86_64 {
                    bail!("Linux {name} is known for x86_64 only");
                }
                ((*version).to_owned(), Found::Files(files))
            }
            Source::Debian { suite } => {
                let architecture = processor.debian();
                let archive = Archive::of_release(suite, architecture)?;
                let version = newest(&archive.names("linux-")?, name, architecture)
                    .with_context(|| format!("Debian's {suite} has no package linux-image-{name}.*-{architecture}"))?;
                (version, Found::Package(archive))
            }
        };
        let dir = target_dir()?.join("vm").join(format!("linux-image-{version}"));
        let this = Self { version, dir };
        if !this.image().is_file() {
            this.fetch(&found)?;
        }
        Ok(this)
    }

    /// What it is unpacked to.
    pub fn files(&self) -> PathBuf {
        self.dir.join("files")
    }

    /// What is booted.
    pub fn image(&self) -> PathBuf {
        let among_modules = self.files().join("usr/lib/modules").join(&self.version).join("vmlinuz");
        if among_modules.is_file() {
            among_modules
        } else {
            self.files().join("boot").join(format!("vmlinuz-{}", self.version))
        }
    }

    fn fetch(&self, found: &Found) -> Result<()> {
        println!(
            "Fetching Linux {}, to unpack it in {}",
            self.version,
            self.dir.display()
        );
        fs::create_dir_all(self.files())?;
        match found {
            Found::Files(files) => {
                let mirror = env::var(UBUNTU).ok().filter(|mirror| !mirror.is_empty());
                let mirror = mirror.as_deref().unwrap_or("http://archive.ubuntu.com/ubuntu");
                let packages = self.dir.join("packages");
                fs::create_dir_all(&packages)?;
                for (path, sum) in *files {
                    let to = packages.join(path.rsplit('/').next().unwrap_or(path));
                    let mut helper = Command::new("/usr/lib/apt/apt-helper");
                    helper.args(["download-file", &format!("{mirror}/{path}")]).arg(&to);
                    show(helper.arg(format!("SHA256:{sum}")))
                        .with_context(|| format!("nothing from {mirror}: set {UBUNTU} to another archive"))?;
                }
                debian::unpack_all(&packages, &self.files())?;
                fs::remove_dir_all(&packages)?;
            }
            Found::Package(archive) => {
                let names = archive.names("linux-")?;
                // Newer releases have the parts of a kernel in packages of their own.
                let parts = ["image", "base", "binary", "modules"].map(|part| format!("linux-{part}-{}", self.version));
                let packages = parts.into_iter().filter(|part| names.lines().any(|name| name == *part));
                archive.unpack(&packages.collect::<Vec<_>>(), &self.files())?;
            }
        }
        // Since trixie packages know no other place than /usr/lib; depmod and modprobe look in /lib.
        let lib = self.files().join("lib");
        if !lib.exists() {
            symlink("usr/lib", &lib).with_context(|| format!("cannot make {}", lib.display()))?;
        }
        Ok(())
    }
}

/// The version of the newest kernel of a series among names of packages.
fn newest(names: &str, series: &str, architecture: &str) -> Option<String> {
    let (start, end) = (format!("linux-image-{series}."), format!("-{architecture}"));
    let names = names
        .lines()
        .filter(|name| name.starts_with(&start) && name.ends_with(&end));
    let plain = names.filter(|name| !name.contains("-rt-") && !name.contains("-cloud-"));
    let name = plain.max_by_key(|name| numbers(name))?;
    name.strip_prefix("linux-image-").map(str::to_owned)
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let names = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-56-amd64\nlinux-image-6.1.0-60-cloud-amd64\n\
                     linux-image-6.12.90+deb12-amd64\nlinux-image-6.12.115+deb12-amd64\nlinux-image-6.12.90+deb12-arm64\n";
        let newest = |series, architecture| newest(names, series, architecture);
        assert_eq!(newest("6.1", "amd64").as_deref(), Some("6.1.0-56-amd64"));
        assert_eq!(newest("6.12", "amd64").as_deref(), Some("6.12.115+deb12-amd64"));
        assert_eq!(newest("6.12", "arm64").as_deref(), Some("6.12.90+deb12-arm64"));
        assert_eq!(newest("6.6", "amd64"), None);
    }

    #[test]
    fn a_series_is_known_or_the_others_are_named() {
        assert_eq!(parse("6.12"), Ok("6.12".to_owned()));
        assert!(parse("4.19").is_err_and(|said| said.contains("5.15")));
    }
}
