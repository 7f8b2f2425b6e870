//! One run of one test, in namespaces and mounts of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use netfast_tests::{cmd, leftovers};

use super::{Test, outcome::Outcome};
use crate::workspace::target_dir;

/// The namespaces and mounts, as its own words say.
const ENTER: &str = include_str!("enter.sh");
/// `ip`, as the tests find it.
const IP: &str = include_str!("ip.sh");
/// `ping`, as some tests find it.
const PING: &str = include_str!("ping.sh");

/// What every run has in common.
pub struct Bench {
    /// The root with the tools.
    pub root: PathBuf,
    /// The tests, built.
    pub tests: PathBuf,
    /// netfast.
    pub program: PathBuf,
    /// How long a run may take.
    pub seconds: u64,
}

/// Where all runs' output is.
pub fn seen() -> Result<PathBuf> {
    Ok(target_dir()?.join("foreign/seen"))
}

impl Bench {
    /// Runs a test, with netfast or without.
    pub fn play(&self, test: &Test, with_netfast: bool) -> Result<Outcome> {
        let program = format!("./{}", test.name);
        let words: Vec<&str> = [program.as_str()]
            .into_iter()
            .chain(test.arguments.iter().copied())
            .collect();
        let dir = Self::seen_of(test.name, with_netfast)?;
        if test.pings {
            script(&dir.join("ping"), PING)?;
        }
        let done = self.enter(&dir, test.dir, &words, with_netfast)?;
        let output = format!("{}{}", done.stdout, done.stderr);
        fs::write(dir.join("output"), &output)?;
        let counted = fs::read_to_string(dir.join("counted")).unwrap_or_default();
        Ok(Outcome::new(done.status.code(), &output, &counted))
    }

    /// An empty directory for what one run says.
    pub fn seen_of(name: &str, with_netfast: bool) -> Result<PathBuf> {
        let dir = seen()?.join(format!("{name}-{}", if with_netfast { "netfast" } else { "plain" }));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        script(&dir.join("ip"), IP)?;
        Ok(dir)
    }

    /// Runs a command line in the root, in `cwd` below the tests.
    pub fn enter(&self, seen: &Path, cwd: &str, words: &[&str], with_netfast: bool) -> Result<cmd::Finished> {
        let mounts = leftovers::state_dir()?.join("foreign");
        fs::create_dir_all(&mounts)?;
        let limit = format!("{}", self.seconds);
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=10", &limit, "unshare"])
            .args(["--net", "--mount", "--pid", "--fork", "--ipc", "--uts", "--kill-child"])
            .args(["--propagation", "private", "sh", "-c", ENTER, "enter"])
            .arg(&mounts)
            .arg(&self.root)
            .arg(&self.tests)
            .arg(seen);
        if with_netfast {
            command.arg(&self.program);
        } else {
            command.arg("");
        }
        let done = cmd::finish(command.arg(cwd).args(words), Duration::from_secs(self.seconds + 30));
        leftovers::remove_dir(&mounts);
        done
    }
}

/// Writes a program of shell.
fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
