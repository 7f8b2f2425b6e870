//! The tests of Debian's package of the kernel's sources, unpacked and built in the root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{show, target_dir};

/// Builds what can be built of the programs that the tests call: one that the root's headers do not fit is named, and the tests that call it
/// say that it is missing. `$1`: the root; `$2`: the tests.
const BUILD: &str = r#"
mkdir -p "$1/selftests"
mount --bind "$2" "$1/selftests"
exec chroot "$1" sh -c '
cd /selftests/net
for file in *.c lib/*.c mptcp/*.c netfilter/*.c; do
    libraries=
    case $file in
    *.bpf.c) continue ;;
    netfilter/nf_queue.c) libraries="-lmnl -lnetfilter_queue" ;;
    netfilter/*) libraries=-lmnl ;;
    esac
    gcc -O2 -w -I/selftests -o "${file%.c}" "$file" $libraries -lpthread 2>>/selftests/build.log || echo "not built: $file"
done
for file in *.bpf.c; do
    bpf-gcc -O2 -gbtf -I/usr/include -I/usr/include/$(gcc -print-multiarch) -c -o "${file%.c}.o" "$file" \
        2>>/selftests/build.log || echo "not built: $file"
done'
"#;
/// What is unpacked, below the sources.
const PARTS: [&str; 3] = ["net", "*.h", "kselftest"];

/// The directory with the tests, made once for each version of the sources.
pub fn built(root: &Path) -> Result<PathBuf> {
    let archive = archive(root)?;
    let name = archive.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.trim_end_matches(".tar.xz");
    let dir = target_dir()?.join("foreign").join(name);
    if dir.is_dir() {
        return Ok(dir);
    }
    let part = dir.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    let below = format!("{name}/tools/testing/selftests");
    let mut unpack = Command::new("tar");
    // linux-source-6.12/tools/testing/selftests/
    unpack.args(["--extract", "--xz", "--strip-components=4", "--wildcards", "--file"]);
    unpack.arg(&archive).arg("--directory").arg(&part);
    unpack.args(PARTS.map(|name| format!("{below}/{name}")));
    show(&mut unpack)?;
    show(
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", BUILD, "build"])
            .arg(root)
            .arg(&part),
    )?;
    // Only a whole one is found by its name.
    fs::rename(&part, &dir)?;
    Ok(dir)
}

/// /usr/src/linux-source-6.12.tar.xz of the root.
fn archive(root: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(root.join("usr/src"))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".tar.xz") {
            return Ok(path);
        }
    }
    bail!("{} has no sources of the kernel in usr/src", root.display())
}
