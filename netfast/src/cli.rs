//! The command line: what may be typed, what each command exits with, how errors are printed.
//!
//! Each command is one file below, with one function `run` that gets its arguments as typed and returns a
//! [`CliError`]. Errors inside the library are typed; they become text here, at the edge, and nowhere else.

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

pub mod aliases;
mod args;
pub mod check;
pub mod complete;
pub mod config;
pub mod detach;
pub mod error;
pub mod explain;
pub mod flows;
pub mod generate;
pub mod instance;
mod lacking;
pub mod logging;
pub mod networks;
pub mod output;
pub mod report;
pub mod run;
pub mod status;
pub mod top;
pub mod trace;

pub use args::*;
pub use error::{CliError, Fail, Said};

pub use crate::exit::Exit;

const LONG_ABOUT: &str = "\
Moves the packets of containers through the host in one hop.

The first packets of every connection take the kernel's ordinary path: bridge, netfilter, NAT, routing. netfast sees \
what the kernel did to them and does the same to the packets that follow, in eBPF, in one step. It asks the kernel again about every \
live flow once a second, and at once when rules, routes or addresses change. Whatever it does not know, it leaves to \
the kernel.";

const AFTER_HELP: &str = "\
Exit codes:
  0  success
  1  failed; the message says why
  2  the command line is wrong
  3  the configuration file is wrong
  4  privileges are missing
  5  the kernel lacks something that netfast needs
  6  Docker is not reachable at start, and --wait was not given
  7  netfast is not running here and nothing of it is attached
  8  another netfast runs with the same --run-dir, or on the same interfaces with others

Environment:
  NETFAST_LOG      what is logged to stderr, as tracing filters: info (the default of `run`),
                   debug, netfast::observe=trace, ...
  NETFAST_PIN_DIR  --pin-dir, where it is not given
  NETFAST_RUN_DIR  --run-dir, where it is not given
  STATE_DIRECTORY  --state-dir of `run`, where it is not given (systemd sets it)

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
    max_term_width = 100
)]
struct Cli {
    /// Print JSON, with stable keys, instead of text (as --json after the command does)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dirs: Dirs,
    #[command(subcommand)]
    command: Command,
}

