//! Writes the man pages and shell completions of the command line, for packages:
//! `cargo run --package netfast --example generate -- DIR`. Not a part of netfast, which so need not carry it along.
//!
//! The completions only tell the shell to ask `netfast` itself, which knows what containers and networks there are
//! (`COMPLETE=bash netfast` prints the same).

use std::{env, fs, io, path::Path, process::ExitCode};

use clap::Command;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::Man;
use netfast::cli;

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

fn main() -> ExitCode {
    let Some(dir) = env::args_os().nth(1) else {
        return fail("usage: generate DIR");
    };
    match generate(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write to {}: {error}", Path::new(&dir).display())),
    }
}

#[expect(clippy::print_stderr, reason = "a program of its own")]
fn fail(text: &str) -> ExitCode {
    eprintln!("generate: {text}");
    ExitCode::FAILURE
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
