//! `cargo xtask balance`: what it costs to be given one of several members, by netfast's virtual address, by nginx and by
//! `HAProxy`, beside the same traffic straight to one server like them; in interleaved rounds.

mod proxies;

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use netfast_tests::{
    docker_host::{self, DockerHost},
    netfast_proc::{NetfastProc, Options, ensure_bpffs},
    netns::NsHandle,
};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::{
    build, interrupt,
    measure::{
        create,
        lab::Ends,
        metric::{Metric, Tools},
        picture::{self, Panel, Series, Shape},
        sample::Spread,
        table::Table,
    },
    setup::{self, Scope},
};

use proxies::Proxy;

/// Options of `balance`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds, each with all of it.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Draw a picture of it, SVG, into this file.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// Who gives the client a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Nobody: straight to one server by the kernel's path.
    Kernel,
    /// Nobody: straight to one server, with netfast.
    Netfast,
    /// netfast, by the alias's virtual address.
    Vip,
    /// A proxy in a container of the network, by the kernel's path.
    Proxy(Proxy),
}

impl Way {
    const ALL: [Self; 5] = [
        Self::Kernel,
        Self::Netfast,
        Self::Vip,
        Self::Proxy(Proxy::Nginx),
        Self::Proxy(Proxy::HaProxy),
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Kernel => "one server, kernel",
            Self::Netfast => "one server, netfast",
            Self::Vip => "virtual address",
            Self::Proxy(proxy) => proxy.title(),
        }
    }
}

/// What is measured, and its figure.
const METRICS: [(Metric, &str, &str); 3] = [
    (Metric::Udp, "udp_pps", "64-byte UDP, packets/s"),
    (Metric::Crr, "crr_rate", "new TCP connections/s"),
    (Metric::Rr, "rr_p50", "TCP request/response p50, us"),
];

/// The network, whose aliases have virtual addresses, and the alias of its members.
const NETWORK: &str = "shared";
const ALIAS: &str = "web";
const MEMBERS: [&str; 3] = ["member-1", "member-2", "member-3"];
/// Who is reached straight. Not a member: a server remembers closed connections for a minute (TIME-WAIT), and takes a new one by
/// the same ports for an old packet if the client's numbers do not rise; they do for one address (RFC 6528), not from one to
/// another, and at these rates all ports are used again within seconds.
const ALONE: &str = "alone";
const CLIENT: &str = "client";
const PROXY: &str = "proxy";

/// The figures of each round.
type Figures = BTreeMap<(Way, &'static str), BTreeMap<usize, f64>>;

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds 0: at least one round is needed");
    let picture = create(args.picture.as_deref())?;
    interrupt::handle()?;
    setup::ensure(Scope::Proxies)?;
    let traffic = build::build_for_laboratory(true)?;
    ensure_bpffs()?;
    if let Err(why) = DockerHost::available() {
        bail!("aliases are Docker's, and {why}");
    }
    eprintln!("balance: starting a Docker host with {} members", MEMBERS.len());
    let host = host()?;
    let tools = Tools::new(traffic, args.seconds)?;
    let mut figures = Figures::new();
    for round in 1..=args.rounds {
        let mut ways = Way::ALL;
        if round % 2 == 0 {
            ways.reverse();
        }
        for way in ways {
            eprintln!("balance: round {round} of {}, {}", args.rounds, way.title());
            measure(&host, &tools, way, round, &mut figures).with_context(|| way.title())?;
        }
    }
    println!("\n{}", table(&figures).render());
    println!(
        "Medians (smallest-largest) of {} rounds of {} s; ratios are medians of the rounds' ratios. One client, {} members and one \
         server that is none, all on one user-defined network; HAProxy does not forward UDP.",
        args.rounds,
        args.seconds,
        MEMBERS.len()
    );
    if let Some(file) = picture {
        picture::write(file, &METRICS.map(|metric| panel(&figures, metric)))?;
    }
    Ok(())
}

