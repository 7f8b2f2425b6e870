//! The README's tables of measurements: written from samples that are kept beside the documents, so that no number in them is typed,
//! and told when they are old.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::BufWriter,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::DateTime;
use clap::Parser;
use netfast_tests::cmd;

use crate::{
    bench::{self, Record},
    measure::{lab::Path, sample::Variant},
    workspace::root,
};

/// Samples older than this beside the newest commit are measured anew before anything goes in, seconds: 120 days.
const MAX_AGE: i64 = 120 * 24 * 60 * 60;

/// One table, by the mark that it stands behind in the README.
struct Measured {
    /// The mark, and the beginning of the names of its files.
    name: &'static str,
    /// `bench`'s options for each of its files; the first one's come first in a cell and give the number in brackets.
    runs: &'static [&'static str],
}

/// All tables.
const TABLES: [Measured; 2] = [
    Measured {
        name: "docker-20.10",
        runs: &["--rounds 5 --seconds 1 --metrics tcp1,tcp4,paced,udp,one-way,rr,crr,udp-new"],
    },
    Measured {
        name: "docker-28.5",
        runs: &[
            "--engine 28.5 --rounds 5 --seconds 1 --metrics tcp1,paced,udp,rr,crr,udp-new",
            "--engine 28.5 --rounds 5 --seconds 1 --metrics tcp1,paced,udp,rr,crr,udp-new --family ipv6",
        ],
    },
];

/// A table's rows: a figure, what it is called, and whether less of it is better.
const ROWS: [(&str, &str, bool); 8] = [
    ("udp_pps", "64-byte UDP packets/s", false),
    ("one_way_pps", "64-byte UDP packets/s, never answered", false),
    ("rr_p50", "TCP request/response, p50 latency", true),
    ("paced_cpu", "TCP, CPU time per KiB at 5 Gb/s", true),
    ("tcp4_gbps", "TCP, 4 streams, Gb/s", false),
    ("tcp1_gbps", "TCP, 1 stream, Gb/s", false),
    ("crr_rate", "new TCP connections/s", false),
    ("udp_new_rate", "new UDP conversations/s", false),
];

/// A table's columns.
const COLUMNS: [(Path, &str); 5] = [
    (Path::Docker0, "docker0"),
    (Path::User, "user-defined bridge"),
    (Path::Published, "published port"),
    (Path::Masquerade, "masquerade"),
    (Path::Host, "host to container"),
];

/// Options of `numbers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure the samples of these tables anew first: a quarter of an hour each, on a machine that does nothing else.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = TABLES.map(|table| table.name))]
    measure: Vec<String>,
}

/// `bench`'s options as a command line of their own.
#[derive(Parser)]
struct Bench {
    #[command(flatten)]
    args: bench::Args,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    for table in TABLES
        .iter()
        .filter(|table| args.measure.iter().any(|name| name == table.name))
    {
        for (number, options) in table.runs.iter().enumerate() {
            let words = ["bench"].into_iter().chain(options.split_whitespace());
            let (record, _) = bench::measure(&Bench::try_parse_from(words)?.args)?;
            let path = table.file(number);
            let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            serde_json::to_writer(BufWriter::new(file), &record).context("cannot write the samples")?;
        }
    }
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).context("cannot read the README")?;
    let new = written(&readme)?;
    fs::write(&path, new).context("cannot write the README")
}

/// Whether the README's tables are those of the samples, and these not too old.
#[expect(dead_code, reason = "asked by lint once there are samples")]
pub fn check() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md")).context("cannot read the README")?;
    ensure!(
        written(&readme)? == readme,
        "README.md: its tables of measurements are not those of docs/numbers: `cargo xtask numbers` writes them"
    );
    // Of the newest commit and not of today: what was right once must not fail later by itself.
    let Ok(newest) = cmd::run(
        Command::new("git")
            .current_dir(root())
            .args(["log", "-1", "--format=%ct"]),
    ) else {
        return Ok(());
    };
    let newest: i64 = newest.trim().parse().context("git printed no time")?;
    for table in &TABLES {
        for record in table.records()? {
            let age = newest.saturating_sub(i64::try_from(record.time)?);
            ensure!(
                age <= MAX_AGE,
                "docs/numbers: the samples of {} are {} days older than the newest commit: `cargo xtask numbers --measure {}`",
                table.name,
                age / (24 * 60 * 60),
                table.name
            );
        }
    }
    Ok(())
}

