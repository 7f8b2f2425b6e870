//! netfast: library of the daemon and its commands.

pub mod abilities;
pub mod apply;
mod bpf;
mod bytes;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod diff;
#[cfg(test)]
mod document;
mod exit;
pub mod exporter;
#[cfg(feature = "fuzz")]
pub mod fuzz_entry;
pub mod health;
pub mod host;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod report;
pub mod snapshot;
pub mod state;
pub mod sys;
