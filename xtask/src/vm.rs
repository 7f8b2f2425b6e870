//! `cargo xtask vm`: the namespace tests under other kernels, those of distributions, in a virtual machine; also with another
//! processor.
//!
//! The machine's root is this machine's own, read-only, with a layer in memory above it, so the tests and what they call
//! are those that were built here; for another processor they are built for it, and the root is made of Debian's packages. QEMU
//! emulates the processor, slowly but everywhere; nothing here is a measurement.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::{cmd, programs};

use crate::{
    build::{self, Built},
    cross::{Cargo, Processor},
    setup::{self, Scope, apt},
    vm::machine::Machine,
    workspace::{Profile, root, show, target_dir},
};

mod guest;
pub mod kernels;
mod machine;
mod openvswitch;

/// Packages beyond those of set-up: what makes an initial file system, and what tests of the kernels' modules call.
const PACKAGES: [&str; 4] = ["kmod", "cpio", "zstd", "wireguard-tools"];
/// What the last line of the tests' script says before the exit code.
const EXIT: &str = "VM-EXIT ";

/// How a script begins. What tests of bridges take for granted is built into the kernels that they are written on, and a module of
/// others: without it no rule judges within a bridge.
const ENVIRONMENT: &str = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
                           ip link set lo up\nmodprobe -a br_netfilter tun\n";
/// How it ends, with the exit code of what ran last.
const END: &str = "echo \"VM-EXIT $?\"\nbusybox poweroff -f\n";

