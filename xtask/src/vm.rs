//! `cargo xtask vm`: the namespace tests under other kernels, Debian's, in a virtual machine.
//!
//! The machine's root is this machine's own, read-only, with a layer in memory above it, so the tests and what they call
//! are those that were built here. QEMU emulates the processor, slowly but everywhere; nothing here is a measurement.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use netfast_tests::{cmd, programs};

use crate::{
    build::{self, Built},
    setup::{self, Scope, apt},
    workspace::{cargo, show, target_dir},
};

/// Packages beyond those of set-up: the emulator, and what makes an initial file system.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "kmod", "cpio"];
/// Modules without which the root is not there; the rest is loaded from it.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The first process.
const INIT: &str = include_str!("vm/init");
/// What the last line of the tests' script says before the exit code.
const EXIT: &str = "VM-EXIT ";

/// Options of `vm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernels, by the start of their Debian package's name after `linux-image-`; the newest of each is taken.
    #[arg(long, value_delimiter = ',', default_values_t = ["6.1".to_owned(), "6.12".to_owned()])]
    kernels: Vec<String>,
    /// Only tests whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "netns::paths")]
    only: String,
    /// Minutes that each kernel's tests may take.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(Scope::All)?;
    if ["qemu-system-x86_64", "depmod", "cpio"]
        .iter()
        .any(|program| programs::find(program).is_none())
    {
        apt::update()?;
        apt::install(&PACKAGES)?;
    }
    let built = build::build(false)?;
    let tests = Tests::find(&built, &args.only)?;
    let mut failed = Vec::new();
    for kernel in &args.kernels {
        let machine = Machine::prepare(kernel, &tests)?;
        println!("{}: {} tests", machine.version, tests.names.len());
        if let Err(error) = machine.run(Duration::from_mins(args.minutes)) {
            failed.push(format!("{}: {error:#}", machine.version));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// What runs in the machine.
struct Tests {
    program: PathBuf,
    names: Vec<String>,
    built: Built,
}

impl Tests {
    fn find(built: &Built, only: &str) -> Result<Self> {
        let arguments = ["test", "--package", "netfast-tests", "--test", "it", "--no-run"];
        show(cargo().args(arguments))?;
        let made = cmd::run(cargo().args(arguments).arg("--message-format=json"))?;
        let program = made
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| {
                let executable = message.get("executable")?.as_str()?;
                (message.get("target")?.get("name")?.as_str()? == "it").then(|| PathBuf::from(executable))
            })
            .context("cargo built no integration tests")?;
        let list = cmd::run(Command::new(&program).arg("--list"))?;
        let names: Vec<String> = list
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|name| name.contains(only))
            .map(str::to_owned)
            .collect();
        ensure!(!names.is_empty(), "--only {only}: no test is named like that");
        Ok(Self {
            program,
            names,
            built: built.clone(),
        })
    }

    fn script(&self) -> String {
        format!(
            "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
             export NETFAST_BIN={} NETFAST_TRAFFIC={}\n\
             ip link set lo up\n\
             {} --exact --test-threads 1 {}\n\
             echo \"{EXIT}$?\"\n\
             busybox poweroff -f\n",
            self.built.netfast.display(),
            self.built.traffic.display(),
            self.program.display(),
            self.names.join(" ")
        )
    }
}

/// A kernel with its initial file system.
struct Machine {
    version: String,
    kernel: PathBuf,
    initrd: PathBuf,
    console: PathBuf,
}

impl Machine {
    fn prepare(series: &str, tests: &Tests) -> Result<Self> {
        let package = newest(series)?;
        let dir = target_dir()?.join("vm").join(&package);
        let version = package.trim_start_matches("linux-image-").to_owned();
        let files = dir.join("files");
        let kernel = files.join("boot").join(format!("vmlinuz-{version}"));
        if !kernel.is_file() {
            download(&package, &dir, &files)?;
        }
        show(Command::new("depmod").arg("--basedir").arg(&files).arg(&version))?;
        let initrd = dir.join("initrd");
        make_initrd(&dir.join("initial"), &files, &version, tests, &initrd)?;
        Ok(Self {
            version,
            kernel,
            initrd,
            console: dir.join("console"),
        })
    }

