//! `cargo xtask setup`: what development needs of the machine; found, or how it is got.
//!
//! Programs come from Debian packages; the BPF programs need a compiler that has its own source (to build `core` for
//! the BPF target) and bpf-linker, built against that compiler's LLVM.

pub mod apt;
mod compiler;
mod linker;

use std::{error, fmt, fs};

use anyhow::Result;
use netfast_tests::{programs, require::kernel_version};
use nix::unistd::geteuid;

/// Options of `setup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only report; exit code 3 if something is missing.
    #[arg(long)]
    no_install: bool,
}

/// The machine lacks something, and it stays so.
#[derive(Debug)]
pub struct Lacking(String);

impl Lacking {
    /// What it lacks, in words.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Lacking {}

/// What a verb is about to do, and so what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Compile everything.
    Build,
    /// Compile, and run laboratories.
    All,
    /// The same, and other load balancers to compare with.
    Proxies,
}

/// The row that says who runs us.
const ROOT: &str = "root";

/// One thing that is needed.
struct Row {
    name: String,
    purpose: &'static str,
    state: State,
}

enum State {
    /// Its version, or where it is.
    Found(String),
    /// Missing, and this package has it.
    Package(&'static str),
    /// Missing, and got otherwise, in these words.
    Otherwise(String),
    /// Missing, and nothing that setup could install.
    OutOfReach(String),
}

/// Programs of the laboratory: name, what for, Debian package.
const PROGRAMS: [(&str, &str, &str); 13] = [
    ("ip", "network namespaces, veth pairs, bridges", "iproute2"),
    ("iptables", "Docker's rules", "iptables"),
    ("nft", "rules in differential tests", "nftables"),
    ("conntrack", "connection tracking state in tests", "conntrack"),
    ("bpftool", "other programs' view of what is attached", "bpftool"),
    ("iperf3", "bulk traffic in demo, bench and tests", "iperf3"),
    ("busybox", "programs inside containers", "busybox-static"),
    ("musl-gcc", "a client with musl's resolver", "musl-tools"),
    ("nsenter", "entering a laboratory's namespaces", "util-linux"),
    ("dockerd", "Docker hosts in network namespaces", "docker.io"),
    ("docker", "the Docker client", "docker-cli"),
    ("systemd-analyze", "the unit under a real systemd", "systemd"),
    ("cc", "linking", "gcc libc6-dev"),
];

/// What only [`Scope::Proxies`] needs.
const PROXIES: [(&str, &str, &str); 2] = [
    ("nginx", "comparison with a proxy", "nginx-light libnginx-mod-stream"),
    ("haproxy", "comparison with a proxy", "haproxy"),
];

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    let rows = survey(Scope::All);
    print(&rows);
    let lacking = missing(&rows);
    if is_installed(&rows) {
        println!("{}", all_there(&lacking));
        return Ok(());
    }
    if args.no_install {
        return Err(Lacking(format!(
            "missing: {}; `cargo xtask setup` installs it",
            lacking.join(", ")
        ))
        .into());
    }
    install(Scope::All, false)
}

/// Installs what `scope` lacks, naming it, and does nothing if it lacks nothing.
pub fn ensure(scope: Scope) -> Result<()> {
    let rows = survey(scope);
    if missing(&rows).is_empty() {
        return Ok(());
    }
    print(&rows);
    install(scope, true)
}

/// Whether nothing is to be installed. Who is not root can still build; what needs root asks for it itself.
fn is_installed(rows: &[Row]) -> bool {
    missing(rows).iter().all(|name| name == ROOT)
}

/// What is said then.
fn all_there(lacking: &[String]) -> &'static str {
    if lacking.is_empty() {
        "Everything is there."
    } else {
        "Everything is there. Tests, the demo and measurements must be run as root, with sudo for instance; building need not."
    }
}

fn survey(scope: Scope) -> Vec<Row> {
    let proxies = PROXIES.into_iter().filter(|_| scope == Scope::Proxies);
    let mut rows: Vec<Row> = PROGRAMS
        .into_iter()
        .filter(|(name, ..)| scope != Scope::Build || *name == "cc")
        .chain(proxies)
        .map(|(name, purpose, package)| {
            let state = programs::find(name).map_or_else(
                || State::Package(apt::real_package(package)),
                |path| State::Found(path.display().to_string()),
            );
            Row {
                name: name.to_owned(),
                purpose,
                state,
            }
        })
        .collect();
    if scope != Scope::Build {
        rows.extend(kernel_rows());
    }
    rows.push(compiler::row());
    rows.push(linker::row());
    rows
}

