//! `netfast report`: one archive about this host, for others. Each part is gathered by itself, so that one that hangs,
//! fails or panics costs nothing but itself: this is for hosts on which something is broken.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use crate::{
    cli::{CliError, ConfigArgs, Exit, Global, ReportFileArgs, check, config, networks, output, run::typed, status},
    config::{Config, RawConfig, Runtime},
    host::Host,
    observe::rules,
    report::{
        Style,
        bundle::{Bundle, Part},
        check::Check,
        redact::{Kind, Redactor},
    },
    state::{State, unix_ms},
};

mod facts;
mod log;
mod summary;

/// What the unit is given.
const CONFIG: &str = "/etc/netfast/netfast.toml";
/// How long a part may take. The verifier takes a few seconds on a slow machine; an engine that hangs takes for ever.
const LIMIT: Duration = Duration::from_secs(30);
/// How long an engine may take to tell its names.
const NAMES_LIMIT: Duration = Duration::from_secs(10);
/// How the archive is asked for on standard output.
const STDOUT: &str = "-";

/// Gathers, redacts and writes.
pub fn run(args: &ReportFileArgs, global: &Global) -> Result<(), CliError> {
    let dirs = global.dirs.clone();
    let given = with_default_file(&args.config);
    let mut redactor = Redactor::default();
    // Without the engine's names, the daemon's; without both, every word that is not netfast's own is replaced anyhow.
    let known = [
        within(NAMES_LIMIT, {
            let run_dir = dirs.run_dir.clone();
            move || {
                State::read(&run_dir)
                    .map_err(text_of)
                    .map(|state| names_of_state(state.as_ref()))
            }
        }),
        within(NAMES_LIMIT, {
            let given = given.clone();
            move || names_of_engine(&given)
        }),
        within(NAMES_LIMIT, || Ok(facts::host_names())),
    ];
    for (kind, name) in known.into_iter().flatten().flatten() {
        redactor.know(kind, &name);
    }

    let part = |file, what, text: Result<String, String>| Part { file, what, text };
    let (of_check, of_config, log) = (given.clone(), given.config, args.log.clone());
    let (of_status, of_networks) = (dirs.clone(), dirs.clone());
    let plain = Style::default();
    let parts = vec![
        part(
            "check.txt",
            "what `netfast check` says",
            within(LIMIT, move || {
                check::gather(&of_check, &dirs)
                    .map_err(text_of)
                    .map(|check| check.render(plain))
            }),
        ),
        part(
            "status.txt",
            "what `netfast status --verbose` says",
            within(LIMIT, move || {
                status::gather(&of_status)
                    .map_err(text_of)
                    .map(|status| status.render(plain, true))
            }),
        ),
        part(
            "networks.txt",
            "what `netfast networks` says, in detail",
            within(LIMIT, move || {
                let networks = networks::gather(&of_networks).map_err(text_of)?;
                Ok(format!(
                    "{}\n{}",
                    networks.render_list(plain),
                    networks.render_details(plain)
                ))
            }),
        ),
        part(
            "rules.txt",
            "numbers of rules by table and chain, and those that judge by the packet",
            within(LIMIT, || {
                let counts = rules::counts().map_err(text_of)?;
                let ruleset = rules::read().map_err(text_of)?;
                Ok(summary::of(&counts, &ruleset))
            }),
        ),
        part(
            "kernel.txt",
            "the kernel's release and settings that matter, the machine's size",
            within(LIMIT, || Ok(facts::kernel())),
        ),
        part(
            "netfast.toml",
            "what the configuration file comes to, without its comments",
            within(LIMIT, move || {
                let config = Config::load(of_config.as_deref(), RawConfig::default()).map_err(text_of)?;
                config::render(&config).map_err(text_of)
            }),
        ),
        part(
            "log.txt",
            "the daemon's last log lines",
            within(LIMIT, move || log::last(log.as_deref())),
        ),
    ];
    let bundle = Bundle::new(args.output.display().to_string(), parts, &mut redactor);
    let archive = bundle
        .archive(unix_ms(SystemTime::now()) / 1000)
        .context("cannot make the archive")?;
    if args.output == Path::new(STDOUT) {
        return to_stdout(&archive);
    }
    write(&args.output, &archive)?;
    output::print_report(global.json, &bundle, |style| bundle.render(style))
}

/// The archive itself is the output: nothing else is printed there.
fn to_stdout(archive: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(archive).and_then(|()| out.flush());
    Ok(written.context("cannot write to standard output")?)
}