/// One command with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    ///
    /// Attaches to the containers' interfaces, to their bridges and to the uplinks, and keeps that in sync with Docker
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
    /// The first line is the verdict. With the name of a network or a container, only that is shown.
    ///
    /// Works while netfast is attached, also when the daemon itself is not running; exits with 7 otherwise.
    Status(StatusArgs),
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
    /// List names that several containers of a network share, and how often each container was returned to clients
    ///
    /// Docker's resolver answers such a name (`--network-alias`, a service of Compose) with all that have it, in a random
    /// order, and clients take the first. netfast lets each answer begin with the next. Without NAME, one line per name;
    /// with it, its members: addresses, health, whether clients are given them, and how often each was first.
    ///
    /// GIVEN counts answers that netfast put in order (rr), or connections to the virtual address (vip), since netfast was
    /// attached. EVENNESS is the smallest count of an eligible member divided by the largest, for virtual addresses per
    /// unit of weight: 1.000 means equal shares, 0.500 that one member got half as many as another.
    Aliases(AliasesArgs),
    /// List learned flows
    ///
    /// A flow is one direction of one connection: addresses and ports as its packets enter and as they leave, the way
    /// out, packets and bytes on the fast path, its age, and for how long it has been idle. Busiest first.
    ///
    /// With --follow, one JSON object a line: "event" is "found" (it was there at the start), "open", "bytes" (it has
    /// carried packets since) or "close"; the rest is as with --json. The tables are walked every two seconds, so flows that
    /// come and go in between are not seen. With 129,000 flows that takes 5 to 6 % of a CPU and 80 MiB; the daemon and the
    /// packets have no part in it.
    Flows(FlowsArgs),
    /// Show packets as they enter, with what became of each: fast, or slow and why
    ///
    /// Sees packets on the fast path too, which tcpdump on a bridge or on the host's side of a veth does not. FILTER is
    /// as tcpdump's: tcp, udp, icmp, icmp6, host ADDRESS or CONTAINER, net NETWORK, port NUMBER, the last three after src or dst
    /// or neither, joined by and, or, not and brackets; and fast, slow, reason NAME. Words without an operator between
    /// them are joined by "and". Addresses and ports are those with which a packet enters, protocols and ports those of
    /// IPv4. With --pcap the first 160 bytes of each packet go to a file for tcpdump or Wireshark, with the verdict as its
    /// comment; "-" is standard output, for `| tcpdump -r -`.
    ///
    /// While nobody traces, it costs nothing. What is left out, by --sample, by --limit, or because the reader was too
    /// slow, is counted and told at the end. --limit applies before or, not, net, src and dst, which netfast evaluates
    /// after the programs.
    Trace(TraceArgs),
    /// Say whether a container's traffic goes fast, and if not, why
    ///
    /// CONTAINER is a name or the beginning of an ID; DEST an address, another container, or a name that several share.
    /// Looks at the container's interfaces, at where the kernel would route the packets, at what netfast is attached to
    /// on their way, and at the flows that there are already. Every cause comes with what can be done about it.
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
    /// Write one archive that tells others about this host, with names and addresses replaced
    ///
    /// For reports of faults: what `check`, `status` and `networks` say, how many rules the packet filter has in each chain,
    /// facts about the kernel, the configuration, and the daemon's last log lines, as texts in a .tar.gz, with one that says
    /// what the others are. Names of containers, networks and hosts, public addresses, MAC addresses, identifiers and every
    /// word that netfast's own messages do not use are replaced, each by the same pseudonym in all texts; private addresses
    /// of IPv4 (RFC 1918, RFC 6598), ports and counters stay. Nothing is sent anywhere.
    ///
    /// Works with and without a running daemon. Of what cannot be had, the archive and the list that is printed say why.
    /// Exits with 0 if the archive was written, whatever it says, and with 1 if it could not be.
    Report(ReportFileArgs),
    /// Work with the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Remove everything that is netfast's and leave the host as it was found
    ///
    /// Flows stop being used first, so every connection continues on the slow path. Then programs and pins are removed
    /// and changed sysctls restored. A running daemon is asked to stop first. Doing it again does nothing.
    Detach(DetachArgs),
    /// Print the version
    Version(ReportArgs),
    /// Write manual pages and shell completions to a directory, for packages
    #[command(hide = true)]
    Generate(GenerateArgs),
}

impl Command {
    /// Whether JSON was asked for after the command's name; `None` of a command that prints no report.
    const fn json(&self) -> Option<bool> {
        match self {
            Self::Run(_) | Self::Top(_) | Self::Generate(_) => None,
            Self::Status(StatusArgs { report, .. })
            | Self::Networks(NetworksArgs { report, .. })
            | Self::Aliases(AliasesArgs { report, .. })
            | Self::Flows(FlowsArgs { report, .. })
            | Self::Trace(TraceArgs { report, .. })
            | Self::Explain(ExplainArgs { report, .. })
            | Self::Check(CheckArgs { report, .. })
            | Self::Report(ReportFileArgs { report, .. })
            | Self::Config(ConfigCommand::Check(ConfigCheckArgs { report, .. }))
            | Self::Detach(DetachArgs { report, .. })
            | Self::Version(report) => Some(report.json),
        }
    }
}

/// The whole command line, for manuals and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Understands a command line. The error is help, the version, or what is wrong with it.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Command, Global), Said> {
    let Cli { json, dirs, command } = Cli::try_parse_from(args)?;
    let json = match (json, command.json()) {
        (true, None) => {
            let text = "this command prints no report, so --json says nothing to it";
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, text).into());
        }
        (before, after) => before || after.unwrap_or_default(),
    };
    Ok((command, Global { json, dirs }))
}

