//! `netfast aliases`.

use crate::{
    cli::{AliasesArgs, CliError, Exit, Global, instance::Instance, output},
    snapshot,
};

/// Prints which names several containers share, and who was given to clients.
pub fn run(args: &AliasesArgs, global: &Global) -> Result<(), CliError> {
    let dirs = &global.dirs;
    let instance = Instance::open(dirs)?;
    let state = instance.known_state(dirs)?;
    let mut aliases = snapshot::aliases(Some(state), &instance.tables, &instance.flows).map_err(anyhow::Error::new)?;
    if let Some(name) = &args.name {
        aliases = aliases.select(name);
        if aliases.aliases.is_empty() {
            let message = format!("no two containers of a network share the name {name:?}");
            return Err(CliError::message(Exit::Failed, message).remedy("`netfast aliases` lists the names that are."));
        }
    }
    output::print_report(global.json, &aliases, |style| match args.name {
        Some(_) => aliases.render_details(style),
        None => aliases.render_list(style),
    })
}
