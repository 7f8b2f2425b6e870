//! `cargo xtask growth`: what becomes of packets, new connections and the daemon as a host gets more networks, published
//! ports, containers and flows; the kernel's path and netfast in interleaved rounds at each size.

mod daemon;

use std::{io::BufWriter, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use netfast_tests::{netfast_proc::ensure_bpffs, require::kernel_version};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::{
    build, engines, interrupt,
    measure::{
        create,
        lab::{Lab, Path, Setting},
        metric::{Figure, Metric, Tools},
        picture::{self, Panel, Series, Shape},
        plan::Plan,
        sample::{Samples, Spread, Variant},
        table::{self, Table},
    },
    setup::{self, Scope},
};

use daemon::Figures;

/// Options of `growth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Networks without containers on the host, besides those of the measurement.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [0, 100, 500])]
    networks: Vec<u16>,
    /// UDP ports published by another container.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [100, 1000])]
    ports: Vec<u16>,
    /// Containers on the user-defined network, besides those of the measurement.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [100])]
    containers: Vec<u16>,
    /// UDP conversations at a time.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS", default_values_t = [1000, 15_000])]
    flows: Vec<usize>,
    /// Rounds, each with all of it.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Whose engine: the machine's own, or that of another Debian release.
    #[arg(long, value_name = "NAME", value_parser = engines::parse, default_value = engines::INSTALLED)]
    engine: String,
    /// Write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a picture of it, SVG, into this file.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// The most conversations: one source address has that many ports.
const MAX_FLOWS: usize = 60_000;
/// Those that a client of any number of flows may take.
const CLIENT_PORTS: &str = "1024 65535";

/// The most that a flow's handshake takes on a busy machine.
const HANDSHAKE: Duration = Duration::from_millis(2);

/// What there is more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Dimension {
    Networks,
    Ports,
    Containers,
    Flows,
}

impl Dimension {
    const ALL: [Self; 4] = [Self::Networks, Self::Ports, Self::Containers, Self::Flows];

    fn title(self) -> &'static str {
        match self {
            Self::Networks => "more networks",
            Self::Ports => "more published ports",
            Self::Containers => "more containers on the network",
            Self::Flows => "flows at a time",
        }
    }

    /// Where it begins: what every host has.
    fn least(self) -> usize {
        match self {
            Self::Networks | Self::Ports | Self::Containers => 0,
            Self::Flows => 1,
        }
    }
}

/// One host.
#[derive(Debug, Serialize)]
struct Step {
    dimension: Dimension,
    size: usize,
    samples: Samples,
    daemon: Vec<Figures>,
}

/// The file of `--json`.
#[derive(Serialize)]
struct Record<'a> {
    kernel: String,
    engine: &'a str,
    seconds: f64,
    steps: &'a [Step],
}

/// What is measured of packets, and on which paths.
const PATHS: [Path; 2] = [Path::User, Path::Published];
const SHOWN: [&str; 2] = ["udp_pps", "crr_rate"];

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds 0: at least one round is needed");
    let most = most_flows()?;
    if let Some(flows) = args.flows.iter().find(|flows| !(1..=most).contains(*flows)) {
        bail!("--flows {flows}: from 1 to {most}; each is a socket (`ulimit -n`) with a source port of one address");
    }
    let (json, picture) = (create(args.json.as_deref())?, create(args.picture.as_deref())?);
    interrupt::handle()?;
    setup::ensure(Scope::All)?;
    let traffic = build::build_for_laboratory(true)?;
    ensure_bpffs()?;
    let tools = Tools::new(traffic, args.seconds)?;
    let mut engine = String::new();
    let mut steps = Vec::new();
    // What all dimensions begin with is one host.
    for (dimension, size) in sizes(args) {
        eprintln!("growth: {size} {}", dimension.title());
        let lab = Lab::new(setting(args, dimension, size)?, |what| eprintln!("growth: {what}"))?;
        engine = lab.describe()?;
        steps.push(step(args, &lab, &tools, dimension, size)?);
    }
    println!("{}", packets(&steps));
    println!("{}", daemons(&steps));
    println!("{engine}, Linux {}.", kernel_version().1);
    println!(
        "Medians (smallest-largest) of {} rounds of {} s; netfast/kernel is the median of the rounds' ratios; \"of itself\" is netfast's \
         median beside its own where the host is smallest.",
        args.rounds, args.seconds
    );
    if let Some(file) = json {
        let record = Record {
            kernel: kernel_version().1,
            engine: &engine,
            seconds: args.seconds,
            steps: &steps,
        };
        serde_json::to_writer_pretty(BufWriter::new(file), &record).context("cannot write the samples")?;
    }
    if let Some(file) = picture {
        picture::write(file, &panels(&steps))?;
    }
    Ok(())
}

