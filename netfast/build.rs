//! Builds the BPF programs and leaves the object in `OUT_DIR`, where `apply/object.rs` embeds it.
//!
//! The target has no prebuilt `core`, so the compiler must have its own source. Which compiler that is differs from
//! machine to machine (a rustup nightly with rust-src, or Debian's `rustc-web`): what is there is found here, and
//! `cargo xtask setup` installs what is missing.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// Names the toolchain that builds the BPF programs, before all that would be tried.
const TOOLCHAIN_VARIABLE: &str = "NETFAST_BPF_TOOLCHAIN";
/// The variable that aya-build knows: build no BPF programs.
const SKIP_VARIABLE: &str = "AYA_BUILD_SKIP";
/// The package and its binary, which is the object's name too.
const PACKAGE: &str = "netfast-ebpf";
/// The toolchains to try before the one in use: `netfast-bpf` is what `cargo xtask setup` links Debian's compiler as.
const TOOLCHAINS: [&str; 2] = ["netfast-bpf", "nightly"];

fn main() -> Result<()> {
    for variable in [TOOLCHAIN_VARIABLE, SKIP_VARIABLE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var(SKIP_VARIABLE).is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true")) {
        // Whatever needs no BPF object (clippy, docs, unit tests) still builds; loading it fails with a clear message.
        let object = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join(PACKAGE);
        return fs::write(&object, []).with_context(|| format!("cannot write {}", object.display()));
    }
    let toolchain = find_toolchain()?;
    if !runs("bpf-linker") {
        bail!("bpf-linker is not installed, it links the BPF programs: run `cargo xtask setup`");
    }
    if !toolchain.nightly {
        // SAFETY: a build script has one thread, and nothing has read the environment concurrently.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PACKAGE);
    let package = Package {
        name: PACKAGE,
        root_dir: root.to_str().context("the path of the sources is not UTF-8")?,
        features: if env::var_os("CARGO_FEATURE_BPF_LOG").is_some() {
            &["bpf-log"]
        } else {
            &[]
        },
        ..Package::default()
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let shared = shared_dir(&out)?;
    // Until the object has been copied: another profile's build would write over it.
    let lock = File::create(shared.join("lock")).with_context(|| format!("cannot write in {}", shared.display()))?;
    lock.lock().context("cannot lock the directory of the BPF build")?;
    // SAFETY: as above.
    unsafe { env::set_var("OUT_DIR", &shared) };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain.name))
        .with_context(|| format!("cannot build {PACKAGE} with the toolchain {:?}", toolchain.name))?;
    let (from, to) = (shared.join(PACKAGE), out.join(PACKAGE));
    let object = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
    let object = loadable(&object).with_context(|| format!("cannot strip {}", from.display()))?;
    fs::write(&to, object).with_context(|| format!("cannot write {}", to.display()))
}

/// The object without what no loader reads: DWARF, which the compiler needs to make BTF of and which is three quarters of the
/// file, and the relocations of BTF, which are for a linker. The kernel gets `.BTF` and `.BTF.ext` as they are.
fn loadable(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        let name = name.strip_prefix(b".rel").unwrap_or(name);
        section.delete =
            name.starts_with(b".debug_") || (section.name.starts_with(b".rel") && name.starts_with(b".BTF"));
    }
    // LLVM has one table of names for symbols and for sections; the writer wants one for each.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// A directory that all profiles have in common (`OUT_DIR` is `target/PROFILE/build/PACKAGE-HASH/out`): the programs are
/// the same in each, and to build them from `core` upwards takes most of a minute.
fn shared_dir(out: &Path) -> Result<PathBuf> {
    let target = out.ancestors().nth(4).context("OUT_DIR is not where cargo puts it")?;
    let shared = target.join("bpf");
    fs::create_dir_all(&shared).with_context(|| format!("cannot make {}", shared.display()))?;
    Ok(shared)
}

/// A compiler that can build for BPF.
struct Found {
    /// What rustup calls it; of no meaning without rustup.
    name: String,
    /// Whether `-Z` options work without asking.
    nightly: bool,
}

/// The first toolchain that has the source of `core`.
fn find_toolchain() -> Result<Found> {
    if let Ok(name) = env::var(TOOLCHAIN_VARIABLE) {
        return match probe(Some(&name)) {
            Some(nightly) => Ok(Found { name, nightly }),
            None => bail!(
                "{TOOLCHAIN_VARIABLE}={name:?}: that toolchain is not installed or has no source of `core`; run \
                 `rustup component add rust-src --toolchain {name}`, or unset the variable and run `cargo xtask setup`"
            ),
        };
    }
    if !runs("rustup") {
        // aya-build then takes the cargo that is in PATH.
        return match probe(None) {
            Some(nightly) => Ok(Found {
                name: "(in PATH)".into(),
                nightly,
            }),
            None => bail!("the rustc in PATH has no source of `core`: run `cargo xtask setup`"),
        };
    }
    // rustup tells its children which toolchain is in use: the pinned one.
    let in_use = env::var("RUSTUP_TOOLCHAIN").ok();
    let names: Vec<&str> = TOOLCHAINS.into_iter().chain(in_use.as_deref()).collect();
    for name in &names {
        if let Some(nightly) = probe(Some(name)) {
            return Ok(Found {
                name: (*name).into(),
                nightly,
            });
        }
    }
    bail!(
        "no toolchain has the source of `core`, which BPF programs are built with (tried {}): run `cargo xtask setup`",
        names.join(", ")
    )
}

/// Whether a toolchain has the source of `core`; if so, whether it is a nightly.
fn probe(toolchain: Option<&str>) -> Option<bool> {
    let rustc = |arguments: &[&str]| -> Option<String> {
        let mut command = match toolchain {
            Some(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, "rustc"]);
                command
            }
            None => Command::new("rustc"),
        };
        // Cargo sets the one for the compiler in use, and rustup's proxies set the other.
        let output = command
            .args(arguments)
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN")
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let core = Path::new(&rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    core.exists().then_some(())?;
    Some(rustc(&["--version"])?.contains("nightly"))
}

/// Whether a program can be started.
fn runs(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