    /// Boots, and waits for the end.
    fn run(&self, limit: Duration) -> Result<()> {
        let console = File::create(&self.console).context("cannot write the console's file")?;
        drop(console);
        let mut machine = Command::new("qemu-system-x86_64");
        machine
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"])
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
            .args(["-append", "console=ttyS0 quiet loglevel=1 panic=-1"])
            .args([
                "-virtfs",
                "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            ])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(&self.initrd)
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()));
        let done = cmd::finish(&mut machine, limit);
        let said = String::from_utf8_lossy(&fs::read(&self.console)?).into_owned();
        println!("{}", said.trim());
        let done = done?;
        ensure!(done.status.success(), "the emulator failed: {}", done.stderr.trim());
        let code = said.lines().find_map(|line| line.trim().strip_prefix(EXIT));
        match code {
            Some("0") => Ok(()),
            Some(code) => bail!("tests failed (exit code {code})"),
            None => bail!(
                "it ended before the tests did; the console is in {}",
                self.console.display()
            ),
        }
    }
}

/// The newest package of a series of kernels.
fn newest(series: &str) -> Result<String> {
    let start = format!("linux-image-{series}.");
    let names = cmd::run(Command::new("apt-cache").args(["pkgnames", &start]))?;
    let known: Vec<&str> = names
        .lines()
        .filter(|name| name.ends_with("-amd64") && !name.contains("-rt-") && !name.contains("-cloud-"))
        .filter(|name| apt::candidate(name).is_some())
        .collect();
    known
        .into_iter()
        .max_by_key(|name| numbers(name))
        .map(str::to_owned)
        .with_context(|| format!("--kernels {series}: apt knows no package {start}*-amd64"))
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Fetches a package and unpacks it; nothing is installed.
fn download(package: &str, dir: &Path, files: &Path) -> Result<()> {
    println!(
        "Fetching the Debian package {package}, to unpack it in {}",
        dir.display()
    );
    fs::create_dir_all(files)?;
    show(
        Command::new("apt-get")
            .args(["download", "--quiet", package])
            .current_dir(dir),
    )?;
    let start = format!("{package}_");
    let deb = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .context("apt-get fetched nothing")?;
    show(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(files))
}

/// The first file system: busybox, the modules that the root needs, and the script of the tests.
fn make_initrd(dir: &Path, files: &Path, version: &str, tests: &Tests, to: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    for part in ["bin", "modules", "proc", "dev", "lower", "upper", "root"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let busybox = programs::find("busybox").context("busybox is not there")?;
    fs::copy(busybox, dir.join("bin/busybox"))?;
    let mut done: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let needed = cmd::run(Command::new("modprobe").arg("--dirname").arg(files).args([
            "--set-version",
            version,
            "--show-depends",
            module,
        ]))
        // Built in.
        .unwrap_or_default();
        for path in needed.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = Path::new(path.trim());
            if done.iter().any(|done| done == path) {
                continue;
            }
            let name = path.file_name().context("a module without a name")?.to_string_lossy();
            let to = dir
                .join("modules")
                .join(format!("{:02}-{}", done.len(), name.trim_end_matches(".xz")));
            done.push(path.to_owned());
            if name.ends_with(".xz") {
                let status = Command::new("xz")
                    .args(["--decompress", "--stdout"])
                    .arg(path)
                    .stdout(Stdio::from(File::create(&to)?))
                    .status()
                    .context("cannot run xz")?;
                ensure!(status.success(), "cannot unpack {}", path.display());
            } else {
                fs::copy(path, &to)?;
            }
        }
    }
    let modules = files.join("lib/modules").display().to_string();
    let init = dir.join("init");
    fs::write(&init, INIT.replace("@MODULES@", &modules))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("tests.sh"), tests.script())?;
    let line = "find . | cpio --create --format=newc --quiet";
    let status = Command::new("sh")
        .args(["-c", line])
        .current_dir(dir)
        .stdout(Stdio::from(File::create(to)?))
        .status()
        .context("cannot run cpio")?;
    ensure!(status.success(), "cpio failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("linux-image-6.1.0-56-amd64") > numbers("linux-image-6.1.0-9-amd64"));
        assert!(numbers("linux-image-6.12.115+deb12-amd64") > numbers("linux-image-6.12.90+deb12-amd64"));
    }
}
