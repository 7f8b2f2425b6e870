//! The package for distributions with RPM, by cargo-generate-rpm.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Result, ensure};
use netfast_tests::programs;

use super::{MAINTAINER, Parts, changelog, files::empty};
use crate::{
    cross::Processor,
    workspace::{root, show},
};

impl Parts {
    /// The package for distributions with RPM, of the same files; what goes where is in netfast/Cargo.toml.
    pub fn rpm(&self, version: &str) -> Result<PathBuf> {
        ensure!(
            programs::find("cargo-generate-rpm").is_some(),
            "no cargo-generate-rpm: `cargo install cargo-generate-rpm`"
        );
        let stage = self.dir.join("root");
        empty(&stage)?;
        self.lay_out(&stage)?;
        let architecture = self.processor.map_or(std::env::consts::ARCH, Processor::name);
        let file = self.dir.join(format!("netfast-{version}-1.{architecture}.rpm"));
        let mut pack = Command::new("cargo-generate-rpm");
        // As cargo runs it: the first word is the verb.
        pack.args(["generate-rpm", "--package", "netfast", "--arch", architecture])
            .arg(format!(
                "--set-metadata=version = \"{version}\"\nvendor = \"{MAINTAINER}\""
            ))
            .arg(format!("--source-date={}", changelog::last_change()?))
            .arg("--output")
            .arg(&file)
            .current_dir(root());
        show(&mut pack)?;
        fs::remove_dir_all(&stage)?;
        Ok(file)
    }
}
