//! The laboratory's container image: nothing can be pulled, so it is made from the machine's own programs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::DockerHost;
use crate::{cmd, programs};

/// Its name.
pub const IMAGE: &str = "netfast-lab:1";

/// Programs that go in with their shared libraries, where the machine has them.
const OPTIONAL: [&str; 3] = ["iperf3", "sockperf", "conntrack"];

/// Collects the image's files below `root` and imports them, unless the engine has it already.
pub(super) fn import(host: &DockerHost, root: &Path) -> Result<()> {
    if host.docker(&["image", "inspect", IMAGE]).is_ok() {
        return Ok(());
    }
    collect(root).with_context(|| format!("cannot make the laboratory's image in {}", root.display()))?;
    let mut tar = Command::new("tar");
    let archive = root.with_extension("tar");
    cmd::run(tar.arg("-C").arg(root).arg("-cf").arg(&archive).arg("."))?;
    cmd::run(host.docker_command().arg("import").arg(&archive).arg(IMAGE))?;
    fs::remove_dir_all(root)?;
    fs::remove_file(archive)?;
    Ok(())
}

fn collect(root: &Path) -> Result<()> {
    for dir in ["bin", "usr/bin", "etc", "tmp", "proc", "sys", "dev", "var/www"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = programs::find("busybox").context("`busybox` is not in PATH")?;
    copy_with_libraries(&busybox, root, "bin/busybox")?;
    for applet in cmd::run(Command::new(&busybox).arg("--list"))?
        .lines()
        .filter(|applet| *applet != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    copy_with_libraries(&programs::traffic()?, root, "usr/bin/netfast-traffic")?;
    for name in OPTIONAL {
        if let Some(program) = programs::find(name) {
            copy_with_libraries(&program, root, &format!("usr/bin/{name}"))?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("var/www/index.html"), "hello\n")?;
    Ok(())
}

fn copy_with_libraries(program: &Path, root: &Path, inside: &str) -> Result<()> {
    fs::copy(program, root.join(inside)).with_context(|| format!("cannot copy {}", program.display()))?;
    // It fails for static programs, which need none.
    let Ok(libraries) = cmd::run(Command::new("ldd").arg(program)) else {
        return Ok(());
    };
    for library in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
    {
        let copy = root.join(library.strip_prefix("/")?);
        if !copy.exists() {
            fs::create_dir_all(copy.parent().context("a library has a directory")?)?;
            fs::copy(&library, &copy).with_context(|| format!("cannot copy {}", library.display()))?;
        }
    }
    Ok(())
}
