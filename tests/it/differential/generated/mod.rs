//! Generated cases: from a seed a host, rules, conversations and a script ([`netfast_tests::seeds`]), played with
//! netfast off and on.
//!
//! - [`arena`], [`wiring`], [`engine`], [`rules`]: the host's namespaces, their interfaces and addresses, and the
//!   rules in it;
//! - [`play`], [`talks`], [`host`], [`icmp`], [`packets`], [`events`]: a script, step by step;
//! - [`judges`], [`programs`]: what others attach;
//! - [`transfer`], [`datagrams`], [`relay`]: real sockets, and a program that sends on what it got;
//! - [`meddle`]: what happens to netfast itself meanwhile;
//! - [`settle`]: when netfast has heard of what happened;
//! - [`compare`]: what must be the same, and what differs by design;
//! - [`run`]: many seeds; a difference is confirmed, made smaller, and told.

use std::env;

use netfast_tests::require::{Need, needs};

mod arena;
mod compare;
mod datagrams;
mod engine;
mod events;
mod host;
mod icmp;
mod judges;
mod meddle;
mod packets;
mod play;
mod programs;
mod relay;
mod rules;
mod run;
mod settle;
mod talks;
mod transfer;
mod wiring;

/// The seeds that every run of the tests plays.
const FIXED: u64 = 80;

/// Which seeds, `FROM+COUNT`, instead of the fixed ones: set by `cargo xtask test differential --seeds`.
const SEEDS: &str = "NETFAST_SEEDS";
/// Which part of the only seed: set by `--keep`.
const KEEP: &str = "NETFAST_SEEDS_KEEP";
/// Where the coverage table goes as JSON.
const JSON: &str = "NETFAST_SEEDS_JSON";

#[test]
fn seeds() {
    if !needs(&[
        Need::Root,
        Need::Program("conntrack"),
        Need::Program("iptables-restore"),
        Need::Program("iptables-legacy"),
        Need::Program("ip6tables-restore"),
        Need::Program("ip6tables-legacy"),
        Need::Program("ebtables-nft"),
        Need::Program("nft"),
        Need::Program("tc"),
        Need::Program("bridge"),
    ]) {
        return;
    }
    let (from, count) = env::var(SEEDS).map_or((0, FIXED), |text| {
        let (from, count) = text.split_once('+').expect("FROM+COUNT");
        (from.parse().expect("a seed"), count.parse().expect("a number"))
    });
    if let Ok(text) = env::var(KEEP) {
        run::replay(from, Some(&text.parse().expect("a part of a scenario")));
    } else if count == 1 {
        run::replay(from, None);
    } else {
        run::seeds(from, count, env::var_os(JSON).map(Into::into));
    }
}
