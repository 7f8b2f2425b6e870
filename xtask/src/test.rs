//! `cargo xtask test`: the rings of tests, from those that need nothing to those with a real Docker engine.

mod package;
mod previous;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use netfast_tests::{
    cmd,
    docker_host::{Kind, Release, release},
    netfast_proc::ensure_bpffs,
};

use crate::{
    build::{self, Built},
    engines,
    setup::{self, Scope},
    workspace::{cargo, show, target_dir},
};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which tests.
    #[arg(value_enum, default_value_t = Ring::All)]
    ring: Ring,
    /// Only tests of the ring whose name contains one of these, separated by commas.
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    only: Vec<String>,
    /// Docker: the engine of another Debian release (26.1, 28.5, podman-5), which is fetched the first time, instead of the
    /// machine's own.
    #[arg(long, value_name = "NAME", value_parser = engines::parse, default_value = engines::INSTALLED)]
    engine: String,
    /// Packet: this many generated scripts on the kernel beside the host build, instead of all tests of the ring.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["only", "seeds", "seed"])]
    cases: Option<u64>,
    /// Differential: this many generated cases, instead of all tests of the ring.
    #[arg(long, value_name = "COUNT", conflicts_with = "only")]
    seeds: Option<u64>,
    /// Namespaces: this many generated worlds in which what `explain` says is compared with what packets do, instead of all
    /// tests of the ring.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["only", "seeds", "seed", "cases"])]
    worlds: Option<u64>,
    /// Packet, differential, namespaces: the first seed of `--cases`, `--seeds` and `--worlds`.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Differential: only those of `--seeds` that have something of such a kind, `xfrm policy` for instance: the table at a
    /// run's end tells the kinds.
    #[arg(long, value_name = "KIND", requires = "seeds")]
    with: Option<String>,
    /// Differential: the generated case of this seed, printed completely.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["only", "seeds"])]
    seed: Option<u64>,
    /// Differential: only this part of the seed's case, as a failure prints it.
    #[arg(long, value_name = "PART", requires = "seed")]
    keep: Option<String>,
}

/// A set of tests with the same needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ring {
    /// Unit and property tests of every crate: no root, no BPF.
    Unit,
    /// Packets through the BPF programs by `BPF_PROG_TEST_RUN`, and the verifier's figures.
    Packet,
    /// Network namespaces without Docker, the command line, and whatever belongs to no other ring.
    Netns,
    /// The same packets with netfast off and on, in cases written by hand and made from seeds.
    Differential,
    /// Docker hosts in network namespaces.
    Docker,
    /// The Debian package in a clean Debian, which is fetched from Debian's mirror the first time. Not one of `all`.
    Package,
    /// All of them but the package, in this order.
    All,
}

/// Modules of the integration tests that make a test belong to a ring, wherever in its path they stand. The namespace
/// ring has all other tests, so that none is forgotten.
const PACKET: [&str; 3] = ["packet", "verifier", "abi"];
const DIFFERENTIAL: [&str; 1] = ["differential"];
const DOCKER: [&str; 2] = ["docker", "lab"];
const PACKAGE: [&str; 1] = ["package"];

/// Tests of the Docker ring that are about podman, which no other engine is asked.
const PODMAN: &str = "docker::podman::";
/// Those about what Docker has since 28.
const SINCE_28: &str = "docker::gateways::";
/// The paths.
pub const PATHS: &str = "docker::paths::every_path_is_exact_and_fast_as_installed";
/// All that every engine is asked about.
const EVERY_ENGINE: [&str; 2] = [PATHS, "docker::six::every_path_of_ipv6_is_exact_and_fast"];

/// The test that plays seeds.
const SEEDS: &str = "differential::generated::seeds";

/// The test that plays worlds.
const WORLDS: &str = "netns::says::worlds";

