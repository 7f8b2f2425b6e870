//! Another pool of virtual addresses, while netfast runs.

use std::fs;

use netfast_tests::{
    cmd,
    require::{Need, needs},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Bed, WEB, connections, shop};
use crate::docker::bed::{TIMEOUT, options};

/// For a moment the name has two addresses: what the new one needs must not go with the old one.
#[test]
fn names_get_addresses_of_another_pool_and_they_work() {
    if !needs(&[Need::Root, Need::Docker]) {
        return;
    }
    let host = shop(&[]);
    let options = options(&host, Some("vip_pool = \"198.19.0.0/16\""));
    let bed = Bed {
        netfast: netfast_tests::netfast_proc::NetfastProc::start(host.host(), options).expect("netfast starts"),
        host,
    };
    let client = bed.ns("client");
    let old = bed.await_vip("shop", 3, &["client"]);
    let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&client, old, 30));
    assert_eq!(opened, [10; 3]);

    let file = bed.netfast.run_dir().join("netfast.toml");
    fs::write(file, "vip_pool = \"10.99.0.0/24\"").expect("a configuration");
    let pid = i32::try_from(bed.netfast.pid().expect("it runs")).expect("a process");
    kill(Pid::from_raw(pid), Signal::SIGHUP).expect("it hears");
    let is_new = || {
        let vip = bed.web("shop")?["vip"].as_str()?.to_owned();
        vip.starts_with("10.99.0.").then_some(())
    };
    cmd::poll("an address of the new pool", TIMEOUT, is_new).expect("it is given");
    let new = bed.await_vip("shop", 3, &["client"]);
    let opened = bed.rise(&WEB, "Tcp", "PassiveOpens", || connections(&client, new, 30));
    assert_eq!(opened, [10; 3]);
}
