//! `cargo xtask demo`: netfast beside the kernel's own path, in a few minutes, from a fresh checkout.

use std::time::Instant;

use anyhow::Result;
use netfast_tests::netfast_proc::ensure_bpffs;

use crate::{
    build, interrupt,
    measure::{
        lab::{Lab, Path, Setting},
        metric::{FIGURES, Figure, Metric, Tools},
        plan::Plan,
        sample::{Samples, Variant},
        table::{Table, number},
    },
    setup::{self, Scope},
};

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds of kernel path and netfast in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Another kind of network than bridges: of two hosts, or of containers on a LAN.
    #[arg(long, value_enum)]
    network: Option<Network>,
    /// Let plain network namespaces play the containers even where a Docker engine could be started.
    #[arg(long)]
    no_docker: bool,
}

/// A kind of network besides bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// Swarm's overlay network: a container on each of two hosts.
    Overlay,
    /// flannel's backend `vxlan`: a pod on each of two hosts.
    Flannel,
    /// Two containers on the LAN of their host's uplink: there is nothing that netfast could shorten, and nothing that it costs.
    Macvlan,
}

impl Network {
    const fn path(self) -> Path {
        match self {
            Self::Overlay => Path::Overlay,
            Self::Flannel => Path::Flannel,
            Self::Macvlan => Path::Macvlan,
        }
    }
}

/// What the demo measures and shows, in words for whoever sees it for the first time, and whether a ratio says something
/// about it.
const SHOWN: [(&str, &str, bool); 7] = [
    ("tcp1_gbps", "TCP, 1 stream", true),
    ("tcp1_cpu", "  CPU time (less is better)", true),
    ("tcp4_gbps", "TCP, 4 streams", true),
    ("tcp4_cpu", "  CPU time (less is better)", true),
    ("udp_pps", "64-byte UDP", true),
    ("rr_p50", "TCP request/response, median latency (less is better)", true),
    ("fast_share", "packets on the fast path", false),
];

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    interrupt::handle()?;
    setup::ensure(Scope::All)?;
    say("building netfast");
    let traffic = build::build_for_laboratory(true)?;
    ensure_bpffs()?;

    let start = Instant::now();
    let setting = Setting {
        no_docker: args.no_docker,
        overlay: args.network == Some(Network::Overlay),
        flannel: args.network == Some(Network::Flannel),
        macvlan: args.network == Some(Network::Macvlan),
        ..Setting::default()
    };
    let lab = Lab::new(setting, say)?;
    let plan = Plan {
        paths: args.network.map_or_else(
            || vec![Path::Docker0, Path::User, Path::Published, Path::Masquerade],
            |network| vec![network.path()],
        ),
        variants: vec![Variant::Kernel, Variant::Netfast],
        metrics: vec![Metric::Tcp1, Metric::Tcp4, Metric::Udp, Metric::Rr],
        rounds: args.rounds,
        before: None,
    };
    let samples = plan.run(&lab, &Tools::new(traffic, args.seconds)?)?;
    let docker = lab.has_docker();
    say("cleaning up");
    drop(lab);
    println!("\n{}", table(&samples, &plan.paths));
    println!(
        "Medians of {} rounds of {} s each; the ratio is that of the two medians. Single TCP streams vary by up to 50 % from \
         round to round (see \"What it gains\" in README.md).",
        args.rounds, args.seconds
    );
    let containers = if docker {
        "containers of a real Docker engine"
    } else {
        "network namespaces as containers"
    };
    println!(
        "Measured between {containers} in {:.0} s. More: cargo xtask bench",
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

fn table(samples: &Samples, paths: &[Path]) -> String {
    let mut table = Table::default();
    table.row(["", "", "kernel", "netfast", "ratio"]);
    for path in paths {
        table.row([path.title()]);
        for (name, title, has_ratio) in SHOWN {
            let Some(figure) = FIGURES.into_iter().find(|figure| figure.name == name) else {
                continue;
            };
            let figure = Figure { title, ..figure };
            table.row(row(samples, *path, &figure, has_ratio));
        }
    }
    table.render()
}

fn row(samples: &Samples, path: Path, figure: &Figure, has_ratio: bool) -> Vec<String> {
    let median = |variant| {
        let spread = samples.spread(path, variant, figure.name)?;
        Some(spread.median)
    };
    let (kernel, netfast) = (median(Variant::Kernel), median(Variant::Netfast));
    let cell = |median: Option<f64>| median.map_or_else(String::new, |median| number(median, figure));
    // Of what stands beside it: a median of the rounds' ratios may say something else.
    let ratio = kernel.zip(netfast).filter(|(kernel, _)| has_ratio && *kernel > 0.0);
    vec![
        format!("  {}", figure.title),
        figure.unit.to_owned(),
        cell(kernel),
        cell(netfast),
        ratio.map_or_else(String::new, |(kernel, netfast)| format!("{:.2}x", netfast / kernel)),
    ]
}

fn say(what: &str) {
    eprintln!("demo: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sample::Sample;

    #[test]
    fn where_less_is_better_the_table_says_so() {
        for (name, title, _) in SHOWN {
            let figure = FIGURES.into_iter().find(|figure| figure.name == name);
            let unit = figure.expect("a figure").unit;
            let is_cost = ["ns/KiB", "µs"].contains(&unit);
            assert_eq!(title.contains("less is better"), is_cost, "{title} in {unit}");
        }
    }

    /// Three rounds whose ratios have another median (2) than the medians (5 and 4) have a ratio.
    #[test]
    fn the_ratio_is_that_of_the_medians_beside_it() {
        let sample = |round, variant, value| Sample {
            round,
            path: Path::User,
            variant,
            values: [("tcp1_gbps".to_owned(), value)].into(),
        };
        let rounds = [(5.0, 4.0), (2.0, 4.0), (9.0, 18.0)].into_iter().zip(1..);
        let samples = rounds.flat_map(|((kernel, netfast), round)| {
            [
                sample(round, Variant::Kernel, kernel),
                sample(round, Variant::Netfast, netfast),
            ]
        });
        let samples = Samples(samples.collect());
        let of_rounds = samples.ratio(Path::User, Variant::Kernel, "tcp1_gbps");
        assert!(
            of_rounds.is_some_and(|spread| (spread.median - 2.0).abs() < 0.001),
            "{of_rounds:?}"
        );
        let figure = FIGURES.into_iter().find(|figure| figure.name == "tcp1_gbps");
        let row = row(&samples, Path::User, &figure.expect("a figure"), true);
        assert_eq!(row[4], "0.80x", "{row:?}");
    }
}