/// The tests that play scripts on the kernel and on the host.
const CASES: [&str; 3] = [
    "packet::twin::the_kernel_and_the_host_build_agree",
    "packet::twin::dns::the_kernel_and_the_host_build_answer_alike",
    "packet::twin::vip::the_kernel_and_the_host_build_translate_alike",
];

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    let rings = match args.ring {
        Ring::All => &[Ring::Unit, Ring::Packet, Ring::Netns, Ring::Differential, Ring::Docker][..],
        Ring::Unit | Ring::Packet | Ring::Netns | Ring::Differential | Ring::Docker | Ring::Package => &[args.ring],
    };
    let is_of_seeds = args.seeds.is_some() || args.seed.is_some();
    ensure!(
        args.cases.is_none() || args.ring == Ring::Packet,
        "--cases is about the ring packet"
    );
    ensure!(
        !is_of_seeds || args.ring == Ring::Differential,
        "--seeds and --seed are about the ring differential"
    );
    ensure!(
        args.worlds.is_none() || args.ring == Ring::Netns,
        "--worlds is about the ring netns"
    );
    ensure!(
        args.engine == engines::INSTALLED || args.ring == Ring::Docker,
        "--engine is about the ring docker"
    );
    setup::ensure(if args.ring == Ring::Unit {
        Scope::Build
    } else {
        Scope::All
    })?;
    let mut results = Vec::new();
    for ring in rings.iter().copied() {
        let start = Instant::now();
        let result = if ring == Ring::Unit {
            unit(args)
        } else {
            integration(ring, args)
        };
        results.push((ring, start.elapsed(), result));
    }
    report(results)
}

fn report(results: Vec<(Ring, Duration, Result<()>)>) -> Result<()> {
    println!("\nring          result  seconds");
    let mut failed = Vec::new();
    for (ring, duration, result) in results {
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{:<12}  {word:<6}  {:>7.1}", name(ring), duration.as_secs_f32());
        if let Err(error) = result {
            failed.push(format!("{}: {error:#}", name(ring)));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("; "))
}

fn name(ring: Ring) -> &'static str {
    match ring {
        Ring::Unit => "unit",
        Ring::Packet => "packet",
        Ring::Netns => "netns",
        Ring::Differential => "differential",
        Ring::Docker => "docker",
        Ring::Package => "package",
        Ring::All => "all",
    }
}

fn unit(args: &Args) -> Result<()> {
    for name in &args.only {
        // Else a misspelt name would be a green run that has tested nothing.
        let listed = |packages: &[&str]| {
            let mut list = cargo();
            list.arg("test").args(packages).args(["--", "--list"]).arg(name);
            cmd::run(&mut list)
        };
        let tests = [
            listed(&["--workspace", "--exclude", "netfast-tests"])?,
            listed(&["--package", "netfast-tests", "--lib", "--bins"])?,
        ];
        ensure!(
            tests
                .iter()
                .flat_map(|text| text.lines())
                .any(|line| line.ends_with(": test")),
            "no test of the ring unit is named like {name}"
        );
    }
    show(
        cargo()
            .args(["test", "--workspace", "--exclude", "netfast-tests", "--"])
            .args(&args.only),
    )?;
    show(
        cargo()
            .args(["test", "--package", "netfast-tests", "--lib", "--bins", "--"])
            .args(&args.only),
    )
}

fn integration(ring: Ring, args: &Args) -> Result<()> {
    ensure_bpffs()?;
    let mut more = match ring {
        Ring::Netns => vec![("NETFAST_BPF_LOG_BIN", build::build_with_bpf_log()?)],
        Ring::Unit | Ring::Packet | Ring::Differential | Ring::Docker | Ring::Package | Ring::All => Vec::new(),
    };
    let built = build::build(false)?;
    if args.seeds.is_some() || args.seed.is_some() {
        return seeds(&built, args);
    }
    if let Some(count) = args.cases {
        let mut command = it(&built);
        command
            .args(["--exact", "--nocapture"])
            .args(CASES)
            .env("NETFAST_CASES", format!("{}+{count}", args.from));
        return show(&mut command);
    }
    if let Some(count) = args.worlds {
        let mut command = it(&built);
        command
            .args(["--exact", WORLDS, "--nocapture"])
            .env("NETFAST_WORLDS", format!("{}+{count}", args.from));
        return show(&mut command);
    }
    let release = engines::release(&args.engine)?;
    more.extend(release.root().map(|root| (release::VARIABLE, root.to_owned())));
    let mut tests = tests_of(&built, ring)?;
    if ring == Ring::Docker {
        let mut about = Vec::new();
        for test in tests {
            if is_about(&test, &release)? {
                about.push(test);
            }
        }
        tests = about;
    }
    tests.retain(|test| args.only.is_empty() || args.only.iter().any(|only| test.contains(only)));
    // Else a misspelt name would be a green run that has tested nothing.
    for only in &args.only {
        ensure!(
            tests.iter().any(|test| test.contains(only)),
            "no test of the ring {} is named like {only}",
            name(ring)
        );
    }

    if ring == Ring::Package {
        more.extend(package::environment(&tests)?);
    }
    let threads = match ring {
        // Those of namespaces wait more than they work: three leave half of a small machine's two cores idle. Their checks have
        // time limits, so not many more: six at a time, beside other work, found none that fails of it.
        Ring::Packet | Ring::Netns => "4",
        Ring::Docker | Ring::Differential => "2",
        Ring::Unit | Ring::Package | Ring::All => "1",
    };
    let mut run = it(&built);
    run.envs(more).args(["--exact", "--test-threads", threads]).args(&tests);
    let done = show(&mut run).with_context(|| {
        format!(
            "see the failures above; run one by `cargo xtask test {} --only NAME`",
            name(ring)
        )
    });
    if ring == Ring::Package {
        print!("{}", package::table(&tests)?);
    }
    done
}