/// A new file that its owner reads; one that is there may be somebody's.
fn write(file: &Path, archive: &[u8]) -> Result<(), CliError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut to| to.write_all(archive));
    written.map_err(|error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        let error = anyhow::Error::new(error).context(format!("cannot write {}", file.display()));
        let error = CliError::new(Exit::Failed, error);
        if exists {
            error.remedy("Name another one with --output.")
        } else {
            error
        }
    })
}

/// What the unit would be given, if nothing else is named.
fn with_default_file(args: &ConfigArgs) -> ConfigArgs {
    let default = || Some(PathBuf::from(CONFIG)).filter(|file| fs::exists(file).unwrap_or(false));
    ConfigArgs {
        config: args.config.clone().or_else(default),
        ..args.clone()
    }
}

/// Does it in a thread of its own, which is left behind if it takes too long.
fn within<T: Send + 'static>(
    limit: Duration,
    gather: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let gathered = catch_unwind(AssertUnwindSafe(gather));
        // Who waited has gone on.
        let _late = sender.send(gathered.unwrap_or_else(|_| Err("a fault in netfast itself (it panicked)".into())));
    });
    receiver
        .recv_timeout(limit)
        .unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

/// An error with its causes.
fn text_of(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

impl From<CliError> for anyhow::Error {
    fn from(error: CliError) -> Self {
        error.error
    }
}

type Names = Vec<(Kind, String)>;

/// Names that the daemon has written down, of containers that are gone by now among them.
fn names_of_state(state: Option<&State>) -> Names {
    let mut names = Names::new();
    for network in state.iter().flat_map(|state| &state.networks) {
        // Without a runtime these are names of interfaces, which stay if they are as such names are made.
        if network.bridge.as_ref() != Some(&network.name) {
            names.push((Kind::Network, network.name.clone()));
        }
        for endpoint in &network.endpoints {
            if !endpoint.container_id.is_empty() {
                names.push((Kind::Container, endpoint.container.clone()));
            }
        }
    }
    for alias in state.iter().flat_map(|state| &state.aliases) {
        names.push((Kind::Alias, alias.alias.clone()));
        names.push((Kind::Network, alias.network.clone()));
        let members = alias.members.iter();
        names.extend(members.map(|member| (Kind::Container, member.container.clone())));
    }
    names
}

/// Names that the container runtime knows now.
fn names_of_engine(args: &ConfigArgs) -> Result<Names, String> {
    let config = Config::load(args.config.as_deref(), typed(args)).or_else(|_| Config::load(None, typed(args)));
    let config = config.map_err(text_of)?;
    if config.runtime == Runtime::None {
        return Ok(Names::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut found = Check::default();
    let observed = check::observe(&config, &mut found);
    let host = runtime.map_err(text_of)?.block_on(observed).map_err(text_of)?;
    Ok(names_of_host(&host))
}

fn names_of_host(host: &Host) -> Names {
    let mut names = Names::new();
    let labels = |labels: &std::collections::BTreeMap<String, String>| -> Names {
        // Of netfast's own the values are words of netfast's.
        let others = labels.iter().filter(|(name, _)| !name.starts_with("netfast."));
        others.map(|(_, value)| (Kind::Label, value.clone())).collect()
    };
    for (id, network) in &host.networks {
        names.push((Kind::Network, network.name.clone()));
        names.push((Kind::Id, id.0.clone()));
        names.push((Kind::Id, id.short().to_owned()));
        names.extend(labels(&network.labels));
    }
    for (id, container) in &host.containers {
        names.push((Kind::Container, container.name.clone()));
        names.push((Kind::Id, id.0.clone()));
        names.push((Kind::Id, id.short().to_owned()));
        names.extend(labels(&container.labels));
        let aliases = container.attachments.iter().flat_map(|on| &on.aliases);
        names.extend(aliases.map(|alias| (Kind::Alias, alias.clone())));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_hangs_fails_or_panics_costs_only_itself() {
        let limit = Duration::from_millis(50);
        assert_eq!(within(limit, || Ok(1)), Ok(1));
        assert_eq!(within(limit, || Err::<u8, _>("broken".into())), Err("broken".into()));
        let hangs = within(limit, || {
            thread::sleep(Duration::from_secs(5));
            Ok(1)
        });
        assert_eq!(hangs, Err("no answer within 0 s".into()));
        let panics = within(Duration::from_secs(5), || -> Result<u8, String> {
            panic!("on purpose")
        });
        assert!(panics.is_err_and(|why| why.contains("panicked")));
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("report");
        write(&file, b"first").expect("written");
        let error = write(&file, b"second").expect_err("it is there");
        assert!(error.to_string().contains("--output"), "{error}");
        assert_eq!(fs::read(&file).expect("a file"), b"first");
    }
}
