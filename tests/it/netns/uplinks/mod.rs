//! Uplinks as hosts have them: bridges, devices without MAC headers, VLANs, bonds, several of them, and what happens to
//! them in mid-flow.
//!
//! - [`kinds`]: what each kind carries, and how fast;
//! - [`vm_only`]: kinds that need modules, for the kernels of `cargo xtask vm`;
//! - [`changes`]: what becomes another one, loses its address, its name, its port;
//! - [`routing`]: several uplinks;
//! - [`transit`]: from one to another;
//! - [`bridges`]: two bridges joined by a veth pair, as weave has them.

mod bridges;
mod changes;
mod kinds;
mod routing;
mod transit;
mod vm_only;
mod world;
