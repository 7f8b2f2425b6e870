//! `cargo xtask survival`: what happens to traffic when something happens to netfast, to Docker or to the host.

mod bed;
mod event;
mod kinds;
mod load;
pub mod next_abi;
mod trouble;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::{docker_host::DockerHost, netfast_proc::ensure_bpffs};

use crate::{
    build, interrupt,
    setup::{self, Scope},
};
use bed::{Bed, Builds};
use event::Event;
use load::{Load, Outcome};

/// Options of `survival`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is to happen.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Event::ALL)]
    events: Vec<Event>,
    /// Seconds of undisturbed traffic before and after each event.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often in a row, for the events that are repeated.
    #[arg(long, default_value_t = 20)]
    times: usize,
    /// Megabits per second of each TCP stream: bounded, so that what is seen is the event and not a full machine.
    #[arg(long, default_value_t = 50)]
    megabits: u32,
    /// Two paths more: from the host to a container of its own macvlan network, and from a container through a VXLAN tunnel.
    #[arg(long)]
    kinds: bool,
    /// netfast's configuration, to see the same of what is off by default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.seconds > 0.0, "--seconds {}: must be more than 0", args.seconds);
    let config = args.config.as_ref().map_or(Ok(String::new()), |path| {
        fs::read_to_string(path).with_context(|| format!("--config: cannot read {}", path.display()))
    })?;
    interrupt::handle()?;
    setup::ensure(Scope::All)?;
    if let Err(why) = DockerHost::available() {
        return Err(setup::Lacking::new(why).into());
    }
    let next_abi = if args.events.iter().any(|event| event.needs_next_abi()) {
        Some(next_abi::build(true)?)
    } else {
        None
    };
    let traffic = build::build_for_laboratory(true)?;
    ensure_bpffs()?;
    let builds = Builds::new(next_abi)?;
    let mut rows = Vec::new();
    for event in &args.events {
        eprintln!("survival: {}", event.title(args.times));
        rows.push(row(*event, args, &config, &traffic, &builds)?);
        println!("{}\n{}", HEADER, rows.last().expect("just pushed"));
    }
    println!("\n{HEADER}");
    for row in &rows {
        println!("{row}");
    }
    println!(
        "\nOn each of {} (one bridge, published port, masquerade{}): 4 iperf3 streams of {} Mb/s, 50 idle \
         connections with\nkeep-alive, 1000 UDP requests per second. The longest pause is between two answers (UDP), and \
         without a byte in\nsteps of 100 ms (TCP). Shares are of the packets in {} s before and after.",
        if args.kinds { "five paths" } else { "three paths" },
        if args.kinds {
            ", macvlan from its host, VXLAN tunnel"
        } else {
            ""
        },
        args.megabits,
        args.seconds
    );
    Ok(())
}

const HEADER: &str = "event                                     seconds  conns  lost  UDP asked   lost  longest pause UDP/TCP  fast before  after";

fn row(event: Event, args: &Args, config: &str, traffic: &Path, builds: &Builds) -> Result<String> {
    let mut bed = Bed::new(config, event.needs_own_bpffs(), args.kinds)?;
    let load = Load::start(&bed, event, traffic, args.megabits)?;
    let share = |bed: &Bed| -> Result<Option<f64>> {
        if !bed.netfast.pin_dir().exists() {
            return Ok(None);
        }
        let before = bed.netfast.totals()?;
        thread::sleep(Duration::from_secs_f64(args.seconds));
        Ok(bed.netfast.totals()?.since(before).fast_share())
    };
    let before = share(&bed)?;
    let took = event.happen(&mut bed, builds, args.times, traffic)?;
    // What was disturbed may need one more interval.
    thread::sleep(Duration::from_secs(1));
    let after = share(&bed)?;
    thread::sleep(Duration::from_secs(1));
    let Outcome {
        connections,
        lost,
        asked,
        unanswered,
        silence_ms,
        stall_ms,
    } = load.end()?;
    let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    Ok(format!(
        "{:<40}  {:>7.1}  {connections:>5}  {lost:>4}  {asked:>9}  {unanswered:>5}  {:>10.0} / {:>5.0} ms  {:>11}  {:>7}",
        event.title(args.times),
        took.as_secs_f64(),
        silence_ms,
        stall_ms,
        percent(before),
        percent(after),
    ))
}
