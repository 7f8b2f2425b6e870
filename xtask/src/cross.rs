//! Building for another processor than this machine's: with the toolchain in use if it has the standard library for it, else
//! with Debian's compiler and the standard library of Debian's package for that processor. The linker is Debian's, too.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail, ensure};
use netfast_tests::{cmd, programs};

use crate::{
    debian::Archive,
    setup::{Lacking, apt},
    workspace::{self, Profile, show, target_dir},
};

/// A processor that netfast is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Processor {
    /// amd64.
    #[value(name = "x86_64")]
    X86_64,
    /// arm64.
    Aarch64,
}

/// Debian's compilers, newest first, each with the package of its standard library.
const DEBIAN: [(&str, &str); 2] = [("rustc-web", "libstd-rust-web-dev"), ("rustc", "libstd-rust-dev")];

impl Processor {
    /// This machine's.
    pub fn native() -> Result<Self> {
        match env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => bail!("no kernel and no compiler is known for {other}"),
        }
    }

    /// What Rust and Linux call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// What Debian calls it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The target of Rust.
    pub const fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The packages of a linker for it on another machine, and of the C library.
    const fn linker_packages(self) -> [&'static str; 2] {
        match self {
            Self::X86_64 => ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Aarch64 => ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }

    /// A tool of GNU's for it: `gcc`, `strip`.
    pub fn tool(self, name: &str) -> String {
        format!("{}-linux-gnu-{name}", self.name())
    }

    /// The compiler in use, in a cargo that builds for it; and where it leaves what it builds.
    pub fn cargo(self) -> Result<Cargo> {
        let target = target_dir()?;
        if self == Self::native()? {
            return Ok(Cargo {
                compiler: None,
                processor: None,
                target,
            });
        }
        if programs::find(&self.tool("gcc")).is_none() {
            apt::update()?;
            apt::install(&self.linker_packages())?;
        }
        let compiler = if self.is_in_use() { None } else { Some(self.sysroot()?) };
        Ok(Cargo {
            compiler,
            processor: Some(self),
            target: target.join(self.triple()),
        })
    }

    /// Starts a program that was built for it, if this machine can: with Debian's qemu-user, which emulates the processor and leaves the
    /// kernel as it is (so that BPF is out of its reach). Fails unless it says what `--version` should; false: it cannot be started here.
    pub fn starts(self, program: &Path, version: &str) -> Result<bool> {
        let names = ["-static", ""].map(|suffix| format!("qemu-{}{suffix}", self.name()));
        let Some(emulator) = names.iter().find_map(|name| programs::find(name)) else {
            return Ok(false);
        };
        let mut start = Command::new(emulator);
        start
            .arg("-L")
            .arg(format!("/usr/{}-linux-gnu", self.name()))
            .arg(program)
            .arg("--version");
        let said = cmd::run(&mut start)?;
        ensure!(said == version, "{} says {said:?}, not {version:?}", program.display());
        Ok(true)
    }

    /// Whether the toolchain in use has the standard library.
    fn is_in_use(self) -> bool {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--print", "target-libdir", "--target", self.triple()]);
        let dir = cmd::run(command.current_dir(workspace::root()));
        dir.is_ok_and(|dir| Path::new(&dir).is_dir())
    }

    /// A root of Debian's compiler that has the standard library for this processor beside the machine's own.
    fn sysroot(self) -> Result<PathBuf> {
        let installed = |(compiler, library): &(&str, &str)| {
            let mut query = Command::new("dpkg-query");
            query.args(["--show", "--showformat", "${Version} ${Status}", compiler]);
            let said = cmd::run(&mut query).ok()?;
            let version = said.strip_suffix(" install ok installed")?;
            Some((format!("{library}={version}"), version.to_owned()))
        };
        let Some((package, version)) = DEBIAN.iter().find_map(installed) else {
            return Err(Lacking::new(format!(
                "no standard library for {}: `rustup target add {}`, or Debian's compiler (`cargo xtask setup` installs it)",
                self.name(),
                self.triple()
            ))
            .into());
        };
        let dir = target_dir()?
            .join("cross")
            .join(self.name())
            .join(version.replace(':', "-"));
        let libraries = Path::new("lib/rustlib");
        if !dir.is_dir() {
            let part = dir.with_extension("part");
            if part.exists() {
                fs::remove_dir_all(&part)?;
            }
            let files = part.join("files");
            fs::create_dir_all(&files)?;
            Archive::of_this_release(self.debian())?.unpack(&[package], &files)?;
            fs::create_dir_all(part.join(libraries))?;
            let own = Self::native()?.triple();
            symlink(
                Path::new("/usr").join(libraries).join(own),
                part.join(libraries).join(own),
            )?;
            let unpacked = Path::new("usr").join(libraries).join(self.triple());
            ensure!(
                files.join(&unpacked).is_dir(),
                "the package has no {}",
                unpacked.display()
            );
            symlink(
                Path::new("../../files").join(unpacked),
                part.join(libraries).join(self.triple()),
            )?;
            // Only a whole one is found by its name.
            fs::rename(&part, &dir)?;
        }
        Ok(dir)
    }
}

