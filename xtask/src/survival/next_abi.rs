//! The same sources with another ABI number, built beside: what an upgrade across an ABI meets.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{
    tidy,
    workspace::{cargo, root, show, target_dir},
};

const ABI: &str = "netfast-common/src/abi.rs";
const LINE: &str = "pub const ABI_VERSION: u32 = ";
/// Larger than any released one.
const NEXT: &str = "9999;";

/// Builds it and returns the program.
pub fn build() -> Result<PathBuf> {
    let (root, target) = (root(), target_dir()?);
    let sources = target.join("survival/sources");
    for file in tidy::files(&root)? {
        let name = file.strip_prefix(&root).context("below the root")?;
        let copy = sources.join(name);
        let mut text = fs::read(&file)?;
        if name.to_str() == Some(ABI) {
            text = renumbered(&String::from_utf8(text)?)?.into_bytes();
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
            .args(["build", "--release", "--locked", "--bins"])
            // As the real ones are built: the same features of the same libraries need no second compilation.
            .args(["--package", "netfast", "--package", "netfast-tests"])
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("CARGO_MANIFEST_DIR"),
    )?;
    let program = target.join("survival/netfast-next-abi");
    // The next build of the real sources takes this one's place.
    fs::copy(target.join("release/netfast"), &program).context("the build left no program")?;
    Ok(program)
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
}
