//! Pins that somebody else removes: the programs go with them, and come back.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use netfast_tests::{
    cmd,
    netfast_proc::{NetfastProc, Options},
    require::{Need, needs},
    topo,
};
use nix::sys::signal::Signal;

use super::{
    Marks, heard, names_below, programs, start, state,
    survive::{self, Load, must_be_fast},
};

const NEEDS: [Need; 2] = [Need::Root, Need::Kernel(6, 6)];
/// What must happen happens within this: links are looked at every half a minute.
const TIMEOUT: Duration = Duration::from_mins(1);

#[test]
fn a_bpffs_that_is_mounted_anew_costs_no_connection() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = survive::host();
    let host = topo.host();
    let before = Marks::of(host);
    let options = Options {
        own_bpffs: true,
        ..Options::no_runtime()
    };
    let mut netfast = NetfastProc::start(host, options).expect("netfast starts");
    let load = Load::start(&topo);
    must_be_fast(&netfast, "before");
    let (attached, pins) = (programs(host), names_below(netfast.pin_dir()));
    assert_eq!(attached.len(), 8);

    netfast.remount_bpffs().expect("mounted anew");
    let log = netfast.log();
    cmd::poll("all is pinned and attached again", TIMEOUT, || {
        (names_below(netfast.pin_dir()) == pins && programs(host) == attached).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", netfast.log()));
    assert!(!log.contains("removed by somebody else"), "{log}");
    assert!(netfast.log().contains("removed by somebody else"), "{}", netfast.log());
    must_be_fast(&netfast, "after it was mounted anew");

    // With nobody there to attach anew: the kernel carries all, until a daemon starts.
    netfast.stop(Signal::SIGKILL).expect("killed");
    netfast.remount_bpffs().expect("mounted anew");
    cmd::poll("the programs are gone", TIMEOUT, || {
        programs(host).is_empty().then_some(())
    })
    .expect("with their pins");
    netfast.launch().expect("the next one starts");
    assert_eq!(programs(host), attached);
    must_be_fast(&netfast, "with the next daemon");

    // And with nobody there, detach still knows what to restore.
    netfast.stop(Signal::SIGKILL).expect("killed");
    netfast.remount_bpffs().expect("mounted anew");
    netfast.detach().expect("detach");
    // The kernel lets go of a file system a moment after it was unmounted.
    cmd::poll("the host is as found", TIMEOUT, || {
        (Marks::of(host) == before).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", Marks::of(host)));
    load.end();
}

#[test]
fn a_link_that_is_unpinned_by_hand_is_attached_again() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let netfast = start(topo.host());
    let (attached, pins) = (programs(topo.host()), names_below(netfast.pin_dir()));
    let link = pins.iter().find(|pin| pin.contains("netfast_ep_in-")).expect("a link");
    let watch = netfast.abi_dir().join("links/netfast_queued");
    fs::remove_file(link).expect("unpinned");
    // Not every kernel has it.
    if watch.exists() {
        fs::remove_file(&watch).expect("unpinned");
    }
    cmd::poll("its program is gone", TIMEOUT, || {
        (programs(topo.host()).len() == attached.len() - 1).then_some(())
    })
    .expect("detached");
    cmd::poll("it is attached again", TIMEOUT, || {
        (programs(topo.host()) == attached).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", netfast.log()));
    assert_eq!(names_below(netfast.pin_dir()), pins);
    assert_eq!(state(&netfast)["in_sync"], true);
}

/// Whoever reads the tables knows who talks to whom.
#[test]
fn pins_are_root_s_alone() {
    if !needs(&NEEDS) {
        return;
    }
    let topo = heard(&topo::Options::default());
    let netfast = start(topo.host());
    let mode = |path: &Path| fs::metadata(path).expect("a pin").permissions().mode() & 0o777;
    for dir in [netfast.pin_dir().to_owned(), netfast.abi_dir()] {
        assert_eq!(mode(&dir) & 0o077, 0, "{}: {:o}", dir.display(), mode(&dir));
    }
    let pins = names_below(&netfast.abi_dir());
    assert!(pins.len() > 8, "{pins:?}");
    // A symbolic link has no mode of its own.
    for pin in pins.iter().map(Path::new).filter(|pin| !pin.is_symlink()) {
        assert_eq!(mode(pin) & 0o077, 0, "{}", pin.display());
    }
}
