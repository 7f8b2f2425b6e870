//! The same runs under another kernel, in an emulated machine: for tests of what this machine's kernel does not have.

use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result};

use super::{Row, Test, outcome::Outcome, play};
use crate::vm;

/// Before each part of what the machine says.
const MARK: &str = "@@ ";
/// Runs a test: what it says, between marks. `$netfast` is the program or nothing; the rest of the words are play's.
const RUN: &str = r#"
play() {
    mode=$1 program=$2 pings=$3 cwd=$4
    shift 4
    rm -rf /tmp/mounts /tmp/seen
    mkdir -p /tmp/mounts /tmp/seen
    cp "$scripts/ip.sh" /tmp/seen/ip
    [ "$pings" = false ] || cp "$scripts/ping.sh" /tmp/seen/ping
    chmod 755 /tmp/seen/*
    timeout --kill-after=10 "$seconds" unshare --net --mount --pid --fork --ipc --uts --kill-child --propagation private \
        sh "$scripts/enter.sh" /tmp/mounts "$root" "$tests" /tmp/seen "$program" "$cwd" "$@" >/tmp/said 2>&1 </dev/null
    echo "@@ $mode $1 $?"
    cat /tmp/said
    echo "@@ counted"
    cat /tmp/seen/counted 2>/dev/null
    echo "@@ done"
}
"#;

/// Runs each test both ways on the newest kernel of a series.
pub fn rows(bench: &play::Bench, series: &str, tests: &[&Test]) -> Result<Vec<Row>> {
    let program = bench.program.display();
    let mut lines = format!(
        "scripts={} root={} tests={} seconds={}\n{RUN}",
        crate::workspace::root().join("xtask/src/foreign").display(),
        bench.root.display(),
        bench.tests.display(),
        bench.seconds
    );
    for test in tests {
        for (mode, program) in [("plain", String::new()), ("netfast", program.to_string())] {
            // Writing to a string cannot fail.
            let _ = writeln!(
                lines,
                "play {mode} '{program}' {} {} ./{} {}",
                test.pings,
                test.dir,
                test.name,
                test.arguments.join(" ")
            );
        }
    }
    // A run that takes too long is ended within the machine.
    let limit = Duration::from_secs((bench.seconds + 60) * 2 * tests.len() as u64);
    let said = vm::run_lines(series, &lines, limit)?;
    fs::create_dir_all(play::seen()?)?;
    fs::write(play::seen()?.join(format!("linux-{series}")), &said)?;
    tests
        .iter()
        .map(|test| {
            Ok(Row {
                name: format!("{}/{}", test.dir, test.name),
                plain: outcome(&said, "plain", test.name)?,
                with: outcome(&said, "netfast", test.name)?,
            })
        })
        .collect()
}

fn outcome(said: &str, mode: &str, name: &str) -> Result<Outcome> {
    let begin = format!("{MARK}{mode} ./{name} ");
    let (_, rest) = said
        .split_once(&begin)
        .with_context(|| format!("the machine said nothing of {name}"))?;
    let (code, rest) = rest.split_once('\n').context("a line ends")?;
    let (output, rest) = rest.split_once(MARK).context("its output ends")?;
    let counted = rest.split(MARK).next().unwrap_or_default();
    Ok(Outcome::new(code.trim().parse().ok(), output, counted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_is_found_between_its_marks() {
        let said = "boot\n@@ plain ./a.sh 0\r\nPASS: x\n@@ counted\n@@ done\n@@ netfast ./a.sh 1\r\nFAIL: x\n@@ counted\n\
                    \tattached\t3\t4\r\n@@ done\n";
        let found = ["plain", "netfast"].map(|mode| outcome(said, mode, "a.sh").expect("it is there"));
        assert_eq!(found[0].words(), "passes, 1 ok");
        assert_eq!(found[1].words(), "fails, 0 ok, 1 not: FAIL: x");
        assert_eq!((found[1].counted.fast, found[1].counted.slow), (3, 4));
        outcome(said, "plain", "b.sh").expect_err("it was not run");
    }
}