/// The names of a ring's tests.
pub fn tests_of(built: &Built, ring: Ring) -> Result<Vec<String>> {
    let list = cmd::finish(it(built).arg("--list"), Duration::from_mins(30))?;
    ensure!(
        list.status.success(),
        "the integration tests do not build:\n{}",
        list.stderr
    );
    let tests = list.stdout.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(tests.filter(|test| ring_of(test) == ring).map(str::to_owned).collect())
}

/// Plays generated cases.
fn seeds(built: &Built, args: &Args) -> Result<()> {
    let (from, count) = match args.seed {
        Some(seed) => (seed, 1),
        None => (args.from, args.seeds.unwrap_or(1)),
    };
    let mut command = it(built);
    command
        .args(["--exact", SEEDS, "--nocapture"])
        .env("NETFAST_SEEDS", format!("{from}+{count}"));
    if let Some(kind) = &args.with {
        command.env("NETFAST_SEEDS_WITH", kind);
    }
    match &args.keep {
        Some(keep) => command.env("NETFAST_SEEDS_KEEP", keep),
        None => command.env("NETFAST_SEEDS_JSON", target_dir()?.join("seeds.json")),
    };
    show(&mut command)
}

/// Whether a test of the Docker ring is about this engine.
pub fn is_about(test: &str, release: &Release) -> Result<bool> {
    Ok(is_about_kind(test, release.kind()) && (!test.starts_with(SINCE_28) || release.is_docker_since(28, 0)?))
}

fn is_about_kind(test: &str, kind: Kind) -> bool {
    let is_podmans = test.starts_with(PODMAN);
    match kind {
        Kind::Docker => !is_podmans,
        Kind::Podman => is_podmans || EVERY_ENGINE.contains(&test),
    }
}

fn ring_of(test: &str) -> Ring {
    let is_in = |modules: &[&str]| test.split("::").any(|part| modules.contains(&part));
    match test {
        _ if is_in(&PACKET) => Ring::Packet,
        _ if is_in(&DIFFERENTIAL) => Ring::Differential,
        _ if is_in(&DOCKER) => Ring::Docker,
        _ if is_in(&PACKAGE) => Ring::Package,
        _ => Ring::Netns,
    }
}

/// `cargo test` of the integration tests, up to the harness's own arguments.
pub fn it(built: &Built) -> Command {
    let mut command = cargo();
    command
        .args(["test", "--package", "netfast-tests", "--test", "it", "--"])
        .env("NETFAST_BIN", &built.netfast)
        .env("NETFAST_TRAFFIC", &built.traffic);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podman_has_tests_of_its_own() {
        for (test, docker, podman) in [
            (PATHS, true, true),
            ("docker::policy::rules_hold_with_iptables_nft", true, false),
            ("docker::podman::pods_names_and_aliases_are_what_they_are", false, true),
        ] {
            let about = [Kind::Docker, Kind::Podman].map(|kind| is_about_kind(test, kind));
            assert_eq!(about, [docker, podman], "{test}");
        }
    }

    #[test]
    fn every_test_is_in_one_ring() {
        for (test, ring) in [
            ("packet::using::a_hit", Ring::Packet),
            ("daemon::docker::restart", Ring::Docker),
            ("docker::paths::published", Ring::Docker),
            (SEEDS, Ring::Differential),
            (WORLDS, Ring::Netns),
            (CASES[0], Ring::Packet),
            (CASES[2], Ring::Packet),
            ("lab::topo_forwards", Ring::Docker),
            ("package::installs", Ring::Package),
            ("cli::help", Ring::Netns),
            ("made_up_tomorrow::whatever", Ring::Netns),
        ] {
            assert_eq!(ring_of(test), ring, "{test}");
        }
    }
}
