//! The kernel's interfaces: for each, one module that alone knows the crates that speak it.

pub mod ethtool;
pub mod netlink;
