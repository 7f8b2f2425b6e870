//! `cargo xtask hostile`: what a container that floods, spoofs and lies does to its neighbours' throughput, by the
//! kernel's path and with netfast, in turn; and whether it takes their flows. With `--together`, whether all of it at once for
//! long does the daemon any harm.

use std::{collections::BTreeMap, net::SocketAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum as _;
use netfast_tests::{
    cmd::Background,
    netfast_proc::{NetfastProc, Options, ensure_bpffs},
    topo::{self, Topo},
    traffic::flood::Kind,
};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{
    build, interrupt,
    measure::{
        lab::{Ends, RR},
        metric::{Metric, Tools, Values},
        sample::{Spread, Variant},
        table::Table,
    },
    setup::{self, Scope},
};

mod together;

/// Options of `hostile`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the container sends.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Udp, Kind::Syn, Kind::Address, Kind::Mac, Kind::Arp, Kind::Broken])]
    attacks: Vec<Kind>,
    /// Frames per second that it sends; 0: as many as go.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Rounds, each with all of it.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement; the attack begins after the first.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// No comparison: all of it at once, for this many minutes, and what became of the daemon and of others' flows.
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["rounds", "seconds"])]
    together: Option<f64>,
}

/// An attack may cut the neighbour off, as it does on any bridge; that need not be waited for long.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Places on the first bridge: who attacks, who is attacked, whom both talk to.
const EVIL: usize = 0;
const VICTIM: usize = 1;
const PEER: usize = 2;
/// Conversations that go on all the time, and whose flows are looked after.
const STANDING: u16 = 8;
/// Where they go.
const STANDING_PORT: u16 = RR + 100;

/// The figures of one attack, or of none, by variant and metric.
type Figures = BTreeMap<(Variant, Option<usize>, &'static str), Vec<f64>>;

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds 0: at least one round is needed");
    if let Some(minutes) = args.together {
        ensure!(
            minutes.is_finite() && minutes >= 1.0,
            "--together {minutes}: a minute at least is needed, the daemon's memory is compared with that after the first"
        );
    }
    interrupt::handle()?;
    setup::ensure(Scope::All)?;
    let traffic = build::build_for_laboratory(true)?;
    ensure_bpffs()?;
    let topo = Topo::new(&topo::Options {
        bridges: vec![3, 1],
        ..topo::Options::default()
    })?;
    let scene = Scene {
        topo: &topo,
        tools: Tools {
            patience: TIMEOUT,
            ..Tools::new(traffic, args.seconds)?
        },
        rate: args.rate,
    };
    if let Some(minutes) = args.together {
        let length = Duration::from_secs_f64(minutes * 60.0);
        return together::run(&scene, &args.attacks, length);
    }
    let mut figures = Figures::new();
    for round in 1..=args.rounds {
        let mut variants = [Variant::Kernel, Variant::Netfast];
        if round % 2 == 0 {
            variants.reverse();
        }
        for variant in variants {
            eprintln!("hostile: round {round} of {}, {}", args.rounds, variant.title());
            scene.measure(variant, &args.attacks, &mut figures)?;
        }
    }
    println!("\n{}", table(&args.attacks, &figures).render());
    println!(
        "Medians of {} rounds of {} s. An attack begins 1 s after its measurement. In brackets: share of the \
         same path's figure without an attack. Lost flows: of the \
         {} that stood before each attack, those that were evicted or replaced in it.",
        args.rounds,
        args.seconds,
        2 * STANDING
    );
    Ok(())
}

/// The host, and how it is measured.
struct Scene<'a> {
    topo: &'a Topo,
    tools: Tools,
    rate: u64,
}

