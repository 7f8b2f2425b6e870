//! `cargo xtask lint`: formatting, clippy, and the project's own rules.

use anyhow::Result;

use crate::{
    abi, layers,
    setup::{self, Scope},
    tidy,
    workspace::{cargo, show},
};

/// Options of `lint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Record the present state of the code that `ABI_VERSION` stands for, and check nothing.
    #[arg(long)]
    record_abi: bool,
}

/// The verb.
pub fn run(args: &Args) -> Result<()> {
    if args.record_abi {
        return abi::record();
    }
    setup::ensure(Scope::Build)?;
    show(cargo().args(["fmt", "--all", "--check"]))?;
    show(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    // What only a build for debugging has.
    show(cargo().args([
        "clippy",
        "--package",
        "netfast",
        "--package",
        "netfast-ebpf",
        "--features",
        "netfast/bpf-log",
        "--",
        "--deny",
        "warnings",
    ]))?;
    tidy::check()?;
    layers::check()?;
    abi::check()
}
