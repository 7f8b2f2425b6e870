//! The fuzzer's engine around one target, which `NETFAST_FUZZ_TARGET` names. `cargo xtask fuzz` builds it with coverage
//! counters, and starts it.
#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use netfast_fuzz::TARGETS;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env::var("NETFAST_FUZZ_TARGET").expect("NETFAST_FUZZ_TARGET names a target");
    let found = TARGETS.iter().find(|target| target.name == name);
    found.expect("a target of that name").run
});

fuzz_target!(|data: &[u8]| RUN(data));
