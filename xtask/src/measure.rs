//! What demo and bench share: a laboratory with every path in it, netfast switched on and off, and the measurements.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};

pub mod congestion;
pub mod cpu;
mod direct;
mod flannel;
pub mod lab;
pub mod metric;
mod overlay;
pub mod path;
pub mod picture;
pub mod plan;
pub mod process;
pub mod sample;
pub mod table;

/// Makes a file for results, if one is wanted: before they are measured, and not after half an hour.
pub fn create(path: Option<&Path>) -> Result<Option<File>> {
    path.map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())))
        .transpose()
}