impl Scene<'_> {
    /// One variant, first without an attack, then under each.
    fn measure(&self, variant: Variant, attacks: &[Kind], figures: &mut Figures) -> Result<()> {
        let netfast = match variant {
            Variant::Netfast => Some(NetfastProc::start(self.topo.host(), Options::no_runtime())?),
            Variant::Kernel | Variant::Direct | Variant::Before => None,
        };
        let standing = self.standing(&[(0, PEER)])?;
        // All of them on the fast path.
        thread::sleep(Duration::from_secs(1));
        let kinds = std::iter::once(None).chain(attacks.iter().copied().enumerate().map(Some));
        for kind in kinds {
            let flows = |netfast| Ok::<_, anyhow::Error>(standing_of(&all_flows(netfast)?));
            let before = netfast.as_ref().map(flows).transpose()?;
            let ends = Ends {
                client: self.topo.container(0, VICTIM).ns.handle(),
                servers: vec![self.topo.container(0, PEER).ns.handle()],
                address: self.topo.container(0, PEER).ip.into(),
            };
            let number = kind.map(|(number, _)| number);
            let name = kind.map_or("none".to_owned(), |(_, kind)| word(kind));
            for (metric, figure) in [(Metric::Tcp1, "tcp1_gbps"), (Metric::Udp, "udp_pps")] {
                let value = match self.under(kind.map(|(_, kind)| kind), metric, &ends)? {
                    Ok(values) => values[figure],
                    // An attack may cut the neighbour off, as it does on any bridge.
                    Err(error) if kind.is_some() => {
                        eprintln!("  {name}: {error:#}");
                        0.0
                    }
                    Err(error) => return Err(error).with_context(|| format!("no attack, {}", variant.title())),
                };
                eprintln!("  {name:<8}  {:<16}  {value:.1}", metric.title());
                figures.entry((variant, number, figure)).or_default().push(value);
                self.forget_neighbours()?;
            }
            if let (Some(netfast), Some(before)) = (&netfast, before) {
                figures
                    .entry((variant, number, "lost"))
                    .or_default()
                    .push(lost(&before, &flows(netfast)?) as f64);
                figures
                    .entry((variant, number, "stood"))
                    .or_default()
                    .push(before.len() as f64);
            }
        }
        for process in standing.into_iter().rev() {
            process.stop()?;
        }
        if let Some(mut netfast) = netfast {
            netfast.stop(Signal::SIGTERM)?;
            netfast.detach()?;
        }
        Ok(())
    }

    /// A measurement whose conversation is under way when the attack begins.
    fn under(&self, kind: Option<Kind>, metric: Metric, ends: &Ends) -> Result<Result<Values>> {
        thread::scope(|scope| {
            let attack = kind.map(|kind| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_secs(1));
                    self.attack(kind)
                })
            });
            let values = self.tools.measure(metric, ends);
            if let Some(attack) = attack {
                attack
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
                    .stop()?;
            }
            Ok(values)
        })
    }

    /// What was believed of an attacker is not to be believed in the next attack.
    fn forget_neighbours(&self) -> Result<()> {
        for index in [VICTIM, PEER] {
            self.topo.container(0, index).ns.ip("neigh flush all")?;
        }
        self.topo.host().ip("link set br-0 type bridge fdb_flush")?;
        // And all flows on the fast path again.
        thread::sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Conversations with the outside of each of these, so that no ARP of the attacker's is about them. The server is first.
    fn standing(&self, of: &[(usize, usize)]) -> Result<Vec<Background>> {
        let traffic = self.tools.traffic.display().to_string();
        let port = STANDING_PORT.to_string();
        let server = self.topo.lan().handle().spawn(&[&traffic, "rr-server", &port])?;
        thread::sleep(Duration::from_millis(300));
        let to = format!("{}:{port}", netfast_tests::site::LAN_IP);
        let mut all = vec![server];
        for (bridge, index) in of {
            let client = self.topo.container(*bridge, *index).ns.handle();
            for _ in 0..STANDING {
                all.push(client.spawn(&[&traffic, "paced", &to, "--rate", "50", "--seconds", "7200"])?);
            }
        }
        Ok(all)
    }

    fn attack(&self, kind: Kind) -> Result<Background> {
        let traffic = self.tools.traffic.display().to_string();
        let ip = |index| self.topo.container(0, index).ip.to_string();
        let mac = |index| self.topo.container(0, index).mac.as_str();
        let evil = self.topo.container(0, EVIL).ns.handle();
        evil.spawn(&[
            &traffic,
            "flood",
            &word(kind),
            "--from",
            &ip(EVIL),
            "--from-mac",
            mac(EVIL),
            "--to",
            &ip(PEER),
            "--to-mac",
            mac(PEER),
            "--victim",
            &ip(VICTIM),
            "--victim-mac",
            mac(VICTIM),
            "--rate",
            &self.rate.to_string(),
            "--seconds",
            "7200",
        ])
    }
}

