//! `netfast generate`: the manual pages and shell completions of the command line, for packages. Not shown in the help.
//!
//! The program itself has the command, so that packaging compiles nothing besides it. The completions only tell the shell
//! to ask `netfast`, which knows what containers and networks there are (`COMPLETE=bash netfast` prints the same).

use std::{fs, io, path::Path};

use anyhow::Context as _;
use clap::Command;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::Man;

mod page;

use crate::cli::{self, CliError, Exit, Fail as _, GenerateArgs};

/// What the shell knows it by, and finds in its search path.
const NAME: &str = "netfast";
/// Commands for administrators (man-pages(7)).
const SECTION: &str = "8";

/// zsh reads the file when it completes for the first time, as the body of the function that is to do it (zshcompsys(1)):
/// what the file defines has to be called then.
const ZSH_FIRST: &str = "
if [ \"$funcstack[1]\" = \"_netfast\" ]; then
    _clap_dynamic_completer_netfast \"$@\"
fi
";

/// Runs the command.
pub fn run(args: &GenerateArgs) -> Result<(), CliError> {
    generate(&args.dir)
        .with_context(|| format!("cannot write to {}", args.dir.display()))
        .or_exit(Exit::Failed)
}

fn generate(dir: &Path) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let shells: [(&dyn EnvCompleter, &str); 3] = [(&Bash, "netfast.bash"), (&Zsh, "_netfast"), (&Fish, "netfast.fish")];
    for (shell, file) in shells {
        let mut script = Vec::new();
        shell.write_registration("COMPLETE", NAME, NAME, NAME, &mut script)?;
        if shell.is("zsh") {
            script.extend_from_slice(ZSH_FIRST.as_bytes());
        }
        fs::write(completions.join(file), script)?;
    }
    fs::write(man.join("netfast.toml.5"), page::page())?;
    let mut command = cli::command();
    command.build();
    pages(&command, &man)
}

/// A page for the command, and one for each below it.
fn pages(command: &Command, dir: &Path) -> io::Result<()> {
    // `netfast help CMD` prints these pages' text; it needs none of its own.
    let commands = command.get_subcommands().filter(|below| below.get_name() != "help");
    for below in commands.filter(|below| !below.is_hide_set()) {
        pages(below, dir)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone())
        .section(SECTION)
        .manual("netfast")
        .render(&mut page)?;
    fs::write(dir.join(format!("{name}.{SECTION}")), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_gets_a_page_and_every_shell_a_script() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        generate(dir.path()).expect("written");
        let has = |file: &str| dir.path().join(file).is_file();
        for page in ["netfast", "netfast-run", "netfast-config-check", "netfast-detach"] {
            assert!(has(&format!("man/{page}.8")), "{page}");
        }
        assert!(has("man/netfast.toml.5"));
        assert!(!has("man/netfast-generate.8"), "it is not for users");
        for script in ["netfast.bash", "_netfast", "netfast.fish"] {
            assert!(has(&format!("completions/{script}")), "{script}");
        }
        let page = fs::read_to_string(dir.path().join("man/netfast.8")).expect("a page");
        assert!(page.contains("status") && !page.contains("generate"), "{page}");
    }
}
