//! The path of a packet, in the order in which it meets the modules:
//!
//! [`hooks`] → [`parse`] → [`gate`] → [`lookup`] → [`rewrite`] → [`redirect`], and on a miss [`candidate`] → (the
//! kernel's own path) → [`learn`] → [`pairs`]; every way out passes [`verdict`].
//!
//! Only `main.rs` has program entry points, only [`maps`] has maps, only [`skb`] calls helpers on a packet, only
//! [`parse`] reads headers and only [`rewrite`] writes them. All checks come before the first write. Whatever is not
//! understood is passed on to the kernel, never dropped.
//!
//! The crate also builds for the host, with [`fake`] in the place of the kernel: for unit tests, and for the fuzzer.
#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]

pub mod atomic;
pub mod candidate;
pub mod checksum;
pub mod dns;
#[cfg(not(target_arch = "bpf"))]
pub mod fake;
pub mod family;
pub mod gate;
pub mod hooks;
pub mod kernel;
pub mod learn;
pub mod log;
pub mod lookup;
pub mod maps;
pub mod pairs;
pub mod parse;
pub mod redirect;
pub mod rewrite;
pub mod seen;
pub mod skb;
pub mod trace;
pub mod verdict;
pub mod vet;
pub mod vip;