/// One figure, a bar for each way.
fn panel(figures: &Figures, (_, figure, title): (Metric, &'static str, &str)) -> Panel {
    let series = Way::ALL.iter().map(|way| {
        let rounds = figures.get(&(*way, figure));
        Series {
            title: way.title(),
            points: vec![rounds.and_then(|rounds| Spread::of(rounds.values().copied().collect()))],
        }
    });
    Panel {
        title: title.to_owned(),
        below: "",
        places: vec![String::new()],
        shape: Shape::Bars,
        series: series.collect(),
    }
}

fn host() -> Result<DockerHost> {
    let host = DockerHost::start(docker_host::Options::default())?;
    host.create_network(NETWORK, &["--label", "netfast.alias=vip"])?;
    for member in MEMBERS {
        host.run_container(member, NETWORK, &["--network-alias", ALIAS], &[])?;
    }
    for other in [ALONE, CLIENT, PROXY] {
        host.run_container(other, NETWORK, &[], &[])?;
    }
    Ok(host)
}

/// All figures of one way in one round.
fn measure(host: &DockerHost, tools: &Tools, way: Way, round: usize, figures: &mut Figures) -> Result<()> {
    let mut netfast = match way {
        Way::Netfast | Way::Vip => Some(NetfastProc::start(host.host(), Options::docker(host.docker_host()))?),
        Way::Kernel | Way::Proxy(_) => None,
    };
    let servers: Vec<NsHandle> = match way {
        Way::Kernel | Way::Netfast => vec![host.container_netns(ALONE)?],
        Way::Vip | Way::Proxy(_) => MEMBERS
            .iter()
            .map(|member| host.container_netns(member))
            .collect::<Result<_>>()?,
    };
    let address = match (way, &netfast) {
        (Way::Vip, Some(netfast)) => virtual_address(netfast)?,
        (Way::Proxy(_), _) => host.container_ip(PROXY, NETWORK)?,
        _ => host.container_ip(ALONE, NETWORK)?,
    };
    let running = match way {
        Way::Proxy(proxy) => {
            let addresses: Vec<Ipv4Addr> = MEMBERS
                .iter()
                .map(|member| host.container_ip(member, NETWORK))
                .collect::<Result<_>>()?;
            Some(proxy.start(&host.container_netns(PROXY)?, &addresses)?)
        }
        Way::Kernel | Way::Netfast | Way::Vip => None,
    };
    let ends = Ends {
        client: host.container_netns(CLIENT)?,
        servers,
        address: address.into(),
    };
    for (metric, figure, title) in METRICS {
        if metric == Metric::Udp && way == Way::Proxy(Proxy::HaProxy) {
            continue;
        }
        let values = tools.measure(metric, &ends)?;
        let value = *values.get(figure).with_context(|| format!("no figure {figure}"))?;
        eprintln!("  {title:<30}  {value:.0}");
        figures.entry((way, figure)).or_default().insert(round, value);
    }
    drop(running);
    if let Some(netfast) = &mut netfast {
        netfast.stop(Signal::SIGTERM)?;
        netfast.detach()?;
    }
    Ok(())
}

/// The virtual address of the alias.
fn virtual_address(netfast: &NetfastProc) -> Result<Ipv4Addr> {
    #[derive(Deserialize)]
    struct Report {
        aliases: Vec<Alias>,
    }
    #[derive(Deserialize)]
    struct Alias {
        vip: Option<Ipv4Addr>,
    }
    let text = netfast.verb(&["aliases", ALIAS, "--json"])?;
    let report: Report = serde_json::from_str(&text).context("the aliases")?;
    let vip = report.aliases.into_iter().find_map(|alias| alias.vip);
    vip.with_context(|| format!("{ALIAS} has no virtual address: {text}"))
}

/// A row for each way; behind each figure the virtual address's, divided by it within each round.
fn table(figures: &Figures) -> Table {
    let mut table = Table::default();
    let mut head = vec!["the client reaches".to_owned()];
    head.extend(
        METRICS
            .iter()
            .flat_map(|(_, _, title)| [(*title).to_owned(), "vip/this".to_owned()]),
    );
    table.row(head);
    for way in Way::ALL {
        let mut row = vec![way.title().to_owned()];
        for (_, figure, _) in METRICS {
            let of = |way| figures.get(&(way, figure));
            let spread = of(way).and_then(|rounds| Spread::of(rounds.values().copied().collect()));
            row.push(spread.map_or_else(
                || "-".to_owned(),
                |spread| format!("{:.0} ({:.0}-{:.0})", spread.median, spread.min, spread.max),
            ));
            let ratios = of(Way::Vip).zip(of(way)).map(|(ours, theirs)| {
                ours.iter()
                    .filter_map(|(round, ours)| theirs.get(round).map(|theirs| ours / theirs))
                    .collect()
            });
            let spread = ratios.and_then(Spread::of).filter(|_| way != Way::Vip);
            row.push(spread.map_or_else(|| "-".to_owned(), |spread| format!("{:.2}x", spread.median)));
        }
        table.row(row);
    }
    table
}
