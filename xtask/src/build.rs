//! `cargo xtask build`: netfast with its BPF programs, and the traffic generator.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::programs;

use crate::{
    setup::{self, Scope},
    workspace::{Profile, cargo, show, target_dir},
};

/// Options of `build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// With optimisation, as for a release.
    #[arg(long)]
    release: bool,
}

/// The programs that were built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The daemon and command-line tool.
    pub netfast: PathBuf,
    /// The traffic generator.
    pub traffic: PathBuf,
}

impl Built {
    /// Those in a directory.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            netfast: dir.join("netfast"),
            traffic: dir.join("netfast-traffic"),
        }
    }
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(Scope::Build)?;
    let built = build(args.release)?;
    println!("{}\n{}", built.netfast.display(), built.traffic.display());
    Ok(())
}

/// Builds both programs.
pub fn build(release: bool) -> Result<Built> {
    let profile = if release { Profile::Release } else { Profile::Debug };
    let dir = cargo_build(profile, &["netfast", "netfast-tests"])?;
    let built = Built::in_dir(&dir);
    for program in [&built.netfast, &built.traffic] {
        ensure!(
            program.is_file(),
            "cargo built everything, but {} is not there",
            program.display()
        );
    }
    Ok(built)
}

/// Builds netfast as packages have it, and returns it.
pub fn build_for_packages() -> Result<PathBuf> {
    Ok(cargo_build(Profile::Packaged, &["netfast"])?.join("netfast"))
}

/// Builds netfast for debugging, with BPF programs that log, and returns it. It takes the ordinary one's place for the
/// moment, so that one is to be built afterwards.
pub fn build_with_bpf_log() -> Result<PathBuf> {
    // With the packages of the ordinary build, so that what both have in common is built once.
    show(
        cargo()
            .args(["build", "--bins", "--package", "netfast", "--package", "netfast-tests"])
            .args(["--features", "netfast/bpf-log"]),
    )?;
    let target = target_dir()?;
    let dir = target.join("bpf-log");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let program = dir.join("netfast");
    fs::copy(target.join("debug/netfast"), &program).context("the build left no program")?;
    Ok(program)
}

/// Builds both programs, or the traffic generator alone, with optimisation, for this process's laboratories; returns
/// the generator.
pub fn build_for_laboratory(with_netfast: bool) -> Result<PathBuf> {
    let dir = cargo_build(
        Profile::Release,
        if with_netfast {
            &["netfast", "netfast-tests"]
        } else {
            &["netfast-tests"]
        },
    )?;
    programs::use_built(&dir);
    programs::traffic()
}

/// Builds the programs of `packages` and returns the directory that has them.
fn cargo_build(profile: Profile, packages: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--bins"]).args(profile.arguments());
    for package in packages {
        command.args(["--package", package]);
    }
    if packages.contains(&"netfast") {
        // Cargo passes on what a build script prints only as warnings.
        eprintln!(
            "Lines \"warning: netfast@...: Compiling ...\" that follow are the progress of the BPF build, not warnings."
        );
    }
    show(&mut command)?;
    Ok(target_dir()?.join(profile.dir()))
}