/// The hosts, the smallest first.
fn sizes(args: &Args) -> Vec<(Dimension, usize)> {
    let more = |dimension, sizes: &[u16]| -> Vec<(Dimension, usize)> {
        let sizes = sizes.iter().filter(|size| **size > 0);
        sizes.map(|size| (dimension, usize::from(*size))).collect()
    };
    let mut all = vec![(Dimension::Networks, 0)];
    all.extend(more(Dimension::Networks, &args.networks));
    all.extend(more(Dimension::Ports, &args.ports));
    all.extend(more(Dimension::Containers, &args.containers));
    let flows = args.flows.iter().filter(|flows| **flows > Dimension::Flows.least());
    all.extend(flows.map(|flows| (Dimension::Flows, *flows)));
    all
}

/// Raises the number of sockets that a client may have, and says how many flows these allow.
fn most_flows() -> Result<usize> {
    let (_, sockets) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, sockets, sockets)?;
    Ok(usize::try_from(sockets)
        .unwrap_or(MAX_FLOWS)
        .saturating_sub(100)
        .min(MAX_FLOWS))
}

fn setting(args: &Args, dimension: Dimension, size: usize) -> Result<Setting> {
    let of = |this| {
        let size = if dimension == this { size } else { 0 };
        u16::try_from(size).with_context(|| format!("{size} {}: too many", this.title()))
    };
    Ok(Setting {
        release: engines::release(&args.engine)?,
        networks: of(Dimension::Networks)?,
        published_ports: of(Dimension::Ports)?,
        containers: of(Dimension::Containers)?,
        ..Setting::default()
    })
}

fn step(args: &Args, lab: &Lab, tools: &Tools, dimension: Dimension, size: usize) -> Result<Step> {
    let flows = if dimension == Dimension::Flows { size } else { 1 };
    if flows > 1 {
        for path in PATHS {
            let client = lab.ends(path)?.client;
            client.set_sysctl("net/ipv4/ip_local_port_range", CLIENT_PORTS)?;
        }
    }
    let plan = Plan {
        paths: PATHS.to_vec(),
        variants: vec![Variant::Kernel, Variant::Netfast],
        metrics: vec![Metric::Udp, Metric::Crr],
        rounds: args.rounds,
        before: None,
    };
    let tools = Tools {
        flows,
        patience: tools.patience + HANDSHAKE * u32::try_from(flows)?,
        ..tools.clone()
    };
    let samples = plan.run(lab, &tools)?;
    let daemon = (1..=args.rounds)
        .map(|round| Figures::measure(lab, &tools.traffic, round))
        .collect::<Result<_>>()?;
    Ok(Step {
        dimension,
        size,
        samples,
        daemon,
    })
}

/// The steps of one dimension, with the host that all begin with.
fn of(steps: &[Step], dimension: Dimension) -> Vec<(usize, &Step)> {
    let first = steps.iter().take(1).map(|step| (dimension.least(), step));
    let rest = steps.iter().skip(1).filter(|step| step.dimension == dimension);
    first.chain(rest.map(|step| (step.size, step))).collect()
}

/// What is shown side by side: one figure of a path, as a host gets more of something.
struct Comparison<'a> {
    dimension: Dimension,
    steps: Vec<(usize, &'a Step)>,
    path: Path,
    figure: &'static Figure,
}

