//! `netfast check`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use netfast_common::abi::Program;

use crate::{
    apply::{self, Mode, lacks::Without, verify},
    cli::{CheckArgs, CliError, ConfigArgs, Dirs, Exit, Global, config, lacking, output, run::typed},
    config::{Config, Runtime},
    daemon::localhost,
    host::Host,
    observe::{ObserveError, Observer, ObserverConfig, inside},
    plan::{Desired, Facts, XdpFacts, plan, wanted_resolvers},
    probe::{self, Attached},
    report::check::{self, Area, Check, Level, Line},
};

/// Looks at everything, prints it, and exits with what `netfast run` would exit with.
pub fn run(args: &CheckArgs, global: &Global) -> Result<(), CliError> {
    let check = gather(&args.config, &global.dirs)?;
    output::print_report(global.json, &check, |style| check.render(style))?;
    match check.fails_with {
        None => Ok(()),
        Some(exit) => Err(CliError::silent(exit)),
    }
}

/// Looks at everything.
pub fn gather(args: &ConfigArgs, dirs: &Dirs) -> Result<Check, CliError> {
    let config = Config::load(args.config.as_deref(), typed(args))
        .map_err(|error| CliError::new(Exit::BadConfig, error).remedy(config::REMEDY))?;
    let mut check = Check::default();
    let without = lacking::pretended();
    for tried in probe::try_all(&dirs.pin_dir, &dirs.run_dir) {
        let is_missed = without.tcx && tried.what == probe::TCX;
        check.add_tried(&if is_missed { probe::no_tcx() } else { tried });
    }
    if check.fails_with != Some(Exit::Privileges) {
        try_programs(&without, &mut check);
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let observed = runtime
        .context("cannot start the asynchronous runtime")?
        .block_on(observe(&config, &mut check));
    match observed {
        Ok(host) => look(&host, &config, !args.uplinks.is_empty(), &mut check),
        // It would only say again which privileges are missing.
        Err(_) if check.fails_with == Some(Exit::Privileges) => check.lines.push(Line::new(
            Area::Host,
            Level::Note,
            "host",
            "networks, interfaces and rules cannot be looked at without these privileges",
        )),
        Err(error) => {
            check.fail(Exit::Failed);
            check
                .lines
                .push(Line::new(Area::Host, Level::Fail, "netlink", error.to_string()));
        }
    }
    Ok(check)
}

/// Lets the verifier judge the programs themselves, those that `netfast run` would load.
fn try_programs(without: &Without, check: &mut Check) {
    let mode = if check.has(Level::Ok, probe::TCX) {
        Mode::Tcx
    } else {
        Mode::Clsact
    };
    match verify::load(mode, without) {
        Ok(tried) => check::programs(&tried, check),
        Err(error) => check::fail_programs(&format!("{:#}", anyhow::Error::new(error)), check),
    }
}

/// Observes once; without the runtime if that does not answer.
pub async fn observe(config: &Config, check: &mut Check) -> Result<Host, ObserveError> {
    let docker_host = (config.runtime == Runtime::Docker).then(|| config.docker_host.clone());
    let start = |docker_host| {
        Observer::start(ObserverConfig {
            docker_host,
            ..ObserverConfig::default()
        })
    };
    let (observer, _hints) = match start(docker_host).await {
        Err(ObserveError::Docker(error)) => {
            check.fail(Exit::RuntimeUnavailable);
            check.lines.push(check::no_runtime(&error.to_string()));
            start(None).await?
        }
        started => {
            let started = started?;
            let host = started.0.snapshot().await?;
            check.lines.push(check::runtime(&host.runtime));
            return Ok(host);
        }
    };
    observer.snapshot().await
}

/// Judges what was observed.
fn look(host: &Host, config: &Config, uplinks_typed: bool, check: &mut Check) {
    check
        .lines
        .extend(check::host(&host.served().sysctls, config.allow_accounting));
    let programs: BTreeMap<u32, Vec<Attached>> = host
        .served()
        .links
        .values()
        // One that went away meanwhile, or a kernel without tcx: nothing is known of it.
        .filter_map(|link| Some((link.ifindex, probe::attached(&link.name).ok()?)))
        .collect();
    let facts = Facts {
        queue_watch: check.has(Level::Ok, probe::WATCH) && !check.has(Level::Note, Program::Queued.name()),
        foreign: programs
            .iter()
            .map(|(ifindex, on_link)| (host.served().key(*ifindex), apply::foreign(on_link)))
            .collect(),
        localhost_off: localhost_off(check),
        localhost: localhost::Memory::default().look(host, config).map(Box::new),
        tunnels_off: refused(check, [Program::TunnelEgress, Program::TunnelUplink]),
        way_in_off: refused(check, [Program::TunnelIngress, Program::TunnelTaken]),
        xdp: xdp(host, config, check),
        ..Facts::default()
    };
    let desired = plan(host, config, &facts);
    for name in &desired.missing_uplinks {
        check.fail(if uplinks_typed { Exit::Usage } else { Exit::BadConfig });
        let line = Line::new(
            Area::Interfaces,
            Level::Fail,
            name.clone(),
            "there is no such interface to be an uplink",
        );
        check.lines.push(line.remedy("`ip link` lists the interfaces."));
    }
    check.lines.extend(check::networks(&desired));
    let namespaces = wanted_resolvers(host, config);
    let namespaces = namespaces
        .keys()
        .map(|loopback| (loopback.netns, loopback.pid))
        .collect();
    let inside = inside::look(&namespaces);
    check
        .lines
        .extend(check::resolvers(host, config, &inside, resolver_off(check).as_deref()));
    check.lines.extend(check::published(&desired));
    check.lines.extend(check::uplinks(&desired));
    check.lines.extend(check::interfaces(
        host.served(),
        concerned(host, &desired),
        &programs,
        probe::program_name,
    ));
    check.lines.extend(check::rules(&host.served().ruleset));
}

/// Why these programs cannot be used on this kernel, by what was tried before.
fn refused<const N: usize>(check: &Check, programs: [Program; N]) -> Option<String> {
    let mut refused = programs.iter().filter(|program| check.has(Level::Note, program.name()));
    if !check.has(Level::Ok, probe::TCX) {
        return Some("the kernel has no tcx (Linux 6.6)".into());
    }
    let program = refused.next()?.name();
    Some(format!("the kernel does not take the BPF program {program}"))
}

/// What XDP depends on, as the daemon would find it, by what was tried before.
fn xdp(host: &Host, config: &Config, check: &Check) -> XdpFacts {
    let mut facts = XdpFacts {
        off: refused(check, [Program::UplinkXdp]),
        ..XdpFacts::default()
    };
    apply::xdp::look(host, config, &mut facts);
    facts
}

/// Why Docker's rules for its resolver cannot be replaced on this kernel, by what was tried before.
fn resolver_off(check: &Check) -> Option<String> {
    if !check.has(Level::Ok, probe::TCX) {
        return Some("the kernel has no tcx (Linux 6.6)".into());
    }
    let name = Program::Resolver.name();
    check
        .has(Level::Note, name)
        .then(|| format!("the kernel does not take the BPF program {name} (Linux 6.15)"))
}

/// Why nobody can be led past docker-proxy on this kernel, by what was tried before.
fn localhost_off(check: &Check) -> Option<String> {
    let mut refused = Program::of_localhost().filter(|program| check.has(Level::Note, program.name()));
    let name = refused.next()?.name();
    Some(format!("the kernel does not take the BPF program {name}"))
}

/// What netfast would be attached to, and what it would be attached to if nothing stood in the way.
fn concerned(host: &Host, desired: &Desired) -> std::collections::BTreeSet<u32> {
    let endpoints = desired
        .networks
        .iter()
        .flat_map(|network| &network.endpoints)
        .filter_map(|endpoint| endpoint.ifindex);
    let bridges = desired.networks.iter().filter_map(|network| network.bridge_ifindex);
    let found = desired
        .devices
        .keys()
        .map(|device| device.ifindex)
        .chain(endpoints)
        .chain(bridges);
    found
        .filter(|ifindex| host.served().links.contains_key(ifindex))
        .collect()
}
