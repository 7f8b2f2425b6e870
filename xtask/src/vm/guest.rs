//! The root of a machine with another processor than this one's: Debian's packages of what the tests call, unpacked.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{cross::Processor, debian::Archive, workspace::target_dir};

/// What the tests of the packet and netns rings call, and what these need.
const PACKAGES: [&str; 21] = [
    "base-passwd",
    "bash",
    "bpftool",
    "busybox-static",
    "conntrack",
    "coreutils",
    "dash",
    "ethtool",
    "grep",
    "iproute2",
    "iptables",
    "ebtables",
    "kmod",
    "libc-bin",
    "libc6",
    "libgcc-s1",
    "mawk",
    "nftables",
    "sed",
    "util-linux",
    "wireguard-tools",
];

/// Directories that have their real place in /usr.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];

/// Names that packages' scripts would make, and what they lead to.
const LINKS: [(&str, &str); 10] = [
    ("usr/bin/awk", "mawk"),
    ("usr/sbin/iptables", "xtables-nft-multi"),
    ("usr/sbin/iptables-save", "xtables-nft-multi"),
    ("usr/sbin/iptables-restore", "xtables-nft-multi"),
    ("usr/sbin/ip6tables", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-save", "xtables-nft-multi"),
    ("usr/sbin/ip6tables-restore", "xtables-nft-multi"),
    ("usr/sbin/ebtables", "xtables-nft-multi"),
    ("usr/sbin/arptables", "xtables-nft-multi"),
    ("etc/passwd", "../usr/share/base-passwd/passwd.master"),
];

/// The root, made once: of this machine's own release, whose C library is the linker's.
pub fn root(processor: Processor) -> Result<PathBuf> {
    let dir = target_dir()?.join("vm").join(format!("root-{}", processor.debian()));
    if dir.is_dir() {
        return Ok(dir);
    }
    println!(
        "Making a Debian root for {} in {}, once",
        processor.name(),
        dir.display()
    );
    let part = dir.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    for name in ["etc", "proc", "sys", "dev", "run", "tmp", "var/tmp", "root", "mnt"] {
        fs::create_dir_all(part.join(name))?;
    }
    for name in MERGED {
        fs::create_dir_all(part.join("usr").join(name))?;
        symlink(Path::new("usr").join(name), part.join(name))?;
    }
    Archive::of_this_release(processor.debian())?.unpack_with_dependencies(&PACKAGES, &part)?;
    for (name, target) in LINKS {
        let link = part.join(name);
        if link.symlink_metadata().is_err() {
            symlink(target, &link).with_context(|| format!("cannot make {}", link.display()))?;
        }
    }
    // Only a whole one is found by its name.
    fs::rename(&part, &dir)?;
    Ok(dir)
}
