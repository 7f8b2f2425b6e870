//! `cargo xtask vm`: the namespace tests under other kernels, those of distributions, in a virtual machine.
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
    vm::kernels::Kernel,
    workspace::{cargo, root, show},
};

pub mod kernels;

/// Packages beyond those of set-up: the emulator, and what makes an initial file system.
const PACKAGES: [&str; 4] = ["qemu-system-x86", "kmod", "cpio", "zstd"];
/// Modules without which the root is not there; the rest is loaded from it.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The first process.
const INIT: &str = include_str!("vm/init");
/// How the verifier's figures begin that a test prints (`tests/it/packet/verifier.rs`).
const FIGURES: &str = "# program instructions-verified";
/// What the last line of the tests' script says before the exit code.
const EXIT: &str = "VM-EXIT ";

/// Options of `vm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Series of kernels; the newest of each is taken.
    #[arg(long, value_delimiter = ',', value_parser = kernels::parse, default_values_t = kernels::names())]
    kernels: Vec<String>,
    /// Only tests whose name contains one of these.
    #[arg(long, value_name = "TEXT", value_delimiter = ',', default_values_t = ["netns::paths".to_owned(), "packet::verifier".to_owned()])]
    only: Vec<String>,
    /// Write what each program costs these kernels' verifiers to tests/golden/verifier.
    #[arg(long)]
    record: bool,
    /// Minutes that each kernel's tests may take.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure(Scope::All)?;
    let built = build::build(false)?;
    let tests = Tests::find(&built, |name| args.only.iter().any(|only| name.contains(only)))
        .with_context(|| format!("--only {}", args.only.join(",")))?;
    let mut failed = Vec::new();
    for kernel in &args.kernels {
        let done = run_on(kernel, &tests, Duration::from_mins(args.minutes))?;
        if args.record {
            done.record(kernel)?;
        }
        if let Err(error) = done.result {
            failed.push(format!("{kernel}: {error:#}"));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Boots a kernel of that series, and runs the tests on it.
pub fn run_on(series: &str, tests: &Tests, limit: Duration) -> Result<Done> {
    if ["qemu-system-x86_64", "depmod", "cpio", "zstd"]
        .iter()
        .any(|program| programs::find(program).is_none())
    {
        apt::update()?;
        apt::install(&PACKAGES)?;
    }
    let machine = Machine::prepare(series, tests)?;
    println!("{}: {} tests", machine.kernel.version, tests.names.len());
    let result = machine.run(limit);
    Ok(Done {
        said: machine.said()?,
        result,
    })
}

/// What runs in the machine.
pub struct Tests {
    program: PathBuf,
    names: Vec<String>,
    built: Built,
    environment: Vec<(String, String)>,
}

impl Tests {
    /// Those of the integration tests that are wanted, by their names.
    pub fn find(built: &Built, is_wanted: impl Fn(&str) -> bool) -> Result<Self> {
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
            .filter(|name| is_wanted(name))
            .map(str::to_owned)
            .collect();
        ensure!(!names.is_empty(), "no test is named like that");
        Ok(Self {
            program,
            names,
            built: built.clone(),
            environment: Vec::new(),
        })
    }

    /// Sets a variable of the tests' environment, to a text without quotation marks.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    fn script(&self) -> String {
        let set = |(name, value): &(String, String)| format!("export {name}='{value}'\n");
        let environment: String = self.environment.iter().map(set).collect();
        format!(
            "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
             export NETFAST_BIN={} NETFAST_TRAFFIC={}\n\
             {environment}\
             ip link set lo up\n\
             {} --exact --test-threads 1 --nocapture {}\n\
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
    kernel: Kernel,
    initrd: PathBuf,
    console: PathBuf,
}

impl Machine {
    fn prepare(series: &str, tests: &Tests) -> Result<Self> {
        let kernel = Kernel::find(series)?;
        let files = kernel.files();
        show(Command::new("depmod").arg("--basedir").arg(&files).arg(&kernel.version))?;
        let initrd = kernel.dir.join("initrd");
        make_initrd(&kernel.dir.join("initial"), &files, &kernel.version, tests, &initrd)?;
        Ok(Self {
            initrd,
            console: kernel.dir.join("console"),
            kernel,
        })
    }

    /// What is on the console.
    fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.console)?).into_owned())
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
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(&self.initrd)
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()));
        let done = cmd::finish(&mut machine, limit);
        let said = self.said()?;
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

/// What became of the tests.
pub struct Done {
    /// What is on the console.
    pub said: String,
    /// Whether all passed.
    pub result: Result<()>,
}

impl Done {
    /// Keeps the verifier's figures that are on the console.
    fn record(&self, series: &str) -> Result<()> {
        let figures = figures(&self.said).context("--record: no test printed the verifier's figures")?;
        let path = root().join("tests/golden/verifier").join(format!("{series}.txt"));
        fs::write(&path, figures).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The verifier's figures in what the tests printed, from their headline on.
fn figures(said: &str) -> Option<String> {
    let mut lines = said
        .lines()
        .map(str::trim_end)
        .skip_while(|line| !line.contains(FIGURES));
    let mut text = format!("{FIGURES}{}\n", lines.next()?.split_once(FIGURES)?.1);
    for line in lines.take_while(|line| line.starts_with("netfast_")) {
        text.push_str(line);
        text.push('\n');
    }
    Some(text)
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
            let to = dir.join("modules").join(format!(
                "{:02}-{}",
                done.len(),
                name.trim_end_matches(".xz").trim_end_matches(".zst")
            ));
            done.push(path.to_owned());
            let unpacker = match path.extension().and_then(|extension| extension.to_str()) {
                Some("xz") => Some("xz"),
                Some("zst") => Some("zstd"),
                _ => None,
            };
            if let Some(unpacker) = unpacker {
                let status = Command::new(unpacker)
                    .args(["--decompress", "--stdout"])
                    .arg(path)
                    .stdout(Stdio::from(File::create(&to)?))
                    .status()
                    .with_context(|| format!("cannot run {unpacker}"))?;
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
    fn the_figures_are_found_among_what_tests_print() {
        let said = "test packet::verifier::x ... # program instructions-verified stack-bytes\r\nnetfast_ep_in 1 2\r\nnetfast_ep_out 3 4\r\nok\r\n";
        let expected = "# program instructions-verified stack-bytes\nnetfast_ep_in 1 2\nnetfast_ep_out 3 4\n";
        assert_eq!(figures(said).as_deref(), Some(expected));
        assert_eq!(figures("ok"), None);
    }
}
