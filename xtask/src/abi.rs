//! The ABI number and the files it stands for: whoever changes what daemon and BPF programs share is made to look at
//! `ABI_VERSION`, since a daemon must never read the pinned maps of an object with another layout.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use netfast_common::abi::{ABI_VERSION, Program, map};
use sha2::{Digest as _, Sha256};

use crate::workspace::root;

/// The files that say how maps and their values are laid out. The names of maps and programs are read from their tables.
const FILES: [&str; 24] = [
    "netfast-common/src/abi.rs",
    "netfast-common/src/alias.rs",
    "netfast-common/src/control.rs",
    "netfast-common/src/device.rs",
    "netfast-common/src/direct.rs",
    "netfast-common/src/flow.rs",
    "netfast-common/src/localhost.rs",
    "netfast-common/src/macvlan.rs",
    "netfast-common/src/net.rs",
    "netfast-common/src/reason.rs",
    "netfast-common/src/resolver.rs",
    "netfast-common/src/trace.rs",
    "netfast-common/src/tunnel.rs",
    "netfast-common/src/vet.rs",
    "netfast-common/src/verdicts.rs",
    "netfast-common/src/vip.rs",
    "netfast-common/src/xdp.rs",
    "netfast-ebpf/src/ctx.rs",
    "netfast-ebpf/src/state/candidate.rs",
    "netfast-ebpf/src/state/dns.rs",
    "netfast-ebpf/src/state/lb.rs",
    "netfast-ebpf/src/state/localhost.rs",
    "netfast-ebpf/src/state/maps.rs",
    "netfast-ebpf/src/state/six.rs",
];
/// The record: the number and the hash of the files' code, in one line.
const RECORD: &str = "xtask/abi.txt";

/// Compares the files with the record.
pub fn check() -> Result<()> {
    let root = root();
    let now = current(&root)?;
    let recorded = fs::read_to_string(record_path(&root)).with_context(|| format!("cannot read {RECORD}"))?;
    if recorded.trim() == now {
        return Ok(());
    }
    let number = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    if number(&recorded) == number(&now) {
        bail!(
            "the code that ABI_VERSION {} stands for has changed ({}): if a key, value, meaning or name in it has, and \
             that number has been released, raise it; then run `cargo xtask lint --record-abi`",
            number(&now),
            FILES.join(", ")
        );
    }
    bail!(
        "ABI_VERSION is {} and {RECORD} has {}: run `cargo xtask lint --record-abi`",
        number(&now),
        number(&recorded)
    )
}

/// Writes the record anew.
pub fn record() -> Result<()> {
    let root = root();
    let line = format!("{}\n", current(&root)?);
    fs::write(record_path(&root), line).with_context(|| format!("cannot write {RECORD}"))
}

fn record_path(root: &Path) -> PathBuf {
    root.join(RECORD)
}

fn current(root: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for file in FILES {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
        hash.update(file);
        hash.update(code_of(&text));
    }
    hash.update(tables());
    let digest = hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    Ok(format!("{ABI_VERSION} {digest}"))
}

/// What the tables of maps and programs say, but for the words.
fn tables() -> String {
    let maps = map::ALL.iter().map(|map| format!("{} {:?}\n", map.name, map.keeping));
    let programs = Program::ALL
        .iter()
        .map(|program| format!("{} {:?}\n", program.name(), program.hook()));
    maps.chain(programs).collect()
}

/// The text without comments, blank lines and unit tests.
fn code_of(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| *line != "#[cfg(test)]");
    let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_tests_do_not_count_as_code() {
        let a = "//! A.\nstruct X;\n\n#[cfg(test)]\nmod tests {}\n";
        let b = "//! B.\n/// X.\n    struct X;\n";
        assert_eq!(code_of(a), code_of(b));
        assert_ne!(code_of(a), code_of("struct Y;"));
    }

    #[test]
    fn every_file_that_lays_out_maps_counts() {
        // Checksums are sums, and the library's root only names the others.
        let others = ["netfast-common/src/csum.rs", "netfast-common/src/lib.rs"];
        let files = |dir: &str| -> Vec<String> {
            let entries = fs::read_dir(root().join(dir)).expect("a directory");
            let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
            names
                .filter(|name| Path::new(name).extension().is_some_and(|ext| ext == "rs"))
                .map(|name| format!("{dir}/{name}"))
                .collect()
        };
        let mut left_out = files("netfast-common/src");
        left_out.extend(files("netfast-ebpf/src/state").into_iter().filter(|file| {
            let text = fs::read_to_string(root().join(file)).expect("a source");
            text.contains("\n#[map(")
        }));
        left_out.retain(|file| !FILES.contains(&file.as_str()) && !others.contains(&file.as_str()));
        assert!(left_out.is_empty(), "{left_out:?} are not in FILES");
    }

    #[test]
    fn every_map_and_program_counts() {
        let tables = tables();
        assert_eq!(tables.lines().count(), map::ALL.len() + Program::ALL.len());
        assert!(tables.contains("netfast_warmup Unpinned\n") && tables.contains("netfast_up_in Tcx(Ingress)\n"));
    }
}