/// All of them, of what was measured at more than one size.
fn comparisons(steps: &[Step]) -> Vec<Comparison<'_>> {
    let mut all = Vec::new();
    for dimension in Dimension::ALL {
        let steps = of(steps, dimension);
        if steps.len() < 2 {
            continue;
        }
        let shown = PATHS.into_iter().flat_map(|path| SHOWN.map(|name| (path, name)));
        all.extend(shown.map(|(path, name)| Comparison {
            dimension,
            steps: steps.clone(),
            path,
            figure: Figure::named(name),
        }));
    }
    all
}

/// The table of packets and connections.
fn packets(steps: &[Step]) -> String {
    let mut table = Table::default();
    for Comparison {
        dimension,
        steps,
        path,
        figure,
    } in comparisons(steps)
    {
        table.row([
            dimension.title().to_owned(),
            format!("{}, {}, {}", path.word(), figure.title, figure.unit),
            "kernel".to_owned(),
            "netfast".to_owned(),
            "netfast/kernel".to_owned(),
            "of itself".to_owned(),
        ]);
        let mut first = None;
        for (size, step) in steps {
            table.row(row(size, step, path, figure, &mut first));
        }
    }
    table.render()
}

fn row(size: usize, step: &Step, path: Path, figure: &Figure, first: &mut Option<f64>) -> [String; 6] {
    let samples = &step.samples;
    let spread = |variant| samples.spread(path, variant, figure.name);
    let text = |spread: Option<Spread>| spread.map_or_else(String::new, |spread| table::with_range(spread, figure));
    let netfast = spread(Variant::Netfast);
    let median = netfast.map_or(0.0, |netfast| netfast.median);
    let least = *first.get_or_insert(median);
    let ratio = samples.ratio(path, Variant::Kernel, figure.name);
    [
        format!("  {size}"),
        String::new(),
        text(spread(Variant::Kernel)),
        text(netfast),
        ratio.map_or_else(String::new, |ratio| format!("{:.2}x", ratio.median)),
        if least > 0.0 {
            format!("{:.2}x", median / least)
        } else {
            String::new()
        },
    ]
}

/// The table of the daemon.
fn daemons(steps: &[Step]) -> String {
    let mut table = Table::default();
    table.row([
        "the daemon",
        "",
        "ready, ms",
        "idle, % of a CPU",
        "memory, MiB",
        "a new container is fast after, ms",
        "CPU for it, ms",
    ]);
    for step in steps {
        let text = |of: fn(&Figures) -> f64| {
            let spread = Spread::of(step.daemon.iter().map(of).collect());
            spread.map_or_else(String::new, |spread| {
                format!("{:.1} ({:.1}-{:.1})", spread.median, spread.min, spread.max)
            })
        };
        table.row([
            format!("  {} {}", step.size, step.dimension.title()),
            String::new(),
            text(|daemon| daemon.start_ms),
            text(|daemon| daemon.idle_percent),
            text(|daemon| daemon.memory_mib),
            text(|daemon| daemon.container_fast_ms),
            text(|daemon| daemon.container_cpu_ms),
        ]);
    }
    table.render()
}

/// The panels of the picture.
fn panels(steps: &[Step]) -> Vec<Panel> {
    let panel = |compared: &Comparison<'_>| {
        let (path, figure) = (compared.path, compared.figure);
        let series = |variant: Variant| Series {
            title: variant.title(),
            points: compared
                .steps
                .iter()
                .map(|(_, step)| step.samples.spread(path, variant, figure.name))
                .collect(),
        };
        Panel {
            title: format!("{}: {}, {}", path.word(), figure.title, figure.unit),
            below: compared.dimension.title(),
            places: compared.steps.iter().map(|(size, _)| size.to_string()).collect(),
            shape: Shape::Lines,
            series: vec![series(Variant::Kernel), series(Variant::Netfast)],
        }
    };
    comparisons(steps).iter().map(panel).collect()
}
