//! The same sources with another version and another ABI number, built beside: what an upgrade across an ABI meets.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::cmd;

use crate::{
    tidy,
    workspace::{cargo, root, show, target_dir},
};

const ABI: &str = "netfast-common/src/abi.rs";
const LINE: &str = "pub const ABI_VERSION: u32 = ";
/// Larger than any released one.
const NEXT: &str = "9999;";
const MANIFEST: &str = "Cargo.toml";
/// Of the workspace, which all its packages have.
const VERSION_LINE: &str = "version = \"";
/// The version goes into the names of cargo's files. With the same version both builds would have the same names in
/// their target directory, and one would be linked with parts of the other, its ABI number among them.
const NEXT_VERSION: &str = "9999.0.0";

/// Builds it, optimised or in half the time, and returns the program. What was built in the same directory is to be built
/// again: this takes its place there.
pub fn build(release: bool) -> Result<PathBuf> {
    let (root, target) = (root(), target_dir()?);
    let sources = target.join("survival/sources");
    for file in tidy::files(&root)? {
        let name = file.strip_prefix(&root).context("below the root")?;
        let copy = sources.join(name);
        let mut text = fs::read(&file)?;
        match name.to_str() {
            Some(ABI) => text = renumbered(&String::from_utf8(text)?)?.into_bytes(),
            Some(MANIFEST) => text = of_next_version(&String::from_utf8(text)?)?.into_bytes(),
            _ => {}
        }
        // What is the same keeps its time, and cargo has nothing to do.
        if fs::read(&copy).is_ok_and(|found| found == text) {
            continue;
        }
        fs::create_dir_all(copy.parent().context("a file in no directory")?)?;
        fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    }
    show(
        cargo()
            .current_dir(&sources)
            // Not locked: the versions of our own packages are in the lock file, too.
            .args(["build", "--offline", "--bins"])
            .args(release.then_some("--release"))
            // As the real ones are built: the same features of the same libraries need no second compilation.
            .args(["--package", "netfast", "--package", "netfast-tests"])
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("CARGO_MANIFEST_DIR"),
    )?;
    let program = target.join("survival/netfast-next-abi");
    let built = target.join(if release { "release" } else { "debug" }).join("netfast");
    fs::copy(built, &program).context("the build left no program")?;
    check(&program, NEXT_VERSION)?;
    Ok(program)
}

/// Fails unless a program is of this version.
pub fn check(program: &Path, version: &str) -> Result<()> {
    let said = cmd::run(Command::new(program).arg("--version"))?;
    ensure!(
        said == format!("netfast {version}"),
        "{} says that it is {said}, and should be version {version}",
        program.display()
    );
    Ok(())
}

fn of_next_version(text: &str) -> Result<String> {
    let (before, after) = text
        .split_once("[workspace.package]\n")
        .with_context(|| format!("{MANIFEST} has no [workspace.package]"))?;
    let (head, rest) = after
        .split_once(VERSION_LINE)
        .with_context(|| format!("{MANIFEST} has no version"))?;
    let (_, rest) = rest.split_once('"').context("the version ends")?;
    Ok(format!(
        "{before}[workspace.package]\n{head}{VERSION_LINE}{NEXT_VERSION}\"{rest}"
    ))
}

fn renumbered(text: &str) -> Result<String> {
    let (before, after) = text
        .split_once(LINE)
        .with_context(|| format!("{ABI} has no line `{LINE}`"))?;
    let (_, after) = after.split_once('\n').context("it goes on after that line")?;
    let text = format!("{before}{LINE}{NEXT}\n{after}");
    ensure!(text.matches(LINE).count() == 1, "{ABI} has that line more than once");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_changes() {
        let text = renumbered("//! X\npub const ABI_VERSION: u32 = 1;\nrest\n").expect("found");
        assert_eq!(text, "//! X\npub const ABI_VERSION: u32 = 9999;\nrest\n");
        renumbered("nothing").expect_err("no number");
    }

    #[test]
    fn only_the_workspaces_version_changes() {
        let text = "[workspace]\n[workspace.package]\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace.dependencies]\naya = { \
                    version = \"0.14.0\" }\n";
        let next = of_next_version(text).expect("found");
        assert_eq!(next, text.replace("0.1.0", "9999.0.0"));
        of_next_version("[workspace]\n").expect_err("no version");
    }
}
