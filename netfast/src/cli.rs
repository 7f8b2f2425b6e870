//! The command line: what may be typed, what each command exits with, how errors are printed.
//!
//! Each command is one file below, with one function `run` that gets its arguments as typed and returns a
//! [`CliError`]. Errors inside the library are typed; they become text here, at the edge, and nowhere else.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod aliases;
pub mod check;
pub mod config;
pub mod detach;
pub mod error;
pub mod explain;
pub mod flows;
pub mod instance;
pub mod logging;
pub mod networks;
pub mod output;
pub mod run;
pub mod status;
pub mod top;
pub mod trace;

pub use error::{CliError, Exit, Fail, Said};

/// Where the pins are by default.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/netfast";
/// Where lock and state are by default.
pub const DEFAULT_RUN_DIR: &str = "/run/netfast";

const LONG_ABOUT: &str = "\
Moves the packets of containers through the host in one hop.

The first packets of every connection take the kernel's ordinary path: bridge, netfilter, NAT, routing. netfast sees \
what the kernel did to them and does the same to the packets that follow, in eBPF, without the way in between. It asks \
the kernel again about every live flow once a second, and at once when rules, routes or addresses change. Whatever it \
does not know, it leaves to the kernel; it never drops a packet.";

const AFTER_HELP: &str = "\
Exit codes:
  0  success
  1  failed; the message says why
  2  the command line is wrong
  3  the configuration file is wrong
  4  privileges are missing
  5  the kernel lacks something that netfast needs
  6  Docker is not reachable at start
  7  netfast is not running here and nothing of it is attached
  8  another netfast runs with the same --run-dir

Environment:
  NETFAST_LOG  what is logged to stderr, as tracing filters: info (the default of `run`), debug,
               netfast::observe=trace, ...

Start with `netfast check`: it says whether this host can run netfast, and changes nothing.";

/// eBPF data-plane accelerator for container hosts.
#[derive(Debug, Parser)]
#[command(
    name = "netfast",
    version,
    about,
    long_about = LONG_ABOUT,
    after_long_help = AFTER_HELP,
    after_help = "Longer help, exit codes, environment: netfast --help",
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One command with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    ///
    /// Attaches to the containers' interfaces, to their bridges and to the uplinks, and keeps that in step with Docker
    /// and the kernel until it gets SIGINT or SIGTERM. Logs to stderr; under systemd, with priorities.
    ///
    /// The programs and tables are pinned in --pin-dir, so the fast path goes on when the daemon is killed or upgraded.
    /// `netfast detach` removes it.
    Run(RunArgs),
    /// Show what is accelerated, what is not and why
    ///
    /// In total: flows, packets and bytes of both paths, and the most frequent reasons for the slow path. Per network
    /// and endpoint: fast or slow, the reason, and the packets that its container has sent on either path and received
    /// on the fast one (what it received on the slow path is in the senders' lines). A packet that the kernel has
    /// merged from many (GSO, GRO) counts as one. Counters begin when netfast is attached, and survive its restarts.
    ///
    /// Works while netfast is attached, also when the daemon itself is not running; exits with 7 otherwise.
    Status(ReportArgs),
    /// Watch rates: containers, flows, and why packets are slow
    ///
    /// Reads the same tables as `status`, every few seconds, and shows packets and bits per second of both paths: in
    /// total, per container and host interface, per flow, and per reason. Keys: q ends, p pauses, tab goes to a page with
    /// one list, which the arrows scroll. Made for 80 columns and 24 lines; more shows more.
    Top(TopArgs),
    /// List networks and their endpoints, as `docker network` does, with what netfast does for them
    ///
    /// Without NAME, one line per network. With it (or the beginning of its ID), all that is known of that network:
    /// addresses, bridge device, and each endpoint's container, addresses, MAC, veth and state. Networks that are not
    /// accelerated appear with the reason.
    Networks(NetworksArgs),
    /// List names that several containers of a network share, and whom clients were given
    ///
    /// Docker's resolver answers such a name (`--network-alias`, a service of Compose) with all that have it, in a random
    /// order, and clients take the first. netfast lets each answer begin with the next. Without NAME, one line per name;
    /// with it, its members: addresses, health, whether clients are given them, and how often each was first.
    Aliases(AliasesArgs),
    /// List learned flows
    ///
    /// A flow is one direction of one connection: addresses and ports as its packets enter and as they leave, the way
    /// out, packets and bytes on the fast path, its age, and for how long it has been idle. Busiest first.
    Flows(FlowsArgs),
    /// Show packets as they enter, with what became of each: fast, or slow and why
    ///
    /// Sees packets on the fast path too, which tcpdump on a bridge or on the host's side of a veth does not. FILTER is
    /// words that a packet has to fulfil, all of them: tcp, udp, icmp, fast, slow, host ADDRESS, port NUMBER, reason
    /// NAME; addresses and ports are those with which it enters. With --pcap the first 160 bytes of each packet go to
    /// a file for tcpdump or Wireshark, with the verdict as its comment; "-" is standard output, for `| tcpdump -r -`.
    ///
    /// While nobody traces, it costs nothing. What is left out, by --sample, by --limit, or because the reader was too
    /// slow, is counted and told at the end.
    Trace(TraceArgs),
    /// Say whether a container's traffic goes fast, and if not, why
    ///
    /// CONTAINER is a name or the beginning of an ID; DEST an address, another container, or a name that several share. Looks at the container's
    /// interfaces, at where the kernel would route the packets, at what netfast is attached to on their way, and at the
    /// flows that there are already. Every cause comes with what can be done about it.
    ///
    /// With --reason, explains a reason that `status`, `trace` or the metrics name; `--reason all` explains every one.
    Explain(ExplainArgs),
    /// Say whether this host can run netfast, and what would stay on the slow path
    ///
    /// Tries each thing that netfast needs of the kernel by a harmless call, then looks at privileges, sysctls, other
    /// BPF programs and traffic control on the interfaces concerned, and packet-filter rules that must see every packet.
    /// Changes nothing; works with and without a running daemon.
    ///
    /// Each line is ok, note (good to know), slow (works, but something stays on the slow path) or fail (netfast
    /// would not start), with the remedy. Exits with 0 if `netfast run` would start, else with the code that it would
    /// exit with.
    Check(CheckArgs),
    /// Work with the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Remove everything that is netfast's and leave the host as it was found
    ///
    /// Flows stop being used first, so every connection continues on the slow path. Then programs and pins are removed
    /// and changed sysctls restored. A running daemon is asked to stop first. Doing it again does nothing.
    Detach(ReportArgs),
}

