//! The archive that `netfast report` writes, read.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use netfast_tests::cmd::{self, Finished};
use serde_json::Value;

/// Its files.
pub const PARTS: [&str; 8] = [
    "README.txt",
    "check.txt",
    "kernel.txt",
    "log.txt",
    "netfast.toml",
    "networks.txt",
    "rules.txt",
    "status.txt",
];

/// What a report has: its files, and the list that was printed.
pub struct Report {
    /// By their names.
    pub files: BTreeMap<String, String>,
    /// What was printed.
    pub list: Value,
}

impl Report {
    /// Why a part could not be had.
    pub fn error(&self, file: &str) -> &str {
        let parts = self.list["parts"].as_array().expect("parts");
        let part = parts.iter().find(|part| part["file"] == file).expect("the part");
        part["error"].as_str().unwrap_or_default()
    }
}

/// Runs the command with `--json --output FILE`, and reads what it wrote.
pub fn made(mut command: Command, dir: &Path) -> Report {
    let file = dir.join("report.tar.gz");
    command.arg("--json").arg("--output").arg(&file);
    let done: Finished = cmd::finish(&mut command, cmd::TIME_LIMIT).expect("it ends");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    cmd::run(Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(dir)).expect("an archive");
    fs::remove_file(&file).expect("the archive");
    let read = |name: &str| fs::read_to_string(dir.join("netfast-report").join(name)).expect("a part");
    let files: BTreeMap<_, _> = PARTS.iter().map(|name| ((*name).to_owned(), read(name))).collect();
    Report {
        files,
        list: serde_json::from_str(&done.stdout).expect("JSON"),
    }
}