/// A cargo that builds for a processor.
pub struct Cargo {
    /// Debian's compiler is to be used, with this root.
    compiler: Option<PathBuf>,
    /// `None`: this machine's.
    processor: Option<Processor>,
    /// Where the directories of profiles are.
    pub target: PathBuf,
}

impl Cargo {
    /// Cargo with a verb and the target.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = workspace::cargo();
        if self.compiler.is_some() {
            // Debian's cargo with its compiler; which one rustup would take does not matter then.
            command = Command::new("/usr/bin/cargo");
            command
                .current_dir(workspace::root())
                .env("PATH", workspace::path())
                .env("RUSTC", "/usr/bin/rustc");
        }
        command.arg(verb);
        if let Some(processor) = self.processor {
            let triple = processor.triple();
            let variable = |what: &str| format!("CARGO_TARGET_{}_{what}", triple.to_uppercase().replace('-', "_"));
            command
                .args(["--target", triple])
                .env(variable("LINKER"), processor.tool("gcc"));
            if let Some(root) = &self.compiler {
                command.env(variable("RUSTFLAGS"), format!("--sysroot={}", root.display()));
            }
        }
        command
    }

    /// Builds the programs of packages; returns the directory that has them.
    pub fn build(&self, profile: Profile, packages: &[&str]) -> Result<PathBuf> {
        let mut command = self.command("build");
        command.arg("--bins").args(profile.arguments());
        for package in packages {
            command.args(["--package", package]);
        }
        show(&mut command)?;
        Ok(self.target.join(profile.dir()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(command: &Command) -> Vec<String> {
        let set = command.get_envs().filter_map(|(name, value)| {
            let (name, value) = (name.to_str()?, value?.to_str()?);
            name.starts_with("CARGO_TARGET_").then(|| format!("{name}={value}"))
        });
        set.collect()
    }

    #[test]
    fn another_processor_s_programs_have_its_linker_and_its_library() {
        let cargo = Cargo {
            compiler: Some("/root".into()),
            processor: Some(Processor::Aarch64),
            target: "/target".into(),
        };
        let command = cargo.command("build");
        assert_eq!(command.get_program(), "/usr/bin/cargo");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["build", "--target", "aarch64-unknown-linux-gnu"]);
        assert_eq!(
            variables(&command),
            [
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc",
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS=--sysroot=/root"
            ]
        );
    }

    #[test]
    fn this_machine_s_programs_are_built_as_ever() {
        let cargo = Cargo {
            compiler: None,
            processor: None,
            target: "/target".into(),
        };
        let command = cargo.command("test");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["test"]);
        assert_eq!(variables(&command), Vec::<String>::new());
    }
}