fn word(kind: Kind) -> String {
    kind.to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A flow, of what `netfast flows --json` tells of it.
#[derive(Deserialize)]
struct Flow {
    enters: End,
    usable: bool,
    age_ms: u64,
}

/// Where it enters.
#[derive(Deserialize)]
struct End {
    device: String,
    source: SocketAddr,
    destination: SocketAddr,
}

/// All flows.
fn all_flows(netfast: &NetfastProc) -> Result<Vec<Flow>> {
    #[derive(Deserialize)]
    struct Report {
        flows: Vec<Flow>,
    }
    let said = netfast.verb(&["flows", "--json", "--limit", "0"])?;
    let report: Report = serde_json::from_str(&said).context("the flows")?;
    Ok(report.flows)
}

/// The standing conversations' flows in use, with their ages in milliseconds.
fn standing_of(flows: &[Flow]) -> BTreeMap<String, u64> {
    let of_standing = flows.iter().filter(|flow| {
        let ports = [flow.enters.source.port(), flow.enters.destination.port()];
        flow.usable && ports.contains(&STANDING_PORT)
    });
    of_standing
        .map(|Flow { enters, age_ms, .. }| {
            let key = format!("{} {} {}", enters.device, enters.source, enters.destination);
            (key, *age_ms)
        })
        .collect()
}

/// How many of them were evicted or replaced since: one that is there again is younger than it was.
fn lost(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> usize {
    let is_lost = |(key, age): &(&String, &u64)| after.get(*key).is_none_or(|now| now < *age);
    before.iter().filter(is_lost).count()
}

fn table(attacks: &[Kind], figures: &Figures) -> Table {
    let median = |variant, number, figure| {
        let all = figures.get(&(variant, number, figure)).cloned();
        all.and_then(Spread::of).map(|spread| spread.median)
    };
    let cell = |variant, number, figure, digits: usize| {
        let (Some(value), Some(calm)) = (median(variant, number, figure), median(variant, None, figure)) else {
            return "-".to_owned();
        };
        match number {
            None => format!("{value:.digits$}"),
            Some(_) => format!("{value:.digits$} ({:.2})", value / calm),
        }
    };
    let mut table = Table::default();
    table.row([
        "attack",
        "TCP Gb/s, kernel",
        "netfast",
        "UDP packets/s, kernel",
        "netfast",
        "lost flows",
    ]);
    let kinds = std::iter::once((None, "none".to_owned()));
    for (number, name) in kinds.chain(attacks.iter().enumerate().map(|(at, kind)| (Some(at), word(*kind)))) {
        let sum = |figure| -> f64 {
            let all = figures.get(&(Variant::Netfast, number, figure));
            all.map_or(0.0, |all| all.iter().sum())
        };
        table.row([
            name,
            cell(Variant::Kernel, number, "tcp1_gbps", 2),
            cell(Variant::Netfast, number, "tcp1_gbps", 2),
            cell(Variant::Kernel, number, "udp_pps", 0),
            cell(Variant::Netfast, number, "udp_pps", 0),
            format!("{:.0} of {:.0}", sum("lost"), sum("stood")),
        ]);
    }
    table
}
