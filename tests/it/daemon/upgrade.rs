//! Another version's leftovers: pins under another number, made here by giving ours that number.

use std::{fs, time::Duration};

use netfast_tests::{
    cmd,
    netfast_proc::NetfastProc,
    netns::NetNs,
    require::{Need, needs},
    topo,
};
use nix::sys::signal::Signal;

use super::{
    Marks, heard, names_below, programs, start, state,
    survive::{self, Load, must_be_fast},
    wait_for,
};

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];
const BE_LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";

/// Ends the daemon and makes what it leaves another version's, with the names that links had before ABI 2.
fn become_another(netfast: &mut NetfastProc) {
    netfast.stop(Signal::SIGKILL).expect("killed");
    let older = netfast.pin_dir().join("v0");
    fs::rename(netfast.abi_dir(), &older).expect("renamed");
    for link in fs::read_dir(older.join("links")).expect("links") {
        let link = link.expect("an entry").path();
        let name = link.file_name().and_then(|name| name.to_str()).expect("a name");
        let name = match name.split('-').collect::<Vec<_>>()[..] {
            ["netfast_queued"] => "queued".to_owned(),
            [program, "0", ifindex] => format!("{ifindex}-{}", program.rsplit('_').next().expect("a hook")),
            _ => panic!("{name} is no name of a link on a host without containers"),
        };
        fs::rename(&link, older.join("links").join(name)).expect("renamed");
    }
}

/// Leaves the host and the state file as a version before 0.2 did, which set a sysctl for the whole host.
fn set_as_before(netfast: &NetfastProc, host: &NetNs) {
    host.set_sysctl(BE_LIBERAL, "1").expect("set");
    let path = netfast.run_dir().join("state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("a state")).expect("JSON");
    state["sysctls"] = serde_json::json!([
        { "name": "net.netfilter.nf_conntrack_tcp_be_liberal", "found": "0", "set": "1" }
    ]);
    fs::write(path, state.to_string()).expect("written");
}

/// The kernel lets go of an unpinned link a moment later.
fn must_be_attached_once(host: &NetNs, attached: &[String]) {
    cmd::poll("attached once, and not twice", Duration::from_secs(5), || {
        (programs(host) == attached).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", programs(host)));
}

#[test]
fn another_version_goes_once_the_new_one_is_attached() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = survive::host();
    let host = topo.host();
    let before = Marks::of(host);
    let mut netfast = start(host);
    let load = Load::start(&topo);
    must_be_fast(&netfast, "before");
    let (attached, pins) = (programs(host), names_below(netfast.pin_dir()));
    become_another(&mut netfast);
    set_as_before(&netfast, host);
    assert_eq!(programs(host), attached);
    netfast.launch().expect("the new version starts");
    must_be_attached_once(host, &attached);
    wait_for(
        &netfast,
        "the older version's sysctl is restored",
        Duration::from_secs(5),
        |state| state["sysctls"].as_array().is_some_and(Vec::is_empty),
    );
    assert_eq!(host.sysctl(BE_LIBERAL).expect("conntrack"), before.be_liberal);
    assert_eq!(names_below(netfast.pin_dir()), pins, "the old pins are gone");
    must_be_fast(&netfast, "after the upgrade");

    // Taken away while only the old version's are there: by a build that does not know what is in them.
    become_another(&mut netfast);
    netfast.detach().expect("detach");
    assert_eq!(Marks::of(host), before);
    assert!(!netfast.pin_dir().exists(), "pins are left");
    load.end();
}

/// A new version that cannot start must not take the old one's fast path along, nor the memory of what was changed.
#[test]
fn a_version_that_cannot_start_leaves_the_other_at_work() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let host = topo.host();
    let before = Marks::of(host);
    let mut netfast = start(host);
    let attached = programs(host);
    become_another(&mut netfast);
    let pins = names_below(netfast.pin_dir());
    set_as_before(&netfast, host);
    // It must pin its own, and cannot.
    let (pin_dir, run_dir) = (netfast.pin_dir().display(), netfast.run_dir().display());
    let program = netfast_tests::programs::netfast().expect("the binary");
    let line = format!(
        "mount -o remount,bind,ro /sys/fs/bpf && exec {} run --runtime none --pin-dir {pin_dir} --run-dir {run_dir}",
        program.display()
    );
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", &line]);
    let done = cmd::finish(&mut command, Duration::from_secs(30)).expect("it ends");
    assert!(done.stderr.contains("Read-only file system"), "{}", done.stderr);
    assert!(!done.status.success());
    assert_eq!(programs(host), attached);
    assert_eq!(names_below(netfast.pin_dir()), pins);
    assert_eq!(state(&netfast)["sysctls"][0]["found"], "0");

    netfast.launch().expect("it starts where it can");
    must_be_attached_once(host, &attached);
    netfast.detach().expect("detach");
    assert_eq!(Marks::of(host), before);
}
