//! Laboratory for tests, demo and benchmarks: Docker hosts in network namespaces, and a traffic generator.
//!
//! - [`docker_host`]: a real dockerd in a namespace of its own, with an outside client;
//! - [`topo`]: the same shape from plain namespaces, for machines that cannot run dockerd and for exact topologies;
//! - [`site`]: what both have in common, a host with an uplink and an outside client;
//! - [`netfast_proc`]: the netfast binary, run in such a host;
//! - [`swarm`]: a swarm of two Docker hosts;
//! - [`systemd`]: a machine under a real systemd, in such a host;
//! - [`listing`]: what software may leave on a host;
//! - [`netns`], [`cmd`], [`leftovers`]: namespaces, programs, and their end;
//! - [`traffic`]: what the `netfast-traffic` binary does, and its reports;
//! - [`require`]: what a test needs of the machine;
//! - [`seccomp`]: programs that find a kernel without some system call;
//! - [`seeds`]: generated differential tests, the pure part;
//! - [`packet`], [`scene`]: packets, and the host that the rows of the packet ring and the fuzz targets play on;
//! - [`matrix`]: what tests of paths tell of engines;
//! - [`corpus`]: what the fuzz targets have kept;
//! - [`documents`]: what documents tell people to type.
//!
//! Nothing here depends on netfast or aya, only on netfast-common, which is plain Rust: `cargo xtask setup` uses it before
//! a BPF toolchain exists. Everything is removed when dropped, panics included; see [`leftovers`] for crashes.

pub mod cmd;
pub mod corpus;
pub mod dns;
pub mod docker_host;
pub mod documents;
pub mod frames;
pub mod hosts;
pub mod leftovers;
pub mod listing;
pub mod matrix;
pub mod netfast_proc;
pub mod netns;
pub mod packet;
pub mod programs;
pub mod require;
pub mod scene;
pub mod seccomp;
pub mod seeds;
pub mod site;
pub mod swarm;
pub mod systemd;
pub mod topo;
pub mod traffic;
pub mod worlds;
