//! `netfast networks`.

use anyhow::Context as _;

use crate::{
    cli::{CliError, Dirs, Exit, Global, NetworksArgs, instance::Instance, output},
    report::{networks::Networks, tunnels},
};

/// Prints what the daemon knows of the networks, or of one.
pub fn run(args: &NetworksArgs, global: &Global) -> Result<(), CliError> {
    let mut networks = gather(&global.dirs)?;
    if let Some(name) = &args.name {
        networks = networks.select(name);
        if networks.networks.is_empty() {
            return Err(CliError::message(Exit::Failed, format!("there is no network {name:?}"))
                .remedy("`netfast networks` lists them."));
        }
    }
    output::print_report(global.json, &networks, |style| match args.name {
        Some(_) => networks.render_details(style),
        None => networks.render_list(style),
    })
}

/// What the daemon knows of all networks.
pub fn gather(dirs: &Dirs) -> Result<Networks, CliError> {
    let instance = Instance::open(dirs)?;
    let state = instance.known_state(dirs)?;
    let control = instance.tables.control().context("cannot read the switches")?;
    let told = instance.tables.tunnels().context("cannot read the tunnels")?;
    Ok(Networks::from(state.networks.as_slice())
        .under(control, state.learning_off.as_deref())
        .with_resolvers(&state.resolvers)
        .with_localhost(&state.localhost.ports)
        .with_tunnels(tunnels::gather(&state.tunnels, &told))
        .with_xdp(&state.xdp))
}
