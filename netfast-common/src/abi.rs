//! The contract between one build of the daemon and the BPF objects that it finds pinned.
//!
//! The number is part of the pin path, so a new ABI never reads an old pin.

/// Raised with every change of a map's key, value, meaning or type, or of a program's name.
/// `cargo xtask lint` compares the shared files with the hash recorded for this number.
pub const ABI_VERSION: u32 = 2;

/// What the name of every map and every program begins with: it is how netfast knows its own.
pub const PREFIX: &str = "netfast_";
/// The longest name that the kernel keeps of a map or a program (`BPF_OBJ_NAME_LEN`, less the zero).
pub const MAX_NAME: usize = 15;

/// The read-only variable that tells the programs in which network namespace they run: a
/// [`NetnsNumber`](crate::device::NetnsNumber), set before they are loaded.
pub const NETNS_VARIABLE: &str = "NETFAST_NETNS";

pub mod map;
pub mod program;

pub use program::{Hook, HookKind, Program};

/// Flows in use at once, by default. A flow is one direction of a conversation.
pub const DEFAULT_FLOWS: u32 = 256 * 1024;
/// Flows that wait for their reverse, by default. Small on purpose: what floods here evicts only its like.
pub const DEFAULT_UNREPLIED: u32 = 16 * 1024;
/// Bytes of the ring buffer of flows that wait to be vetted; a power of two. What does not fit is asked again.
pub const VET_BYTES: u32 = 256 * 1024;
/// Answers to them that were not looked at yet.
pub const VETTED: u32 = 16 * 1024;
/// Counters of packets of flows that are not known yet; a power of two.
pub const WARMUP: u32 = 64 * 1024;
/// Packets of each direction that the kernel carries before netfast learns a TCP connection, by default: an HTTP request
/// on a connection of its own has no more.
pub const DEFAULT_LEARN_AFTER: u8 = 3;
/// Endpoints, bridge devices and uplinks together. A Linux bridge has at most 1023 ports (`BR_MAX_PORTS`).
pub const MAX_DEVICES: u32 = 16 * 1024;
/// Time a flow may be used before one packet must ask the kernel again, in nanoseconds.
pub const DEFAULT_REVALIDATE_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_ours_and_each_is_there_once() {
        let maps = map::ALL.iter().map(|map| map.name);
        let names = || maps.clone().chain(Program::ALL.iter().map(|program| program.name()));
        for name in names() {
            assert!(name.len() <= MAX_NAME && name.starts_with(PREFIX), "{name:?}");
            assert_eq!(names().filter(|other| *other == name).count(), 1, "{name:?}");
        }
    }

    #[test]
    fn the_hook_of_a_device_is_that_of_its_program() {
        use crate::device::Kind;
        for kind in [Kind::Endpoint, Kind::Bridge, Kind::Uplink] {
            for hook in Hook::BOTH {
                let program = Program::of_device(kind, hook);
                assert_eq!(
                    (program.hook(), program.device_kind()),
                    (HookKind::Tcx(hook), Some(kind))
                );
                assert_eq!(Program::of_vips(hook).hook(), HookKind::Tcx(hook));
            }
        }
    }
}
