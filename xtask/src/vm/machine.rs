//! A virtual machine: a kernel with an initial file system that goes over to the tests' root.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use netfast_tests::{cmd, programs};

use super::{EXIT, kernels::Kernel};
use crate::{
    cross::Processor,
    workspace::{root, show},
};

/// Modules without which the root is not there; the rest is loaded from it.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The first process.
const INIT: &str = include_str!("init");
/// How the verifier's figures begin that a test prints (`tests/it/packet/verifier.rs`).
const FIGURES: &str = "# program instructions-verified";

/// What emulates a processor.
#[derive(Clone, Copy, Debug)]
pub struct Emulator {
    /// The program.
    pub program: &'static str,
    /// Debian's package of it.
    pub package: &'static str,
    /// The kind of machine and of processor.
    arguments: &'static [&'static str],
    /// What Linux calls its first serial line.
    console: &'static str,
}

/// The one for a processor.
pub const fn emulator(processor: Processor) -> Emulator {
    match processor {
        Processor::X86_64 => Emulator {
            program: "qemu-system-x86_64",
            package: "qemu-system-x86",
            arguments: &["-cpu", "max"],
            console: "ttyS0",
        },
        Processor::Aarch64 => Emulator {
            program: "qemu-system-aarch64",
            package: "qemu-system-arm",
            // Pointers are signed by what is quick to emulate.
            arguments: &["-machine", "virt", "-cpu", "max,pauth-impdef=on"],
            console: "ttyAMA0",
        },
    }
}

/// What the shares are called: this machine's root, and the one that was made.
const HOST: &str = "host";
const ROOT: &str = "root";

/// A kernel with its initial file system.
pub struct Machine {
    /// The kernel.
    pub kernel: Kernel,
    processor: Processor,
    /// Its root, where it is not this machine's own.
    root: Option<PathBuf>,
    initrd: PathBuf,
    console: PathBuf,
}

impl Machine {
    /// With the newest kernel of a series, to run this script, which powers the machine off.
    pub fn prepare(series: &str, processor: Processor, root: Option<&Path>, script: &str) -> Result<Self> {
        let kernel = Kernel::find(series, processor)?;
        let files = kernel.files();
        show(Command::new("depmod").arg("--basedir").arg(&files).arg(&kernel.version))?;
        let initrd = kernel.dir.join("initrd");
        make_initrd(&kernel, root, script, &initrd)?;
        Ok(Self {
            processor,
            root: root.map(Path::to_owned),
            initrd,
            console: kernel.dir.join("console"),
            kernel,
        })
    }

    /// What is on the console.
    pub fn said(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.console)?).into_owned())
    }

    /// Keeps the verifier's figures that are on the console.
    pub fn record(&self, series: &str) -> Result<()> {
        let said = self.said()?;
        let figures = figures(&said).context("--record: no test printed the verifier's figures")?;
        let path = root().join("tests/golden/verifier").join(format!("{series}.txt"));
        fs::write(&path, figures).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Boots, and waits for the end.
    pub fn run(&self, limit: Duration) -> Result<()> {
        let console = File::create(&self.console).context("cannot write the console's file")?;
        drop(console);
        let emulator = emulator(self.processor);
        let share = |path: &Path, tag: &str| {
            let path = path.display();
            format!("local,path={path},mount_tag={tag},security_model=none,readonly=on,multidevs=remap")
        };
        let mut machine = Command::new(emulator.program);
        machine
            .args(emulator.arguments)
            .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "3072"])
            .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
            .arg("-append")
            .arg(format!("console={} quiet loglevel=1 panic=-1", emulator.console))
            .args(["-virtfs", &share(Path::new("/"), HOST)]);
        if let Some(root) = &self.root {
            machine.args(["-virtfs", &share(root, ROOT)]);
        }
        machine
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
fn make_initrd(kernel: &Kernel, made_root: Option<&Path>, script: &str, to: &Path) -> Result<()> {
    let (dir, files, version) = (kernel.dir.join("initial"), kernel.files(), kernel.version.as_str());
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    for part in ["bin", "modules", "proc", "dev", "machine", "lower", "upper", "root"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let busybox = match made_root {
        Some(root) => root.join("usr/bin/busybox"),
        None => programs::find("busybox").context("busybox is not there")?,
    };
    fs::copy(busybox, dir.join("bin/busybox"))?;
    copy_modules(&files, version, &dir.join("modules"))?;
    // Links would lead out of where it is seen.
    let modules = fs::canonicalize(files.join("lib/modules"))?;
    let built = match made_root {
        Some(_) => super::built_directories()?,
        None => Vec::new(),
    };
    let built: Vec<String> = built.iter().map(|dir| dir.display().to_string()).collect();
    let init = dir.join("init");
    let text = INIT
        .replace("@ROOT@", if made_root.is_some() { ROOT } else { HOST })
        .replace("@BUILT@", &built.join(" "))
        .replace("@MODULES@", &modules.display().to_string());
    fs::write(&init, text)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("tests.sh"), script)?;
    let line = "find . | cpio --create --format=newc --quiet";
    let status = Command::new("sh")
        .args(["-c", line])
        .current_dir(&dir)
        .stdout(Stdio::from(File::create(to)?))
        .status()
        .context("cannot run cpio")?;
    ensure!(status.success(), "cpio failed");
    Ok(())
}

/// Copies the modules that the first process loads, unpacked, named in their order.
fn copy_modules(files: &Path, version: &str, to: &Path) -> Result<()> {
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
            let to = to.join(format!(
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
