//! `cargo xtask bench`: interleaved rounds of direct veth pair, kernel path and netfast.

use std::{
    fs,
    io::BufWriter,
    path::PathBuf,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use netfast_tests::{netfast_proc::ensure_bpffs, require::kernel_version};
use serde::{Deserialize, Serialize};

use crate::{
    build, engines, interrupt,
    measure::{
        congestion,
        cpu::Idle,
        create,
        lab::{Family, Lab, Path, Setting},
        metric::{Figure, Metric, Tools},
        picture::{self, Panel, Series, Shape},
        plan::Plan,
        sample::{Samples, Variant},
        table,
    },
    setup::{self, Scope},
};

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ways through the host.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Path::Docker0, Path::User, Path::Published, Path::Masquerade, Path::Host])]
    paths: Vec<Path>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Metric::Tcp1, Metric::Tcp4, Metric::Paced, Metric::Udp, Metric::Rr, Metric::Crr, Metric::UdpNew])]
    metrics: Vec<Metric>,
    /// Rounds, each with all of it.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only what needs no netfast: the kernel's path and the direct veth pair.
    #[arg(long)]
    without_netfast: bool,
    /// Let plain network namespaces play the containers even where a Docker engine could be started.
    #[arg(long)]
    no_docker: bool,
    /// Whose engine: the machine's own, or that of another Debian release.
    #[arg(long, value_name = "NAME", value_parser = engines::parse, default_value = engines::INSTALLED)]
    engine: String,
    /// What clients and servers speak.
    #[arg(long, value_enum, default_value_t = Family::Ipv4)]
    family: Family,
    /// UDP ports of another container that are published besides, so that packets have more rules to walk past.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    published_ports: u16,
    /// netfast's configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// On which CPUs a flow's packets are handled.
    #[arg(long, value_enum, default_value_t = Placement::Spread)]
    placement: Placement,
    /// What CPUs do that have nothing to do.
    #[arg(long, value_enum, default_value_t = Idle::Poll)]
    idle: Idle,
    /// TCP's congestion control of bulk transfers, by the kernel's name for it; cubic, if the kernel has it.
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Measure another build of netfast beside this one: the program that `cargo build --release` made of another commit.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "without_netfast")]
    before: Option<PathBuf>,
    /// Write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a picture of it, SVG, into this file.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// The figures of the picture.
const DRAWN: [&str; 8] = [
    "udp_pps",
    "one_way_pps",
    "rr_p50",
    "crr_rate",
    "udp_new_rate",
    "tcp1_gbps",
    "tcp4_gbps",
    "paced_cpu",
];

/// Where packets of one flow are handled. A veth queues a packet on the CPU that sends it, which is now the sender's and
/// now the one that handles its acknowledgements: so packets overtake each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Placement {
    /// Sender and receiver on different CPUs.
    Spread,
    /// Both ends on one CPU, where no packet overtakes another: what is retransmitted then was lost.
    OneCpu,
    /// As `spread`, with receive packet steering on every interface, so that a flow's hash says which CPU handles it.
    Steered,
}

/// The file of `--json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Seconds since 1970 when it was written.
    pub time: u64,
    /// The kernel's release.
    pub kernel: String,
    cpus: usize,
    /// Whether containers were those of a real engine.
    docker: bool,
    /// Which, and how it was set up.
    pub engine: String,
    family: Family,
    published_ports: u16,
    seconds: f64,
    placement: Placement,
    idle: Idle,
    congestion: String,
    /// All that was measured.
    pub samples: Samples,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    let (json, picture) = (create(args.json.as_deref())?, create(args.picture.as_deref())?);
    let (record, plan) = measure(args)?;
    let samples = &record.samples;
    for path in &plan.paths {
        println!("\n{}", table::of_path(samples, *path, &plan.variants));
    }
    println!("{}.", record.engine);
    println!(
        "Medians (smallest-largest) of {} rounds of {} s; ratios are medians of the rounds' ratios.",
        args.rounds, args.seconds
    );
    if let Some(file) = picture {
        picture::write(file, &panels(samples, &plan))?;
    }
    if let Some(file) = json {
        serde_json::to_writer_pretty(BufWriter::new(file), &record).context("cannot write the samples")?;
    }
    Ok(())
}

/// Measures what the options say.
pub fn measure(args: &Args) -> Result<(Record, Plan)> {
    ensure!(args.rounds > 0, "--rounds 0: at least one round is needed");
    let congestion = congestion::choose(args.congestion.as_deref())?;
    let config = args
        .config
        .as_ref()
        .map(|path| fs::read_to_string(path).with_context(|| format!("--config: cannot read {}", path.display())));
    let mut config = config.transpose()?;
    if args.paths.contains(&Path::Localhost) {
        // Without it the path is docker-proxy's with netfast, too.
        config = Some(format!("localhost = true\n{}", config.unwrap_or_default()));
    }
    interrupt::handle()?;
    setup::ensure(Scope::All)?;
    let traffic = build::build_for_laboratory(!args.without_netfast)?;
    ensure_bpffs()?;

    let setting = Setting {
        no_docker: args.no_docker,
        release: engines::release(&args.engine)?,
        family: args.family,
        published_ports: args.published_ports,
        macvlan: args.paths.contains(&Path::Macvlan),
        overlay: args.paths.contains(&Path::Overlay),
        flannel: args.paths.contains(&Path::Flannel),
        config,
        ..Setting::default()
    };
    let lab = Lab::new(setting, |what| eprintln!("bench: {what}"))?;
    let engine = lab.describe()?;
    if args.placement == Placement::Steered {
        lab.steer(&args.paths)?;
    }
    let mut variants = vec![Variant::Direct, Variant::Kernel, Variant::Netfast];
    if args.without_netfast {
        variants.pop();
    }
    if let Some(program) = &args.before {
        ensure!(
            program.is_file(),
            "--before {}: there is no such program",
            program.display()
        );
        variants.insert(2, Variant::Before);
    }
    let plan = Plan {
        paths: args.paths.clone(),
        variants,
        metrics: args.metrics.clone(),
        rounds: args.rounds,
        before: args.before.clone(),
    };
    let samples = plan.run(
        &lab,
        &Tools {
            one_cpu: args.placement == Placement::OneCpu,
            idle: args.idle,
            congestion: congestion.clone(),
            ..Tools::new(traffic, args.seconds)?
        },
    )?;
    let docker = lab.has_docker();
    drop(lab);
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let record = Record {
        time,
        kernel: kernel_version().1,
        cpus: thread::available_parallelism().map_or(0, usize::from),
        docker,
        engine,
        family: args.family,
        published_ports: args.published_ports,
        seconds: args.seconds,
        placement: args.placement,
        idle: args.idle,
        congestion,
        samples,
    };
    Ok((record, plan))
}

/// A panel for each figure that was measured, its bars by path.
fn panels(samples: &Samples, plan: &Plan) -> Vec<Panel> {
    let panel = |name: &&str| {
        let figure = Figure::named(name);
        let series = plan.variants.iter().map(|variant| Series {
            title: variant.title(),
            points: plan
                .paths
                .iter()
                .map(|path| samples.spread(*path, *variant, figure.name))
                .collect(),
        });
        let series: Vec<Series> = series.collect();
        let is_measured = series.iter().any(|series| series.points.iter().any(Option::is_some));
        is_measured.then(|| Panel {
            title: format!("{}, {}", figure.title.trim(), figure.unit),
            below: "path",
            places: plan.paths.iter().map(|path| path.word().to_owned()).collect(),
            shape: Shape::Bars,
            series,
        })
    };
    DRAWN.iter().filter_map(panel).collect()
}
