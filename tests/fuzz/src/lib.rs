//! Fuzz targets: functions of bytes that must not panic, whatever the bytes are.
//!
//! - [`programs`]: a script of packets and events through the BPF programs' own code, on a faked kernel, with what must
//!   hold of every outcome; [`script`] is the script, and [`scene`] what it knows of the host that it plays on. The packet ring
//!   plays the same scripts on the real kernel and compares;
//! - [`parse`]: the parser alone, of either family;
//! - [`dns`]: messages through the program at a resolver's answers, against a model that reads and writes them its own
//!   way;
//! - [`vip`]: clients and members of virtual addresses;
//! - the others: everything that the daemon reads of what others wrote (`netfast::fuzz_entry`).
//!
//! `cargo xtask fuzz` runs them under libFuzzer. What it has found worth keeping is in tests/corpus
//! ([`netfast_tests::corpus`]), and the unit ring plays that.

pub mod dns;
pub mod machine;
pub mod parse;
pub mod programs;
pub mod scene;
pub mod script;
#[cfg(feature = "readers")]
mod targets;
pub mod vip;

#[cfg(feature = "readers")]
pub use targets::{TARGETS, Target};
