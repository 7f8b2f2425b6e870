//! Files as packages have them: modes, sums, sizes, compressed as Debian's policy wants it.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use netfast_tests::cmd;

/// Writes `SHA256SUMS` of these files, beside them in `dir`, for `sha256sum --check`; returns a line about each: its size and its sum.
pub fn checksums(dir: &Path, files: &[PathBuf]) -> Result<String> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let sums = cmd::run(Command::new("sha256sum").arg("--").args(names).current_dir(dir))?;
    write(&dir.join("SHA256SUMS"), &format!("{sums}\n"))?;
    let mut told = String::new();
    for (file, line) in files.iter().zip(sums.lines()) {
        let sum = line.split(' ').next().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            told,
            "{} KiB: {}, SHA-256 {sum}",
            fs::metadata(file)?.len() >> 10,
            file.display()
        );
    }
    Ok(told)
}

/// Removes what only a debugger reads, and what compilers say of themselves.
pub fn strip(tool: &str, program: &Path, to: &Path) -> Result<()> {
    let mut strip = Command::new(tool);
    strip.args(["--remove-section=.comment", "--remove-section=.note"]);
    cmd::run(strip.arg("-o").arg(to).arg(program)).context("strip comes with binutils")?;
    Ok(())
}

/// What dpkg compares files with later (deb-md5sums(5)).
pub fn sums(stage: &Path) -> Result<String> {
    let files = cmd::run(Command::new("find").args([".", "-type", "f"]).current_dir(stage))?;
    let mut files: Vec<&str> = files.lines().filter_map(|file| file.strip_prefix("./")).collect();
    files.sort_unstable();
    let sums = cmd::run(Command::new("md5sum").args(files).current_dir(stage))?;
    Ok(sums + "\n")
}

/// The oldest C library that has all that the program asks of it: its symbols' versions stand in the file as text.
pub fn glibc(program: &[u8]) -> String {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let minors = program.windows(PREFIX.len() + 2).filter_map(|window| {
        let digits = window.strip_prefix(PREFIX)?;
        let digits = digits.split(|byte| !byte.is_ascii_digit()).next()?;
        std::str::from_utf8(digits).ok()?.parse::<u32>().ok()
    });
    format!("2.{}", minors.max().unwrap_or(0))
}

/// Makes a directory that is empty.
pub fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Copies a file, with this mode.
pub fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    directory_of(to)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Writes a text file that all may read.
pub fn write(to: &Path, text: &str) -> Result<()> {
    directory_of(to)?;
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

/// Makes the directories above a file, with the usual mode whatever the umask is.
fn directory_of(file: &Path) -> Result<()> {
    let dir = file.parent().context("a file in no directory")?;
    if dir.exists() {
        return Ok(());
    }
    directory_of(dir)?;
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Debian's policy: man pages and changelogs are compressed, and the same from the same sources.
pub fn compress(file: &Path) -> Result<()> {
    cmd::run(Command::new("gzip").args(["--best", "--no-name"]).arg(file)).map(drop)
}

/// Bytes of all files below a directory.
pub fn size(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        sum += if path.is_dir() {
            size(&path)?
        } else {
            fs::metadata(&path)?.len()
        };
    }
    Ok(sum)
}
