//! Events that are trouble: what the kernel refuses, loses or cannot hold.

use std::{fs, io::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use netfast_tests::cmd;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::bed::{Bed, ECHO, LIMIT};

/// Routes that come and go while the daemon cannot listen: several times what its socket holds.
const ROUTES: usize = 20_000;
/// A table so small that the load itself nearly fills it.
const SMALL_TABLE: &str = "flows = 1024\n";
/// Connections that want a place in it too.
const MANY: &str = "1500";
/// The container that comes late.
const LATE: &str = "late";
/// Interfaces' numbers that it may get: a veth pair is two.
const NEXT: u32 = 16;

/// Stops the daemon's listening, lets more happen than its sockets hold, and lets it go on.
pub fn overflow(bed: &Bed) -> Result<()> {
    let pid = bed.netfast.pid().context("netfast does not run")?;
    let process = Pid::from_raw(i32::try_from(pid)?);
    let before = dropped(bed)?;
    kill(process, Signal::SIGSTOP)?;
    let file = bed.netfast.run_dir().join("routes");
    let mut batch = fs::File::create(&file)?;
    for word in ["add", "del"] {
        for number in 0..ROUTES {
            let (high, low) = (number / 256, number % 256);
            writeln!(batch, "route {word} blackhole 10.{high}.{low}.0/24")?;
        }
    }
    let done = bed.host.in_host(&format!("ip -batch {}", file.display()));
    kill(process, Signal::SIGCONT)?;
    done?;
    let lost = dropped(bed)? - before;
    ensure!(lost > 0, "no notification was lost: this was no overflow");
    bed.await_in_sync()
}

/// Notifications that the kernel could not deliver, to whichever socket of the host's namespace.
fn dropped(bed: &Bed) -> Result<u64> {
    let table = bed
        .host
        .host()
        .run(|| fs::read_to_string("/proc/thread-self/net/netlink"))??;
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    let drops = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(drops.sum())
}

/// Gives the daemon a table that is too small, and more connections than fit.
pub fn full_table(bed: &mut Bed, traffic: &Path) -> Result<()> {
    fs::write(bed.netfast.run_dir().join("netfast.toml"), SMALL_TABLE)?;
    bed.restart(Signal::SIGTERM)?;
    let to = format!("{}:{ECHO}", bed.host.container_ip("server", "user")?);
    let traffic = traffic.display().to_string();
    let hold = [traffic.as_str(), "hold", &to, "--connections", MANY, "--seconds", "5"];
    let more = bed.host.container_netns("client")?.spawn(&hold)?.wait(LIMIT)?;
    let report: netfast_tests::traffic::hold::Report =
        serde_json::from_str(&more.stdout).with_context(|| format!("{more:?}"))?;
    ensure!(
        report.dead == 0,
        "{} of the connections that filled the table were lost",
        report.dead
    );
    Ok(())
}

/// Fills the table of devices, so that the entry of one more endpoint cannot be written; then makes room again.
pub fn map_write(bed: &Bed) -> Result<()> {
    let pin = bed.netfast.abi_dir().join("maps/netfast_devices");
    let shown = cmd::run(
        Command::new("bpftool")
            .args(["--json", "map", "show", "pinned"])
            .arg(&pin),
    )?;
    let map: Value = serde_json::from_str(&shown)?;
    let number = |name: &str| map[name].as_u64().with_context(|| format!("no {name} in {shown}"));
    let value = "00 ".repeat(usize::try_from(number("bytes_value")?)?);
    let (fill, empty) = (bed.netfast.run_dir().join("fill"), bed.netfast.run_dir().join("empty"));
    let (mut filling, mut emptying) = (fs::File::create(&fill)?, fs::File::create(&empty)?);
    for index in 0..u32::try_from(number("max_entries")?)? {
        let [a, b, c, d] = (1_000_000 + index).to_ne_bytes();
        // `DeviceKey`: the namespace that the daemon serves has the number 0.
        let key = format!("pinned {} key 0 0 0 0 {a} {b} {c} {d}", pin.display());
        writeln!(filling, "map update {key} value hex {value}")?;
        writeln!(emptying, "map delete {key}")?;
    }
    let batch = |file: &Path| cmd::finish(Command::new("bpftool").args(["batch", "file"]).arg(file), LIMIT);
    let filled = batch(&fill)?;
    ensure!(
        !filled.status.success(),
        "the table of devices has room for more than it says"
    );
    bed.host.run_container(LATE, "user", &[], &[])?;
    await_refusal(bed, "cannot access the map netfast_devices")?;
    // It ends at the first entry that never got in.
    batch(&empty)?;
    await_fast(bed)
}

/// Takes the names that the pins of one more endpoint's links would get; then gives them back.
pub fn unattachable(bed: &Bed) -> Result<()> {
    let links = bed.host.host().ip("-o link show")?;
    let numbers = links
        .lines()
        .filter_map(|line| line.split(':').next()?.parse::<u32>().ok());
    let last = numbers.max().context("no links")?;
    let dir = bed.netfast.abi_dir().join("links");
    let names: Vec<_> = (last + 1..=last + NEXT)
        .map(|ifindex| dir.join(format!("netfast_ep_in-0-{ifindex}")))
        .collect();
    for name in &names {
        fs::create_dir(name).with_context(|| format!("cannot make {}", name.display()))?;
    }
    bed.host.run_container(LATE, "user", &[], &[])?;
    await_refusal(bed, "cannot pin")?;
    for name in &names {
        fs::remove_dir(name).with_context(|| format!("cannot remove {}", name.display()))?;
    }
    await_fast(bed)
}

/// Unmounts and mounts the file system that the pins are in.
pub fn bpffs_remount(bed: &Bed) -> Result<()> {
    let links = bed.netfast.abi_dir().join("links");
    let count = || fs::read_dir(&links).map_or(0, Iterator::count);
    let before = count();
    bed.netfast.remount_bpffs()?;
    cmd::poll("all is attached again", LIMIT, || (count() == before).then_some(()))
}

/// Waits until the state says why the late container is not attached to.
fn await_refusal(bed: &Bed, why: &str) -> Result<()> {
    cmd::poll(&format!("the state says: {why}"), LIMIT, || {
        let state = bed.state().ok()?;
        (state["in_sync"] == false && state.to_string().contains(why)).then_some(())
    })
}

/// Waits until the late container is attached to.
fn await_fast(bed: &Bed) -> Result<()> {
    bed.await_in_sync()?;
    let status: Value = bed.netfast.status()?;
    let networks = status["networks"].as_array().context("no networks")?;
    let is_late = |endpoint: &&Value| endpoint["container"] == LATE;
    let mut endpoints = networks
        .iter()
        .flat_map(|network| network["endpoints"].as_array().into_iter().flatten());
    let late = endpoints.find(is_late).context("the late container is not known")?;
    ensure!(late["path"] == "fast", "the late container is slow: {late:#}");
    Ok(())
}
