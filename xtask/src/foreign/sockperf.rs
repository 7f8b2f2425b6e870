//! sockperf's ping-pong between two containers of a bridge, without and with netfast, in turn: a check of `cargo xtask bench` by a tool of
//! others.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use super::{outcome::Counted, play::Bench};

/// What it runs.
const SCRIPT: &str = include_str!("sockperf.sh");
/// Pairs of runs.
const ROUNDS: usize = 7;
/// Of a run.
const SECONDS: &str = "3";

/// A line for each protocol: medians of the round-trip times, and of the pairs' ratios with their spread.
pub fn table(bench: &Bench) -> Result<String> {
    let mut text = "\n| sockperf, 64 bytes | plain, µs | with netfast, µs | netfast/plain, median of 7 pairs | least to most | packets on the fast path |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for protocol in ["tcp", "udp"] {
        let (mut plain, mut with, mut ratios, mut fast) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let (before, _) = round_trip(bench, protocol, false)?;
            let (after, counted) = round_trip(bench, protocol, true)?;
            plain.push(before);
            with.push(after);
            ratios.push(after / before);
            fast += counted.fast;
        }
        for values in [&mut plain, &mut with, &mut ratios] {
            values.sort_by(f64::total_cmp);
        }
        let middle = ROUNDS / 2;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {protocol} | {:.1} | {:.1} | {:.2} | {:.2} to {:.2} | {fast} |",
            plain[middle],
            with[middle],
            ratios[middle],
            ratios[0],
            ratios[ROUNDS - 1],
        );
    }
    Ok(text)
}

/// The average round trip of one run, in microseconds.
fn round_trip(bench: &Bench, protocol: &str, with_netfast: bool) -> Result<(f64, Counted)> {
    let seen = Bench::seen_of(&format!("sockperf-{protocol}"), with_netfast)?;
    let words = ["sh", "-c", SCRIPT, "sockperf", protocol, SECONDS];
    let done = bench.enter(&seen, "net", &words, with_netfast)?;
    ensure!(done.status.success(), "sockperf failed: {}{}", done.stdout, done.stderr);
    let found = average(&done.stdout).with_context(|| format!("sockperf says no round trip: {}", done.stdout))?;
    let counted = std::fs::read_to_string(seen.join("counted")).unwrap_or_default();
    Ok((found, Counted::of(&counted)))
}

/// `sockperf: ====> avg-rtt=12.345 (std-dev=1.234)`
fn average(output: &str) -> Option<f64> {
    let (_, rest) = output.split_once("avg-rtt=")?;
    rest.split([' ', '\n']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_found_in_what_it_prints() {
        let output = "sockperf: Summary: Round trip is 25.504 usec\nsockperf: ====> avg-rtt=25.504 (std-dev=3.1)\n";
        assert_eq!(average(output), Some(25.504));
        assert_eq!(average("sockperf: ERROR"), None);
    }
}
