//! Open vSwitch for the machine: its programs from Debian's packages, unpacked beside the kernels. Installed, they would be services of
//! this machine.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{cross::Processor, debian::Archive, workspace::target_dir};

/// The switch, what it is controlled by, and the library that a Debian root for tests does not have.
const PACKAGES: [&str; 3] = ["openvswitch-switch", "openvswitch-common", "libxdp1"];

/// Where it is unpacked, fetched if it is not there yet.
fn dir(processor: Processor) -> Result<PathBuf> {
    let dir = target_dir()?
        .join("vm")
        .join(format!("openvswitch-{}", processor.debian()));
    if !dir.is_dir() {
        println!("Fetching Open vSwitch, to unpack it in {}", dir.display());
        let part = dir.with_extension("part");
        std::fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        let archive = Archive::of_this_release(processor.debian())?;
        archive.unpack(&PACKAGES.map(str::to_owned), &part)?;
        // Only a whole one is found by its name.
        std::fs::rename(&part, &dir).with_context(|| format!("cannot rename {}", part.display()))?;
    }
    Ok(dir)
}

/// Lines of a script after which its programs are found by their names.
pub fn environment(processor: Processor) -> Result<String> {
    let usr = dir(processor)?.join("usr");
    let usr = usr.display();
    let mut lines = format!("export PATH=$PATH:{usr}/bin:{usr}/sbin:{usr}/lib/openvswitch-switch\n");
    let _ = writeln!(lines, "export LD_LIBRARY_PATH=$(echo {usr}/lib/*-linux-gnu)");
    let _ = writeln!(
        lines,
        "export NETFAST_OVS_SCHEMA={usr}/share/openvswitch/vswitch.ovsschema"
    );
    Ok(lines)
}