/// Where this instance keeps its things; several can run on one machine, in network namespaces of their own.
#[derive(Args, Clone, Debug)]
pub struct Dirs {
    /// Directory in bpffs for pinned programs and tables
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pub pin_dir: PathBuf,
    /// Directory for the daemon's lock and state
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

/// The container runtime to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeArg {
    /// Docker, or anything that speaks its API
    Docker,
    /// None: every bridge port with a veth is taken for a container
    None,
}

/// What overrides the configuration file.
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
    /// What overrides the configuration file.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where this instance keeps its things.
    #[command(flatten)]
    pub dirs: Dirs,
}

/// Arguments of commands that only report.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Print JSON, with stable keys, instead of text
    #[arg(long)]
    pub json: bool,
    /// Where this instance keeps its things.
    #[command(flatten)]
    pub dirs: Dirs,
}

/// Arguments of `networks`.
#[derive(Args, Clone, Debug)]
pub struct NetworksArgs {
    /// Name of a network, or the beginning of its ID
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// What every report takes.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `aliases`.
#[derive(Args, Clone, Debug)]
pub struct AliasesArgs {
    /// Only this name, in detail
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// What every report takes.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `flows`.
#[derive(Args, Clone, Debug)]
pub struct FlowsArgs {
    /// Only flows to or from this container
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// Show at most this many flows; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// What every report takes.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Seconds between two looks, 0.2 to 60
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = interval)]
    pub interval: f64,
    /// Where this instance keeps its things.
    #[command(flatten)]
    pub dirs: Dirs,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.2..=60.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("0.2 to 60 seconds".into())
    }
}

/// Arguments of `trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// What a packet has to fulfil, in words
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Only packets that enter or leave by an interface of this container
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// Show one of N packets, chosen by chance
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: u32,
    /// Show at most N packets a second on each CPU; 100000 at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// End after this many packets; 0 for no end
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub count: u64,
    /// End after this time
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Write the packets to a file, as pcapng; "-" is standard output
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Print JSON, one object for each packet, instead of text
    #[arg(long)]
    pub json: bool,
    /// Where this instance keeps its things.
    #[command(flatten)]
    pub dirs: Dirs,
}

/// Arguments of `explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Name of a container, or the beginning of its ID
    #[arg(value_name = "CONTAINER", required_unless_present = "reason")]
    pub container: Option<String>,
    /// Where to: an address or a container, with a port or without ([IPV6]:PORT)
    #[arg(value_name = "DEST[:PORT[/tcp|/udp]]", requires = "container")]
    pub destination: Option<String>,
    /// Explain a reason by its name instead; "all" for all of them
    #[arg(long, value_name = "NAME", conflicts_with = "container")]
    pub reason: Option<String>,
    /// What every report takes.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// What `run` would be given.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// What every report takes.
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
    /// Print JSON, with stable keys, instead of text
    #[arg(long)]
    pub json: bool,
}

/// The whole command line, for manuals and completions.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Understands a command line. The error is help, the version, or what is wrong with it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Said> {
    Ok(Cli::try_parse_from(args)?.command)
}

/// Runs a command to its end.
pub fn run(command: &Command) -> Result<(), CliError> {
    logging::init(matches!(command, Command::Run(_)))?;
    match command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::run(args),
        Command::Networks(args) => networks::run(args),
        Command::Aliases(args) => aliases::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Top(args) => top::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Check(args) => check::run(args),
        Command::Config(ConfigCommand::Check(args)) => config::check(args),
        Command::Detach(args) => detach::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn options_are_unset_unless_typed_so_that_the_file_applies() {
        let Ok(Command::Run(args)) = parse(["netfast", "run"].map(OsString::from)) else {
            panic!("not run")
        };
        assert!(args.config.config.is_none() && args.config.runtime.is_none() && args.config.docker_host.is_none());
        assert!(args.config.uplinks.is_empty());
        assert_eq!(args.dirs.pin_dir, PathBuf::from(DEFAULT_PIN_DIR));
        assert_eq!(args.dirs.run_dir, PathBuf::from(DEFAULT_RUN_DIR));
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        for exit in Exit::ALL {
            assert!(
                AFTER_HELP.contains(&format!("\n  {}  ", exit.code())),
                "{exit:?} is not in the help"
            );
        }
    }
}