/// Options of `vm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Series of kernels; the newest of each is taken. By default all that can be had for the processor.
    #[arg(long, value_delimiter = ',', value_parser = kernels::parse)]
    kernels: Vec<String>,
    /// The machine's processor, instead of this one's.
    #[arg(long, value_enum)]
    arch: Option<Processor>,
    /// Only tests whose name contains one of these.
    #[arg(long, value_name = "TEXT", value_delimiter = ',', default_values_t = ["netns::kernel", "netns::paths", "packet::verifier"].map(str::to_owned))]
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
    let processor = args.arch.map_or_else(Processor::native, Ok)?;
    ensure_tools(processor)?;
    let is_other = processor != Processor::native()?;
    ensure!(
        !(is_other && args.record),
        "--record: the figures are those of this machine's processor"
    );
    let tests = Tests::find(processor, &args.only)?;
    let root = if is_other { Some(guest::root(processor)?) } else { None };
    let mut kernels = args.kernels.clone();
    if kernels.is_empty() {
        kernels = kernels::names_for(processor);
    }
    let mut failed = Vec::new();
    for kernel in &kernels {
        let machine = Machine::prepare(kernel, processor, root.as_deref(), &tests.script())?;
        println!("{}: {} tests", machine.kernel.version, tests.names.len());
        let done = machine.run(Duration::from_mins(args.minutes));
        if args.record {
            machine.record(kernel)?;
        }
        if let Err(error) = done {
            failed.push(format!("{}: {error:#}", machine.kernel.version));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn ensure_tools(processor: Processor) -> Result<()> {
    let emulator = machine::emulator(processor);
    let needed = ["depmod", "cpio", "zstd", "wg", emulator.program];
    if needed.iter().any(|program| programs::find(program).is_none()) {
        apt::update()?;
        apt::install(&[&PACKAGES[..], &[emulator.package]].concat())?;
    }
    Ok(())
}

/// What became of tests on another kernel.
pub struct Done {
    /// What is on the console.
    pub said: String,
    /// Whether all passed.
    pub result: Result<()>,
}

/// Runs the tests of these names, with these variables set, on a kernel of that series and this machine's processor.
pub fn run_on(series: &str, names: &[&str], environment: Vec<(&str, String)>, limit: Duration) -> Result<Done> {
    let processor = Processor::native()?;
    ensure_tools(processor)?;
    let only: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut tests = Tests::find(processor, &only)?;
    tests.names.retain(|name| only.contains(name));
    let own = environment.into_iter().map(|(name, value)| (name.to_owned(), value));
    tests.environment = own.collect();
    let machine = Machine::prepare(series, processor, None, &tests.script())?;
    println!("{}: {} tests", machine.kernel.version, tests.names.len());
    let result = machine.run(limit);
    Ok(Done {
        said: machine.said()?,
        result,
    })
}

/// Runs lines of shell on a kernel of that series and this machine's processor, with this machine's root; returns what is on the
/// console.
pub fn run_lines(series: &str, lines: &str, limit: Duration) -> Result<String> {
    let processor = Processor::native()?;
    ensure_tools(processor)?;
    let script = format!("{ENVIRONMENT}{lines}\n{END}");
    let machine = Machine::prepare(series, processor, None, &script)?;
    machine.run(limit)?;
    machine.said()
}

/// What runs in the machine.
struct Tests {
    /// As built for the machine's processor.
    program: PathBuf,
    names: Vec<String>,
    built: Built,
    /// Variables, with texts without quotation marks.
    environment: Vec<(String, String)>,
    /// Lines that make Open vSwitch's programs known, if one of the tests is about it.
    openvswitch: String,
}

impl Tests {
    fn find(processor: Processor, only: &[String]) -> Result<Self> {
        let native = Processor::native()?;
        let names = if processor == native {
            None
        } else {
            // A program of another processor cannot be asked for its tests here.
            Some(Self::find(native, only)?.names)
        };
        let cargo = processor.cargo()?;
        let built = if processor == native {
            build::build(false)?
        } else {
            Built::in_dir(&cargo.build(Profile::Debug, &["netfast", "netfast-tests"])?)
        };
        let program = Self::build(&cargo)?;
        let names = match names {
            Some(names) => names,
            None => Self::names(&program, only)?,
        };
        let is_about_it = names.iter().any(|name| name.contains("openvswitch"));
        let openvswitch = if is_about_it {
            openvswitch::environment(processor)?
        } else {
            String::new()
        };
        Ok(Self {
            program,
            names,
            built,
            environment: Vec::new(),
            openvswitch,
        })
    }

    fn build(cargo: &Cargo) -> Result<PathBuf> {
        let command = || {
            let mut command = cargo.command("test");
            command.args(["--package", "netfast-tests", "--test", "it", "--no-run"]);
            command
        };
        show(&mut command())?;
        let made = cmd::run(command().arg("--message-format=json"))?;
        made.lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| {
                let executable = message.get("executable")?.as_str()?;
                (message.get("target")?.get("name")?.as_str()? == "it").then(|| PathBuf::from(executable))
            })
            .context("cargo built no integration tests")
    }

    fn names(program: &Path, only: &[String]) -> Result<Vec<String>> {
        let list = cmd::run(Command::new(program).arg("--list"))?;
        let names: Vec<String> = list
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|name| only.iter().any(|only| name.contains(only)))
            .map(str::to_owned)
            .collect();
        ensure!(
            !names.is_empty(),
            "--only {}: no test is named like that",
            only.join(",")
        );
        Ok(names)
    }

    fn script(&self) -> String {
        let set = |(name, value): &(String, String)| format!("export {name}='{value}'\n");
        let environment: String = self.environment.iter().map(set).collect();
        format!(
            "{ENVIRONMENT}\
             {}\
             export NETFAST_BIN={} NETFAST_TRAFFIC={}\n\
             {environment}\
             export {}=8\n\
             {} --exact --test-threads 1 --nocapture --include-ignored {}\n\
             {END}",
            self.openvswitch,
            self.built.netfast.display(),
            self.built.traffic.display(),
            cmd::PATIENCE,
            self.program.display(),
            self.names.join(" ")
        )
    }
}

/// The directories that are needed of what was built: the sources, which tests read, and where cargo leaves programs.
fn built_directories() -> Result<Vec<PathBuf>> {
    let mut directories = vec![fs::canonicalize(root())?];
    let target = fs::canonicalize(target_dir()?)?;
    if !target.starts_with(&directories[0]) {
        directories.push(target);
    }
    Ok(directories)
}
