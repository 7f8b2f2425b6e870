//! What the BPF programs and the daemon must agree on: map values, numbers and names.
//!
//! No I/O and no packet access here, so that both sides, and every host test, can depend on it.
//!
//! Byte order: addresses, ports and checksums are kept as they are on the wire (big-endian), inside types whose
//! fields are private, so that a comparison needs no conversion and nobody can forget one. Interface indexes,
//! counters and times are in the machine's order: they never leave it.
//!
//! No type here has padding: a map value is compared, hashed and dumped as bytes. The compiler refuses it (zerocopy's
//! derives, and `assert_no_padding!` for generic types).
#![no_std]

pub mod abi;
pub mod alias;
pub mod control;
pub mod csum;
pub mod device;
pub mod direct;
pub mod flow;
pub mod localhost;
pub mod macvlan;
pub mod net;
pub mod reason;
pub mod resolver;
pub mod trace;
pub mod tunnel;
mod verdicts;
pub mod vet;
pub mod vip;
pub mod xdp;

/// Refuses at compile time a type whose size is more than the sum of its fields.
#[macro_export]
macro_rules! assert_no_padding {
    ($type:ty, $($field:ty),+ $(,)?) => {
        const _: () = assert!(size_of::<$type>() == 0 $(+ size_of::<$field>())+, "padding");
    };
}
