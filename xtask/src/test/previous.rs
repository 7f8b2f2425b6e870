//! The release before this one as a package of its own sources and scripts, for a true upgrade from it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::cmd;

use crate::{
    dist::files,
    survival::next_abi,
    workspace::{cargo, root, show, target_dir},
};

/// Its version, whose tag is asked first: `v0.1.0`.
const VERSION: &str = "0.1.0";
/// The commit that the tag is for, where there is none.
const COMMIT: &str = "f63e30f8e3cacf6f";

/// What goes where, besides the program: below that release's netfast/dist, then below the root directory.
const FILES: [(&str, &str); 3] = [
    ("netfast.service", "usr/lib/systemd/system/netfast.service"),
    ("netfast.toml", "etc/netfast/netfast.toml"),
    ("deb/copyright", "usr/share/doc/netfast/copyright"),
];

/// Builds the package, once, and returns it: that release's program, unit, configuration and package scripts. Manual pages and
/// completions, which are made by running another program of that release, are left out. The program is not optimised, which takes
/// half of the time; those for the kernel always are.
pub fn deb() -> Result<PathBuf> {
    let target = target_dir()?;
    let dir = target.join("previous");
    let architecture = cmd::run(Command::new("dpkg").arg("--print-architecture"))?;
    let kept = dir.join(format!("netfast_{VERSION}_{architecture}.deb"));
    if kept.is_file() {
        return Ok(kept);
    }
    let sources = dir.join("sources");
    unpack(&commit()?, &sources)?;
    let program = build(&sources, &target)?;
    let stage = dir.join("stage");
    files::empty(&stage)?;
    files::strip("strip", &program, &dir.join("netfast"))?;
    files::place(&dir.join("netfast"), &stage.join("usr/bin/netfast"), 0o755)?;
    let dist = sources.join("netfast/dist");
    for (from, to) in FILES {
        files::place(&dist.join(from), &stage.join(to), 0o644)?;
    }
    let control = fs::read_to_string(dist.join("deb/control"))?
        .replace("@VERSION@", VERSION)
        .replace("@ARCHITECTURE@", &architecture)
        .replace("@GLIBC@", &files::glibc(&fs::read(&program)?))
        .replace("@SIZE@", &(files::size(&stage)? / 1024).to_string());
    files::write(&stage.join("DEBIAN/control"), &control)?;
    files::write(&stage.join("DEBIAN/conffiles"), "/etc/netfast/netfast.toml\n")?;
    for script in ["postinst", "prerm", "postrm"] {
        files::place(
            &dist.join("deb").join(script),
            &stage.join("DEBIAN").join(script),
            0o755,
        )?;
    }
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--build", "--root-owner-group"]).arg(&stage).arg(&kept);
    show(&mut pack)?;
    fs::remove_dir_all(&stage)?;
    fs::remove_dir_all(&sources)?;
    Ok(kept)
}

/// Builds the program in this workspace's target directory: what both depend on is built once, and the versions keep the rest
/// apart.
fn build(sources: &Path, target: &Path) -> Result<PathBuf> {
    let mut build = cargo();
    build
        .current_dir(sources)
        .args(["build", "--bins", "--package", "netfast", "--package", "netfast-tests"])
        .env("CARGO_TARGET_DIR", target)
        .env_remove("CARGO_MANIFEST_DIR");
    show(&mut build).with_context(|| format!("the sources of {VERSION} in {} do not build", sources.display()))?;
    let program = target.join("debug/netfast");
    next_abi::check(&program, VERSION)?;
    Ok(program)
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(root());
    git
}

/// What the tag names, or the commit itself.
fn commit() -> Result<String> {
    let of = |name: &str| cmd::run(git().args(["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]));
    of(&format!("refs/tags/v{VERSION}"))
        .or_else(|_| of(COMMIT))
        .with_context(|| {
            format!(
                "the sources of {VERSION} are not in this repository (commit {COMMIT}): `git fetch --unshallow --tags`"
            )
        })
}

fn unpack(commit: &str, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut archive = git()
        .args(["archive", commit])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run git")?;
    let files = archive.stdout.take().context("no output of git")?;
    let status = Command::new("tar")
        .arg("--extract")
        .arg("--directory")
        .arg(to)
        .stdin(files)
        .status();
    ensure!(
        archive.wait()?.success() && status.context("cannot run tar")?.success(),
        "cannot unpack the sources of {commit}"
    );
    Ok(())
}