/// The README with each table as its samples have it.
fn written(readme: &str) -> Result<String> {
    let mut text = readme.to_owned();
    for table in &TABLES {
        let (begin, end) = (
            format!("<!-- cargo xtask numbers: {} -->\n", table.name),
            format!("<!-- end of {} -->", table.name),
        );
        let Some((before, rest)) = text.split_once(&begin) else {
            bail!("README.md: the mark {} is missing", begin.trim());
        };
        let Some((_, after)) = rest.split_once(&end) else {
            bail!("README.md: the mark {end} is missing");
        };
        let inside = table.text(&table.records()?)?;
        text = format!("{before}{begin}{inside}{end}{after}");
    }
    Ok(text)
}

impl Measured {
    fn file(&self, number: usize) -> PathBuf {
        let family = if number == 0 { "" } else { "-ipv6" };
        root().join("docs/numbers").join(format!("{}{family}.json", self.name))
    }

    fn records(&self) -> Result<Vec<Record>> {
        let read = |number| {
            let path = self.file(number);
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is not what `bench` writes", path.display()))
        };
        (0..self.runs.len()).map(read).collect()
    }

    /// What it was measured with, and the table.
    fn text(&self, records: &[Record]) -> Result<String> {
        let first = records.first().context("a table without samples")?;
        let time = DateTime::from_timestamp(i64::try_from(first.time)?, 0).context("no time")?;
        let commands: Vec<String> = self
            .runs
            .iter()
            .map(|run| format!("`cargo xtask bench {run}`"))
            .collect();
        let families = if records.len() > 1 { ", IPv4 / IPv6" } else { ", IPv4" };
        let mut text = format!(
            "{}{families}, {}: {}.\n\n|",
            first.engine,
            time.format("%-d %B %Y"),
            commands.join(" and\n")
        );
        for (_, title) in COLUMNS {
            write!(text, " | {title}")?;
        }
        text.push_str(" |\n|");
        text.push_str(&" --- |".repeat(COLUMNS.len() + 1));
        text.push('\n');
        for (figure, title, is_less_better) in ROWS {
            let cells: Vec<String> = COLUMNS.iter().map(|(path, _)| cell(records, *path, figure)).collect();
            if cells.iter().all(String::is_empty) {
                continue;
            }
            let less = if is_less_better { " (less)" } else { "" };
            writeln!(text, "| {title}{less} | {} |", cells.join(" | "))?;
        }
        Ok(text)
    }
}

/// netfast/kernel of each record, and the direct pair/kernel of the first.
fn cell(records: &[Record], path: Path, figure: &str) -> String {
    let ratio = |record: &Record, ours| record.samples.ratio_of(path, [ours, Variant::Kernel], figure);
    let ratios = records.iter().filter_map(|record| ratio(record, Variant::Netfast));
    let ours: Vec<String> = ratios.map(|spread| format!("{:.2}", spread.median)).collect();
    let limit = records.first().and_then(|record| ratio(record, Variant::Direct));
    match limit {
        Some(limit) if !ours.is_empty() => format!("{} ({:.2})", ours.join(" / "), limit.median),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_can_be_measured_by_its_command() {
        for options in TABLES.iter().flat_map(|table| table.runs) {
            let words = ["bench"].into_iter().chain(options.split_whitespace());
            assert!(Bench::try_parse_from(words).is_ok(), "{options}");
        }
    }

    #[test]
    fn a_cell_has_each_family_and_the_limit_of_the_first() {
        let record = |values: [f64; 3]| {
            let variants = ["direct", "kernel", "netfast"];
            let samples: Vec<serde_json::Value> = variants
                .iter()
                .zip(values)
                .map(|(variant, value)| {
                    serde_json::json!({"round": 1, "path": "user", "variant": variant, "values": {"udp_pps": value}})
                })
                .collect();
            let json = serde_json::json!({
                "time": 0, "kernel": "6.18", "cpus": 2, "docker": true, "engine": "Docker", "family": "ipv4",
                "published_ports": 0, "seconds": 1.0, "placement": "spread", "idle": "poll", "congestion": "cubic",
                "samples": samples,
            });
            serde_json::from_value::<Record>(json).expect("a record")
        };
        let records = [record([30.0, 10.0, 20.0]), record([9.0, 10.0, 15.0])];
        assert_eq!(cell(&records, Path::User, "udp_pps"), "2.00 / 1.50 (3.00)");
        assert_eq!(cell(&records, Path::Host, "udp_pps"), "");
        assert_eq!(cell(&records, Path::User, "rr_p50"), "");
    }
}