/// Runs a command to its end.
pub fn run(command: &Command, global: &Global) -> Result<(), CliError> {
    logging::init(matches!(command, Command::Run(_)))?;
    let global = &Global {
        dirs: instance::resolve(&global.dirs)?,
        ..global.clone()
    };
    match command {
        Command::Run(args) => run::run(args, global),
        Command::Status(args) => status::run(args, global),
        Command::Networks(args) => networks::run(args, global),
        Command::Aliases(args) => aliases::run(args, global),
        Command::Flows(args) => flows::run(args, global),
        Command::Top(args) => top::run(args, global),
        Command::Trace(args) => trace::run(args, global),
        Command::Explain(args) => explain::run(args, global),
        Command::Check(args) => check::run(args, global),
        Command::Report(args) => report::run(args, global),
        Command::Config(ConfigCommand::Check(args)) => config::check(args, global),
        Command::Detach(args) => detach::run(args, global),
        Command::Version(_) => version(global),
        Command::Generate(args) => generate::run(args),
    }
}

fn version(global: &Global) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let report = serde_json::json!({ "version": version });
    output::print_report(global.json, &report, |_| format!("netfast {version}\n"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn parsed(args: &[&str]) -> (Command, Global) {
        parse(args.iter().map(OsString::from)).unwrap_or_else(|said| panic!("{args:?}: {said:?}"))
    }

    #[test]
    fn what_holds_for_every_command_stands_before_it_or_after_it() {
        for args in [
            &["netfast", "--json", "--pin-dir", "/p", "--run-dir", "/r", "status"][..],
            &["netfast", "status", "--json", "--pin-dir", "/p", "--run-dir", "/r"],
            &["netfast", "--pin-dir", "/p", "status", "--run-dir", "/r", "--json"],
            &[
                "netfast",
                "--run-dir",
                "/r",
                "--json",
                "config",
                "check",
                "/file",
                "--pin-dir",
                "/p",
            ],
        ] {
            let (_, global) = parsed(args);
            assert!(global.json, "{args:?}");
            assert_eq!(
                (global.dirs.pin_dir, global.dirs.run_dir),
                (PathBuf::from("/p"), PathBuf::from("/r")),
                "{args:?}"
            );
        }
        assert!(parse(["netfast", "--json", "top"].map(OsString::from)).is_err());
    }

    #[test]
    fn help_and_version_are_commands_too() {
        for args in [
            &["netfast", "help", "trace"][..],
            &["netfast", "help", "config", "check"],
        ] {
            let said = parse(args.iter().map(OsString::from)).expect_err("help");
            assert!(format!("{said:?}").contains("Usage"), "{said:?}");
        }
        assert!(matches!(parsed(&["netfast", "version"]).0, Command::Version(_)));
    }

    #[test]
    fn the_names_of_tcpdump_s_options_are_known() {
        let (command, _) = parsed(&[
            "netfast", "trace", "-c", "3", "-w", "-", "-n", "-i", "web", "not", "port", "22",
        ]);
        let Command::Trace(args) = command else {
            panic!("not trace")
        };
        assert_eq!((args.count, args.pcap, args.numeric), (3, Some("-".into()), true));
        assert_eq!((args.container.as_deref(), args.filter.len()), (Some("web"), 3));
        let (command, _) = parsed(&["netfast", "status", "--watch", "web"]);
        let Command::Status(args) = command else {
            panic!("not status")
        };
        assert_eq!((args.watch, args.name.as_deref()), (Some(2.0), Some("web")));
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn options_are_unset_unless_typed_so_that_the_file_applies() {
        let (Command::Run(args), global) = parsed(&["netfast", "run"]) else {
            panic!("not run")
        };
        assert!(args.config.config.is_none() && args.config.runtime.is_none() && args.config.docker_host.is_none());
        assert!(args.config.uplinks.is_empty());
        assert_eq!(global.dirs.pin_dir, PathBuf::from(DEFAULT_PIN_DIR));
        assert_eq!(global.dirs.run_dir, PathBuf::from(DEFAULT_RUN_DIR));
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
