//! Integration tests.

mod abi;
mod archive;
mod bpf_log;
mod cli;
mod daemon;
mod differential;
mod docker;
mod documents;
mod lab;
mod left;
mod metrics;
mod netns;
mod observe;
mod package;
mod packet;
mod reports;
mod top;
