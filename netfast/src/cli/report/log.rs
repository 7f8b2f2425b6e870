//! The daemon's last log lines, from the journal or a file.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    process::Command,
};

/// So many are looked at.
const LINES: usize = 300;
/// So many bytes of a file's end are.
const BYTES: u64 = 128 * 1024;
const UNIT: &str = "netfast.service";

/// The last lines, without the host's name.
pub(super) fn last(file: Option<&Path>) -> Result<String, String> {
    match file {
        Some(file) => of_file(file),
        None => of_journal(),
    }
}

fn of_file(path: &Path) -> Result<String, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(last_lines(&String::from_utf8_lossy(&bytes)))
}

fn of_journal() -> Result<String, String> {
    let mut command = Command::new("journalctl");
    command.args(["--unit", UNIT, "--lines", &LINES.to_string()]).args([
        "--output",
        "short-iso",
        "--no-hostname",
        "--no-pager",
        "--quiet",
    ]);
    let done = command
        .output()
        .map_err(|error| format!("no journalctl ({error}); --log FILE names a file"))?;
    if !done.status.success() {
        return Err(format!("journalctl: {}", String::from_utf8_lossy(&done.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&done.stdout);
    if text.trim().is_empty() {
        return Err(format!("the journal has nothing of {UNIT}; --log FILE names a file"));
    }
    Ok(last_lines(&text))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let kept = &lines[lines.len().saturating_sub(LINES)..];
    kept.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_end_of_a_file_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let lines: Vec<String> = (0..50_000).map(|number| format!("line {number}")).collect();
        fs::write(&path, lines.join("\n")).expect("written");
        let text = last(Some(&path)).expect("text");
        assert_eq!(text.lines().count(), LINES);
        assert!(text.ends_with("line 49999\n"), "{text}");
        let missing = last(Some(&dir.path().join("none"))).expect_err("it is not there");
        assert!(missing.contains("No such file"), "{missing}");
    }
}
