//! Containers whose veths are ports of an Open vSwitch bridge, as `ovs-docker` makes them: `cargo xtask vm --kernels 6.12 --only
//! netns::openvswitch`. Ignored elsewhere, not passed: the kernel that this is written on has no such datapath.
//!
//! - [`switch`]: a switch of a test's own;
//! - [`flows`]: what is learned, and what of a changed flow table, a mirror, a controller holds;
//! - [`ports`]: other ports than containers.

mod flows;
mod ports;
mod switch;
