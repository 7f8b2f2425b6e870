//! What each command may be given.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use super::complete;

/// Where the pins are by default.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/netfast";
/// Where lock and state are by default.
pub const DEFAULT_RUN_DIR: &str = "/run/netfast";

/// What holds for every command, whether it was given before its name or after it.
#[derive(Clone, Debug)]
pub struct Global {
    /// Print JSON, with stable keys, instead of text.
    pub json: bool,
    /// Where this instance keeps its things.
    pub dirs: Dirs,
}

/// How a report is printed.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ReportArgs {
    /// Print JSON, with stable keys, instead of text
    #[arg(long)]
    pub json: bool,
}

/// Where this instance keeps its things; several can run on one machine, in network namespaces of their own.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Dirs {
    /// Directory in bpffs for pinned programs and tables
    #[arg(long, global = true, value_name = "DIR", env = "NETFAST_PIN_DIR", hide_env_values = true, default_value = DEFAULT_PIN_DIR)]
    pub pin_dir: PathBuf,
    /// Directory for the daemon's lock and state
    #[arg(long, global = true, value_name = "DIR", env = "NETFAST_RUN_DIR", hide_env_values = true, default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
    /// What serves this overlay network in its own namespace, instead of the host's
    #[arg(long, global = true, value_name = "NETWORK")]
    pub overlay: Option<String>,
}

/// The container runtime to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeArg {
    /// Docker, or anything that speaks its API
    Docker,
    /// None: every bridge port with a veth is taken for a container
    None,
}

/// Options that override the configuration file.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Configuration file (TOML); what is given here on the command line overrides it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Container runtime to follow [default: docker]
    #[arg(long, value_enum, value_name = "RUNTIME", hide_possible_values = false)]
    pub runtime: Option<RuntimeArg>,
    /// Where Docker's API is.
    #[arg(
        long,
        value_name = "URL",
        help = "Docker's API [default: unix:///var/run/docker.sock]"
    )]
    pub docker_host: Option<String>,
    /// Interface that leads off the host; may be given more than once [default: found by address, route and kind]
    #[arg(long = "uplink", value_name = "IF")]
    pub uplinks: Vec<String>,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Wait for the container runtime at the start instead of exiting with 6
    #[arg(long)]
    pub wait: bool,
    /// Directory for what outlives a restart of the machine: what this host let netfast do last [default: the run directory]
    #[arg(long, value_name = "DIR", env = "STATE_DIRECTORY", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Serve the namespace of an overlay network for the daemon at the other end of standard input
    #[arg(long, hide = true)]
    pub sandbox: bool,
    /// What overrides the configuration file.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Arguments of `status`.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusArgs {
    /// Only this network, or this container (by its name)
    #[arg(value_name = "NETWORK|CONTAINER", add = ArgValueCandidates::new(complete::networks_and_containers))]
    pub name: Option<String>,
    /// Repeat every SECONDS (default 2) until interrupted
    #[arg(
        long,
        short = 'w',
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = interval
    )]
    pub watch: Option<f64>,
    /// Show what became of candidates for learning, and older updates, too
    #[arg(long, short = 'v')]
    pub verbose: bool,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `detach`.
#[derive(Args, Clone, Debug)]
pub struct DetachArgs {
    /// Say what would be removed, and change nothing
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `networks`.
#[derive(Args, Clone, Debug)]
pub struct NetworksArgs {
    /// Name of a network, or the beginning of its ID
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::networks))]
    pub name: Option<String>,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `aliases`.
#[derive(Args, Clone, Debug)]
pub struct AliasesArgs {
    /// Only this name, in detail
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::aliases))]
    pub name: Option<String>,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `flows`.
#[derive(Args, Clone, Debug)]
pub struct FlowsArgs {
    /// Only flows to or from this container, or this interface
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::containers))]
    pub container: Option<String>,
    /// Show at most this many flows; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Print flows that open, carry packets and close, as lines of JSON, every SECONDS (default 2) until interrupted
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        conflicts_with = "limit",
        value_parser = interval
    )]
    pub follow: Option<f64>,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Seconds between two updates, 0.2 to 60
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    pub interval: f64,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.2..=60.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("0.2 to 60 seconds".into())
    }
}

fn duration(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if f64::is_finite(seconds) && seconds > 0.0 => Ok(seconds),
        _ => Err("a number above 0".into()),
    }
}

/// Arguments of `trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Which packets to show, in tcpdump's words: and, or, not, src, dst, host, net, port, tcp, udp, icmp; and fast, slow, reason
    #[arg(value_name = "FILTER", add = ArgValueCandidates::new(complete::filter))]
    pub filter: Vec<String>,
    /// Only packets that enter or leave by an interface of this container, or by this interface
    #[arg(
        long,
        short = 'i',
        visible_alias = "interface",
        value_name = "NAME",
        add = ArgValueCandidates::new(complete::containers)
    )]
    pub container: Option<String>,
    /// Show one of N packets, chosen by chance
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,
    /// Show at most N packets a second on each CPU; 100000 at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// End after this many packets; 0 for no end
    #[arg(long, short = 'c', value_name = "N", default_value_t = 0)]
    pub count: u64,
    /// End after this time
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub seconds: Option<f64>,
    /// Write the packets to a file, as pcapng, and print none; "-" is standard output
    #[arg(long, short = 'w', value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Print the packets that are written to a file, too
    #[arg(long)]
    pub print: bool,
    /// Name interfaces, not the containers behind them
    #[arg(long, short = 'n', overrides_with = "numeric")]
    pub numeric: bool,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Name of a container, or the beginning of its ID; or a loopback address and port of the host (127.0.0.1:PORT)
    #[arg(
        value_name = "CONTAINER",
        required_unless_present = "reason",
        add = ArgValueCandidates::new(complete::containers)
    )]
    pub container: Option<String>,
    /// Where to: an address or a container, with a port or without ([IPV6]:PORT)
    #[arg(
        value_name = "DEST[:PORT[/tcp|/udp|/icmp]]",
        requires = "container",
        add = ArgValueCandidates::new(complete::destinations)
    )]
    pub destination: Option<String>,
    /// Explain a reason by its name instead; "all" for all of them
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "container",
        add = ArgValueCandidates::new(complete::reasons)
    )]
    pub reason: Option<String>,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// What `run` would be given.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `report`.
#[derive(Args, Clone, Debug)]
pub struct ReportFileArgs {
    /// Where it is written; it must not exist yet; "-" is standard output
    #[arg(long, short = 'o', value_name = "FILE", default_value = "netfast-report.tar.gz")]
    pub output: PathBuf,
    /// Take the daemon's last words from this file, instead of the journal
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// What `run` is given; without --config, /etc/netfast/netfast.toml if it is there.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// What can be done with a configuration file.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a configuration file is right, and what would be in force with it
    ///
    /// Keys that are unknown, values of a wrong type and values out of their range are errors. Whether interfaces and
    /// networks that it names exist is not looked at: `netfast check --config FILE` does that. Exits with 0 or 3.
    Check(ConfigCheckArgs),
}

/// Arguments of `config check`.
#[derive(Args, Clone, Debug)]
pub struct ConfigCheckArgs {
    /// The file (TOML)
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How it is printed.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `generate`.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// The directory; `man` and `completions` are made in it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
