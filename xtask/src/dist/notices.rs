//! Notices and licenses of all crates that are linked into the program, as their authors ship them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::cmd;
use serde::Deserialize;

use crate::workspace::cargo;

/// How names of files with licenses and notices begin, in capitals.
const FILES: [&str; 7] = [
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
    "AUTHORS",
];
const RULE: &str = "--------------------------------------------------------------------------------";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// What is told of a crate.
#[derive(Deserialize)]
pub struct Package {
    name: String,
    version: String,
    license: Option<String>,
    authors: Vec<String>,
    manifest_path: PathBuf,
    /// `None`: it is of this workspace.
    source: Option<String>,
}

/// Other authors' crates that are linked into the program for `target`, the BPF programs' among them, by name and version.
pub fn linked(target: Option<&str>) -> Result<Vec<Package>> {
    let mut names = BTreeSet::new();
    for package in ["netfast", "netfast-ebpf"] {
        let mut tree = cargo();
        tree.args([
            "tree",
            "--locked",
            "--package",
            package,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ]);
        tree.args(["--format", "{p}"]);
        if let Some(target) = target {
            tree.args(["--target", target]);
        }
        for line in cmd::run(&mut tree)?.lines() {
            // `clap v4.6.0`, `serde_derive v1.0.0 (proc-macro)`, `netfast v0.1.0 (/path)`
            let mut words = line.split(' ');
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                names.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
            }
        }
    }
    let mut metadata = cargo();
    metadata.args(["metadata", "--locked", "--format-version", "1"]);
    let metadata: Metadata = serde_json::from_str(&cmd::run(&mut metadata)?).context("what cargo metadata says")?;
    let is_linked = |package: &Package| names.contains(&(package.name.clone(), package.version.clone()));
    let mut found: Vec<Package> = metadata
        .packages
        .into_iter()
        .filter(|package| package.source.is_some() && is_linked(package))
        .collect();
    found.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    ensure!(found.len() > 50, "only {} crates are linked", found.len());
    Ok(found)
}

/// The text: each license once, with the crates that it is of.
pub fn text(packages: &[Package]) -> Result<String> {
    let mut text = "netfast has code of the following crates in it.\n\n".to_owned();
    let mut licenses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        let license = package.license.as_deref().unwrap_or("see its own file");
        let authors = package.authors.join(", ");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name}: {license}{}{authors}",
            if authors.is_empty() { "" } else { "; " }
        );
        let dir = package.manifest_path.parent().context("a crate in no directory")?;
        for file in files(dir)? {
            let own = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let own = String::from_utf8_lossy(&own).replace('\r', "");
            licenses
                .entry(own.trim_end().to_owned())
                .or_default()
                .push(name.clone());
        }
    }
    for (license, names) in licenses {
        let _ = write!(text, "\n{RULE}\n{}\n\n{license}\n", names.join(", "));
    }
    Ok(text)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && FILES.iter().any(|file| name.starts_with(file)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The crates as a `CycloneDX` 1.5 document (JSON): what is in the program, for who keeps lists of that.
pub fn bill(packages: &[Package], version: &str) -> Result<String> {
    let component = |package: &Package| {
        serde_json::json!({
            "type": "library",
            "name": package.name,
            "version": package.version,
            "purl": format!("pkg:cargo/{}@{}", package.name, package.version),
            "licenses": package.license.iter().map(|license| serde_json::json!({
                "expression": license.replace('/', " OR "),
            })).collect::<Vec<_>>(),
        })
    };
    let bill = serde_json::json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application",
            "name": "netfast",
            "version": version,
            "purl": format!("pkg:cargo/netfast@{version}"),
            "licenses": [{ "expression": "MIT OR Apache-2.0" }],
        }},
        "components": packages.iter().map(component).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_linked_crate_has_a_license_and_its_notice() {
        let packages = linked(None).expect("cargo tells");
        let text = text(&packages).expect("a text");
        for name in ["aya ", "aya-ebpf ", "tokio ", "bollard "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in it");
        }
        assert!(
            !text.lines().any(|line| line.starts_with("proptest ")),
            "tests are not linked"
        );
        assert!(text.contains("Permission is hereby granted") && text.contains("Apache License"));
        assert!(packages.iter().all(|package| package.license.is_some()));
        let bill: serde_json::Value = serde_json::from_str(&bill(&packages, "1").expect("a bill")).expect("JSON");
        assert_eq!(bill["components"].as_array().map(Vec::len), Some(packages.len()));
    }
}
