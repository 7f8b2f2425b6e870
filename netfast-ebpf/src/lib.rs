//! The BPF programs, in layers: a module names only modules of its own layer or a lower one.
//!
//! | layer | what it is |
//! | --- | --- |
//! | [`ctx`] | what the kernel gives: packet, maps, clocks; on the host `fake` takes its place |
//! | [`packet`] | headers: read and written |
//! | [`state`] | the maps |
//! | [`fastpath`] | the way of a packet whose flow is known |
//! | [`learn`] | what the kernel did to a packet, remembered |
//! | [`hooks`] | what happens at each hook |
//! | [`lb`], [`dns`], [`tunnel`] | virtual addresses; answers of Docker's resolver; packets that leave through a tunnel |
//! | [`resolver`] | the ports of Docker's resolver, in place of its NAT rules |
//! | [`localhost`] | the host's sockets that are led past docker-proxy |
//! | [`xdp`] | datagrams of known flows, straight from an uplink's driver to the container |
//! | [`openvswitch`] | what a datapath does with packets, besides sending them to a port |
//! | [`macvlan`] | frames between the host and its containers on a macvlan network |
//!
//! A packet enters at [`hooks`]: [`packet::parse`] → [`fastpath::gate`] → [`fastpath::lookup`] → [`fastpath::rewrite`] →
//! [`fastpath::redirect`], and on a miss [`learn::candidate`] → (the kernel's own path) → [`learn`] → [`learn::pairs`];
//! every way out passes [`fastpath::verdict`]. All checks come before the first write. Whatever is not understood is passed
//! on to the kernel, never dropped.
#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]

pub mod ctx;
pub mod dns;
pub mod fastpath;
pub mod hooks;
pub mod lb;
pub mod learn;
pub mod localhost;
pub mod macvlan;
pub mod openvswitch;
pub mod packet;
pub mod resolver;
pub mod state;
pub mod tunnel;
pub mod xdp;
