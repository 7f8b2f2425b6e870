//! Another version's leftovers: pins under another number, made here by giving ours that number.

use std::{fs, time::Duration};

use netfast_tests::{
    cmd,
    netfast_proc::NetfastProc,
    require::{Need, needs},
    topo,
};
use nix::sys::signal::Signal;

use super::{
    Marks, heard, names_below, programs, start, state,
    survive::{self, Load, must_be_fast},
};

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];
const BE_LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";

/// Ends the daemon and makes what it leaves another version's.
fn become_another(netfast: &mut NetfastProc) {
    netfast.stop(Signal::SIGKILL).expect("killed");
    fs::rename(netfast.pin_dir().join("v1"), netfast.pin_dir().join("v0")).expect("renamed");
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
    assert_eq!(programs(host), attached);
    netfast.launch().expect("the new version starts");
    assert_eq!(programs(host), attached, "attached once, and not twice");
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
    // It must be set again, and cannot be.
    host.set_sysctl(BE_LIBERAL, "0").expect("set");
    let (pin_dir, run_dir) = (netfast.pin_dir().display(), netfast.run_dir().display());
    let program = netfast_tests::programs::netfast().expect("the binary");
    let line = format!(
        "mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,ro /proc/sys/net && exec {} run --runtime \
         none --pin-dir {pin_dir} --run-dir {run_dir}",
        program.display()
    );
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", &line]);
    let done = cmd::finish(&mut command, Duration::from_secs(30)).expect("it ends");
    assert!(
        done.stderr
            .contains("cannot set net.netfilter.nf_conntrack_tcp_be_liberal"),
        "{}",
        done.stderr
    );
    assert!(!done.status.success());
    assert_eq!(programs(host), attached);
    assert_eq!(names_below(netfast.pin_dir()), pins);
    assert_eq!(state(&netfast)["sysctls"][0]["found"], "0");

    host.set_sysctl(BE_LIBERAL, "1").expect("set");
    netfast.launch().expect("it starts where it can");
    assert_eq!(programs(host), attached);
    netfast.detach().expect("detach");
    assert_eq!(Marks::of(host), before);
}