fn kernel_rows() -> [Row; 3] {
    let (version, release) = kernel_version();
    let kernel = if version >= (6, 6) {
        State::Found(release)
    } else {
        State::OutOfReach(format!("this is {release}: boot a kernel that has tcx, 6.6 or newer"))
    };
    let root = if geteuid().is_root() {
        State::Found("effective user 0".to_owned())
    } else {
        State::OutOfReach("run it as root, with sudo for instance".to_owned())
    };
    let btf = "/sys/kernel/btf/vmlinux";
    let btf = if fs::exists(btf).unwrap_or(false) {
        State::Found(btf.to_owned())
    } else {
        State::OutOfReach("boot a kernel built with CONFIG_DEBUG_INFO_BTF".to_owned())
    };
    [
        Row {
            name: "kernel".to_owned(),
            purpose: "tcx",
            state: kernel,
        },
        Row {
            name: "kernel BTF".to_owned(),
            purpose: "loading BPF programs",
            state: btf,
        },
        Row {
            name: ROOT.to_owned(),
            purpose: "namespaces, BPF, installing",
            state: root,
        },
    ]
}

fn missing(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .filter(|row| !matches!(row.state, State::Found(_)))
        .map(|row| row.name.clone())
        .collect()
}

fn print(rows: &[Row]) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for Row { name, purpose, state } in rows {
        let told = match state {
            State::Found(what) => format!("found    {what}"),
            State::Package(package) => format!("MISSING  for {purpose}: Debian package {package}"),
            State::Otherwise(how) | State::OutOfReach(how) => format!("MISSING  for {purpose}: {how}"),
        };
        println!("{name:width$}  {told}");
    }
}

/// Installs what is missing. `runs`: the laboratories are run then, which needs root whether there is something to
/// install or not.
fn install(scope: Scope, runs: bool) -> Result<()> {
    if apt::usable() {
        apt::update()?;
    }
    // Once more: which package has a program depends on what apt knows, and a fresh machine's apt knows nothing.
    let rows = survey(scope);
    let needs_root = runs || rows.iter().any(|row| matches!(row.state, State::Package(_)));
    let out_of_reach: Vec<String> = rows
        .iter()
        .filter(|row| row.name != ROOT || needs_root)
        .filter_map(|row| match &row.state {
            State::OutOfReach(how) => Some(format!("{}: {how}", row.name)),
            State::Found(_) | State::Package(_) | State::Otherwise(_) => None,
        })
        .collect();
    let mut packages: Vec<&str> = rows
        .iter()
        .filter_map(|row| match row.state {
            State::Package(package) => Some(package),
            State::Found(_) | State::Otherwise(_) | State::OutOfReach(_) => None,
        })
        .flat_map(str::split_whitespace)
        .collect();
    packages.sort_unstable();
    packages.dedup();

    if !out_of_reach.is_empty() {
        apt::advise(&packages);
        return Err(Lacking(out_of_reach.join("; ")).into());
    }
    if !packages.is_empty() {
        apt::install(&packages)?;
    }
    compiler::install()?;
    linker::install()?;

    let rows = survey(scope);
    let lacking = missing(&rows);
    if lacking.is_empty() || (!runs && is_installed(&rows)) {
        println!("{}", all_there(&lacking));
        return Ok(());
    }
    Err(Lacking(format!("still missing after the installation: {}", lacking.join(", "))).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_root_setup_fails_only_if_something_is_to_be_installed() {
        let row = |name: &str, state| Row {
            name: name.to_owned(),
            purpose: "",
            state,
        };
        let found = || row("ip", State::Found("/sbin/ip".to_owned()));
        let nobody = || row(ROOT, State::OutOfReach("run it as root".to_owned()));
        assert!(is_installed(&[found()]));
        assert!(is_installed(&[found(), nobody()]));
        assert!(!is_installed(&[
            found(),
            nobody(),
            row("nft", State::Package("nftables"))
        ]));
        let old = row("kernel", State::OutOfReach("boot a newer one".to_owned()));
        assert!(!is_installed(&[found(), old]));
        assert!(all_there(&missing(&[found(), nobody()])).contains("must be run as root"));
        assert_eq!(all_there(&[]), "Everything is there.");
    }
}
