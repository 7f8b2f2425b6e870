//! What scripts make of the packet ring's host ([`netfast_tests::scene`]): its conversations by number.

use netfast_tests::scene::{
    Dev, Pair, Way, between_bridges, bridged, hairpin, host_to_container, masquerade, published, transit,
};

/// Conversations that there can be, there and back. Scripts tell them by their place here, and all of them may be there at
/// once: so the hairpin is on ports of its own.
pub fn talks() -> [Pair; 7] {
    [
        bridged(),
        masquerade(),
        published(),
        hairpin(40001, 8081),
        between_bridges(),
        host_to_container(),
        transit(),
    ]
}

/// Whether the bridge device hands a way's packets to the host on their way: what scripts play of C's bridge is its
/// endpoint alone.
pub fn passes_bridge(way: &Way) -> bool {
    matches!(way.enters, Dev::A | Dev::B) && way.routed
}
